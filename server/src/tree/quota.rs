//! Quotas: limits and usage as the znodes below `/zookeeper/quota` say (`Quotas`, `StatsTrack`).
//! Whether a request goes over its limit is decided by the request processor. No I/O.
//!
//! Usage belongs to the replica: the data of `…/zookeeper_stats` always tells the znodes and bytes
//! that are there, whatever was written into it, without change of version or event. That makes it
//! a function of the tree alone, so that replaying a log over a fuzzy snapshot comes to the same. A
//! znode counts for the longest path above it that has a `zookeeper_stats`, itself included.

use std::collections::BTreeMap;

use znodefs::path;

use super::data_tree::{DataTree, QUOTA_PATH, ZOOKEEPER_PATH};
use super::node_store::NodeNumber;

const LIMITS_NAME: &str = "zookeeper_limits";
const STATS_NAME: &str = "zookeeper_stats";

/// What the text of a limits or stats znode says; -1 where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStats {
    /// Number of znodes.
    pub count: i64,
    /// Bytes of data.
    pub bytes: i64,
    /// Number of znodes that must not be passed.
    pub count_hard_limit: i64,
    /// Bytes of data that must not be passed.
    pub byte_hard_limit: i64,
}

impl QuotaStats {
    /// Reads `count=N,bytes=M` with the optional hard limits behind it; what makes no sense is
    /// taken as not said.
    pub fn parse(text: &[u8]) -> QuotaStats {
        let mut stats =
            QuotaStats { count: -1, bytes: -1, count_hard_limit: -1, byte_hard_limit: -1 };
        let text = std::str::from_utf8(text).unwrap_or_default();
        for pair in text.split([',', ';']) {
            // ZooKeeper writes `bytes=M=` when hard limits follow, for the sake of old parsers.
            let mut parts = pair.trim().split('=');
            let (Some(key), Some(value)) = (parts.next(), parts.next()) else { continue };
            let value = value.parse().unwrap_or(-1);
            match key {
                "count" => stats.count = value,
                "bytes" => stats.bytes = value,
                "countHardLimit" => stats.count_hard_limit = value,
                "byteHardLimit" => stats.byte_hard_limit = value,
                _ => {}
            }
        }
        stats
    }
}

/// Limits and usage of the quota that a path falls under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota<'a> {
    /// The path the quota is set on.
    pub path: &'a str,
    /// The limits.
    pub limits: QuotaStats,
    /// Number of znodes there are.
    pub count: i64,
    /// Bytes of data there are.
    pub bytes: i64,
}

#[derive(Debug)]
struct Usage {
    stats_node: NodeNumber,
    count: i64,
    bytes: i64,
}

/// The paths that have a stats znode.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    usage: BTreeMap<Box<str>, Usage>,
}

/// The path whose usage the stats znode `path` tells; `None` for every other znode, and for the
/// root and the service's own znodes, which have no quota.
fn quota_path_of_stats(path: &str) -> Option<&str> {
    let inner = path.strip_prefix(QUOTA_PATH)?.strip_suffix(STATS_NAME)?.strip_suffix('/')?;
    (!inner.is_empty() && !path::is_within(inner, ZOOKEEPER_PATH)).then_some(inner)
}

/// The longest path above `path`, or itself, that has a usage.
fn covering<'a>(quotas: &Quotas, path: &'a str) -> Option<&'a str> {
    let mut prefix = path;
    while prefix.len() > 1 {
        if quotas.usage.contains_key(prefix) {
            return Some(prefix);
        }
        prefix = path::parent(prefix)?;
    }
    None
}

