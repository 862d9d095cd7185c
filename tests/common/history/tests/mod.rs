//! Histories that must be accepted, and histories that must not.

mod random;
mod service;
mod wrong;

use std::time::Duration;

use bytes::Bytes;
use znodefs::acl::Acl;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{MultiResult, OpCode, Request, Response};
use znodefs::{CreateMode, ErrorCode, SessionId, Stat, Zxid};

use super::{ClientId, History, Outcome};

const NOW: Duration = Duration::ZERO;

fn create<'a>(path: &'a str, data: &'static str, mode: CreateMode) -> Request<'a> {
    let data = Some(Bytes::from_static(data.as_bytes()));
    Request::Create(CreateRequest::new(path, data, Acl::open(), mode, 0))
}

fn stat(created: i64, modified: i64, version: i32, length: i32) -> Stat {
    let (czxid, mzxid, pzxid) = (Zxid(created), Zxid(modified), Zxid(created));
    Stat { czxid, mzxid, pzxid, version, data_length: length, ..Stat::default() }
}

fn data(text: &'static str, stat: Stat) -> Response {
    Response::Data { data: Some(Bytes::from_static(text.as_bytes())), stat }
}

/// Asks and is answered at once.
fn done(history: &mut History, client: ClientId, request: &Request<'_>, zxid: i64, is: &Response) {
    let operation = history.invoke(client, NOW, request);
    history.complete(operation, NOW, Zxid(zxid), Ok(is));
}

fn two_clients() -> (History, ClientId, ClientId) {
    let mut history = History::new();
    let (one, other) = (history.client(), history.client());
    history.opened(one, NOW, SessionId(1));
    history.opened(other, NOW, SessionId(2));
    let made = Response::Created { path: "/a".into(), stat: stat(5, 5, 0, 1) };
    done(&mut history, one, &create("/a", "1", CreateMode::Persistent), 5, &made);
    (history, one, other)
}

fn set(text: &'static str) -> Request<'static> {
    let data = Some(Bytes::from_static(text.as_bytes()));
    Request::SetData { path: "/a", data, version: -1 }
}

const GET: Request<'static> = Request::GetData { path: "/a", watch: false };

#[track_caller]
fn assert_rules(history: &History, expected: &[&str]) {
    let report = history.check();
    let rules: Vec<&str> = report.violations.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, expected, "{report}");
    assert!(report.undecided.is_empty());
}

#[test]
fn an_unknown_write_may_have_been_done_or_not_and_shows_by_the_version_if_by_nothing_else() {
    for (version, expected) in [(1, vec![]), (2, vec![]), (3, vec![()])] {
        let (mut history, one, other) = two_clients();
        let lost = history.invoke(one, NOW, &set("lost"));
        history.lose(lost, NOW);
        let answer = Response::Stat(stat(5, 9, version, 4));
        done(&mut history, other, &set("last"), 9, &answer);
        done(&mut history, other, &GET, 9, &data("last", stat(5, 9, version, 4)));
        assert_eq!(history.check().violations.len(), expected.len(), "{}", history.check());
    }
}

#[test]
fn an_unknown_write_has_one_effect_at_most() {
    let (mut history, one, other) = two_clients();
    let lost = history.invoke(one, NOW, &set("2"));
    history.lose(lost, NOW);
    done(&mut history, other, &GET, 7, &data("2", stat(5, 7, 1, 1)));
    assert_rules(&history, &[]);
    done(&mut history, other, &GET, 9, &data("2", stat(5, 9, 2, 1)));
    let twice = "every change was asked for, and made at most once";
    let shown = "replies show what the writes before them have made";
    assert_rules(&history, &[twice, shown]);
}

#[test]
fn what_was_never_sent_has_no_effect() {
    let (mut history, one, other) = two_clients();
    let unsent = history.invoke(one, NOW, &set("2"));
    history.not_sent(unsent, NOW);
    done(&mut history, other, &GET, 7, &data("2", stat(5, 7, 1, 1)));
    assert_eq!(history.check().violations.len(), 2, "{}", history.check());
}

#[test]
fn a_write_comes_after_all_that_was_shown_before_it_was_asked_for() {
    let (mut history, one, other) = two_clients();
    done(&mut history, one, &set("2"), 8, &Response::Stat(stat(5, 8, 1, 1)));
    done(
        &mut history,
        other,
        &create("/b", "", CreateMode::Persistent),
        7,
        &Response::Path("/b".into()),
    );
    assert_rules(&history, &["writes are linearizable"]);
}

