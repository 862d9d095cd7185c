//! Whose requests are taken, and what goes with a session.

use bytes::{Bytes, BytesMut};
use znodefs::wire::CreateMode::*;
use znodefs::wire::{Encode, EventType, Request};
use znodefs::{ErrorCode, OpCode, SessionId};

use crate::request_processor::SessionOwner;
use crate::test_replica::*;
use crate::tree::Applied;
use crate::txn::TxnBody;

fn body_of(request: &Request<'_>) -> Bytes {
    let mut body = BytesMut::new();
    request.encode(&mut body);
    body.freeze()
}

#[test]
fn a_session_counts_from_the_moment_its_creation_is_prepared() {
    let mut replica = TestReplica::new();
    let session_id = SessionId(0x0100_0000_0000_0009);
    assert_eq!(replica.write_as(session_id, &create("/a")), Err(ErrorCode::SessionExpired));
    let timeout = Bytes::from_static(&[0, 0, 0x10, 0]);
    replica.prepare_raw(session_id, OpCode::CreateSession, timeout, OWNER);
    replica.prepare_as(session_id, &create_mode("/a", Ephemeral));
    replica.apply_all();
    assert_eq!(replica.tree.session_timeout_ms(session_id), Some(4096));
    assert_eq!(replica.stat("/a").ephemeral_owner, session_id);
    assert_eq!(replica.tree.session_count(), 3);
}

#[test]
fn closing_takes_applied_and_prepared_ephemerals_but_not_deleted_ones() {
    let mut replica = TestReplica::new();
    replica.make("/p");
    for path in ["/p/kept", "/p/deleted", "/p/set", "/p/taken"] {
        replica.write(&create_mode(path, Ephemeral)).unwrap();
    }
    replica.prepare_as(OTHER, &delete("/p/deleted"));
    replica.prepare_as(OTHER, &set_data("/p/set", "x", -1));
    replica.prepare_as(OTHER, &delete("/p/taken"));
    replica.prepare_as(OTHER, &create_mode("/p/taken", Ephemeral));
    replica.prepare_as(SESSION, &create_mode("/p/new", EphemeralSequential));
    replica.prepare_as(SESSION, &create_mode("/p/short", Ephemeral));
    replica.prepare_as(SESSION, &delete("/p/short"));
    replica.close_session(SESSION);
    let TxnBody::CloseSession { ephemerals } = &replica.pending.back().unwrap().body else {
        panic!("no closing transaction");
    };
    assert_eq!(*ephemerals, ["/p/kept", "/p/new0000000005", "/p/set"]);
    replica.prepare_as(OTHER, &delete("/p/taken"));
    replica.prepare_as(OTHER, &delete("/p"));
    let (_, applied) = replica.apply_all().unwrap();
    assert_eq!(applied, Applied::Done, "the parent is empty for who comes behind the closing");
    assert!(replica.tree.node("/p").is_none());
    assert_eq!(replica.tree.ephemerals_count(), 0);
}

#[test]
fn zookeeper_3496_and_4306_item_35_a_closing_with_all_its_ephemerals_fits_into_the_log() {
    // ZOOKEEPER-3496, -4306: whatever a session creates, its closing can be written and read.
    let mut replica = TestReplica::new();
    let name = "n".repeat(1 << 20);
    let mut made = 0;
    let refused = loop {
        let path = format!("/{name}{made}");
        let txn = replica.prepare_as(SESSION, &create_mode(&path, Ephemeral));
        if made % 4 == 0 {
            replica.apply_all();
        }
        match txn.body {
            TxnBody::Error(code) => break code,
            _ => made += 1,
        }
    };
    assert_eq!(refused, ErrorCode::QuotaExceeded.code());
    assert!((30..32).contains(&made), "{made}");
    replica.apply_all();
    replica.write_as(OTHER, &create_mode("/e", Ephemeral)).unwrap();
    replica.close_session(SESSION);
    let closing = replica.log.pop().unwrap();
    let mut record = Vec::new();
    crate::codec::encode_into(&closing, &mut record).unwrap();
    assert!(record.len() > 30 << 20);
    let decoded: crate::txn::Txn = crate::codec::decode(&record).unwrap();
    assert_eq!(decoded, closing);
    replica.apply_all();
    assert_eq!(replica.tree.ephemerals_count(), 1);
    assert_eq!(replica.tree.ephemerals_length(SESSION), 0);
}

