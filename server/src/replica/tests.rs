//! The core without threads, sockets or disk: events in, effects out.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use znodefs::wire::request::{CreateRequest, put_request};
use znodefs::wire::{ConnectRequest, Decoder, ReplyHeader, Request, take_frame};
use znodefs::{Acl, CreateMode, Epoch, ErrorCode, OpCode, Zxid};

use super::*;
use crate::codec;
use crate::connection::{Pending, Phase};
use crate::tree::DataTree;
use crate::txn::{TxnBody, TxnOrigin};

struct Core {
    replica: Replica,
    effects: Effects,
    database: Arc<Database>,
    /// What the log was given and has not made durable.
    appended: Vec<Zxid>,
    connections: u64,
}

impl Core {
    fn new() -> Core {
        Core::of(false)
    }

    /// A member of an ensemble that learns from another one.
    fn learner() -> Core {
        let mut core = Core::of(true);
        core.replica.start_serving(false, Epoch(7));
        core
    }

    fn of(is_member: bool) -> Core {
        let address = "127.0.0.1:0".parse().unwrap();
        let database = Arc::new(Database::new(DataTree::new(1), 1));
        let parts = ReplicaParts {
            is_member,
            database: Arc::clone(&database),
            metrics: Arc::default(),
            config: ServerConfig::standalone("/none", address),
            epoch: Epoch(7),
            last_logged: Zxid::ZERO,
            replayed_txns: 0,
            password_key: PasswordKey([1; 32]),
            seed: 1,
        };
        let replica = Replica::new(parts, Now::default());
        Core {
            replica,
            effects: Effects::default(),
            database,
            appended: Vec::new(),
            connections: 0,
        }
    }

    fn handle(&mut self, event: Event) {
        self.replica.handle(event, Now { monotonic_ms: 5, wall_ms: 5 }, &mut self.effects);
        let batch = std::mem::take(&mut self.effects.append);
        self.appended.extend(batch.ends.iter().map(|(zxid, _)| *zxid));
    }

    fn all_durable(&mut self) {
        let last = self.appended.drain(..).next_back().unwrap();
        self.handle(Event::TxnsDurable(last));
    }

    fn begin_connecting(&mut self) -> Arc<Connection> {
        self.connections += 1;
        let peer = "127.0.0.1:9".parse().unwrap();
        let connection = Arc::new(Connection::new(ConnectionId(self.connections), peer, 0, 0));
        let request = ConnectRequest { timeout_ms: 10_000, ..ConnectRequest::default() };
        self.handle(Event::Connect { connection: Arc::clone(&connection), request });
        connection
    }

    fn connect(&mut self) -> Arc<Connection> {
        let connection = self.begin_connecting();
        self.all_durable();
        assert_eq!(connection.outbox().phase, Phase::Established);
        connection.outbox().buffer.clear();
        connection
    }

    fn create(&mut self, connection: &Arc<Connection>, xid: i32, path: &str) {
        let create = CreateRequest::new(path, None, Acl::open(), CreateMode::Persistent, 0);
        let mut out = BytesMut::new();
        put_request(&mut out, xid, &Request::Create(create));
        let body = out.freeze().slice(12..);
        let op_code = OpCode::Create2;
        let body_length = body.len();
        let code = op_code as i32;
        connection.outbox().push_pending(Pending::Core { xid, op_code: code, body_length });
        let request = raw(xid, code, body);
        let writes = vec![WriteRequest { op_code, request }];
        self.handle(Event::Requests { connection: Arc::clone(connection), writes });
    }
}

fn raw(xid: i32, op_code: i32, body: Bytes) -> RawRequest {
    RawRequest { xid, op_code, body, identities: Arc::new([]), received_ms: 0 }
}

/// Numbers, zxids and errors of all replies in the outbox.
fn replies(connection: &Connection) -> Vec<(i32, Zxid, i32)> {
    let mut buffer = std::mem::take(&mut connection.outbox().buffer);
    std::iter::from_fn(|| take_frame(&mut buffer, 1 << 20).unwrap())
        .map(|frame| ReplyHeader::decode(&mut Decoder::new(&frame)).unwrap())
        .map(|header| (header.xid, header.zxid, header.error))
        .collect()
}

#[test]
fn nothing_is_applied_or_answered_before_it_is_durable() {
    let mut core = Core::new();
    let connection = core.connect();
    core.create(&connection, 1, "/a");
    core.create(&connection, 2, "/b");
    assert_eq!(core.appended, [Zxid::new(Epoch(7), 2), Zxid::new(Epoch(7), 3)]);
    assert!(core.database.tree.read().node("/a").is_none());
    assert!(connection.outbox().buffer.is_empty());
    core.handle(Event::TxnsDurable(Zxid::new(Epoch(7), 2)));
    assert!(core.database.tree.read().node("/a").is_some());
    assert!(core.database.tree.read().node("/b").is_none());
    assert_eq!(replies(&connection), [(1, Zxid::new(Epoch(7), 2), 0)]);
    core.all_durable();
    assert_eq!(replies(&connection), [(2, Zxid::new(Epoch(7), 3), 0)]);
}

