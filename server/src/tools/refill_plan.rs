//! What of a backup is created anew in a running ensemble, in which order and in which portions. No
//! I/O.

use std::ops::Range;

use znodefs::{Acl, CreateMode, path};

use crate::tree::data_tree::is_built_in;
use crate::tree::{DataTree, NodeRef, OwnerKind};

/// Where quotas are.
pub const QUOTA: &str = "/zookeeper/quota";
/// The child that is created and deleted to let a counter go on.
pub const COUNTING_NAME: &str = "znodefs-restore";

/// Creations in one transaction, and about how many bytes.
const CREATIONS_MAX: usize = 500;
const BATCH_LENGTH_MAX: usize = 256 << 10;
/// Bytes of a creation beside path, data and list.
const CREATION_OVERHEAD: usize = 64;
/// How far a counter is let go on at most.
const COUNT_MAX: usize = 200_000;

/// A znode to be created.
#[derive(Debug)]
pub struct Node<'a> {
    /// Its path.
    pub path: String,
    /// Its data; `None` is null.
    pub data: Option<&'a [u8]>,
    /// Who may do what with it.
    pub acl: &'a [Acl],
    /// What it is.
    pub mode: CreateMode,
    /// Its time to live in milliseconds, if it has one.
    pub ttl_ms: i64,
}

/// A counter to be let go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Bump {
    /// Whose.
    pub parent: String,
    /// By how much.
    pub count: usize,
}

/// Part of the nodes, for one transaction.
pub type Batch = Range<usize>;

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// To be created in this order: parents first.
    pub nodes: Vec<Node<'a>>,
    /// Quotas, in the same order: they are to count, not to stand in the way.
    pub quotas: Vec<Node<'a>>,
    /// Counters.
    pub bumps: Vec<Bump>,
    /// Ephemeral znodes that are left out.
    pub ephemerals: usize,
    /// Znodes whose counters are too far to go.
    pub uncounted: Vec<String>,
}

/// What of `tree` is created anew.
pub fn plan(tree: &DataTree) -> Plan<'_> {
    let mut plan = Plan::default();
    for top in ["/", QUOTA] {
        let Some(node) = tree.node(top) else { continue };
        let mut way = vec![(top.to_string(), node)];
        while let Some((at, node)) = way.pop() {
            if node.is_ephemeral() {
                plan.ephemerals += 1;
                continue;
            }
            let mut names: Vec<&str> = node.children().collect();
            names.sort_unstable_by(|one, other| other.cmp(one));
            let children = names.iter().filter_map(|name| {
                let child = path::join(&at, name);
                Some((tree.node(&child)?, child))
            });
            let children: Vec<_> = children
                .filter(|(_, child)| !is_built_in(child))
                .map(|(node, child)| (child, node))
                .collect();
            let staying = children.iter().filter(|(_, child)| !child.is_ephemeral()).count();
            if top != QUOTA {
                plan.count(&at, node, staying);
            }
            if at != top {
                let into = if top == QUOTA { &mut plan.quotas } else { &mut plan.nodes };
                into.push(created(at, node));
            }
            way.extend(children);
        }
    }
    plan
}

impl Plan<'_> {
    fn count(&mut self, at: &str, node: NodeRef<'_>, children: usize) {
        // The service has made one child of the root itself.
        let made = children + usize::from(at == "/");
        match (node.child_counter().max(0) as usize).saturating_sub(made) {
            0 => {}
            count if count > COUNT_MAX => self.uncounted.push(at.to_string()),
            count => self.bumps.push(Bump { parent: at.to_string(), count }),
        }
    }
}

