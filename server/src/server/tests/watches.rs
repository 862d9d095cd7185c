//! Watches over the wire.

use znodefs::wire::{AddWatchMode, EventType, Request, WatchSets, WatcherType};
use znodefs::{Acl, CreateMode, ErrorCode, Permissions, Zxid};

use super::client::{create, get, set};
use super::*;

fn watch_data(path: &str) -> Request<'_> {
    Request::GetData { path, watch: true }
}

fn watch_children(path: &str) -> Request<'_> {
    Request::GetChildren { path, watch: true }
}

fn delete(path: &str) -> Request<'_> {
    Request::Delete { path, version: -1 }
}

fn event(event_type: EventType, path: &str) -> (EventType, String) {
    (event_type, path.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_before_any_reply_that_shows_their_change_and_carry_its_zxid() {
    let server = TestServer::start().await;
    let mut writer = server.client().await;
    let mut watcher = server.client().await;
    writer.create("/a", "").await;
    watcher.call(&watch_data("/a")).await;
    watcher.call(&watch_children("/a")).await;
    watcher.call(&watch_children("/")).await;
    writer.call(&watch_data("/a")).await;
    let deleted = writer.call(&delete("/a")).await;
    // The writer's own event is in front of its own reply.
    assert_eq!(writer.events.len(), 1);
    assert_eq!(watcher.call(&get("/a")).await.error(), Some(ErrorCode::NoNode));
    let zxids: Vec<Zxid> = watcher.events.iter().map(|(zxid, _)| *zxid).collect();
    assert_eq!(zxids, [deleted.header.zxid; 2]);
    let expected =
        [event(EventType::NodeDeleted, "/a"), event(EventType::NodeChildrenChanged, "/")];
    assert_eq!(watcher.drain_events().await, expected);
    writer.create("/a", "").await;
    assert_eq!(watcher.drain_events().await, [], "standard watches fire once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recursive_watch_tells_of_everything_below_but_children() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/p", "").await;
    let mode = AddWatchMode::PersistentRecursive.code();
    client.call(&Request::AddWatch { path: "/p", mode }).await.response.unwrap();
    client.create("/p/c", "").await;
    client.create("/p/c/d", "").await;
    client.call(&set("/p/c", "x")).await;
    client.call(&delete("/p/c/d")).await;
    client.call(&delete("/p/c")).await;
    use EventType::{NodeCreated, NodeDataChanged, NodeDeleted};
    let expected = [
        event(NodeCreated, "/p/c"),
        event(NodeCreated, "/p/c/d"),
        event(NodeDataChanged, "/p/c"),
        event(NodeDeleted, "/p/c/d"),
        event(NodeDeleted, "/p/c"),
    ];
    assert_eq!(client.drain_events().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_checked_and_removed_by_type() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "").await;
    client.call(&watch_data("/a")).await;
    let check = |watcher_type: WatcherType| Request::CheckWatches {
        path: "/a",
        watcher_type: watcher_type.code(),
    };
    assert_eq!(client.call(&check(WatcherType::Data)).await.error(), None);
    let no_watcher = Some(ErrorCode::NoWatcher);
    assert_eq!(client.call(&check(WatcherType::Children)).await.error(), no_watcher);
    let remove = Request::RemoveWatches { path: "/a", watcher_type: WatcherType::Any.code() };
    assert_eq!(client.call(&remove).await.error(), None);
    assert_eq!(client.call(&remove).await.error(), no_watcher);
    client.call(&set("/a", "x")).await;
    assert_eq!(client.drain_events().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_set_again_tell_what_was_missed_and_arm_the_rest() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/p", "").await;
    client.create("/same", "").await;
    client.create("/gone", "").await;
    let seen = client.call(&Request::Ping).await.header.zxid;
    let request = client.reconnect_request();
    drop(client);
    let mut other = server.client().await;
    other.create("/p/x", "").await;
    other.call(&delete("/p/x")).await;
    other.call(&delete("/gone")).await;
    other.create("/appeared", "").await;
    let mut client = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    let sets = WatchSets {
        relative_zxid: seen,
        data: vec!["/same", "/gone"],
        exists: vec!["/appeared", "/missing"],
        children: vec!["/p", "/"],
        ..WatchSets::default()
    };
    client.call(&Request::SetWatches(sets)).await.response.unwrap();
    assert!(client.events.iter().all(|(zxid, _)| *zxid == Zxid(-1)));
    use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};
    let expected = [
        event(NodeDeleted, "/gone"),
        event(NodeCreated, "/appeared"),
        event(NodeChildrenChanged, "/p"),
        event(NodeChildrenChanged, "/"),
    ];
    assert_eq!(client.drain_events().await, expected);
    other.call(&set("/same", "x")).await;
    other.create("/missing", "").await;
    let expected = [event(NodeDataChanged, "/same"), event(NodeCreated, "/missing")];
    assert_eq!(client.drain_events().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_no_longer_read_is_told_nothing() {
    let server = TestServer::start().await;
    let mut writer = server.client().await;
    let mut watcher = server.client().await;
    writer.create("/a", "").await;
    watcher.call(&watch_data("/a")).await;
    let acl = vec![Acl::world(Permissions(31 & !1))];
    writer.call(&Request::SetAcl { path: "/a", acl, version: -1 }).await.response.unwrap();
    writer.call(&set("/a", "x")).await.response.unwrap();
    assert_eq!(watcher.drain_events().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_exists_waits_for_what_is_not_there() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let no_node = Some(ErrorCode::NoNode);
    assert_eq!(client.call(&watch_data("/get")).await.error(), no_node);
    assert_eq!(
        client.call(&Request::Exists { path: "/exists", watch: true }).await.error(),
        no_node
    );
    client.create("/get", "").await;
    client.create("/exists", "").await;
    assert_eq!(client.drain_events().await, [event(EventType::NodeCreated, "/exists")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiring_owner_and_a_delete_in_flight_make_one_event() {
    let server = TestServer::start().await;
    let mut owner = server.client().await;
    owner.call(&create("/e", "", CreateMode::Ephemeral)).await.response.unwrap();
    let mut watcher = server.client().await;
    watcher.call(&watch_data("/e")).await;
    let mode = AddWatchMode::Persistent.code();
    watcher.call(&Request::AddWatch { path: "/e", mode }).await;
    let mut deleter = server.client().await;
    owner.send(&[Request::CloseSession]).await;
    deleter.send(&[delete("/e")]).await;
    deleter.receive(&delete("/e")).await.unwrap();
    owner.receive(&Request::CloseSession).await;
    assert_eq!(watcher.drain_events().await, [event(EventType::NodeDeleted, "/e")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_go_with_their_connection() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "").await;
    client.call(&watch_data("/a")).await;
    client.call(&watch_children("/a")).await;
    let count = || server.server.service().database.watches.lock().watch_count();
    assert_eq!(count(), 2);
    drop(client);
    wait_until("no watch is left", async || count() == 0).await;
}
