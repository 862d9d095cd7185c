//! The mount's view of a ZooKeeper session: requests go out in call order, each answered by a
//! future. The real client implements [`Service`]; so do the tests' tree in memory.
//!
//! No knowledge of files lives here.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{MultiResult, Request, Response};
use znodefs::{Acl, CreateMode, ErrorCode, SessionId, Stat, Zxid};

/// Why a request was not answered with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The service refused it.
    #[error("{0}")]
    Code(ErrorCode),
    /// No server could be reached for as long as the session may live.
    #[error("no server answers")]
    TimedOut,
    /// The request does not fit into a frame.
    #[error("the request is larger than a server takes")]
    TooLarge,
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

/// A reply: the zxid of its header and its record.
pub type Reply = Result<(Zxid, Response), ServiceError>;

/// A request under way. It takes effect whether or not it is waited for.
pub type PendingReply = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// A server answers.
    Connected,
    /// Looking for a server; the session may still be alive.
    Suspended,
    /// The session has ended; a new one is under way or there is none.
    Lost,
}

/// One session with an ensemble, renewed after expiry.
pub trait Service: Send + Sync + 'static {
    /// Sends a request. Requests take effect and are answered in the order of the calls.
    fn submit(&self, request: &Request<'_>) -> PendingReply;

    /// The session as it is now; its id changes when a new one replaces an expired one.
    fn session_id(&self) -> SessionId;

    /// Where the session stands.
    fn state(&self) -> SessionState;

    /// The server that the session is attached to, `HOST:PORT`; empty when there is none.
    fn server(&self) -> String;
}

/// The typed requests that the mount makes. All of them are sent when the function is called, not
/// when its future is first polled, so that several can be under way at once in a known order.
#[derive(Clone)]
pub struct Znodes {
    service: std::sync::Arc<dyn Service>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, ServiceError>> + Send>>;

macro_rules! answer {
    ($pending:expr, $pattern:pat => $value:expr) => {{
        let pending = $pending;
        Box::pin(async move {
            match pending.await? {
                (_, $pattern) => Ok($value),
                _ => Err(ServiceError::Protocol),
            }
        })
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
    pub fn new(service: std::sync::Arc<dyn Service>) -> Znodes {
        Znodes { service }
    }

    /// The session.
    pub fn service(&self) -> &dyn Service {
        &*self.service
    }

    /// A znode's stat.
    pub fn exists(&self, path: &str) -> Answer<Stat> {
        let request = Request::Exists { path, watch: false };
        answer!(self.service.submit(&request), Response::Stat(stat) => stat)
    }

    /// A znode's data and stat.
    pub fn get_data(&self, path: &str) -> Answer<(Option<Bytes>, Stat)> {
        let request = Request::GetData { path, watch: false };
        answer!(self.service.submit(&request), Response::Data { data, stat } => (data, stat))
    }

    /// Replaces a znode's data; version -1 is any.
    pub fn set_data(&self, path: &str, data: Option<Bytes>, version: i32) -> Answer<Stat> {
        let request = Request::SetData { path, data, version };
        answer!(self.service.submit(&request), Response::Stat(stat) => stat)
    }

    /// Creates a znode: its path as made, and its stat.
    pub fn create(&self, new: &NewZnode<'_>) -> Answer<(String, Stat)> {
        let pending = self.service.submit(&new.request());
        answer!(pending, Response::Created { path, stat } => (path, stat))
    }

    /// Deletes a znode; version -1 is any.
    pub fn delete(&self, path: &str, version: i32) -> Answer<()> {
        let request = Request::Delete { path, version };
        answer!(self.service.submit(&request), Response::Empty => ())
    }

    /// The names of a znode's children, and its stat.
    pub fn children(&self, path: &str) -> Answer<(Vec<String>, Stat)> {
        let request = Request::GetChildren2 { path, watch: false };
        answer!(self.service.submit(&request), Response::Children { names, stat } => (names, stat))
    }

    /// A znode's ACL and stat.
    pub fn get_acl(&self, path: &str) -> Answer<(Vec<Acl>, Stat)> {
        let request = Request::GetAcl { path };
        answer!(self.service.submit(&request), Response::Acl { acl, stat } => (acl, stat))
    }

    /// Replaces a znode's ACL; version -1 is any.
    pub fn set_acl(&self, path: &str, acl: Vec<Acl>, version: i32) -> Answer<Stat> {
        let request = Request::SetAcl { path, acl, version };
        answer!(self.service.submit(&request), Response::Stat(stat) => stat)
    }

    /// Catches up with the leader.
    pub fn sync(&self, path: &str) -> Answer<()> {
        answer!(self.service.submit(&Request::Sync { path }), Response::Path(_) => ())
    }

    /// The number of a znode's descendants.
    pub fn all_children_number(&self, path: &str) -> Answer<i32> {
        let request = Request::GetAllChildrenNumber { path };
        answer!(self.service.submit(&request), Response::Number(number) => number)
    }

    /// Several writes as one: the records of each, or the first error.
    pub fn multi(&self, operations: Vec<Request<'_>>) -> Answer<Vec<Response>> {
        let pending = self.service.submit(&Request::Multi(operations));
        Box::pin(async move {
            let (_, Response::Multi(results)) = pending.await? else {
                return Err(ServiceError::Protocol);
            };
            multi_records(results)
        })
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
