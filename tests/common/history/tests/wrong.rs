//! One wrong history for each guarantee, made by hand: what a client must never be told, and which
//! promise that breaks. Each has a right twin that differs in nothing else.

use znodefs::wire::{EventType, KeeperState, WatchedEvent};

use super::*;

const SHOWN: &str = "replies show what the writes before them have made";
const DONE: &str = "an acknowledged write is done once its condition holds, and stays";
const BACK: &str = "a session's zxids never go back";
const MISSED: &str = "a watch tells before a reply shows the change";
const ONCE: &str = "a watch fires once, and for a reason";
const ORDER: &str = "events come in the order of changes, before later replies";

const SYNC: Request<'static> = Request::Sync { path: "/" };
const WATCH: Request<'static> = Request::GetData { path: "/a", watch: true };

fn synced() -> Response {
    Response::Path("/".into())
}

fn changed(zxid: i64) -> WatchedEvent {
    let (event_type, state) = (EventType::NodeDataChanged, KeeperState::SYNC_CONNECTED);
    WatchedEvent { zxid: Some(Zxid(zxid)), event_type, state, path: "/a".into() }
}

/// Told that it was done, and a synced reader elsewhere sees what was before it.
#[test]
fn an_acknowledged_write_that_nobody_sees_is_lost() {
    let seen = [(data("2", stat(5, 8, 1, 1)), vec![]), (data("1", stat(5, 5, 0, 1)), vec![SHOWN])];
    for (seen, rules) in seen {
        let (mut history, one, other) = two_clients();
        done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
        done(&mut history, other, &SYNC, 8, &synced());
        done(&mut history, other, &GET, 8, &seen);
        assert_rules(&history, &rules);
    }
}

/// Nobody reads it before the next write, whose version tells that it was made over something older.
#[test]
fn an_acknowledged_write_that_the_next_one_does_not_count_is_lost() {
    for (version, rules) in [(2, vec![]), (1, vec![SHOWN])] {
        let (mut history, one, other) = two_clients();
        done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
        done(
            &mut history,
            other,
            &set("3"),
            1 << 32,
            &Response::Stat(stat(5, 1 << 32, version, 1)),
        );
        assert_rules(&history, &rules);
    }
}

#[test]
fn an_acknowledged_creation_that_can_be_made_again_is_lost() {
    let again = create("/b", "2", CreateMode::Persistent);
    let (mut history, one, other) = two_clients();
    let made = |zxid| Response::Created { path: "/b".into(), stat: stat(zxid, zxid, 0, 1) };
    done(&mut history, one, &create("/b", "1", CreateMode::Persistent), 7, &made(7));
    done(&mut history, one, &Request::Delete { path: "/b", version: -1 }, 8, &Response::Empty);
    done(&mut history, other, &again, 9, &made(9));
    assert_rules(&history, &[]);
    done(&mut history, one, &create("/b", "3", CreateMode::Persistent), 10, &made(10));
    assert_rules(&history, &[DONE]);
}

