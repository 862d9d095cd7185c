//! The messages between replicas, as records for [`crate::codec`]. What they mean is in the phases'
//! modules; how they travel (framing, checksums, versions) is the driver's.
//!
//! Names follow ZooKeeper's `Leader.java`. A message that vouches for something on disk can only be
//! made from [`DurableFacts`], which only the completion of a disk effect changes: an
//! acknowledgement cannot leave early.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use znodefs::{Epoch, SessionId, Zxid};

use super::disk_queue::DurableFacts;
use super::quorum::{Ensemble, ServerId};

/// A transaction in its place in the order. The payload is opaque to the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub zxid: Zxid,
    /// The transaction as it is logged.
    pub payload: Bytes,
}

/// What a replica does, as election notifications tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// It looks for a leader.
    Looking,
    /// It follows the one it votes for.
    Following,
    /// It leads.
    Leading,
    /// It learns from the one it votes for and has no vote.
    Observing,
}

/// A proposal for the leadership. Greater votes win: most recent epoch adopted, then longest
/// history, then greatest id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// currentEpoch of the proposed leader.
    pub epoch: Epoch,
    /// Its last logged zxid.
    pub zxid: Zxid,
    /// Who it is.
    pub leader: ServerId,
}

/// How far a replica's own data may be trusted in an election.
///
/// A wiped replica has forgotten what it acknowledged: it must not help to form a quorum before a
/// quorum that still has its data has brought it up to date. ZooKeeper's default lets it vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// It has adopted the history of some epoch as a whole, or was told to start a new ensemble.
    pub initialized: bool,
    /// It has logged at least one transaction.
    pub has_data: bool,
}

/// A vote, told to everyone while looking and to whoever asks afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// What the sender does.
    pub state: PeerState,
    /// The sender's round of elections (`electionEpoch`, the logical clock).
    pub round: u64,
    /// Whom the sender votes for.
    pub vote: Vote,
    /// Whether the sender's vote counts.
    pub standing: Standing,
    /// The committed configuration that the sender knows: who was not there when it was made, be it
    /// one that joins, learns it from here. Empty while there is only that of the files.
    pub configuration: Ensemble,
}

/// What a learner says first on a new connection to its leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerInfo {
    /// The greatest epoch it has promised.
    pub accepted_epoch: Epoch,
    /// Whether its data counts.
    pub standing: Standing,
    /// Version of its configuration.
    pub configuration: Zxid,
}

/// A learner's answer to LEADERINFO: its history in two numbers, and whether it promises the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckEpoch {
    /// currentEpoch.
    pub current_epoch: Epoch,
    /// The last zxid in its log.
    pub last_zxid: Zxid,
    promise: bool,
}

impl AckEpoch {
    /// A promise: `epoch` is on disk as acceptedEpoch. `None` when it is not.
    pub(super) fn promise(
        epoch: Epoch,
        current_epoch: Epoch,
        last_zxid: Zxid,
        facts: &DurableFacts,
    ) -> Option<AckEpoch> {
        (facts.accepted_epoch() >= epoch).then_some(AckEpoch {
            current_epoch,
            last_zxid,
            promise: true,
        })
    }

    /// The epoch was promised to someone else before, or the sender has no vote: join, do not count.
    pub(super) fn without_promise(current_epoch: Epoch, last_zxid: Zxid) -> AckEpoch {
        AckEpoch { current_epoch, last_zxid, promise: false }
    }

    /// A promise that nothing stands behind.
    #[cfg(any(test, feature = "mutations"))]
    pub fn forged(current_epoch: Epoch, last_zxid: Zxid) -> AckEpoch {
        AckEpoch { current_epoch, last_zxid, promise: true }
    }

    /// Whether the sender will accept no lower epoch from now on, whatever happens to it.
    pub fn is_promise(&self) -> bool {
        self.promise
    }
}

/// The sender has everything up to and including `zxid` on disk. Counter 0 acknowledges NEWLEADER
/// of that epoch, and with it the whole history the leader sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    zxid: Zxid,
}

impl Ack {
    /// Acknowledges every logged proposal that is on disk.
    pub(super) fn of_proposals(facts: &DurableFacts) -> Ack {
        Ack { zxid: facts.zxid() }
    }

    /// Acknowledges NEWLEADER; `None` while currentEpoch, and with it the history before it, is
    /// not on disk.
    pub(super) fn of_new_leader(epoch: Epoch, facts: &DurableFacts) -> Option<Ack> {
        (facts.current_epoch() == epoch).then_some(Ack { zxid: Zxid::new(epoch, 0) })
    }

    /// An acknowledgement that nothing stands behind.
    #[cfg(any(test, feature = "mutations"))]
    pub fn forged(zxid: Zxid) -> Ack {
        Ack { zxid }
    }

