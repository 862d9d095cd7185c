//! Where znodes lie in memory: records in chunks of fixed size, numbered, linked by number. What a
//! znode means, and which changes are allowed, is decided in `data_tree` and `apply`. No I/O.
//!
//! A million znodes have to fit in a quarter of a gigabyte, data included. So a record holds only
//! what every znode needs; what few need (children, an owner, …) is in a box of its own; name and
//! data share one allocation; and growing adds a chunk instead of copying everything.

use std::ops::{Index, IndexMut};

use znodefs::Zxid;

use super::acl_table::AclId;

/// A znode's place in the store. Numbers of deleted znodes are used again.
pub(super) type NodeNumber = u32;

/// No znode.
pub(super) const NONE: NodeNumber = u32::MAX;

/// The root of the tree; it is always there.
pub(super) const ROOT: NodeNumber = 0;

const CHUNK_BITS: u32 = 10;
const CHUNK_LENGTH: usize = 1 << CHUNK_BITS;

/// One znode.
#[derive(Debug)]
pub(super) struct Node {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    /// The name, then the data.
    body: Box<[u8]>,
    rare: Option<Box<Rare>>,
    pub parent: NodeNumber,
    /// The next sibling; the next free record when this one is free.
    pub next: NodeNumber,
    pub previous: NodeNumber,
    /// The hash of the whole path, so that the index can grow without walking paths.
    pub path_hash: u32,
    pub acl: AclId,
    pub version: i32,
    name_length: u32,
    data_is_null: bool,
    in_use: bool,
}

/// What most znodes do not have.
#[derive(Debug)]
pub(super) struct Rare {
    pub pzxid: Zxid,
    /// The owner as transactions and snapshots encode it.
    pub ephemeral_owner: i64,
    /// Number of children ever created.
    pub child_counter: i32,
    pub aversion: i32,
    pub num_children: i32,
    pub first_child: NodeNumber,
}

/// What a znode is created with.
#[derive(Debug)]
pub(super) struct NewNode<'a> {
    pub name: &'a str,
    pub data: Option<&'a [u8]>,
    pub czxid: Zxid,
    pub time_ms: i64,
    pub acl: AclId,
    pub path_hash: u32,
    pub ephemeral_owner: i64,
}

/// What a znode is restored from a snapshot with.
#[derive(Debug)]
pub(super) struct RestoredNode<'a> {
    pub name: &'a str,
    pub data: Option<&'a [u8]>,
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub pzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub aversion: i32,
    pub child_counter: i32,
    pub ephemeral_owner: i64,
    pub acl: AclId,
}

fn body_of(name: &[u8], data: Option<&[u8]>) -> Box<[u8]> {
    let data = data.unwrap_or_default();
    let mut body = Vec::with_capacity(name.len() + data.len());
    body.extend_from_slice(name);
    body.extend_from_slice(data);
    body.into_boxed_slice()
}

impl Node {
    /// A znode that is linked nowhere yet.
    pub fn new(new: &NewNode<'_>) -> Node {
        let mut node = Node {
            czxid: new.czxid,
            mzxid: new.czxid,
            ctime: new.time_ms,
            mtime: new.time_ms,
            body: body_of(new.name.as_bytes(), new.data),
            rare: None,
            parent: NONE,
            next: NONE,
            previous: NONE,
            path_hash: new.path_hash,
            acl: new.acl,
            version: 0,
            name_length: new.name.len() as u32,
            data_is_null: new.data.is_none(),
            in_use: true,
        };
        if new.ephemeral_owner != 0 {
            node.rare_mut().ephemeral_owner = new.ephemeral_owner;
        }
        node
    }

    /// A znode as a snapshot holds it, linked nowhere yet and without its path's hash.
    pub fn restored(from: &RestoredNode<'_>) -> Node {
        let mut node = Node::new(&NewNode {
            name: from.name,
            data: from.data,
            czxid: from.czxid,
            time_ms: from.ctime,
            acl: from.acl,
            path_hash: 0,
            ephemeral_owner: from.ephemeral_owner,
        });
        node.mzxid = from.mzxid;
        node.mtime = from.mtime;
        node.version = from.version;
        if from.pzxid != from.czxid || from.child_counter != 0 || from.aversion != 0 {
            let rare = node.rare_mut();
            rare.pzxid = from.pzxid;
            rare.child_counter = from.child_counter;
            rare.aversion = from.aversion;
        }
        node
    }

