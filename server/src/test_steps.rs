//! Random histories for property tests: few paths, few sessions, every operation, so that all of
//! them meet. No I/O.

use bytes::Bytes;
use proptest::prelude::*;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{CreateMode, Request};
use znodefs::{Acl, SessionId};

use crate::test_replica::{TestReplica, acl, identity};
use crate::txn::{Identity, Txn};

const PATHS: [&str; 14] = [
    "/a",
    "/b",
    "/a/x",
    "/a/y",
    "/b/x",
    "/a/x/1",
    "/a/x/1/z",
    "/a/s-0000000000",
    "/a/s-0000000001",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_stats",
    "/zookeeper/quota/a/zookeeper_limits",
    "/zookeeper/quota/a/x",
    "/zookeeper/quota/a/x/zookeeper_stats",
];
/// For sequential creations, and with them names that no other operation knows.
const PREFIXES: [&str; 3] = ["/a/s-", "/b/", "/"];
const DATA: [Option<&str>; 4] = [None, Some(""), Some("data"), Some("other data")];
const ACLS: [&str; 3] = ["world:anyone:cdrwa", "world:anyone:r", "digest:me:h=:cdrwa"];

/// One operation on the tree.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create { path: &'static str, mode: CreateMode, data: usize, acl: usize },
    Delete { path: &'static str, version: i32 },
    SetData { path: &'static str, data: usize, version: i32 },
    SetAcl { path: &'static str, acl: usize, version: i32 },
    Check { path: &'static str, version: i32 },
}

/// One step of a history. Sessions are named by a place out of three, where they follow each other.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Operation {
        session: usize,
        as_me: bool,
        operation: Operation,
    },
    Multi {
        session: usize,
        operations: Vec<Operation>,
    },
    Open {
        session: usize,
    },
    Close {
        session: usize,
    },
    /// Time goes on, and what is due by then is deleted.
    Expire {
        elapsed_ms: i64,
    },
    /// The oldest so many prepared transactions are applied.
    Apply {
        count: usize,
    },
    /// A snapshot that is being taken goes on by so many bytes.
    Snapshot {
        max_bytes: usize,
    },
}

pub(crate) fn data(place: usize) -> Option<Bytes> {
    DATA[place].map(|text| Bytes::from_static(text.as_bytes()))
}

pub(crate) fn list(place: usize) -> Vec<Acl> {
    acl(ACLS[place])
}

impl Operation {
    pub fn to_request(&self) -> Request<'static> {
        match *self {
            Operation::Create { path, mode, data: place, acl } => {
                let ttl_ms = if mode.has_ttl() { 50 } else { 0 };
                let request = CreateRequest::new(path, data(place), list(acl), mode, ttl_ms);
                Request::Create(request)
            }
            Operation::Delete { path, version } => Request::Delete { path, version },
            Operation::SetData { path, data: place, version } => {
                Request::SetData { path, data: data(place), version }
            }
            Operation::SetAcl { path, acl, version } => {
                Request::SetAcl { path, acl: list(acl), version }
            }
            Operation::Check { path, version } => Request::Check { path, version },
        }
    }
}

fn mode() -> impl Strategy<Value = CreateMode> {
    use CreateMode::*;
    prop_oneof![
        4 => Just(Persistent),
        3 => Just(Ephemeral),
        1 => Just(PersistentSequential),
        1 => Just(EphemeralSequential),
        1 => Just(Container),
        1 => Just(PersistentWithTtl),
    ]
}

