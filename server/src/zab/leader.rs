//! What a leader keeps: its phase, and one handler per learner. The phases' own steps are in
//! `discovery`, `synchronization` and `broadcast`; time is in `liveness`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;
use znodefs::{Epoch, Zxid};

use super::disk_queue::Ticket;
use super::event::{ConnectionId, ReadId};
use super::packet::{AckEpoch, LearnerInfo, Packet};
use super::quorum::ServerId;
use super::state::State;

/// Where a leader stands. A learner's own phase is in its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaderPhase {
    /// Waits for a quorum of FOLLOWERINFO.
    Discovery,
    /// The epoch is chosen and being written.
    Promising(Ticket),
    /// LEADERINFO is out; waits for a quorum of promises.
    EpochAcks,
    /// A quorum has promised; waits for a quorum of ACK(NEWLEADER). The ticket is its own.
    Synchronization(Ticket),
    /// Established.
    Broadcast,
}

/// What a step means for the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on.
    Stay,
    /// Give the role up and look for a leader.
    Look(&'static str),
    /// The old leader has named this one.
    Appointed(ServerId),
    /// A clean shutdown is complete.
    Retire,
}

/// A sync that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingSync {
    /// `None` is a client of the leader itself.
    pub(super) learner: Option<ConnectionId>,
    pub(super) token: u64,
    /// A quorum must have answered this ping.
    pub(super) sequence: u64,
    /// This much must be committed.
    pub(super) zxid: Zxid,
}

/// The leader.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) phase: LeaderPhase,
    pub(super) epoch: Epoch,
    /// All voters are there and none has data: a new ensemble.
    pub(super) genesis: bool,
    pub(super) infos: BTreeMap<ServerId, LearnerInfo>,
    pub(super) promises: BTreeSet<ServerId>,
    pub(super) learners: BTreeMap<ConnectionId, LearnerHandler>,
    /// Voters that went on to look for someone else while we wait for them.
    pub(super) disloyal: BTreeSet<ServerId>,
    /// The phase before Broadcast must be over by then.
    pub(super) deadline: u64,
    pub(super) ping_at: u64,
    pub(super) ping_sequence: u64,
    /// The ping that syncs wait for.
    pub(super) confirming: Option<u64>,
    pub(super) syncs: VecDeque<PendingSync>,
    /// Counts the reads of the log.
    pub(super) reads: u64,
    /// A clean shutdown: hand over when all is committed, or at this time.
    pub(super) retire_at: Option<u64>,
    /// A reconfiguration has taken the vote: hand over when the others have it, or at this time.
    pub(super) hand_over_at: Option<u64>,
}

/// Where a learner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandlerPhase {
    /// Has introduced itself; the epoch is not chosen yet.
    Introduced,
    /// Was sent LEADERINFO.
    Promising,
    /// Has answered with its history; waits for the epoch to be agreed (observers: established).
    Waiting,
    /// Part of what it lacks is being read from the log.
    Reading(ReadId),
    /// Was sent its history and NEWLEADER; live proposals follow.
    Synchronizing,
    /// Has acknowledged NEWLEADER: its acknowledgements count.
    Synced,
    /// Was sent UPTODATE.
    Active,
}

/// One learner, on one connection.
#[derive(Debug)]
pub(super) struct LearnerHandler {
    pub(super) sid: ServerId,
    /// Whether it hears only of what is committed. One that loses its vote goes on to hear of
    /// proposals until it connects again.
    pub(super) observer: bool,
    pub(super) phase: HandlerPhase,
    /// Its history as it described it; empty until ACKEPOCH.
    pub(super) current_epoch: Epoch,
    pub(super) last_zxid: Zxid,
    /// How far it was sent history; `None` until it is known how it is synchronized.
    pub(super) sent_to: Option<Zxid>,
    /// The end of the history sent before NEWLEADER.
    pub(super) synced_to: Zxid,
    /// The commit index when its sync began; only a mutation sends it.
    pub(super) committed_at_sync: Zxid,
    /// What it has on disk.
    pub(super) acked: Zxid,
    pub(super) heard_at: u64,
    /// Must have acknowledged NEWLEADER by then.
    pub(super) deadline: u64,
    /// The last ping that it answered.
    pub(super) ponged: u64,
    /// The proposal whose acknowledgement is awaited, and since when.
    pub(super) unacked: Option<(Zxid, u64)>,
}

/// How a learner's log is brought in line with the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncMode {
    /// Its log is a prefix; send what follows it.
    Diff,
    /// Cut its log here, send what follows.
    Trunc(Zxid),
    /// Send the tree as of here, then what follows.
    Snap(Zxid),
}

