//! The tree that the blocks of a fuzzy snapshot make. What came between two blocks is settled by
//! replaying the log behind it, as `snapshot` says. No I/O.

use std::sync::Arc;

use hashbrown::HashMap;
use znodefs::{Acl, Zxid};

use super::data_tree::{CONFIG_PATH, DataTree, QUOTA_PATH, ZOOKEEPER_PATH};
use super::node_store::{NewNode, NodeNumber, ROOT};
use super::path_index::PathHasher;
use super::snapshot::{NodeRecord, SnapshotRecord};
use crate::codec::{self, CodecError};

/// Why blocks are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A block holds something that is no record.
    #[error("snapshot: {0}")]
    Codec(#[from] CodecError),
    /// The records do not make a tree.
    #[error("snapshot: {0}")]
    Malformed(&'static str),
}

/// Makes a tree of the blocks of a snapshot. Nothing that is in the blocks, garbage included, makes
/// this panic, or allocate more than a small multiple of their length.
#[derive(Debug)]
pub struct TreeRestorer {
    tree: DataTree,
    begun: bool,
    ended: bool,
    acls: HashMap<u32, Arc<[Acl]>>,
    /// The number each restored znode had, ascending; its place is its number here.
    numbers: Vec<NodeNumber>,
    /// The parent that each restored znode named.
    parents: Vec<(NodeNumber, Zxid)>,
}

/// What is known of a restored znode while paths are worked out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Linked {
    Waiting,
    /// On the way up that is being walked.
    Visiting,
    /// Linked; the length of its path in bytes, counting the root as none.
    At(u32),
    Dropped,
}

impl TreeRestorer {
    /// Nothing yet. `hash_seed` is that of [`DataTree::new`].
    pub fn new(hash_seed: u64) -> TreeRestorer {
        TreeRestorer {
            tree: DataTree::without_nodes(hash_seed, 0),
            begun: false,
            ended: false,
            acls: HashMap::new(),
            numbers: Vec::new(),
            parents: Vec::new(),
        }
    }

    /// Takes the next block.
    pub fn block(&mut self, block: &[u8]) -> Result<(), RestoreError> {
        let mut rest = block;
        while !rest.is_empty() {
            let (record, used) = codec::decode_front(rest)?;
            rest = &rest[used..];
            self.record(record).map_err(RestoreError::Malformed)?;
        }
        Ok(())
    }

