//! What a replica does at the moment, for whoever asks it: the four-letter words, tests, the embedded
//! replica's owner. Written by the core thread.

use znodefs::Epoch;

use crate::config::ensemble::ServerId;

/// What a replica is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It stands alone.
    #[default]
    Standalone,
    /// It looks for a leader.
    Looking,
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It learns without a vote.
    Observer,
}

impl ReplicaRole {
    /// ZooKeeper's word for it.
    pub fn name(self) -> &'static str {
        match self {
            ReplicaRole::Standalone => "standalone",
            ReplicaRole::Looking => "looking",
            ReplicaRole::Leader => "leader",
            ReplicaRole::Follower => "follower",
            ReplicaRole::Observer => "observer",
        }
    }
}

/// What a replica does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What it is.
    pub role: ReplicaRole,
    /// Whether it serves clients.
    pub serving: bool,
    /// Whether it serves reads alone, since there is no quorum.
    pub read_only: bool,
    /// Whether it takes no part in the ensemble, since its disk is full.
    pub disk_full: bool,
    /// Who leads, as far as it knows.
    pub leader: Option<ServerId>,
    /// currentEpoch.
    pub epoch: Epoch,
    /// Members whose vote counts.
    pub voters: usize,
    /// Leader: followers that have everything and acknowledge.
    pub synced_followers: usize,
    /// Leader: observers that have everything.
    pub synced_observers: usize,
    /// Leader: learners that are connected, be they synchronized or not.
    pub learners: usize,
}

impl ReplicaStatus {
    /// ZooKeeper's word for what it is.
    pub fn name(&self) -> &'static str {
        if self.read_only { "read-only" } else { self.role.name() }
    }

    /// Whether any client is served.
    pub fn serves_anybody(&self) -> bool {
        self.serving || self.read_only
    }

    /// A replica that stands alone.
    pub fn standalone() -> ReplicaStatus {
        ReplicaStatus { serving: true, ..ReplicaStatus::default() }
    }
}
