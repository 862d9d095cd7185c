//! The watches of one replica's connections, and who is to be told of a change (`WatchManager` and
//! the watch rules of `DataTree`). No I/O; the tree's own events come from `apply`.
//!
//! ZooKeeper keeps two tables, data and child. Here one record a path and connection holds both as
//! bits, linked into a list of its path and a list of its connection: telling a thousand
//! connections walks one list, a connection that goes takes only its own watches along, and a watch
//! costs a few dozen bytes.

mod set_watches;
mod slab;
#[cfg(test)]
mod tests;

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use znodefs::path;
use znodefs::wire::{AddWatchMode, EventType, WatcherType};

use super::path_index::{PathHasher, spread};
use crate::mutation::{Mutation, mutated};
use slab::{NONE, Slab};

/// A connection that watches. Numbers must not be used again for another connection before
/// [`WatchManager::remove_watcher`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherId(pub u64);

/// What is watched, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchKind {
    /// Data, creation and deletion of one znode, once (`getData`, `exists`).
    Data,
    /// Children and deletion of one znode, once (`getChildren`).
    Children,
    /// Both of one znode, until removed (`addWatch`).
    Persistent,
    /// Data, creation and deletion of a znode and its descendants, until removed (`addWatch`).
    PersistentRecursive,
}

impl From<AddWatchMode> for WatchKind {
    fn from(mode: AddWatchMode) -> WatchKind {
        match mode {
            AddWatchMode::Persistent => WatchKind::Persistent,
            AddWatchMode::PersistentRecursive => WatchKind::PersistentRecursive,
        }
    }
}

/// Kinds of watches one connection has on one path, as bits.
type Kinds = u8;

const DATA: Kinds = 1;
const CHILDREN: Kinds = 2;
const PERSISTENT: Kinds = 4;
const RECURSIVE: Kinds = 8;
/// What the data table of ZooKeeper would hold.
const DATA_TABLE: Kinds = DATA | PERSISTENT | RECURSIVE;
/// What the child table of ZooKeeper would hold.
const CHILD_TABLE: Kinds = CHILDREN | PERSISTENT;

impl WatchKind {
    fn bit(self) -> Kinds {
        match self {
            WatchKind::Data => DATA,
            WatchKind::Children => CHILDREN,
            WatchKind::Persistent => PERSISTENT,
            WatchKind::PersistentRecursive => RECURSIVE,
        }
    }
}

fn bits_of(watcher_type: WatcherType) -> Kinds {
    match watcher_type {
        WatcherType::Children => CHILDREN,
        WatcherType::Data => DATA,
        WatcherType::Any => DATA_TABLE | CHILD_TABLE,
        WatcherType::Persistent => PERSISTENT,
        WatcherType::PersistentRecursive => RECURSIVE,
    }
}

/// A path with its list of watches.
#[derive(Debug)]
struct WatchedPath {
    path: Box<str>,
    hash: u32,
    first: u32,
}

/// A connection with its list of watches.
#[derive(Debug)]
struct Watcher {
    id: WatcherId,
    first: u32,
    /// The trigger that told it last, so that it is told once.
    told: u64,
}

/// What one connection watches of one path.
#[derive(Debug)]
struct Watch {
    path: u32,
    watcher: u32,
    next_of_path: u32,
    previous_of_path: u32,
    next_of_watcher: u32,
    previous_of_watcher: u32,
    kinds: Kinds,
}

/// Numbers of `wchs`: how much is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSummary {
    /// Connections with a data watch.
    pub connections: usize,
    /// Paths with a data watch.
    pub paths: usize,
    /// Data watches.
    pub watches: usize,
}

/// All watches of one replica.
#[derive(Debug)]
pub struct WatchManager {
    hash_state: FixedState,
    path_hasher: PathHasher,
    paths: Slab<WatchedPath>,
    path_index: HashTable<u32>,
    watchers: Slab<Watcher>,
    watcher_index: HashMap<WatcherId, u32, FixedState>,
    watches: Slab<Watch>,
    /// Watches by path and watcher.
    watch_index: HashTable<u32>,
    recursive_count: usize,
    data_count: usize,
    child_count: usize,
    trigger: u64,
}

