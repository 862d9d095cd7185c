//! A server on 127.0.0.1 that does what the test tells it, one packet at a time.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::ConnectString;
use crate::wire::watch::put_watcher_event;
use crate::wire::{
    ConnectRequest, ConnectResponse, Decoder, Encode, EventType, KeeperState, OpCode, ReplyHeader,
    Request, RequestHeader, Response, put_frame, take_frame, xid,
};
use crate::zxid::{SessionId, Zxid};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

pub struct FakeServer {
    listener: TcpListener,
}

impl FakeServer {
    pub async fn start() -> FakeServer {
        FakeServer { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn connect_string(&self) -> ConnectString {
        self.address().to_string().parse().unwrap()
    }

    /// The next connection, its greeting not read yet.
    pub async fn accept(&self) -> FakeConnection {
        let (stream, _) = in_time(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        FakeConnection { stream, input: BytesMut::new() }
    }

    /// The next connection, greeted with this session.
    pub async fn accept_session(&self, session_id: i64) -> (FakeConnection, ConnectRequest) {
        let mut connection = self.accept().await;
        let greeting = connection.greeting().await;
        connection.welcome(session_id, greeting.timeout_ms).await;
        (connection, greeting)
    }
}

pub struct FakeConnection {
    stream: TcpStream,
    input: BytesMut,
}

/// A request as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub xid: i32,
    pub op_code: OpCode,
    pub path: String,
}

impl FakeConnection {
    /// The next frame; `None` at the end of the stream.
    async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = take_frame(&mut self.input, 1 << 20).unwrap() {
                return Some(frame);
            }
            match in_time(self.stream.read_buf(&mut self.input)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    pub async fn greeting(&mut self) -> ConnectRequest {
        let frame = self.frame().await.unwrap();
        ConnectRequest::decode(&mut Decoder::new(&frame)).unwrap()
    }

    pub async fn welcome(&mut self, session_id: i64, timeout_ms: i32) {
        let session_id = SessionId(session_id);
        let password = Bytes::from_static(b"0123456789abcdef");
        let read_only = Some(false);
        let response =
            ConnectResponse { protocol_version: 0, timeout_ms, session_id, password, read_only };
        self.send_frame(|out| response.encode(out)).await;
    }

    pub async fn refuse_session(&mut self) {
        self.send_frame(|out| ConnectResponse::invalid_session(Some(false)).encode(out)).await;
    }

    async fn send_frame(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        put_frame(&mut out, write);
        self.send(&out).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // The client may have gone, which some tests are about.
        let _ = in_time(self.stream.write_all(bytes)).await;
    }

    /// The next request other than a ping; `None` at the end of the stream.
    pub async fn request(&mut self) -> Option<Received> {
        loop {
            let received = self.any_request().await?;
            if received.op_code != OpCode::Ping {
                return Some(received);
            }
        }
    }

    pub async fn any_request(&mut self) -> Option<Received> {
        let frame = self.frame().await?;
        let mut decoder = Decoder::new(&frame);
        let header = RequestHeader::decode(&mut decoder).unwrap();
        let op_code = OpCode::from_code(header.op_code).unwrap();
        let request = Request::decode(op_code, &mut decoder).unwrap();
        let path = match &request {
            Request::SetWatches2(sets) => sets.persistent_recursive.join(" "),
            Request::SetWatches(sets) => sets.data.join(" "),
            other => other.path().unwrap_or_default().to_string(),
        };
        Some(Received { xid: header.xid, op_code, path })
    }

    /// The next request, which is this operation; returns its xid.
    pub async fn expect(&mut self, op_code: OpCode, path: &str) -> i32 {
        let received = self.request().await.expect("the client left");
        assert_eq!((received.op_code, received.path.as_str()), (op_code, path));
        received.xid
    }

    pub async fn reply(&mut self, xid: i32, zxid: i64, record: &Response) {
        self.send(&reply(xid, zxid, record)).await;
    }

    pub async fn fail(&mut self, xid: i32, zxid: i64, error: i32) {
        self.send_frame(|out| ReplyHeader { xid, zxid: Zxid(zxid), error }.encode(out)).await;
    }

    pub async fn event(&mut self, zxid: i64, event: EventType, path: &str) {
        self.send_frame(|out| {
            ReplyHeader { xid: xid::NOTIFICATION, zxid: Zxid(zxid), error: 0 }.encode(out);
            put_watcher_event(out, event, KeeperState::SYNC_CONNECTED, path);
        })
        .await;
    }

    /// Waits until the client closes the connection.
    pub async fn closed(&mut self) {
        while self.frame().await.is_some() {}
    }
}

/// The bytes of a reply.
pub fn reply(xid: i32, zxid: i64, record: &Response) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| {
        ReplyHeader { xid, zxid: Zxid(zxid), error: 0 }.encode(out);
        record.encode(out);
    });
    out.freeze()
}
