//! Broadcast: the leader proposes, a quorum logs and acknowledges, the leader commits, everyone
//! applies.
//!
//! Zab paper (DSN 2011), section 4, phase 3: the leader proposes in increasing order of zxid; a
//! follower "accepts proposals in the order they are received" and acknowledges once they are
//! stable; on acknowledgements from a quorum the leader commits; a follower delivers a transaction
//! when all before it are delivered. Any number of proposals is in flight. Acknowledgements and
//! commits are cumulative: one stands for every proposal up to its zxid.

use std::sync::Arc;

use znodefs::Zxid;

use super::event::ConnectionId;
use super::follower::{Follower, FollowerPhase};
use super::leader::{HandlerPhase, Leader, LeaderPhase, Next};
use super::mutation::Mutation;
use super::packet::{Ack, Entry, Packet};
use super::quorum::QuorumVerifier;
use super::state::State;

impl Leader {
    /// The zxid that the next transaction must have; `None` while none may be proposed.
    pub(super) fn next_zxid(&self, state: &State) -> Option<Zxid> {
        if !self.is_established() || self.retire_at.is_some() {
            return None;
        }
        let last = state.window.last();
        if last.epoch() == self.epoch { last.next() } else { Some(Zxid::new(self.epoch, 1)) }
    }

    /// Proposes transactions: to this leader's log and to every follower that is registered.
    pub(super) fn propose(&mut self, state: &mut State, entries: Vec<Entry>) -> Next {
        let Some(first) = entries.first() else { return Next::Stay };
        if self.next_zxid(state) != Some(first.zxid) {
            // Made by the request processor of a leadership that is over.
            return Next::Stay;
        }
        let (before, last) =
            (state.window.last(), entries.last().map_or(first.zxid, |entry| entry.zxid));
        let consecutive = entries.windows(2).all(|pair| pair[0].zxid.next() == Some(pair[1].zxid));
        assert!(consecutive, "request processor made transactions with a gap after {}", first.zxid);
        let entries: Arc<[Entry]> = entries.into();
        state.append(entries.clone());
        if state.quorum.is_joint() {
            self.give_votes(state, before);
        }
        for handler in self.learners.values_mut() {
            if handler.phase.is_forwarding() && !handler.observer {
                handler.unacked.get_or_insert((last, state.now));
            }
        }
        let unsynced = !state.mutated(Mutation::ForwardAfterNewLeaderAck);
        let to = self.connections(|handler| {
            !handler.observer
                && handler.phase.is_forwarding()
                && (unsynced || handler.phase != HandlerPhase::Synchronizing)
        });
        state.send_all(to, Packet::Proposal { entries });
        if last.next().is_none() {
            // The epoch's counter is used up (ZOOKEEPER-1277); what was proposed is kept by the
            // next leader.
            return Next::Look("the epoch has no zxid left");
        }
        match state.mutated(Mutation::LeaderCommitsOwnUnsynced) {
            true => self.advance_commit(state),
            false => Next::Stay,
        }
    }

    /// ACK, of NEWLEADER or of proposals.
    pub(super) fn on_ack(&mut self, state: &mut State, connection: ConnectionId, ack: Ack) -> Next {
        if ack.zxid().counter() == 0 {
            return self.on_new_leader_ack(state, connection, ack.zxid().epoch());
        }
        let last = state.window.last();
        let Some(handler) = self.learners.get_mut(&connection) else { return Next::Stay };
        if !handler.phase.is_synced() || ack.zxid() > last {
            return self.drop_learner(state, connection);
        }
        handler.acked = handler.acked.max(ack.zxid());
        if handler.unacked.is_some_and(|(oldest, _)| oldest <= handler.acked) {
            // From now on the end of the log is what must be acknowledged in time.
            handler.unacked = (handler.acked < last).then_some((last, state.now));
        }
        self.advance_commit(state)
    }

    /// Commits what a quorum has on disk, this leader's own disk counted like every other. Raft's
    /// rule about entries of earlier terms is not needed: nothing of an epoch is committed before a
    /// quorum has acknowledged its NEWLEADER, and that covers everything earlier.
    pub(super) fn advance_commit(&mut self, state: &mut State) -> Next {
        if self.phase != LeaderPhase::Broadcast {
            return Next::Stay;
        }
        // What commits a reconfiguration changes who commits what follows it.
        while self.commit_what_is_reached(state) {}
        state.deliver();
        self.plan_handover(state);
        self.try_hand_over(state)
    }

    fn commit_what_is_reached(&mut self, state: &mut State) -> bool {
        let reached = self.reached_by_quorum(state);
        let before = state.committed;
        let more = reached > before;
        if more {
            state.commit(reached);
            let followers =
                self.connections(|handler| !handler.observer && handler.phase.is_forwarding());
            state.send_all(followers, Packet::Commit { zxid: reached });
            let observers =
                self.connections(|handler| handler.observer && handler.phase.is_forwarding());
            if !observers.is_empty() {
                let entries = state.window.between(before, reached).cloned().collect();
                state.send_all(observers, Packet::Inform { entries });
            }
            self.answer_syncs(state);
        }
        more
    }