    /// The last component of the path; empty for the root.
    pub fn name(&self) -> &str {
        // The body starts with the bytes of a `&str` of that length, in every constructor.
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    pub fn name_bytes(&self) -> &[u8] {
        &self.body[..self.name_length as usize]
    }

    /// The data; `None` is null.
    pub fn data(&self) -> Option<&[u8]> {
        (!self.data_is_null).then(|| &self.body[self.name_length as usize..])
    }

    pub fn data_length(&self) -> usize {
        self.body.len() - self.name_length as usize
    }

    pub fn set_data(&mut self, data: Option<&[u8]>) {
        let length = data.map_or(0, <[u8]>::len);
        let name_length = self.name_length as usize;
        if length == self.data_length() {
            self.body[name_length..].copy_from_slice(data.unwrap_or_default());
        } else {
            self.body = body_of(&self.body[..name_length], data);
        }
        self.data_is_null = data.is_none();
    }

    pub fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    /// The rare part, made when it was not there.
    pub fn rare_mut(&mut self) -> &mut Rare {
        let czxid = self.czxid;
        self.rare.get_or_insert_with(|| {
            Box::new(Rare {
                pzxid: czxid,
                ephemeral_owner: 0,
                child_counter: 0,
                aversion: 0,
                num_children: 0,
                first_child: NONE,
            })
        })
    }

    pub fn pzxid(&self) -> Zxid {
        self.rare().map_or(self.czxid, |rare| rare.pzxid)
    }

    pub fn ephemeral_owner(&self) -> i64 {
        self.rare().map_or(0, |rare| rare.ephemeral_owner)
    }

    pub fn child_counter(&self) -> i32 {
        self.rare().map_or(0, |rare| rare.child_counter)
    }

    pub fn aversion(&self) -> i32 {
        self.rare().map_or(0, |rare| rare.aversion)
    }

    pub fn num_children(&self) -> i32 {
        self.rare().map_or(0, |rare| rare.num_children)
    }

    pub fn first_child(&self) -> NodeNumber {
        self.rare().map_or(NONE, |rare| rare.first_child)
    }
}

/// All znodes, by number.
#[derive(Debug, Default)]
pub(super) struct NodeStore {
    chunks: Vec<Vec<Node>>,
    /// Records handed out so far, free ones included.
    length: u32,
    /// First of the list of free records, [`NONE`] when there is none.
    free: Option<NodeNumber>,
    count: u32,
}

impl NodeStore {
    /// Number of znodes.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// One more than the highest number ever in use.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// The record with this number, unless it is free or was never used.
    pub fn get(&self, number: NodeNumber) -> Option<&Node> {
        let chunk = self.chunks.get((number >> CHUNK_BITS) as usize)?;
        chunk.get(number as usize % CHUNK_LENGTH).filter(|node| node.in_use)
    }

    /// Puts a znode into a free record, or behind the last.
    ///
    /// # Panics
    ///
    /// With more than 2^32 - 1 znodes; their names alone would not fit in memory.
    pub fn insert(&mut self, node: Node) -> NodeNumber {
        self.count += 1;
        if let Some(number) = self.free {
            let next = self[number].next;
            self.free = (next != NONE).then_some(next);
            self[number] = node;
            return number;
        }
        let number = self.length;
        assert!(number != NONE, "the tree holds 2^32 - 1 znodes, which is all it can number");
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LENGTH) {
            self.chunks.push(Vec::with_capacity(CHUNK_LENGTH));
        }
        // The chunk was pushed when its first number was handed out.
        self.chunks[(number >> CHUNK_BITS) as usize].push(node);
        self.length += 1;
        number
    }

    /// Takes a znode out; links to it must be gone already.
    pub fn remove(&mut self, number: NodeNumber) -> Node {
        let next = self.free.unwrap_or(NONE);
        let free = Node {
            czxid: Zxid::ZERO,
            mzxid: Zxid::ZERO,
            ctime: 0,
            mtime: 0,
            body: Box::default(),
            rare: None,
            parent: NONE,
            next,
            previous: NONE,
            path_hash: 0,
            acl: AclId::OPEN,
            version: 0,
            name_length: 0,
            data_is_null: true,
            in_use: false,
        };
        self.free = Some(number);
        self.count -= 1;
        std::mem::replace(&mut self[number], free)
    }

    /// Puts `child` first into its parent's list of children.
    pub fn link(&mut self, parent: NodeNumber, child: NodeNumber) {
        let rare = self[parent].rare_mut();
        let first = std::mem::replace(&mut rare.first_child, child);
        rare.num_children += 1;
        if first != NONE {
            self[first].previous = child;
        }
        let node = &mut self[child];
        node.parent = parent;
        node.next = first;
        node.previous = NONE;
    }

    /// Takes `child` out of its parent's list of children.
    pub fn unlink(&mut self, child: NodeNumber) {
        let (parent, next, previous) = {
            let node = &self[child];
            (node.parent, node.next, node.previous)
        };
        if next != NONE {
            self[next].previous = previous;
        }
        let rare = self[parent].rare_mut();
        rare.num_children -= 1;
        if previous == NONE {
            rare.first_child = next;
        } else {
            self[previous].next = next;
        }
    }

    /// The numbers of a znode's children, the youngest first.
    pub fn children(&self, parent: NodeNumber) -> impl Iterator<Item = NodeNumber> + '_ {
        let first = self[parent].first_child();
        std::iter::successors((first != NONE).then_some(first), |&child| {
            let next = self[child].next;
            (next != NONE).then_some(next)
        })
    }
}

impl Index<NodeNumber> for NodeStore {
    type Output = Node;

    fn index(&self, number: NodeNumber) -> &Node {
        &self.chunks[(number >> CHUNK_BITS) as usize][number as usize % CHUNK_LENGTH]
    }
}

impl IndexMut<NodeNumber> for NodeStore {
    fn index_mut(&mut self, number: NodeNumber) -> &mut Node {
        &mut self.chunks[(number >> CHUNK_BITS) as usize][number as usize % CHUNK_LENGTH]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_plain_znode_stays_small() {
        // A million znodes of 100 bytes must fit in 250 MB.
        assert!(size_of::<Node>() <= 88, "{}", size_of::<Node>());
    }
}
