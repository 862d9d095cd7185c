//! What each thread has just looked up. The kernel may not keep attributes yet, so a stat(2) comes
//! as a lookup and, from the same thread, a getattr: the second is answered from the first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a lookup answers the getattr behind it.
const AGE_MAX: Duration = Duration::from_millis(5);

/// How many threads are remembered at most; those beyond it ask the servers twice.
const THREADS_MAX: usize = 256;

/// The inodes that were looked up, by thread.
#[derive(Default)]
pub struct RecentLookups(Mutex<HashMap<u32, (u64, Instant)>>);

#[allow(clippy::disallowed_methods, reason = "the age of a lookup is measured where it is made")]
fn now() -> Instant {
    Instant::now()
}

impl RecentLookups {
    /// A thread was told of an inode.
    pub fn note(&self, thread: u32, inode: u64) {
        let mut lookups = self.0.lock();
        if lookups.len() >= THREADS_MAX {
            lookups.clear();
        }
        lookups.insert(thread, (inode, now()));
    }

    /// Whether a thread was just told of this inode; the next time it was not.
    pub fn take(&self, thread: u32, inode: u64) -> bool {
        let taken = self.0.lock().remove(&thread);
        taken.is_some_and(|(known, when)| known == inode && when.elapsed() < AGE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_answers_one_getattr_of_the_same_thread_and_inode() {
        let lookups = RecentLookups::default();
        lookups.note(1, 10);
        assert!(!lookups.take(2, 10), "another thread");
        assert!(lookups.take(1, 10));
        assert!(!lookups.take(1, 10), "the second time");
        lookups.note(1, 10);
        assert!(!lookups.take(1, 11), "another inode");
    }

    #[test]
    fn an_old_lookup_answers_nothing() {
        let lookups = RecentLookups::default();
        let old = now().checked_sub(2 * AGE_MAX).unwrap();
        lookups.0.lock().insert(1, (10, old));
        assert!(!lookups.take(1, 10));
    }

    #[test]
    fn threads_are_not_remembered_without_limit() {
        let lookups = RecentLookups::default();
        for thread in 0..10_000 {
            lookups.note(thread, 10);
        }
        assert!(lookups.0.lock().len() <= THREADS_MAX);
    }
}
