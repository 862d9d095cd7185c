//! The session core, step by step: bytes and times in, bytes, replies and events out.

use std::collections::BTreeMap;

use super::*;
use crate::acl::Acl;
use crate::stat::Stat;
use crate::wire::request::{CreateRequest, put_request_below};
use crate::wire::watch::put_watcher_event;
use crate::wire::{
    AddWatchMode, CreateMode, EventType, KeeperState, MultiResult, RequestHeader, WatchSets,
    WatcherType,
};

const SECOND: Duration = Duration::from_secs(1);

/// What the core gave to the outside.
#[derive(Default)]
struct Recorder {
    /// The ordered stream, one line each.
    stream: Vec<String>,
    results: BTreeMap<u32, Result<Reply, Error>>,
}

impl Outlet<u32> for Recorder {
    fn attached(&mut self, session_id: SessionId, timeout: Duration) {
        self.stream.push(format!("attached {session_id} {timeout:?}"));
    }

    fn deliver(&mut self, delivery: Delivery<'_>) {
        self.stream.push(match delivery {
            Delivery::Reply { request_id, zxid, result, .. } => match result {
                Ok(_) => format!("reply {request_id} {zxid}"),
                Err(code) => format!("reply {request_id} {zxid} {code:?}"),
            },
            Delivery::Event(event) => format!("{:?} {}", event.event_type, event.path),
            Delivery::OutsideEvent(event) => {
                format!("outside {:?} {}", event.event_type, event.path)
            }
            Delivery::State(state) => format!("{state:?}"),
        });
    }

    fn complete(&mut self, completion: u32, result: Result<Reply, Error>) {
        assert!(self.results.insert(completion, result).is_none(), "{completion} completed twice");
    }
}

/// A client's core with the server's end in the test's hand.
struct Harness {
    session: Session<u32>,
    recorder: Recorder,
    requests: u32,
    now: Duration,
}

impl Harness {
    fn new(change: impl FnOnce(&mut Config)) -> Harness {
        let mut config = Config {
            session_timeout: 9 * SECOND,
            handshake_timeout: 3 * SECOND,
            read_only: false,
            retry_reads: true,
            renew_session: false,
            reply_length_max: 1000,
            chroot: String::new(),
        };
        change(&mut config);
        let session = Session::new(config, Vec::new());
        Harness { session, recorder: Recorder::default(), requests: 0, now: Duration::ZERO }
    }

    fn connected() -> Harness {
        let mut harness = Harness::new(|_| {});
        harness.connect();
        harness
    }

    /// Opens a connection and lets the server accept it.
    fn connect(&mut self) -> ConnectRequest {
        let greeting = self.greet();
        self.accept(false).unwrap();
        greeting
    }

    fn greet(&mut self) -> ConnectRequest {
        self.session.connection_opened(self.now);
        let mut sent = self.sent_bytes();
        let frame = take_frame(&mut sent, 100).unwrap().unwrap();
        ConnectRequest::decode(&mut Decoder::new(&frame)).unwrap()
    }

    fn accept(&mut self, read_only: bool) -> Result<(), String> {
        self.answer_greeting(ConnectResponse {
            protocol_version: 0,
            timeout_ms: 6000,
            session_id: SessionId(0xabc),
            password: Bytes::from_static(b"0123456789abcdef"),
            read_only: Some(read_only),
        })
    }

    fn answer_greeting(&mut self, response: ConnectResponse) -> Result<(), String> {
        let mut input = BytesMut::new();
        put_frame(&mut input, |out| response.encode(out));
        self.receive(input)
    }

    fn lose_connection(&mut self) {
        self.session.connection_lost("cable cut", self.now, &mut self.recorder);
    }

    /// Submits a request; its number is the completion's, the id's and the xid's.
    fn submit(&mut self, request: &Request<'_>) -> u32 {
        let chroot = self.session.config.chroot.clone();
        self.submit_below(&chroot, request)
    }

