//! The checks of each operation, in the order that decides which error a client sees.

use bytes::Bytes;
use znodefs::wire::CreateMode::{self, *};
use znodefs::wire::Request;
use znodefs::wire::request::CreateRequest;
use znodefs::{Acl, ErrorCode, OpCode, SessionId, Zxid};

use super::created_path;
use crate::request_processor::RequestProcessorOptions;
use crate::test_replica::*;
use crate::txn::TxnBody;

fn refused(replica: &mut TestReplica, request: &Request<'_>) -> ErrorCode {
    let digest_before = replica.tree.digest();
    let zxid = replica.last_zxid();
    let Err(error) = replica.write(request) else { panic!("{request:?} was let through") };
    assert_eq!(replica.last_zxid(), zxid.next().unwrap(), "a failed write uses up a zxid");
    assert_eq!(replica.tree.last_applied(), replica.last_zxid());
    assert_ne!(replica.tree.digest(), digest_before, "the zxid is part of the state");
    assert!(replica.take_events().is_empty());
    error
}

fn raw_create(op_code: OpCode, path: &str, flags: i32, ttl_ms: i64) -> Request<'_> {
    let data = Some(Bytes::new());
    Request::Create(CreateRequest { op_code, path, data, acl: Acl::open(), flags, ttl_ms })
}

#[test]
fn create_refuses_what_is_wrong_with_the_path() {
    let mut replica = TestReplica::new();
    let cases = [
        ("/", ErrorCode::NodeExists),
        ("/zookeeper", ErrorCode::NodeExists),
        ("/a/", ErrorCode::NoNode),
        ("/a/b", ErrorCode::NoNode),
        ("", ErrorCode::BadArguments),
        ("a", ErrorCode::BadArguments),
        ("a/b", ErrorCode::NoNode),
        ("/a\0", ErrorCode::BadArguments),
        ("/a\0/b", ErrorCode::BadArguments),
        ("//", ErrorCode::BadArguments),
        ("//a", ErrorCode::BadArguments),
        ("/.", ErrorCode::BadArguments),
        ("/..", ErrorCode::BadArguments),
        ("/\u{1f}", ErrorCode::BadArguments),
        ("/\u{fff0}", ErrorCode::BadArguments),
    ];
    for (path, expected) in cases {
        assert_eq!(refused(&mut replica, &create(path)), expected, "{path:?}");
    }
    replica.make("/a");
    replica.take_events();
    for (path, expected) in [("/a/", ErrorCode::BadArguments), ("/a", ErrorCode::NodeExists)] {
        assert_eq!(refused(&mut replica, &create(path)), expected, "{path:?}");
    }
    let nameless = replica.write(&create_mode("/a/", PersistentSequential)).unwrap();
    assert_eq!(created_path(nameless), "/a/0000000000");
}

#[test]
fn create_checks_in_zookeepers_order() {
    let mut replica = TestReplica::new();
    let gone = SessionId(99);
    // Each request has every later fault as well.
    let bad_flags = raw_create(OpCode::Create, "x", 7, 0);
    assert_eq!(replica.write_as(gone, &bad_flags), Err(ErrorCode::BadArguments));
    let no_session = create_with("x", Persistent, Vec::new());
    assert_eq!(replica.write_as(gone, &no_session), Err(ErrorCode::SessionExpired));
    let bad_path = create_with("x", Persistent, Vec::new());
    assert_eq!(replica.write(&bad_path), Err(ErrorCode::BadArguments));
    let bad_acl = create_with("/none/..", Persistent, Vec::new());
    assert_eq!(replica.write(&bad_acl), Err(ErrorCode::InvalidAcl));
    assert_eq!(replica.write(&create("/none/..")), Err(ErrorCode::NoNode));

    replica.write(&create_with("/closed", Persistent, acl("world:anyone:r"))).unwrap();
    assert_eq!(replica.write(&create("/closed/..")), Err(ErrorCode::NoAuth));
    replica.write(&create_mode("/e", Ephemeral)).unwrap();
    assert_eq!(replica.write(&create("/e/..")), Err(ErrorCode::BadArguments));
    assert_eq!(replica.write(&create("/e/x")), Err(ErrorCode::NoChildrenForEphemerals));
    assert_eq!(replica.write(&create("/e")), Err(ErrorCode::NodeExists));
}

