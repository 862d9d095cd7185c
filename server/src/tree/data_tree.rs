//! The tree of znodes and the table of sessions: state and reads. Changes are in `apply`, snapshots
//! in `snapshot`. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use znodefs::{Acl, Permissions, SessionId, Stat, Zxid};

use super::acl_table::AclTable;
use super::node_store::{NONE, NewNode, NodeNumber, NodeStore, NodeView, ROOT};
use super::owner::OwnerKind;
use super::path_index::{PathHasher, PathIndex};
use super::quota::Quotas;
use crate::txn::SessionRecord;

/// The znode below which the service keeps its own.
pub const ZOOKEEPER_PATH: &str = "/zookeeper";
/// The znode below which quotas are set.
pub const QUOTA_PATH: &str = "/zookeeper/quota";
/// The znode that holds the configuration of the ensemble.
pub const CONFIG_PATH: &str = "/zookeeper/config";

/// Whether a path is one of the znodes that cannot be deleted.
pub fn is_built_in(path: &str) -> bool {
    matches!(path, "/" | ZOOKEEPER_PATH | QUOTA_PATH | CONFIG_PATH)
}

/// What a path of so many bytes takes in the list of a closing session's ephemeral znodes, encoded
/// or decoded.
pub fn ephemeral_length(path_length: usize) -> usize {
    path_length + 32
}

/// The ephemeral znodes of one session.
#[derive(Debug, Default)]
pub(super) struct SessionEphemerals {
    pub numbers: BTreeSet<NodeNumber>,
    /// What their paths take in the list of the closing session.
    pub length: usize,
}

/// The replicated state: znodes, ACLs, sessions and how far it has come.
#[derive(Debug)]
pub struct DataTree {
    pub(super) store: NodeStore,
    pub(super) index: PathIndex,
    pub(super) acls: AclTable,
    pub(super) ephemerals: HashMap<SessionId, SessionEphemerals>,
    pub(super) ephemerals_count: usize,
    pub(super) containers: BTreeSet<NodeNumber>,
    pub(super) with_ttl: BTreeSet<NodeNumber>,
    /// Session to timeout in milliseconds.
    pub(super) sessions: BTreeMap<SessionId, i32>,
    pub(super) last_applied: Zxid,
    /// Lengths of all paths and data.
    pub(super) data_size: u64,
    pub(super) quotas: Quotas,
}

impl DataTree {
    /// The tree of a fresh replica: `/`, `/zookeeper`, `/zookeeper/quota` and `/zookeeper/config`,
    /// all with zxid 0 and empty data, and none of them counted as a creation by its parent.
    ///
    /// `hash_seed` keeps clients from choosing paths that collide in the index; it is not part of
    /// the replicated state.
    pub fn new(hash_seed: u64) -> DataTree {
        let mut tree = DataTree::without_nodes(hash_seed, 0);
        let built_in = |name, path_hash| NewNode {
            path_hash,
            ..NewNode::created(name, Some(b""), Zxid::ZERO, 0)
        };
        tree.acls.acquire(&Acl::open().into());
        let root = tree.store.insert(&built_in("", PathHasher::ROOT_HASH));
        debug_assert_eq!(root, ROOT);
        tree.data_size += 1;
        let mut numbers = [ROOT; 3];
        let paths = [(0, ZOOKEEPER_PATH), (1, QUOTA_PATH), (1, CONFIG_PATH)];
        for (place, (parent, path)) in paths.into_iter().enumerate() {
            let parent = if parent == 0 { ROOT } else { numbers[0] };
            let hash = tree.index.hasher.path(path);
            tree.acls.acquire(&Acl::open().into());
            numbers[place] = tree.attach(parent, &built_in(znodefs::path::name(path), hash));
            tree.data_size += path.len() as u64;
        }
        let config = numbers[2];
        let read_only: Arc<[Acl]> = Arc::new([Acl::world(Permissions::READ)]);
        tree.replace_acl(config, &read_only, -1);
        tree
    }

    /// A tree with nothing in it, not even a root: what a snapshot is restored into.
    pub(super) fn without_nodes(hash_seed: u64, capacity: usize) -> DataTree {
        DataTree {
            store: NodeStore::default(),
            index: PathIndex::new(hash_seed, capacity),
            acls: AclTable::new(hash_seed),
            ephemerals: HashMap::new(),
            ephemerals_count: 0,
            containers: BTreeSet::new(),
            with_ttl: BTreeSet::new(),
            sessions: BTreeMap::new(),
            last_applied: Zxid::ZERO,
            data_size: 0,
            quotas: Quotas::default(),
        }
    }

