//! Who belongs to the ensemble and which sets of voters decide: a majority of the voters, or, while
//! the ensemble changes, a majority of the old and a majority of the new voters. No messages here.
//!
//! Zab paper (DSN 2011), section 2: "a quorum is a subset of processes such that any two quorums have
//! a non-empty intersection".

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use znodefs::Zxid;

/// The number of a replica in its ensemble: `myid`, the N of `server.N`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ServerId(pub u32);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One configuration of the ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ensemble {
    /// The zxid of the reconfiguration that made it; 0 for one that came from a file.
    pub version: Zxid,
    voters: Vec<ServerId>,
    observers: Vec<ServerId>,
    /// What the drivers know of the members, their addresses above all; opaque here.
    description: Arc<str>,
}

impl Ensemble {
    /// A configuration from its members; who is named as both is a voter.
    pub fn new(
        version: Zxid,
        voters: impl IntoIterator<Item = ServerId>,
        observers: impl IntoIterator<Item = ServerId>,
    ) -> Ensemble {
        let mut voters: Vec<ServerId> = voters.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        let mut observers: Vec<ServerId> =
            observers.into_iter().filter(|id| voters.binary_search(id).is_err()).collect();
        observers.sort_unstable();
        observers.dedup();
        Ensemble { version, voters, observers, description: Arc::default() }
    }

    /// The same with what the drivers know of the members.
    #[must_use]
    pub fn described(mut self, description: impl Into<Arc<str>>) -> Ensemble {
        self.description = description.into();
        self
    }

    /// What the drivers know of the members.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The members whose votes and acknowledgements count, ascending.
    pub fn voters(&self) -> &[ServerId] {
        &self.voters
    }

    /// The members that only learn, ascending.
    pub fn observers(&self) -> &[ServerId] {
        &self.observers
    }

    /// Whether this replica belongs to it, with a vote or without.
    pub fn contains(&self, id: ServerId) -> bool {
        self.is_voter(id) || self.observers.binary_search(&id).is_ok()
    }

    /// Whether this member votes.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    fn has_majority(&self, mut holds: impl FnMut(ServerId) -> bool) -> bool {
        self.voters.iter().filter(|id| holds(**id)).count() >= self.majority()
    }

    /// The greatest value that a majority of the voters has reached.
    fn reached_by_majority<T: Ord + Copy + Default>(
        &self,
        mut reached: impl FnMut(ServerId) -> T,
    ) -> T {
        let mut values: SmallVec<[T; 8]> = self.voters.iter().map(|id| reached(*id)).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        values.get(self.majority() - 1).copied().unwrap_or_default()
    }
}

/// Which sets of replicas are a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuorumVerifier {
    /// A majority of one configuration's voters.
    Majority(Ensemble),
    /// A reconfiguration is on its way: a majority of both.
    Joint {
        /// The last committed configuration.
        old: Ensemble,
        /// The proposed one.
        new: Ensemble,
    },
}

impl QuorumVerifier {
    /// What decides when the log holds one more reconfiguration. One that is proposed on top of
    /// another tells that the other is committed: no leader proposes a second before. One that is
    /// older than what was committed is history that this replica comes to have late.
    #[must_use]
    pub(super) fn proposed(self, new: Ensemble) -> QuorumVerifier {
        if new.version <= self.committed().version {
            return self;
        }
        match self {
            QuorumVerifier::Majority(old) | QuorumVerifier::Joint { new: old, .. } => {
                QuorumVerifier::Joint { old, new }
            }
        }
    }

    /// What decides once everything up to `zxid` is committed.
    #[must_use]
    pub(super) fn committed_through(self, zxid: Zxid) -> QuorumVerifier {
        match self {
            QuorumVerifier::Joint { new, .. } if new.version <= zxid => {
                QuorumVerifier::Majority(new)
            }
            other => other,
        }
    }

