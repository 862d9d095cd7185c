//! The client as a whole, against a server that misbehaves on purpose.

mod fake_server;

use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::ErrorCode;
use crate::acl::Acl;
use crate::stat::Stat;
use crate::wire::{
    AddWatchMode, CreateMode, EventType, MultiResult, OpCode, Request, Response, xid,
};
use fake_server::{FakeConnection, FakeServer, in_time, reply};

fn options() -> ClientOptions {
    ClientOptions { random_seed: Some(1), ..ClientOptions::default() }
}

/// A client with a session, and the server's end of its connection.
async fn connected(
    server: &FakeServer,
    options: ClientOptions,
    sink: impl Sink,
) -> (Client, FakeConnection) {
    let servers = server.connect_string();
    let (client, (connection, _)) = tokio::join!(
        in_time(Client::connect_with_sink(&servers, options, sink)),
        server.accept_session(7)
    );
    (client.unwrap(), connection)
}

fn ignore(_: Delivery<'_>) {}

/// A sink that writes one line for each delivery.
fn recorder() -> (impl Sink, mpsc::Receiver<String>) {
    let (lines, receiver) = mpsc::channel();
    let sink = move |delivery: Delivery<'_>| {
        let line = match delivery {
            Delivery::Reply { request_id, .. } => format!("reply {request_id}"),
            Delivery::Event(event) => format!("{:?} {}", event.event_type, event.path),
            Delivery::OutsideEvent(event) => {
                format!("outside {:?} {}", event.event_type, event.path)
            }
            Delivery::State(state) => format!("{state:?}"),
        };
        let _ = lines.send(line);
    };
    (sink, receiver)
}

fn value(text: &'static str) -> Response {
    Response::Data { data: Some(Bytes::from_static(text.as_bytes())), stat: Stat::default() }
}

fn ok_stat() -> Response {
    Response::Stat(Stat::default())
}

async fn state(client: &Client, wanted: SessionState) {
    let mut states = client.state_changes();
    in_time(states.wait_for(|state| *state == wanted)).await.unwrap();
}

#[tokio::test]
async fn requests_are_on_their_way_in_the_order_of_the_calls_before_any_is_awaited() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    assert_eq!(client.session_id(), SessionId(7));
    assert_eq!(client.server_address(), Some(server.address()));
    assert_eq!(client.negotiated_timeout(), Duration::from_secs(10));
    let create = client.create("/a", None, Acl::open(), CreateMode::Persistent);
    let set = client.set_data("/a", Some("1".into()), None);
    let get = client.get_data("/a", false);
    let dropped = client.submit(&Request::Sync { path: "/" });
    assert_eq!(dropped.request_id(), 4);
    drop(dropped);
    let exists = client.exists("/b", false);
    for (op_code, path) in [
        (OpCode::Create2, "/a"),
        (OpCode::SetData, "/a"),
        (OpCode::GetData, "/a"),
        (OpCode::Sync, "/"),
        (OpCode::Exists, "/b"),
    ] {
        connection.expect(op_code, path).await;
    }
    let created = Response::Created { path: "/a".into(), stat: Stat::default() };
    let path = Response::Path("/".into());
    let replies = [(1, created), (2, ok_stat()), (3, value("1")), (4, path)];
    let mut bytes = Vec::new();
    for (xid, record) in &replies {
        bytes.extend_from_slice(&reply(*xid, 9, record));
    }
    connection.send(&bytes).await;
    connection.fail(5, 10, -101).await;
    assert_eq!(create.await.unwrap().0, "/a");
    set.await.unwrap();
    assert_eq!(get.await.unwrap().0.as_deref(), Some(&b"1"[..]));
    assert_eq!(exists.await.unwrap(), None);
    assert_eq!(client.last_zxid(), Zxid(10));
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_a_reply_repeats_reads_and_fails_writes() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let read = client.get_data("/read", false);
    let write = client.set_data("/write", None, None);
    let xid = connection.expect(OpCode::GetData, "/read").await;
    connection.expect(OpCode::SetData, "/write").await;
    let whole = reply(xid, 9, &value("first"));
    connection.send(&whole[..whole.len() / 2]).await;
    drop(connection);
    let (mut connection, greeting) = server.accept_session(7).await;
    assert_eq!(greeting.session_id, SessionId(7));
    let xid = connection.expect(OpCode::GetData, "/read").await;
    connection.reply(xid, 9, &value("second")).await;
    assert_eq!(read.await.unwrap().0.as_deref(), Some(&b"second"[..]));
    let error = write.await.unwrap_err();
    assert!(matches!(&error, Error::ConnectionLoss { path, .. } if path == "/write"), "{error}");
    assert!(error.to_string().contains(&server.address().to_string()), "{error}");
}