impl DataTree {
    /// The quota that a path, existing or not, falls under.
    pub fn quota<'a>(&self, path: &'a str) -> Option<Quota<'a>> {
        if self.quotas.usage.is_empty() {
            return None;
        }
        let path = covering(&self.quotas, path)?;
        let usage = self.quotas.usage.get(path)?;
        let limits = self.node(&format!("{QUOTA_PATH}{path}/{LIMITS_NAME}"))?;
        let limits = QuotaStats::parse(limits.data().unwrap_or_default());
        Some(Quota { path, limits, count: usage.count, bytes: usage.bytes })
    }

    /// Takes account of a znode that appeared.
    pub(super) fn quota_created(&mut self, path: &str, number: NodeNumber) {
        match quota_path_of_stats(path) {
            Some(inner) => self.track_quota(inner, number),
            None => {
                let bytes = self.store.view(number).data_length() as i64;
                self.quota_changed(path, 1, bytes);
            }
        }
    }

    /// Takes account of a znode that has gone.
    pub(super) fn quota_deleted(&mut self, path: &str, data_length: usize) {
        match quota_path_of_stats(path) {
            Some(inner) => {
                self.quotas.usage.remove(inner);
                self.recount_above(inner);
            }
            None => self.quota_changed(path, -1, -(data_length as i64)),
        }
    }

    /// Takes account of data that was replaced.
    pub(super) fn quota_data_set(&mut self, path: &str, old_length: usize, new_length: usize) {
        match quota_path_of_stats(path) {
            Some(inner) => self.write_usage(inner),
            None => self.quota_changed(path, 0, new_length as i64 - old_length as i64),
        }
    }

    fn quota_changed(&mut self, path: &str, count: i64, bytes: i64) {
        if self.quotas.usage.is_empty() {
            return;
        }
        let Some(covering) = covering(&self.quotas, path) else { return };
        if let Some(usage) = self.quotas.usage.get_mut(covering) {
            usage.count += count;
            usage.bytes += bytes;
        }
        self.write_usage(covering);
    }

    fn track_quota(&mut self, path: &str, stats_node: NodeNumber) {
        self.quotas.usage.insert(path.into(), Usage { stats_node, count: 0, bytes: 0 });
        self.recount(path);
        self.recount_above(path);
    }

    fn recount_above(&mut self, path: &str) {
        let above = path::parent(path).and_then(|parent| covering(&self.quotas, parent));
        if let Some(above) = above {
            self.recount(above);
        }
    }

    fn recount(&mut self, path: &str) {
        let (mut count, mut bytes) = (0, 0);
        if let Some(top) = self.find(path) {
            let others = self.quotas.usage.keys().filter(|&other| **other != *path);
            let others: Vec<NodeNumber> = others.filter_map(|other| self.find(other)).collect();
            self.walk(top, |number| {
                if others.contains(&number) {
                    return false;
                }
                count += 1;
                bytes += self.store.view(number).data_length() as i64;
                true
            });
        }
        if let Some(usage) = self.quotas.usage.get_mut(path) {
            (usage.count, usage.bytes) = (count, bytes);
        }
        self.write_usage(path);
    }

    fn write_usage(&mut self, path: &str) {
        let Some(usage) = self.quotas.usage.get(path) else { return };
        let text = format!("count={},bytes={}", usage.count, usage.bytes);
        self.data_size -= self.store.view(usage.stats_node).data_length() as u64;
        self.data_size += text.len() as u64;
        self.store.set_data(usage.stats_node, Some(text.as_bytes()));
    }

    /// Finds all stats znodes and counts, once a snapshot is restored.
    pub(super) fn rebuild_quotas(&mut self) {
        let Some(top) = self.find(QUOTA_PATH) else { return };
        let mut found = Vec::new();
        self.walk(top, |number| {
            if self.store.view(number).name() == STATS_NAME {
                found.push((self.path_of(number), number));
            }
            true
        });
        found.sort();
        for (path, number) in found {
            if let Some(inner) = quota_path_of_stats(&path) {
                self.track_quota(inner, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_text_is_read_in_every_form_that_zookeeper_writes() {
        let plain = QuotaStats::parse(b"count=4,bytes=-1");
        assert_eq!((plain.count, plain.bytes, plain.count_hard_limit), (4, -1, -1));
        let hard = QuotaStats::parse(b"count=4,bytes=5=;byteHardLimit=10;countHardLimit=7");
        assert_eq!((hard.count, hard.bytes), (4, 5));
        assert_eq!((hard.count_hard_limit, hard.byte_hard_limit), (7, 10));
        assert_eq!(QuotaStats::parse(b"nonsense=,,=").count, -1);
    }
}
