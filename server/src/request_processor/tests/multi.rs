//! Several operations as one: each sees the ones before it, and all happen or none.

use znodefs::wire::CreateMode::*;
use znodefs::wire::{EventType, MultiResult, Request, Response};
use znodefs::{ErrorCode, OpCode, SessionId};

use super::created_path;
use crate::request_processor::SessionOwner;
use crate::test_replica::*;
use crate::txn::TxnBody;

fn check(path: &str, version: i32) -> Request<'_> {
    Request::Check { path, version }
}

#[test]
fn a_multi_answers_each_operation_with_its_own_record() {
    let mut replica = TestReplica::new();
    let mut plain = create("/plain");
    if let Request::Create(create) = &mut plain {
        create.op_code = OpCode::Create;
    }
    let operations = vec![
        plain,
        create("/a"),
        create("/a/b"),
        set_data("/a", "new", 0),
        check("/a", 1),
        delete("/a/b"),
        create_mode("/c", Container),
        create_mode("/t", PersistentWithTtl),
    ];
    let Response::Multi(results) = replica.write(&Request::Multi(operations)).unwrap() else {
        panic!("no reply to a multi");
    };
    let zxid = replica.last_zxid();
    let op_codes: Vec<_> = results
        .iter()
        .map(|result| match result {
            MultiResult::Ok(op_code, _) => *op_code,
            MultiResult::Error(code) => panic!("failed with {code}"),
        })
        .collect();
    use OpCode::*;
    let expected = [Create, Create2, Create2, SetData, Check, Delete, Create2, Create2];
    assert_eq!(op_codes, expected);
    let MultiResult::Ok(_, Response::Created { stat, .. }) = &results[1] else { panic!() };
    assert_eq!((stat.czxid, stat.num_children, stat.data_length), (zxid, 0, 0));
    let MultiResult::Ok(_, Response::Stat(stat)) = &results[3] else { panic!() };
    assert_eq!((stat.version, stat.num_children, stat.data_length), (1, 1, 3));
    assert_eq!(replica.tree.last_applied(), zxid);
    let stat = replica.stat("/a");
    assert_eq!((stat.cversion, stat.pzxid, stat.mtime), (2, zxid, replica.time_ms));
}

#[test]
fn a_failed_multi_changes_nothing_but_the_zxid_and_no_counter() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    replica.make("/q");
    replica.take_events();
    let failing = Request::Multi(vec![
        check("/a", 0),
        create("/b"),
        set_data("/missing", "", -1),
        create("/c"),
    ]);
    let zxid = replica.last_zxid();
    let codes = multi_codes(replica.write(&failing).unwrap());
    assert_eq!(codes, [0, 0, ErrorCode::NoNode.code(), -2]);
    assert_eq!(replica.last_zxid(), zxid.next().unwrap());
    assert!(replica.tree.node("/b").is_none());
    assert!(replica.take_events().is_empty());
    let next = replica.write(&create_mode("/s-", PersistentSequential)).unwrap();
    assert_eq!(created_path(next), "/s-0000000002");
}

#[test]
fn an_aborted_multi_between_pipelined_creations_takes_no_number() {
    // ZOOKEEPER-1624.
    let mut replica = TestReplica::new();
    replica.make("/q");
    let sequential = || create_mode("/q/n-", PersistentSequential);
    replica.prepare_as(SESSION, &sequential());
    let failing = Request::Multi(vec![sequential(), sequential(), delete("/none")]);
    replica.prepare_as(SESSION, &failing);
    replica.prepare_as(SESSION, &sequential());
    replica.prepare_as(SESSION, &Request::Multi(vec![sequential(), delete("/q/n-0000000000")]));
    replica.apply_all();
    let mut names: Vec<_> = replica.tree.node("/q").unwrap().children().collect();
    names.sort();
    assert_eq!(names, ["n-0000000001", "n-0000000002"]);
    assert_eq!(replica.stat("/q").cversion, 4);
}

