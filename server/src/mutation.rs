//! Deliberate mistakes in a replica, one at a time, so that the simulator can show that it would find
//! them. Those in the protocol between the replicas are [`zab::Mutation`](crate::zab::Mutation).
//! A production build has the names but no way to choose one.

/// A mistake that the simulator must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mutation {
    /// Watchers hear of a write after its client has its answer.
    WatchAfterReply,
    /// A watch that holds once fires again.
    WatchFiresTwice,
    /// Watches set again after a reconnection are registered, whatever has changed since.
    SetWatchesNotComparing,
    /// A connection's watches stay when it is gone.
    WatchesOutliveConnection,
    /// A read is answered before the same client's write that stands in front of it.
    ReadOvertakesWrite,
    /// A client is served by a replica that is behind what it has seen.
    ClientMayGoBack,
    /// The leader does not let sessions live on that learners heard.
    ExpiryIgnoresTouches,
    /// A new leader tracks no session that was there before, so that none expires.
    NewLeaderForgetsSessions,
    /// A session's end leaves ephemerals whose creation is under way.
    CloseSessionMissesEphemerals,
    /// Requests behind a session's end still take effect.
    ClosingSessionStillWrites,
    /// Requests through a connection that has lost its session take effect (ZOOKEEPER-710).
    SessionMovedNotChecked,
    /// A learner takes a session up without asking the leader.
    ReattachWithoutAsking,
    /// A leader that lost its quorum keeps what it has under way (ZOOKEEPER-4712).
    StepDownKeepsRequests,
    /// What an aborted multi would have done is taken for granted by the requests behind it.
    AbortedMultiCounts,
    /// Creations are counted again when they are replayed (ZOOKEEPER-3249).
    ReplayCountsAgain,
    /// Replay begins at what a fuzzy snapshot may contain, not at what it certainly does.
    ReplayFromSnapshotEnd,
    /// A truncation leaves snapshots that are newer (ZOOKEEPER-4837).
    TruncateKeepsSnapshots,
    /// The log is written and not synced.
    LogNotSynced,
    /// Epochs are written and not synced.
    EpochNotSynced,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Mutation; 19] = [
        Mutation::WatchAfterReply,
        Mutation::WatchFiresTwice,
        Mutation::SetWatchesNotComparing,
        Mutation::WatchesOutliveConnection,
        Mutation::ReadOvertakesWrite,
        Mutation::ClientMayGoBack,
        Mutation::ExpiryIgnoresTouches,
        Mutation::NewLeaderForgetsSessions,
        Mutation::CloseSessionMissesEphemerals,
        Mutation::ClosingSessionStillWrites,
        Mutation::SessionMovedNotChecked,
        Mutation::ReattachWithoutAsking,
        Mutation::StepDownKeepsRequests,
        Mutation::AbortedMultiCounts,
        Mutation::ReplayCountsAgain,
        Mutation::ReplayFromSnapshotEnd,
        Mutation::TruncateKeepsSnapshots,
        Mutation::LogNotSynced,
        Mutation::EpochNotSynced,
    ];
}

#[cfg(any(test, feature = "mutations"))]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Chooses the mistake that everything makes from now on that runs on this thread.
#[cfg(any(test, feature = "mutations"))]
pub fn choose(mutation: Option<Mutation>) {
    CHOSEN.set(mutation);
}

/// Whether this deliberate mistake is to be made.
#[cfg(any(test, feature = "mutations"))]
pub(crate) fn mutated(mutation: Mutation) -> bool {
    CHOSEN.get() == Some(mutation)
}

/// Never: this is no test.
#[cfg(not(any(test, feature = "mutations")))]
#[inline(always)]
pub(crate) fn mutated(_: Mutation) -> bool {
    false
}
