//! The replica's two clocks, as something that is passed in: tests and the simulator bring their own.
//! This file alone reads the system's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since some moment in the past; never goes back. For timeouts.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since 1970, for what znodes say; may jump.
    fn wall_ms(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Counts from now.
    #[allow(clippy::disallowed_methods, reason = "this is where time enters")]
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    #[allow(clippy::disallowed_methods, reason = "this is where time enters")]
    fn wall_ms(&self) -> i64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.unwrap_or_default().as_millis() as i64
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
}

impl ManualClock {
    /// Stands at `now_ms`, which is both its monotonic and its wall time.
    pub fn at(now_ms: u64) -> ManualClock {
        ManualClock { now_ms: AtomicU64::new(now_ms) }
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> i64 {
        self.monotonic_ms() as i64
    }
}
