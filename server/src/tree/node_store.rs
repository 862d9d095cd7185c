//! Where znodes lie in memory: records in chunks of fixed size, numbered, linked by number. What a
//! znode means, and which changes are allowed, is decided in `data_tree` and `apply`. No I/O.
//!
//! A million znodes have to fit in a quarter of a gigabyte, data included. So a record holds only
//! what every znode needs; what few need (children, an owner, …) is apart, and so are name and data,
//! in one piece; and growing adds a chunk instead of copying everything.

use std::ops::{Index, IndexMut};

use znodefs::Zxid;

use super::acl_table::AclId;
use super::body_store::{BodyStore, Slot};
use super::chunked_vec::ChunkedVec;

/// A znode's place in the store. Numbers of deleted znodes are used again.
pub(super) type NodeNumber = u32;

/// No znode.
pub(super) const NONE: NodeNumber = u32::MAX;

/// The root of the tree; it is always there.
pub(super) const ROOT: NodeNumber = 0;

/// Names come in frames, whose lengths are far below this.
const NAME_LENGTH_MAX: usize = (1 << 30) - 1;
const DATA_IS_NULL: u32 = 1 << 31;
const FREE: u32 = 1 << 30;

/// One znode.
#[derive(Debug)]
pub(super) struct Node {
    pub czxid: Zxid,
    pub mzxid: Zxid,
    pub ctime: i64,
    pub mtime: i64,
    pub parent: NodeNumber,
    /// The next sibling; the next free record when this one is free.
    pub next: NodeNumber,
    pub previous: NodeNumber,
    /// The hash of the whole path, so that the index can grow without walking paths.
    pub path_hash: u32,
    pub acl: AclId,
    pub version: i32,
    /// The place of its [`Rare`], [`NONE`] when it has none.
    rare: u32,
    /// The name, then the data.
    body: Slot,
    /// Bytes of the name; above them two bits: whether the data is null, whether this is free.
    name_length: u32,
    data_length: u32,
}

/// What most znodes do not have.
#[derive(Clone, Debug)]
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

/// What a znode is made of.
#[derive(Clone, Debug)]
pub(super) struct NewNode<'a> {
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
    pub path_hash: u32,
}

impl<'a> NewNode<'a> {
    /// A znode that a transaction creates.
    pub fn created(name: &'a str, data: Option<&'a [u8]>, zxid: Zxid, time_ms: i64) -> Self {
        NewNode {
            name,
            data,
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time_ms,
            mtime: time_ms,
            version: 0,
            aversion: 0,
            child_counter: 0,
            ephemeral_owner: 0,
            acl: AclId::OPEN,
            path_hash: 0,
        }
    }
}

/// A znode with what is stored apart from its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeView<'a> {
    store: &'a NodeStore,
    node: &'a Node,
}

impl Node {
    fn name_length(&self) -> usize {
        self.name_length as usize & NAME_LENGTH_MAX
    }

    fn is_free(&self) -> bool {
        self.name_length & FREE != 0
    }

    fn data_is_null(&self) -> bool {
        self.name_length & DATA_IS_NULL != 0
    }

    fn body_length(&self) -> usize {
        self.name_length() + self.data_length as usize
    }
}

impl<'a> NodeView<'a> {
    fn body(self) -> &'a [u8] {
        self.store.bodies.get(self.node.body, self.node.body_length())
    }

    /// The last component of the path; empty for the root.
    pub fn name(self) -> &'a str {
        // The body starts with the bytes of a `&str` of that length: that is all that is stored.
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    pub fn name_bytes(self) -> &'a [u8] {
        &self.body()[..self.node.name_length()]
    }

    /// The data; `None` is null.
    pub fn data(self) -> Option<&'a [u8]> {
        (!self.node.data_is_null()).then(|| &self.body()[self.node.name_length()..])
    }

    pub fn data_length(self) -> usize {
        self.node.data_length as usize
    }

    fn rare(self) -> Option<&'a Rare> {
        self.store.rares.get(self.node.rare)
    }

    pub fn pzxid(self) -> Zxid {
        self.rare().map_or(self.node.czxid, |rare| rare.pzxid)
    }

    pub fn ephemeral_owner(self) -> i64 {
        self.rare().map_or(0, |rare| rare.ephemeral_owner)
    }

    pub fn child_counter(self) -> i32 {
        self.rare().map_or(0, |rare| rare.child_counter)
    }

    pub fn aversion(self) -> i32 {
        self.rare().map_or(0, |rare| rare.aversion)
    }

    pub fn num_children(self) -> i32 {
        self.rare().map_or(0, |rare| rare.num_children)
    }

    pub fn first_child(self) -> NodeNumber {
        self.rare().map_or(NONE, |rare| rare.first_child)
    }
}

impl std::ops::Deref for NodeView<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node
    }
}

