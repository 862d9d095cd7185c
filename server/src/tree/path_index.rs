//! Finding a znode by its path: one probe of a table that stores only numbers. No I/O.
//!
//! A path's hash is built component by component, so that the hash of a child follows from its
//! parent's hash and its name: a creation or a restored snapshot hashes every byte once.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

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

    /// The hash of a path that starts with `/`.
    pub fn path(&self, path: &str) -> u32 {
        if path.len() <= 1 {
            return PathHasher::ROOT_HASH;
        }
        let components = path[1..].split('/');
        components.fold(PathHasher::ROOT_HASH, |hash, name| self.child(hash, name.as_bytes()))
    }
}

/// Spreads the 32 bits over the two ends of the word that the table uses.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// The table.
#[derive(Debug)]
pub(super) struct PathIndex {
    pub hasher: PathHasher,
    table: HashTable<NodeNumber>,
}

impl PathIndex {
    pub fn new(seed: u64, capacity: usize) -> PathIndex {
        PathIndex { hasher: PathHasher::new(seed), table: HashTable::with_capacity(capacity) }
    }

    /// An empty table with the same hashes.
    pub fn emptied(&self, capacity: usize) -> PathIndex {
        PathIndex { hasher: self.hasher.clone(), table: HashTable::with_capacity(capacity) }
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
        self.table.find(spread(hash), matches).copied()
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
            let node = &store[number];
            node.path_hash == hash && node.parent == parent && node.name_bytes() == name.as_bytes()
        };
        self.table.find(spread(hash), matches).copied()
    }

    /// Adds a znode that is linked to its parent. The root is not in the table.
    pub fn insert(&mut self, store: &NodeStore, number: NodeNumber) {
        let hash = spread(store[number].path_hash);
        self.table.insert_unique(hash, number, |&other| spread(store[other].path_hash));
    }

    pub fn remove(&mut self, store: &NodeStore, number: NodeNumber) {
        let hash = spread(store[number].path_hash);
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == number) {
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
        let node = &store[number];
        let Some(front) = rest.strip_suffix(node.name_bytes()) else { return false };
        let Some(front) = front.strip_suffix(b"/") else { return false };
        rest = front;
        number = node.parent;
    }
    rest.is_empty()
}