impl WatchManager {
    /// No watches. `hash_seed` keeps clients from choosing paths that collide.
    pub fn new(hash_seed: u64) -> WatchManager {
        let hash_state = FixedState::with_seed(hash_seed);
        WatchManager {
            hash_state: hash_state.clone(),
            path_hasher: PathHasher::new(hash_seed),
            paths: Slab::new(),
            path_index: HashTable::new(),
            watchers: Slab::new(),
            watcher_index: HashMap::with_hasher(hash_state),
            watches: Slab::new(),
            watch_index: HashTable::new(),
            recursive_count: 0,
            data_count: 0,
            child_count: 0,
            trigger: 0,
        }
    }

    /// Sets a watch; setting it again changes nothing.
    pub fn add(&mut self, path: &str, watcher: WatcherId, kind: WatchKind) {
        let path = self.find_path(path).unwrap_or_else(|| self.insert_path(path));
        let watcher = match self.watcher_index.get(&watcher) {
            Some(&number) => number,
            None => {
                let number = self.watchers.insert(Watcher { id: watcher, first: NONE, told: 0 });
                self.watcher_index.insert(watcher, number);
                number
            }
        };
        let watch =
            self.find_watch(path, watcher).unwrap_or_else(|| self.insert_watch(path, watcher));
        self.set_kinds(watch, self.watches[watch].kinds | kind.bit());
    }

    /// Tells `tell` every connection that waits for this, once each, and takes away the watches
    /// that hold once. What the connection may read is for the caller to check: a watch that fires
    /// without being delivered is gone all the same.
    pub fn trigger(&mut self, event_type: EventType, path: &str, tell: &mut impl FnMut(WatcherId)) {
        if self.watches.is_empty() {
            return;
        }
        let wanted = match event_type {
            EventType::NodeCreated | EventType::NodeDataChanged => DATA_TABLE,
            EventType::NodeDeleted => DATA_TABLE | CHILD_TABLE,
            EventType::NodeChildrenChanged => CHILD_TABLE,
            EventType::None | EventType::Unknown(_) => return,
        };
        self.trigger += 1;
        if wanted & RECURSIVE != 0 && self.recursive_count > 0 {
            self.trigger_ancestors(path, tell);
        }
        if let Some(number) = self.find_path(path) {
            self.trigger_path(number, wanted, tell);
        }
    }

    /// Tells who watches an ancestor recursively. The hash of each ancestor is a step on the way to
    /// that of the path.
    fn trigger_ancestors(&mut self, path: &str, tell: &mut impl FnMut(WatcherId)) {
        let Some(parent) = path::parent(path) else { return };
        let mut hash = PathHasher::ROOT_HASH;
        let mut end = 0;
        if let Some(number) = self.find_path_hashed("/", hash) {
            self.trigger_ancestor(number, tell);
        }
        for name in parent[1..].split('/').filter(|name| !name.is_empty()) {
            hash = self.path_hasher.child(hash, name.as_bytes());
            end += 1 + name.len();
            if let Some(number) = self.find_path_hashed(&path[..end], hash) {
                self.trigger_ancestor(number, tell);
            }
        }
    }

    fn trigger_path(&mut self, path: u32, wanted: Kinds, tell: &mut impl FnMut(WatcherId)) {
        let mut next = self.paths[path].first;
        while next != NONE {
            let number = next;
            let watch = &self.watches[number];
            next = watch.next_of_path;
            let kinds = watch.kinds;
            if kinds & wanted == 0 {
                continue;
            }
            self.tell_once(watch.watcher, tell);
            let once = (DATA | CHILDREN) & wanted;
            if kinds & once != 0 && !mutated(Mutation::WatchFiresTwice) {
                self.set_kinds(number, kinds & !once);
            }
        }
    }

