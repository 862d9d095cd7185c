//! Fast leader election: replicas tell each other their votes until a quorum agrees on the best one.
//! Its result is a hint about who has the longest history; safety comes from discovery.
//!
//! Zab paper (DSN 2011), section 4: "the leader oracle"; ZooKeeper's `FastLeaderElection`. Different
//! here: the wait for a better vote ends as soon as every reachable voter has spoken, votes are told
//! again soon and with jitter, and an empty replica's vote does not count.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::{SmallVec, smallvec};
use znodefs::{Epoch, Zxid};

use super::effect::Effect;
use super::mutation::Mutation;
use super::packet::{Notification, PeerState, Standing, Vote};
use super::quorum::{Ensemble, ServerId};
use super::state::State;

/// What a voter said last.
#[derive(Clone, Debug)]
struct Heard {
    state: PeerState,
    vote: Vote,
    standing: Standing,
}

/// The votes and the round they belong to. It lives through all roles: a settled replica answers
/// whoever looks.
#[derive(Debug)]
pub(super) struct Election {
    round: u64,
    vote: Vote,
    state: PeerState,
    /// Votes of this round.
    received: BTreeMap<ServerId, Heard>,
    /// What settled voters said, of whatever round (`outofelection`).
    settled: BTreeMap<ServerId, Heard>,
    reachable: BTreeSet<ServerId>,
    decide_at: Option<u64>,
    resend_at: u64,
    resend_ms: u64,
    /// Who was answered with the present vote, and when last.
    answered: BTreeMap<ServerId, u64>,
}

impl Election {
    pub(super) fn new() -> Election {
        Election {
            round: 0,
            vote: Vote { epoch: Epoch(0), zxid: Zxid::ZERO, leader: ServerId(0) },
            state: PeerState::Looking,
            received: BTreeMap::new(),
            settled: BTreeMap::new(),
            reachable: BTreeSet::new(),
            decide_at: None,
            resend_at: 0,
            resend_ms: 0,
            answered: BTreeMap::new(),
        }
    }

    /// When [`Election::tick`] is due, while looking.
    pub(super) fn deadline(&self) -> u64 {
        self.decide_at.unwrap_or(u64::MAX).min(self.resend_at)
    }

    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// Enters LOOKING: a new round, a vote for oneself, told to everyone.
    pub(super) fn begin(&mut self, state: &mut State) -> Option<ServerId> {
        self.round += 1;
        self.state = PeerState::Looking;
        self.settled.clear();
        self.resend_ms = state.settings.resend_min_ms;
        self.start_round(state, state.own_vote());
        self.check(state)
    }

    /// A leader that shuts down has named its successor: as if a round had elected it.
    pub(super) fn appoint(&mut self, state: &State, leader: ServerId) {
        self.round += 1;
        self.settled.clear();
        let own = state.own_vote();
        self.vote = Vote { leader, ..own };
    }

    /// Leaves LOOKING, or takes a role without an election: others may ask from now on.
    pub(super) fn settle(&mut self, state: &mut State, leader: ServerId) {
        self.state = match (leader == state.id, state.is_voter()) {
            (true, _) => PeerState::Leading,
            (false, true) => PeerState::Following,
            (false, false) => PeerState::Observing,
        };
        self.vote.leader = leader;
        self.decide_at = None;
        // Whoever still looks need not wait until it asks again.
        let everyone = self.everyone(state);
        self.tell(state, everyone);
    }

    /// The leader's epoch is agreed: every member now tells the same vote (ZOOKEEPER-1732, -1818).
    pub(super) fn refresh_epoch(&mut self, epoch: Epoch) {
        self.vote.epoch = epoch;
    }

    /// Takes note of a link while this replica takes part in nothing.
    pub(super) fn note_link(&mut self, peer: ServerId, works: bool) {
        match works {
            true => self.reachable.insert(peer),
            false => self.reachable.remove(&peer),
        };
    }

    pub(super) fn link_up(&mut self, state: &mut State, peer: ServerId) {
        self.reachable.insert(peer);
        if self.state == PeerState::Looking {
            self.tell(state, smallvec![peer]);
        }
    }

    pub(super) fn link_down(&mut self, state: &mut State, peer: ServerId) -> Option<ServerId> {
        self.reachable.remove(&peer);
        if self.state == PeerState::Looking { self.check(state) } else { None }
    }

    /// Tells the vote again, or decides when the wait for a better one is over.
    pub(super) fn tick(&mut self, state: &mut State) -> Option<ServerId> {
        if self.decide_at.is_some_and(|at| at <= state.now) {
            return Some(self.vote.leader);
        }
        if self.resend_at <= state.now {
            let everyone = self.everyone(state);
            self.tell(state, everyone);
            self.resend_ms = (self.resend_ms * 2).min(state.settings.resend_max_ms);
            self.schedule_resend(state);
        }
        None
    }

