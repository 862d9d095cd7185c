//! Finding a znode by its path: one probe of a table that stores only numbers. No I/O.
//!
//! A path's hash is built component by component, so that the hash of a child follows from its
//! parent's hash and its name: a creation or a restored snapshot hashes every byte once.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::node_store::{NodeNumber, NodeStore, ROOT};

/// Hashes paths under a secret seed.
#[derive(Clone, Debug)]
pub(super) struct PathHasher {
    seed: u64,
}

impl PathHasher {
    pub const ROOT_HASH: u32 = 0;

    pub fn new(seed: u64) -> PathHasher {
        PathHasher { seed }
    }

    /// The hash of the child `name` of a path with hash `parent`.
    pub fn child(&self, parent: u32, name: &[u8]) -> u32 {
        let parent = u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut hasher = FixedState::with_seed(self.seed ^ parent).build_hasher();
        hasher.write(name);
        hasher.finish() as u32
    }

    /// The hash of a path, or of any text.
    pub fn path(&self, path: &str) -> u32 {
        let Some(inner) = path.strip_prefix('/') else {
            // No path at all; but watches may be set on any text.
            return self.child(!PathHasher::ROOT_HASH, path.as_bytes());
        };
        if inner.is_empty() {
            return PathHasher::ROOT_HASH;
        }
        inner.split('/').fold(PathHasher::ROOT_HASH, |hash, name| self.child(hash, name.as_bytes()))
    }
}

const SHARD_BITS: u32 = 10;
const SHARDS: usize = 1 << SHARD_BITS;

/// The table that a hash belongs to: its highest bits.
fn shard_of(hash: u32) -> usize {
    (hash >> (u32::BITS - SHARD_BITS)) as usize
}

/// Spreads the other bits over the two ends of the word that a table uses.
pub(super) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The index: many small tables, so that growing one holds nobody up.
#[derive(Debug)]
pub(super) struct PathIndex {
    pub hasher: PathHasher,
    shards: Vec<HashTable<NodeNumber>>,
}

impl PathIndex {
    pub fn new(seed: u64, capacity: usize) -> PathIndex {
        let shards = (0..SHARDS).map(|_| HashTable::with_capacity(capacity / SHARDS)).collect();
        PathIndex { hasher: PathHasher::new(seed), shards }
    }

    /// Makes room for so many znodes.
    pub fn reserve(&mut self, count: usize) {
        let hasher = |_: &NodeNumber| 0;
        for shard in &mut self.shards {
            if shard.is_empty() {
                shard.reserve(count / SHARDS, hasher);
            }
        }
    }

    /// The znode with this path. Any text may be asked for.
    pub fn find(&self, store: &NodeStore, path: &str) -> Option<NodeNumber> {
        if path.len() <= 1 {
            return (path.is_empty() || path == "/").then_some(ROOT);
        }
        if !path.starts_with('/') {
            return None;
        }
        let hash = self.hasher.path(path);
        let matches = |&number: &NodeNumber| has_path(store, number, hash, path.as_bytes());
        self.shards[shard_of(hash)].find(spread(hash), matches).copied()
    }

    /// The child of a znode by its name.
    pub fn find_child(
        &self,
        store: &NodeStore,
        parent: NodeNumber,
        name: &str,
    ) -> Option<NodeNumber> {
        let hash = self.hasher.child(store[parent].path_hash, name.as_bytes());
        let matches = |&number: &NodeNumber| {
            let node = store.view(number);
            node.path_hash == hash && node.parent == parent && node.name_bytes() == name.as_bytes()
        };
        self.shards[shard_of(hash)].find(spread(hash), matches).copied()
    }

    /// Adds a znode that is linked to its parent. The root is not in the table.
    pub fn insert(&mut self, store: &NodeStore, number: NodeNumber) {
        let hash = store[number].path_hash;
        let rehash = |&other: &NodeNumber| spread(store[other].path_hash);
        self.shards[shard_of(hash)].insert_unique(spread(hash), number, rehash);
    }

    /// The order in which adding znodes stays longest within one small table.
    pub fn insertion_order(
        &self,
        store: &NodeStore,
        numbers: impl Iterator<Item = NodeNumber> + Clone,
    ) -> Vec<NodeNumber> {
        let mut ends = [0_usize; SHARDS + 1];
        for number in numbers.clone() {
            ends[shard_of(store[number].path_hash) + 1] += 1;
        }
        for shard in 0..SHARDS {
            ends[shard + 1] += ends[shard];
        }
        let mut order = vec![ROOT; ends[SHARDS]];
        for number in numbers {
            let end = &mut ends[shard_of(store[number].path_hash)];
            order[*end] = number;
            *end += 1;
        }
        order
    }

    /// Adds a znode that is linked to its parent, unless there is one of the same path: then that
    /// one.
    pub fn insert_or_find(&mut self, store: &NodeStore, child: NodeNumber) -> Option<NodeNumber> {
        let (hash, parent) = (store[child].path_hash, store[child].parent);
        let name = store.view(child).name_bytes();
        let matches = |&number: &NodeNumber| {
            let node = store.view(number);
            node.path_hash == hash && node.parent == parent && node.name_bytes() == name
        };
        let rehash = |&other: &NodeNumber| spread(store[other].path_hash);
        match self.shards[shard_of(hash)].entry(spread(hash), matches, rehash) {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(entry) => {
                entry.insert(child);
                None
            }
        }
    }

    pub fn remove(&mut self, store: &NodeStore, number: NodeNumber) {
        let hash = store[number].path_hash;
        let shard = &mut self.shards[shard_of(hash)];
        if let Ok(entry) = shard.find_entry(spread(hash), |&other| other == number) {
            entry.remove();
        }
    }
}

/// Whether a znode's path is `path`, compared from its end up through the parents.
fn has_path(store: &NodeStore, number: NodeNumber, hash: u32, path: &[u8]) -> bool {
    if store[number].path_hash != hash {
        return false;
    }
    let mut number = number;
    let mut rest = path;
    while number != ROOT {
        let node = store.view(number);
        let Some(front) = rest.strip_suffix(node.name_bytes()) else { return false };
        let Some(front) = front.strip_suffix(b"/") else { return false };
        rest = front;
        number = node.parent;
    }
    rest.is_empty()
}
