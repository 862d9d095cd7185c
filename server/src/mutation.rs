//! Deliberate mistakes in a replica, one at a time, so that the simulator and the chaos on real
//! processes can show that they would find them. Those in the protocol between the replicas are
//! [`zab::Mutation`]. A production build has the names but no way to choose one.

use crate::zab;

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
    /// A replica without a quorum acknowledges writes.
    ReadOnlyAcknowledgesWrites,
    /// A replica without a quorum serves clients that want to write.
    ReadOnlyServesWriters,
    /// A replica without a quorum takes up sessions of the ensemble.
    ReadOnlyTakesSessionsUp,
    /// A replica serves reads alone while its tree changes.
    ReadOnlyGoesOn,
    /// A replica without a quorum shows what a fuzzy snapshot holds.
    ReadOnlyShowsFuzzySnapshot,
    /// What is logged is noted as committed, so that a restart shows it.
    LoggedNotedAsCommitted,
    /// A replica that restarts takes its whole log for committed, as in
    /// [`zab::Mutation`], of which it is a part.
    DeliverLogOnRestart,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Mutation; 25] = [
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
        Mutation::ReadOnlyAcknowledgesWrites,
        Mutation::ReadOnlyServesWriters,
        Mutation::ReadOnlyTakesSessionsUp,
        Mutation::ReadOnlyGoesOn,
        Mutation::ReadOnlyShowsFuzzySnapshot,
        Mutation::LoggedNotedAsCommitted,
    ];
}

/// A deliberate mistake, of the replica or of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// In the replica.
    Replica(Mutation),
    /// In the protocol between replicas.
    Protocol(zab::Mutation),
}

impl Mistake {
    /// All there are.
    pub fn all() -> Vec<Mistake> {
        let replica = Mutation::ALL.into_iter().map(Mistake::Replica);
        replica.chain(zab::Mutation::ALL.into_iter().map(Mistake::Protocol)).collect()
    }

    /// The mistake of the replica that makes it.
    pub fn of_replica(self) -> Option<Mutation> {
        match self {
            Mistake::Replica(mutation) => Some(mutation),
            // What a start takes for committed is read before there is a protocol.
            Mistake::Protocol(zab::Mutation::DeliverLogOnRestart) => {
                Some(Mutation::DeliverLogOnRestart)
            }
            Mistake::Protocol(_) => None,
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        match self {
            Mistake::Replica(mutation) => format!("{mutation:?}"),
            Mistake::Protocol(mutation) => format!("{mutation:?}"),
        }
    }
}

/// What every replica of this process does wrong.
#[cfg(any(test, feature = "mutations"))]
static OF_PROCESS: std::sync::OnceLock<Mistake> = std::sync::OnceLock::new();

/// Chooses the mistake that every replica of this process makes; to be called before the first one
/// starts, and only the first choice counts.
#[cfg(any(test, feature = "mutations"))]
pub fn choose_for_process(mistake: Mistake) {
    // A second choice would be another test's, in a process that is not its own.
    let _ = OF_PROCESS.set(mistake);
}

/// What every replica of this process does wrong in the protocol.
#[cfg(any(test, feature = "mutations"))]
pub(crate) fn protocol_mutation_of_process() -> Option<zab::Mutation> {
    match OF_PROCESS.get() {
        Some(Mistake::Protocol(mutation)) => Some(*mutation),
        _ => None,
    }
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
        || OF_PROCESS.get().and_then(|mistake| mistake.of_replica()) == Some(mutation)
}

/// Never: this is no test.
#[cfg(not(any(test, feature = "mutations")))]
#[inline(always)]
pub(crate) fn mutated(_: Mutation) -> bool {
    false
}
