//! Which locks are held through this mount, by whom, and what has to happen to the cluster's queue when
//! that changes. A plain table without I/O; the queue itself is at the service.
//!
//! An owner is what the kernel says it is: an open file for flock, a process (its table of open files)
//! for fcntl. Each owner that holds anything of a file has one contender in the file's queue, exclusive
//! or shared as the strongest of its ranges. So a range excludes others as the whole file would, but an
//! owner that gives up one of two ranges goes on holding.

use std::collections::HashMap;

use znodefs::SessionId;
use znodefs::recipe::LockMode;

/// Whose lock on which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockKey {
    /// The file's inode.
    pub inode: u64,
    /// The kernel's number of the owner.
    pub owner: u64,
}

/// First and last byte, both included.
pub type Range = (u64, u64);

/// A contender that holds its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its znode's path from the real root.
    pub contender: String,
    /// Exclusive or shared.
    pub mode: LockMode,
    /// The session that owns it.
    pub session: SessionId,
}

/// What a lock that is asked for needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: what the owner holds covers it.
    Covered,
    /// A contender; the owner has none.
    Acquire,
    /// An exclusive contender in place of the shared one that is held.
    Upgrade(Held),
    /// It is covered by an exclusive contender, for which a shared one would do by now.
    Weaken(Held),
}

/// What an unlock leaves to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlocked {
    /// Nothing.
    Nothing,
    /// The contender has to be deleted.
    Release(Held),
    /// The exclusive contender is more than is needed.
    Weaken(Held),
}

#[derive(Debug, Default)]
struct Owner {
    ranges: Ranges,
    held: Option<Held>,
    /// The open files through which it was locked.
    handles: Vec<u64>,
    /// The process that asked last; 0 when it is not known.
    process: u32,
}

/// Every owner that holds a lock.
#[derive(Debug, Default)]
pub struct LockTable {
    owners: HashMap<LockKey, Owner>,
}

impl LockTable {
    /// What an owner needs to hold a range in a mode. What is covered is noted at once.
    pub fn plan(&mut self, key: LockKey, handle: u64, range: Range, mode: LockMode) -> Plan {
        let Some(owner) = self.owners.get_mut(&key) else { return Plan::Acquire };
        let Some(held) = owner.held.clone() else { return Plan::Acquire };
        if mode == LockMode::Exclusive && held.mode == LockMode::Shared {
            return Plan::Upgrade(held);
        }
        owner.note(handle, range, mode);
        match held.mode {
            LockMode::Exclusive if owner.ranges.strongest() == Some(LockMode::Shared) => {
                Plan::Weaken(held)
            }
            _ => Plan::Covered,
        }
    }

    /// An owner's contender has got the lock: the contender that it replaces, or itself when the owner
    /// has another that does as well, is to be deleted.
    pub fn granted(
        &mut self,
        key: LockKey,
        (handle, process): (u64, u32),
        (range, mode): (Range, LockMode),
        held: Held,
    ) -> Option<Held> {
        let owner = self.owners.entry(key).or_default();
        owner.note(handle, range, mode);
        owner.process = process;
        match &owner.held {
            Some(other) if other.mode == LockMode::Exclusive && other.session == held.session => {
                Some(held)
            }
            _ => owner.held.replace(held),
        }
    }

    /// An owner gives up a range.
    pub fn unlock(&mut self, key: LockKey, range: Range) -> Unlocked {
        let Some(owner) = self.owners.get_mut(&key) else { return Unlocked::Nothing };
        owner.ranges.set(range, None);
        match (owner.ranges.strongest(), &owner.held) {
            (None, _) => {
                let held = self.owners.remove(&key).and_then(|owner| owner.held);
                held.map_or(Unlocked::Nothing, Unlocked::Release)
            }
            (Some(LockMode::Shared), Some(held)) if held.mode == LockMode::Exclusive => {
                Unlocked::Weaken(held.clone())
            }
            _ => Unlocked::Nothing,
        }
    }

    /// An owner gives up everything: the contender to be deleted. With `handle` only if that is an open
    /// file through which it has locked, since the kernel uses its numbers of owners again.
    pub fn unlock_all(&mut self, key: LockKey, handle: Option<u64>) -> Option<Held> {
        let owner = self.owners.get(&key)?;
        if handle.is_some_and(|handle| !owner.handles.contains(&handle)) {
            return None;
        }
        self.owners.remove(&key)?.held
    }

