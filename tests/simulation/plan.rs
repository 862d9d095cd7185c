//! What a seed means: the ensemble, its settings, the weather. Nothing here depends on anything but
//! the seed.

use znodefs::Zxid;
use znodefs_server::zab::{Ensemble, Mutation, ServerId, Settings};

use crate::network::Latency;
use crate::random::Random;

/// Simulated time with faults, in microseconds.
pub const DURATION_US: u64 = 60_000_000;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it follows from.
    pub seed: u64,
    /// Replicas that vote; they come first.
    pub voters: usize,
    /// Replicas that only learn.
    pub observers: usize,
    /// The protocol's settings, the same everywhere.
    pub settings: Settings,
    /// The network without faults.
    pub latency: Latency,
    /// Percentage of notifications lost.
    pub loss_percent: u64,
    /// Mean time between faults, in microseconds.
    pub fault_mean_us: u64,
    /// How many clients there are.
    pub clients: usize,
    /// Mean time between a client's requests, in microseconds.
    pub client_mean_us: u64,
    /// Percentage of requests that are a sync.
    pub sync_percent: u64,
    /// The most entries a learner is sent from the log.
    pub log_sync_max: usize,
    /// Mean time between a node's snapshots, in microseconds.
    pub snapshot_mean_us: u64,
    /// Percentage of faults that are a reconfiguration.
    pub reconfiguration_percent: u64,
    /// A deliberate mistake.
    pub mutation: Option<Mutation>,
}

impl Plan {
    /// The run that a seed stands for.
    pub fn new(seed: u64, mutation: Option<Mutation>) -> Plan {
        let mut random = Random::new(seed);
        let voters = random.pick(&[3, 3, 3, 3, 5, 5, 5, 1, 2, 7]);
        let observers = random.pick(&[0, 0, 1, 1, 2]);
        let tick_ms = random.pick(&[100, 200, 300, 500]);
        let settings = Settings {
            tick_ms,
            init_limit: random.between(5, 10) as u32,
            sync_limit: random.between(3, 5) as u32,
            window_entries: random.pick(&[2, 10, 50, 1_000]),
            ..Settings::default()
        };
        let latency = random.pick(&[
            Latency { min_us: 50, max_us: 500, spike_one_in: 0 },
            Latency { min_us: 50, max_us: 500, spike_one_in: 100 },
            Latency { min_us: 200, max_us: 5_000, spike_one_in: 50 },
            Latency { min_us: 5_000, max_us: 40_000, spike_one_in: 0 },
        ]);
        Plan {
            seed,
            voters,
            observers,
            settings,
            latency,
            loss_percent: random.pick(&[0, 0, 1, 10, 30]),
            fault_mean_us: random.pick(&[250_000, 500_000, 1_000_000, 2_000_000, 5_000_000]),
            clients: random.between(1, 8) as usize,
            client_mean_us: random.pick(&[50_000, 100_000, 200_000, 500_000]),
            sync_percent: random.pick(&[5, 20, 50, 95]),
            log_sync_max: random.pick(&[0, 20, 100_000]),
            snapshot_mean_us: random.pick(&[1_000_000, 5_000_000, 20_000_000]),
            // From numbers of its own: what else a seed means does not depend on it.
            reconfiguration_percent: Random::new(!seed).pick(&[0, 0, 20, 40]),
            mutation,
        }
    }

    /// How many replicas there are.
    pub fn nodes(&self) -> usize {
        self.voters + self.observers
    }

    /// The id of a node.
    pub fn id(node: usize) -> ServerId {
        ServerId(node as u32 + 1)
    }

    /// The node with an id.
    pub fn node(id: ServerId) -> usize {
        id.0 as usize - 1
    }

    /// The configuration.
    pub fn ensemble(&self) -> Ensemble {
        Ensemble::new(
            Zxid::ZERO,
            (0..self.voters).map(Plan::id),
            (self.voters..self.nodes()).map(Plan::id),
        )
    }

    /// After the last fault, everything must be well within this time, in microseconds.
    pub fn recovery_us(&self) -> u64 {
        recovery_us(self.settings.tick_ms, self.settings.init_limit)
    }
}

/// Half a minute, and time for several attempts to synchronize, in microseconds.
pub fn recovery_us(tick_ms: u64, init_limit: u32) -> u64 {
    30_000_000 + 6 * tick_ms * u64::from(init_limit) * 1_000
}