#[test]
fn clickhouse_65198_item_43_nothing_of_a_session_is_taken_behind_its_closing() {
    let mut replica = TestReplica::new();
    replica.close_session(SESSION);
    for step in ["prepared", "applied"] {
        let create = replica.prepare_as(SESSION, &create("/a"));
        assert_eq!(create.body, TxnBody::Error(ErrorCode::SessionExpired.code()), "{step}");
        let checked = replica.processor.check_session(&replica.tree, SESSION, OWNER);
        assert_eq!(checked, Err(ErrorCode::SessionExpired), "{step}");
        assert!(!replica.processor.set_session_owner(&replica.tree, SESSION, OWNER), "{step}");
        replica.apply_all();
    }
    assert_eq!(replica.tree.session_timeout_ms(SESSION), None);
}

#[test]
fn zookeeper_3471_item_27_an_ephemeral_created_just_before_the_closing_goes() {
    let mut replica = TestReplica::new();
    replica.prepare_as(SESSION, &create_mode("/e", Ephemeral));
    replica.close_session(SESSION);
    let (txn, created) = replica.apply_next().unwrap();
    assert!(reply(OpCode::Create2, &txn, &created).is_ok());
    let (txn, closed) = replica.apply_next().unwrap();
    assert!(reply(OpCode::CloseSession, &txn, &closed).is_ok());
    assert!(replica.tree.node("/e").is_none());
    let pzxid = replica.stat("/").pzxid;
    assert_eq!(pzxid, txn.zxid);
}

#[test]
fn expiry_and_a_delete_in_flight_make_one_deletion() {
    for expiry_first in [false, true] {
        let mut replica = TestReplica::new();
        replica.write(&create_mode("/e", Ephemeral)).unwrap();
        replica.take_events();
        if expiry_first {
            replica.close_session(SESSION);
            replica.prepare_as(OTHER, &delete("/e"));
        } else {
            replica.prepare_as(OTHER, &delete("/e"));
            replica.close_session(SESSION);
        }
        replica.apply_all();
        let deletions =
            replica.take_events().into_iter().filter(|one| one.0 == EventType::NodeDeleted);
        assert_eq!(deletions.count(), 1);
    }
}

#[test]
fn a_request_through_a_former_owner_is_refused() {
    let mut replica = TestReplica::new();
    let new_owner = SessionOwner(2);
    let body = body_of(&create("/a"));
    assert!(replica.processor.set_session_owner(&replica.tree, SESSION, new_owner));
    let late = replica.prepare_raw(SESSION, OpCode::Create2, body.clone(), OWNER);
    assert_eq!(late.body, TxnBody::Error(ErrorCode::SessionMoved.code()));
    let taken = replica.prepare_raw(SESSION, OpCode::Create2, body, new_owner);
    assert!(matches!(taken.body, TxnBody::Change(_)));
}

#[test]
fn a_new_leader_takes_the_first_owner_that_asks() {
    let mut replica = TestReplica::new();
    replica.processor.reset();
    let owner = SessionOwner(9);
    assert_eq!(replica.processor.check_session(&replica.tree, SESSION, owner), Ok(()));
    let other = replica.processor.check_session(&replica.tree, SESSION, OWNER);
    assert_eq!(other, Err(ErrorCode::SessionMoved));
}

#[test]
fn what_was_prepared_under_a_lost_leadership_is_forgotten() {
    let mut replica = TestReplica::new();
    replica.prepare_as(SESSION, &create("/a"));
    replica.close_session(OTHER);
    replica.pending.clear();
    replica.processor.reset();
    assert!(replica.write(&create("/a")).is_ok());
    assert!(replica.write_as(OTHER, &create("/b")).is_ok());
}
