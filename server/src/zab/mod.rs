//! Zab: the replicas agree on one order of transactions, and keep it through crashes.
//!
//! A plain state machine: events in, effects out. No runtime, socket, file, clock or global
//! randomness; the driver (or the simulator) executes effects and reports back. Flavio Junqueira,
//! Benjamin Reed, Marco Serafini: "Zab: High-performance broadcast for primary-backup systems",
//! DSN 2011; names follow ZooKeeper's `server/quorum`.
//!
//! What is durable when: a promise of an epoch before ACKEPOCH; truncation, snapshot, history and
//! then currentEpoch before ACK of NEWLEADER; a proposal and all before it before its ACK, the
//! leader's own included. Only what is committed and on the local disk is delivered, so nothing
//! applied ever has to be taken back.

mod broadcast;
mod discovery;
mod disk_queue;
mod effect;
mod event;
mod follower;
mod leader;
mod leader_election;
mod liveness;
mod log_window;
mod mutation;
mod packet;
mod quorum;
mod reconfiguration;
mod sessions;
mod settings;
mod state;
mod synchronization;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use smallvec::SmallVec;
use znodefs::{Epoch, Zxid};

pub use disk_queue::Ticket;
pub use effect::{Effect, RoleKind};
pub use event::{ConnectionId, Event, LogRead, OnDisk, ReadId};
pub use mutation::Mutation;
pub use packet::{
    Ack, AckEpoch, Entry, LearnerInfo, Notification, Packet, PeerState, Standing, Vote,
};
pub use quorum::{Ensemble, QuorumVerifier, ServerId};
pub use settings::{Identity, Recovered, Settings};
pub use state::ReadConfiguration;

use follower::Follower;
use leader::{Leader, Next};
use leader_election::Election;
use state::State;

/// How many learners a leader has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearnerCounts {
    /// Learners that have introduced themselves.
    pub connected: usize,
    /// Followers that have acknowledged NEWLEADER.
    pub synced_followers: usize,
    /// Observers that have.
    pub synced_observers: usize,
}

#[derive(Debug)]
enum Role {
    Looking,
    Leading(Box<Leader>),
    Following(Box<Follower>),
    /// The disk is full: it takes part in nothing.
    Suspended,
    Retired,
}

/// One replica's part in the protocol.
pub struct Zab {
    state: State,
    election: Election,
    role: Role,
    /// Learners' connections to us, whatever our role.
    learners: BTreeMap<ConnectionId, ServerId>,
    /// Learners that introduced themselves before we knew that we lead.
    early: Vec<Early>,
}

/// How long a follower keeps a learner that takes it for the leader: it may be about to be told
/// that it is. In milliseconds.
const EARLY_WAIT_MS: u64 = 50;

struct Early {
    until: u64,
    connection: ConnectionId,
    packet: Packet,
}

impl Zab {
    /// A replica that has recovered its disk. Nothing happens before [`Event::Start`].
    pub fn new(identity: Identity, settings: Settings, recovered: &Recovered) -> Zab {
        Zab {
            state: State::new(identity, settings, recovered),
            election: Election::new(),
            role: Role::Looking,
            learners: BTreeMap::new(),
            early: Vec::new(),
        }
    }

    /// The same with a deliberate mistake.
    #[cfg(any(test, feature = "mutations"))]
    #[must_use]
    pub fn with_mutation(mut self, mutation: Option<Mutation>) -> Zab {
        self.set_mutation(mutation);
        self
    }

    /// Makes a deliberate mistake from now on.
    #[cfg(any(test, feature = "mutations"))]
    pub fn set_mutation(&mut self, mutation: Option<Mutation>) {
        self.state.mutation = mutation;
    }

    /// The same for an ensemble that can change: `read` finds reconfigurations among the entries of
    /// the log, and `proposed` is the last one in the log that was recovered, if it is newer than
    /// what [`Identity::ensemble`] says is committed.
    #[must_use]
    pub fn with_configurations(
        mut self,
        read: ReadConfiguration,
        proposed: Option<Ensemble>,
    ) -> Zab {
        self.state.read_configuration = read;
        if let Some(proposed) = proposed {
            self.state.quorum = self.state.quorum.clone().proposed(proposed);
        }
        self
    }