/// All znodes, by number.
#[derive(Debug, Default)]
pub(super) struct NodeStore {
    /// Free records included.
    nodes: ChunkedVec<Node>,
    bodies: BodyStore,
    rares: ChunkedVec<Rare>,
    free_rares: Vec<u32>,
    /// First of the list of free records.
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
        self.nodes.length()
    }

    /// The znode with this number, which must be in use.
    pub fn view(&self, number: NodeNumber) -> NodeView<'_> {
        NodeView { store: self, node: &self[number] }
    }

    /// The znode with this number, unless it is free or was never used.
    pub fn get(&self, number: NodeNumber) -> Option<NodeView<'_>> {
        let node = self.nodes.get(number).filter(|node| !node.is_free())?;
        Some(NodeView { store: self, node })
    }

    /// Stores a znode that is linked nowhere yet.
    ///
    /// # Panics
    ///
    /// With more than 2^32 - 1 znodes or a name of a gigabyte; neither comes through a frame or fits
    /// in memory.
    pub fn insert(&mut self, new: &NewNode<'_>) -> NodeNumber {
        assert!(new.name.len() <= NAME_LENGTH_MAX, "a znode's name is longer than a gigabyte");
        let data = new.data.unwrap_or_default();
        let is_plain = new.ephemeral_owner == 0
            && new.pzxid == new.czxid
            && new.child_counter == 0
            && new.aversion == 0;
        let node = Node {
            czxid: new.czxid,
            mzxid: new.mzxid,
            ctime: new.ctime,
            mtime: new.mtime,
            parent: NONE,
            next: NONE,
            previous: NONE,
            path_hash: new.path_hash,
            acl: new.acl,
            version: new.version,
            rare: NONE,
            body: self.bodies.insert(new.name.as_bytes(), data),
            name_length: new.name.len() as u32 | if new.data.is_none() { DATA_IS_NULL } else { 0 },
            data_length: data.len() as u32,
        };
        let number = self.insert_record(node);
        if !is_plain {
            let rare = self.rare_mut(number);
            rare.pzxid = new.pzxid;
            rare.ephemeral_owner = new.ephemeral_owner;
            rare.child_counter = new.child_counter;
            rare.aversion = new.aversion;
        }
        number
    }

    fn insert_record(&mut self, node: Node) -> NodeNumber {
        self.count += 1;
        if let Some(number) = self.free {
            let next = self[number].next;
            self.free = (next != NONE).then_some(next);
            self[number] = node;
            return number;
        }
        self.nodes.push(node)
    }

    /// Takes a znode out; links to it must be gone already.
    pub fn remove(&mut self, number: NodeNumber) {
        let next = self.free.unwrap_or(NONE);
        let node = &mut self.nodes[number];
        self.bodies.remove(node.body, node.body_length());
        if node.rare != NONE {
            self.free_rares.push(node.rare);
        }
        node.next = next;
        node.rare = NONE;
        node.name_length = FREE;
        node.data_length = 0;
        self.free = Some(number);
        self.count -= 1;
    }

    /// Replaces a znode's data.
    pub fn set_data(&mut self, number: NodeNumber, data: Option<&[u8]>) {
        let node = &mut self.nodes[number];
        let bytes = data.unwrap_or_default();
        let name_length = node.name_length();
        let (old_length, new_length) = (node.body_length(), name_length + bytes.len());
        if BodyStore::share_slot(old_length, new_length) {
            let body = self.bodies.get_mut(node.body, new_length);
            body[name_length..].copy_from_slice(bytes);
        } else {
            let name = self.bodies.get(node.body, old_length)[..name_length].to_vec();
            self.bodies.remove(node.body, old_length);
            node.body = self.bodies.insert(&name, bytes);
        }
        node.data_length = bytes.len() as u32;
        node.name_length = name_length as u32 | if data.is_none() { DATA_IS_NULL } else { 0 };
    }

    /// The rare part of a znode, made when it was not there.
    pub fn rare_mut(&mut self, number: NodeNumber) -> &mut Rare {
        let place = match self[number].rare {
            NONE => {
                let rare = Rare {
                    pzxid: self[number].czxid,
                    ephemeral_owner: 0,
                    child_counter: 0,
                    aversion: 0,
                    num_children: 0,
                    first_child: NONE,
                };
                let place = match self.free_rares.pop() {
                    Some(place) => {
                        self.rares[place] = rare;
                        place
                    }
                    None => self.rares.push(rare),
                };
                self[number].rare = place;
                place
            }
            place => place,
        };
        &mut self.rares[place]
    }

    /// Puts `child` first into its parent's list of children.
    pub fn link(&mut self, parent: NodeNumber, child: NodeNumber) {
        let rare = self.rare_mut(parent);
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
        let rare = self.rare_mut(parent);
        rare.num_children -= 1;
        if previous == NONE {
            rare.first_child = next;
        } else {
            self[previous].next = next;
        }
    }

    /// The numbers of a znode's children, the youngest first.
    pub fn children(&self, parent: NodeNumber) -> impl Iterator<Item = NodeNumber> + '_ {
        let first = self.view(parent).first_child();
        std::iter::successors((first != NONE).then_some(first), |&child| {
            let next = self[child].next;
            (next != NONE).then_some(next)
        })
    }
}

impl Index<NodeNumber> for NodeStore {
    type Output = Node;

    fn index(&self, number: NodeNumber) -> &Node {
        &self.nodes[number]
    }
}

impl IndexMut<NodeNumber> for NodeStore {
    fn index_mut(&mut self, number: NodeNumber) -> &mut Node {
        &mut self.nodes[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_plain_znode_stays_small() {
        // A million znodes of 100 bytes must fit in 250 MB.
        assert_eq!(size_of::<Node>(), 72);
        let mut store = NodeStore::default();
        store.insert(&NewNode::created("plain", Some(b"data"), Zxid(1), 1));
        assert_eq!(store.rares.length(), 0);
    }

    #[test]
    fn data_of_any_length_replaces_data_of_any_other_and_leaves_the_name() {
        let mut store = NodeStore::default();
        let number = store.insert(&NewNode::created("name", None, Zxid(1), 1));
        let lengths = [0, 1, 4, 3, 5, 1020, 1021, 2000, 2000, 1020, 0, 4];
        for (place, length) in lengths.into_iter().enumerate() {
            let data = vec![place as u8; length];
            store.set_data(number, Some(&data));
            assert_eq!(store.view(number).data(), Some(&data[..]));
            store.set_data(number, (place % 2 == 0).then_some(&data));
            assert_eq!(store.view(number).data().is_some(), place % 2 == 0);
            assert_eq!(store.view(number).name(), "name");
        }
    }
}