#[tokio::test]
async fn a_request_on_an_idle_connection_is_sent_at_once_not_with_the_next_ping() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    for xid in 1..=3 {
        let sync = client.sync("/");
        let sent = connection.expect(OpCode::Sync, "/");
        // A ping is due after more than three seconds.
        tokio::time::timeout(Duration::from_secs(2), sent).await.unwrap();
        connection.reply(xid, 9, &Response::Path("/".into())).await;
        in_time(sync).await.unwrap();
    }
}

#[tokio::test]
async fn replies_in_pieces_of_one_byte_are_put_together() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let reads: Vec<_> = (0..3).map(|_| client.get_data("/a", false)).collect();
    for _ in 0..3 {
        let xid = connection.expect(OpCode::GetData, "/a").await;
        for byte in reply(xid, 9, &value("pieces")) {
            connection.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
    }
    for read in reads {
        assert_eq!(in_time(read).await.unwrap().0.as_deref(), Some(&b"pieces"[..]));
    }
}

#[tokio::test]
async fn a_reply_out_of_turn_drops_the_connection() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let read = client.get_data("/a", false);
    let xid = connection.expect(OpCode::GetData, "/a").await;
    connection.reply(xid + 1, 9, &value("another's")).await;
    connection.closed().await;
    let (mut connection, _) = server.accept_session(7).await;
    let xid = connection.expect(OpCode::GetData, "/a").await;
    connection.reply(xid, 9, &value("own")).await;
    assert_eq!(read.await.unwrap().0.as_deref(), Some(&b"own"[..]));
}

