//! What a follower or an observer keeps: its connection to the leader and its phase. The phases' own
//! steps are in `discovery`, `synchronization` and `broadcast`; time is in `liveness`.

use znodefs::{Epoch, Zxid};

use super::disk_queue::Ticket;
use super::effect::Effect;
use super::event::ConnectionId;
use super::leader::Next;
use super::packet::Packet;
use super::quorum::ServerId;
use super::state::State;

/// Where a learner stands with its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowerPhase {
    /// Wants a connection.
    Connecting,
    /// Has introduced itself.
    Discovery,
    /// The promise of the leader's epoch is being written.
    Promising(Ticket),
    /// Has answered LEADERINFO; waits for DIFF, TRUNC or SNAP.
    AwaitingSync,
    /// Takes in history until NEWLEADER.
    Synchronization,
    /// NEWLEADER arrived; history and currentEpoch are being written.
    AdoptingEpoch(Ticket),
    /// NEWLEADER is acknowledged; waits for UPTODATE.
    Synced,
    /// UPTODATE arrived.
    Broadcast,
}

/// A follower or an observer.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) leader: ServerId,
    /// Whether it acknowledges nothing: it had no vote when it connected and was given none since.
    pub(super) observing: bool,
    /// Whether the leader counts it, from LEADERINFO.
    pub(super) counts: bool,
    pub(super) connection: Option<ConnectionId>,
    pub(super) phase: FollowerPhase,
    /// The leader's epoch, from LEADERINFO.
    pub(super) epoch: Epoch,
    /// What the leader said is committed; applied from UPTODATE on.
    pub(super) committed: Zxid,
    /// Serve once this much is delivered.
    pub(super) serve_from: Zxid,
    /// The last zxid acknowledged on this connection.
    pub(super) acked: Zxid,
    pub(super) heard_at: u64,
    /// Must have come to the next phase by then.
    pub(super) deadline: u64,
    /// When to connect again.
    pub(super) retry_at: Option<u64>,
}

impl Follower {
    /// Starts to follow: asks for a connection.
    pub(super) fn new(state: &mut State, leader: ServerId) -> Follower {
        state.effects.push(Effect::Connect { peer: leader });
        Follower {
            leader,
            observing: !state.is_voter(),
            counts: false,
            connection: None,
            phase: FollowerPhase::Connecting,
            epoch: Epoch(0),
            committed: Zxid::ZERO,
            serve_from: Zxid::ZERO,
            acked: Zxid::ZERO,
            heard_at: state.now,
            deadline: state.now + state.discovery_ms(),
            retry_at: None,
        }
    }

    /// Who has become a voter acknowledges from now on. One that is a voter no longer goes on until
    /// it connects again: the leader knows what counts.
    pub(super) fn take_vote(&mut self, state: &State) {
        self.observing &= !state.is_voter();
    }

    pub(super) fn is_active(&self) -> bool {
        self.phase == FollowerPhase::Broadcast
    }

    pub(super) fn send(&self, state: &mut State, packet: Packet) {
        if let Some(connection) = self.connection {
            state.send(connection, packet);
        }
    }

    /// A packet from the leader.
    pub(super) fn on_packet(&mut self, state: &mut State, packet: Packet) -> Next {
        self.heard_at = state.now;
        match packet {
            Packet::LeaderInfo { epoch, counts } => self.on_leader_info(state, epoch, counts),
            Packet::Diff { zxid } => self.on_diff(state, zxid),
            Packet::Trunc { zxid } => self.on_trunc(state, zxid),
            Packet::Snap { zxid, configuration } => self.on_snap(state, zxid, &configuration),
            Packet::NewLeader { epoch } => self.on_new_leader(state, epoch),
            Packet::UpToDate { committed } => self.on_up_to_date(state, committed),
            Packet::Proposal { entries } => self.on_proposal(state, entries),
            Packet::Commit { zxid } => self.on_commit(state, zxid),
            Packet::Inform { entries } => self.on_inform(state, entries),
            Packet::Ping { sequence, .. } => self.on_ping(state, sequence),
            Packet::Revalidate { session_id, timeout_ms, valid: Some(valid) } => {
                let revalidated = Effect::SessionRevalidated { session_id, timeout_ms, valid };
                state.effects.push(revalidated);
                Next::Stay
            }
            Packet::Sync { token } => self.on_sync_answer(state, token),
            Packet::Handover { successor } => Next::Appointed(successor),
            Packet::FollowerInfo(_)
            | Packet::ObserverInfo(_)
            | Packet::AckEpoch(_)
            | Packet::Ack(_)
            | Packet::Revalidate { .. }
            | Packet::Request { .. } => Next::Look("leader sent what only a learner sends"),
        }
    }

    /// The tickets this learner waits for may be done.
    pub(super) fn on_durable(&mut self, state: &mut State) -> Next {
        match self.phase {
            FollowerPhase::Promising(ticket) if state.disk.is_done(ticket) => {
                self.answer_leader_info(state)
            }
            FollowerPhase::AdoptingEpoch(ticket) if state.disk.is_done(ticket) => {
                self.acknowledge_new_leader(state)
            }
            FollowerPhase::Synced | FollowerPhase::Broadcast => self.acknowledge_proposals(state),
            _ => Next::Stay,
        }
    }
}