#[test]
fn an_aborted_multi_leaves_earlier_prepared_changes_as_they_were() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    replica.prepare_as(SESSION, &set_data("/a", "x", -1));
    let failing = Request::Multi(vec![
        set_data("/a", "y", 1),
        create_mode("/a/e", Ephemeral),
        delete("/a/e"),
        delete("/a"),
        create("/a"),
        check("/a", 5),
    ]);
    replica.prepare_as(SESSION, &failing);
    replica.prepare_as(SESSION, &set_data("/a", "z", 1));
    replica.close_session(SESSION);
    let (closing, _) = replica.apply_all().unwrap();
    assert_eq!(closing.body, TxnBody::CloseSession { ephemerals: Vec::new() });
    assert_eq!(replica.stat("/a").version, 2);
    assert_eq!(replica.tree.node("/a").unwrap().data(), Some(&b"z"[..]));
}

#[test]
fn operations_of_a_multi_see_the_ones_before_them() {
    let mut replica = TestReplica::new();
    let operations = vec![
        create("/a"),
        create("/a/b"),
        create_mode("/a/b/s", PersistentSequential),
        delete("/a/b/s0000000000"),
        delete("/a/b"),
        delete("/a"),
        create("/a"),
    ];
    replica.write(&Request::Multi(operations)).unwrap();
    let stat = replica.stat("/a");
    assert_eq!((stat.cversion, stat.num_children), (0, 0));
    let codes = replica.write(&Request::Multi(vec![create("/a/b"), delete("/a")])).unwrap();
    assert_eq!(multi_codes(codes), [0, ErrorCode::NotEmpty.code()]);
}

#[test]
fn events_of_a_multi_come_in_the_order_of_its_operations() {
    let mut replica = TestReplica::new();
    let operations = vec![create("/a"), set_data("/a", "", -1), delete("/a")];
    replica.write(&Request::Multi(operations)).unwrap();
    use EventType::*;
    let expected = [
        (NodeCreated, "/a"),
        (NodeChildrenChanged, "/"),
        (NodeDataChanged, "/a"),
        (NodeDeleted, "/a"),
        (NodeChildrenChanged, "/"),
    ];
    let expected: Vec<Event> =
        expected.into_iter().map(|(event, path)| (event, path.to_string())).collect();
    assert_eq!(replica.take_events(), expected);
}

#[test]
fn sessions_are_checked_inside_a_multi() {
    let mut replica = TestReplica::new();
    let request = Request::Multi(vec![create("/a"), create("/b")]);
    let codes = replica.write_as(SessionId(77), &request).unwrap();
    assert_eq!(multi_codes(codes), [ErrorCode::SessionExpired.code(), -2]);
    let empty = replica.write(&Request::Multi(Vec::new())).unwrap();
    assert_eq!(empty, Response::Multi(Vec::new()));

    // A session that has moved is an error of the whole request: its connection is to be closed.
    use znodefs::wire::Encode;
    replica.make("/a");
    let mut body = bytes::BytesMut::new();
    request.encode(&mut body);
    let moved = SessionOwner(OWNER.0 + 1);
    let txn = replica.prepare_raw(SESSION, OpCode::Multi, body.freeze(), moved);
    assert_eq!(txn.body, TxnBody::Error(ErrorCode::SessionMoved.code()));
}

#[test]
fn a_multi_read_answers_what_it_can() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    replica.make("/a/b");
    let request = Request::MultiRead(vec![
        Request::GetData { path: "/a", watch: true },
        Request::GetData { path: "/none", watch: true },
        Request::GetChildren { path: "/a", watch: false },
    ]);
    let Response::Multi(results) = replica.read(&request).unwrap() else { panic!() };
    assert!(matches!(&results[0], MultiResult::Ok(OpCode::GetData, Response::Data { .. })));
    assert_eq!(results[1], MultiResult::Error(ErrorCode::NoNode.code()));
    let names = Response::Names(vec!["b".to_string()]);
    assert_eq!(results[2], MultiResult::Ok(OpCode::GetChildren, names));
}