    fn reached_by_quorum(&self, state: &State) -> Zxid {
        let own = match state.mutated(Mutation::LeaderCommitsOwnUnsynced) {
            true => state.window.last(),
            false => state.disk.facts().zxid(),
        };
        if state.mutated(Mutation::CommitOnMinority)
            || state.mutated(Mutation::ObserverVotesCounted)
        {
            return self.reached_by_too_few(state, own);
        }
        let quorum = if state.mutated(Mutation::CommitReconfigWithOldQuorumOnly) {
            &QuorumVerifier::Majority(state.quorum.committed().clone())
        } else if state.mutated(Mutation::CommitReconfigWithNewQuorumOnly) {
            &QuorumVerifier::Majority(state.quorum.last_seen().clone())
        } else {
            &state.quorum
        };
        quorum.reached_by_quorum(|id| match id == state.id {
            true => own,
            false => self
                .handler(id)
                .filter(|handler| handler.phase.is_synced())
                .map_or(Zxid::ZERO, |handler| handler.acked),
        })
    }

    /// What a wrong leader would take for committed.
    fn reached_by_too_few(&self, state: &State, own: Zxid) -> Zxid {
        let any = state.mutated(Mutation::ObserverVotesCounted);
        let counts = |id| any || state.quorum.is_voter(id);
        let mut reached: Vec<Zxid> = self
            .learners
            .values()
            .filter(|handler| handler.phase.is_synced() && counts(handler.sid))
            .map(|handler| handler.acked)
            .chain([own])
            .collect();
        reached.sort_unstable_by(|a, b| b.cmp(a));
        let majority = state.quorum.committed().voters().len() / 2 + 1;
        let enough = if any { majority } else { (majority - 1).max(1) };
        reached.get(enough - 1).copied().unwrap_or_default()
    }
}

impl Follower {
    /// PROPOSAL: history before NEWLEADER, live ones after it.
    pub(super) fn on_proposal(&mut self, state: &mut State, entries: Arc<[Entry]>) -> Next {
        let acknowledges = match self.phase {
            FollowerPhase::Synchronization => false,
            FollowerPhase::AdoptingEpoch(_) | FollowerPhase::Synced | FollowerPhase::Broadcast => {
                true
            }
            _ => return Next::Look("PROPOSAL out of place"),
        };
        if !self.append(state, entries) {
            return Next::Look("PROPOSAL leaves a gap");
        }
        if acknowledges && state.mutated(Mutation::AckBeforeFsync) {
            #[cfg(any(test, feature = "mutations"))]
            if self.phase == FollowerPhase::Broadcast {
                self.send(state, Packet::Ack(Ack::forged(state.window.last())));
            }
        }
        Next::Stay
    }

    /// Appends what is new; a proposal that was sent twice is harmless (TLA+ issue 2). False where
    /// the entries do not continue the log.
    fn append(&mut self, state: &mut State, entries: Arc<[Entry]>) -> bool {
        let last = state.window.last();
        let known = entries.partition_point(|entry| entry.zxid <= last);
        let entries: Arc<[Entry]> =
            if known == 0 { entries } else { entries[known..].to_vec().into() };
        let Some(first) = entries.first() else { return true };
        let follows = |before: Zxid, zxid: Zxid| match before.epoch() == zxid.epoch() {
            true => before.next() == Some(zxid),
            false => before.epoch() < zxid.epoch() && zxid.counter() == 1,
        };
        let continuous = state.window.continues_with(first.zxid)
            && entries.windows(2).all(|pair| follows(pair[0].zxid, pair[1].zxid));
        if !continuous && !state.mutated(Mutation::ForwardAfterNewLeaderAck) {
            return false;
        }
        state.append(entries);
        self.take_vote(state);
        true
    }

    /// Acknowledges what has reached the disk since the last acknowledgement.
    pub(super) fn acknowledge_proposals(&mut self, state: &mut State) -> Next {
        let durable = state.disk.facts().zxid();
        let votes = !self.observing || state.mutated(Mutation::ObserverVotesCounted);
        if durable > self.acked && votes {
            self.acked = durable;
            let ack = Ack::of_proposals(state.disk.facts());
            self.send(state, Packet::Ack(ack));
        }
        self.deliver(state);
        Next::Stay
    }

    /// COMMIT: everything up to here. Before UPTODATE it is only noted.
    pub(super) fn on_commit(&mut self, state: &mut State, zxid: Zxid) -> Next {
        let missing =
            zxid > state.window.last() && !state.mutated(Mutation::ForwardAfterNewLeaderAck);
        if missing || self.connection.is_none() {
            return Next::Look("COMMIT of what was not proposed");
        }
        if state.mutated(Mutation::StaleUpToDate) && !self.is_active() {
            return Next::Stay;
        }
        self.committed = self.committed.max(zxid);
        self.deliver(state);
        Next::Stay
    }

    /// INFORM: committed transactions, for observers. They are logged before they are applied, so
    /// that what was seen through an observer survives its restart.
    pub(super) fn on_inform(&mut self, state: &mut State, entries: Arc<[Entry]>) -> Next {
        if !matches!(
            self.phase,
            FollowerPhase::AdoptingEpoch(_) | FollowerPhase::Synced | FollowerPhase::Broadcast
        ) {
            return Next::Look("INFORM out of place");
        }
        let Some(last) = entries.last().map(|entry| entry.zxid) else { return Next::Stay };
        if !self.append(state, entries) {
            return Next::Look("INFORM leaves a gap");
        }
        // The log may hold more: proposals from when this replica had a vote.
        self.committed = self.committed.max(last);
        self.deliver(state);
        Next::Stay
    }

    /// Applies what is committed and logged; serves once that is what UPTODATE promised.
    pub(super) fn deliver(&mut self, state: &mut State) {
        if !self.is_active() {
            return;
        }
        state.commit(self.committed);
        state.deliver();
        if !state.serving && state.delivered >= self.serve_from {
            state.start_serving(self.leader, self.epoch);
        }
    }
}