    /// Takes in a notification; the result is the leader that was decided on.
    pub(super) fn on_notification(
        &mut self,
        state: &mut State,
        from: ServerId,
        notification: &Notification,
    ) -> Option<ServerId> {
        self.reachable.insert(from);
        if self.state != PeerState::Looking {
            if notification.state == PeerState::Looking {
                self.tell(state, smallvec![from]);
            }
            return None;
        }
        let counts = state.quorum.is_voter(from) || state.mutated(Mutation::ObserverVotesCounted);
        match notification.state {
            PeerState::Looking if counts => self.on_looking(state, from, notification),
            PeerState::Looking => self.on_looking_without_vote(state, from, notification),
            PeerState::Following if counts => self.on_settled(state, from, notification),
            // Whoever is no voter here may be one by a reconfiguration that is on its way. That it
            // leads decides nothing where no quorum follows it.
            PeerState::Leading => self.on_settled(state, from, notification),
            _ => None,
        }
    }

    fn on_looking(
        &mut self,
        state: &mut State,
        from: ServerId,
        notification: &Notification,
    ) -> Option<ServerId> {
        if notification.round < self.round {
            self.answer(state, from);
            return None;
        }
        if !self.may_be_voted_for(state, notification.vote) {
            return None;
        }
        if notification.round > self.round {
            self.round = notification.round;
            // Without a vote: the best that is heard, for those who count it all the same.
            let own = if state.is_voter() { state.own_vote() } else { notification.vote };
            let better = rank(state, notification.vote) > rank(state, own);
            self.start_round(state, if better { notification.vote } else { own });
        } else if rank(state, notification.vote) > rank(state, self.vote)
            || !self.may_be_voted_for(state, self.vote)
        {
            self.vote = notification.vote;
            self.answered.clear();
            self.record_own(state);
            let everyone = self.everyone(state);
            self.tell(state, everyone);
        } else if rank(state, notification.vote) < rank(state, self.vote) {
            // It may have missed ours.
            self.answer(state, from);
        }
        self.received.insert(from, Heard::of(notification));
        self.settled.remove(&from);
        self.check(state)
    }

    /// Whether somebody may be elected: a voter, or one whose history is longer than ours and may say
    /// that it is. A quorum may need our vote for it.
    fn may_be_voted_for(&self, state: &State, vote: Vote) -> bool {
        let own = state.own_vote();
        state.quorum.is_voter(vote.leader) || (vote.epoch, vote.zxid) > (own.epoch, own.zxid)
    }

    /// Tells one that looks as well; the same not again at once. Two that differ in who votes may each
    /// have an answer to the other's, and would go on as fast as the network lets them.
    fn answer(&mut self, state: &mut State, to: ServerId) {
        let before = self.answered.get(&to).copied();
        if before.is_none_or(|at| at + self.resend_ms / 2 <= state.now) {
            self.answered.insert(to, state.now);
            self.tell(state, smallvec![to]);
        }
    }

    /// Observers get an immediate answer; their votes are never counted.
    fn on_looking_without_vote(
        &mut self,
        state: &mut State,
        from: ServerId,
        notification: &Notification,
    ) -> Option<ServerId> {
        let is_later = state.is_voter() && notification.round > self.round;
        if is_later {
            // It counts our vote, but not one of an earlier round: it would answer our answer.
            self.round = notification.round;
            self.start_round(state, state.own_vote());
        }
        self.answer(state, from);
        if is_later { self.check(state) } else { None }
    }

    fn on_settled(
        &mut self,
        state: &mut State,
        from: ServerId,
        notification: &Notification,
    ) -> Option<ServerId> {
        let leader = notification.vote.leader;
        self.settled.insert(from, Heard::of(notification));
        if notification.round == self.round {
            self.received.insert(from, Heard::of(notification));
            // A quorum may have settled on a vote that never reached us, even on ourselves.
            let chosen = state.quorum.has_quorum(|id| names(&self.received, id, leader));
            if chosen && (leader == state.id || self.leads(leader)) && self.may_lead(state, leader)
            {
                return Some(leader);
            }
            if let Some(leader) = self.check(state) {
                return Some(leader);
            }
        }
        // Zxid and round are not compared: members of one ensemble may differ there. Those who
        // settled may know nothing of a reconfiguration that this replica has in its log, or know
        // that it is committed.
        let followed = state.quorum.has_quorum_of_any(|id| names(&self.settled, id, leader));
        if followed && leader != state.id && self.leads(leader) {
            self.round = notification.round;
            self.vote = notification.vote;
            return Some(leader);
        }
        None
    }