    fn record(&mut self, record: SnapshotRecord<'_>) -> Result<(), &'static str> {
        if self.ended {
            return Err("something follows its end");
        }
        match record {
            SnapshotRecord::Begin { zxid } if !self.begun => {
                self.begun = true;
                self.tree.last_applied = zxid;
            }
            _ if !self.begun => return Err("its beginning is missing"),
            SnapshotRecord::Begin { .. } => return Err("it begins twice"),
            SnapshotRecord::Sessions(sessions) => {
                let sessions = sessions.into_iter();
                self.tree.sessions.extend(sessions.map(|one| (one.session_id, one.timeout_ms)));
            }
            SnapshotRecord::Acl { id, list } => {
                self.acls.insert(id, list);
            }
            SnapshotRecord::Node(record) => self.node(&record)?,
            SnapshotRecord::End { nodes } => {
                if nodes != self.numbers.len() as u64 {
                    return Err("znodes are missing");
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    fn node(&mut self, record: &NodeRecord<'_>) -> Result<(), &'static str> {
        if self.numbers.last().is_some_and(|&last| last >= record.number) {
            return Err("its znodes are out of order");
        }
        let is_root = record.number == ROOT;
        if is_root != self.numbers.is_empty() || is_root != record.name.is_empty() {
            return Err("the root is not its first znode");
        }
        if record.name.contains('/') {
            return Err("a znode's name has a slash");
        }
        let list = self.acls.get(&record.acl).ok_or("an ACL is missing")?;
        let acl = self.tree.acls.acquire(list);
        let number = self.tree.store.insert(&NewNode {
            name: record.name,
            data: record.data.map(|data| data.0),
            czxid: record.czxid,
            mzxid: record.mzxid,
            pzxid: record.pzxid,
            ctime: record.ctime,
            mtime: record.mtime,
            version: record.version,
            aversion: record.aversion,
            child_counter: record.child_counter,
            ephemeral_owner: record.ephemeral_owner,
            acl,
            path_hash: 0,
        });
        debug_assert_eq!(number as usize, self.numbers.len());
        self.numbers.push(record.number);
        self.parents.push((record.parent, record.parent_czxid));
        Ok(())
    }

    /// The restored number of the znode that had `number`.
    fn restored_number(&self, number: NodeNumber) -> Option<NodeNumber> {
        // Without deletions, numbers are what they were.
        if self.numbers.get(number as usize) == Some(&number) {
            return Some(number);
        }
        self.numbers.binary_search(&number).ok().map(|place| place as NodeNumber)
    }

    /// The restored parent of a restored znode, if it is the one that was meant.
    fn parent_of(&self, number: NodeNumber) -> Option<NodeNumber> {
        let (parent, czxid) = self.parents[number as usize];
        let parent = self.restored_number(parent)?;
        (self.tree.store[parent].czxid == czxid).then_some(parent)
    }

    /// The tree, once all blocks are there.
    pub fn finish(mut self) -> Result<DataTree, RestoreError> {
        if !self.ended {
            return Err(RestoreError::Malformed("its end is missing"));
        }
        let count = self.numbers.len() as NodeNumber;
        if count == 0 {
            return Err(RestoreError::Malformed("it holds no znodes"));
        }
        let mut linked = vec![Linked::Waiting; count as usize];
        linked[ROOT as usize] = Linked::At(0);
        self.tree.store[ROOT].path_hash = PathHasher::ROOT_HASH;
        self.tree.data_size = 1 + self.tree.store.view(ROOT).data_length() as u64;
        let mut waiting = Vec::new();
        for number in 1..count {
            self.link(number, &mut linked, &mut waiting);
        }
        self.index(&mut linked);
        for number in 1..count {
            if linked[number as usize] == Linked::Dropped {
                self.tree.acls.release(self.tree.store[number].acl);
                self.tree.store.remove(number);
            }
        }
        for path in ["/", ZOOKEEPER_PATH, QUOTA_PATH, CONFIG_PATH] {
            if self.tree.find(path).is_none() {
                return Err(RestoreError::Malformed("a built-in znode is missing"));
            }
        }
        self.tree.rebuild_quotas();
        Ok(self.tree)
    }

    /// Links a znode to its parent, after its unlinked ancestors.
    fn link(&mut self, number: NodeNumber, linked: &mut [Linked], waiting: &mut Vec<NodeNumber>) {
        waiting.clear();
        let mut current = number;
        // Up to an ancestor whose fate is known.
        let mut fate = loop {
            match linked[current as usize] {
                Linked::Waiting => {}
                // A ring of parents, which only garbage has.
                Linked::Visiting => break Linked::Dropped,
                known => break known,
            }
            linked[current as usize] = Linked::Visiting;
            waiting.push(current);
            match self.parent_of(current) {
                Some(parent) => current = parent,
                None => break Linked::Dropped,
            }
        };
        let mut parent = current;
        while let Some(child) = waiting.pop() {
            if let Linked::At(length) = fate {
                fate = self.link_below(parent, child, length);
            }
            linked[child as usize] = fate;
            parent = child;
        }
    }

    fn link_below(&mut self, parent: NodeNumber, child: NodeNumber, parent_length: u32) -> Linked {
        let tree = &mut self.tree;
        let parent_hash = tree.store[parent].path_hash;
        let node = tree.store.view(child);
        let hash = tree.index.hasher.child(parent_hash, node.name_bytes());
        let length = parent_length.saturating_add(1 + node.name_bytes().len() as u32);
        tree.data_size += u64::from(length) + node.data_length() as u64;
        let owner = node.ephemeral_owner();
        tree.store[child].path_hash = hash;
        tree.store.link(parent, child);
        tree.index_owner(child, owner);
        Linked::At(length)
    }

    /// Puts all linked znodes into the index, and drops those whose path another has.
    fn index(&mut self, linked: &mut [Linked]) {
        let tree = &mut self.tree;
        tree.index.reserve(linked.len());
        let is_linked = |number: &NodeNumber| linked[*number as usize] != Linked::Dropped;
        let numbers = (1..linked.len() as NodeNumber).filter(is_linked);
        for number in tree.index.insertion_order(&tree.store, numbers) {
            let tree = &mut self.tree;
            if linked[number as usize] == Linked::Dropped {
                continue;
            }
            let Some(other) = tree.index.insert_or_find(&tree.store, number) else { continue };
            // The cursor passed a deleted znode and, later, its successor of the same name. What is
            // below the older one is as gone as itself.
            if tree.store[other].czxid < tree.store[number].czxid {
                self.drop_linked(other, linked);
                self.tree.index.insert(&self.tree.store, number);
            } else {
                self.drop_linked(number, linked);
            }
        }
    }

    /// Unlinks a znode and everything below it again.
    fn drop_linked(&mut self, number: NodeNumber, linked: &mut [Linked]) {
        let mut below = Vec::new();
        self.tree.walk(number, |other| {
            below.push(other);
            true
        });
        for other in below.into_iter().rev() {
            let tree = &mut self.tree;
            if let Linked::At(length) = linked[other as usize] {
                tree.data_size -= u64::from(length) + tree.store.view(other).data_length() as u64;
            }
            tree.unindex_owner(other);
            tree.index.remove(&tree.store, other);
            tree.store.unlink(other);
            linked[other as usize] = Linked::Dropped;
        }
    }
}