fn operation(in_multi: bool) -> impl Strategy<Value = Operation> {
    let path = || prop::sample::select(&PATHS[..]);
    let version = || prop_oneof![6 => Just(-1), 1 => 0..3];
    // Most lists let everybody do everything, or too little would happen.
    let list = || prop_oneof![12 => Just(0_usize), 1 => Just(1), 1 => Just(2)];
    let data = || 0..DATA.len();
    let create = (path(), prop::sample::select(&PREFIXES[..]), mode(), data(), list()).prop_map(
        |(path, prefix, mode, data, acl)| {
            let path = if mode.is_sequential() { prefix } else { path };
            Operation::Create { path, mode, data, acl }
        },
    );
    let set_acl_weight = if in_multi { 0 } else { 1 };
    let check_weight = if in_multi { 1 } else { 0 };
    prop_oneof![
        6 => create,
        4 => (path(), version()).prop_map(|(path, version)| Operation::Delete { path, version }),
        3 => (path(), data(), version())
            .prop_map(|(path, data, version)| Operation::SetData { path, data, version }),
        set_acl_weight => (path(), list(), version())
            .prop_map(|(path, acl, version)| Operation::SetAcl { path, acl, version }),
        check_weight => (path(), version())
            .prop_map(|(path, version)| Operation::Check { path, version }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 0..3_usize;
    prop_oneof![
        16 => (session(), prop::bool::weighted(0.8), operation(false)).prop_map(
            |(session, as_me, operation)| Step::Operation { session, as_me, operation }
        ),
        4 => (session(), prop::collection::vec(operation(true), 1..6))
            .prop_map(|(session, operations)| Step::Multi { session, operations }),
        1 => session().prop_map(|session| Step::Open { session }),
        1 => session().prop_map(|session| Step::Close { session }),
        1 => (0..100_i64).prop_map(|elapsed_ms| Step::Expire { elapsed_ms }),
        8 => (1..6_usize).prop_map(|count| Step::Apply { count }),
        4 => (1..300_usize).prop_map(|max_bytes| Step::Snapshot { max_bytes }),
    ]
}

/// A history of up to `length` steps.
pub(crate) fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..length)
}

/// A replica that lives through a history.
pub(crate) struct History {
    pub replica: TestReplica,
    sessions: [SessionId; 3],
    next_session: i64,
}

pub(crate) fn identities(as_me: bool) -> Vec<Identity> {
    let mut identities = vec![identity("ip", "127.0.0.1")];
    if as_me {
        identities.push(identity("digest", "me:h="));
    }
    identities
}

impl History {
    pub fn new() -> History {
        let mut history = History {
            replica: TestReplica::new(),
            sessions: [SessionId(0); 3],
            next_session: 0x0100_0000_0000_1000,
        };
        for session in 0..3 {
            history.step(&Step::Open { session });
        }
        history.replica.apply_all();
        history
    }

    pub fn session(&self, place: usize) -> SessionId {
        self.sessions[place]
    }

    /// Takes a step; the transactions that it prepared.
    pub fn step(&mut self, step: &Step) -> Vec<Txn> {
        let before = self.replica.log.len();
        match step {
            Step::Operation { session, as_me, operation } => {
                self.replica.identities = identities(*as_me);
                self.replica.prepare_as(self.sessions[*session], &operation.to_request());
            }
            Step::Multi { session, operations } => {
                self.replica.identities = identities(true);
                let operations = operations.iter().map(Operation::to_request).collect();
                self.replica.prepare_as(self.sessions[*session], &Request::Multi(operations));
            }
            Step::Open { session } => {
                // An id is never used twice, so that one session at most is left open per place.
                self.next_session += 1;
                self.sessions[*session] = SessionId(self.next_session);
                self.replica.open_session(self.sessions[*session]);
            }
            Step::Close { session } => self.replica.close_session(self.sessions[*session]),
            Step::Expire { elapsed_ms } => self.expire(*elapsed_ms),
            Step::Apply { count } => {
                for _ in 0..*count {
                    self.replica.apply_next();
                }
            }
            Step::Snapshot { .. } => {}
        }
        self.replica.time_ms += 1;
        self.replica.log[before..].to_vec()
    }

    fn expire(&mut self, elapsed_ms: i64) {
        let replica = &mut self.replica;
        replica.time_ms += elapsed_ms;
        for path in replica.processor.expired_nodes(&replica.tree, replica.time_ms, 30) {
            let (tree, time_ms) = (&replica.tree, replica.time_ms);
            let prepared = replica.processor.prepare_delete_container(tree, &path, time_ms, 30);
            if let Some(txn) = prepared.unwrap() {
                replica.queue(txn);
            }
        }
    }
}