fn created(path: String, node: NodeRef<'_>) -> Node<'_> {
    let (mode, ttl_ms) = match node.kind() {
        OwnerKind::Container => (CreateMode::Container, 0),
        OwnerKind::Ttl { ttl_ms } => (CreateMode::PersistentWithTtl, ttl_ms),
        OwnerKind::Persistent | OwnerKind::Ephemeral(_) => (CreateMode::Persistent, 0),
    };
    Node { path, data: node.data(), acl: node.acl(), mode, ttl_ms }
}

/// Portions of the nodes, in order.
pub fn batches(nodes: &[Node<'_>]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut length = 0;
    for (index, node) in nodes.iter().enumerate() {
        let acl: usize =
            node.acl.iter().map(|entry| entry.scheme.len() + entry.id.len() + 12).sum();
        let own = CREATION_OVERHEAD + node.path.len() + node.data.map_or(0, <[u8]>::len) + acl;
        length += own;
        match batches.last_mut() {
            Some(batch) if batch.len() < CREATIONS_MAX && length <= BATCH_LENGTH_MAX => {
                batch.end = index + 1;
            }
            _ => {
                batches.push(index..index + 1);
                length = own;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use znodefs::{SessionId, Zxid};

    use super::*;
    use crate::txn::{Change, Txn, TxnBody, TxnOrigin};

    fn create(tree: &mut DataTree, path: &str, kind: OwnerKind, counter: i32, length: usize) {
        let change = Change::Create {
            path: path.into(),
            data: Some(Bytes::from(vec![b'x'; length])),
            acl: Acl::open().into(),
            ephemeral_owner: kind.to_stored(),
            parent_child_counter: counter,
            with_stat: false,
        };
        let zxid = tree.last_applied().next().unwrap_or(Zxid(1));
        let body = TxnBody::Change(change);
        let origin = TxnOrigin::default();
        let txn = Txn { zxid, session_id: SessionId(7), xid: 1, origin, time_ms: 5, body };
        tree.apply(&txn, &mut |_| {});
    }

    #[test]
    fn parents_come_first_and_what_went_with_sessions_stays_away() {
        let mut tree = DataTree::new(0);
        create(&mut tree, "/b", OwnerKind::Container, 2, 1);
        create(&mut tree, "/b/c", OwnerKind::Ttl { ttl_ms: 9 }, 5, 1);
        create(&mut tree, "/a", OwnerKind::Persistent, 3, 1);
        create(&mut tree, "/b/e", OwnerKind::Ephemeral(SessionId(7)), 6, 1);
        create(&mut tree, "/zookeeper/quota/b", OwnerKind::Persistent, 1, 1);
        let plan = plan(&tree);
        let paths = |nodes: &[Node<'_>]| -> Vec<String> {
            nodes.iter().map(|node| node.path.clone()).collect()
        };
        assert_eq!(paths(&plan.nodes), ["/a", "/b", "/b/c"]);
        assert_eq!(paths(&plan.quotas), ["/zookeeper/quota/b"]);
        assert_eq!((plan.nodes[1].mode, plan.nodes[2].ttl_ms), (CreateMode::Container, 9));
        assert_eq!(plan.ephemerals, 1);
        assert_eq!(plan.bumps, [Bump { parent: "/b".into(), count: 5 }]);
    }

    #[test]
    fn a_counter_that_is_too_far_is_named_instead() {
        let mut tree = DataTree::new(0);
        create(&mut tree, "/q", OwnerKind::Persistent, 2, 1);
        create(&mut tree, "/q/n", OwnerKind::Persistent, COUNT_MAX as i32 + 2, 1);
        let plan = plan(&tree);
        assert_eq!((plan.bumps.len(), plan.uncounted), (0, vec!["/q".to_string()]));
    }

    #[test]
    fn portions_are_bounded_in_number_and_length_and_leave_nothing_out() {
        let mut tree = DataTree::new(0);
        for number in 0..1500 {
            let length = if number % 100 == 0 { BATCH_LENGTH_MAX } else { 10 };
            create(&mut tree, &format!("/{number:04}"), OwnerKind::Persistent, number + 2, length);
        }
        let plan = plan(&tree);
        let mut next = 0;
        for batch in batches(&plan.nodes) {
            assert_eq!(batch.start, next);
            assert!((1..=CREATIONS_MAX).contains(&batch.len()));
            let length: usize =
                plan.nodes[batch.clone()].iter().map(|node| node.data.map_or(0, <[u8]>::len)).sum();
            assert!(length <= BATCH_LENGTH_MAX || batch.len() == 1, "{length}");
            next = batch.end;
        }
        assert_eq!(next, 1500);
    }
}