    /// Takes in one event. `now_ms` is a monotonic clock's reading; effects are added to `effects`.
    pub fn step(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) {
        self.state.now = self.state.now.max(now_ms);
        std::mem::swap(&mut self.state.effects, effects);
        let served = self.state.serving;
        let next = self.on_event(event);
        self.follow_up(next);
        if self.state.serving && !served {
            self.election.refresh_epoch(self.state.current_epoch);
        }
        std::mem::swap(&mut self.state.effects, effects);
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn deadline(&self) -> Option<u64> {
        match &self.role {
            Role::Looking => Some(self.election.deadline()),
            Role::Leading(leader) => Some(leader.deadline()),
            Role::Following(follower) => {
                let early = self.early.first().map_or(u64::MAX, |early| early.until);
                Some(follower.deadline(&self.state).min(early))
            }
            Role::Suspended | Role::Retired => None,
        }
    }

    /// What this replica does.
    pub fn role(&self) -> RoleKind {
        match &self.role {
            Role::Looking | Role::Suspended => RoleKind::Looking,
            Role::Leading(_) => RoleKind::Leading,
            Role::Following(follower) if !self.state.is_voter() => {
                RoleKind::Observing(follower.leader)
            }
            Role::Following(follower) => RoleKind::Following(follower.leader),
            Role::Retired => RoleKind::Retired,
        }
    }

    /// Whether clients may be served.
    pub fn is_serving(&self) -> bool {
        self.state.serving
    }

    /// The zxid of the next transaction to propose; `None` where this replica may not propose.
    pub fn next_zxid(&self) -> Option<Zxid> {
        match &self.role {
            Role::Leading(leader) => leader.next_zxid(&self.state),
            _ => None,
        }
    }

    /// acceptedEpoch, on disk or on its way.
    pub fn accepted_epoch(&self) -> Epoch {
        self.state.promised
    }

    /// currentEpoch, on disk or on its way.
    pub fn current_epoch(&self) -> Epoch {
        self.state.current_epoch
    }

    /// The end of the log, on disk or on its way.
    pub fn last_logged(&self) -> Zxid {
        self.state.window.last()
    }

    /// The last zxid known to be committed.
    pub fn committed(&self) -> Zxid {
        self.state.committed
    }

    /// The last zxid delivered.
    pub fn delivered(&self) -> Zxid {
        self.state.delivered
    }

    /// A leader's learners; none elsewhere.
    pub fn learners(&self) -> LearnerCounts {
        let Role::Leading(leader) = &self.role else { return LearnerCounts::default() };
        let synced = |voter: bool| {
            let quorum = &self.state.quorum;
            let of_kind = leader.learners.values().filter(|one| quorum.is_voter(one.sid) == voter);
            of_kind.filter(|one| one.phase.is_synced()).count()
        };
        LearnerCounts {
            connected: leader.learners.len(),
            synced_followers: synced(true),
            synced_observers: synced(false),
        }
    }

    /// A leader and its learners that have everything, be they members or not, ascending: whoever
    /// else is to be a voter has to be brought up to date first. Nobody elsewhere.
    pub fn synced(&self) -> SmallVec<[ServerId; 8]> {
        let Role::Leading(leader) = &self.role else { return SmallVec::new() };
        let synced = leader.learners.values().filter(|handler| handler.phase.is_synced());
        let mut ids: SmallVec<[ServerId; 8]> = synced.map(|handler| handler.sid).collect();
        ids.push(self.state.id);
        ids.sort_unstable();
        ids
    }

    /// The configurations in force.
    pub fn quorum(&self) -> &QuorumVerifier {
        &self.state.quorum
    }

    fn on_event(&mut self, event: Event) -> Next {
        if matches!(self.role, Role::Retired) {
            return Next::Stay;
        }
        if matches!(self.role, Role::Suspended) {
            return self.on_event_while_suspended(event);
        }
        match event {
            Event::Start => Next::Look("start"),
            Event::DiskFull => self.suspend(),
            Event::DiskHasRoom(_) => Next::Stay,
            Event::Tick => self.on_tick(),
            Event::LinkUp(peer) => {
                self.election.link_up(&mut self.state, peer);
                Next::Stay
            }
            Event::LinkDown(peer) => {
                let decided = self.election.link_down(&mut self.state, peer);
                appointed(decided)
            }
            Event::Notification { from, notification } => self.on_notification(from, &notification),
            Event::Durable(ticket) => self.on_durable(ticket),
            Event::LogRead { read, answer } => match &mut self.role {
                Role::Leading(leader) => leader.on_log_read(&mut self.state, read, answer),
                _ => Next::Stay,
            },
            Event::Shutdown => match &mut self.role {
                Role::Leading(leader) => leader.shutdown(&mut self.state),
                _ => Next::Retire,
            },
            Event::Connected { .. }
            | Event::ConnectFailed { .. }
            | Event::Disconnected(_)
            | Event::Packet { .. }
            | Event::Progress(_) => self.on_connection_event(event),
            Event::Propose(_)
            | Event::Forward(_)
            | Event::Sync { .. }
            | Event::SessionTouched { .. }
            | Event::Revalidate { .. }
            | Event::SessionRevalidated { .. } => self.on_local_event(event),
        }
    }

    fn on_tick(&mut self) -> Next {
        match &mut self.role {
            Role::Looking => appointed(self.election.tick(&mut self.state)),
            Role::Leading(leader) => leader.tick(&mut self.state),
            Role::Following(follower) => {
                let next = follower.tick(&mut self.state);
                self.turn_away_early(self.state.now);
                next
            }
            Role::Suspended | Role::Retired => Next::Stay,
        }
    }

    fn on_notification(&mut self, from: ServerId, notification: &Notification) -> Next {
        if matches!(self.role, Role::Looking) && notification.standing.initialized {
            // Who belongs to no ensemble yet may tell of another one.
            if self.state.learn_configuration(&notification.configuration)
                && let Some(leader) = self.election.begin(&mut self.state)
            {
                // Other votes count now, and perhaps none but our own.
                return Next::Appointed(leader);
            }
        }
        let round = self.election.round();
        let decided = self.election.on_notification(&mut self.state, from, notification);
        match &mut self.role {
            Role::Looking => appointed(decided),
            Role::Leading(leader) => leader.on_notification(&self.state, round, from, notification),
            Role::Following(follower) => follower.on_notification(round, from, notification),
            Role::Suspended | Role::Retired => Next::Stay,
        }
    }

    fn on_durable(&mut self, ticket: Ticket) -> Next {
        self.state.disk.complete(ticket);
        match &mut self.role {
            Role::Leading(leader) => {
                let next = leader.on_durable(&mut self.state);
                if next == Next::Stay { leader.try_retire(&mut self.state) } else { next }
            }
            Role::Following(follower) => follower.on_durable(&mut self.state),
            Role::Looking | Role::Suspended | Role::Retired => Next::Stay,
        }
    }

    fn on_connection_event(&mut self, event: Event) -> Next {
        match event {
            Event::Connected { connection, peer, outgoing: false } => {
                self.learners.insert(connection, peer);
                Next::Stay
            }
            Event::Connected { connection, peer, outgoing: true } => match &mut self.role {
                Role::Following(follower) if follower.leader == peer => {
                    follower.on_connected(&mut self.state, connection)
                }
                _ => {
                    self.state.effects.push(Effect::Disconnect(connection));
                    Next::Stay
                }
            },
            Event::ConnectFailed { peer } => match &mut self.role {
                Role::Following(follower) if follower.leader == peer => {
                    follower.on_connect_failed(&mut self.state)
                }
                _ => Next::Stay,
            },
            Event::Disconnected(connection) => self.on_disconnected(connection),
            Event::Packet { connection, packet } => self.on_packet(connection, packet),
            Event::Progress(connection) => {
                match &mut self.role {
                    Role::Leading(leader) => leader.on_progress(&self.state, connection),
                    Role::Following(follower) if follower.connection == Some(connection) => {
                        follower.on_progress(&self.state);
                    }
                    _ => {}
                }
                Next::Stay
            }
            _ => Next::Stay,
        }
    }

    fn on_disconnected(&mut self, connection: ConnectionId) -> Next {
        self.learners.remove(&connection);
        self.early.retain(|early| early.connection != connection);
        match &mut self.role {
            Role::Leading(leader) => leader.on_disconnected(&mut self.state, connection),
            Role::Following(follower) if follower.connection == Some(connection) => {
                follower.connection = None;
                Next::Look("the connection to the leader is lost")
            }
            _ => Next::Stay,
        }
    }

    fn on_packet(&mut self, connection: ConnectionId, packet: Packet) -> Next {
        if let Some(peer) = self.learners.get(&connection).copied() {
            return match &mut self.role {
                Role::Leading(leader) => {
                    let next = leader.on_packet(&mut self.state, connection, peer, packet);
                    if next == Next::Stay { leader.try_retire(&mut self.state) } else { next }
                }
                _ => {
                    self.on_early_packet(connection, packet);
                    Next::Stay
                }
            };
        }
        match &mut self.role {
            Role::Following(follower) if follower.connection == Some(connection) => {
                follower.on_packet(&mut self.state, packet)
            }
            _ => Next::Stay,
        }
    }

    /// A learner takes us for the leader. Looking, we may become it; following, the leader may be
    /// about to appoint us.
    fn on_early_packet(&mut self, connection: ConnectionId, packet: Packet) {
        let may_lead = match &self.role {
            Role::Looking => true,
            Role::Following(follower) => follower.is_active(),
            _ => false,
        };
        let introduces = matches!(packet, Packet::FollowerInfo(_) | Packet::ObserverInfo(_));
        let known = self.early.iter().any(|early| early.connection == connection);
        if may_lead && introduces && !known {
            let until = self.state.now + EARLY_WAIT_MS;
            self.early.push(Early { until, connection, packet });
        } else {
            self.turn_away(connection);
        }
    }

    fn turn_away(&mut self, connection: ConnectionId) {
        self.early.retain(|early| early.connection != connection);
        if self.learners.remove(&connection).is_some() {
            self.state.effects.push(Effect::Disconnect(connection));
        }
    }

    fn turn_away_early(&mut self, now: u64) {
        while let Some(early) = self.early.first().filter(|early| early.until <= now) {
            let connection = early.connection;
            self.turn_away(connection);
        }
    }

    fn on_local_event(&mut self, event: Event) -> Next {
        let state = &mut self.state;
        match (event, &mut self.role) {
            (Event::Propose(entries), Role::Leading(leader)) => leader.propose(state, entries),
            (Event::Sync { token }, Role::Leading(leader)) => leader.on_sync(state, None, token),
            (
                Event::SessionRevalidated { connection, session_id, timeout_ms, valid },
                Role::Leading(leader),
            ) => {
                if leader.learners.contains_key(&connection) {
                    let valid = Some(valid);
                    let packet = Packet::Revalidate { session_id, timeout_ms, valid };
                    state.send(connection, packet);
                }
                Next::Stay
            }
            (Event::Sync { token }, Role::Following(follower)) => {
                follower.sync(state, token);
                Next::Stay
            }
            (Event::Forward(payload), Role::Following(follower)) => {
                follower.forward(state, payload);
                Next::Stay
            }
            (Event::SessionTouched { session_id, timeout_ms }, Role::Following(_)) => {
                state.touched.insert(session_id, timeout_ms);
                Next::Stay
            }
            (Event::Revalidate { session_id, timeout_ms }, Role::Following(follower)) => {
                if state.serving {
                    let packet = Packet::Revalidate { session_id, timeout_ms, valid: None };
                    follower.send(state, packet);
                }
                Next::Stay
            }
            _ => Next::Stay,
        }
    }

    /// Changes roles until one stays.
    fn follow_up(&mut self, mut next: Next) {
        loop {
            next = match next {
                Next::Stay => return,
                Next::Look(reason) => self.look(reason),
                Next::Appointed(leader) => self.take_role(leader),
                Next::Retire => self.retire(),
            };
        }
    }

    /// Enters LOOKING.
    fn look(&mut self, reason: &'static str) -> Next {
        self.leave_role();
        self.role = Role::Looking;
        self.state.elections += 1;
        let role = RoleKind::Looking;
        self.state.effects.push(Effect::ChangeRole { role, reason });
        appointed(self.election.begin(&mut self.state))
    }

    /// Takes the role that an election, or a leader that shuts down, has given.
    fn take_role(&mut self, leader: ServerId) -> Next {
        let elected = matches!(self.role, Role::Looking);
        self.leave_role();
        if !elected {
            self.election.appoint(&self.state, leader);
        }
        self.election.settle(&mut self.state, leader);
        let reason = if elected { "elected" } else { "appointed by the leader before" };
        if leader == self.state.id {
            return self.lead(reason);
        }
        self.turn_away_early(u64::MAX);
        let follower = Follower::new(&mut self.state, leader);
        self.role = Role::Following(Box::new(follower));
        let role = self.role();
        self.state.effects.push(Effect::ChangeRole { role, reason });
        Next::Stay
    }

    fn lead(&mut self, reason: &'static str) -> Next {
        let leader = Leader::new(&self.state);
        self.role = Role::Leading(Box::new(leader));
        let role = RoleKind::Leading;
        self.state.effects.push(Effect::ChangeRole { role, reason });
        let Role::Leading(leader) = &mut self.role else { return Next::Stay };
        let mut next = leader.start_discovery(&mut self.state);
        for Early { connection, packet, .. } in std::mem::take(&mut self.early) {
            if let (Next::Stay, Some(peer)) = (next, self.learners.get(&connection)) {
                next = leader.on_packet(&mut self.state, connection, *peer, packet);
            }
        }
        next
    }

    /// Gives up what belongs to the role: service and connections.
    fn leave_role(&mut self) {
        self.state.stop_serving();
        match std::mem::replace(&mut self.role, Role::Looking) {
            Role::Leading(_) => {
                self.early.clear();
                for connection in std::mem::take(&mut self.learners).into_keys() {
                    self.state.effects.push(Effect::Disconnect(connection));
                }
            }
            Role::Following(follower) => {
                if let Some(connection) = follower.connection {
                    self.state.effects.push(Effect::Disconnect(connection));
                }
            }
            Role::Looking | Role::Suspended | Role::Retired => {}
        }
    }

    /// The disk is full: a leader hands over, a learner leaves, and nobody is answered.
    fn suspend(&mut self) -> Next {
        if let Role::Leading(leader) = &mut self.role
            && leader.is_established()
        {
            // Without one there is nobody to tell, and an election follows.
            let _ = leader.name_successor(&mut self.state);
        }
        self.leave_role();
        self.role = Role::Suspended;
        self.early.clear();
        for connection in std::mem::take(&mut self.learners).into_keys() {
            self.state.effects.push(Effect::Disconnect(connection));
        }
        let (role, reason) = (RoleKind::Looking, "the disk is full");
        self.state.effects.push(Effect::ChangeRole { role, reason });
        Next::Stay
    }

    fn on_event_while_suspended(&mut self, event: Event) -> Next {
        match event {
            Event::DiskHasRoom(found) => {
                self.state.restore(found);
                Next::Look("there is room on the disk")
            }
            Event::LinkUp(peer) => {
                self.election.note_link(peer, true);
                Next::Stay
            }
            Event::LinkDown(peer) => {
                self.election.note_link(peer, false);
                Next::Stay
            }
            Event::Connected { connection, .. } => {
                self.state.effects.push(Effect::Disconnect(connection));
                Next::Stay
            }
            Event::Shutdown => Next::Retire,
            _ => Next::Stay,
        }
    }

    fn retire(&mut self) -> Next {
        self.leave_role();
        self.role = Role::Retired;
        let (role, reason) = (RoleKind::Retired, "shutdown");
        self.state.effects.push(Effect::ChangeRole { role, reason });
        self.state.effects.push(Effect::Retired);
        Next::Stay
    }
}

fn appointed(decided: Option<ServerId>) -> Next {
    decided.map_or(Next::Stay, Next::Appointed)
}