    fn trigger_ancestor(&mut self, path: u32, tell: &mut impl FnMut(WatcherId)) {
        let mut next = self.paths[path].first;
        while next != NONE {
            let watch = &self.watches[next];
            next = watch.next_of_path;
            if watch.kinds & RECURSIVE != 0 {
                self.tell_once(watch.watcher, tell);
            }
        }
    }

    fn tell_once(&mut self, watcher: u32, tell: &mut impl FnMut(WatcherId)) {
        let trigger = self.trigger;
        let watcher = &mut self.watchers[watcher];
        if watcher.told != trigger {
            watcher.told = trigger;
            tell(watcher.id);
        }
    }

    /// Takes away all watches of a connection, in time proportional to their number.
    pub fn remove_watcher(&mut self, watcher: WatcherId) {
        while let Some(&number) = self.watcher_index.get(&watcher) {
            // A connection is in the index only as long as it has a watch; the last one that goes
            // takes it along.
            self.set_kinds(self.watchers[number].first, 0);
        }
    }

    /// Whether a connection has a watch of this type on exactly this path.
    pub fn check(&self, path: &str, watcher: WatcherId, watcher_type: WatcherType) -> bool {
        self.watch_of(path, watcher)
            .is_some_and(|watch| self.watches[watch].kinds & bits_of(watcher_type) != 0)
    }

    /// Removes a connection's watches of this type on exactly this path; whether there were any.
    pub fn remove(&mut self, path: &str, watcher: WatcherId, watcher_type: WatcherType) -> bool {
        let Some(watch) = self.watch_of(path, watcher) else { return false };
        let kinds = self.watches[watch].kinds;
        let left = kinds & !bits_of(watcher_type);
        if left != kinds {
            self.set_kinds(watch, left);
        }
        left != kinds
    }

    /// Number of watches as `mntr` counts them: those of both tables.
    pub fn watch_count(&self) -> usize {
        self.data_count + self.child_count
    }

    /// The numbers of `wchs`, which knows the data table only.
    pub fn summary(&self) -> WatchSummary {
        WatchSummary {
            connections: self.by_watcher().count(),
            paths: self.by_path().count(),
            watches: self.data_count,
        }
    }