#[test]
fn a_read_behind_a_write_is_answered_with_it_and_before_the_next() {
    let mut core = Core::new();
    let connection = core.connect();
    core.create(&connection, 1, "/a");
    let exists = Bytes::from_static(b"\0\0\0\x02/b\0");
    let request = raw(2, OpCode::Exists as i32, exists);
    connection.outbox().push_pending(Pending::Local { request, reply_length: 100 });
    core.create(&connection, 3, "/b");
    core.all_durable();
    let no_node = ErrorCode::NoNode.code();
    let (first, second) = (Zxid::new(Epoch(7), 2), Zxid::new(Epoch(7), 3));
    assert_eq!(replies(&connection), [(1, first, 0), (2, first, no_node), (3, second, 0)]);
    assert_eq!(core.effects.wake.len(), 1, "woken once for everything until it looks");
}

#[test]
fn when_all_numbers_are_used_a_new_epoch_begins_before_anything_is_logged_in_it() {
    let mut core = Core::new();
    let connection = core.connect();
    core.replica.processor.set_last_zxid(Zxid::new(Epoch(7), u32::MAX - 1));
    core.create(&connection, 1, "/a");
    assert_eq!(core.effects.new_epoch, None);
    core.create(&connection, 2, "/b");
    assert_eq!(core.effects.new_epoch, Some(Epoch(8)));
    assert_eq!(core.appended, [Zxid::new(Epoch(7), u32::MAX), Zxid::new(Epoch(8), 1)]);
    core.all_durable();
    assert_eq!(replies(&connection).len(), 2);
}

#[test]
fn a_full_disk_refuses_what_waited_and_gives_its_numbers_to_what_comes_next() {
    let mut core = Core::new();
    let connection = core.connect();
    let newcomer = core.begin_connecting();
    core.create(&connection, 1, "/a");
    core.create(&connection, 2, "/b");
    core.appended.clear();
    let durable = Zxid::new(Epoch(7), 1);
    core.handle(Event::LogFull { durable, reason: "full".into() });
    assert!(core.effects.resume_log);
    let system_error = ErrorCode::SystemError.code();
    assert_eq!(replies(&connection), [(1, durable, system_error), (2, durable, system_error)]);
    assert_eq!(newcomer.outbox().phase, Phase::Closing);
    core.create(&connection, 3, "/a");
    assert_eq!(core.appended, [Zxid::new(Epoch(7), 2)]);
    core.all_durable();
    assert_eq!(replies(&connection), [(3, Zxid::new(Epoch(7), 2), 0)]);
    assert!(core.database.tree.read().node("/b").is_none());
}

#[test]
fn a_sessions_former_connection_is_closed_before_the_leader_is_asked_to_move_it() {
    let mut core = Core::learner();
    let former = core.begin_connecting();
    let forwarded = core.effects.zab.drain(..).find_map(|event| match event {
        zab::Event::Forward(payload) => forwarded_request::ForwardedRequest::decode(&payload).ok(),
        _ => None,
    });
    let (zxid, session_id) = (Zxid::new(Epoch(7), 1), forwarded.unwrap().session_id);
    let origin = TxnOrigin { server: core.replica.config.server_id.0, connection: former.id.0 };
    let body = TxnBody::CreateSession { timeout_ms: 10_000 };
    let txn = Txn { zxid, session_id, xid: 0, origin, time_ms: 0, body };
    let mut payload = Vec::new();
    codec::encode_into(&txn, &mut payload).unwrap();
    core.replica
        .deliver_entries(&[zab::Entry { zxid, payload: payload.into() }], &mut core.effects);
    assert_eq!(former.outbox().phase, Phase::Established);

    let peer = "127.0.0.1:9".parse().unwrap();
    let connection = Arc::new(Connection::new(ConnectionId(99), peer, 0, 0));
    let password = Some(PasswordKey([1; 32]).password(session_id));
    let request =
        ConnectRequest { timeout_ms: 10_000, session_id, password, ..ConnectRequest::default() };
    core.handle(Event::Connect { connection, request });
    let asks = |event: &zab::Event| matches!(event, zab::Event::Revalidate { .. });
    assert!(core.effects.zab.iter().any(asks));
    assert_eq!(former.outbox().phase, Phase::Closing);
}

#[test]
fn a_session_that_the_leader_does_not_know_is_refused_when_a_quorum_has_confirmed_who_leads() {
    let mut core = Core::learner();
    let peer = "127.0.0.1:9".parse().unwrap();
    let connection = Arc::new(Connection::new(ConnectionId(99), peer, 0, 0));
    let session_id = SessionId(5);
    let password = Some(PasswordKey([1; 32]).password(session_id));
    let request =
        ConnectRequest { timeout_ms: 10_000, session_id, password, ..ConnectRequest::default() };
    core.handle(Event::Connect { connection: connection.clone(), request });
    core.effects.zab.clear();
    core.replica.session_revalidated(session_id, false, &mut core.effects);
    let [zab::Event::Sync { token }] = core.effects.zab[..] else {
        panic!("{:?}", core.effects.zab);
    };
    assert_eq!(connection.outbox().phase, Phase::Connecting);
    core.replica.sync_done(token, &mut core.effects);
    assert_eq!(connection.outbox().phase, Phase::Closing);
}
