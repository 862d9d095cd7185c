//! What each kind of watch sees of each kind of change.

use znodefs::wire::EventType::{
    self, NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted,
};
use znodefs::wire::WatcherType;

use super::{WatchKind, WatchManager, WatchSummary, WatcherId};

const A: WatcherId = WatcherId(1);
const B: WatcherId = WatcherId(2);

fn manager(watches: &[(&str, WatcherId, WatchKind)]) -> WatchManager {
    let mut manager = WatchManager::new(3);
    for &(path, watcher, kind) in watches {
        manager.add(path, watcher, kind);
    }
    manager
}

fn told(manager: &mut WatchManager, event: EventType, path: &str) -> Vec<WatcherId> {
    let mut told = Vec::new();
    manager.trigger(event, path, &mut |watcher| told.push(watcher));
    told.sort();
    told
}

#[test]
fn each_kind_sees_its_own_changes_and_no_others() {
    let kinds = [
        (WatchKind::Data, [true, true, true, false]),
        (WatchKind::Children, [false, true, false, true]),
        (WatchKind::Persistent, [true, true, true, true]),
        (WatchKind::PersistentRecursive, [true, true, true, false]),
    ];
    for (kind, expected) in kinds {
        let changes = [NodeCreated, NodeDeleted, NodeDataChanged, NodeChildrenChanged];
        for (change, expected) in changes.into_iter().zip(expected) {
            let mut manager = manager(&[("/a", A, kind)]);
            let is_told = !told(&mut manager, change, "/a").is_empty();
            assert_eq!(is_told, expected, "{kind:?} {change:?}");
            let persistent = matches!(kind, WatchKind::Persistent | WatchKind::PersistentRecursive);
            let left = manager.check("/a", A, WatcherType::Any);
            assert_eq!(left, persistent || !expected, "{kind:?} {change:?}");
        }
    }
}

#[test]
fn a_connection_is_told_once_however_many_of_its_watches_match() {
    let mut manager = manager(&[
        ("/a/b", A, WatchKind::Data),
        ("/a/b", A, WatchKind::Children),
        ("/a/b", A, WatchKind::Persistent),
        ("/a", A, WatchKind::PersistentRecursive),
        ("/", A, WatchKind::PersistentRecursive),
        ("/a", B, WatchKind::PersistentRecursive),
    ]);
    assert_eq!(told(&mut manager, NodeDeleted, "/a/b"), [A, B]);
    assert_eq!(told(&mut manager, NodeDataChanged, "/a/b"), [A, B]);
    assert!(manager.check("/a/b", A, WatcherType::Persistent));
    assert!(!manager.check("/a/b", A, WatcherType::Data));
    assert!(!manager.check("/a/b", A, WatcherType::Children));
}

#[test]
fn a_deletion_takes_both_standard_watches_and_a_data_change_leaves_the_child_watch() {
    let watches = [("/a", A, WatchKind::Data), ("/a", A, WatchKind::Children)];
    let mut one = manager(&watches);
    assert_eq!(told(&mut one, NodeDeleted, "/a"), [A]);
    assert_eq!(one.watch_count(), 0);
    let mut other = manager(&watches);
    assert_eq!(told(&mut other, NodeDataChanged, "/a"), [A]);
    assert_eq!(told(&mut other, NodeDataChanged, "/a"), []);
    assert_eq!(told(&mut other, NodeChildrenChanged, "/a"), [A]);
    assert_eq!(other.watch_count(), 0);
}

#[test]
fn recursive_watches_see_descendants_but_no_namesakes_and_no_child_changes() {
    let mut manager = manager(&[("/p", A, WatchKind::PersistentRecursive)]);
    for path in ["/p", "/p/c", "/p/c/d"] {
        assert_eq!(told(&mut manager, NodeCreated, path), [A], "{path}");
        assert_eq!(told(&mut manager, NodeChildrenChanged, path), [], "{path}");
    }
    for path in ["/", "/pp", "/q/p"] {
        assert_eq!(told(&mut manager, NodeCreated, path), [], "{path}");
    }
    // A standard child watch beside it is told on its own account (ZOOKEEPER-4475).
    manager.add("/p/c", A, WatchKind::Children);
    assert_eq!(told(&mut manager, NodeChildrenChanged, "/p/c"), [A]);
}

