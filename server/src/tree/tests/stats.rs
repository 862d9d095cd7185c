//! Stats, and how each operation changes them.

use znodefs::wire::CreateMode::*;
use znodefs::wire::Request;
use znodefs::{Acl, Permissions, SessionId, Stat, Zxid};

use crate::test_replica::*;
use crate::tree::DataTree;

#[test]
fn a_fresh_tree_has_zookeepers_znodes_with_zookeepers_stats() {
    let tree = DataTree::new(1);
    let expected = [
        ("/", -1, 1, 0),
        ("/zookeeper", -2, 2, 0),
        ("/zookeeper/quota", 0, 0, 0),
        ("/zookeeper/config", 0, 0, -1),
    ];
    for (path, cversion, num_children, aversion) in expected {
        let node = tree.node(path).unwrap();
        let stat = Stat { cversion, num_children, aversion, ..Stat::default() };
        assert_eq!(node.stat(), stat, "{path}");
        assert_eq!(node.data(), Some(&b""[..]), "{path}");
        let permissions =
            if path.ends_with("config") { Permissions::READ } else { Permissions::ALL };
        assert_eq!(**node.acl(), [Acl::world(permissions)], "{path}");
    }
    assert_eq!(tree.node_count(), 5);
    assert_eq!(tree.all_children_number("/"), Some(3));
    assert_eq!(tree.approximate_data_size(), 1 + 10 + 16 + 17);
    assert_eq!(tree.last_applied(), Zxid::ZERO);
    super::consistency::check(&tree);
}

#[test]
fn the_parents_counters_follow_creation_and_deletion_of_a_child() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    let created = replica.last_zxid();
    let root = replica.stat("/");
    assert_eq!((root.cversion, root.pzxid, root.mzxid), (0, created, Zxid::ZERO));
    assert_eq!(replica.stat("/a").czxid, created);
    replica.write(&delete("/a")).unwrap();
    let root = replica.stat("/");
    assert_eq!((root.cversion, root.pzxid, root.mzxid), (1, replica.last_zxid(), Zxid::ZERO));
    assert_eq!((root.version, root.mtime, root.num_children), (0, 0, 1));
}

#[test]
fn each_operation_changes_its_own_numbers_only() {
    let mut replica = TestReplica::new();
    replica.write(&create_mode("/e", Ephemeral)).unwrap();
    let created = replica.last_zxid();
    let fresh = Stat {
        czxid: created,
        mzxid: created,
        pzxid: created,
        ctime: 1_000_000,
        mtime: 1_000_000,
        ephemeral_owner: SESSION,
        ..Stat::default()
    };
    assert_eq!(replica.stat("/e"), fresh);

    replica.time_ms += 5;
    replica.write(&set_data("/e", "abc", 0)).unwrap();
    let set =
        Stat { mzxid: replica.last_zxid(), mtime: 1_000_005, version: 1, data_length: 3, ..fresh };
    assert_eq!(replica.stat("/e"), set);

    replica.time_ms += 5;
    let list = acl("world:anyone:cdrwa,ip:10.0.0.1:r");
    replica.write(&Request::SetAcl { path: "/e", acl: list, version: 0 }).unwrap();
    assert_eq!(replica.stat("/e"), Stat { aversion: 1, ..set });
}

#[test]
fn containers_and_times_to_live_show_no_owner() {
    let mut replica = TestReplica::new();
    replica.write(&create_mode("/c", Container)).unwrap();
    replica.write(&create_mode("/t", PersistentWithTtl)).unwrap();
    assert_eq!(replica.stat("/c").ephemeral_owner, SessionId(0));
    assert_eq!(replica.stat("/t").ephemeral_owner, SessionId(0));
    assert!(!replica.tree.node("/c").unwrap().is_ephemeral());
}

#[test]
fn lookups_find_whole_paths_and_nothing_else() {
    let mut replica = TestReplica::new();
    for path in ["/a", "/a/b", "/a/b/c", "/ab"] {
        replica.make(path);
    }
    for path in ["/", "", "/a", "/a/b", "/a/b/c", "/ab"] {
        assert!(replica.tree.node(path).is_some(), "{path}");
    }
    for path in ["a", "/b", "/a/", "/a//b", "//a", "/a/b/c/d", "/abc", "//", "/c", "\0"] {
        assert!(replica.tree.node(path).is_none(), "{path}");
    }
    assert_eq!(replica.tree.all_children_number("/a"), Some(2));
    assert_eq!(replica.tree.all_children_number("/none"), None);
}

#[test]
fn counters_follow_what_is_there() {
    let mut replica = TestReplica::new();
    let (count, size) = (replica.tree.node_count(), replica.tree.approximate_data_size());
    replica.make("/abc");
    replica.write(&set_data("/abc", "12345", -1)).unwrap();
    replica.write(&create_mode("/abc/e", Ephemeral)).unwrap();
    assert_eq!(replica.tree.node_count(), count + 2);
    assert_eq!(replica.tree.approximate_data_size(), size + 4 + 5 + 6);
    assert_eq!(replica.tree.ephemerals_count(), 1);
    assert_eq!(replica.tree.sessions_with_ephemerals().collect::<Vec<_>>(), [SESSION]);
    replica.close_session(SESSION);
    replica.apply_all();
    replica.write_as(OTHER, &delete("/abc")).unwrap();
    assert_eq!(replica.tree.node_count(), count);
    assert_eq!(replica.tree.approximate_data_size(), size);
    assert_eq!(replica.tree.sessions_with_ephemerals().count(), 0);
}
