//! The numbers the protocol runs by, and what a replica knows of itself when it starts.

use znodefs::{Epoch, Zxid};

use super::quorum::{Ensemble, ServerId};

/// Time limits and bounds. All times in milliseconds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `tickTime`: the unit of the two limits; the leader pings twice a tick.
    pub tick_ms: u64,
    /// `initLimit`: ticks that a learner may take to connect and synchronize.
    pub init_limit: u32,
    /// `syncLimit`: ticks that a synchronized learner may be silent, or behind with its
    /// acknowledgements.
    pub sync_limit: u32,
    /// The longest wait for a better vote once a quorum agrees. The wait ends at once when every
    /// reachable voter has spoken. (`FastLeaderElection.finalizeWait` is 200.)
    pub finalize_wait_ms: u64,
    /// First interval after which an unanswered vote is told again; it doubles, with jitter.
    pub resend_min_ms: u64,
    /// Where the interval stops growing.
    pub resend_max_ms: u64,
    /// How long leader and followers wait for each other after an election, the first time. It
    /// doubles with each election that leads to nothing, up to `initLimit`.
    pub discovery_ms: u64,
    /// How long a leader that shuts down waits for its last proposals to be committed.
    pub handover_wait_ms: u64,
    /// Entries kept in memory for followers that lag a little.
    pub window_entries: usize,
    /// Bytes of payload kept for them.
    pub window_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            tick_ms: 2_000,
            init_limit: 10,
            sync_limit: 5,
            finalize_wait_ms: 20,
            resend_min_ms: 50,
            resend_max_ms: 1_000,
            discovery_ms: 1_000,
            handover_wait_ms: 20,
            window_entries: 10_000,
            window_bytes: 32 << 20,
        }
    }
}

impl Settings {
    pub(super) fn init_limit_ms(&self) -> u64 {
        self.tick_ms * u64::from(self.init_limit)
    }

    pub(super) fn sync_limit_ms(&self) -> u64 {
        self.tick_ms * u64::from(self.sync_limit)
    }
}

/// What a replica found on its disk. Everything named here must be durable, not only readable:
/// after a killed process the page cache may hold more than the disk.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// acceptedEpoch; 0 when there is none.
    pub accepted_epoch: Epoch,
    /// currentEpoch; 0 when there is none.
    pub current_epoch: Epoch,
    /// The last whole entry of the log (or the snapshot's zxid when nothing follows it).
    pub last_logged: Zxid,
    /// What the tree in memory contains: the zxid of the snapshot it was loaded from. Later
    /// entries of the log are delivered when they are known to be committed.
    pub delivered: Zxid,
    /// The disk has lost what was committed: currentEpoch, which stood for it, is 0.
    pub incomplete: bool,
    /// The operator says that this empty replica starts a new ensemble (`--initialize`).
    pub initialize: bool,
}

/// Who a replica is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub id: ServerId,
    /// The configuration it starts with.
    pub ensemble: Ensemble,
    /// Seed of its randomness (jitter of resends and retries).
    pub seed: u64,
}