    fn submit_below(&mut self, root: &str, request: &Request<'_>) -> u32 {
        let is_absolute = root != self.session.config.chroot;
        self.requests += 1;
        let number = self.requests;
        let op_code = request.op_code();
        let xid = if op_code == OpCode::Auth { xid::AUTH } else { number as i32 };
        let mut out = BytesMut::new();
        put_request_below(&mut out, xid, root, request);
        let bytes = out.freeze();
        let (request_id, frame) = (number.into(), bytes.clone());
        let completion = number;
        let entry = Entry { request_id, xid, op_code, is_absolute, frame, resends: 0, completion };
        let batch = Batch { bytes, entries: vec![entry] };
        self.session.submit(batch, self.now, &mut self.recorder);
        number
    }

    fn sent_bytes(&mut self) -> BytesMut {
        let mut sent = BytesMut::new();
        for chunk in self.session.outgoing.drain(..) {
            sent.extend_from_slice(&chunk);
        }
        sent
    }

    /// What was sent since the last look, as `xid operation` and what else matters.
    fn sent(&mut self) -> Vec<String> {
        let mut sent = self.sent_bytes();
        let mut lines = Vec::new();
        while let Some(frame) = take_frame(&mut sent, 1 << 20).unwrap() {
            let mut decoder = Decoder::new(&frame);
            let header = RequestHeader::decode(&mut decoder).unwrap();
            let op_code = OpCode::from_code(header.op_code).unwrap();
            let request = Request::decode(op_code, &mut decoder).unwrap();
            let rest = match &request {
                Request::SetWatches(sets) | Request::SetWatches2(sets) => {
                    let WatchSets { relative_zxid, data, exists, children, .. } = sets;
                    let lasting = [&sets.persistent[..], &sets.persistent_recursive[..]].concat();
                    format!(" {relative_zxid} {data:?} {exists:?} {children:?} {lasting:?}")
                }
                Request::Auth { scheme, .. } => format!(" {scheme}"),
                other => other.path().map(|path| format!(" {path}")).unwrap_or_default(),
            };
            lines.push(format!("{} {}{rest}", header.xid, op_code.name()));
        }
        lines
    }

    fn receive(&mut self, mut input: BytesMut) -> Result<(), String> {
        let result = self.session.receive(&mut input, self.now, &mut self.recorder);
        assert!(result.is_err() || input.is_empty());
        result
    }

    fn reply(&mut self, xid: i32, zxid: i64, error: i32, record: Response) -> Result<(), String> {
        self.receive(packet(xid, zxid, error, &record))
    }

    fn event(&mut self, event: EventType, path: &str) {
        let mut input = BytesMut::new();
        put_frame(&mut input, |out| {
            ReplyHeader { xid: xid::NOTIFICATION, zxid: Zxid(-1), error: 0 }.encode(out);
            put_watcher_event(out, event, KeeperState::SYNC_CONNECTED, path);
        });
        self.receive(input).unwrap();
    }

    fn wait(&mut self, time: Duration) -> Result<(), String> {
        self.now += time;
        self.session.tick(self.now, &mut self.recorder)
    }

    fn stream(&mut self) -> Vec<String> {
        std::mem::take(&mut self.recorder.stream)
    }

    fn error(&self, number: u32) -> &Error {
        self.recorder.results[&number].as_ref().unwrap_err()
    }

    fn is_open(&self, number: u32) -> bool {
        !self.recorder.results.contains_key(&number)
    }
}

fn packet(xid: i32, zxid: i64, error: i32, record: &Response) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| {
        ReplyHeader { xid, zxid: Zxid(zxid), error }.encode(out);
        if error == 0 {
            record.encode(out);
        }
    });
    out
}

fn get(path: &str) -> Request<'_> {
    Request::GetData { path, watch: false }
}

fn watch(path: &str) -> Request<'_> {
    Request::GetData { path, watch: true }
}

fn set(path: &str) -> Request<'_> {
    Request::SetData { path, data: None, version: -1 }
}

