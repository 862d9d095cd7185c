//! What can happen to the state machine. The driver makes events out of sockets, timers and
//! completions of disk work; it makes them up of nothing else.

use bytes::Bytes;
use znodefs::{Epoch, SessionId, Zxid};

use super::disk_queue::Ticket;
use super::packet::{Entry, Notification, Packet};
use super::quorum::ServerId;

/// One connection between a learner and its leader. The driver never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The state machine's number for a read of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The answer to a read of the log.
#[derive(Clone, Debug)]
pub enum LogRead {
    /// The log reaches back.
    Entries {
        /// The greatest zxid of the history that is not above the one asked for: an entry, the
        /// snapshot that the log starts from, or 0 for a log that starts at the beginning.
        after: Zxid,
        /// Entries above `after`, in order and without a hole, at most through the one asked for;
        /// none only if there is none.
        entries: Vec<Entry>,
    },
    /// The log does not reach back that far, or there is more than is worth sending: the learner
    /// gets a snapshot.
    Unavailable,
}

/// What a disk that was full holds for certain, now that nothing is on its way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// acceptedEpoch.
    pub accepted_epoch: Epoch,
    /// currentEpoch.
    pub current_epoch: Epoch,
    /// The end of the log.
    pub last_logged: Zxid,
    /// What the tree in memory contains.
    pub delivered: Zxid,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The replica starts, once, before anything else.
    Start,
    /// Time has passed: at the latest when [`Zab::deadline`](super::Zab::deadline) is reached.
    Tick,

    /// The link for notifications to this replica works.
    LinkUp(ServerId),
    /// It does not work any more: the replica counts as unreachable.
    LinkDown(ServerId),
    /// A notification arrived.
    Notification {
        /// Who sent it.
        from: ServerId,
        /// What it says.
        notification: Notification,
    },

    /// A learner connected to us, or we connected to our leader.
    Connected {
        /// The new connection.
        connection: ConnectionId,
        /// Who is at the other end.
        peer: ServerId,
        /// Whether we asked for it by [`Effect::Connect`](super::Effect::Connect).
        outgoing: bool,
    },
    /// A connection that we asked for could not be made.
    ConnectFailed {
        /// To whom.
        peer: ServerId,
    },
    /// A connection is gone. Not told for one that we disconnected.
    Disconnected(ConnectionId),
    /// A packet arrived.
    Packet {
        /// On this connection.
        connection: ConnectionId,
        /// What it says.
        packet: Packet,
    },
    /// Part of a snapshot arrived or was sent: the connection lives.
    Progress(ConnectionId),

    /// Every disk effect up to and including this ticket is on disk.
    Durable(Ticket),
    /// A read of the log was answered.
    LogRead {
        /// Which.
        read: ReadId,
        /// How.
        answer: LogRead,
    },

    /// The leader's request processor made transactions: consecutive, from
    /// [`Zab::next_zxid`](super::Zab::next_zxid) on. Ignored where this replica does not lead any
    /// more.
    Propose(Vec<Entry>),
    /// A learner's client sent a request that the leader must see. Ignored while not serving.
    Forward(Bytes),
    /// A local client wants to see everything that was committed before now; answered by
    /// [`Effect::SyncDone`](super::Effect::SyncDone) unless service stops before.
    Sync {
        /// The driver's number for it.
        token: u64,
    },
    /// A session was used through this learner.
    SessionTouched {
        /// The session.
        session_id: SessionId,
        /// Its timeout in milliseconds.
        timeout_ms: i32,
    },
    /// A session wants to go on through this learner.
    Revalidate {
        /// The session.
        session_id: SessionId,
        /// Its timeout in milliseconds.
        timeout_ms: i32,
    },
    /// The leader's session tracker has answered
    /// [`Effect::RevalidateSession`](super::Effect::RevalidateSession).
    SessionRevalidated {
        /// The learner that asked.
        connection: ConnectionId,
        /// The session.
        session_id: SessionId,
        /// Its timeout in milliseconds.
        timeout_ms: i32,
        /// Whether it is open.
        valid: bool,
    },

    /// The disk is full: what was given to it and is not known to be durable may never be. The replica
    /// takes part in nothing until [`Event::DiskHasRoom`].
    DiskFull,
    /// There is room again, and this is what the disk holds.
    DiskHasRoom(OnDisk),

    /// The replica shuts down cleanly: a leader hands over. Ends with
    /// [`Effect::Retired`](super::Effect::Retired).
    Shutdown,
}
