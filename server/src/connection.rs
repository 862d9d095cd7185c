//! A client's connection as both sides of the replica see it: the task that owns the socket
//! ([`crate::net`]) and the core thread that orders writes ([`crate::replica`]). What they share is
//! the [`Outbox`]: bytes for the client, and the requests that wait for an answer before theirs.
//!
//! Requests of one connection are answered in their order. A request that needs no agreement is
//! answered at once by the connection's own task, unless a write stands before it; then it is queued
//! behind that write, and whoever answers the write goes on with it.
//!
//! Lock order: tree, then watches, then an outbox; never two outboxes. No sockets here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use znodefs::wire::{Encode, ReplyHeader, put_frame};
use znodefs::{ErrorCode, SessionId, Zxid};

use crate::metrics::LatencyMeter;
use crate::request_processor::SessionOwner;
use crate::session_tracker::LastHeard;
use crate::txn::Identity;

/// The number of a connection in this process; also names its watches and its claim on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The identities a connection has proved, shared with its requests.
pub type Identities = Arc<[Identity]>;

/// Bytes waiting for a client above which its requests are no longer read or answered.
pub const OUTBOX_SOFT_LIMIT: usize = 1 << 20;

/// Bytes that the answers to waiting requests will have, by estimate, above which no more are taken: a
/// write that is applied cannot wait until the client has taken the answers before it.
pub const PENDING_REPLY_BYTES_LIMIT: usize = 16 << 20;

/// Bytes waiting for a client at which it is given up: events and answers to writes cannot wait.
pub const OUTBOX_HARD_LIMIT: usize = 64 << 20;

/// Requests of one connection waiting for an answer above which no more are read.
pub const PENDING_COUNT_LIMIT: usize = 2048;

/// Bytes of requests waiting for an answer above which no more are read.
pub const PENDING_BYTES_LIMIT: usize = 4 << 20;

/// A request as it came off the socket.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// The client's number.
    pub xid: i32,
    /// The opcode as it came.
    pub op_code: i32,
    /// The record behind the header.
    pub body: Bytes,
    /// Who asks.
    pub identities: Identities,
    /// When it came, milliseconds of the monotonic clock.
    pub received_ms: u64,
}

/// A request that waits for its turn.
#[derive(Debug)]
pub enum Pending {
    /// The core has it and will answer it.
    Core {
        /// The client's number.
        xid: i32,
        /// The opcode.
        op_code: i32,
        /// Length of its record, bytes.
        body_length: usize,
    },
    /// It is answered from the tree when its turn comes.
    Local {
        /// The request.
        request: RawRequest,
        /// About how long the reply will be, bytes.
        reply_length: usize,
    },
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The client has not sent its ConnectRequest, or the core has not answered it.
    Connecting,
    /// It has a session.
    Established,
    /// What is in the outbox is still sent, then the socket is closed.
    Closing,
    /// Nobody sends anymore.
    Closed,
}

/// Counters of one connection, for the words `stat` and `cons`.
#[derive(Clone, Debug, Default)]
pub struct ConnectionStats {
    /// Requests received.
    pub received: u64,
    /// Replies and notifications put out.
    pub sent: u64,
    /// Opcode of the last answered request.
    pub last_op_code: Option<i32>,
    /// Its number.
    pub last_xid: i32,
    /// The zxid it was answered with.
    pub last_zxid: Zxid,
    /// When it was answered, milliseconds of the monotonic clock.
    pub last_reply_ms: u64,
    /// How long it took.
    pub last_latency_ms: u64,
    /// All latencies.
    pub latency: LatencyMeter,
}

