//! A client of the ZooKeeper protocol: one connection with pipelining, sessions that move between
//! servers, watches that survive it, and everything a server sends as one ordered stream.
//!
//! ```no_run
//! # async fn example() -> Result<(), znodefs::client::Error> {
//! use znodefs::CreateMode;
//! use znodefs::acl::Acl;
//! use znodefs::client::{Client, ClientOptions};
//!
//! let servers = "127.0.0.1:2181/app".parse()?;
//! let client = Client::connect(&servers, ClientOptions::default()).await?;
//! client.create("/greeting", Some("hello".into()), Acl::open(), CreateMode::Persistent).await?;
//! // Both are on their way before the first is answered.
//! let set = client.set_data("/greeting", Some("hi".into()), None);
//! let get = client.get_data("/greeting", false);
//! set.await?;
//! let (data, stat) = get.await?;
//! assert_eq!((data.as_deref(), stat.version), (Some(&b"hi"[..]), 1));
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! `session` and `packet` are the logic without any I/O; `connection` is the task that gives it a
//! socket and a clock. What does not live here: records and frames ([`crate::wire`]).

mod connect_string;
mod connection;
mod delivery;
mod entry;
mod error;
mod host_list;
mod operations;
mod options;
mod outbox;
mod packet;
mod quorum_search;
mod session;
mod watch;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch as watch_channel;

pub use connect_string::{ConnectString, PORT_DEFAULT, format_address};
pub use delivery::{Delivery, SessionState, Sink};
pub use error::Error;
pub use options::ClientOptions;
pub use outbox::{Pending, Reply};

use crate::wire::Request;
use crate::zxid::{SessionId, Zxid};
use outbox::Outbox;

/// A session with an ensemble. Clones share it; it is closed by [`Client::close`], or in the
/// background once the last clone is dropped.
///
/// Every operation is sent when it is called, before its future is awaited, so operations take
/// effect in the order of the calls.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _guard: Arc<LastHandle>,
}

/// What the handles and the connection's task share.
struct Shared {
    outbox: Outbox,
    status: Status,
}

/// The session as seen from outside; written by the connection's task.
struct Status {
    state: watch_channel::Sender<SessionState>,
    session_id: AtomicI64,
    timeout_ms: AtomicU64,
    last_zxid: AtomicI64,
    server: Mutex<Option<SocketAddr>>,
}

/// Closes the session when the last handle goes.
struct LastHandle(Arc<Shared>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        drop(self.0.outbox.close());
    }
}

impl Client {
    /// Opens a session. Resolves once it is established, or fails: [`Error::NoServer`] when no
    /// server could be reached within the connect timeout, [`Error::AuthFailed`] when a credential
    /// was refused.
    pub async fn connect(servers: &ConnectString, options: ClientOptions) -> Result<Client, Error> {
        Client::connect_with_sink(servers, options, |_: Delivery<'_>| {}).await
    }

    /// The same, with everything that servers send handed to `sink` in the order of the wire.
    pub async fn connect_with_sink(
        servers: &ConnectString,
        options: ClientOptions,
        sink: impl Sink,
    ) -> Result<Client, Error> {
        let status = Status {
            state: watch_channel::Sender::new(SessionState::Connecting),
            session_id: AtomicI64::new(0),
            timeout_ms: AtomicU64::new(options.session_timeout.as_millis() as u64),
            last_zxid: AtomicI64::new(0),
            server: Mutex::new(None),
        };
        let outbox = Outbox::new(servers.chroot.clone(), options.frame_length_max);
        let shared = Arc::new(Shared { outbox, status });
        let client =
            Client { shared: shared.clone(), _guard: Arc::new(LastHandle(shared.clone())) };
        connection::start(servers, options, shared, Box::new(sink)).await?;
        Ok(client)
    }

    /// Sends a request. It is encoded and takes its place in the order at once; the result can be
    /// awaited or dropped. Paths are relative to the chroot.
    ///
    /// A multi whose operation failed is a reply here, with [`MultiResult`](crate::wire::MultiResult)
    /// telling which; [`Client::multi`] makes an error of it.
    pub fn submit(&self, request: &Request<'_>) -> Pending {
        self.shared.outbox.submit(request)
    }

    /// As [`Client::submit`], with paths of the real root even when the client has a chroot. What a
    /// watch tells that is set so comes as [`Delivery::OutsideEvent`] when it is outside the chroot.
    pub fn submit_absolute(&self, request: &Request<'_>) -> Pending {
        self.shared.outbox.submit_absolute(request)
    }

    /// What the session is doing.
    pub fn state(&self) -> SessionState {
        *self.shared.status.state.borrow()
    }

    /// The session's state, to be waited on; states that follow each other closely may be merged.
    pub fn state_changes(&self) -> watch_channel::Receiver<SessionState> {
        self.shared.status.state.subscribe()
    }

    /// The session's id; 0 while there is none.
    pub fn session_id(&self) -> SessionId {
        SessionId(self.shared.status.session_id.load(Ordering::Relaxed))
    }

    /// The session timeout that the service granted.
    pub fn negotiated_timeout(&self) -> Duration {
        Duration::from_millis(self.shared.status.timeout_ms.load(Ordering::Relaxed))
    }

    /// The server the session is attached to; `None` while there is no connection.
    pub fn server_address(&self) -> Option<SocketAddr> {
        *self.shared.status.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The newest transaction any reply has shown.
    pub fn last_zxid(&self) -> Zxid {
        Zxid(self.shared.status.last_zxid.load(Ordering::Relaxed))
    }
}
