//! A plain, blocking client of the ZooKeeper protocol: one connection, one request at a time. It
//! shares the records with the product but not the client library, so that a fault there does not
//! hide itself, and it sends whatever bytes a test wants. With several servers, separated by commas, it
//! goes on at another one when its own goes: `roaming`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use znodefs::wire::request::{CreateRequest, MultiOp, put_request};
use znodefs::wire::{
    ConnectRequest, ConnectResponse, Decoder, Encode, EventType, MultiResult, ReplyHeader, Request,
    Response, WatchedEvent, put_frame, xid,
};
use znodefs::{Acl, CreateMode, ErrorCode, SessionId, Stat, Zxid};

use crate::roaming::{self, Roaming};

/// How long a client waits before it gives up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection: without it a server that is cut off is waited for for minutes.
    pub connect: Duration,
    /// For an answer.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: Duration::from_secs(10), answer: Duration::from_secs(30) }
    }
}

/// The session timeout asked for, in milliseconds.
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// One connection with a session.
#[derive(Debug)]
pub struct WireClient {
    stream: TcpStream,
    next_xid: i32,
    awaited: VecDeque<i32>,
    events: VecDeque<WatchedEvent>,
    roaming: Option<Roaming>,
    says_goodbye: bool,
    /// The session's id.
    pub session_id: SessionId,
    /// The session's password.
    pub password: Bytes,
    /// Whether the server said that it serves only reads; `None` if it said nothing of that.
    pub read_only: Option<bool>,
    /// The zxid of the last reply.
    pub last_zxid: Zxid,
}

/// An answer as it came: the error in it is the service's.
pub type Answer = Result<Response, ErrorCode>;

impl WireClient {
    /// Connects to `HOST:PORT`, or to one of several, and opens a session.
    #[track_caller]
    pub fn connect(address: &str) -> WireClient {
        WireClient::try_connect(address).expect("a session")
    }

    /// The same, an error if nobody answers.
    pub fn try_connect(address: &str) -> std::io::Result<WireClient> {
        let request = ConnectRequest {
            timeout_ms: SESSION_TIMEOUT_MS,
            password: Some(Bytes::from_static(&[0; 16])),
            ..ConnectRequest::default()
        };
        WireClient::connect_with(address, &request)
    }

    /// Connects with this first record; an error if the server closes the connection instead of
    /// answering. A refused session is an answer with the id 0.
    pub fn connect_with(address: &str, request: &ConnectRequest) -> std::io::Result<WireClient> {
        let roaming = Roaming::among(address, request.timeout_ms);
        let (stream, response) = match &roaming {
            Some(roaming) => roaming.open(request)?,
            None => open(address, request, Limits::default())?,
        };
        Ok(WireClient::new(stream, response, roaming))
    }

    /// The same at this server and no other, with other limits.
    pub fn connect_within(
        address: &str,
        request: &ConnectRequest,
        limits: Limits,
    ) -> std::io::Result<WireClient> {
        let (stream, response) = open(address, request, limits)?;
        Ok(WireClient::new(stream, response, None))
    }

