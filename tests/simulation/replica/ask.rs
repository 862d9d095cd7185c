//! What simulated clients ask for.

use bytes::{Bytes, BytesMut};
use znodefs::wire::request::{CreateRequest, put_request};
use znodefs::wire::{AddWatchMode, OpCode, Request, WatchSets};
use znodefs::{Acl, CreateMode, Zxid};

use super::invariants::watches::Kind;
use super::world::World;
use crate::random::Random;

/// Znodes that clients write to; each may have a few children.
const REGISTERS: usize = 5;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Create {
        path: String,
        data: String,
        mode: CreateMode,
    },
    Delete {
        path: String,
        version: i32,
    },
    Set {
        path: String,
        data: String,
        version: i32,
    },
    Check {
        path: String,
        version: i32,
    },
    Multi(Vec<Ask>),
    Exists {
        path: String,
        watch: bool,
    },
    Get {
        path: String,
        watch: bool,
    },
    Children {
        path: String,
        watch: bool,
    },
    Sync,
    SetWatches {
        seen: Zxid,
        watches: Vec<(Kind, String)>,
        recursive: bool,
    },
    WatchAll,
    /// Other members, all named at once or only the changes, in place of those of a version.
    Reconfigure {
        joining: String,
        leaving: String,
        members: String,
        at_once: bool,
        version: Zxid,
    },
    Ping,
    Close,
}

/// A request that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub xid: i32,
    pub ask: Ask,
    /// The newest state that anyone had seen when it was asked.
    pub floor: Zxid,
}

impl Ask {
    /// Whether it makes a transaction.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Ask::Create { .. }
                | Ask::Delete { .. }
                | Ask::Set { .. }
                | Ask::Multi(_)
                | Ask::Reconfigure { .. }
                | Ask::Close
        )
    }

    /// The znode it is about.
    pub fn path(&self) -> Option<&str> {
        match self {
            Ask::Create { path, .. }
            | Ask::Delete { path, .. }
            | Ask::Set { path, .. }
            | Ask::Check { path, .. }
            | Ask::Exists { path, .. }
            | Ask::Get { path, .. }
            | Ask::Children { path, .. } => Some(path),
            _ => None,
        }
    }

    /// How its answer is read.
    pub fn op_code(&self) -> OpCode {
        self.with_request(|request| request.op_code())
    }

    /// The bytes of the request.
    pub fn encode(&self, xid: i32) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.with_request(|request| put_request(&mut out, xid, request));
        out.to_vec()
    }

    fn with_request<T>(&self, take: impl FnOnce(&Request<'_>) -> T) -> T {
        match self {
            Ask::Multi(operations) => {
                let operations = operations.iter().map(Ask::simple).collect();
                take(&Request::Multi(operations))
            }
            Ask::SetWatches { seen, watches, recursive } => {
                let of = |wanted: Kind| {
                    let found = watches.iter().filter(move |(kind, _)| *kind == wanted);
                    found.map(|(_, path)| path.as_str()).collect()
                };
                let persistent_recursive = if *recursive { vec!["/"] } else { Vec::new() };
                let sets = WatchSets {
                    relative_zxid: *seen,
                    data: of(Kind::Data),
                    exists: of(Kind::Exists),
                    children: of(Kind::Children),
                    persistent: Vec::new(),
                    persistent_recursive,
                };
                take(&Request::SetWatches2(sets))
            }
            other => take(&other.simple()),
        }
    }

    fn simple(&self) -> Request<'_> {
        match self {
            Ask::Create { path, data, mode } => {
                let data = Some(Bytes::copy_from_slice(data.as_bytes()));
                let mut create = CreateRequest::new(path, data, Acl::open(), *mode, 0);
                create.op_code = OpCode::Create2;
                Request::Create(create)
            }
            Ask::Delete { path, version } => Request::Delete { path, version: *version },
            Ask::Set { path, data, version } => Request::SetData {
                path,
                data: Some(Bytes::copy_from_slice(data.as_bytes())),
                version: *version,
            },
            Ask::Check { path, version } => Request::Check { path, version: *version },
            Ask::Exists { path, watch } => Request::Exists { path, watch: *watch },
            Ask::Get { path, watch } => Request::GetData { path, watch: *watch },
            Ask::Children { path, watch } => Request::GetChildren2 { path, watch: *watch },
            Ask::Sync => Request::Sync { path: "/" },
            Ask::WatchAll => {
                let mode = AddWatchMode::PersistentRecursive.code();
                Request::AddWatch { path: "/", mode }
            }
            Ask::Reconfigure { joining, leaving, members, at_once, version } => Request::Reconfig {
                joining: Some(joining.as_str()).filter(|_| !at_once),
                leaving: Some(leaving.as_str()).filter(|_| !at_once),
                new_members: Some(members.as_str()).filter(|_| *at_once),
                current_config_id: version.0,
            },
            Ask::Ping | Ask::Multi(_) | Ask::SetWatches { .. } => Request::Ping,
            Ask::Close => Request::CloseSession,
        }
    }
}