#[test]
fn creation_operations_take_only_their_own_modes() {
    let mut replica = TestReplica::new();
    let cases = [
        (raw_create(OpCode::CreateTtl, "/t", 5, 0), ErrorCode::BadArguments),
        (raw_create(OpCode::CreateTtl, "/t", 5, -1), ErrorCode::BadArguments),
        (raw_create(OpCode::CreateTtl, "/t", 5, 1 << 40), ErrorCode::BadArguments),
        (raw_create(OpCode::CreateTtl, "/t", 0, 5), ErrorCode::BadArguments),
        (raw_create(OpCode::Create2, "/t", 5, 0), ErrorCode::BadArguments),
        (raw_create(OpCode::CreateContainer, "/t", 0, 0), ErrorCode::BadArguments),
        (raw_create(OpCode::Create, "/t", -1, 0), ErrorCode::BadArguments),
    ];
    for (request, expected) in cases {
        assert_eq!(refused(&mut replica, &request), expected, "{request:?}");
    }
    replica.write(&raw_create(OpCode::CreateTtl, "/t", 5, (1 << 40) - 1)).unwrap();

    let mut without_ttl = TestReplica::with_options(RequestProcessorOptions::default());
    let request = raw_create(OpCode::CreateTtl, "/t", 5, -1);
    assert_eq!(refused(&mut without_ttl, &request), ErrorCode::Unimplemented);
}

#[test]
fn delete_checks_in_zookeepers_order() {
    let mut replica = TestReplica::new();
    for path in ["x", "/\0", "/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
        assert_eq!(refused(&mut replica, &delete(path)), ErrorCode::BadArguments, "{path}");
    }
    assert_eq!(replica.write_as(SessionId(9), &delete("x")), Err(ErrorCode::SessionExpired));
    assert_eq!(replica.write(&delete("/none/x")), Err(ErrorCode::NoNode));
    replica.make("/p");
    replica.make("/p/c");
    replica
        .write(&Request::SetAcl { path: "/p", acl: acl("world:anyone:c"), version: -1 })
        .unwrap();
    assert_eq!(replica.write(&delete("/p/none")), Err(ErrorCode::NoAuth));
    assert_eq!(replica.write(&delete("/none")), Err(ErrorCode::NoNode));
    let wrong_version = Request::Delete { path: "/p", version: 7 };
    assert_eq!(replica.write(&wrong_version), Err(ErrorCode::BadVersion));
    assert_eq!(replica.write(&delete("/p")), Err(ErrorCode::NotEmpty));
    assert_eq!(replica.write(&delete("/p/")), Err(ErrorCode::NoAuth));
}

#[test]
fn set_data_checks_in_zookeepers_order() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    assert_eq!(refused_as(&mut replica, SessionId(9), "x"), ErrorCode::SessionExpired);
    assert_eq!(refused_as(&mut replica, SESSION, "/a/"), ErrorCode::BadArguments);
    assert_eq!(refused_as(&mut replica, SESSION, "/none"), ErrorCode::NoNode);
    assert_eq!(refused_as(&mut replica, SESSION, "/a"), ErrorCode::BadVersion);
    assert_eq!(refused_as(&mut replica, SESSION, "/zookeeper/config"), ErrorCode::NoAuth);
    replica.write(&set_data("/a", "1", 0)).unwrap();
    replica.write(&set_data("/a", "2", -1)).unwrap();
    assert_eq!(replica.stat("/a").version, 2);
}

fn refused_as(replica: &mut TestReplica, session_id: SessionId, path: &str) -> ErrorCode {
    replica.write_as(session_id, &set_data(path, "", 7)).unwrap_err()
}

#[test]
fn set_acl_checks_in_zookeepers_order() {
    let mut replica = TestReplica::new();
    replica.make("/a");
    let set = |path: &'static str, list: &str, version| Request::SetAcl {
        path,
        acl: if list.is_empty() { Vec::new() } else { acl(list) },
        version,
    };
    let open = "world:anyone:cdrwa";
    assert_eq!(replica.write(&set("/a/", "", 0)), Err(ErrorCode::BadArguments));
    assert_eq!(replica.write(&set("/none", "", 0)), Err(ErrorCode::InvalidAcl));
    assert_eq!(replica.write(&set("/none", open, 0)), Err(ErrorCode::NoNode));
    assert_eq!(replica.write(&set("/a", open, 7)), Err(ErrorCode::BadVersion));
    replica.write(&set("/a", "world:anyone:r", 0)).unwrap();
    assert_eq!(replica.write(&set("/a", open, 1)), Err(ErrorCode::NoAuth));
    let stat = replica.stat("/a");
    assert_eq!((stat.aversion, stat.version), (1, 0));
    assert_eq!(stat.mzxid, stat.czxid);
    replica.identities.push(identity("super", ""));
    replica.write(&set("/a", open, 1)).unwrap();
}

#[test]
fn reads_check_existence_before_permission() {
    let mut replica = TestReplica::new();
    replica.write(&create_with("/secret", Persistent, acl("digest:me:h=:cdrwa"))).unwrap();
    let denied = Err(ErrorCode::NoAuth);
    for path in ["/secret", "/none"] {
        let expected = if path == "/none" { Err(ErrorCode::NoNode) } else { denied.clone() };
        assert_eq!(replica.read(&Request::GetData { path, watch: true }), expected);
        assert_eq!(replica.read(&Request::GetChildren { path, watch: true }), expected);
        assert_eq!(replica.read(&Request::GetChildren2 { path, watch: true }), expected);
        assert_eq!(replica.read(&Request::Exists { path, watch: true }), expected);
        assert_eq!(replica.read(&Request::GetAcl { path }), expected);
        assert_eq!(replica.read(&Request::GetAllChildrenNumber { path }), expected);
    }
}

