//! Fuzzy snapshots: the tree as blocks of bytes, written while transactions go on being applied
//! between two blocks. The tree that such blocks make is put together in `restore`; files, checksums
//! and names are the persistence's. No I/O.
//!
//! A snapshot starts with the last transaction applied when it was begun; blocks may show later ones.
//! Replaying everything behind that zxid settles what came in between: a znode that the cursor
//! passed before it was created is created again, one that was deleted behind the cursor is deleted
//! again, and one whose parent was another by the time the parent was passed is left out when the
//! tree is restored, since both were created, or are deleted, in what is replayed.
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
use super::data_tree::DataTree;
use super::node_store::{NONE, NodeNumber};
use crate::codec;
use crate::txn::SessionRecord;

/// Sessions in one record: what is done between two looks at the block's size.
const SESSIONS_PER_RECORD: usize = 256;

/// What a block is made of, one behind the other.
#[derive(Serialize, Deserialize)]
pub(super) enum SnapshotRecord<'a> {
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
pub(super) struct NodeRecord<'a> {
    pub number: NodeNumber,
    pub parent: NodeNumber,
    pub parent_czxid: Zxid,
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub pzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub aversion: i32,
    pub child_counter: i32,
    pub ephemeral_owner: i64,
    pub acl: u32,
    #[serde(borrow)]
    pub name: &'a str,
    #[serde(borrow)]
    pub data: Option<RawBytes<'a>>,
}

/// Bytes that are written and read in one piece, borrowed from the block.
#[derive(Clone, Copy)]
pub(super) struct RawBytes<'a>(pub &'a [u8]);

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
}
