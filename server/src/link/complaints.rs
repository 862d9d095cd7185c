//! Tells a refusal once, and again only after a while: a misconfigured peer dials many times a second.
//! The time is passed in. No I/O.

use std::collections::HashMap;
use std::time::Duration;

/// How long the same complaint is not repeated.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// Different complaints kept in mind; beyond it all are forgotten, which only makes the log longer.
const KEPT_MAX: usize = 256;

/// What was complained of, and when.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: HashMap<String, Told>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    untold: u64,
}

impl Complaints {
    /// Whether to tell `complaint` at `now`, a time since some fixed moment; with how many of the same
    /// were not told since the last time.
    pub(super) fn tell(&mut self, complaint: &str, now: Duration) -> Option<u64> {
        if let Some(told) = self.told.get_mut(complaint) {
            if now.saturating_sub(told.at) < SILENCE {
                told.untold += 1;
                return None;
            }
            let untold = std::mem::take(&mut told.untold);
            told.at = now;
            return Some(untold);
        }
        if self.told.len() >= KEPT_MAX {
            self.told.clear();
        }
        self.told.insert(complaint.to_string(), Told { at: now, untold: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_while_and_something_else_at_once() {
        let mut complaints = Complaints::default();
        let at = Duration::from_secs;
        assert_eq!(complaints.tell("a", at(5)), Some(0));
        for second in 6..65 {
            assert_eq!(complaints.tell("a", at(second)), None);
        }
        assert_eq!(complaints.tell("b", at(64)), Some(0));
        assert_eq!(complaints.tell("a", at(65)), Some(59));
        assert_eq!(complaints.tell("a", at(66)), None);
    }

    #[test]
    fn many_different_complaints_cost_bounded_memory() {
        let mut complaints = Complaints::default();
        for number in 0..10 * KEPT_MAX {
            assert_eq!(complaints.tell(&number.to_string(), Duration::ZERO), Some(0));
            assert!(complaints.told.len() <= KEPT_MAX);
        }
    }
}
