//! Discovery: a quorum promises the leader a new epoch and tells it how recent its histories are.
//!
//! Zab paper (DSN 2011), section 4, phase 1: a follower sends CEPOCH(f.p), here FOLLOWERINFO; "upon
//! receiving CEPOCH(e) messages from a quorum Q", the leader proposes a greater epoch e' (NEWEPOCH,
//! here LEADERINFO); the follower, if f.p < e', makes f.p = e' and acknowledges with f.a and its
//! history (ACK-E, here ACKEPOCH with currentEpoch and the last zxid). The election is meant to have
//! found the longest history already: a leader that learns of a longer one gives up.

use znodefs::Epoch;

use super::effect::Effect;
use super::event::ConnectionId;
use super::follower::{Follower, FollowerPhase};
use super::leader::{HandlerPhase, Leader, LeaderPhase, LearnerHandler, Next, is_more_recent};
use super::mutation::Mutation;
use super::packet::{AckEpoch, LearnerInfo, Packet};
use super::quorum::ServerId;
use super::state::State;

impl Leader {
    /// Begins: a leader follows itself first.
    pub(super) fn start_discovery(&mut self, state: &mut State) -> Next {
        self.infos.insert(state.id, state.learner_info());
        self.try_choose_epoch(state)
    }

    /// FOLLOWERINFO or OBSERVERINFO. A second connection of the same learner replaces the first.
    pub(super) fn on_info(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        sid: ServerId,
        info: LearnerInfo,
        observer: bool,
    ) -> Next {
        if self.learners.contains_key(&connection) {
            return self.drop_learner(state, connection);
        }
        let voter = state.quorum.is_voter(sid);
        if info.configuration > state.quorum.last_seen().version {
            state.effects.push(Effect::Disconnect(connection));
            if voter {
                return Next::Look("a learner has a newer configuration");
            }
            // A stranger does not depose a leader.
            return Next::Stay;
        }
        // Who has not heard of the newest configuration may not know that it votes; who has, and
        // says that it only observes, was configured otherwise than this replica.
        let knows = info.configuration == state.quorum.last_seen().version;
        let observer =
            (!voter || (observer && knows)) && !state.mutated(Mutation::ObserverVotesCounted);
        for earlier in self.connections(|handler| handler.sid == sid) {
            state.effects.push(Effect::Disconnect(earlier));
            self.learners.remove(&earlier);
        }
        self.learners.insert(connection, LearnerHandler::new(state, sid, observer));
        self.disloyal.remove(&sid);
        let outbid = info.accepted_epoch > self.epoch && !observer;
        if !observer {
            self.infos.insert(sid, info);
        }
        match self.phase {
            LeaderPhase::Discovery => self.try_choose_epoch(state),
            LeaderPhase::Promising(_) => Next::Stay,
            // It has promised a leader that came to nothing; it can only follow a later epoch.
            // ZooKeeper leaves it outside until the next election.
            _ if outbid && !state.mutated(Mutation::AcceptLowerEpoch) => {
                Next::Look("a voter has promised a later epoch")
            }
            _ => {
                self.send_leader_info(state, connection);
                Next::Stay
            }
        }
    }

    /// Chooses the epoch once a quorum has come whose data counts, or everybody and nobody has any.
    fn try_choose_epoch(&mut self, state: &mut State) -> Next {
        let info = |id: ServerId| {
            self.infos.get(&id).filter(|_| id == state.id || self.handler(id).is_some())
        };
        let voters = state.quorum.voters();
        let genesis = state.may_form_ensemble()
            && voters.iter().all(|id| info(*id).is_some_and(|info| !info.standing.has_data));
        let quorum = state.quorum.has_quorum(|id| info(id).is_some_and(|i| i.standing.initialized));
        if !(genesis || quorum) {
            return Next::Stay;
        }
        if !genesis && !state.standing().initialized {
            // The votes were for what this replica had. Nothing is promised, and above all no new
            // ensemble is named.
            return Next::Look("this replica has lost the history it was elected for");
        }
        let mut highest = Epoch(0);
        for info in voters.iter().filter_map(|id| info(*id)) {
            highest = highest.max(info.accepted_epoch);
        }
        self.genesis = genesis;
        self.epoch = match state.mutated(Mutation::ReuseEpoch) {
            true => highest.max(Epoch(1)),
            false => Epoch(highest.0 + 1),
        };
        let ticket = state.promise(self.epoch, state.id);
        self.phase = LeaderPhase::Promising(ticket);
        self.deadline = state.now + state.settings.init_limit_ms();
        Next::Stay
    }

    /// acceptedEpoch is on disk: the leader has promised, the others may.
    pub(super) fn announce_epoch(&mut self, state: &mut State) -> Next {
        self.phase = LeaderPhase::EpochAcks;
        let outbid = self.infos.values().any(|info| info.accepted_epoch > self.epoch);
        if outbid && !state.mutated(Mutation::AcceptLowerEpoch) {
            return Next::Look("a voter has promised a later epoch");
        }
        for connection in self.connections(|handler| handler.phase == HandlerPhase::Introduced) {
            self.send_leader_info(state, connection);
        }
        if self.genesis || state.standing().initialized {
            self.promises.insert(state.id);
        }
        self.try_finish_discovery(state)
    }

    fn send_leader_info(&mut self, state: &mut State, connection: ConnectionId) {
        if let Some(handler) = self.learners.get_mut(&connection) {
            handler.phase = HandlerPhase::Promising;
            let (epoch, counts) = (self.epoch, !handler.observer);
            state.send(connection, Packet::LeaderInfo { epoch, counts });
        }
    }