    /// What decides once nothing above `zxid` is in the log.
    #[must_use]
    pub(super) fn truncated_to(self, zxid: Zxid) -> QuorumVerifier {
        match self {
            QuorumVerifier::Joint { old, new } if new.version > zxid => {
                QuorumVerifier::Majority(old)
            }
            other => other,
        }
    }

    /// What decides once `committed` is known to have been committed somewhere.
    #[must_use]
    pub(super) fn learned(self, committed: Ensemble) -> QuorumVerifier {
        if committed.version <= self.committed().version {
            return self;
        }
        match self {
            QuorumVerifier::Joint { new, .. } if new.version > committed.version => {
                QuorumVerifier::Joint { old: committed, new }
            }
            _ => QuorumVerifier::Majority(committed),
        }
    }

    /// Whether a reconfiguration is proposed and not known to be committed.
    pub fn is_joint(&self) -> bool {
        matches!(self, QuorumVerifier::Joint { .. })
    }

    /// The configuration that is in force: the committed one.
    pub fn committed(&self) -> &Ensemble {
        match self {
            QuorumVerifier::Majority(ensemble) => ensemble,
            QuorumVerifier::Joint { old, .. } => old,
        }
    }

    /// The newest configuration seen, committed or not.
    pub fn last_seen(&self) -> &Ensemble {
        match self {
            QuorumVerifier::Majority(ensemble) => ensemble,
            QuorumVerifier::Joint { new, .. } => new,
        }
    }

