//! Deliberate mistakes in the protocol, one at a time, so that the simulator can show that it would
//! find them. A production build has the names but no way to choose one.

/// A mistake that the simulator must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutation {
    /// A follower acknowledges proposals when they arrive, not when they are on disk.
    AckBeforeFsync,
    /// A follower acknowledges NEWLEADER when it arrives (ZOOKEEPER-3911).
    AckNewLeaderBeforeFsync,
    /// A follower promises an epoch before the promise is on disk.
    PromiseBeforeFsync,
    /// The leader commits what one voter less than a quorum has.
    CommitOnMinority,
    /// The leader counts its own log before it is on disk, and applies it.
    LeaderCommitsOwnUnsynced,
    /// The leader ignores that a follower's history is more recent than its own.
    ForgetEpochCheck,
    /// A follower accepts an epoch below the one it promised.
    AcceptLowerEpoch,
    /// A new leader proposes the greatest accepted epoch itself, not the one after it.
    ReuseEpoch,
    /// The leader sends a DIFF where the follower's tail should have been truncated.
    SkipTrunc,
    /// The leader names a snapshot after the end of its log instead of what it holds.
    StaleSnapshot,
    /// The leader serves once the epoch is agreed, without a quorum for NEWLEADER.
    SkipNewLeaderQuorum,
    /// A follower persists currentEpoch before the history of that epoch (ZOOKEEPER-4643).
    CurrentEpochBeforeHistory,
    /// Votes and acknowledgements of observers count.
    ObserverVotesCounted,
    /// A follower applies proposals that it has logged, committed or not.
    ApplyBeforeCommit,
    /// Proposals made between a follower's sync decision and its ACK of NEWLEADER are not forwarded.
    ForwardAfterNewLeaderAck,
    /// UPTODATE conveys what was committed when the sync began (protocol-spec issue 3).
    StaleUpToDate,
    /// A replica with an empty dataDir votes and promises.
    EmptyReplicaVotes,
    /// The leader answers a sync without asking whether it still leads (ZOOKEEPER-1675).
    SyncWithoutQuorum,
    /// A replica that restarts takes its whole log for committed.
    DeliverLogOnRestart,
    /// A reconfiguration, and what follows it, is committed by the old configuration alone until it
    /// is committed.
    CommitReconfigWithOldQuorumOnly,
    /// The same by the new configuration alone.
    CommitReconfigWithNewQuorumOnly,
    /// A snapshot from the leader does not bring its configuration.
    SnapshotWithoutConfiguration,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Mutation; 22] = [
        Mutation::AckBeforeFsync,
        Mutation::AckNewLeaderBeforeFsync,
        Mutation::PromiseBeforeFsync,
        Mutation::CommitOnMinority,
        Mutation::LeaderCommitsOwnUnsynced,
        Mutation::ForgetEpochCheck,
        Mutation::AcceptLowerEpoch,
        Mutation::ReuseEpoch,
        Mutation::SkipTrunc,
        Mutation::StaleSnapshot,
        Mutation::SkipNewLeaderQuorum,
        Mutation::CurrentEpochBeforeHistory,
        Mutation::ObserverVotesCounted,
        Mutation::ApplyBeforeCommit,
        Mutation::ForwardAfterNewLeaderAck,
        Mutation::StaleUpToDate,
        Mutation::EmptyReplicaVotes,
        Mutation::SyncWithoutQuorum,
        Mutation::DeliverLogOnRestart,
        Mutation::CommitReconfigWithOldQuorumOnly,
        Mutation::CommitReconfigWithNewQuorumOnly,
        Mutation::SnapshotWithoutConfiguration,
    ];
}