fn create(path: &str) -> Request<'_> {
    Request::Create(CreateRequest::new(path, None, Acl::open(), CreateMode::Persistent, 0))
}

fn value() -> Response {
    Response::Data { data: Some(Bytes::from_static(b"value")), stat: Stat::default() }
}

fn ok_stat() -> Response {
    Response::Stat(Stat::default())
}

#[test]
fn a_session_is_taken_along_to_the_next_connection() {
    let mut client = Harness::new(|_| {});
    let greeting = client.connect();
    assert_eq!((greeting.session_id, greeting.timeout_ms), (SessionId(0), 9000));
    assert_eq!(client.stream(), ["attached 0xabc 6s", "Connected"]);
    client.submit(&get("/a"));
    client.reply(1, 77, 0, value()).unwrap();
    client.lose_connection();
    assert_eq!(client.stream(), ["reply 1 0x4d", "Suspended"]);
    let greeting = client.connect();
    assert_eq!(greeting.session_id, SessionId(0xabc));
    assert_eq!(greeting.password.as_deref(), Some(&b"0123456789abcdef"[..]));
    assert_eq!(greeting.last_zxid_seen, Zxid(77));
}

#[test]
fn no_server_is_taken_that_is_behind_an_event() {
    let mut client = Harness::connected();
    client.submit(&watch("/a"));
    client.reply(1, 77, 0, value()).unwrap();
    let mut input = BytesMut::new();
    put_frame(&mut input, |out| {
        ReplyHeader { xid: xid::NOTIFICATION, zxid: Zxid(80), error: 0 }.encode(out);
        put_watcher_event(out, EventType::NodeDataChanged, KeeperState::SYNC_CONNECTED, "/a");
    });
    client.receive(input).unwrap();
    client.submit(&watch("/b"));
    client.reply(2, 79, 0, value()).unwrap();
    client.lose_connection();
    assert_eq!(client.greet().last_zxid_seen, Zxid(80));
    client.accept(false).unwrap();
    // Another event of that transaction may have been on its way.
    assert!(client.sent()[0].contains(&Zxid(79).to_string()));
}

#[test]
fn replies_may_come_byte_by_byte_or_all_at_once() {
    let mut client = Harness::connected();
    for path in ["/a", "/b", "/c"] {
        client.submit(&get(path));
    }
    let mut bytes = BytesMut::new();
    for xid in 1..=3 {
        bytes.extend_from_slice(&packet(xid, 5, 0, &value()));
    }
    client.receive(bytes.clone()).unwrap();
    assert_eq!(client.recorder.results.len(), 3);
    for _ in 0..3 {
        client.submit(&get("/d"));
    }
    let mut bytes = BytesMut::new();
    for xid in 4..=6 {
        bytes.extend_from_slice(&packet(xid, 5, 0, &value()));
    }
    let mut input = BytesMut::new();
    for byte in bytes {
        input.extend_from_slice(&[byte]);
        client.session.receive(&mut input, client.now, &mut client.recorder).unwrap();
    }
    assert_eq!(client.recorder.results.len(), 6);
    let Ok(Reply { response: Response::Data { data, .. }, .. }) = &client.recorder.results[&6]
    else {
        panic!()
    };
    assert_eq!(data.as_deref(), Some(&b"value"[..]));
}

#[test]
fn a_reply_out_of_turn_drops_the_connection() {
    let mut client = Harness::connected();
    client.submit(&get("/a"));
    client.submit(&get("/b"));
    let reason = client.reply(2, 5, 0, value()).unwrap_err();
    assert_eq!(reason, "a reply to request 2 came where 1's was due");
    let mut client = Harness::connected();
    assert!(client.reply(1, 5, 0, value()).unwrap_err().contains("which was not sent"));
}

