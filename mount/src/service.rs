//! The mount's view of a ZooKeeper session: requests go out in call order, each answered by a
//! future. The real client implements [`Service`]; so do the tests' tree in memory.
//!
//! No knowledge of files lives here.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use znodefs::client::{Client, Delivery, Error as ClientError, Reply, SessionState};
use znodefs::recipe::EventHub;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{MultiResult, Request, Response};
use znodefs::{Acl, CreateMode, ErrorCode, SessionId, Stat, Zxid};

use crate::events::EventStream;

/// Why a request was not answered with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The service refused it; nothing was done.
    #[error("{0}")]
    Code(ErrorCode),
    /// No server could be reached for as long as the session may live; nothing was done.
    #[error("no server could be reached")]
    TimedOut,
    /// The connection was lost while a write was on its way.
    #[error("the connection was lost, so the outcome is unknown")]
    OutcomeUnknown,
    /// The session has ended.
    #[error("the session expired")]
    SessionExpired,
    /// The request or its reply does not fit into a frame.
    #[error("the request is larger than a server takes")]
    TooLarge,
    /// The path cannot name a znode.
    #[error("no znode can have this path")]
    InvalidPath,
    /// The answer is not what the protocol says.
    #[error("the server's answer makes no sense")]
    Protocol,
    /// The session is closed for good.
    #[error("the session is closed")]
    Closed,
}

impl From<ErrorCode> for ServiceError {
    fn from(code: ErrorCode) -> ServiceError {
        ServiceError::Code(code)
    }
}

impl From<ClientError> for ServiceError {
    fn from(error: ClientError) -> ServiceError {
        match error {
            ClientError::Service { code: ErrorCode::ConnectionLoss, .. }
            | ClientError::ConnectionLoss { .. } => ServiceError::OutcomeUnknown,
            ClientError::Service { code, .. } | ClientError::MultiFailed { code, .. } => {
                ServiceError::Code(code)
            }
            ClientError::TimedOut { .. } | ClientError::NoServer { .. } => ServiceError::TimedOut,
            ClientError::SessionExpired => ServiceError::SessionExpired,
            ClientError::AuthFailed { .. } => ServiceError::Code(ErrorCode::AuthFailed),
            ClientError::RequestTooLarge { .. } | ClientError::ReplyTooLarge { .. } => {
                ServiceError::TooLarge
            }
            ClientError::InvalidPath(_) => ServiceError::InvalidPath,
            ClientError::Closed => ServiceError::Closed,
            _ => ServiceError::Protocol,
        }
    }
}

/// A request under way. It takes effect whether or not it is waited for.
pub type PendingReply = Pin<Box<dyn Future<Output = Result<Reply, ServiceError>> + Send>>;

