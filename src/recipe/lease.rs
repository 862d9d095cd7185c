//! How long the holder of an ephemeral znode may go on while the service is silent. No I/O; times
//! are durations on a clock that goes on while the machine sleeps.
//!
//! A session expires no earlier than its timeout after the last message that reached the leader. Who
//! holds a lock knows of a message only when it was answered, so what counts is the moment at which
//! the last *answered* question was sent. An answer to `sync` came from the leader: a replica that is
//! cut off from its leader answers reads for as long as it has not noticed, and keeps no session
//! alive meanwhile.
//!
//! Of the timeout, counted from that moment, two thirds go by before the holder's work is asked to
//! end; it has a sixth to do so, and is stopped. The last sixth is there for what a holder cannot see:
//! a replica tells its leader of its clients only every half tick, and a stopped process takes its
//! time to go.

use std::time::Duration;

/// The right to go on without hearing of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    confirmed_at: Duration,
    timeout: Duration,
}

impl Lease {
    /// The lease that an answer gives: the question was sent at `confirmed_at` in a session with this
    /// negotiated timeout.
    pub fn new(confirmed_at: Duration, timeout: Duration) -> Lease {
        Lease { confirmed_at, timeout }
    }

    /// From when on the work must be asked to end (SIGTERM).
    pub fn ask_at(&self) -> Duration {
        self.confirmed_at + self.timeout * 2 / 3
    }

    /// From when on the work must be stopped (SIGKILL).
    pub fn stop_at(&self) -> Duration {
        self.ask_at() + self.timeout / 6
    }

    /// How often a lease is renewed: often enough that half the timeout is left for an outage.
    pub fn renewal_interval(timeout: Duration) -> Duration {
        timeout / 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(12);

    #[test]
    fn the_work_has_ended_a_sixth_of_the_timeout_before_the_session_can_expire() {
        let lease = Lease::new(Duration::from_secs(100), TIMEOUT);
        assert_eq!(lease.ask_at(), Duration::from_secs(108));
        assert_eq!(lease.stop_at(), Duration::from_secs(110));
        assert!(lease.stop_at() + TIMEOUT / 6 <= Duration::from_secs(100) + TIMEOUT);
    }

    #[test]
    fn the_work_has_at_most_a_sixth_of_the_timeout_to_end() {
        let lease = Lease::new(Duration::ZERO, TIMEOUT);
        assert!(lease.stop_at() - lease.ask_at() <= TIMEOUT / 6);
    }

    #[test]
    fn an_outage_of_half_the_timeout_disturbs_nobody() {
        // The worst moment: just before the next renewal.
        let outage_begins = Lease::renewal_interval(TIMEOUT);
        let lease = Lease::new(Duration::ZERO, TIMEOUT);
        assert!(lease.ask_at() >= outage_begins + TIMEOUT / 2);
    }
}