#[test]
fn garbage_drops_the_connection() {
    let mut client = Harness::new(|_| {});
    client.greet();
    let reason = client.receive(BytesMut::from(&b"HTTP/1.1 400 Bad Request"[..])).unwrap_err();
    assert_eq!(reason, "it does not speak the ZooKeeper protocol");
    let mut client = Harness::connected();
    let number = client.submit(&get("/a"));
    let mut short = packet(1, 5, 0, &Response::Empty);
    assert!(client.receive(short.split_off(0)).unwrap_err().contains("unreadable"));
    assert!(matches!(client.error(number), Error::UnexpectedReply { path, .. } if path == "/a"));
    assert!(client.receive(BytesMut::from(&[0xff; 8][..])).is_err());
}

#[test]
fn writes_in_flight_fail_and_reads_are_sent_again_before_what_has_waited() {
    let mut client = Harness::connected();
    client.submit(&get("/read"));
    let write = client.submit(&set("/write"));
    client.submit(&Request::GetChildren2 { path: "/list", watch: false });
    client.sent();
    client.lose_connection();
    let error = client.error(write);
    assert!(matches!(error, Error::ConnectionLoss { .. }) && error.is_outcome_unknown());
    assert_eq!(
        error.to_string(),
        "setData /write: the connection was lost before the reply (cable cut), so the outcome is \
         unknown: look at the znode before trying again"
    );
    let waiting = client.submit(&set("/later"));
    client.connect();
    assert_eq!(client.sent(), ["1 getData /read", "3 getChildren2 /list", "4 setData /later"]);
    client.reply(1, 5, 0, value()).unwrap();
    assert!(client.is_open(waiting) && client.recorder.results[&1].is_ok());
}

#[test]
fn reads_in_flight_fail_too_where_that_is_wanted() {
    let mut client = Harness::new(|config| config.retry_reads = false);
    client.connect();
    let read = client.submit(&get("/a"));
    let watch = client.submit(&Request::AddWatch { path: "/a", mode: 0 });
    client.lose_connection();
    assert!(matches!(client.error(read), Error::ConnectionLoss { .. }));
    assert!(client.is_open(watch));
}

#[test]
fn a_read_that_every_connection_is_lost_with_is_given_up() {
    let mut client = Harness::connected();
    let read = client.submit(&get("/a"));
    for _ in 0..RESENDS_MAX {
        client.lose_connection();
        assert!(client.is_open(read));
        client.connect();
    }
    client.lose_connection();
    assert!(matches!(client.error(read), Error::ConnectionLoss { .. }));
}

#[test]
fn what_was_not_sent_waits_for_as_long_as_the_session_lives() {
    let mut client = Harness::connected();
    client.wait(SECOND).unwrap();
    client.lose_connection();
    let request = client.submit(&create("/a"));
    assert_eq!(client.session.deadline(), Some(7 * SECOND));
    client.wait(5 * SECOND).unwrap();
    client.lose_connection();
    assert!(client.is_open(request));
    client.wait(SECOND).unwrap();
    assert_eq!(
        client.error(request).to_string(),
        "create2 /a: no server could be reached for 6.0 s (last: cable cut); nothing was done"
    );
    // Once that long has passed, there is nothing to wait for.
    let late = client.submit(&get("/b"));
    assert!(matches!(client.error(late), Error::TimedOut { .. }));
    client.connect();
    let in_time = client.submit(&get("/b"));
    assert!(client.is_open(in_time));
}

#[test]
fn a_silent_connection_is_pinged_after_a_third_and_dead_after_two_thirds_of_the_timeout() {
    let mut client = Harness::connected();
    assert_eq!(client.session.deadline(), Some(2 * SECOND));
    client.wait(SECOND).unwrap();
    assert_eq!(client.sent(), [""; 0]);
    client.wait(SECOND).unwrap();
    assert_eq!(client.sent(), ["-2 ping"]);
    client.reply(xid::PING, 9, 0, Response::Empty).unwrap();
    client.wait(2 * SECOND).unwrap();
    assert_eq!(client.sent(), ["-2 ping"]);
    assert_eq!(client.session.deadline(), Some(6 * SECOND));
    assert_eq!(client.wait(2 * SECOND).unwrap_err(), "nothing was heard for 4.0 s");
}

