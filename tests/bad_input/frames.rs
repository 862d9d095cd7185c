//! Bytes on the client port that no client sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use znodefs::wire::request::{CreateRequest, put_request};
use znodefs::wire::{ConnectRequest, Request, put_frame};
use znodefs::{Acl, CreateMode, ErrorCode, SessionId, Zxid};
use znodefs_tests::{Random, Server, WireClient, on_every_server};

/// `jute.maxbuffer` unless configured.
const FRAME_MAX: usize = 0xf_ffff;

const LIMIT: Duration = Duration::from_secs(10);

/// A server with one acknowledged value, and a check that others are still served and nothing is
/// lost.
struct Bystander<'a> {
    server: &'a mut dyn Server,
    client: WireClient,
}

impl Bystander<'_> {
    fn new(server: &mut dyn Server) -> Bystander<'_> {
        let mut client = WireClient::connect(&server.address());
        client.create("/acknowledged", Some(b"value"));
        Bystander { server, client }
    }

    fn address(&self) -> String {
        self.server.address()
    }

    #[track_caller]
    fn assert_unharmed(mut self) {
        assert_eq!(self.client.data("/acknowledged").as_deref(), Some(&b"value"[..]));
        self.client.create("/afterwards", Some(b"value"));
        self.server.start_again();
        let mut client = WireClient::connect(&self.address());
        assert_eq!(client.data("/acknowledged").as_deref(), Some(&b"value"[..]));
        assert_eq!(client.data("/afterwards").as_deref(), Some(&b"value"[..]));
    }
}

/// A setData whose frame is `length` bytes long.
fn set_data_of_frame_length(xid: i32, length: usize) -> BytesMut {
    let sized = |data: usize| {
        let data = Some(Bytes::from(vec![b'x'; data]));
        let mut out = BytesMut::new();
        put_request(&mut out, xid, &Request::SetData { path: "/big", data, version: -1 });
        out
    };
    let overhead = sized(0).len() - 4;
    sized(length - overhead)
}

fn a_frame_of_the_limit_is_taken_and_one_byte_more_closes_the_connection(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let mut client = WireClient::connect(&bystander.address());
    client.create("/big", Some(b""));
    client.send_raw(&set_data_of_frame_length(100, FRAME_MAX)).unwrap();
    let mut other = WireClient::connect(&bystander.address());
    znodefs_tests::wait_until("the value is set", LIMIT, || {
        other.stat("/big").unwrap().version == 1
    });
    // The server may close before it has taken all of it.
    let _ = client.send_raw(&set_data_of_frame_length(101, FRAME_MAX + 1));
    assert!(client.is_closed_within(LIMIT));
    assert_eq!(other.stat("/big").unwrap().version, 1);
    bystander.assert_unharmed();
}

fn a_negative_or_huge_length_closes_the_connection(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    for length in [-1, i32::MIN, i32::MAX] {
        let mut client = WireClient::connect(&bystander.address());
        client.send_raw(&length.to_be_bytes()).unwrap();
        assert!(client.is_closed_within(LIMIT), "{length}");
        let mut stream = TcpStream::connect(bystander.address()).unwrap();
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_closed(stream);
    }
    bystander.assert_unharmed();
}

fn an_unknown_opcode_is_answered_and_the_connection_closed(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    for op_code in [0, 10, 999, -5, i32::MIN] {
        let mut client = WireClient::connect(&bystander.address());
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| {
            out.put_i32(1);
            out.put_i32(op_code);
        });
        client.send_raw(&out).unwrap();
        assert!(client.is_closed_within(LIMIT), "{op_code}");
    }
    bystander.assert_unharmed();
}

fn half_a_frame_and_silence_hold_up_nobody(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let mut request = BytesMut::new();
    put_request(&mut request, 1, &Request::Sync { path: "/" });
    let mut silent = Vec::new();
    for length in 1..request.len() {
        let mut client = WireClient::connect(&bystander.address());
        client.send_raw(&request[..length]).unwrap();
        let mut stream = TcpStream::connect(bystander.address()).unwrap();
        stream.write_all(&request[..length.min(3)]).unwrap();
        silent.push((client, stream));
    }
    bystander.assert_unharmed();
}