#[tokio::test]
async fn a_session_moves_to_another_server_with_its_watches() {
    let (one, two) = (FakeServer::start().await, FakeServer::start().await);
    let servers: ConnectString =
        format!("{},{}/app", one.address(), two.address()).parse().unwrap();
    let (sink, lines) = recorder();
    let connecting = in_time(Client::connect_with_sink(&servers, options(), sink));
    let first_accepted = async {
        tokio::select! {
            (connection, _) = one.accept_session(7) => (connection, &two),
            (connection, _) = two.accept_session(7) => (connection, &one),
        }
    };
    let (client, (mut connection, other)) = tokio::join!(connecting, first_accepted);
    let client = client.unwrap();
    let read = client.get_data("/a", true);
    let xid = connection.expect(OpCode::GetData, "/app/a").await;
    connection.reply(xid, 9, &value("x")).await;
    read.await.unwrap();
    drop(connection);
    let (mut connection, greeting) = other.accept_session(7).await;
    assert_eq!((greeting.session_id, greeting.last_zxid_seen), (SessionId(7), Zxid(9)));
    let watches = connection.request().await.unwrap();
    assert_eq!((watches.op_code, watches.path.as_str()), (OpCode::SetWatches, "/app/a"));
    connection.event(12, EventType::NodeDataChanged, "/app/a").await;
    connection.reply(xid::SET_WATCHES, 12, &Response::Empty).await;
    let sync = client.sync("/");
    let xid = connection.expect(OpCode::Sync, "/app").await;
    connection.reply(xid, 12, &Response::Path("/app".into())).await;
    sync.await.unwrap();
    let lines: Vec<_> = lines.try_iter().collect();
    let expected =
        ["Connected", "reply 1", "Suspended", "Connected", "NodeDataChanged /a", "reply 2"];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_expired_session_fails_everything_with_the_reason() {
    let server = FakeServer::start().await;
    let (client, connection) = connected(&server, options(), ignore).await;
    let read = client.get_data("/a", false);
    drop(connection);
    let mut connection = server.accept().await;
    connection.greeting().await;
    connection.refuse_session().await;
    assert_eq!(in_time(read).await.unwrap_err(), Error::SessionExpired);
    assert_eq!(client.state(), SessionState::Expired);
    state(&client, SessionState::Expired).await;
    connection.closed().await;
    let late = in_time(client.delete("/a", None)).await.unwrap_err();
    assert_eq!(late, Error::SessionExpired);
    assert_eq!(in_time(client.close()).await, Err(Error::SessionExpired));
}

#[tokio::test]
async fn an_expired_session_is_renewed_where_that_is_wanted() {
    let server = FakeServer::start().await;
    let (sink, lines) = recorder();
    let options = ClientOptions { renew_session: true, ..options() };
    let (client, mut connection) = connected(&server, options, sink).await;
    let watch = client.add_watch("/", AddWatchMode::PersistentRecursive);
    let xid = connection.expect(OpCode::AddWatch, "/").await;
    connection.reply(xid, 9, &Response::Number(0)).await;
    watch.await.unwrap();
    drop(connection);
    let mut connection = server.accept().await;
    assert_eq!(connection.greeting().await.session_id, SessionId(7));
    connection.refuse_session().await;
    let (mut connection, greeting) = server.accept_session(8).await;
    assert_eq!(greeting.session_id, SessionId(0));
    connection.expect(OpCode::SetWatches2, "/").await;
    state(&client, SessionState::Connected).await;
    assert_eq!(client.session_id(), SessionId(8));
    let lines: Vec<_> = lines.try_iter().collect();
    assert_eq!(lines, ["Connected", "reply 1", "Suspended", "Expired", "Connected"]);
}

#[tokio::test]
async fn no_server_is_told_with_every_address_and_its_reason() {
    // A port that was just free refuses connections.
    let refusing = FakeServer::start().await.address();
    let (closing, foreign, silent) =
        (FakeServer::start().await, FakeServer::start().await, FakeServer::start().await);
    let servers: ConnectString =
        format!("{refusing},{},{},{}", closing.address(), foreign.address(), silent.address())
            .parse()
            .unwrap();
    let options = ClientOptions {
        session_timeout: Duration::from_millis(1200),
        connect_timeout: Some(Duration::from_millis(1500)),
        ..options()
    };
    let hang_up = async {
        loop {
            drop(closing.accept().await);
        }
    };
    let answer_in_http = async {
        loop {
            foreign.accept().await.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    };
    let keep_silent = async {
        let mut kept = Vec::new();
        loop {
            kept.push(silent.accept().await);
        }
    };
    let result = tokio::select! {
        result = in_time(Client::connect(&servers, options)) => result,
        () = hang_up => unreachable!(),
        () = answer_in_http => unreachable!(),
        () = keep_silent => unreachable!(),
    };
    let Err(error @ Error::NoServer { .. }) = result.map(|_| ()) else { panic!() };
    let message = error.to_string();
    for part in [
        format!("{refusing}: connection refused"),
        format!("{}: the server closed the connection", closing.address()),
        format!("{}: it does not speak the ZooKeeper protocol", foreign.address()),
        format!("{}: it did not answer the connect request", silent.address()),
    ] {
        assert!(message.contains(&part), "{message} lacks {part}");
    }
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_then_left() {
    let server = FakeServer::start().await;
    let options = ClientOptions { session_timeout: Duration::from_millis(600), ..options() };
    let (client, mut connection) = connected(&server, options, ignore).await;
    assert_eq!(connection.any_request().await.unwrap().op_code, OpCode::Ping);
    connection.closed().await;
    let (_connection, greeting) = server.accept_session(7).await;
    assert_eq!(greeting.session_id, SessionId(7));
    state(&client, SessionState::Connected).await;
}

#[tokio::test]
async fn requests_fail_once_no_server_was_there_for_the_session_timeout() {
    let server = FakeServer::start().await;
    let options = ClientOptions { session_timeout: Duration::from_millis(600), ..options() };
    let (client, connection) = connected(&server, options, ignore).await;
    drop((server, connection));
    state(&client, SessionState::Suspended).await;
    let error = in_time(client.get_data("/a", false)).await.unwrap_err();
    let Error::TimedOut { path, waited, reason, .. } = &error else { panic!("{error}") };
    assert_eq!(path, "/a");
    assert!(*waited >= Duration::from_millis(600));
    assert!(reason.contains("connection refused"), "{reason}");
}

#[tokio::test]
async fn events_and_replies_reach_the_sink_in_the_order_of_the_wire_before_the_caller() {
    let server = FakeServer::start().await;
    let (sink, lines) = recorder();
    let (client, mut connection) = connected(&server, options(), sink).await;
    let set = client.set_data("/a", None, None);
    let xid = connection.expect(OpCode::SetData, "/a").await;
    connection.event(9, EventType::NodeDataChanged, "/a").await;
    connection.reply(xid, 9, &ok_stat()).await;
    set.await.unwrap();
    let lines: Vec<_> = lines.try_iter().collect();
    assert_eq!(lines, ["Connected", "NodeDataChanged /a", "reply 1"]);
}

#[tokio::test]
async fn a_refused_credential_fails_the_connection() {
    let server = FakeServer::start().await;
    let options = ClientOptions { auth: vec![("digest".into(), "bob:x".into())], ..options() };
    let servers = server.connect_string();
    let refuse = async {
        let (mut connection, _) = server.accept_session(7).await;
        assert_eq!(connection.request().await.unwrap().op_code, OpCode::Auth);
        connection.fail(xid::AUTH, 0, -115).await;
        connection
    };
    let (result, _connection) = tokio::join!(in_time(Client::connect(&servers, options)), refuse);
    assert_eq!(result.map(|_| ()).unwrap_err(), Error::AuthFailed { scheme: "digest".into() });
}

#[tokio::test]
async fn close_ends_the_session_after_what_was_submitted_before() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let set = client.set_data("/a", None, None);
    let close = client.close();
    let late = client.exists("/a", false);
    assert_eq!(late.await.unwrap_err(), Error::Closed);
    let xid = connection.expect(OpCode::SetData, "/a").await;
    connection.reply(xid, 9, &ok_stat()).await;
    let xid = connection.expect(OpCode::CloseSession, "").await;
    connection.reply(xid, 10, &Response::Empty).await;
    set.await.unwrap();
    in_time(close).await.unwrap();
    connection.closed().await;
    state(&client, SessionState::Closed).await;
    in_time(client.close()).await.unwrap();
}

#[tokio::test]
async fn the_last_handle_takes_the_session_with_it() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let other = client.clone();
    let set = client.set_data("/a", None, None);
    drop(client);
    let xid = connection.expect(OpCode::SetData, "/a").await;
    drop(other);
    let close = connection.expect(OpCode::CloseSession, "").await;
    connection.reply(xid, 9, &ok_stat()).await;
    connection.reply(close, 9, &Response::Empty).await;
    in_time(set).await.unwrap();
    connection.closed().await;
}

#[test]
fn nobody_waits_on_a_client_whose_runtime_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (client, before, connection) = first.block_on(async {
        let server = FakeServer::start().await;
        let (client, connection) = connected(&server, options(), ignore).await;
        let before = client.get_data("/a", false);
        (client, before, connection)
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(in_time(before).await.unwrap_err(), Error::Closed);
        assert_eq!(in_time(client.sync("/")).await.unwrap_err(), Error::Closed);
    });
    assert_eq!(client.state(), SessionState::Closed);
    drop(connection);
}