    fn new(stream: TcpStream, response: ConnectResponse, roaming: Option<Roaming>) -> WireClient {
        WireClient {
            stream,
            next_xid: 1,
            awaited: VecDeque::new(),
            events: VecDeque::new(),
            roaming,
            says_goodbye: true,
            session_id: response.session_id,
            password: response.password,
            read_only: response.read_only,
            last_zxid: Zxid(0),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// If the connection ends.
    #[track_caller]
    pub fn call(&mut self, request: &Request<'_>) -> Answer {
        self.try_call(request).expect("an answer")
    }

    /// Sends a request and waits for its answer; an error if the connection ends.
    pub fn try_call(&mut self, request: &Request<'_>) -> std::io::Result<Answer> {
        if self.roaming.is_some() {
            return Ok(roaming::call(self, request));
        }
        self.call_here(request)
    }

    /// The same on this connection only.
    pub(crate) fn call_here(&mut self, request: &Request<'_>) -> std::io::Result<Answer> {
        self.send_here(&[request])?;
        self.receive_here(request)
    }

    /// Sends requests without waiting for answers.
    pub fn send(&mut self, requests: &[&Request<'_>]) -> std::io::Result<()> {
        let sent = self.send_here(requests);
        self.or_inconclusive(sent)
    }

    fn send_here(&mut self, requests: &[&Request<'_>]) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        for request in requests {
            let xid = match request {
                Request::Auth { .. } => xid::AUTH,
                Request::Ping => xid::PING,
                _ => self.next_xid,
            };
            self.next_xid += i32::from(xid > 0);
            self.awaited.push_back(xid);
            put_request(&mut out, xid, request);
        }
        self.stream.write_all(&out)
    }

    /// The answer to the earliest request that has none yet, which was this one.
    pub fn receive(&mut self, request: &Request<'_>) -> std::io::Result<Answer> {
        let received = self.receive_here(request);
        self.or_inconclusive(received)
    }

    /// What is on its way together with other requests is not sent again elsewhere.
    fn or_inconclusive<T>(&self, result: std::io::Result<T>) -> std::io::Result<T> {
        match result {
            Err(error) if self.roaming.is_some() => roaming::lost(&error),
            result => result,
        }
    }

    fn receive_here(&mut self, request: &Request<'_>) -> std::io::Result<Answer> {
        loop {
            let frame = read_frame(&mut self.stream)?;
            let mut decoder = Decoder::new(&frame);
            let header = ReplyHeader::decode(&mut decoder).expect("a reply header");
            if header.xid == xid::NOTIFICATION {
                let event = WatchedEvent::decode(header.zxid, &mut decoder);
                self.events.push_back(event.expect("a watch event"));
                continue;
            }
            assert_eq!(Some(header.xid), self.awaited.pop_front(), "answers in request order");
            self.last_zxid = header.zxid;
            return Ok(match ErrorCode::from_code(header.error) {
                Some(error) => Err(error),
                None => Ok(Response::decode(request.op_code(), &mut decoder).expect("a record")),
            });
        }
    }

    /// The events that have come before the last answer.
    pub fn events_so_far(&mut self) -> Vec<(EventType, String)> {
        self.events.drain(..).map(|event| (event.event_type, event.path)).collect()
    }

    /// The same as they came.
    pub fn take_events(&mut self) -> Vec<WatchedEvent> {
        self.events.drain(..).collect()
    }

    /// Closes the connection and leaves the session behind, for another connection or to expire.
    pub fn abandon(mut self) {
        self.says_goodbye = false;
    }

    /// The next watch event.
    ///
    /// # Panics
    /// If none comes in time.
    #[track_caller]
    pub fn next_event(&mut self) -> WatchedEvent {
        while self.events.is_empty() {
            let frame = read_frame(&mut self.stream);
            let frame = self.or_inconclusive(frame).expect("a watch event");
            let mut decoder = Decoder::new(&frame);
            let header = ReplyHeader::decode(&mut decoder).expect("a reply header");
            assert_eq!(header.xid, xid::NOTIFICATION);
            let event = WatchedEvent::decode(header.zxid, &mut decoder);
            self.events.push_back(event.expect("a watch event"));
        }
        self.events.pop_front().expect("just awaited")
    }

    /// Creates a znode open to everyone and returns its name as the server made it.
    pub fn create_with(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        mode: CreateMode,
    ) -> Result<String, ErrorCode> {
        let data = data.map(Bytes::copy_from_slice);
        let create = CreateRequest::new(path, data, Acl::open(), mode, 0);
        match self.call(&Request::Create(create))? {
            Response::Created { path, .. } => Ok(path),
            other => panic!("an answer of another kind: {other:?}"),
        }
    }

    /// Creates a persistent znode that must not exist yet.
    #[track_caller]
    pub fn create(&mut self, path: &str, data: Option<&[u8]>) {
        self.create_with(path, data, CreateMode::Persistent).expect(path);
    }

    /// The data and the stat of a znode; the data is `None` where it is null.
    pub fn get(&mut self, path: &str) -> Result<(Option<Bytes>, Stat), ErrorCode> {
        match self.call(&Request::GetData { path, watch: false })? {
            Response::Data { data, stat } => Ok((data, stat)),
            other => panic!("an answer of another kind: {other:?}"),
        }
    }

    /// The data of a znode that must exist.
    #[track_caller]
    pub fn data(&mut self, path: &str) -> Option<Bytes> {
        self.get(path).unwrap_or_else(|error| panic!("{path}: {error}")).0
    }

    /// The stat of a znode; `None` if there is none.
    pub fn stat(&mut self, path: &str) -> Option<Stat> {
        match self.call(&Request::Exists { path, watch: false }) {
            Ok(Response::Stat(stat)) => Some(stat),
            Err(ErrorCode::NoNode) => None,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Sets the data of a znode whatever its version.
    #[track_caller]
    pub fn set(&mut self, path: &str, data: Option<&[u8]>) {
        let data = data.map(Bytes::copy_from_slice);
        let answer = self.call(&Request::SetData { path, data, version: -1 });
        assert!(answer.is_ok(), "{path}: {answer:?}");
    }

    /// Deletes a znode whatever its version.
    pub fn delete(&mut self, path: &str) -> Result<(), ErrorCode> {
        self.call(&Request::Delete { path, version: -1 }).map(drop)
    }

    /// The names of the children, sorted.
    #[track_caller]
    pub fn children(&mut self, path: &str) -> Vec<String> {
        match self.call(&Request::GetChildren { path, watch: false }) {
            Ok(Response::Names(mut names)) => {
                names.sort();
                names
            }
            other => panic!("{path}: {other:?}"),
        }
    }

    /// The ACL of a znode that must exist.
    #[track_caller]
    pub fn acl(&mut self, path: &str) -> Vec<Acl> {
        match self.call(&Request::GetAcl { path }) {
            Ok(Response::Acl { acl, .. }) => acl,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Several operations as one.
    pub fn multi(&mut self, operations: Vec<MultiOp<'_>>) -> Vec<MultiResult> {
        match self.call(&Request::Multi(operations)) {
            Ok(Response::Multi(results)) => results,
            other => panic!("an answer of another kind: {other:?}"),
        }
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// What a client of several servers knows; `None` for a client of one.
    pub(crate) fn roaming(&mut self) -> Option<&mut Roaming> {
        self.roaming.as_mut()
    }

    /// Goes on with the same session on another connection.
    pub(crate) fn go_on_with(&mut self, stream: TcpStream) {
        self.stream = stream;
        self.awaited.clear();
    }

    /// Whether the connection has ended, as far as is known without waiting.
    pub(crate) fn is_closed(&self) -> bool {
        let blocking = |yes: bool| self.stream.set_nonblocking(!yes).expect("a flag of a socket");
        blocking(false);
        let peeked = self.stream.peek(&mut [0]);
        blocking(true);
        match peeked {
            Ok(length) => length == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Whether the server has closed the connection, waiting for it up to `limit`.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("a read timeout");
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

impl Drop for WireClient {
    fn drop(&mut self) {
        if !self.says_goodbye {
            return;
        }
        // So that its ephemerals go now; a server that has gone first needs no goodbye.
        let mut out = BytesMut::new();
        put_request(&mut out, self.next_xid, &Request::CloseSession);
        let _ = self.stream.write_all(&out);
    }
}

/// Opens a connection to one server with this first record; its answer.
pub(crate) fn open(
    address: &str,
    request: &ConnectRequest,
    limits: Limits,
) -> std::io::Result<(TcpStream, ConnectResponse)> {
    let mut addresses = address.to_socket_addrs()?;
    let address = addresses.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, limits.connect)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limits.answer))?;
    stream.set_write_timeout(Some(limits.answer))?;
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| request.encode(out));
    stream.write_all(&out)?;
    let frame = read_frame(&mut stream)?;
    let response = ConnectResponse::decode(&mut Decoder::new(&frame)).expect("a connect response");
    Ok((stream, response))
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = i32::from_be_bytes(length);
    let mut frame = vec![0; usize::try_from(length).expect("a length that is not negative")];
    stream.read_exact(&mut frame)?;
    Ok(Bytes::from(frame))
}
