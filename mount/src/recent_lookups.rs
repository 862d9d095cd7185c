//! What each thread has just looked up, or opened. Where the kernel may not keep attributes, a stat(2)
//! comes as a lookup and, from the same thread, a getattr: the second is answered from the first. So
//! is the fstat(2) that nearly every program does behind an open(2).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::journal::Moment;

/// How many threads are remembered at most; those beyond it ask the servers twice.
const THREADS_MAX: usize = 256;

/// The inodes that were looked up, by thread.
pub struct RecentLookups {
    lookups: Mutex<HashMap<u32, Lookup>>,
    age_max: Duration,
}

struct Lookup {
    inode: u64,
    when: Instant,
    asked: Moment,
}

#[allow(clippy::disallowed_methods, reason = "the age of a lookup is measured where it is made")]
fn now() -> Instant {
    Instant::now()
}

impl RecentLookups {
    /// None yet; one answers what comes behind it for as long as `age_max`.
    pub fn new(age_max: Duration) -> RecentLookups {
        RecentLookups { lookups: Mutex::default(), age_max }
    }

    /// A thread was told of an inode, as it was at a moment.
    pub fn note(&self, thread: u32, inode: u64, asked: Moment) {
        let mut lookups = self.lookups.lock();
        if lookups.len() >= THREADS_MAX {
            lookups.clear();
        }
        lookups.insert(thread, Lookup { inode, when: now(), asked });
    }

    /// The moment as of which a thread was just told of this inode; the next time it was not.
    pub fn take(&self, thread: u32, inode: u64) -> Option<Moment> {
        let taken = self.lookups.lock().remove(&thread)?;
        (taken.inode == inode && taken.when.elapsed() < self.age_max).then_some(taken.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    const AGE_MAX: Duration = Duration::from_secs(5);

    #[test]
    fn a_lookup_answers_one_getattr_of_the_same_thread_and_inode() {
        let (lookups, asked) = (RecentLookups::new(AGE_MAX), Journal::default().now());
        lookups.note(1, 10, asked);
        assert_eq!(lookups.take(2, 10), None, "another thread");
        assert_eq!(lookups.take(1, 10), Some(asked));
        assert_eq!(lookups.take(1, 10), None, "the second time");
        lookups.note(1, 10, asked);
        assert_eq!(lookups.take(1, 11), None, "another inode");
    }

    #[test]
    fn an_old_lookup_answers_nothing() {
        let (lookups, asked) = (RecentLookups::new(AGE_MAX), Journal::default().now());
        let when = now().checked_sub(2 * AGE_MAX).unwrap();
        lookups.lookups.lock().insert(1, Lookup { inode: 10, when, asked });
        assert_eq!(lookups.take(1, 10), None);
    }

    #[test]
    fn threads_are_not_remembered_without_limit() {
        let (lookups, asked) = (RecentLookups::new(AGE_MAX), Journal::default().now());
        for thread in 0..10_000 {
            lookups.note(thread, 10, asked);
        }
        assert!(lookups.lookups.lock().len() <= THREADS_MAX);
    }
}
