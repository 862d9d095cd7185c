//! What clients ask for: a little of everything, below a few znodes, so that they get in each other's
//! way.

use bytes::Bytes;
use znodefs::CreateMode;
use znodefs::acl::Acl;
use znodefs::wire::Request;
use znodefs::wire::request::CreateRequest;
use znodefs_tests::Random;

use crate::record::{DIRECTORIES, NAMES, Record};

/// One of the znodes that everything is about.
pub fn path(record: &Record, random: &mut Random) -> String {
    let directory = record.directory(random.between(0, DIRECTORIES));
    format!("{directory}/{}", random.between(0, NAMES))
}

/// A value as bytes.
pub fn data(value: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(value.as_bytes()))
}

/// A creation that everybody may undo.
pub fn create<'a>(path: &'a str, value: &str, mode: CreateMode) -> Request<'a> {
    Request::Create(CreateRequest::new(path, data(value), Acl::open(), mode, 0))
}

/// One of the things that clients do.
pub enum Step<'a> {
    /// One request.
    One(Request<'a>),
    /// The second one when the first is answered.
    Behind(Request<'a>, Request<'a>),
    /// All on their way at once.
    Pipelined(Vec<Request<'a>>),
    /// Sets what it has read, if nobody else did meanwhile.
    CompareAndSet(&'a str),
}

/// Chooses one. `path` and `other` are any of the znodes, `prefix` is what the counter of a sequential
/// one is appended to.
pub fn choose<'a>(
    random: &mut Random,
    (path, other, prefix): (&'a str, &'a str, &'a str),
    value: &str,
) -> Step<'a> {
    let set =
        |more: &str| Request::SetData { path, data: data(&format!("{value}{more}")), version: -1 };
    let watch = random.between(0, 2) == 0;
    Step::One(match random.between(0, 22) {
        0..3 => create(path, value, CreateMode::Persistent),
        3..5 => create(path, value, CreateMode::Ephemeral),
        5 => create(prefix, value, CreateMode::EphemeralSequential),
        6..9 => set(""),
        9..11 => return Step::CompareAndSet(path),
        11..13 => Request::Delete { path, version: -1 },
        13 => Request::Multi(vec![set(""), create(other, value, CreateMode::Persistent)]),
        14 => {
            let get = || Request::GetData { path, watch: false };
            return Step::Pipelined(vec![set("a"), get(), set("b"), get()]);
        }
        15..18 => {
            let get = Request::GetData { path, watch: false };
            return Step::Behind(Request::Sync { path }, get);
        }
        18 => Request::GetData { path, watch },
        19 => Request::Exists { path, watch },
        _ => Request::GetChildren2 { path: znodefs::path::parent(path).unwrap_or("/"), watch },
    })
}