    /// Adds a znode below `parent` to store, index and the table of its kind.
    pub(super) fn attach(&mut self, parent: NodeNumber, new: &NewNode<'_>) -> NodeNumber {
        let number = self.store.insert(new);
        self.store.link(parent, number);
        self.index.insert(&self.store, number);
        self.index_owner(number, new.ephemeral_owner);
        number
    }

    pub(super) fn index_owner(&mut self, number: NodeNumber, stored_owner: i64) {
        match OwnerKind::from_stored(stored_owner) {
            OwnerKind::Persistent => {}
            OwnerKind::Ephemeral(session) => {
                let length = ephemeral_length(self.path_length(number));
                let ephemerals = self.ephemerals.entry(session).or_default();
                if ephemerals.numbers.insert(number) {
                    ephemerals.length += length;
                    self.ephemerals_count += 1;
                }
            }
            OwnerKind::Container => {
                self.containers.insert(number);
            }
            OwnerKind::Ttl { .. } => {
                self.with_ttl.insert(number);
            }
        }
    }

    pub(super) fn unindex_owner(&mut self, number: NodeNumber) {
        match OwnerKind::from_stored(self.store.view(number).ephemeral_owner()) {
            OwnerKind::Persistent => {}
            OwnerKind::Ephemeral(session) => {
                let length = ephemeral_length(self.path_length(number));
                let Some(ephemerals) = self.ephemerals.get_mut(&session) else { return };
                if ephemerals.numbers.remove(&number) {
                    ephemerals.length -= length;
                    self.ephemerals_count -= 1;
                }
                if ephemerals.numbers.is_empty() {
                    self.ephemerals.remove(&session);
                }
            }
            OwnerKind::Container => {
                self.containers.remove(&number);
            }
            OwnerKind::Ttl { .. } => {
                self.with_ttl.remove(&number);
            }
        }
    }

    pub(super) fn replace_acl(&mut self, number: NodeNumber, acl: &Arc<[Acl]>, aversion: i32) {
        let acl = self.acls.acquire(acl);
        let old = std::mem::replace(&mut self.store[number].acl, acl);
        if self.store.view(number).aversion() != aversion {
            self.store.rare_mut(number).aversion = aversion;
        }
        self.acls.release(old);
    }

    /// The last transaction that was applied.
    pub fn last_applied(&self) -> Zxid {
        self.last_applied
    }

    /// The znode with this path; any text may be asked for. The empty text is the root, as it is
    /// for ZooKeeper.
    pub fn node(&self, path: &str) -> Option<NodeRef<'_>> {
        self.find(path).map(|number| self.node_ref(number))
    }

    pub(super) fn find(&self, path: &str) -> Option<NodeNumber> {
        self.index.find(&self.store, path)
    }

    pub(super) fn node_ref(&self, number: NodeNumber) -> NodeRef<'_> {
        NodeRef { tree: self, number, node: self.store.view(number) }
    }

    /// The length of a znode's path in bytes, the root's being 0.
    pub(super) fn path_length(&self, number: NodeNumber) -> usize {
        let mut length = 0;
        let mut current = number;
        while current != ROOT && current != NONE {
            let node = self.store.view(current);
            length += 1 + node.name_bytes().len();
            current = node.parent;
        }
        length
    }

    /// The path of a znode, put together from the names of its ancestors.
    pub(super) fn path_of(&self, number: NodeNumber) -> String {
        let mut length = 0;
        let mut ancestors = smallvec::SmallVec::<[NodeNumber; 16]>::new();
        let mut current = number;
        while current != ROOT && current != NONE {
            ancestors.push(current);
            let node = self.store.view(current);
            length += 1 + node.name_bytes().len();
            current = node.parent;
        }
        if ancestors.is_empty() {
            return "/".to_string();
        }
        let mut path = String::with_capacity(length);
        for &ancestor in ancestors.iter().rev() {
            path.push('/');
            path.push_str(self.store.view(ancestor).name());
        }
        path
    }

    /// Number of znodes as ZooKeeper's `srvr` counts them, the root twice: 5 when fresh.
    pub fn node_count(&self) -> usize {
        self.store.count() + 1
    }

    /// Bytes of all paths and data together, as `mntr` shows them.
    pub fn approximate_data_size(&self) -> u64 {
        self.data_size
    }

    /// Number of ephemeral znodes.
    pub fn ephemerals_count(&self) -> usize {
        self.ephemerals_count
    }

    /// The timeout of an open session in milliseconds; `None` when it is not open.
    pub fn session_timeout_ms(&self, session_id: SessionId) -> Option<i32> {
        self.sessions.get(&session_id).copied()
    }

    /// The open sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = SessionRecord> + '_ {
        self.sessions
            .iter()
            .map(|(&session_id, &timeout_ms)| SessionRecord { session_id, timeout_ms })
    }

    /// Number of open sessions.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The paths of a session's ephemeral znodes.
    pub fn ephemerals(&self, session_id: SessionId) -> impl Iterator<Item = String> + '_ {
        let ephemerals = self.ephemerals.get(&session_id).into_iter();
        ephemerals.flat_map(|one| &one.numbers).map(|&number| self.path_of(number))
    }

    /// What the paths of a session's ephemeral znodes take in the list of its closing, bytes.
    pub fn ephemerals_length(&self, session_id: SessionId) -> usize {
        self.ephemerals.get(&session_id).map_or(0, |one| one.length)
    }

    /// The sessions that own ephemeral znodes, in no order.
    pub fn sessions_with_ephemerals(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.ephemerals.keys().copied()
    }

    /// The paths of all containers and znodes with a time to live.
    pub fn containers_and_ttls(&self) -> impl Iterator<Item = String> + '_ {
        self.containers.iter().chain(&self.with_ttl).map(|&number| self.path_of(number))
    }

    /// The containers and znodes with a time to live, without their paths.
    pub(crate) fn expirable_nodes(&self) -> impl Iterator<Item = NodeRef<'_>> + '_ {
        self.containers.iter().chain(&self.with_ttl).map(|&number| self.node_ref(number))
    }

    /// Number of a znode's descendants; `None` when there is no such znode.
    pub fn all_children_number(&self, path: &str) -> Option<usize> {
        let top = self.find(path)?;
        if top == ROOT {
            return Some(self.store.count() - 1);
        }
        let mut count = 0;
        self.walk(top, |_| {
            count += 1;
            true
        });
        Some(count - 1)
    }

    /// Visits a znode and its descendants, parents first; `visit` says whether to go below.
    pub(super) fn walk(&self, top: NodeNumber, mut visit: impl FnMut(NodeNumber) -> bool) {
        let mut waiting = vec![top];
        while let Some(number) = waiting.pop() {
            if visit(number) {
                waiting.extend(self.store.children(number));
            }
        }
    }
}

