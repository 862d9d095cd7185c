//! Which znodes were told to have changed lately: an answer that was asked for before a change and
//! is given after it must not be kept by anyone. A plain state machine without I/O; what it
//! remembers is bounded, and what it does not remember counts as changed.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use znodefs::path;

/// How many changes are remembered.
const LENGTH_MAX: usize = 4096;

/// A point in the order of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

/// A change's znode and the two directories above it, as hashes: a name and what is listed depend
/// on them.
type Touched = [u64; 3];

/// The latest changes.
#[derive(Debug, Default)]
pub struct Journal {
    /// How many changes there were.
    clock: u64,
    latest: VecDeque<Touched>,
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl Journal {
    /// The present.
    pub fn now(&self) -> Moment {
        Moment(self.clock)
    }

    /// A znode was created, deleted or set.
    pub fn note(&mut self, znode: &str) {
        let parent = path::parent(znode).unwrap_or(znode);
        let above = path::parent(parent).unwrap_or(parent);
        if self.latest.len() == LENGTH_MAX {
            self.latest.pop_front();
        }
        self.latest.push_back([znode, parent, above].map(hash));
        self.clock += 1;
    }

    /// Nobody tells of changes any more: everything asked for before counts as changed.
    pub fn interrupt(&mut self) {
        self.latest.clear();
        self.clock += 1;
    }

    /// Whether a znode, its children or theirs changed since, or may have.
    pub fn has_changed(&self, since: Moment, znode: &str) -> bool {
        let passed = self.clock - since.0;
        if passed == 0 {
            return false;
        }
        let remembered = usize::try_from(passed).ok().filter(|count| *count <= self.latest.len());
        let Some(count) = remembered else { return true };
        let wanted = hash(znode);
        self.latest.iter().rev().take(count).any(|touched| touched.contains(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_its_znode_and_the_directories_above() {
        let mut journal = Journal::default();
        let before = journal.now();
        assert!(!journal.has_changed(before, "/a"));
        journal.note("/a/b/c");
        for znode in ["/a/b/c", "/a/b", "/a"] {
            assert!(journal.has_changed(before, znode), "{znode}");
        }
        for znode in ["/", "/a/b/d", "/x"] {
            assert!(!journal.has_changed(before, znode), "{znode}");
        }
        assert!(!journal.has_changed(journal.now(), "/a/b/c"));
    }

    #[test]
    fn what_is_forgotten_counts_as_changed() {
        let mut journal = Journal::default();
        let before = journal.now();
        for _ in 0..LENGTH_MAX {
            journal.note("/other");
        }
        assert!(!journal.has_changed(before, "/a"));
        journal.note("/other");
        assert!(journal.has_changed(before, "/a"));
        assert_eq!(journal.latest.len(), LENGTH_MAX);
        let before = journal.now();
        journal.interrupt();
        assert!(journal.has_changed(before, "/a"));
        let after = journal.now();
        journal.note("/b");
        assert!(journal.has_changed(before, "/a") && !journal.has_changed(after, "/a"));
    }
}