/// What is shared under the connection's lock.
#[derive(Debug)]
pub struct Outbox {
    /// Whole frames for the client.
    pub buffer: BytesMut,
    /// Requests without an answer, in order.
    pub pending: VecDeque<Pending>,
    /// Bytes of the requests in `pending`.
    pub pending_bytes: usize,
    /// Bytes that their replies will have, about.
    pub pending_reply_bytes: usize,
    /// Where the connection stands.
    pub phase: Phase,
    /// Its session; 0 before it has one.
    pub session_id: SessionId,
    /// The session's timeout in milliseconds.
    pub timeout_ms: u64,
    /// Whether it is a session of this replica alone, for reads while there is no quorum.
    pub read_only: bool,
    /// What it has proved.
    pub identities: Identities,
    /// Whether the client is too far behind to be kept.
    pub overflowed: bool,
    /// Counters.
    pub stats: ConnectionStats,
    wake_queued: bool,
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// The client's address.
    pub peer: SocketAddr,
    /// When it was accepted, milliseconds since 1970.
    pub established_ms: i64,
    /// When the client was last heard.
    pub last_heard: LastHeard,
    outbox: Mutex<Outbox>,
    wake: Notify,
}

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(id: ConnectionId, peer: SocketAddr, established_ms: i64, now_ms: u64) -> Connection {
        Connection {
            id,
            peer,
            established_ms,
            last_heard: LastHeard::at(now_ms),
            outbox: Mutex::new(Outbox {
                buffer: BytesMut::new(),
                pending: VecDeque::new(),
                pending_bytes: 0,
                pending_reply_bytes: 0,
                phase: Phase::Connecting,
                session_id: SessionId(0),
                timeout_ms: 0,
                read_only: false,
                identities: Arc::new([]),
                overflowed: false,
                stats: ConnectionStats::default(),
                wake_queued: false,
            }),
            wake: Notify::new(),
        }
    }

    /// The claim on a session that requests of this connection carry.
    pub fn owner(&self) -> SessionOwner {
        SessionOwner(self.id.0)
    }

    /// Locks the outbox.
    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Lets the connection's task look at the outbox.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`wake`](Self::wake); one that came before counts.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Closes the connection once what is in its outbox has been sent.
    pub fn close(&self) {
        self.outbox().close();
        self.wake();
    }
}

impl Outbox {
    /// Appends a reply frame. When `write` fails, only the header with its error is sent.
    pub fn put_reply(
        &mut self,
        xid: i32,
        zxid: Zxid,
        write: impl FnOnce(&mut BytesMut) -> Result<(), ErrorCode>,
    ) {
        if !self.takes_output() {
            return;
        }
        put_frame(&mut self.buffer, |out| {
            let start = out.len();
            ReplyHeader { xid, zxid, error: 0 }.encode(out);
            if let Err(error) = write(out) {
                out.truncate(start);
                ReplyHeader { xid, zxid, error: error.code() }.encode(out);
            }
        });
        self.stats.sent += 1;
        self.check_overflow();
    }

    /// Appends bytes that are one whole frame.
    pub fn put_frame_bytes(&mut self, frame: &[u8]) {
        if self.takes_output() {
            self.buffer.extend_from_slice(frame);
            self.stats.sent += 1;
            self.check_overflow();
        }
    }

    /// Notes that a request was answered just now.
    pub fn note_answered(&mut self, xid: i32, op_code: i32, zxid: Zxid, latency_ms: u64, now: u64) {
        let stats = &mut self.stats;
        stats.last_op_code = Some(op_code);
        stats.last_xid = xid;
        stats.last_zxid = zxid;
        stats.last_reply_ms = now;
        stats.last_latency_ms = latency_ms;
        stats.latency.add(latency_ms, 1);
    }

    /// Queues a request.
    pub fn push_pending(&mut self, pending: Pending) {
        match &pending {
            Pending::Core { body_length, .. } => self.pending_bytes += body_length,
            Pending::Local { request, reply_length } => {
                self.pending_bytes += request.body.len();
                self.pending_reply_bytes += reply_length;
            }
        }
        self.pending.push_back(pending);
    }

    /// Takes the next request if it is answered from the tree.
    pub fn pop_local(&mut self) -> Option<RawRequest> {
        if !self.front_is_local() {
            return None;
        }
        match self.pending.pop_front() {
            Some(Pending::Local { request, reply_length }) => {
                self.pending_bytes -= request.body.len();
                self.pending_reply_bytes -= reply_length;
                Some(request)
            }
            _ => None,
        }
    }

    /// Takes the marker of a request that the core answers off the queue's front.
    pub fn pop_core(&mut self) {
        if let Some(Pending::Core { body_length, .. }) = self.pending.front() {
            self.pending_bytes -= body_length;
            self.pending.pop_front();
        }
    }

