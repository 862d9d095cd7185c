//! Checks that everything the tree keeps twice agrees.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::data_tree::{DataTree, ephemeral_length};
use crate::tree::node_store::{NONE, NodeNumber, ROOT};
use crate::tree::owner::OwnerKind;

/// Panics where links, index, tables by kind, counters and ACL users do not agree.
pub(super) fn check(tree: &DataTree) {
    let mut reachable = BTreeSet::new();
    let mut data_size = 0;
    let mut ephemerals: BTreeMap<_, BTreeSet<NodeNumber>> = BTreeMap::new();
    let (mut containers, mut with_ttl) = (BTreeSet::new(), BTreeSet::new());
    let mut acl_users: BTreeMap<_, u32> = BTreeMap::new();
    tree.walk(ROOT, |number| {
        assert!(reachable.insert(number), "{number} is linked twice");
        let node = tree.store.get(number).expect("a free record is linked");
        let path = tree.path_of(number);
        assert_eq!(tree.find(&path), Some(number), "{path}");
        assert_eq!(node.path_hash, tree.index.hasher.path(&path), "{path}");
        data_size += (path.len() + node.data_length()) as u64;
        *acl_users.entry(node.acl).or_default() += 1;
        check_children(tree, number);
        match OwnerKind::from_stored(node.ephemeral_owner()) {
            OwnerKind::Persistent => {}
            OwnerKind::Ephemeral(session_id) => {
                ephemerals.entry(session_id).or_default().insert(number);
            }
            OwnerKind::Container => {
                containers.insert(number);
            }
            OwnerKind::Ttl { .. } => {
                with_ttl.insert(number);
            }
        }
        true
    });
    assert_eq!(reachable.len(), tree.store.count());
    let in_use = (0..tree.store.length()).filter(|&number| tree.store.get(number).is_some());
    assert_eq!(in_use.count(), tree.store.count());
    assert_eq!(tree.data_size, data_size);
    let indexed: BTreeMap<_, _> =
        tree.ephemerals.iter().map(|(&session, one)| (session, one.numbers.clone())).collect();
    assert_eq!(indexed, ephemerals);
    for (&session_id, numbers) in &ephemerals {
        let length = |&number: &NodeNumber| ephemeral_length(tree.path_of(number).len());
        assert_eq!(tree.ephemerals_length(session_id), numbers.iter().map(length).sum::<usize>());
    }
    assert_eq!(tree.ephemerals_count, ephemerals.values().map(BTreeSet::len).sum::<usize>());
    assert_eq!(tree.containers, containers);
    assert_eq!(tree.with_ttl, with_ttl);
    for (&id, &users) in &acl_users {
        assert_eq!(tree.acls.users(id), users, "{id:?}");
    }
    let open_only = !acl_users.contains_key(&crate::tree::acl_table::AclId::OPEN);
    assert_eq!(tree.acls.count(), acl_users.len() + usize::from(open_only));
}

fn check_children(tree: &DataTree, number: NodeNumber) {
    let mut previous = NONE;
    let mut count = 0;
    for child in tree.store.children(number) {
        let node = tree.store.view(child);
        assert_eq!((node.parent, node.previous), (number, previous));
        let name = node.name();
        assert_eq!(tree.index.find_child(&tree.store, number, name), Some(child));
        previous = child;
        count += 1;
    }
    assert_eq!(tree.store.view(number).num_children(), count);
}
