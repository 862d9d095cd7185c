//! What the state machine wants done. The driver does it in this order, per kind: packets in order
//! on each connection, disk effects in the order of their tickets, deliveries in order.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use znodefs::{Epoch, SessionId, Zxid};

use super::disk_queue::Ticket;
use super::event::{ConnectionId, ReadId};
use super::packet::{Entry, Notification, Packet};
use super::quorum::{Ensemble, QuorumVerifier, ServerId};

/// What a replica does in the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Looks for a leader.
    Looking,
    /// Follows this leader and votes.
    Following(ServerId),
    /// Learns from this leader.
    Observing(ServerId),
    /// Leads.
    Leading,
    /// Has shut down.
    Retired,
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a notification; it may be lost.
    Notify {
        /// To these replicas.
        to: SmallVec<[ServerId; 8]>,
        /// What to say.
        notification: Notification,
    },
    /// Connect to the leader's quorum port. Answered by `Connected` or `ConnectFailed`.
    Connect {
        /// Who leads.
        peer: ServerId,
    },
    /// Close a connection, after what was sent before.
    Disconnect(ConnectionId),
    /// Send a packet, in order. A connection whose queue grows beyond the driver's bound is closed:
    /// the learner is synchronized anew instead of being buffered for.
    Send {
        /// On each of these connections.
        to: SmallVec<[ConnectionId; 8]>,
        /// What to say.
        packet: Packet,
    },
    /// Send the tree, in order with the packets, followed by `Packet::Snap`.
    SendSnapshot {
        /// To this learner.
        connection: ConnectionId,
        /// What the tree contains: everything delivered up to here.
        zxid: Zxid,
        /// The configuration in force; travels with the packet.
        configuration: Ensemble,
    },
    /// Other replicas decide from now on: reach those of both configurations, and keep the
    /// committed one durably before anything that follows is delivered.
    Configure(QuorumVerifier),

    /// Append to the log.
    AppendTxns {
        /// Its place among the disk effects.
        ticket: Ticket,
        /// Consecutive entries.
        entries: Arc<[Entry]>,
    },
    /// Remove every entry above `zxid` from the log, unreachable after any crash. Failure is fatal,
    /// as it is when the log does not contain `zxid`. What was delivered is never removed.
    TruncateLog {
        /// Its place among the disk effects.
        ticket: Ticket,
        /// The last entry to keep; 0 for none.
        zxid: Zxid,
    },
    /// Replace tree, snapshots and log by the snapshot that came on this connection: after any
    /// crash either the old state or the new one with an empty log. The tree in memory changes at
    /// once; deliveries that follow apply to the new one.
    InstallSnapshot {
        /// Its place among the disk effects.
        ticket: Ticket,
        /// Where it came from.
        connection: ConnectionId,
        /// What it contains.
        zxid: Zxid,
    },
    /// Replace acceptedEpoch.
    PersistAcceptedEpoch {
        /// Its place among the disk effects.
        ticket: Ticket,
        /// The new value.
        epoch: Epoch,
    },
    /// Replace currentEpoch.
    PersistCurrentEpoch {
        /// Its place among the disk effects.
        ticket: Ticket,
        /// The new value.
        epoch: Epoch,
    },
    /// Read from the log what is not in memory; see [`LogRead`](super::LogRead). All of it is
    /// durable. Answer with a bounded part, and when the connection's queue has room for it.
    ReadLog {
        /// The number of the answer.
        read: ReadId,
        /// The learner it is for.
        connection: ConnectionId,
        /// What the learner has.
        from: Zxid,
        /// The last entry wanted.
        through: Zxid,
        /// Whether a snapshot is no way out: then only a log that does not reach back is
        /// `Unavailable`, not one with much to read.
        required: bool,
    },

    /// Apply these: they are committed and on this disk.
    Deliver(Vec<Entry>),
    /// The same, for entries that were found in the log at the start: read them from there.
    DeliverFromLog {
        /// The last one delivered before.
        after: Zxid,
        /// The last one to deliver now.
        through: Zxid,
    },

    /// This replica now does something else.
    ChangeRole {
        /// What.
        role: RoleKind,
        /// Why, for the log.
        reason: &'static str,
    },
    /// Serve clients.
    StartServing {
        /// Who leads.
        leader: ServerId,
        /// In which epoch. A leader's first transaction has counter 1 in it.
        epoch: Epoch,
    },
    /// Stop serving: close every client connection. What was in flight has an unknown outcome;
    /// nothing of it may take effect later through this replica.
    StopServing,

    /// Leader: a learner forwarded a request. Requests of one learner come in its order.
    Request {
        /// The learner.
        from: ServerId,
        /// The request.
        payload: Bytes,
    },
    /// Leader: sessions were used through a learner.
    SessionsTouched {
        /// The learner.
        from: ServerId,
        /// Session and timeout in milliseconds.
        touched: Vec<(SessionId, i32)>,
    },
    /// Leader: touch the session, note its new owner, and say whether it is open.
    RevalidateSession {
        /// Where the answer goes.
        connection: ConnectionId,
        /// The new owner.
        from: ServerId,
        /// The session.
        session_id: SessionId,
        /// Its timeout in milliseconds.
        timeout_ms: i32,
    },
    /// Learner: the leader's answer to a revalidation.
    SessionRevalidated {
        /// The session.
        session_id: SessionId,
        /// Its timeout in milliseconds.
        timeout_ms: i32,
        /// Whether it is open.
        valid: bool,
    },
    /// Everything committed before the sync was asked for has been delivered.
    SyncDone {
        /// The driver's number for it.
        token: u64,
    },

    /// A clean shutdown is complete; the process may end once what was sent has left.
    Retired,
    /// This replica's data contradicts its leader's: it must not go on.
    Halt {
        /// What was found.
        reason: String,
    },
}
