//! The ordered stream of what a server sends, as a [`Sink`] sees it. No I/O.

use crate::wire::{ErrorCode, OpCode, Response, WatchedEvent};
use crate::zxid::Zxid;

/// Receives replies, events and changes of state in the exact order in which they came over the
/// wire: an event stands before every reply that shows its change, the writer's own reply included.
///
/// It is called by the task that owns the connection, before the [`Pending`](super::Pending) of a
/// reply resolves, so it must not block. It may submit requests, but a
/// [`Client`](super::Client) that it holds is one more handle, which keeps the session open.
///
/// Because a reply can arrive before [`Client::submit`](super::Client::submit) has returned to its
/// caller, a sink that looks up requests by id shares a lock with the code that submits them.
pub trait Sink: Send + 'static {
    /// Takes one delivery.
    fn deliver(&mut self, delivery: Delivery<'_>);
}

impl<F: FnMut(Delivery<'_>) + Send + 'static> Sink for F {
    fn deliver(&mut self, delivery: Delivery<'_>) {
        self(delivery);
    }
}

/// One step of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// A server answered a request. Requests that fail without an answer are not delivered here:
    /// a [`State`](Delivery::State) tells of the reason.
    Reply {
        /// The number of the request, as its [`Pending`](super::Pending) has it.
        request_id: u64,
        /// What was asked for.
        op_code: OpCode,
        /// The last transaction the server had applied; for a write, the write itself.
        zxid: Zxid,
        /// The record, paths without the chroot; or the service's error. A failed multi counts as
        /// a record here.
        result: Result<&'a Response, ErrorCode>,
    },
    /// A watch fired; the path is without the chroot.
    Event(&'a WatchedEvent),
    /// A watch fired that was set by [`Client::submit_absolute`](super::Client::submit_absolute) on
    /// a znode outside the chroot; the path is that of the real root.
    OutsideEvent(&'a WatchedEvent),
    /// The session's state changed.
    State(SessionState),
}

/// What a client's session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionState {
    /// No session yet.
    Connecting,
    /// Attached to a server.
    Connected,
    /// Without a connection; the session may still live. What watches would have told meanwhile
    /// comes after reconnection (but not for persistent watches).
    Suspended,
    /// The service ended the session: its ephemeral znodes and watches are gone. Final, unless
    /// [`ClientOptions::renew_session`](super::ClientOptions::renew_session) is set.
    Expired,
    /// The service refused a credential. Final.
    AuthFailed,
    /// The client was closed. Final.
    Closed,
}