#[tokio::test]
async fn a_failed_multi_names_the_operation() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let delete = |path| Request::Delete { path, version: -1 };
    let multi = client.multi(vec![delete("/a"), delete("/b"), delete("/c")]);
    let xid = connection.expect(OpCode::Multi, "").await;
    let results = [0, -111, -2].map(MultiResult::Error).to_vec();
    connection.reply(xid, 9, &Response::Multi(results)).await;
    let error = multi.await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotEmpty));
    let message =
        "operation 2 of the multi, delete /b: znode has children (nothing of it was done)";
    assert_eq!(error.to_string(), message);
}

#[tokio::test]
async fn what_cannot_succeed_fails_without_being_sent() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let large = client.set_data("/a", Some(vec![0; 2 << 20].into()), None);
    let Err(Error::RequestTooLarge { path, limit, .. }) = large.await else { panic!() };
    assert_eq!((path.as_str(), limit), ("/a", 0xf_ffff));
    let invalid = client.delete("a", None).await.unwrap_err();
    assert_eq!(invalid.to_string(), "invalid path 'a': it must start with /");
    drop(client.sync("/"));
    connection.expect(OpCode::Sync, "/").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_in_both_directions_at_once_do_not_block_each_other() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let data = Bytes::from(vec![7; 500_000]);
    let requests: Vec<_> = (0..40)
        .map(|_| (client.set_data("/a", Some(data.clone()), None), client.get_data("/a", false)))
        .collect();
    let serve = tokio::spawn(async move {
        // Answers each request before it reads the next, as long as there are any.
        while let Some(received) = connection.request().await {
            let record = match received.op_code {
                OpCode::SetData => ok_stat(),
                _ => Response::Data { data: Some(data.clone()), stat: Stat::default() },
            };
            connection.reply(received.xid, 9, &record).await;
        }
    });
    for (set, get) in requests {
        in_time(set).await.unwrap();
        assert_eq!(in_time(get).await.unwrap().0.unwrap().len(), 500_000);
    }
    drop(client);
    in_time(serve).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_one_connection() {
    let server = FakeServer::start().await;
    let (client, mut connection) = connected(&server, options(), ignore).await;
    let serve = tokio::spawn(async move {
        while let Some(received) = connection.request().await {
            let record = match received.op_code {
                OpCode::CloseSession => Response::Empty,
                _ => Response::Path(received.path.clone()),
            };
            connection.reply(received.xid, 9, &record).await;
        }
    });
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let path = format!("/{task}/{number}");
                    let reply = client.submit(&Request::Sync { path: &path }).await.unwrap();
                    assert_eq!(reply.response, Response::Path(path));
                }
            })
        })
        .collect();
    for task in tasks {
        in_time(task).await.unwrap();
    }
    in_time(client.close()).await.unwrap();
    in_time(serve).await.unwrap();
}
