//! The queue of a lock: how contenders are named, in which order they stand, and whom each one waits
//! for. No I/O.
//!
//! A contender is an ephemeral sequential child of the lock's znode, named as kazoo's `Lock`,
//! `WriteLock` and `ReadLock` name theirs: 32 hexadecimal digits, a mark, the 10-digit counter.

/// Mark of exclusive contenders (kazoo's `Lock` and `WriteLock`).
const EXCLUSIVE_MARK: &str = "__lock__";
/// Mark of shared contenders (kazoo's `ReadLock`).
const SHARED_MARK: &str = "__rlock__";
/// Digits of a sequential znode's counter.
const COUNTER_DIGITS: usize = 10;

/// Whether a lock excludes everybody or only writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Held by one alone.
    Exclusive,
    /// Held together with other shared holders.
    Shared,
}

impl LockMode {
    /// The name to create a contender with; the service appends the counter. `unique` tells this
    /// contender from all others, so that it is found again after a reply was lost.
    pub fn name_prefix(self, unique: u128) -> String {
        let mark = match self {
            LockMode::Exclusive => EXCLUSIVE_MARK,
            LockMode::Shared => SHARED_MARK,
        };
        format!("{unique:032x}{mark}")
    }
}

/// A contender, read from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender<'a> {
    /// The znode's name.
    pub name: &'a str,
    /// What it wants.
    pub mode: LockMode,
    /// Its place: lower counters come first.
    pub counter: u32,
}

impl<'a> Contender<'a> {
    /// Reads a name; `None` if it is not a contender's.
    pub fn parse(name: &'a str) -> Option<Contender<'a>> {
        let split = name.len().checked_sub(COUNTER_DIGITS)?;
        let (prefix, digits) = (name.get(..split)?, name.get(split..)?);
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let mode = if prefix.ends_with(SHARED_MARK) {
            LockMode::Shared
        } else if prefix.ends_with(EXCLUSIVE_MARK) {
            LockMode::Exclusive
        } else {
            return None;
        };
        Some(Contender { name, mode, counter: digits.parse().ok()? })
    }
}

/// The contenders among a lock's children, first in the queue first.
pub fn queue<'a>(children: impl IntoIterator<Item = &'a str>) -> Vec<Contender<'a>> {
    let mut contenders: Vec<_> = children.into_iter().filter_map(Contender::parse).collect();
    contenders.sort_by_key(|contender| contender.counter);
    contenders
}

/// Whom the contender `own` waits for: empty when it holds the lock, `None` when it is not in the
/// queue (its znode is gone).
///
/// Only these need a watch, so that a release wakes no more than those who may go on: a shared
/// contender waits for the nearest exclusive one before it, an exclusive one for the `limit` nearest
/// before it. While all of those are there, at least `limit` others are before it.
pub fn blockers<'a>(
    queue: &[Contender<'a>],
    own: &str,
    limit: usize,
) -> Option<Vec<Contender<'a>>> {
    let position = queue.iter().position(|contender| contender.name == own)?;
    let before = &queue[..position];
    Some(match queue[position].mode {
        LockMode::Shared => {
            let exclusive = |contender: &&Contender<'a>| contender.mode == LockMode::Exclusive;
            before.iter().rev().find(exclusive).into_iter().copied().collect()
        }
        LockMode::Exclusive if before.len() < limit => Vec::new(),
        LockMode::Exclusive => before[before.len() - limit..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusive(counter: u32) -> String {
        format!("{}{counter:010}", LockMode::Exclusive.name_prefix(7))
    }

    fn shared(counter: u32) -> String {
        format!("{}{counter:010}", LockMode::Shared.name_prefix(9))
    }

    fn blocker_counters(names: &[String], own: &str, limit: usize) -> Option<Vec<u32>> {
        let queue = queue(names.iter().map(String::as_str));
        let blockers = blockers(&queue, own, limit)?;
        Some(blockers.iter().map(|contender| contender.counter).collect())
    }

    #[test]
    fn the_queue_is_ordered_by_counter_whatever_the_unique_part() {
        let names = ["ff__lock__0000000002", "00__rlock__0000000003", "aa__lock__0000000001", "x"];
        let counters: Vec<_> = queue(names).iter().map(|contender| contender.counter).collect();
        assert_eq!(counters, [1, 2, 3]);
    }

    #[test]
    fn names_that_are_not_contenders_are_no_contenders() {
        for name in ["", "0000000001", "__lock__000000001", "__lock__00000000x1", "ü__lock__1"] {
            assert_eq!(Contender::parse(name), None, "{name}");
        }
    }

    #[test]
    fn an_exclusive_contender_waits_for_the_one_before_it_only() {
        let names = [exclusive(1), shared(2), exclusive(5)];
        assert_eq!(blocker_counters(&names, &names[0], 1), Some(vec![]));
        assert_eq!(blocker_counters(&names, &names[2], 1), Some(vec![2]));
    }

    #[test]
    fn a_shared_contender_waits_for_the_nearest_exclusive_one() {
        let names = [exclusive(1), exclusive(2), shared(3), shared(4)];
        assert_eq!(blocker_counters(&names, &names[3], 1), Some(vec![2]));
        assert_eq!(blocker_counters(&names[2..], &names[3], 1), Some(vec![]));
    }

    #[test]
    fn up_to_limit_contenders_hold_and_the_next_watches_that_many() {
        let names = [exclusive(1), exclusive(2), exclusive(3), exclusive(4)];
        assert_eq!(blocker_counters(&names, &names[1], 2), Some(vec![]));
        assert_eq!(blocker_counters(&names, &names[3], 2), Some(vec![2, 3]));
    }

    #[test]
    fn a_contender_whose_znode_is_gone_is_not_a_holder() {
        assert_eq!(blocker_counters(&[exclusive(1)], &exclusive(2), 1), None);
    }
}