/// A znode, for reading.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    tree: &'a DataTree,
    number: NodeNumber,
    node: NodeView<'a>,
}

impl<'a> NodeRef<'a> {
    /// The data; `None` is null.
    pub fn data(self) -> Option<&'a [u8]> {
        self.node.data()
    }

    /// The last component of the path; empty for the root.
    pub fn name(self) -> &'a str {
        self.node.name()
    }

    /// The path, put together.
    pub fn path(self) -> String {
        self.tree.path_of(self.number)
    }

    /// The access control list.
    pub fn acl(self) -> &'a Arc<[Acl]> {
        self.tree.acls.list(self.node.acl)
    }

    /// What kind of znode it is.
    pub fn kind(self) -> OwnerKind {
        OwnerKind::from_stored(self.node.ephemeral_owner())
    }

    /// Whether it goes with a session.
    pub fn is_ephemeral(self) -> bool {
        self.kind().is_ephemeral()
    }

    /// Number of children ever created below it, which sequential names are made of.
    pub fn child_counter(self) -> i32 {
        self.node.child_counter()
    }

    /// Number of children.
    pub fn num_children(self) -> i32 {
        self.node.num_children()
    }

    /// The names of the children, in no order worth relying on.
    pub fn children(self) -> impl Iterator<Item = &'a str> + 'a {
        let tree = self.tree;
        tree.store.children(self.number).map(|child| tree.store.view(child).name())
    }

    /// The names of the children as bytes, for writing them out.
    pub(super) fn children_bytes(self) -> impl Iterator<Item = &'a [u8]> + 'a {
        let tree = self.tree;
        tree.store.children(self.number).map(|child| tree.store.view(child).name_bytes())
    }

    /// What the service says about it. The shown `cversion` counts creations and deletions:
    /// twice the creations less the children that are left.
    pub fn stat(self) -> Stat {
        let node = self.node;
        let num_children = node.num_children();
        Stat {
            czxid: node.czxid,
            mzxid: node.mzxid,
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            cversion: node.child_counter().wrapping_mul(2).wrapping_sub(num_children),
            aversion: node.aversion(),
            ephemeral_owner: self.kind().shown(),
            data_length: node.data_length() as i32,
            num_children,
            pzxid: node.pzxid(),
        }
    }
}

impl std::fmt::Debug for NodeRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeRef").field("path", &self.path()).field("stat", &self.stat()).finish()
    }
}