    /// How far the sender's disk is.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }
}

/// A message on the connection between a learner and its leader. Order is kept per connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// Learner, discovery: a voter wants to follow.
    FollowerInfo(LearnerInfo),
    /// Learner, discovery: an observer wants to learn.
    ObserverInfo(LearnerInfo),
    /// Leader, discovery: the epoch it wants promised.
    LeaderInfo {
        /// The new epoch.
        epoch: Epoch,
        /// Whether the learner's promise counts. The leader knows better than a learner that has not
        /// heard of the reconfiguration that gave it a vote.
        counts: bool,
    },
    /// Learner, discovery.
    AckEpoch(AckEpoch),
    /// Leader, synchronization: the learner's log is right up to its end; what it lacks follows.
    Diff {
        /// The learner's last zxid, as the leader understood it.
        zxid: Zxid,
    },
    /// Leader, synchronization: the learner's log is right up to here; the rest must go.
    Trunc {
        /// The last zxid to keep.
        zxid: Zxid,
    },
    /// Leader, synchronization: a whole tree replaces the learner's. The tree itself travels before
    /// this message; the driver hands the message on once it has received all of it.
    Snap {
        /// The last zxid that the tree contains.
        zxid: Zxid,
        /// The newest configuration among that.
        configuration: Ensemble,
    },
    /// Leader, synchronization: all of the epoch's initial history was sent.
    NewLeader {
        /// The epoch that begins.
        epoch: Epoch,
    },
    /// Leader: the learner may serve once it has applied up to `committed`.
    UpToDate {
        /// The last zxid known to be committed.
        committed: Zxid,
    },
    /// Leader, broadcast (and history): log these, in order.
    Proposal {
        /// Consecutive transactions.
        entries: Arc<[Entry]>,
    },
    /// Follower: see [`Ack`].
    Ack(Ack),
    /// Leader: everything up to here is committed.
    Commit {
        /// The last committed zxid.
        zxid: Zxid,
    },
    /// Leader to observers: these are committed.
    Inform {
        /// Consecutive transactions.
        entries: Arc<[Entry]>,
    },
    /// Both ways: the leader asks, the learner answers with the same number and the sessions that
    /// were touched through it.
    Ping {
        /// The leader's count of pings.
        sequence: u64,
        /// Session and its timeout in milliseconds.
        touched: Vec<(SessionId, i32)>,
    },
    /// Learner asks whether a session is still open; the leader answers with `valid` set.
    Revalidate {
        /// The session.
        session_id: SessionId,
        /// Its timeout in milliseconds.
        timeout_ms: i32,
        /// The leader's answer.
        valid: Option<bool>,
    },
    /// Learner forwards a client's request; the payload is opaque to the protocol.
    Request {
        /// The request with its session and identities.
        payload: Bytes,
    },
    /// Learner asks, leader answers once it has made sure that it still leads and has committed
    /// what was outstanding.
    Sync {
        /// The learner's number for it.
        token: u64,
    },
    /// A leader that shuts down names the one to follow next. Not in `Leader.java`, where only a
    /// reconfiguration designates a leader.
    Handover {
        /// The follower with the longest history.
        successor: ServerId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn packets_survive_the_codec() {
        let entries: Arc<[Entry]> =
            [Entry { zxid: Zxid::new(Epoch(3), 7), payload: Bytes::from_static(b"set /a") }].into();
        let packets = [
            Packet::AckEpoch(AckEpoch::without_promise(Epoch(2), Zxid::new(Epoch(2), 9))),
            Packet::Proposal { entries: entries.clone() },
            Packet::Inform { entries },
            Packet::Ack(Ack::forged(Zxid::new(Epoch(3), 7))),
            Packet::Ping { sequence: 4, touched: vec![(SessionId(17), 4000)] },
            Packet::Handover { successor: ServerId(2) },
        ];
        for packet in packets {
            let mut bytes = Vec::new();
            codec::encode_into(&packet, &mut bytes).unwrap();
            assert_eq!(codec::decode::<Packet>(&bytes).unwrap(), packet);
        }
    }

    /// `FastLeaderElection.totalOrderPredicate`: epoch, then zxid, then server id.
    #[test]
    fn vote_compares_epoch_then_zxid_then_server() {
        let vote = |epoch, counter, leader| Vote {
            epoch: Epoch(epoch),
            zxid: Zxid::new(Epoch(1), counter),
            leader: ServerId(leader),
        };
        assert!(vote(2, 1, 1) > vote(1, 9, 9));
        assert!(vote(2, 5, 1) > vote(2, 4, 9));
        assert!(vote(2, 5, 3) > vote(2, 5, 2));
    }
}
