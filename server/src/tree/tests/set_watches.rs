//! Watches set again after a reconnection: what was missed is told, the rest is armed.

use znodefs::Zxid;
use znodefs::wire::EventType::{
    self, NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted,
};
use znodefs::wire::{WatchSets, WatcherType};

use crate::test_replica::*;
use crate::tree::{WatchManager, WatcherId};

const W: WatcherId = WatcherId(1);

fn set(
    replica: &TestReplica,
    watches: &mut WatchManager,
    sets: &WatchSets<'_>,
) -> Vec<(EventType, String)> {
    let mut events = Vec::new();
    watches.set_watches(&replica.tree, W, sets, &mut |event_type, path| {
        events.push((event_type, path.to_string()));
    });
    events
}

fn is_armed(watches: &WatchManager, path: &str) -> bool {
    watches.check(path, W, WatcherType::Any)
}

#[test]
fn each_set_is_compared_with_what_the_client_saw_last() {
    let mut replica = TestReplica::new();
    replica.make("/same");
    replica.make("/set");
    let seen = replica.last_zxid();
    replica.write(&set_data("/set", "x", -1)).unwrap();
    let paths = vec!["/same", "/set", "/none"];
    let cases = [
        (
            WatchSets { relative_zxid: seen, data: paths.clone(), ..WatchSets::default() },
            vec![(NodeDataChanged, "/set"), (NodeDeleted, "/none")],
            vec!["/same"],
        ),
        (
            WatchSets { relative_zxid: seen, exists: paths.clone(), ..WatchSets::default() },
            vec![(NodeCreated, "/same"), (NodeCreated, "/set")],
            vec!["/none"],
        ),
        (
            WatchSets { relative_zxid: seen, children: paths.clone(), ..WatchSets::default() },
            vec![(NodeDeleted, "/none")],
            vec!["/same", "/set"],
        ),
        (
            WatchSets { relative_zxid: seen, persistent: paths.clone(), ..WatchSets::default() },
            vec![],
            paths.clone(),
        ),
        (
            WatchSets {
                relative_zxid: Zxid::ZERO,
                persistent_recursive: paths.clone(),
                ..WatchSets::default()
            },
            vec![],
            paths.clone(),
        ),
    ];
    for (sets, expected, armed) in cases {
        let mut watches = WatchManager::new(1);
        let expected: Vec<_> =
            expected.into_iter().map(|(event, path)| (event, path.to_string())).collect();
        assert_eq!(set(&replica, &mut watches, &sets), expected, "{sets:?}");
        for path in &paths {
            assert_eq!(is_armed(&watches, path), armed.contains(path), "{sets:?} {path}");
        }
    }
}

#[test]
fn a_child_that_came_and_went_is_told_though_the_children_are_the_same() {
    let mut replica = TestReplica::new();
    replica.make("/p");
    let seen = replica.last_zxid();
    let sets = WatchSets { relative_zxid: seen, children: vec!["/p"], ..WatchSets::default() };
    let mut watches = WatchManager::new(1);
    assert_eq!(set(&replica, &mut watches, &sets), []);
    replica.make("/p/x");
    replica.write(&delete("/p/x")).unwrap();
    let told = set(&replica, &mut watches, &sets);
    assert_eq!(told, [(NodeChildrenChanged, "/p".to_string())]);
}