#[test]
fn versions_leave_out_minus_one() {
    // ZOOKEEPER-4743: no client could ask for version -1.
    assert_eq!(super::super::change::next_version(-2, -1), Ok(0));
    assert_eq!(super::super::change::next_version(i32::MAX, -1), Ok(i32::MIN));
    assert_eq!(super::super::change::next_version(5, 5), Ok(6));
    assert_eq!(super::super::change::next_version(5, 4), Err(ErrorCode::BadVersion));
}

#[test]
fn a_record_that_cannot_be_decoded_is_a_marshalling_error() {
    let mut replica = TestReplica::new();
    for op_code in [OpCode::Create, OpCode::SetData, OpCode::Multi, OpCode::Delete] {
        let body = Bytes::from_static(&[0, 0, 0, 9, b'/']);
        let txn = replica.prepare_raw(SESSION, op_code, body, OWNER);
        assert_eq!(txn.body, TxnBody::Error(ErrorCode::MarshallingError.code()));
    }
    let alone = replica.write(&Request::Check { path: "/", version: -1 });
    assert_eq!(alone, Err(ErrorCode::Unimplemented));
}

#[test]
fn an_epoch_whose_zxids_are_used_up_prepares_nothing() {
    let mut replica = TestReplica::new();
    replica.processor.set_last_zxid(Zxid::new(znodefs::Epoch(3), u32::MAX));
    let prepared = replica.processor.prepare_close_session(&replica.tree, SESSION, 0, 0);
    assert!(prepared.unwrap_err().to_string().contains("epoch 3"));
}

#[test]
fn sequential_names_count_creations_and_see_what_is_only_prepared() {
    let mut replica = TestReplica::new();
    replica.make("/q");
    let name = |replica: &mut TestReplica| {
        let created = replica.write(&create_mode("/q/n-", PersistentSequential));
        created_path(created.unwrap())
    };
    assert_eq!(name(&mut replica), "/q/n-0000000000");
    replica.make("/q/x");
    assert_eq!(name(&mut replica), "/q/n-0000000002");
    replica.write(&delete("/q/x")).unwrap();
    assert_eq!(name(&mut replica), "/q/n-0000000003");
    assert_eq!(replica.stat("/q").cversion, 5);

    for _ in 0..3 {
        replica.prepare_as(SESSION, &create_mode("/q/p-", EphemeralSequential));
    }
    replica.apply_all();
    let mut names: Vec<_> = replica.tree.node("/q").unwrap().children().collect();
    names.sort();
    assert_eq!(names[3..], ["p-0000000004", "p-0000000005", "p-0000000006"]);
}

#[test]
fn a_used_up_child_counter_refuses_sequential_names_and_nothing_else() {
    let mut replica = TestReplica::new();
    replica.make("/q");
    let mut txn = replica.prepare_as(SESSION, &create("/q/first"));
    let TxnBody::Change(crate::txn::Change::Create { parent_child_counter, .. }) = &mut txn.body
    else {
        panic!("no creation");
    };
    *parent_child_counter = i32::MAX;
    replica.pending.clear();
    replica.pending.push_back(txn);
    replica.apply_all();
    let next = replica.write(&create_mode("/q/n-", PersistentSequential));
    assert_eq!(next, Err(ErrorCode::BadArguments));
    replica.make("/q/plain");
    assert_eq!(replica.tree.node("/q").unwrap().child_counter(), i32::MAX);
}

#[test]
fn every_mode_makes_the_owner_that_a_stat_shows() {
    let mut replica = TestReplica::new();
    let modes: [(CreateMode, i64); 7] = [
        (Persistent, 0),
        (Ephemeral, SESSION.0),
        (PersistentSequential, 0),
        (EphemeralSequential, SESSION.0),
        (Container, 0),
        (PersistentWithTtl, 0),
        (PersistentSequentialWithTtl, 0),
    ];
    for (mode, owner) in modes {
        let path = format!("/{mode:?}");
        let path = created_path(replica.write(&create_mode(&path, mode)).unwrap());
        assert_eq!(path.len() > format!("/{mode:?}").len(), mode.is_sequential());
        assert_eq!(replica.stat(&path).ephemeral_owner, SessionId(owner), "{mode:?}");
    }
    assert_eq!(replica.tree.ephemerals_count(), 2);
    assert_eq!(replica.tree.containers_and_ttls().count(), 3);
}
