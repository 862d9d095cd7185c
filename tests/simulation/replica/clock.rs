//! A node's clocks: both follow the simulated time, each node's a little faster or slower than
//! another's, and the wall clock may jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use znodefs_server::clock::Clock;

use crate::random::Random;

/// 2023-11-14, in milliseconds since 1970.
const WALL_START_MS: i64 = 1_700_000_000_000;

/// The clocks of one node.
#[derive(Debug)]
pub struct NodeClock {
    /// The simulated time, in microseconds.
    now_us: Arc<AtomicU64>,
    drift_ppm: i64,
    offset_ms: u64,
    wall_offset_ms: AtomicI64,
}

impl NodeClock {
    /// Clocks that drift by up to 2 %.
    pub fn new(now_us: Arc<AtomicU64>, random: &mut Random) -> NodeClock {
        NodeClock {
            now_us,
            drift_ppm: random.between(0, 40_000) as i64 - 20_000,
            offset_ms: random.between(0, 1_000_000),
            wall_offset_ms: AtomicI64::new(random.between(0, 2_000) as i64),
        }
    }

    fn rate(&self) -> u128 {
        (1_000_000 + self.drift_ppm) as u128
    }

    /// When the monotonic clock will show this, in simulated microseconds.
    pub fn global_us(&self, local_ms: u64) -> u64 {
        let elapsed = u128::from(local_ms.saturating_sub(self.offset_ms));
        u64::try_from(elapsed * 1_000 * 1_000_000 / self.rate() + 1).unwrap_or(u64::MAX)
    }

    /// Sets the wall clock forward or back.
    pub fn jump(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for NodeClock {
    fn monotonic_ms(&self) -> u64 {
        let now_us = u128::from(self.now_us.load(Ordering::Relaxed));
        (now_us * self.rate() / 1_000_000 / 1_000) as u64 + self.offset_ms
    }

    fn wall_ms(&self) -> i64 {
        WALL_START_MS + self.monotonic_ms() as i64 + self.wall_offset_ms.load(Ordering::Relaxed)
    }
}
