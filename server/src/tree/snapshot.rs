//! Fuzzy snapshots: the tree as blocks of bytes, written while transactions go on being applied
//! between two blocks, and the tree that such blocks make. Files, checksums and names are the
//! persistence's. No I/O.
//!
//! A snapshot starts with the last transaction applied when it was begun; blocks may show later ones.
//! Replaying everything behind that zxid settles what came in between: a znode that the cursor
//! passed before it was created is created again, one that was deleted behind the cursor is deleted
//! again, and one whose parent was another by the time the parent was passed is left out here,
//! since both were created, or are deleted, in what is replayed.
//!
//! A znode names its parent by number and czxid: numbers are used again, but never in the same
//! transaction's final state.

use std::marker::PhantomData;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use znodefs::{Acl, SessionId, Zxid};

use super::acl_table::AclId;
use super::data_tree::{CONFIG_PATH, DataTree, QUOTA_PATH, ZOOKEEPER_PATH};
use super::node_store::{NONE, NewNode, NodeNumber, ROOT};
use super::path_index::PathHasher;
use crate::codec::{self, CodecError};
use crate::txn::SessionRecord;

/// Sessions in one record: what is done between two looks at the block's size.
const SESSIONS_PER_RECORD: usize = 256;

/// What a block is made of, one behind the other.
#[derive(Serialize, Deserialize)]
enum SnapshotRecord<'a> {
    /// First of all.
    Begin {
        /// The last transaction that is in the snapshot for certain.
        zxid: Zxid,
    },
    /// Some of the sessions.
    Sessions(Vec<SessionRecord>),
    /// A list that znodes behind it have; it replaces an earlier one of the same number.
    Acl { id: u32, list: Arc<[Acl]> },
    /// A znode.
    #[serde(borrow)]
    Node(NodeRecord<'a>),
    /// Last of all.
    End {
        /// Number of znodes.
        nodes: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct NodeRecord<'a> {
    number: NodeNumber,
    parent: NodeNumber,
    parent_czxid: Zxid,
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
    ctime: i64,
    mtime: i64,
    version: i32,
    aversion: i32,
    child_counter: i32,
    ephemeral_owner: i64,
    acl: u32,
    #[serde(borrow)]
    name: &'a str,
    #[serde(borrow)]
    data: Option<RawBytes<'a>>,
}

/// Bytes that are written and read in one piece, borrowed from the block.
#[derive(Clone, Copy)]
struct RawBytes<'a>(&'a [u8]);

impl Serialize for RawBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawBytes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BorrowedBytes<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for BorrowedBytes<'a> {
            type Value = RawBytes<'a>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<RawBytes<'a>, E> {
                Ok(RawBytes(bytes))
            }
        }
        deserializer.deserialize_bytes(BorrowedBytes(PhantomData))
    }
}

#[derive(Clone, Copy, Debug)]
enum Position {
    Begin,
    /// Sessions behind this one.
    Sessions(Option<SessionId>),
    Nodes(NodeNumber),
    Ended,
}

/// How far a snapshot has come.
#[derive(Debug)]
pub struct SnapshotCursor {
    zxid: Zxid,
    position: Position,
    nodes: u64,
    /// The lists written so far; the references keep a list's address from being used again.
    acls: HashMap<AclId, Arc<[Acl]>>,
}

impl SnapshotCursor {
    /// Begins a snapshot of the tree as it is now.
    pub fn new(tree: &DataTree) -> SnapshotCursor {
        SnapshotCursor {
            zxid: tree.last_applied(),
            position: Position::Begin,
            nodes: 0,
            acls: HashMap::new(),
        }
    }

    /// The last transaction that is in the snapshot for certain: what comes behind it has to be
    /// replayed.
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }
}

fn put(record: &SnapshotRecord<'_>, out: &mut Vec<u8>) {
    codec::encode_into(record, out).expect("writing into memory does not fail");
}