    /// Whether the next request can be answered from the tree now.
    pub fn front_is_local(&self) -> bool {
        matches!(self.pending.front(), Some(Pending::Local { .. }))
    }

    /// Whether requests may still be answered: there is room for their answers.
    pub fn has_room(&self) -> bool {
        self.buffer.len() < OUTBOX_SOFT_LIMIT
    }

    /// Whether more requests may be taken.
    pub fn takes_requests(&self) -> bool {
        self.phase == Phase::Established
            && self.has_room()
            && self.pending.len() < PENDING_COUNT_LIMIT
            && self.pending_bytes < PENDING_BYTES_LIMIT
            && self.pending_reply_bytes < PENDING_REPLY_BYTES_LIMIT
    }

    /// Whether anything put in is ever sent.
    pub fn takes_output(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Established)
    }

    /// Sends what is there, then nothing more.
    pub fn close(&mut self) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closing;
            // The task must hear of it, even if it was woken before and is stuck with a full socket.
            self.wake_queued = false;
            self.pending.clear();
            self.pending_bytes = 0;
            self.pending_reply_bytes = 0;
        }
    }

    /// Notes that the connection's task is to be woken; `true` the first time since it last looked.
    pub fn queue_wake(&mut self) -> bool {
        !std::mem::replace(&mut self.wake_queued, true)
    }

    /// Swaps what is there for the client with `sent`, which must be empty; whoever puts in something
    /// from now on wakes the task again.
    pub fn take_output(&mut self, sent: &mut BytesMut) {
        self.wake_queued = false;
        std::mem::swap(&mut self.buffer, sent);
    }

    fn check_overflow(&mut self) {
        if self.buffer.len() > OUTBOX_HARD_LIMIT {
            self.overflowed = true;
            self.buffer = BytesMut::new();
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::new(ConnectionId(1), "127.0.0.1:1".parse().unwrap(), 0, 0)
    }

    fn local(xid: i32) -> Pending {
        let request = RawRequest {
            xid,
            op_code: 11,
            body: Bytes::from_static(b"12345"),
            identities: Arc::new([]),
            received_ms: 0,
        };
        Pending::Local { request, reply_length: 7 }
    }

    #[test]
    fn a_failed_answer_is_a_header_alone() {
        let connection = connection();
        let mut outbox = connection.outbox();
        outbox.put_reply(5, Zxid(9), |out| {
            out.extend_from_slice(b"half an answer");
            Err(ErrorCode::NoNode)
        });
        let expected = [0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9, 255, 255, 255, 155];
        assert_eq!(&outbox.buffer[..], &expected);
    }

    #[test]
    fn requests_behind_one_that_the_core_has_wait_for_it() {
        let connection = connection();
        let mut outbox = connection.outbox();
        outbox.push_pending(Pending::Core { xid: 1, op_code: 5, body_length: 3 });
        outbox.push_pending(local(2));
        assert_eq!((outbox.pending_bytes, outbox.pending_reply_bytes), (8, 7));
        assert!(outbox.pop_local().is_none());
        outbox.pop_core();
        assert_eq!(outbox.pop_local().unwrap().xid, 2);
        assert_eq!((outbox.pending_bytes, outbox.pending_reply_bytes), (0, 0));
    }

    #[test]
    fn a_consumer_that_never_reads_costs_bounded_memory() {
        let connection = connection();
        let frame = vec![0; 1 << 20];
        for _ in 0..100 {
            connection.outbox().put_frame_bytes(&frame);
        }
        let outbox = connection.outbox();
        assert!(outbox.overflowed && outbox.phase == Phase::Closing);
        assert!(outbox.buffer.capacity() < 2 << 20);
    }

    #[test]
    fn the_task_is_woken_once_for_everything_since_it_last_looked() {
        let connection = connection();
        let mut outbox = connection.outbox();
        assert!(outbox.queue_wake());
        assert!(!outbox.queue_wake());
        outbox.take_output(&mut BytesMut::new());
        assert!(outbox.queue_wake());
    }
}