/// One session with an ensemble, renewed after expiry.
pub trait Service: Send + Sync + 'static {
    /// Sends a request. Requests take effect and are answered in the order of the calls.
    fn submit(&self, request: &Request<'_>) -> PendingReply;

    /// As [`Service::submit`], with paths from the real root.
    fn submit_absolute(&self, request: &Request<'_>) -> PendingReply;

    /// The znode that is the mount's root; empty for the real root.
    fn chroot(&self) -> &str;

    /// What watches tell, by paths from the real root. Waiters are let go when the session ends.
    fn events(&self) -> &EventHub;

    /// The session as it is now; its id changes when a new one replaces an expired one.
    fn session_id(&self) -> SessionId;

    /// Where the session stands.
    fn state(&self) -> SessionState;

    /// How long the service keeps the session without hearing of it.
    fn session_timeout(&self) -> Duration;

    /// The server that the session is attached to; `None` without a connection.
    fn server(&self) -> Option<SocketAddr>;

    /// The newest transaction seen.
    fn last_zxid(&self) -> Zxid;
}

/// A client as the mount sees it.
pub struct ClientService {
    client: Client,
    outside: Outside,
    changes: Arc<EventStream>,
}

/// What happens to znodes by their paths from the real root, wherever the mount's own root is.
#[derive(Clone)]
pub struct Outside {
    chroot: Arc<str>,
    events: EventHub,
}

impl Outside {
    /// For a client with this chroot, empty for the real root.
    pub fn new(chroot: &str) -> Outside {
        Outside { chroot: chroot.into(), events: EventHub::new() }
    }

    /// Takes what the client is told; call it for every delivery.
    pub fn take(&self, delivery: Delivery<'_>) {
        match delivery {
            Delivery::OutsideEvent(event) => self.events.wake(&event.path),
            Delivery::Event(event) if self.chroot.is_empty() => self.events.wake(&event.path),
            Delivery::Event(event) => {
                self.events.wake(&format!("{}{}", self.chroot, event.path));
            }
            Delivery::State(SessionState::Expired | SessionState::Closed) => {
                self.events.session_ended();
            }
            Delivery::State(_) | Delivery::Reply { .. } => {}
        }
    }
}

impl ClientService {
    /// The service of a client whose sink hands everything to `outside` and to `changes`.
    pub fn new(client: Client, outside: Outside, changes: Arc<EventStream>) -> ClientService {
        ClientService { client, outside, changes }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Service for ClientService {
    fn submit(&self, request: &Request<'_>) -> PendingReply {
        self.changes.submit(&self.client, request)
    }

    fn submit_absolute(&self, request: &Request<'_>) -> PendingReply {
        let pending = self.client.submit_absolute(request);
        Box::pin(async move { Ok(pending.await?) })
    }

    fn chroot(&self) -> &str {
        &self.outside.chroot
    }

    fn events(&self) -> &EventHub {
        &self.outside.events
    }

    fn session_id(&self) -> SessionId {
        self.client.session_id()
    }

    fn state(&self) -> SessionState {
        self.client.state()
    }

    fn session_timeout(&self) -> Duration {
        self.client.negotiated_timeout()
    }

    fn server(&self) -> Option<SocketAddr> {
        self.client.server_address()
    }

    fn last_zxid(&self) -> Zxid {
        self.client.last_zxid()
    }
}

/// The typed requests that the mount makes. All of them are sent when the function is called, not
/// when its future is first polled, so that several can be under way at once in a known order.
#[derive(Clone)]
pub struct Znodes {
    service: Arc<dyn Service>,
    is_absolute: bool,
    /// How many requests were sent.
    sent: Arc<AtomicU64>,
}

/// What a request comes to.
type Outcome<T> = Result<T, ServiceError>;

macro_rules! answer {
    ($pending:expr, $pattern:pat => $value:expr) => {{
        let pending = $pending;
        async move {
            match pending.await?.response {
                $pattern => Ok($value),
                _ => Err(ServiceError::Protocol),
            }
        }
    }};
}

/// What to create.
#[derive(Clone, Debug)]
pub struct NewZnode<'a> {
    /// The path asked for.
    pub path: &'a str,
    /// The data; `None` is null.
    pub data: Option<Bytes>,
    /// The access control list.
    pub acl: Vec<Acl>,
    /// Persistent, ephemeral, sequential, …
    pub mode: CreateMode,
    /// Time to live in milliseconds, for the modes that have one.
    pub ttl_ms: i64,
}

impl<'a> NewZnode<'a> {
    /// The request that creates it.
    pub fn request(&self) -> Request<'a> {
        let NewZnode { path, data, acl, mode, ttl_ms } = self.clone();
        Request::Create(CreateRequest::new(path, data, acl, mode, ttl_ms))
    }
}

impl Znodes {
    /// The requests of one session.
    pub fn new(service: Arc<dyn Service>) -> Znodes {
        Znodes { service, is_absolute: false, sent: Arc::default() }
    }

    /// How many requests were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The same with paths from the real root.
    pub fn from_real_root(&self) -> Znodes {
        Znodes { is_absolute: true, ..self.clone() }
    }

    fn send(&self, request: &Request<'_>) -> PendingReply {
        self.sent.fetch_add(1, Ordering::Relaxed);
        match self.is_absolute {
            true => self.service.submit_absolute(request),
            false => self.service.submit(request),
        }
    }

    /// The session.
    pub fn service(&self) -> &dyn Service {
        &*self.service
    }

    /// A znode's stat.
    pub fn exists(&self, path: &str) -> impl Future<Output = Outcome<Stat>> + Send + use<> {
        let request = Request::Exists { path, watch: false };
        answer!(self.send(&request), Response::Stat(stat) => stat)
    }

    /// A znode's stat, with a watch: [`Service::events`] tells of its deletion.
    pub fn watch(&self, path: &str) -> impl Future<Output = Outcome<Stat>> + Send + use<> {
        let request = Request::Exists { path, watch: true };
        answer!(self.send(&request), Response::Stat(stat) => stat)
    }

    /// A znode's data and stat.
    pub fn get_data(
        &self,
        path: &str,
    ) -> impl Future<Output = Outcome<(Option<Bytes>, Stat)>> + Send + use<> {
        let request = Request::GetData { path, watch: false };
        answer!(self.send(&request), Response::Data { data, stat } => (data, stat))
    }

    /// Replaces a znode's data; version -1 is any.
    pub fn set_data(
        &self,
        path: &str,
        data: Option<Bytes>,
        version: i32,
    ) -> impl Future<Output = Outcome<Stat>> + Send + use<> {
        let request = Request::SetData { path, data, version };
        answer!(self.send(&request), Response::Stat(stat) => stat)
    }

    /// Creates a znode: its path as made, and its stat.
    pub fn create(
        &self,
        new: &NewZnode<'_>,
    ) -> impl Future<Output = Outcome<(String, Stat)>> + Send + use<> {
        let pending = self.send(&new.request());
        answer!(pending, Response::Created { path, stat } => (path, stat))
    }

    /// Deletes a znode; version -1 is any.
    pub fn delete(
        &self,
        path: &str,
        version: i32,
    ) -> impl Future<Output = Outcome<()>> + Send + use<> {
        let request = Request::Delete { path, version };
        answer!(self.send(&request), Response::Empty => ())
    }

    /// The names of a znode's children, and its stat.
    pub fn children(
        &self,
        path: &str,
    ) -> impl Future<Output = Outcome<(Vec<String>, Stat)>> + Send + use<> {
        let request = Request::GetChildren2 { path, watch: false };
        answer!(self.send(&request), Response::Children { names, stat } => (names, stat))
    }

    /// A znode's ACL and stat.
    pub fn get_acl(
        &self,
        path: &str,
    ) -> impl Future<Output = Outcome<(Vec<Acl>, Stat)>> + Send + use<> {
        let request = Request::GetAcl { path };
        answer!(self.send(&request), Response::Acl { acl, stat } => (acl, stat))
    }

    /// Replaces a znode's ACL; version -1 is any.
    pub fn set_acl(
        &self,
        path: &str,
        acl: Vec<Acl>,
        version: i32,
    ) -> impl Future<Output = Outcome<Stat>> + Send + use<> {
        let request = Request::SetAcl { path, acl, version };
        answer!(self.send(&request), Response::Stat(stat) => stat)
    }

    /// Catches up with the leader.
    pub fn sync(&self, path: &str) -> impl Future<Output = Outcome<()>> + Send + use<> {
        answer!(self.send(&Request::Sync { path }), Response::Path(_) => ())
    }

    /// The number of a znode's descendants.
    pub fn all_children_number(
        &self,
        path: &str,
    ) -> impl Future<Output = Outcome<i32>> + Send + use<> {
        let request = Request::GetAllChildrenNumber { path };
        answer!(self.send(&request), Response::Number(number) => number)
    }

    /// Several writes as one: the transaction and the records of each, or the first error.
    pub fn multi(
        &self,
        operations: Vec<Request<'_>>,
    ) -> impl Future<Output = Outcome<(Zxid, Vec<Response>)>> + Send + use<> {
        let pending = self.send(&Request::Multi(operations));
        async move {
            let Reply { zxid, response } = pending.await?;
            let Response::Multi(results) = response else { return Err(ServiceError::Protocol) };
            Ok((zxid, multi_records(results)?))
        }
    }
}

/// The records of a multi's operations, or what the one that failed reported. Operations before it
/// report 0, those behind it -2 (runtime inconsistency).
fn multi_records(results: Vec<MultiResult>) -> Result<Vec<Response>, ServiceError> {
    let mut records = Vec::with_capacity(results.len());
    let mut failed = false;
    for result in results {
        match result {
            MultiResult::Ok(_, record) => records.push(record),
            MultiResult::Error(code) => match ErrorCode::from_code(code) {
                None | Some(ErrorCode::RuntimeInconsistency) => failed = true,
                Some(code) => return Err(code.into()),
            },
        }
    }
    if failed { Err(ErrorCode::RuntimeInconsistency.into()) } else { Ok(records) }
}
