//! Time: pings, limits, retries, and the clean end of a leadership. A leader that has lost its
//! quorum stops at once; a learner that hears nothing from its leader looks for another.

use super::effect::Effect;
use super::event::ConnectionId;
use super::follower::{Follower, FollowerPhase};
use super::leader::{Leader, LeaderPhase, Next};
use super::packet::{Notification, PeerState};
use super::quorum::ServerId;
use super::state::State;

/// First pause before a learner connects again, in milliseconds; half of it again is jitter.
const RETRY_MS: u64 = 20;

impl Leader {
    /// When [`Leader::tick`] is due.
    pub(super) fn deadline(&self) -> u64 {
        let retire_at = self.retire_at.unwrap_or(u64::MAX);
        self.ping_at.min(self.deadline).min(retire_at).min(self.hand_over_at.unwrap_or(u64::MAX))
    }

    /// Pings twice a tick and looks at every limit then.
    pub(super) fn tick(&mut self, state: &mut State) -> Next {
        if self.deadline <= state.now {
            return Next::Look(match self.phase {
                LeaderPhase::Discovery => "no quorum of followers came",
                LeaderPhase::Promising(_) | LeaderPhase::EpochAcks => {
                    "no quorum promised the epoch within initLimit"
                }
                _ => "no quorum synchronized within initLimit",
            });
        }
        if self.ping_at <= state.now {
            self.ping_at = state.now + (state.settings.tick_ms / 2).max(1);
            self.ping(state);
            for connection in self.overdue(state) {
                let next = self.drop_learner(state, connection);
                if next != Next::Stay {
                    return next;
                }
            }
        }
        match self.try_hand_over(state) {
            Next::Stay => self.try_retire(state),
            next => next,
        }
    }

    /// Learners that are silent, or behind with an acknowledgement, for too long.
    fn overdue(&self, state: &State) -> impl IntoIterator<Item = ConnectionId> + use<> {
        let limit = state.settings.sync_limit_ms();
        self.connections(|handler| match handler.phase.is_synced() {
            true => {
                handler.heard_at + limit < state.now
                    || handler.unacked.is_some_and(|(_, since)| since + limit < state.now)
            }
            false => handler.deadline <= state.now,
        })
    }

    /// Part of the snapshot for a learner was sent: it takes its time.
    pub(super) fn on_progress(&mut self, state: &State, connection: ConnectionId) {
        if let Some(handler) = self.learners.get_mut(&connection)
            && handler.deadline != u64::MAX
        {
            handler.deadline = state.now + state.settings.init_limit_ms();
        }
    }

    /// A learner's connection is gone.
    pub(super) fn on_disconnected(&mut self, state: &mut State, connection: ConnectionId) -> Next {
        let Some(gone) = self.learners.remove(&connection) else { return Next::Stay };
        self.syncs.retain(|sync| sync.learner != Some(connection));
        if self.phase == LeaderPhase::Discovery {
            self.infos.remove(&gone.sid);
        }
        if gone.observer {
            return Next::Stay;
        }
        if self.is_established() {
            let led = self.has_quorum(state, |handler| handler.phase.is_synced());
            return if led { Next::Stay } else { Next::Look("the quorum of followers is lost") };
        }
        if !self.has_quorum(state, |_| true) {
            // They may come back, but not after any time.
            self.deadline = self.deadline.min(state.now + state.discovery_ms());
        }
        Next::Stay
    }

    /// Someone looks for a leader while this one waits for followers. When too many have gone on to
    /// later rounds, nobody will come (ZOOKEEPER-3109).
    pub(super) fn on_notification(
        &mut self,
        state: &State,
        round: u64,
        from: ServerId,
        notification: &Notification,
    ) -> Next {
        let waiting = !self.is_established();
        let gone_on = notification.state == PeerState::Looking && notification.round > round
            || notification.state == PeerState::Following
                && notification.vote.leader != state.id
                && notification.round >= round;
        if waiting && gone_on && self.handler(from).is_none() {
            self.disloyal.insert(from);
            if !state.quorum.has_quorum(|id| !self.disloyal.contains(&id)) {
                return Next::Look("too many voters look for another leader");
            }
        }
        Next::Stay
    }

    /// A clean shutdown begins: nothing new is proposed; the rest is committed first.
    pub(super) fn shutdown(&mut self, state: &mut State) -> Next {
        if !self.is_established() {
            return Next::Retire;
        }
        self.retire_at.get_or_insert(state.now + state.settings.handover_wait_ms);
        self.try_retire(state)
    }

    /// Hands over once nothing is outstanding, or the wait for that is over.
    pub(super) fn try_retire(&mut self, state: &mut State) -> Next {
        let Some(at) = self.retire_at else { return Next::Stay };
        if state.delivered < state.window.last() && state.now < at {
            return Next::Stay;
        }
        self.name_successor(state);
        Next::Retire
    }
}

impl Follower {
    /// When [`Follower::tick`] is due.
    pub(super) fn deadline(&self, state: &State) -> u64 {
        let silence = match self.phase {
            FollowerPhase::Synced | FollowerPhase::Broadcast => {
                self.heard_at + state.settings.sync_limit_ms() + 1
            }
            _ => u64::MAX,
        };
        self.deadline.min(silence).min(self.retry_at.unwrap_or(u64::MAX))
    }

    /// Looks at the limits, and connects again.
    pub(super) fn tick(&mut self, state: &mut State) -> Next {
        if self.deadline(state) > state.now {
            return Next::Stay;
        }
        if self.retry_at.is_some_and(|at| at <= state.now) && self.deadline > state.now {
            self.retry_at = None;
            state.effects.push(Effect::Connect { peer: self.leader });
            return Next::Stay;
        }
        Next::Look(match self.phase {
            FollowerPhase::Connecting => "the leader could not be reached",
            FollowerPhase::Discovery => "the leader did not answer",
            FollowerPhase::Synced | FollowerPhase::Broadcast => {
                "nothing was heard from the leader within syncLimit"
            }
            _ => "synchronization took longer than initLimit",
        })
    }

    /// The connection that was asked for could not be made; the leader may not listen yet.
    pub(super) fn on_connect_failed(&mut self, state: &mut State) -> Next {
        if self.phase == FollowerPhase::Connecting {
            self.retry_at = Some(state.now + RETRY_MS + state.random_below(RETRY_MS / 2));
        }
        Next::Stay
    }

    /// Part of the leader's snapshot arrived.
    pub(super) fn on_progress(&mut self, state: &State) {
        self.heard_at = state.now;
        if self.deadline != u64::MAX {
            self.deadline = state.now + state.settings.init_limit_ms();
        }
    }

    /// The leader tells that it leads no more, before the connection has told it.
    pub(super) fn on_notification(
        &self,
        round: u64,
        from: ServerId,
        notification: &Notification,
    ) -> Next {
        let gone_on = match notification.state {
            PeerState::Looking => notification.round > round,
            PeerState::Following | PeerState::Observing => notification.round >= round,
            PeerState::Leading => false,
        };
        if from == self.leader && !self.is_active() && gone_on {
            return Next::Look("the leader leads no more");
        }
        Next::Stay
    }
}