fn arbitrary_bytes_end_a_connection_and_nothing_else(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let mut random = Random::announced();
    for _ in 0..200 {
        let length = random.between(0, 200) as usize;
        let mut frame = BytesMut::new();
        put_frame(&mut frame, |out| out.put_slice(&random.bytes(length)));
        let mut client = WireClient::connect(&bystander.address());
        client.send_raw(&frame).unwrap();
        let mut stream = TcpStream::connect(bystander.address()).unwrap();
        stream.write_all(&frame).unwrap();
    }
    bystander.assert_unharmed();
}

fn a_known_opcode_with_a_garbled_record_is_answered_or_closed(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let mut random = Random::announced();
    for op_code in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 21, 22, 101, 105, 106] {
        let mut client = WireClient::connect(&bystander.address());
        let mut frame = BytesMut::new();
        put_frame(&mut frame, |out| {
            out.put_i32(1);
            out.put_i32(op_code);
            out.put_slice(&random.bytes(7));
        });
        client.send_raw(&frame).unwrap();
    }
    bystander.assert_unharmed();
}

fn invalid_paths_are_bad_arguments(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let mut client = WireClient::connect(&bystander.address());
    for path in ["", "relative", "/a//b", "/./a", "/a/..", "/nul\0", "/control\u{1}", "/e\u{fffd}"]
    {
        let error = client.create_with(path, Some(b""), CreateMode::Persistent).unwrap_err();
        // A missing parent may be noticed before the path is.
        assert!(matches!(error, ErrorCode::BadArguments | ErrorCode::NoNode), "{path}: {error}");
    }
    assert_eq!(client.children("/"), ["acknowledged", "zookeeper"]);
    bystander.assert_unharmed();
}

fn what_a_create_may_not_say_is_refused(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let mut client = WireClient::connect(&bystander.address());
    let mut create = |flags: i32, acl: Vec<Acl>| {
        let mode = CreateMode::Persistent;
        let mut create = CreateRequest::new("/x", None, acl, mode, 0);
        create.flags = flags;
        client.call(&Request::Create(create)).unwrap_err()
    };
    assert_eq!(create(0, Vec::new()), ErrorCode::InvalidAcl);
    assert_eq!(create(77, Acl::open()), ErrorCode::BadArguments);
    assert_eq!(create(-1, Acl::open()), ErrorCode::BadArguments);
    bystander.assert_unharmed();
}

fn a_session_with_a_wrong_password_or_an_unknown_id_is_expired(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let client = WireClient::connect(&bystander.address());
    let ids = [client.session_id, SessionId(client.session_id.0 + 1), SessionId(-1)];
    for session_id in ids {
        let request = ConnectRequest {
            timeout_ms: 10_000,
            session_id,
            password: Some(Bytes::from_static(&[7; 16])),
            ..ConnectRequest::default()
        };
        let refused = WireClient::connect_with(&bystander.address(), &request).unwrap();
        assert_eq!(refused.session_id, SessionId(0), "never a fresh id instead");
    }
    bystander.assert_unharmed();
}

fn a_client_that_has_seen_the_future_is_turned_away(server: &mut dyn Server) {
    let bystander = Bystander::new(server);
    let request = ConnectRequest {
        timeout_ms: 10_000,
        last_zxid_seen: Zxid(i64::MAX),
        password: Some(Bytes::from_static(&[0; 16])),
        ..ConnectRequest::default()
    };
    assert!(WireClient::connect_with(&bystander.address(), &request).is_err());
    bystander.assert_unharmed();
}

fn assert_closed(mut stream: TcpStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => {}
        Ok(length) => panic!("an answer of {length} bytes"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

on_every_server![
    a_frame_of_the_limit_is_taken_and_one_byte_more_closes_the_connection,
    a_negative_or_huge_length_closes_the_connection,
    an_unknown_opcode_is_answered_and_the_connection_closed,
    half_a_frame_and_silence_hold_up_nobody,
    arbitrary_bytes_end_a_connection_and_nothing_else,
    a_known_opcode_with_a_garbled_record_is_answered_or_closed,
    invalid_paths_are_bad_arguments,
    what_a_create_may_not_say_is_refused,
    a_session_with_a_wrong_password_or_an_unknown_id_is_expired,
    a_client_that_has_seen_the_future_is_turned_away,
];