    /// Whether this replica's votes count in any configuration that decides.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.committed().is_voter(id) || self.last_seen().is_voter(id)
    }

    /// Every replica whose vote counts, ascending.
    pub fn voters(&self) -> SmallVec<[ServerId; 8]> {
        self.members(Ensemble::voters)
    }

    /// Every member that is no voter, ascending.
    pub fn observers(&self) -> SmallVec<[ServerId; 8]> {
        let mut observers = self.members(Ensemble::observers);
        observers.retain(|id| !self.is_voter(*id));
        observers
    }

    fn members(&self, of: fn(&Ensemble) -> &[ServerId]) -> SmallVec<[ServerId; 8]> {
        let mut members: SmallVec<[ServerId; 8]> = SmallVec::from_slice(of(self.committed()));
        if let QuorumVerifier::Joint { new, .. } = self {
            members.extend_from_slice(of(new));
            members.sort_unstable();
            members.dedup();
        }
        members
    }

    /// Whether the replicas for which `holds` is true contain a quorum.
    pub fn has_quorum(&self, mut holds: impl FnMut(ServerId) -> bool) -> bool {
        match self {
            QuorumVerifier::Majority(ensemble) => ensemble.has_majority(holds),
            QuorumVerifier::Joint { old, new } => {
                old.has_majority(&mut holds) && new.has_majority(holds)
            }
        }
    }

    /// Whether they contain a majority of one of the configurations: enough to follow somebody, whose
    /// right to lead discovery proves, and not enough to decide anything.
    pub fn has_quorum_of_any(&self, mut holds: impl FnMut(ServerId) -> bool) -> bool {
        self.committed().has_majority(&mut holds) || self.last_seen().has_majority(holds)
    }

    /// The greatest value (a zxid, a number of a ping) that a whole quorum has reached, where
    /// `reached` says how far each voter is.
    pub fn reached_by_quorum<T: Ord + Copy + Default>(
        &self,
        mut reached: impl FnMut(ServerId) -> T,
    ) -> T {
        match self {
            QuorumVerifier::Majority(ensemble) => ensemble.reached_by_majority(reached),
            QuorumVerifier::Joint { old, new } => {
                old.reached_by_majority(&mut reached).min(new.reached_by_majority(reached))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use znodefs::Epoch;

    use super::*;

    fn ids(numbers: &[u32]) -> Vec<ServerId> {
        numbers.iter().map(|n| ServerId(*n)).collect()
    }

    fn ensemble(voters: &[u32]) -> Ensemble {
        Ensemble::new(Zxid::ZERO, ids(voters), [])
    }

    #[test]
    fn majority_of_voters_is_a_quorum() {
        let of = |voters: &[u32], present: &[u32]| {
            let present = ids(present);
            QuorumVerifier::Majority(ensemble(voters)).has_quorum(|id| present.contains(&id))
        };
        assert!(of(&[1], &[1]));
        assert!(!of(&[1, 2], &[1]));
        assert!(of(&[1, 2, 3], &[1, 3]));
        assert!(!of(&[1, 2, 3, 4], &[1, 2]));
        assert!(of(&[1, 2, 3, 4, 5], &[1, 2, 5]));
        assert!(!of(&[1, 2, 3], &[1, 7, 8]), "strangers do not count");
    }

    #[test]
    fn reached_by_quorum_is_the_majority_smallest() {
        let verifier = QuorumVerifier::Majority(ensemble(&[1, 2, 3, 4, 5]));
        let reached = |id: ServerId| [0, 9, 7, 5, 3, 1][id.0 as usize];
        assert_eq!(verifier.reached_by_quorum(reached), 5);
    }

    #[test]
    fn joint_quorum_needs_both_configurations() {
        let verifier =
            QuorumVerifier::Joint { old: ensemble(&[1, 2, 3]), new: ensemble(&[3, 4, 5]) };
        let has = |present: &[u32]| {
            let present = ids(present);
            verifier.has_quorum(|id| present.contains(&id))
        };
        assert!(!has(&[1, 2]));
        assert!(!has(&[3, 4, 5]));
        assert!(has(&[2, 3, 4]));
        assert!(verifier.has_quorum_of_any(|id| id.0 <= 2));
        assert!(verifier.has_quorum_of_any(|id| id.0 >= 4));
        assert!(!verifier.has_quorum_of_any(|id| id.0 == 1 || id.0 == 4));
        assert_eq!(verifier.reached_by_quorum(|id| id.0), 2, "old: 2, new: 4");
        assert_eq!(verifier.voters().as_slice(), ids(&[1, 2, 3, 4, 5]));
    }

    #[test]
    fn reconfigurations_follow_each_other_and_are_taken_back() {
        let made = |counter: u32, voters: &[u32]| {
            Ensemble::new(Zxid::new(Epoch(1), counter), ids(voters), [])
        };
        let (first, second) = (made(1, &[1, 2]), made(5, &[1, 2, 3]));
        let joint = QuorumVerifier::Majority(ensemble(&[1])).proposed(first.clone());
        assert_eq!((joint.committed().voters(), joint.last_seen()), (&ids(&[1])[..], &first));
        assert_eq!(joint.clone().truncated_to(Zxid::ZERO).last_seen().voters(), ids(&[1]));
        assert!(joint.clone().truncated_to(first.version).is_joint());
        assert!(joint.clone().committed_through(Zxid::ZERO).is_joint());
        let alone = joint.clone().committed_through(first.version);
        assert_eq!(alone, QuorumVerifier::Majority(first.clone()));
        // Nobody proposes a second one before the first is committed.
        let next = joint.clone().proposed(second.clone());
        assert_eq!(next, QuorumVerifier::Joint { old: first.clone(), new: second.clone() });
        // Who has learned of a later one comes to have the earlier ones in its log all the same.
        let late = QuorumVerifier::Majority(second.clone());
        assert_eq!(late.clone().proposed(first.clone()), late);
        // What another replica says is committed supersedes what is older.
        assert_eq!(joint.learned(second.clone()), QuorumVerifier::Majority(second.clone()));
        assert_eq!(next.learned(first.clone()).committed(), &first);
        assert_eq!(alone.clone().learned(ensemble(&[9])), alone);
    }

    #[test]
    fn member_named_twice_is_a_voter() {
        let ensemble = Ensemble::new(Zxid::ZERO, ids(&[2, 1, 2]), ids(&[2, 3]));
        assert_eq!(ensemble.voters(), ids(&[1, 2]));
        assert_eq!(ensemble.observers(), ids(&[3]));
    }
}
