//! Watches: which events come, how often, and before which answers.

use znodefs::wire::{AddWatchMode, EventType, Request, WatchSets, WatcherType};
use znodefs::{ErrorCode, Zxid};
use znodefs_tests::{Server, WireClient, on_every_server};

use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};

/// The watches of one client, and another client that changes things.
struct Pair {
    watcher: WireClient,
    other: WireClient,
}

impl Pair {
    fn new(server: &mut dyn Server) -> Pair {
        let connect = || WireClient::connect(&server.address());
        Pair { watcher: connect(), other: connect() }
    }

    /// Everything the watcher has been told about what the other has done so far.
    fn events(&mut self) -> Vec<(EventType, String)> {
        // A write of its own is answered after all that was before it.
        self.watcher.delete("/no-such-znode").unwrap_err();
        self.watcher.events_so_far()
    }

    fn watch_data(&mut self, path: &str) {
        let _ = self.watcher.call(&Request::GetData { path, watch: true });
    }

    fn watch_existence(&mut self, path: &str) {
        let _ = self.watcher.call(&Request::Exists { path, watch: true });
    }

    fn watch_children(&mut self, path: &str) {
        let _ = self.watcher.call(&Request::GetChildren { path, watch: true });
    }
}

fn event(event_type: EventType, path: &str) -> (EventType, String) {
    (event_type, path.to_string())
}

fn a_deletion_is_told_once_before_any_answer_that_shows_it(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.other.create("/a", None);
    pair.watch_data("/a");
    pair.watch_children("/a");
    pair.watch_children("/");
    pair.other.delete("/a").unwrap();
    let expected = [event(NodeDeleted, "/a"), event(NodeChildrenChanged, "/")];
    assert_eq!(pair.events(), expected);
}

fn a_standard_watch_fires_once(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.other.create("/a", Some(b"1"));
    pair.watch_data("/a");
    pair.other.set("/a", Some(b"1"));
    pair.other.set("/a", Some(b"1"));
    assert_eq!(pair.events(), [event(NodeDataChanged, "/a")], "even of equal bytes");
    pair.watch_children("/a");
    pair.other.create("/a/b", None);
    pair.other.create("/a/c", None);
    assert_eq!(pair.events(), [event(NodeChildrenChanged, "/a")]);
}

fn only_an_exists_watch_waits_for_what_is_missing(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.watch_data("/a");
    pair.watch_children("/a");
    pair.other.create("/a", None);
    assert_eq!(pair.events(), []);
    pair.watch_existence("/b");
    pair.other.create("/b", None);
    assert_eq!(pair.events(), [event(NodeCreated, "/b")]);
}

fn a_recursive_watch_tells_everything_below_and_stays(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    let mode = AddWatchMode::PersistentRecursive.code();
    pair.watcher.call(&Request::AddWatch { path: "/p", mode }).unwrap();
    pair.other.create("/p", None);
    pair.other.create("/p/c", None);
    pair.other.create("/p/c/d", None);
    pair.other.set("/p/c", None);
    pair.other.create("/pp", None);
    pair.other.delete("/p/c/d").unwrap();
    pair.other.delete("/p/c").unwrap();
    let expected = [
        event(NodeCreated, "/p"),
        event(NodeCreated, "/p/c"),
        event(NodeCreated, "/p/c/d"),
        event(NodeDataChanged, "/p/c"),
        event(NodeDeleted, "/p/c/d"),
        event(NodeDeleted, "/p/c"),
    ];
    assert_eq!(pair.events(), expected);
}

fn a_persistent_watch_tells_of_one_znode_and_its_children(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.other.create("/p", None);
    let mode = AddWatchMode::Persistent.code();
    pair.watcher.call(&Request::AddWatch { path: "/p", mode }).unwrap();
    pair.other.set("/p", None);
    pair.other.create("/p/c", None);
    pair.other.set("/p/c", None);
    pair.other.set("/p", None);
    let expected = [
        event(NodeDataChanged, "/p"),
        event(NodeChildrenChanged, "/p"),
        event(NodeDataChanged, "/p"),
    ];
    assert_eq!(pair.events(), expected);
}