impl DataTree {
    /// Appends the next block of a snapshot to `out`; whether there are more. The block ends with
    /// the first record that makes it at least `max_bytes` long, so that one lock is held for
    /// about as long as copying that much takes. Transactions may be applied between two calls.
    pub fn snapshot_block(
        &self,
        cursor: &mut SnapshotCursor,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let end = out.len().saturating_add(max_bytes.max(1));
        while out.len() < end {
            match cursor.position {
                Position::Begin => {
                    put(&SnapshotRecord::Begin { zxid: cursor.zxid }, out);
                    cursor.position = Position::Sessions(None);
                }
                Position::Sessions(after) => {
                    cursor.position = self.put_sessions(after, out);
                }
                Position::Nodes(number) if number < self.store.length() => {
                    if self.store.get(number).is_some() {
                        self.put_node(cursor, number, out);
                    }
                    cursor.position = Position::Nodes(number + 1);
                }
                Position::Nodes(_) => {
                    put(&SnapshotRecord::End { nodes: cursor.nodes }, out);
                    cursor.position = Position::Ended;
                    return false;
                }
                Position::Ended => return false,
            }
        }
        true
    }

    fn put_sessions(&self, after: Option<SessionId>, out: &mut Vec<u8>) -> Position {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let sessions: Vec<SessionRecord> = self
            .sessions
            .range::<SessionId, _>(range)
            .take(SESSIONS_PER_RECORD)
            .map(|(&session_id, &timeout_ms)| SessionRecord { session_id, timeout_ms })
            .collect();
        let Some(last) = sessions.last() else { return Position::Nodes(0) };
        let position = Position::Sessions(Some(last.session_id));
        put(&SnapshotRecord::Sessions(sessions), out);
        position
    }

    fn put_node(&self, cursor: &mut SnapshotCursor, number: NodeNumber, out: &mut Vec<u8>) {
        let node = self.store.view(number);
        let list = self.acls.list(node.acl);
        if !cursor.acls.get(&node.acl).is_some_and(|written| Arc::ptr_eq(written, list)) {
            cursor.acls.insert(node.acl, list.clone());
            put(&SnapshotRecord::Acl { id: node.acl.0, list: list.clone() }, out);
        }
        let parent_czxid = match node.parent {
            NONE => Zxid::ZERO,
            parent => self.store[parent].czxid,
        };
        let record = NodeRecord {
            number,
            parent: node.parent,
            parent_czxid,
            czxid: node.czxid,
            mzxid: node.mzxid,
            pzxid: node.pzxid(),
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            aversion: node.aversion(),
            child_counter: node.child_counter(),
            ephemeral_owner: node.ephemeral_owner(),
            acl: node.acl.0,
            name: node.name(),
            data: node.data().map(RawBytes),
        };
        put(&SnapshotRecord::Node(record), out);
        cursor.nodes += 1;
    }

    /// Makes a tree of the blocks of a snapshot. Nothing that is in the blocks, garbage included,
    /// makes this panic, or allocate more than a small multiple of their length.
    pub fn restore<E>(
        hash_seed: u64,
        blocks: impl IntoIterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<DataTree, RestoreError<E>> {
        let mut restoring = Restoring::new(hash_seed);
        for block in blocks {
            let block = block.map_err(RestoreError::Read)?;
            restoring.block(&block)?;
        }
        restoring.finish()
    }
}

/// Why blocks are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError<E> {
    /// A block could not be had.
    #[error(transparent)]
    Read(E),
    /// A block holds something that is no record.
    #[error("snapshot: {0}")]
    Codec(#[from] CodecError),
    /// The records do not make a tree.
    #[error("snapshot: {0}")]
    Malformed(&'static str),
}

struct Restoring {
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

impl Restoring {
    fn new(hash_seed: u64) -> Restoring {
        Restoring {
            tree: DataTree::without_nodes(hash_seed, 0),
            begun: false,
            ended: false,
            acls: HashMap::new(),
            numbers: Vec::new(),
            parents: Vec::new(),
        }
    }

    fn block<E>(&mut self, block: &[u8]) -> Result<(), RestoreError<E>> {
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

    fn finish<E>(mut self) -> Result<DataTree, RestoreError<E>> {
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