impl HandlerPhase {
    /// Whether acknowledgements of the learner count.
    pub(super) fn is_synced(self) -> bool {
        matches!(self, HandlerPhase::Synced | HandlerPhase::Active)
    }

    /// Whether live proposals flow to it.
    pub(super) fn is_forwarding(self) -> bool {
        self.is_synced() || self == HandlerPhase::Synchronizing
    }
}

impl LearnerHandler {
    pub(super) fn new(state: &State, sid: ServerId, observer: bool) -> LearnerHandler {
        LearnerHandler {
            sid,
            observer,
            phase: HandlerPhase::Introduced,
            current_epoch: Epoch(0),
            last_zxid: Zxid::ZERO,
            sent_to: None,
            synced_to: Zxid::ZERO,
            committed_at_sync: Zxid::ZERO,
            acked: Zxid::ZERO,
            heard_at: state.now,
            deadline: state.now + state.settings.init_limit_ms(),
            ponged: 0,
            unacked: None,
        }
    }
}

impl Leader {
    pub(super) fn new(state: &State) -> Leader {
        Leader {
            phase: LeaderPhase::Discovery,
            epoch: Epoch(0),
            genesis: false,
            infos: BTreeMap::new(),
            promises: BTreeSet::new(),
            learners: BTreeMap::new(),
            disloyal: BTreeSet::new(),
            deadline: state.now + state.discovery_ms(),
            ping_at: state.now + state.settings.tick_ms / 2,
            ping_sequence: 0,
            confirming: None,
            syncs: VecDeque::new(),
            reads: 0,
            retire_at: None,
            hand_over_at: None,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        self.phase == LeaderPhase::Broadcast
    }

    /// The connections of learners that satisfy `choose`.
    pub(super) fn connections(
        &self,
        choose: impl Fn(&LearnerHandler) -> bool,
    ) -> SmallVec<[ConnectionId; 8]> {
        self.learners
            .iter()
            .filter(|(_, handler)| choose(handler))
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// The handler of a voter, if it is connected.
    pub(super) fn handler(&self, sid: ServerId) -> Option<&LearnerHandler> {
        self.learners.values().find(|handler| handler.sid == sid)
    }

    /// Whether the voters for which `holds` is true, and this leader, are a quorum.
    pub(super) fn has_quorum(
        &self,
        state: &State,
        holds: impl Fn(&LearnerHandler) -> bool,
    ) -> bool {
        state.quorum.has_quorum(|id| id == state.id || self.handler(id).is_some_and(&holds))
    }

    /// A packet from a learner.
    pub(super) fn on_packet(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        peer: ServerId,
        packet: Packet,
    ) -> Next {
        if let Some(handler) = self.learners.get_mut(&connection) {
            handler.heard_at = state.now;
        } else if !matches!(packet, Packet::FollowerInfo(_) | Packet::ObserverInfo(_)) {
            return Next::Stay;
        }
        match packet {
            Packet::FollowerInfo(info) => self.on_info(state, connection, peer, info, false),
            Packet::ObserverInfo(info) => self.on_info(state, connection, peer, info, true),
            Packet::AckEpoch(ack) => self.on_ack_epoch(state, connection, &ack),
            Packet::Ack(ack) => self.on_ack(state, connection, ack),
            Packet::Ping { sequence, touched } => {
                self.on_pong(state, connection, sequence, touched)
            }
            Packet::Revalidate { session_id, timeout_ms, valid: None } => {
                self.on_revalidate(state, connection, session_id, timeout_ms)
            }
            Packet::Request { payload } => self.on_request(state, connection, payload),
            Packet::Sync { token } => self.on_sync(state, Some(connection), token),
            _ => self.drop_learner(state, connection),
        }
    }

    /// Closes a learner's connection: it broke the protocol, is too slow, or came again.
    pub(super) fn drop_learner(&mut self, state: &mut State, connection: ConnectionId) -> Next {
        state.effects.push(super::effect::Effect::Disconnect(connection));
        self.on_disconnected(state, connection)
    }

    /// The tickets this leader waits for may be done.
    pub(super) fn on_durable(&mut self, state: &mut State) -> Next {
        match self.phase {
            LeaderPhase::Promising(ticket) if state.disk.is_done(ticket) => {
                self.announce_epoch(state)
            }
            LeaderPhase::Synchronization(_) => self.try_establish(state),
            LeaderPhase::Broadcast => self.advance_commit(state),
            _ => Next::Stay,
        }
    }
}

/// Whether a learner's history is more recent than another.
pub(super) fn is_more_recent(ack: &AckEpoch, current_epoch: Epoch, last_zxid: Zxid) -> bool {
    (ack.current_epoch, ack.last_zxid) > (current_epoch, last_zxid)
}