fn watches_of_several_kinds_on_one_path_make_one_event(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.other.create("/p", None);
    pair.other.create("/p/c", None);
    let mode = AddWatchMode::PersistentRecursive.code();
    pair.watcher.call(&Request::AddWatch { path: "/p", mode }).unwrap();
    pair.watch_data("/p/c");
    pair.watch_existence("/p/c");
    pair.other.set("/p/c", None);
    assert_eq!(pair.events(), [event(NodeDataChanged, "/p/c")]);
}

fn a_removed_watch_is_silent(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.other.create("/a", None);
    let remove = |watcher_type: WatcherType| Request::RemoveWatches {
        path: "/a",
        watcher_type: watcher_type.code(),
    };
    assert_eq!(pair.watcher.call(&remove(WatcherType::Data)), Err(ErrorCode::NoWatcher));
    pair.watch_data("/a");
    pair.watcher.call(&remove(WatcherType::Data)).unwrap();
    let mode = AddWatchMode::PersistentRecursive.code();
    pair.watcher.call(&Request::AddWatch { path: "/a", mode }).unwrap();
    pair.watcher.call(&remove(WatcherType::Any)).unwrap();
    pair.other.set("/a", None);
    assert_eq!(pair.events(), []);
}

fn watches_set_again_tell_what_was_missed(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    for path in ["/unchanged", "/changed", "/deleted", "/parent"] {
        pair.other.create(path, None);
    }
    let relative_zxid = pair.other.last_zxid;
    pair.other.set("/changed", None);
    pair.other.delete("/deleted").unwrap();
    pair.other.create("/parent/child", None);
    pair.other.delete("/parent/child").unwrap();
    pair.other.create("/created", None);
    let sets = WatchSets {
        relative_zxid,
        data: vec!["/unchanged", "/changed", "/deleted"],
        exists: vec!["/created", "/later"],
        children: vec!["/parent", "/unchanged"],
        ..WatchSets::default()
    };
    pair.watcher.call(&Request::SetWatches(sets)).unwrap();
    let mut told = pair.events();
    told.sort_by(|one, two| one.1.cmp(&two.1));
    let missed = [
        event(NodeDataChanged, "/changed"),
        event(NodeCreated, "/created"),
        event(NodeDeleted, "/deleted"),
        event(NodeChildrenChanged, "/parent"),
    ];
    assert_eq!(told, missed);
    pair.other.set("/unchanged", None);
    pair.other.create("/later", None);
    let expected = [event(NodeDataChanged, "/unchanged"), event(NodeCreated, "/later")];
    assert_eq!(pair.events(), expected, "the others are set");
}

fn persistent_watches_set_again_go_on(server: &mut dyn Server) {
    let mut pair = Pair::new(server);
    pair.other.create("/p", None);
    let sets = WatchSets {
        relative_zxid: Zxid(0),
        persistent: vec!["/p"],
        persistent_recursive: vec!["/r"],
        ..WatchSets::default()
    };
    pair.watcher.call(&Request::SetWatches2(sets)).unwrap();
    assert_eq!(pair.events(), [], "nothing missed is told");
    pair.other.set("/p", None);
    pair.other.create("/r", None);
    pair.other.set("/p", None);
    let expected =
        [event(NodeDataChanged, "/p"), event(NodeCreated, "/r"), event(NodeDataChanged, "/p")];
    assert_eq!(pair.events(), expected);
}

on_every_server![
    a_deletion_is_told_once_before_any_answer_that_shows_it,
    a_standard_watch_fires_once,
    only_an_exists_watch_waits_for_what_is_missing,
    a_recursive_watch_tells_everything_below_and_stays,
    a_persistent_watch_tells_of_one_znode_and_its_children,
    watches_of_several_kinds_on_one_path_make_one_event,
    a_removed_watch_is_silent,
    watches_set_again_tell_what_was_missed,
    persistent_watches_set_again_go_on,
];