#[test]
fn a_server_that_does_not_answer_the_greeting_is_given_up() {
    let mut client = Harness::new(|_| {});
    client.greet();
    assert_eq!(client.session.deadline(), Some(3 * SECOND));
    assert!(client.wait(3 * SECOND).unwrap_err().contains("within 3.0 s"));
}

#[test]
fn a_connection_starts_with_credentials_then_watches_then_requests() {
    let mut client = Harness::connected();
    client.submit(&Request::Auth { scheme: "digest", credential: "bob:x".into() });
    client.submit(&watch("/data"));
    client.submit(&Request::Exists { path: "/missing", watch: true });
    client.submit(&Request::Exists { path: "/there", watch: true });
    client.submit(&Request::GetChildren { path: "/list", watch: true });
    client.submit(&Request::AddWatch { path: "/tree", mode: 1 });
    client.submit(&get("/unwatched"));
    client.submit(&watch("/failed"));
    // Credentials are answered out of turn.
    client.reply(2, 40, 0, value()).unwrap();
    client.reply(xid::AUTH, 0, 0, Response::Empty).unwrap();
    client.reply(3, 40, -101, Response::Empty).unwrap();
    client.reply(4, 41, 0, ok_stat()).unwrap();
    client.reply(5, 41, 0, Response::Names(vec![])).unwrap();
    client.reply(6, 42, 0, Response::Number(0)).unwrap();
    client.reply(7, 42, 0, value()).unwrap();
    client.reply(8, 42, -101, Response::Empty).unwrap();
    client.lose_connection();
    client.submit(&set("/waiting"));
    client.connect();
    let mut sent = client.sent();
    // Sets have no order.
    sent[1] = sent[1].replace(r#"["/there", "/data"]"#, r#"["/data", "/there"]"#);
    assert_eq!(
        sent,
        [
            "-4 auth digest",
            r#"-8 setWatches2 0x2a ["/data", "/there"] ["/missing"] ["/list"] ["/tree"]"#,
            "9 setData /waiting",
        ]
    );
    assert!(!client.session.is_ready());
    client.reply(xid::AUTH, 0, 0, Response::Empty).unwrap();
    client.reply(xid::SET_WATCHES, 43, 0, Response::Empty).unwrap();
    assert!(client.session.is_ready());
}

#[test]
fn a_watch_that_has_fired_or_was_removed_is_not_set_again() {
    let mut client = Harness::connected();
    client.submit(&watch("/a"));
    client.reply(1, 5, 0, value()).unwrap();
    client.submit(&watch("/b"));
    client.reply(2, 5, 0, value()).unwrap();
    client.submit(&Request::AddWatch { path: "/c", mode: AddWatchMode::Persistent.code() });
    client.reply(3, 5, 0, Response::Number(0)).unwrap();
    client.event(EventType::NodeDataChanged, "/a");
    client.event(EventType::NodeDataChanged, "/c");
    let any = WatcherType::Any.code();
    client.submit(&Request::RemoveWatches { path: "/b", watcher_type: any });
    client.reply(4, 5, 0, Response::Empty).unwrap();
    client.lose_connection();
    client.connect();
    assert_eq!(client.sent(), [r#"-8 setWatches2 0x5 [] [] [] ["/c"]"#]);
    // Lost with its connection, a removal is done: the server forgot the watch as well.
    let removal = client.submit(&Request::RemoveWatches { path: "/c", watcher_type: any });
    client.lose_connection();
    assert!(client.recorder.results[&removal].is_ok());
    client.connect();
    assert_eq!(client.sent(), [""; 0]);
}

#[test]
fn an_event_is_delivered_before_the_reply_that_follows_it_on_the_wire() {
    let mut client = Harness::connected();
    client.submit(&watch("/a"));
    client.reply(1, 5, 0, value()).unwrap();
    client.submit(&set("/a"));
    client.stream();
    client.event(EventType::NodeDataChanged, "/a");
    client.reply(2, 6, 0, ok_stat()).unwrap();
    assert_eq!(client.stream(), ["NodeDataChanged /a", "reply 2 0x6"]);
}

#[test]
fn a_reader_gives_a_session_up_that_nobody_takes_for_as_long_as_it_lives() {
    let mut client = Harness::new(|config| {
        config.renew_session = true;
        config.read_only = true;
    });
    client.connect();
    client.submit(&Request::AddWatch { path: "/tree", mode: 1 });
    client.reply(1, 5, 0, Response::Number(0)).unwrap();
    client.lose_connection();
    client.stream();
    client.now += 5 * SECOND;
    // A server without a quorum closes the connection.
    assert_eq!(client.greet().session_id, SessionId(0xabc));
    client.lose_connection();
    assert!(client.stream().is_empty());
    client.now += SECOND;
    client.greet();
    client.lose_connection();
    assert_eq!(client.stream(), ["Expired"]);
    let greeting = client.greet();
    assert_eq!((greeting.session_id, greeting.last_zxid_seen), (SessionId(0), Zxid(5)));
    client.accept(true).unwrap();
    assert!(client.session.is_read_only());
    assert_eq!(client.sent(), [r#"-8 setWatches2 0x5 [] [] [] ["/tree"]"#]);
    // Its session is that server's alone.
    client.lose_connection();
    assert_eq!(client.greet().session_id, SessionId(0));
}

#[test]
fn an_expired_session_ends_the_client() {
    let mut client = Harness::connected();
    client.lose_connection();
    let waiting = client.submit(&get("/a"));
    client.greet();
    client.stream();
    assert!(client.answer_greeting(ConnectResponse::invalid_session(Some(false))).is_err());
    assert_eq!(client.stream(), ["Expired"]);
    assert_eq!(client.error(waiting), &Error::SessionExpired);
    assert_eq!(client.session.over(), Some(&Error::SessionExpired));
    let late = client.submit(&get("/a"));
    assert_eq!(client.error(late), &Error::SessionExpired);
}

#[test]
fn a_renewed_session_has_its_lasting_watches_and_nothing_else_of_the_old() {
    let mut client = Harness::new(|config| config.renew_session = true);
    client.connect();
    client.submit(&watch("/once"));
    client.reply(1, 5, 0, value()).unwrap();
    client.submit(&Request::AddWatch { path: "/tree", mode: 1 });
    client.reply(2, 5, 0, Response::Number(0)).unwrap();
    client.lose_connection();
    let write = client.submit(&create("/ephemeral"));
    let read = client.submit(&get("/a"));
    client.greet();
    client.stream();
    assert!(client.answer_greeting(ConnectResponse::invalid_session(Some(false))).is_err());
    client.lose_connection();
    assert_eq!(client.stream(), ["Expired"]);
    assert_eq!(client.error(write), &Error::SessionExpired);
    assert!(client.is_open(read) && client.session.over().is_none());
    let greeting = client.connect();
    assert_eq!(greeting.session_id, SessionId(0));
    assert_eq!(client.stream(), ["attached 0xabc 6s", "Connected"]);
    assert_eq!(client.sent(), [r#"-8 setWatches2 0x5 [] [] [] ["/tree"]"#, "4 getData /a"]);
}

#[test]
fn a_chroot_is_put_before_every_path_and_taken_off_again() {
    let mut client = Harness::new(|config| config.chroot = "/app".into());
    client.connect();
    client.submit(&create("/a"));
    client.submit(&watch("/"));
    client.submit(&Request::GetEphemerals { prefix_path: "/" });
    client.submit(&Request::Multi(vec![create("/b")]));
    let failing = client.submit(&get("/missing"));
    let sent = client.sent();
    assert_eq!(sent[0], "1 create2 /app/a");
    assert_eq!(sent[1], "2 getData /app");
    client.reply(1, 5, 0, created("/app/a")).unwrap();
    client.reply(2, 5, 0, value()).unwrap();
    let names = ["/app/x", "/apple", "/app"].map(String::from).to_vec();
    client.reply(3, 5, 0, Response::Names(names)).unwrap();
    let results = vec![MultiResult::Ok(OpCode::Create2, created("/app/b"))];
    client.reply(4, 5, 0, Response::Multi(results)).unwrap();
    client.reply(5, 5, -101, Response::Empty).unwrap();
    let response = |number| client.recorder.results[&number].clone().unwrap().response;
    assert_eq!(response(1), created("/a"));
    assert_eq!(response(3), Response::Names(vec!["/x".into(), "/".into()]));
    let results = vec![MultiResult::Ok(OpCode::Create2, created("/b"))];
    assert_eq!(response(4), Response::Multi(results));
    assert_eq!(client.error(failing).to_string(), "getData /missing: no such znode");
    client.lose_connection();
    client.connect();
    assert_eq!(client.sent(), [r#"-8 setWatches 0x5 ["/app"] [] [] []"#]);
    client.stream();
    client.event(EventType::NodeDataChanged, "/app");
    client.event(EventType::NodeCreated, "/app/a/b");
    assert_eq!(client.stream(), ["NodeDataChanged /", "NodeCreated /a/b"]);
}

#[test]
fn absolute_paths_and_events_outside_the_chroot_are_those_of_the_real_root() {
    let mut client = Harness::new(|config| config.chroot = "/app".into());
    client.connect();
    client.submit_below("", &watch("/locks/a"));
    client.submit_below("", &create("/app/a"));
    let failing = client.submit_below("", &get("/app/b"));
    assert_eq!(client.sent()[..2], ["1 getData /locks/a", "2 create2 /app/a"]);
    client.reply(1, 5, 0, value()).unwrap();
    client.reply(2, 5, 0, created("/app/a")).unwrap();
    client.reply(3, 5, -101, Response::Empty).unwrap();
    assert_eq!(client.recorder.results[&2].clone().unwrap().response, created("/app/a"));
    assert_eq!(client.error(failing).to_string(), "getData /app/b: no such znode");
    client.stream();
    client.event(EventType::NodeDeleted, "/locks/a");
    client.event(EventType::NodeDeleted, "/app/locks/a");
    assert_eq!(client.stream(), ["outside NodeDeleted /locks/a", "NodeDeleted /locks/a"]);
}

fn created(path: &str) -> Response {
    Response::Created { path: path.into(), stat: Stat::default() }
}

#[test]
fn an_oversized_reply_fails_its_request_alone() {
    let mut client = Harness::connected();
    let large = client.submit(&get("/large"));
    let next = client.submit(&get("/next"));
    let data = Some(Bytes::from(vec![7; 5000]));
    let mut bytes = packet(1, 5, 0, &Response::Data { data, stat: Stat::default() });
    bytes.extend_from_slice(&packet(2, 5, 0, &value()));
    let mut input = BytesMut::new();
    for piece in bytes.chunks(600) {
        input.extend_from_slice(piece);
        client.session.receive(&mut input, client.now, &mut client.recorder).unwrap();
    }
    assert!(client.error(large).to_string().contains("over this client's limit of 1000"));
    assert!(client.recorder.results[&next].is_ok());
}

#[test]
fn a_connection_cut_in_an_oversized_reply_leaves_nothing_to_the_next() {
    let mut client = Harness::connected();
    client.submit(&get("/large"));
    let data = Some(Bytes::from(vec![7; 5000]));
    let mut bytes = packet(1, 5, 0, &Response::Data { data, stat: Stat::default() });
    client.receive(bytes.split_to(2000)).unwrap();
    client.lose_connection();
    client.connect();
    let next = client.submit(&get("/next"));
    client.reply(2, 5, 0, value()).unwrap();
    assert!(client.recorder.results[&next].is_ok());
}

#[test]
fn a_refused_credential_ends_the_client_and_is_named() {
    let mut client = Harness::new(|_| {});
    client.session.auth =
        vec![("digest".into(), "a:b".into()), ("x509".into(), Bytes::from_static(b"?"))];
    client.connect();
    let write = client.submit(&set("/a"));
    client.reply(xid::AUTH, 0, 0, Response::Empty).unwrap();
    client.stream();
    client.reply(xid::AUTH, 0, -115, Response::Empty).unwrap_err();
    assert_eq!(client.stream(), ["AuthFailed"]);
    assert_eq!(client.session.over(), Some(&Error::AuthFailed { scheme: "x509".into() }));
    // It was on its way, so nobody knows what became of it.
    assert!(client.error(write).is_outcome_unknown());
}

#[test]
fn closing_waits_for_the_service_but_not_for_ever() {
    let mut client = Harness::connected();
    client.submit(&set("/a"));
    let close = client.submit(&Request::CloseSession);
    client.reply(1, 5, 0, ok_stat()).unwrap();
    client.stream();
    client.reply(2, 6, 0, Response::Empty).unwrap();
    assert_eq!(client.stream(), ["reply 2 0x6", "Closed"]);
    assert!(client.recorder.results[&close].is_ok());
    assert_eq!(client.session.over(), Some(&Error::Closed));

    let mut client = Harness::connected();
    client.lose_connection();
    let close = client.submit(&Request::CloseSession);
    assert_eq!(client.session.deadline(), Some(CLOSE_WAIT));
    assert!(client.wait(CLOSE_WAIT).is_err());
    assert!(matches!(client.error(close), Error::TimedOut { .. }));
}

#[test]
fn a_close_whose_answer_is_lost_is_sent_again_so_that_no_ephemerals_are_left_behind() {
    let mut client = Harness::connected();
    let close = client.submit(&Request::CloseSession);
    client.lose_connection();
    assert_eq!(client.session.over(), None);
    client.connect();
    client.stream();
    client.reply(1, 6, 0, Response::Empty).unwrap();
    assert_eq!(client.stream(), ["reply 1 0x6", "Closed"]);
    assert!(client.recorder.results[&close].is_ok());

    // It had been closed: the next server does not know it any more.
    let mut client = Harness::connected();
    let close = client.submit(&Request::CloseSession);
    client.lose_connection();
    client.greet();
    let unknown = ConnectResponse::invalid_session(Some(false));
    client.answer_greeting(unknown).unwrap_err();
    assert!(client.recorder.results[&close].is_ok());
    assert_eq!(client.session.over(), Some(&Error::Closed));

    // No server can be told in time.
    let mut client = Harness::connected();
    let close = client.submit(&Request::CloseSession);
    client.lose_connection();
    assert!(client.wait(CLOSE_WAIT).is_err());
    assert!(client.error(close).is_outcome_unknown());
    assert_eq!(client.session.over(), Some(&Error::Closed));
}

#[test]
fn a_client_that_never_had_a_session_closes_at_once() {
    let mut client = Harness::new(|_| {});
    client.submit(&Request::CloseSession);
    assert_eq!(client.stream(), ["Closed"]);
}

#[test]
fn a_read_only_server_is_left_unless_it_will_do_and_its_session_is_not_taken_along() {
    let mut client = Harness::new(|_| {});
    client.greet();
    assert!(client.accept(true).unwrap_err().contains("serves only reads"));
    let mut client = Harness::new(|config| config.read_only = true);
    assert_eq!(client.greet().read_only, Some(true));
    client.accept(true).unwrap();
    client.lose_connection();
    assert_eq!(client.connect().session_id, SessionId(0));
    client.lose_connection();
    assert_eq!(client.connect().session_id, SessionId(0xabc));
}

#[test]
fn a_dead_session_answers_with_the_session_not_the_znode() {
    let mut client = Harness::connected();
    let request = client.submit(&get("/a"));
    client.reply(1, 5, -112, Response::Empty).unwrap();
    assert_eq!(client.error(request), &Error::SessionExpired);
}