    /// The paths with data watches and their connections, for `wchp`.
    pub fn by_path(&self) -> impl Iterator<Item = (&str, Vec<WatcherId>)> + '_ {
        self.paths.iter().filter_map(|path| {
            let mut watchers = Vec::new();
            let mut next = path.first;
            while next != NONE {
                let watch = &self.watches[next];
                if watch.kinds & DATA_TABLE != 0 {
                    watchers.push(self.watchers[watch.watcher].id);
                }
                next = watch.next_of_path;
            }
            (!watchers.is_empty()).then_some((&*path.path, watchers))
        })
    }

    /// The connections with data watches and their paths, for `wchc`.
    pub fn by_watcher(&self) -> impl Iterator<Item = (WatcherId, Vec<&str>)> + '_ {
        self.watchers.iter().filter_map(|watcher| {
            let mut paths = Vec::new();
            let mut next = watcher.first;
            while next != NONE {
                let watch = &self.watches[next];
                if watch.kinds & DATA_TABLE != 0 {
                    paths.push(&*self.paths[watch.path].path);
                }
                next = watch.next_of_watcher;
            }
            (!paths.is_empty()).then_some((watcher.id, paths))
        })
    }

    fn find_path(&self, path: &str) -> Option<u32> {
        self.find_path_hashed(path, self.path_hasher.path(path))
    }

    fn find_path_hashed(&self, path: &str, hash: u32) -> Option<u32> {
        let matches = |&number: &u32| {
            let watched = &self.paths[number];
            watched.hash == hash && *watched.path == *path
        };
        self.path_index.find(spread(hash), matches).copied()
    }

    fn insert_path(&mut self, path: &str) -> u32 {
        let hash = self.path_hasher.path(path);
        let number = self.paths.insert(WatchedPath { path: path.into(), hash, first: NONE });
        let paths = &self.paths;
        self.path_index.insert_unique(spread(hash), number, |&other| spread(paths[other].hash));
        number
    }

    fn watch_of(&self, path: &str, watcher: WatcherId) -> Option<u32> {
        let watcher = *self.watcher_index.get(&watcher)?;
        self.find_watch(self.find_path(path)?, watcher)
    }

    fn find_watch(&self, path: u32, watcher: u32) -> Option<u32> {
        let hash = self.hash_state.hash_one((path, watcher));
        let matches = |&number: &u32| {
            let watch = &self.watches[number];
            watch.path == path && watch.watcher == watcher
        };
        self.watch_index.find(hash, matches).copied()
    }

    /// Adds a watch of no kind yet.
    fn insert_watch(&mut self, path: u32, watcher: u32) -> u32 {
        let next_of_path = self.paths[path].first;
        let next_of_watcher = self.watchers[watcher].first;
        let number = self.watches.insert(Watch {
            path,
            watcher,
            next_of_path,
            previous_of_path: NONE,
            next_of_watcher,
            previous_of_watcher: NONE,
            kinds: 0,
        });
        self.paths[path].first = number;
        self.watchers[watcher].first = number;
        if next_of_path != NONE {
            self.watches[next_of_path].previous_of_path = number;
        }
        if next_of_watcher != NONE {
            self.watches[next_of_watcher].previous_of_watcher = number;
        }
        let (watches, state) = (&self.watches, &self.hash_state);
        let hash = |&number: &u32| {
            let watch: &Watch = &watches[number];
            state.hash_one((watch.path, watch.watcher))
        };
        self.watch_index.insert_unique(hash(&number), number, hash);
        number
    }

    /// Changes the kinds of a watch and all counts; a watch of no kind goes, and with the last one
    /// its path and its connection.
    fn set_kinds(&mut self, number: u32, kinds: Kinds) {
        let old = std::mem::replace(&mut self.watches[number].kinds, kinds);
        let count = |count: &mut usize, bits: Kinds| {
            *count = *count + usize::from(kinds & bits != 0) - usize::from(old & bits != 0);
        };
        count(&mut self.recursive_count, RECURSIVE);
        count(&mut self.data_count, DATA_TABLE);
        count(&mut self.child_count, CHILD_TABLE);
        if kinds == 0 {
            self.unlink(number);
        }
    }

    fn unlink(&mut self, number: u32) {
        let watch = &self.watches[number];
        let (path, watcher) = (watch.path, watch.watcher);
        let (next, previous) = (watch.next_of_path, watch.previous_of_path);
        let (next_of_watcher, previous_of_watcher) =
            (watch.next_of_watcher, watch.previous_of_watcher);
        if next != NONE {
            self.watches[next].previous_of_path = previous;
        }
        if previous == NONE {
            self.paths[path].first = next;
        } else {
            self.watches[previous].next_of_path = next;
        }
        if next_of_watcher != NONE {
            self.watches[next_of_watcher].previous_of_watcher = previous_of_watcher;
        }
        if previous_of_watcher == NONE {
            self.watchers[watcher].first = next_of_watcher;
        } else {
            self.watches[previous_of_watcher].next_of_watcher = next_of_watcher;
        }
        let hash = self.hash_state.hash_one((path, watcher));
        if let Ok(entry) = self.watch_index.find_entry(hash, |&other| other == number) {
            entry.remove();
        }
        self.watches.remove(number);
        if self.paths[path].first == NONE {
            self.remove_path(path);
        }
        if self.watchers[watcher].first == NONE {
            self.watcher_index.remove(&self.watchers[watcher].id);
            self.watchers.remove(watcher);
        }
    }

    fn remove_path(&mut self, number: u32) {
        let hash = spread(self.paths[number].hash);
        if let Ok(entry) = self.path_index.find_entry(hash, |&other| other == number) {
            entry.remove();
        }
        self.paths.remove(number);
    }
}