#[test]
fn ancestors_are_found_at_every_depth_and_whatever_stands_where_a_path_should() {
    let mut manager = manager(&[
        ("/", A, WatchKind::PersistentRecursive),
        ("/a/b", B, WatchKind::PersistentRecursive),
        ("no path", B, WatchKind::Data),
        ("/a/b/", B, WatchKind::Data),
    ]);
    for (path, expected) in [("/", vec![A]), ("/x", vec![A]), ("/a", vec![A]), ("/a/b", vec![A, B])]
    {
        assert_eq!(told(&mut manager, NodeDataChanged, path), expected, "{path}");
    }
    assert_eq!(told(&mut manager, NodeDataChanged, "/a/b/c/d"), [A, B]);
    assert_eq!(told(&mut manager, NodeDataChanged, "/a/bc/d"), [A]);
    assert!(manager.check("no path", B, WatcherType::Data));
}

#[test]
fn watches_are_checked_and_removed_by_type_and_exact_path() {
    let kinds = [
        (WatchKind::Children, WatcherType::Children),
        (WatchKind::Data, WatcherType::Data),
        (WatchKind::Persistent, WatcherType::Persistent),
        (WatchKind::PersistentRecursive, WatcherType::PersistentRecursive),
    ];
    for (kind, own_type) in kinds {
        for (_, other_type) in kinds {
            let mut manager = manager(&[("/a", A, kind), ("/a", B, kind)]);
            assert_eq!(manager.check("/a", A, other_type), own_type == other_type);
            assert!(!manager.remove("/a/b", A, other_type));
            assert_eq!(manager.remove("/a", A, other_type), own_type == other_type);
            assert!(manager.check("/a", B, WatcherType::Any));
        }
        let mut manager = manager(&[("/a", A, kind)]);
        assert!(manager.remove("/a", A, WatcherType::Any));
        assert!(!manager.remove("/a", A, WatcherType::Any));
    }
}

#[test]
fn removing_a_recursive_watch_leaves_the_other_kinds_of_the_path() {
    let mut manager = manager(&[
        ("/a", A, WatchKind::PersistentRecursive),
        ("/a", A, WatchKind::Persistent),
        ("/a", A, WatchKind::Persistent),
    ]);
    assert!(manager.remove("/a", A, WatcherType::PersistentRecursive));
    assert_eq!(told(&mut manager, NodeDataChanged, "/a/b"), []);
    assert_eq!(told(&mut manager, NodeDataChanged, "/a"), [A]);
}

#[test]
fn a_connection_that_goes_takes_all_its_watches_and_only_those() {
    let mut manager = WatchManager::new(3);
    for number in 0..100 {
        manager.add(&format!("/n{number}"), A, WatchKind::Data);
        manager.add(&format!("/n{}", number / 2), B, WatchKind::Children);
    }
    assert_eq!(manager.watch_count(), 150);
    manager.remove_watcher(A);
    manager.remove_watcher(A);
    assert_eq!(manager.watch_count(), 50);
    assert_eq!(told(&mut manager, NodeChildrenChanged, "/n0"), [B]);
    manager.remove_watcher(B);
    assert_eq!(manager.watch_count(), 0);
    assert_eq!(manager.paths.iter().count(), 0);
    assert_eq!(manager.watchers.iter().count(), 0);
}

#[test]
fn listings_show_the_data_table() {
    let manager = manager(&[
        ("/a", A, WatchKind::Data),
        ("/a", B, WatchKind::PersistentRecursive),
        ("/b", B, WatchKind::Persistent),
        ("/c", B, WatchKind::Children),
    ]);
    assert_eq!(manager.summary(), WatchSummary { connections: 2, paths: 2, watches: 3 });
    assert_eq!(manager.watch_count(), 5);
    let mut by_path: Vec<_> = manager.by_path().collect();
    by_path.iter_mut().for_each(|(_, watchers)| watchers.sort());
    by_path.sort();
    assert_eq!(by_path, [("/a", vec![A, B]), ("/b", vec![B])]);
    let mut by_watcher: Vec<_> = manager.by_watcher().collect();
    by_watcher.iter_mut().for_each(|(_, paths)| paths.sort());
    by_watcher.sort();
    assert_eq!(by_watcher, [(A, vec!["/a"]), (B, vec!["/a", "/b"])]);
}