    /// Whether an owner holds anything of a file.
    pub fn holds(&self, key: LockKey) -> bool {
        self.owners.contains_key(&key)
    }

    /// The open files through which an owner has locked what it holds.
    pub fn handles_of(&self, key: LockKey) -> Vec<u64> {
        self.owners.get(&key).map(|owner| owner.handles.clone()).unwrap_or_default()
    }

    /// A shared contender stands where it does as well as the exclusive one `from`: whether it has
    /// replaced that one, which is to be deleted then; if not, the new one is.
    pub fn weakened(&mut self, key: LockKey, from: &str, to: Held) -> bool {
        let Some(owner) = self.owners.get_mut(&key) else { return false };
        let is_due = owner.ranges.strongest() == Some(LockMode::Shared);
        match &mut owner.held {
            Some(held) if is_due && held.contender == from => {
                *held = to;
                true
            }
            _ => false,
        }
    }

    /// A contender is gone although nobody here has deleted it, with its session or by another hand:
    /// its owner holds nothing any more. The open files through which it did.
    pub fn lost(&mut self, key: LockKey, contender: &str) -> Vec<u64> {
        let is_it =
            |owner: &Owner| owner.held.as_ref().is_some_and(|held| held.contender == contender);
        match self.owners.get(&key) {
            Some(owner) if is_it(owner) => {
                self.owners.remove(&key).map(|owner| owner.handles).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// The contender that an owner holds.
    pub fn held(&self, key: LockKey) -> Option<&Held> {
        self.owners.get(&key)?.held.as_ref()
    }

    /// The process behind a contender of this mount.
    pub fn process_of(&self, contender: &str) -> Option<u32> {
        let is_it =
            |owner: &&Owner| owner.held.as_ref().is_some_and(|held| held.contender == contender);
        self.owners.values().find(is_it).map(|owner| owner.process)
    }

    /// How many owners there are.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

impl Owner {
    fn note(&mut self, handle: u64, range: Range, mode: LockMode) {
        self.ranges.set(range, Some(mode));
        if !self.handles.contains(&handle) {
            self.handles.push(handle);
        }
    }
}

/// The ranges that an owner has locked: sorted, apart from each other.
#[derive(Debug, Default)]
struct Ranges(Vec<(u64, u64, LockMode)>);

impl Ranges {
    /// Locks a range in a mode, whatever it was before, or unlocks it.
    fn set(&mut self, (start, end): Range, mode: Option<LockMode>) {
        let mut ranges = Vec::with_capacity(self.0.len() + 2);
        for &(from, to, before) in &self.0 {
            if from < start {
                ranges.push((from, to.min(start - 1), before));
            }
            if to > end {
                ranges.push((from.max(end + 1), to, before));
            }
        }
        ranges.extend(mode.map(|mode| (start, end, mode)));
        ranges.sort_unstable_by_key(|&(from, ..)| from);
        ranges.dedup_by(|next, last| {
            // A program that locks byte after byte leaves one range.
            let joins = last.2 == next.2 && last.1.checked_add(1) == Some(next.0);
            if joins {
                last.1 = next.1;
            }
            joins
        });
        self.0 = ranges;
    }

    fn strongest(&self) -> Option<LockMode> {
        match self.0.iter().any(|&(.., mode)| mode == LockMode::Exclusive) {
            true => Some(LockMode::Exclusive),
            false => self.0.first().map(|_| LockMode::Shared),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LockMode::{Exclusive, Shared};
    use super::*;

    const KEY: LockKey = LockKey { inode: 1, owner: 2 };
    const WHOLE: Range = (0, i64::MAX as u64);

    fn held(contender: &str, mode: LockMode) -> Held {
        Held { contender: contender.into(), mode, session: SessionId(1) }
    }

    fn grant(table: &mut LockTable, range: Range, contender: &str, mode: LockMode) -> Option<Held> {
        table.granted(KEY, (9, 100), (range, mode), held(contender, mode))
    }

    #[test]
    fn what_is_held_covers_the_same_and_less() {
        let mut table = LockTable::default();
        assert_eq!(table.plan(KEY, 9, WHOLE, Shared), Plan::Acquire);
        assert_eq!(grant(&mut table, WHOLE, "s", Shared), None);
        assert_eq!(table.plan(KEY, 9, WHOLE, Shared), Plan::Covered);
        assert_eq!(table.plan(KEY, 9, WHOLE, Exclusive), Plan::Upgrade(held("s", Shared)));
        assert_eq!(grant(&mut table, WHOLE, "x", Exclusive), Some(held("s", Shared)));
        assert_eq!(table.plan(KEY, 9, WHOLE, Shared), Plan::Weaken(held("x", Exclusive)));
        assert!(table.weakened(KEY, "x", held("s2", Shared)));
        assert_eq!(table.unlock(KEY, WHOLE), Unlocked::Release(held("s2", Shared)));
        assert!(table.is_empty());
        assert_eq!(table.unlock(KEY, WHOLE), Unlocked::Nothing);
    }

    #[test]
    fn ranges_are_held_by_one_contender_until_the_last_is_unlocked() {
        let mut table = LockTable::default();
        grant(&mut table, (10, 19), "s", Shared);
        assert_eq!(table.plan(KEY, 9, (30, 39), Shared), Plan::Covered);
        assert_eq!(table.unlock(KEY, (10, 19)), Unlocked::Nothing);
        assert!(matches!(table.plan(KEY, 9, (5, 5), Exclusive), Plan::Upgrade(_)));
        grant(&mut table, (5, 5), "x", Exclusive);
        assert_eq!(table.unlock(KEY, (5, 5)), Unlocked::Weaken(held("x", Exclusive)));
        assert_eq!(table.unlock(KEY, WHOLE), Unlocked::Release(held("x", Exclusive)));
    }

    #[test]
    fn a_lock_that_is_strong_again_is_not_weakened() {
        let mut table = LockTable::default();
        grant(&mut table, WHOLE, "x", Exclusive);
        assert!(matches!(table.plan(KEY, 9, WHOLE, Shared), Plan::Weaken(_)));
        assert_eq!(table.plan(KEY, 9, WHOLE, Exclusive), Plan::Covered);
        assert!(!table.weakened(KEY, "x", held("s", Shared)));
        assert_eq!(table.held(KEY), Some(&held("x", Exclusive)));
    }

    #[test]
    fn ranges_split_and_join() {
        let mut ranges = Ranges::default();
        ranges.set((0, 9), Some(Shared));
        ranges.set((3, 5), None);
        assert_eq!(ranges.0, [(0, 2, Shared), (6, 9, Shared)]);
        ranges.set((3, 5), Some(Shared));
        assert_eq!(ranges.0, [(0, 9, Shared)]);
        ranges.set((9, u64::MAX), Some(Exclusive));
        assert_eq!(ranges.0, [(0, 8, Shared), (9, u64::MAX, Exclusive)]);
        assert_eq!(ranges.strongest(), Some(Exclusive));
        ranges.set((0, u64::MAX), None);
        assert_eq!(ranges.strongest(), None);
    }

    #[test]
    fn a_close_ends_the_locks_of_its_own_open_file_only() {
        let mut table = LockTable::default();
        grant(&mut table, WHOLE, "x", Exclusive);
        assert_eq!(table.unlock_all(KEY, Some(8)), None);
        assert_eq!(table.unlock_all(LockKey { inode: 3, ..KEY }, None), None);
        assert_eq!(table.unlock_all(KEY, Some(9)), Some(held("x", Exclusive)));
        assert!(!table.holds(KEY));
    }

    #[test]
    fn a_lost_contender_takes_its_lock_along_but_not_a_later_one() {
        let mut table = LockTable::default();
        grant(&mut table, WHOLE, "x", Exclusive);
        assert_eq!(table.process_of("x"), Some(100));
        assert!(table.lost(KEY, "earlier").is_empty());
        assert_eq!(table.lost(KEY, "x"), [9]);
        assert_eq!(table.plan(KEY, 9, WHOLE, Exclusive), Plan::Acquire);
    }

    #[test]
    fn of_two_contenders_of_one_owner_one_is_given_back() {
        let mut table = LockTable::default();
        grant(&mut table, (0, 0), "x", Exclusive);
        assert_eq!(grant(&mut table, (1, 1), "s", Shared), Some(held("s", Shared)));
        assert_eq!(table.held(KEY), Some(&held("x", Exclusive)));
    }
}
