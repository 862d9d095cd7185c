//! Events that changes raise, and what reaches the connections that watch.

use znodefs::wire::CreateMode::*;
use znodefs::wire::EventType::{
    self, NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted,
};
use znodefs::wire::Request;
use znodefs::{Acl, Permissions};

use crate::test_replica::*;
use crate::tree::{WatchKind, WatchManager, WatcherId, access};

/// Delivers the events of everything prepared as a replica would: told are the connections that
/// wait, if the list as of the change lets `identities` read.
fn deliver(replica: &mut TestReplica, watches: &mut WatchManager) -> Vec<(WatcherId, Event)> {
    let mut delivered = Vec::new();
    while let Some(txn) = replica.pending.pop_front() {
        replica.tree.apply(&txn, &mut |event| {
            let readable = access::is_allowed(event.acl, Permissions::READ, &[]);
            watches.trigger(event.event_type, event.path, &mut |watcher| {
                if readable {
                    delivered.push((watcher, (event.event_type, event.path.to_string())));
                }
            });
        });
        replica.processor.applied(txn.zxid);
    }
    delivered
}

fn events(delivered: Vec<(WatcherId, Event)>) -> Vec<(EventType, String)> {
    delivered.into_iter().map(|(_, event)| event).collect()
}

fn event(event_type: EventType, path: &str) -> Event {
    (event_type, path.to_string())
}

const W: WatcherId = WatcherId(1);

#[test]
fn each_change_raises_its_events_in_order() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    let expected = [event(NodeCreated, "/a"), event(NodeChildrenChanged, "/")];
    assert_eq!(replica.take_events(), expected);
    replica.make("/a/b");
    let expected = [event(NodeCreated, "/a/b"), event(NodeChildrenChanged, "/a")];
    assert_eq!(replica.take_events(), expected);
    replica.write(&set_data("/a", "", -1)).unwrap();
    replica.write(&set_data("/a", "", -1)).unwrap();
    let expected = [event(NodeDataChanged, "/a"), event(NodeDataChanged, "/a")];
    assert_eq!(replica.take_events(), expected, "equal bytes are a change too");
    replica.write(&Request::SetAcl { path: "/a", acl: Acl::open(), version: -1 }).unwrap();
    assert_eq!(replica.take_events(), []);
    replica.write(&delete("/a/b")).unwrap();
    let expected = [event(NodeDeleted, "/a/b"), event(NodeChildrenChanged, "/a")];
    assert_eq!(replica.take_events(), expected);
}

#[test]
fn a_closing_session_raises_a_deletion_for_each_ephemeral() {
    let mut replica = TestReplica::new();
    replica.make("/p");
    replica.write(&create_mode("/p/a", Ephemeral)).unwrap();
    replica.write(&create_mode("/p/b", Ephemeral)).unwrap();
    replica.take_events();
    replica.close_session(SESSION);
    replica.apply_all();
    let expected = [
        event(NodeDeleted, "/p/a"),
        event(NodeChildrenChanged, "/p"),
        event(NodeDeleted, "/p/b"),
        event(NodeChildrenChanged, "/p"),
    ];
    assert_eq!(replica.take_events(), expected);
    assert_eq!(replica.stat("/p").pzxid, replica.last_zxid());
}

#[test]
fn a_deletion_is_told_once_to_who_watches_data_and_children() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    for also_children in [false, true] {
        let mut watches = WatchManager::new(1);
        watches.add("/a", W, WatchKind::Data);
        watches.add("/", W, WatchKind::Children);
        if also_children {
            watches.add("/a", W, WatchKind::Children);
        }
        replica.prepare_as(OTHER, &delete("/a"));
        let expected = [event(NodeDeleted, "/a"), event(NodeChildrenChanged, "/")];
        assert_eq!(events(deliver(&mut replica, &mut watches)), expected);
        assert_eq!(watches.watch_count(), 0);
        replica.make("/a");
    }
}

#[test]
fn a_recursive_watch_sees_a_whole_life_without_child_events() {
    let mut replica = TestReplica::new();
    replica.make("/p");
    let mut watches = WatchManager::new(1);
    watches.add("/p", W, WatchKind::PersistentRecursive);
    replica.prepare_as(SESSION, &create("/p/c"));
    replica.prepare_as(SESSION, &create("/p/c/d"));
    replica.prepare_as(SESSION, &set_data("/p/c", "x", -1));
    replica.prepare_as(SESSION, &delete("/p/c/d"));
    replica.prepare_as(SESSION, &delete("/p/c"));
    let expected = [
        event(NodeCreated, "/p/c"),
        event(NodeCreated, "/p/c/d"),
        event(NodeDataChanged, "/p/c"),
        event(NodeDeleted, "/p/c/d"),
        event(NodeDeleted, "/p/c"),
    ];
    assert_eq!(events(deliver(&mut replica, &mut watches)), expected);
}

#[test]
fn events_are_withheld_by_the_acl_as_of_the_change() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    let mut watches = WatchManager::new(1);
    watches.add("/a", W, WatchKind::Data);
    replica.identities.push(identity("digest", "me:h="));
    let list = acl("digest:me:h=:cdrwa");
    replica.prepare_as(SESSION, &Request::SetAcl { path: "/a", acl: list, version: -1 });
    replica.prepare_as(SESSION, &set_data("/a", "x", -1));
    assert_eq!(deliver(&mut replica, &mut watches), []);
    assert_eq!(watches.watch_count(), 0, "the watch has fired all the same");

    watches.add("/a", W, WatchKind::Data);
    watches.add("/", W, WatchKind::Children);
    replica.prepare_as(SESSION, &delete("/a"));
    let delivered = events(deliver(&mut replica, &mut watches));
    assert_eq!(delivered, [event(NodeChildrenChanged, "/")], "judged by the parent's own list");
}

#[test]
fn an_exists_watch_waits_for_a_creation_and_a_read_that_failed_does_not() {
    use bytes::BytesMut;
    let mut replica = TestReplica::new();
    let mut watches = WatchManager::new(1);
    let reader = crate::tree::read_request::Reader { session_id: SESSION, identities: &[] };
    let requests = [
        (Request::GetData { path: "/new", watch: true }, None),
        (Request::GetChildren { path: "/new", watch: true }, None),
        (Request::Exists { path: "/new", watch: false }, None),
        (Request::Exists { path: "/new", watch: true }, Some(WatchKind::Data)),
    ];
    for (request, expected) in requests {
        let outcome = crate::tree::read_request::answer(
            &replica.tree,
            reader,
            &request,
            &mut BytesMut::new(),
        );
        assert_eq!(outcome.error, Some(znodefs::ErrorCode::NoNode));
        assert_eq!(outcome.watch.map(|(_, kind)| kind), expected, "{request:?}");
        if let Some((path, kind)) = outcome.watch {
            watches.add(path, W, kind);
        }
    }
    replica.prepare_as(OTHER, &create("/new"));
    assert_eq!(events(deliver(&mut replica, &mut watches)), [event(NodeCreated, "/new")]);
}