fn register(random: &mut Random) -> String {
    format!("/r{}", random.below(REGISTERS))
}

fn some_path(random: &mut Random) -> String {
    let register = register(random);
    match random.below(3) {
        0 => register,
        1 => format!("{register}/c{}", random.below(3)),
        _ => format!("{register}/e{}", random.below(3)),
    }
}

/// A version that often is the right one.
fn some_version(random: &mut Random) -> i32 {
    match random.below(3) {
        0 => random.below(4) as i32,
        _ => -1,
    }
}

fn some_write(random: &mut Random, data: &str) -> Ask {
    let data = data.to_owned();
    match random.below(20) {
        0..=1 => Ask::Create { path: register(random), data, mode: CreateMode::Persistent },
        2..=4 => {
            let path = format!("{}/c{}", register(random), random.below(3));
            Ask::Create { path, data, mode: CreateMode::Persistent }
        }
        5..=7 => {
            let path = format!("{}/e{}", register(random), random.below(3));
            Ask::Create { path, data, mode: CreateMode::Ephemeral }
        }
        8 => {
            let path = format!("{}/s-", register(random));
            Ask::Create { path, data, mode: CreateMode::EphemeralSequential }
        }
        9 => {
            let path = format!("{}/e{}/below", register(random), random.below(3));
            Ask::Create { path, data, mode: CreateMode::Persistent }
        }
        10..=12 => {
            let path = some_path(random);
            Ask::Delete { path, version: some_version(random) }
        }
        _ => {
            let path = some_path(random);
            Ask::Set { path, data, version: some_version(random) }
        }
    }
}

fn some_read(random: &mut Random, watch: bool) -> Ask {
    let path = some_path(random);
    match random.below(3) {
        0 => Ask::Exists { path, watch },
        1 => Ask::Get { path, watch },
        _ => Ask::Children { path: register(random), watch },
    }
}

impl World {
    /// Something that a client may ask.
    pub fn some_ask(&mut self, client: usize) -> Ask {
        let watches = !self.clients[client].watches_all;
        let data = format!("{client}-{}", self.clients[client].next_xid);
        let random = &mut self.client_random;
        match random.below(100) {
            0..=44 => some_write(random, &data),
            45..=54 => {
                let count = random.between(2, 4);
                let operation = |random: &mut Random| match random.below(4) {
                    0 => Ask::Check { path: register(random), version: some_version(random) },
                    _ => some_write(random, &data),
                };
                Ask::Multi((0..count).map(|_| operation(random)).collect())
            }
            55..=64 => Ask::Sync,
            65..=79 => some_read(random, watches),
            _ => some_read(random, false),
        }
    }

    /// A read, with a watch or without.
    pub fn some_read_of(&mut self, client: usize) -> Ask {
        let watches = !self.clients[client].watches_all && self.client_random.percent(30);
        some_read(&mut self.client_random, watches)
    }
}
