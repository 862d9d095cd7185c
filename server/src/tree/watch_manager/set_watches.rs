//! Watches set again after a reconnection (`DataTree.setWatches`). No I/O.

use znodefs::Zxid;
use znodefs::wire::{EventType, WatchSets};

use super::{WatchKind, WatchManager, WatcherId};
use crate::mutation::{Mutation, mutated};
use crate::tree::DataTree;

impl WatchManager {
    /// Tells `events` what the client has missed since the zxid it saw last, and registers what it
    /// has not. What is told is not registered; persistent watches are only registered. Nothing may
    /// be applied to the tree meanwhile. The events carry no zxid, and no ACL withholds them.
    ///
    /// Of a child created and deleted again nothing is left but its parent's pzxid, which is why
    /// every replay keeps that exact.
    pub fn set_watches(
        &mut self,
        tree: &DataTree,
        watcher: WatcherId,
        sets: &WatchSets<'_>,
        events: &mut impl FnMut(EventType, &str),
    ) {
        let seen = match mutated(Mutation::SetWatchesNotComparing) {
            true => Zxid(i64::MAX),
            false => sets.relative_zxid,
        };
        let stat_of = |path: &str| tree.node(path).map(|node| node.stat());
        for &path in &sets.data {
            match stat_of(path) {
                None => events(EventType::NodeDeleted, path),
                Some(stat) if stat.mzxid > seen => events(EventType::NodeDataChanged, path),
                Some(_) => self.add(path, watcher, WatchKind::Data),
            }
        }
        for &path in &sets.exists {
            match stat_of(path) {
                Some(_) => events(EventType::NodeCreated, path),
                None => self.add(path, watcher, WatchKind::Data),
            }
        }
        for &path in &sets.children {
            match stat_of(path) {
                None => events(EventType::NodeDeleted, path),
                Some(stat) if stat.pzxid > seen => {
                    events(EventType::NodeChildrenChanged, path);
                }
                Some(_) => self.add(path, watcher, WatchKind::Children),
            }
        }
        for &path in &sets.persistent {
            self.add(path, watcher, WatchKind::Persistent);
        }
        for &path in &sets.persistent_recursive {
            self.add(path, watcher, WatchKind::PersistentRecursive);
        }
    }
}
