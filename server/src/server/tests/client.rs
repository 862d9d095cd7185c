//! A client that sends and receives single frames and hides nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use znodefs::wire::request::{CreateRequest, put_request};
use znodefs::wire::{
    ConnectRequest, ConnectResponse, Decoder, Encode, EventType, ReplyHeader, Request, Response,
    WatchedEvent, put_frame, take_frame, xid,
};
use znodefs::{Acl, CreateMode, ErrorCode, SessionId, Stat, Zxid};

use super::LIMIT;

/// A connection with a session.
pub(crate) struct TestClient {
    stream: TcpStream,
    input: BytesMut,
    next_xid: i32,
    pub session_id: SessionId,
    pub password: Bytes,
    pub timeout_ms: i32,
    /// Events received, with what their headers say.
    pub events: VecDeque<(Zxid, WatchedEvent)>,
}

/// A reply, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub header: ReplyHeader,
    pub response: Result<Response, ErrorCode>,
}

impl Reply {
    pub fn error(&self) -> Option<ErrorCode> {
        self.response.as_ref().err().copied()
    }

    pub fn stat(self) -> Stat {
        match self.response.unwrap() {
            Response::Stat(stat)
            | Response::Created { stat, .. }
            | Response::Data { stat, .. }
            | Response::Children { stat, .. } => stat,
            other => panic!("no stat in {other:?}"),
        }
    }

    pub fn data(self) -> Bytes {
        match self.response.unwrap() {
            Response::Data { data, .. } => data.unwrap(),
            other => panic!("no data in {other:?}"),
        }
    }

    pub fn path(self) -> String {
        match self.response.unwrap() {
            Response::Path(path) | Response::Created { path, .. } => path,
            other => panic!("no path in {other:?}"),
        }
    }
}

pub(crate) fn create<'a>(path: &'a str, data: &'static str, mode: CreateMode) -> Request<'a> {
    let data = Some(Bytes::from_static(data.as_bytes()));
    Request::Create(CreateRequest::new(path, data, Acl::open(), mode, 0))
}

pub(crate) fn set<'a>(path: &'a str, data: &'static str) -> Request<'a> {
    Request::SetData { path, data: Some(Bytes::from_static(data.as_bytes())), version: -1 }
}

pub(crate) fn get(path: &str) -> Request<'_> {
    Request::GetData { path, watch: false }
}

/// What a client asks for that has no session yet.
pub(crate) fn new_session() -> ConnectRequest {
    ConnectRequest {
        timeout_ms: 10_000,
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(false),
        ..ConnectRequest::default()
    }
}

impl TestClient {
    pub async fn connect(address: SocketAddr) -> TestClient {
        let client = TestClient::connect_with(address, &new_session()).await;
        client.expect("the replica closed the connection")
    }

    /// Sends a ConnectRequest; `None` when the replica closes the connection instead of answering.
    pub async fn connect_with(address: SocketAddr, request: &ConnectRequest) -> Option<TestClient> {
        let mut client = TestClient::open(address).await;
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| request.encode(out));
        client.send_bytes(&out).await;
        client.read_connect_response().await.map(|_| client)
    }

    /// A connection on which nothing has been said.
    pub async fn open(address: SocketAddr) -> TestClient {
        TestClient {
            stream: TcpStream::connect(address).await.unwrap(),
            input: BytesMut::new(),
            next_xid: 1,
            session_id: SessionId(0),
            password: Bytes::new(),
            timeout_ms: 0,
            events: VecDeque::new(),
        }
    }

    pub async fn read_connect_response(&mut self) -> Option<ConnectResponse> {
        let frame = self.receive_frame().await?;
        let response = ConnectResponse::decode(&mut Decoder::new(&frame)).unwrap();
        self.session_id = response.session_id;
        self.password = response.password.clone();
        self.timeout_ms = response.timeout_ms;
        Some(response)
    }

    /// The request that takes up this client's session.
    pub fn reconnect_request(&self) -> ConnectRequest {
        ConnectRequest {
            session_id: self.session_id,
            password: Some(self.password.clone()),
            ..new_session()
        }
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // A replica that has hung up already is noticed when receiving.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends requests in one write; returns the first one's number.
    pub async fn send(&mut self, requests: &[Request<'_>]) -> i32 {
        let first = self.next_xid;
        let mut out = BytesMut::new();
        for request in requests {
            put_request(&mut out, self.next_xid, request);
            self.next_xid += 1;
        }
        self.send_bytes(&out).await;
        first
    }

    /// The next frame; `None` at the end.
    pub async fn receive_frame(&mut self) -> Option<Bytes> {
        let receiving = async {
            loop {
                if let Some(frame) = take_frame(&mut self.input, 256 << 20).unwrap() {
                    return Some(frame);
                }
                match self.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, receiving).await.expect("nothing came in time")
    }

    /// The next reply to a request of this kind; events in front of it are kept.
    pub async fn receive(&mut self, request: &Request<'_>) -> Option<Reply> {
        loop {
            let frame = self.receive_frame().await?;
            let mut decoder = Decoder::new(&frame);
            let header = ReplyHeader::decode(&mut decoder).unwrap();
            if header.xid == xid::NOTIFICATION {
                self.events.push_back((
                    header.zxid,
                    WatchedEvent::decode(header.zxid, &mut decoder).unwrap(),
                ));
                continue;
            }
            let response = match ErrorCode::from_code(header.error) {
                Some(error) => Err(error),
                None => Ok(Response::decode(request.op_code(), &mut decoder).unwrap()),
            };
            assert_eq!(decoder.remaining(), 0, "bytes behind the reply to {request:?}");
            return Some(Reply { header, response });
        }
    }

    /// Sends a request and waits for its reply.
    pub async fn call(&mut self, request: &Request<'_>) -> Reply {
        let sent = self.send(std::slice::from_ref(request)).await;
        let reply = self.receive(request).await.expect("the replica closed the connection");
        assert_eq!(reply.header.xid, sent);
        reply
    }

    pub async fn create(&mut self, path: &str, data: &'static str) -> Reply {
        self.call(&create(path, data, CreateMode::Persistent)).await
    }

    /// The kinds and paths of all events so far, once a ping has come back behind them.
    pub async fn drain_events(&mut self) -> Vec<(EventType, String)> {
        self.call(&Request::Ping).await;
        self.events.drain(..).map(|(_, event)| (event.event_type, event.path)).collect()
    }

    /// Whether the replica closes the connection without another word.
    pub async fn is_closed_silently(&mut self) -> bool {
        self.receive_frame().await.is_none() && self.input.is_empty()
    }

    /// Everything until the replica closes the connection, as text.
    pub async fn read_to_end(&mut self) -> String {
        let mut text = Vec::new();
        let reading = self.stream.read_to_end(&mut text);
        tokio::time::timeout(LIMIT, reading).await.expect("nothing came in time").unwrap();
        String::from_utf8(text).unwrap()
    }
}