/// Two clients take the same lock by the version that both have read.
#[test]
fn of_two_writes_for_the_same_version_one_succeeds() {
    let swap = |text: &'static str| {
        let data = Some(Bytes::from_static(text.as_bytes()));
        Request::SetData { path: "/a", data, version: 0 }
    };
    let (mut history, one, other) = two_clients();
    done(&mut history, one, &swap("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
    let mut right = history.clone();
    let refused = right.invoke(other, NOW, &swap("3"));
    right.complete(refused, NOW, Zxid(9), Err(ErrorCode::BadVersion));
    assert_rules(&right, &[]);
    done(&mut history, other, &swap("3"), 9, &Response::Stat(stat(5, 9, 2, 1)));
    assert_rules(&history, &[DONE]);
}

#[test]
fn one_place_in_the_order_belongs_to_one_write() {
    let (mut history, one, other) = two_clients();
    let first = history.invoke(one, NOW, &create("/b", "", CreateMode::Persistent));
    let second = history.invoke(other, NOW, &create("/c", "", CreateMode::Persistent));
    history.complete(first, NOW, Zxid(6), Ok(&Response::Path("/b".into())));
    history.complete(second, NOW, Zxid(6), Ok(&Response::Path("/c".into())));
    assert_rules(&history, &["one zxid, one write"]);
}

/// A leader that was deposed answers a sync: what others were told before is not there.
#[test]
fn a_sync_that_does_not_reach_what_was_told_before_is_stale() {
    for (zxid, rules) in [(8, vec![]), (7, vec!["a read behind a sync is linearizable"])] {
        let (mut history, one, other) = two_clients();
        done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
        done(&mut history, other, &SYNC, zxid, &synced());
        assert_rules(&history, &rules);
    }
}

/// Without a sync a replica may be behind, and a session may not go back to it.
#[test]
fn a_session_never_sees_less_than_it_has_seen() {
    let (mut history, one, other) = two_clients();
    done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
    done(&mut history, other, &GET, 7, &data("1", stat(5, 5, 0, 1)));
    assert_rules(&history, &[]);
    done(&mut history, one, &GET, 7, &data("1", stat(5, 5, 0, 1)));
    assert_rules(&history, &[BACK]);
}

#[test]
fn a_sessions_writes_keep_their_order() {
    let (first, second) =
        (create("/b", "", CreateMode::Persistent), create("/c", "", CreateMode::Persistent));
    let (made_b, made_c) = (Response::Path("/b".into()), Response::Path("/c".into()));
    let (mut history, one, _) = two_clients();
    let (b, c) = (history.invoke(one, NOW, &first), history.invoke(one, NOW, &second));
    let mut answered_late = history.clone();
    history.complete(b, NOW, Zxid(8), Ok(&made_b));
    history.complete(c, NOW, Zxid(7), Ok(&made_c));
    assert_rules(&history, &[BACK, "a session's writes take effect in their order"]);
    answered_late.complete(c, NOW, Zxid(8), Ok(&made_c));
    answered_late.complete(b, NOW, Zxid(9), Ok(&made_b));
    let rules =
        ["replies come in the order of requests", "a session's writes take effect in their order"];
    assert_rules(&answered_late, &rules);
}

/// The first write's reply was lost with the connection, and it takes effect behind the second one.
#[test]
fn a_write_left_behind_on_another_connection_does_not_overtake() {
    for (zxid, rules) in [(7, vec![]), (9, vec!["a session's writes take effect in their order"])] {
        let (mut history, one, other) = two_clients();
        let left = history.invoke(one, NOW, &create("/b", "", CreateMode::Persistent));
        history.disconnected(one, NOW);
        history.lose(left, NOW);
        history.reconnected(one, NOW, false);
        let made = Response::Path("/c".into());
        done(&mut history, one, &create("/c", "", CreateMode::Persistent), 8, &made);
        let exists = Request::Exists { path: "/b", watch: false };
        done(&mut history, other, &exists, 9, &Response::Stat(stat(zxid, zxid, 0, 0)));
        assert_rules(&history, &rules);
    }
}

#[test]
fn nothing_of_a_session_follows_its_end() {
    let (mut history, one, _) = two_clients();
    done(&mut history, one, &Request::CloseSession, 6, &Response::Empty);
    assert_rules(&history, &[]);
    done(&mut history, one, &GET, 6, &data("1", stat(5, 5, 0, 1)));
    assert_rules(&history, &["nothing follows a session's end"]);
}

/// The session lives on, and shows it; its ephemeral znode is gone.
#[test]
fn an_ephemeral_znode_stays_with_its_session() {
    let (mut history, one, other) = two_clients();
    let owned = Stat { ephemeral_owner: SessionId(1), ..stat(6, 6, 0, 1) };
    let made = Response::Created { path: "/e".into(), stat: owned };
    done(&mut history, one, &create("/e", "1", CreateMode::Ephemeral), 6, &made);
    let gone = history.invoke(other, NOW, &Request::Exists { path: "/e", watch: false });
    history.complete(gone, NOW, Zxid(8), Err(ErrorCode::NoNode));
    assert_rules(&history, &[]);
    done(&mut history, one, &set("2"), 9, &Response::Stat(stat(5, 9, 1, 1)));
    assert_rules(&history, &[SHOWN]);
}

/// Its owner said goodbye.
#[test]
fn an_ephemeral_znode_goes_with_the_goodbye() {
    let (mut history, one, other) = two_clients();
    let owned = Stat { ephemeral_owner: SessionId(1), ..stat(6, 6, 0, 1) };
    let made = Response::Created { path: "/e".into(), stat: owned };
    done(&mut history, one, &create("/e", "1", CreateMode::Ephemeral), 6, &made);
    done(&mut history, one, &Request::CloseSession, 7, &Response::Empty);
    let exists = Request::Exists { path: "/e", watch: false };
    // A replica may be behind.
    done(&mut history, other, &exists, 6, &Response::Stat(owned));
    assert_rules(&history, &[]);
    done(&mut history, other, &exists, 7, &Response::Stat(owned));
    assert_rules(&history, &[SHOWN]);
}

/// A watcher of `/a`, which is then set at 8.
fn watched() -> (History, ClientId) {
    let (mut history, one, other) = two_clients();
    done(&mut history, other, &WATCH, 5, &data("1", stat(5, 5, 0, 1)));
    done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
    (history, other)
}

#[test]
fn a_watch_tells_before_the_reply_that_shows_the_change() {
    let now = data("2", stat(5, 8, 1, 1));
    let (mut history, watcher) = watched();
    assert_rules(&history, &[]);
    history.event(watcher, NOW, &changed(8));
    done(&mut history, watcher, &GET, 9, &now);
    assert_rules(&history, &[]);

    let (mut history, watcher) = watched();
    done(&mut history, watcher, &GET, 9, &now);
    assert_rules(&history, &[MISSED]);
    // Too late.
    history.event(watcher, NOW, &changed(8));
    assert_rules(&history, &[MISSED, ONCE, ORDER]);
}

#[test]
fn a_watch_tells_once() {
    let (mut history, watcher) = watched();
    history.event(watcher, NOW, &changed(8));
    assert_rules(&history, &[]);
    history.event(watcher, NOW, &changed(8));
    assert_rules(&history, &[ONCE]);
}

/// The change came while there was no connection, and the watch was set again.
#[test]
fn a_watch_set_again_tells_what_was_missed() {
    for (is_told, rules) in [(true, vec![]), (false, vec![MISSED])] {
        let (mut history, one, other) = two_clients();
        done(&mut history, other, &WATCH, 5, &data("1", stat(5, 5, 0, 1)));
        history.disconnected(other, NOW);
        done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
        history.reconnected(other, NOW, true);
        if is_told {
            history.event(other, NOW, &WatchedEvent { zxid: None, ..changed(8) });
        }
        done(&mut history, other, &GET, 9, &data("2", stat(5, 8, 1, 1)));
        assert_rules(&history, &rules);
    }
}
