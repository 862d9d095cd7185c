//! Waiting for something to become true, with a deadline. The only place of the harness that reads
//! the clock or sleeps: a test never sleeps in the hope that something has happened meanwhile.

use std::time::{Duration, Instant};

/// How long to wait between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A moment by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// The moment `limit` from now.
    #[allow(clippy::disallowed_methods, reason = "the harness waits in real time")]
    pub fn after(limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit }
    }

    /// What is left of the time; zero once it has passed.
    #[allow(clippy::disallowed_methods, reason = "the harness waits in real time")]
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether the moment has passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// Looks until `look` finds something; `None` if it has not within `limit`.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if deadline.has_passed() {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `limit`; the message names `what` was awaited.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let held = wait_for(limit, || condition().then_some(()));
    assert!(held.is_some(), "not within {limit:?}: {what}");
}

/// Sleeps for a time that is itself the subject of the test, such as the moment of a kill.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