#[test]
fn a_failed_multi_has_no_effect_and_a_torn_one_is_found() {
    let (mut history, one, other) = two_clients();
    let multi = || Request::Multi(vec![set("2"), create("/b", "", CreateMode::Persistent)]);
    let failed = Response::Multi(vec![MultiResult::Error(0), MultiResult::Error(-110)]);
    done(&mut history, one, &multi(), 6, &failed);
    assert_eq!(history.check().violations.len(), 1, "there is no /b: {}", history.check());
    let (mut history, one, _) = (two_clients().0, one, other);
    let both = vec![
        MultiResult::Ok(OpCode::SetData, Response::Stat(stat(5, 6, 1, 1))),
        MultiResult::Ok(OpCode::Create, Response::Path("/b".into())),
    ];
    done(&mut history, one, &multi(), 6, &Response::Multi(both));
    assert_rules(&history, &[]);
    let exists = Request::Exists { path: "/b", watch: false };
    let operation = history.invoke(other, NOW, &exists);
    history.complete(operation, NOW, Zxid(6), Err(ErrorCode::NoNode));
    assert_rules(&history, &["replies show what the writes before them have made"]);
}

#[test]
fn an_ephemeral_znode_of_a_session_that_must_be_over_is_found() {
    let (mut history, one, other) = two_clients();
    let owned = Stat { ephemeral_owner: SessionId(1), ..stat(6, 6, 0, 1) };
    let made = Response::Created { path: "/e".into(), stat: owned };
    done(&mut history, one, &create("/e", "1", CreateMode::Ephemeral), 6, &made);
    history.must_be_over(one, NOW);
    let exists = Request::Exists { path: "/e", watch: false };
    // A replica may be behind.
    done(&mut history, other, &exists, 7, &Response::Stat(owned));
    assert_rules(&history, &[]);
    done(&mut history, other, &Request::Sync { path: "/" }, 9, &Response::Path("/".into()));
    done(&mut history, other, &exists, 10, &Response::Stat(owned));
    assert_rules(&history, &["replies show what the writes before them have made"]);
}

#[test]
fn a_violation_shows_the_history_of_the_znode_around_it() {
    let (mut history, one, other) = two_clients();
    for number in 0..50 {
        let path = format!("/other-{number}");
        let zxid = 10 + number;
        let made = Response::Path(path.clone());
        done(&mut history, one, &create(&path, "", CreateMode::Persistent), zxid, &made);
    }
    done(&mut history, other, &GET, 60, &data("wrong", stat(5, 5, 0, 5)));
    let report = history.check();
    assert_eq!(report.violations.len(), 1, "{report}");
    let excerpt = &report.violations[0].excerpt;
    assert!(excerpt.contains("create /a \"1\": ok at 0x5"), "{excerpt}");
    assert!(excerpt.contains(">   0.000000 client   1 #51 getData /a"), "{excerpt}");
    assert!(!excerpt.contains("/other"), "{excerpt}");
}

#[test]
fn an_answer_that_says_that_the_connection_was_lost_leaves_the_outcome_open() {
    assert_eq!(Outcome::of(Zxid(5), Err(ErrorCode::ConnectionLoss)), Outcome::Unknown);
}

/// During an outage many lose their writes to one znode; some of them were done.
#[test]
fn an_outage_with_many_unknown_writes_is_decided() {
    let (mut history, one, other) = two_clients();
    let writers: Vec<ClientId> = (0..40).map(|_| history.client()).collect();
    for round in 0..3 {
        let zxid = 100 * (round + 1);
        for (number, writer) in writers.iter().enumerate() {
            let asked = match number % 4 {
                0 => Request::Delete { path: "/a", version: -1 },
                1 => create("/a", "lost", CreateMode::Persistent),
                _ => set("lost"),
            };
            let lost = history.invoke(*writer, NOW, &asked);
            history.lose(lost, NOW);
        }
        // Deleted, created and set eleven times: by whom, nobody knows.
        let now = stat(zxid - 20, zxid, 12, 4);
        done(&mut history, one, &set("last"), zxid, &Response::Stat(now));
        done(&mut history, other, &GET, zxid, &data("last", now));
        assert_rules(&history, &[]);
    }
}

#[test]
fn more_changes_than_anybody_has_asked_for_are_found_among_many_unknown_writes() {
    for (version, rules) in
        [(26, vec![]), (27, vec!["replies show what the writes before them have made"])]
    {
        let (mut history, one, _) = two_clients();
        for _ in 0..25 {
            let writer = history.client();
            let lost = history.invoke(writer, NOW, &set("lost"));
            history.lose(lost, NOW);
        }
        let answer = Response::Stat(stat(5, 9, version, 4));
        done(&mut history, one, &set("last"), 9, &answer);
        assert_rules(&history, &rules);
    }
}