    /// ACKEPOCH.
    pub(super) fn on_ack_epoch(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        ack: &AckEpoch,
    ) -> Next {
        let Some(handler) = self.learners.get_mut(&connection) else { return Next::Stay };
        if handler.phase != HandlerPhase::Promising {
            return self.drop_learner(state, connection);
        }
        handler.phase = HandlerPhase::Waiting;
        handler.current_epoch = ack.current_epoch;
        handler.last_zxid = ack.last_zxid;
        let (sid, observer) = (handler.sid, handler.observer);
        if self.phase == LeaderPhase::EpochAcks && !observer {
            let counts =
                self.genesis || self.infos.get(&sid).is_some_and(|info| info.standing.initialized);
            let behind = is_more_recent(ack, state.current_epoch, state.window.last());
            if counts && behind && !state.mutated(Mutation::ForgetEpochCheck) {
                return Next::Look("a follower has a more recent history");
            }
            if ack.is_promise() {
                if counts {
                    self.promises.insert(sid);
                }
                return self.try_finish_discovery(state);
            }
            // Another candidate chose the same number; waiting would not change it.
            return Next::Look("a voter has promised this epoch to another leader");
        }
        self.start_sync_if_due(state, connection)
    }

    /// A quorum has promised: this leader's history becomes the epoch's initial history.
    fn try_finish_discovery(&mut self, state: &mut State) -> Next {
        if !state.quorum.has_quorum(|id| self.promises.contains(&id)) {
            return Next::Stay;
        }
        let ticket = state.adopt_epoch(self.epoch);
        self.phase = LeaderPhase::Synchronization(ticket);
        self.deadline = state.now + state.settings.init_limit_ms();
        if state.mutated(Mutation::SkipNewLeaderQuorum) {
            return self.establish(state);
        }
        for connection in self.connections(|handler| handler.phase == HandlerPhase::Waiting) {
            let next = self.start_sync_if_due(state, connection);
            if next != Next::Stay {
                return next;
            }
        }
        self.try_establish(state)
    }
}

impl Follower {
    /// The connection to the leader stands: introduce yourself.
    pub(super) fn on_connected(&mut self, state: &mut State, connection: ConnectionId) -> Next {
        if self.connection.is_some() || self.phase != FollowerPhase::Connecting {
            state.effects.push(Effect::Disconnect(connection));
            return Next::Stay;
        }
        self.connection = Some(connection);
        self.phase = FollowerPhase::Discovery;
        self.retry_at = None;
        self.heard_at = state.now;
        let info = state.learner_info();
        let packet = if self.observing && !state.mutated(Mutation::ObserverVotesCounted) {
            Packet::ObserverInfo(info)
        } else {
            Packet::FollowerInfo(info)
        };
        self.send(state, packet);
        Next::Stay
    }

    /// LEADERINFO: promise the epoch, on disk first.
    pub(super) fn on_leader_info(&mut self, state: &mut State, epoch: Epoch, counts: bool) -> Next {
        if self.phase != FollowerPhase::Discovery {
            return Next::Look("LEADERINFO out of place");
        }
        self.epoch = epoch;
        self.counts = counts;
        self.deadline = state.now + state.settings.init_limit_ms();
        if epoch > state.promised {
            let ticket = state.promise(epoch, self.leader);
            self.phase = FollowerPhase::Promising(ticket);
            if state.mutated(Mutation::PromiseBeforeFsync) {
                self.phase = FollowerPhase::AwaitingSync;
                let (current_epoch, last_zxid) = (state.current_epoch, state.window.last());
                #[cfg(any(test, feature = "mutations"))]
                self.send(state, Packet::AckEpoch(AckEpoch::forged(current_epoch, last_zxid)));
                let _ = (current_epoch, last_zxid);
            }
            return Next::Stay;
        }
        // A promise that counts for nothing binds nobody: an observer may follow any epoch not before
        // its own. Whoever counts here may have been counted by another leader as well.
        let may_follow = !self.counts && epoch >= state.current_epoch
            || state.mutated(Mutation::AcceptLowerEpoch);
        if epoch < state.promised && !may_follow {
            return Next::Look("the leader's epoch is below the one promised");
        }
        self.answer_leader_info(state)
    }

    /// Answers LEADERINFO. An epoch promised to another leader is not promised again: two leaders
    /// may have chosen the same number, and only one of them may count us.
    pub(super) fn answer_leader_info(&mut self, state: &mut State) -> Next {
        let (current_epoch, last_zxid) = (state.current_epoch, state.window.last());
        // Promised on an earlier connection and still being written: a history of that epoch must not
        // be on disk before it.
        if state.disk.facts().accepted_epoch() < state.promised
            && !state.mutated(Mutation::PromiseBeforeFsync)
        {
            self.phase = FollowerPhase::Promising(state.disk.last());
            return Next::Stay;
        }
        let ours = state.promised == self.epoch && state.promised_to == Some(self.leader);
        if ours && self.counts {
            let facts = state.disk.facts();
            match AckEpoch::promise(self.epoch, current_epoch, last_zxid, facts) {
                Some(ack) => self.acknowledge_epoch(state, ack),
                // Only with a promise that was told too early.
                None => self.phase = FollowerPhase::Promising(state.disk.last()),
            }
            return Next::Stay;
        }
        #[cfg(any(test, feature = "mutations"))]
        if state.mutated(Mutation::AcceptLowerEpoch) || state.mutated(Mutation::ReuseEpoch) {
            self.acknowledge_epoch(state, AckEpoch::forged(current_epoch, last_zxid));
            return Next::Stay;
        }
        self.acknowledge_epoch(state, AckEpoch::without_promise(current_epoch, last_zxid));
        Next::Stay
    }

    fn acknowledge_epoch(&mut self, state: &mut State, ack: AckEpoch) {
        self.phase = FollowerPhase::AwaitingSync;
        self.send(state, Packet::AckEpoch(ack));
    }
}