    fn leads(&self, leader: ServerId) -> bool {
        self.settled.get(&leader).is_some_and(|heard| heard.state == PeerState::Leading)
    }

    fn may_lead(&self, state: &State, leader: ServerId) -> bool {
        leader != state.id || state.is_voter()
    }

    /// Decides at once when a quorum agrees and nobody is left who could know better; otherwise
    /// the wait begins, or ends because nobody agrees any more.
    fn check(&mut self, state: &State) -> Option<ServerId> {
        let agrees = |heard: &Heard| heard.vote == self.vote;
        let genesis = self.genesis(state);
        let agreed = state.is_voter()
            && state.quorum.has_quorum(|id| {
                self.received
                    .get(&id)
                    .is_some_and(|heard| agrees(heard) && (heard.standing.initialized || genesis))
            });
        if !agreed {
            self.decide_at = None;
            return None;
        }
        let voters = state.quorum.voters();
        let spoken = |id: &ServerId| {
            self.received.contains_key(id)
                || self.settled.contains_key(id)
                || !self.reachable.contains(id)
        };
        if voters.iter().all(spoken) {
            return Some(self.vote.leader);
        }
        let at = state.now + state.settings.finalize_wait_ms;
        self.decide_at = Some(self.decide_at.map_or(at, |earlier| earlier.min(at)));
        None
    }

    /// A new ensemble forms only when all its configured voters are there and none has any data.
    fn genesis(&self, state: &State) -> bool {
        state.may_form_ensemble()
            && state
                .quorum
                .voters()
                .iter()
                .all(|id| self.received.get(id).is_some_and(|heard| !heard.standing.has_data))
    }

    fn start_round(&mut self, state: &mut State, vote: Vote) {
        self.received.clear();
        self.answered.clear();
        self.vote = vote;
        self.decide_at = None;
        self.record_own(state);
        let everyone = self.everyone(state);
        self.tell(state, everyone);
        self.schedule_resend(state);
    }

    fn record_own(&mut self, state: &State) {
        if state.is_voter() {
            let standing = state.standing();
            let heard = Heard { state: PeerState::Looking, vote: self.vote, standing };
            self.received.insert(state.id, heard);
        }
    }

    fn schedule_resend(&mut self, state: &mut State) {
        let jitter = state.random_below(self.resend_ms / 2 + 1);
        self.resend_at = state.now + self.resend_ms - self.resend_ms / 4 + jitter;
    }

    /// Looking, everyone who votes is told and asked; settled, observers are told too.
    fn everyone(&self, state: &State) -> SmallVec<[ServerId; 8]> {
        let mut everyone = state.quorum.voters();
        if self.state != PeerState::Looking {
            everyone.extend(state.quorum.observers());
        }
        everyone.retain(|id| *id != state.id);
        everyone
    }

    fn tell(&self, state: &mut State, to: SmallVec<[ServerId; 8]>) {
        if to.is_empty() {
            return;
        }
        // A reconfiguration may have given or taken the vote since.
        let peer_state = match (self.state, state.is_voter()) {
            (PeerState::Following | PeerState::Observing, true) => PeerState::Following,
            (PeerState::Following | PeerState::Observing, false) => PeerState::Observing,
            (other, _) => other,
        };
        let committed = state.quorum.committed();
        // What stands in files is nobody's to learn.
        let configuration = match committed.version {
            Zxid::ZERO => Ensemble::default(),
            _ => committed.clone(),
        };
        let notification = Notification {
            state: peer_state,
            round: self.round,
            vote: self.vote,
            standing: state.standing(),
            configuration,
        };
        state.effects.push(Effect::Notify { to, notification });
    }
}

impl Heard {
    fn of(notification: &Notification) -> Heard {
        Heard {
            state: notification.state,
            vote: notification.vote,
            standing: notification.standing,
        }
    }
}

/// Votes in their order. Of equal histories that of a voter of the configuration in force comes first:
/// whoever has not heard of a later one knows no other.
fn rank(state: &State, vote: Vote) -> (Epoch, Zxid, bool, ServerId) {
    let is_known = state.quorum.committed().is_voter(vote.leader);
    (vote.epoch, vote.zxid, is_known, vote.leader)
}

fn names(votes: &BTreeMap<ServerId, Heard>, id: ServerId, leader: ServerId) -> bool {
    votes.get(&id).is_some_and(|heard| heard.vote.leader == leader)
}
