//! `reconfig`: the checks in ZooKeeper's order, and the configuration that comes of it.

use znodefs::wire::{Request, Response};
use znodefs::{ErrorCode, SessionId, Zxid};

use crate::config::ensemble::{ServerId, parse_members};
use crate::request_processor::{EnsembleView, RequestProcessorOptions};
use crate::test_replica::*;
use crate::txn::TxnBody;

const MEMBERS: &str = "server.1=a:1:2:participant;a:3\nserver.2=b:1:2:participant;b:3\n\
                       server.3=c:1:2:participant;c:3\n";
const VERSION: Zxid = Zxid(0x1_0000_0001);

fn replica() -> TestReplica {
    let options =
        RequestProcessorOptions { reconfig_enabled: true, ..RequestProcessorOptions::default() };
    let mut replica = TestReplica::with_options(options);
    replica.identities.push(identity("super", ""));
    replica
}

fn view(synced: &[u8]) -> EnsembleView {
    EnsembleView {
        members: parse_members(MEMBERS).unwrap(),
        version: VERSION,
        changes: false,
        synced: synced.iter().map(|id| ServerId(*id)).collect(),
        standalone_enabled: false,
    }
}

fn leader(synced: &[u8]) -> TestReplica {
    let mut replica = replica();
    replica.processor.set_ensemble(view(synced));
    replica
}

fn reconfig<'a>(joining: &'a str, leaving: &'a str) -> Request<'a> {
    let (joining, leaving) = (Some(joining), Some(leaving));
    Request::Reconfig { joining, leaving, new_members: None, current_config_id: -1 }
}

fn all(new_members: &str) -> Request<'_> {
    let new_members = Some(new_members);
    Request::Reconfig { joining: None, leaving: None, new_members, current_config_id: -1 }
}

fn outcome(replica: &mut TestReplica, request: &Request<'_>) -> Result<String, ErrorCode> {
    match replica.write(request)? {
        Response::Data { data, stat } => {
            assert_eq!(stat.version, -1);
            assert_eq!(stat.mzxid, replica.last_zxid());
            Ok(String::from_utf8(data.unwrap().to_vec()).unwrap())
        }
        other => panic!("no reply to a reconfig: {other:?}"),
    }
}

#[test]
fn reconfig_checks_in_zookeepers_order() {
    // Each request has every later fault as well.
    let nonsense = |current_config_id| Request::Reconfig {
        joining: Some("server.x"),
        leaving: None,
        new_members: None,
        current_config_id,
    };
    let mut disabled = TestReplica::new();
    assert_eq!(disabled.write_as(SessionId(99), &nonsense(1)), Err(ErrorCode::ReconfigDisabled));
    let mut alone = replica();
    assert_eq!(alone.write_as(SessionId(99), &nonsense(1)), Err(ErrorCode::SessionExpired));
    assert_eq!(outcome(&mut alone, &nonsense(1)), Err(ErrorCode::Unimplemented));
    let mut leader = leader(&[1]);
    leader.identities.pop();
    leader.processor.set_ensemble(EnsembleView { changes: true, ..view(&[1]) });
    assert_eq!(outcome(&mut leader, &nonsense(1)), Err(ErrorCode::ReconfigInProgress));
    leader.processor.set_ensemble(view(&[1]));
    assert_eq!(outcome(&mut leader, &nonsense(1)), Err(ErrorCode::BadVersion));
    assert_eq!(outcome(&mut leader, &nonsense(VERSION.0)), Err(ErrorCode::BadArguments));
    let unsynced = reconfig("server.4=d:1:2;3", "");
    assert_eq!(outcome(&mut leader, &unsynced), Err(ErrorCode::NewConfigNoQuorum));
    leader.processor.set_ensemble(view(&[1, 2, 4]));
    assert_eq!(outcome(&mut leader, &unsynced), Err(ErrorCode::NoAuth));
    leader.identities.push(identity("super", ""));
    assert!(outcome(&mut leader, &unsynced).is_ok());
}

#[test]
fn members_join_leave_and_change() {
    let synced = [1, 2, 3, 4, 5];
    let numbers = |text: &str| -> Vec<u8> {
        parse_members(text).unwrap().iter().map(|member| member.server_id.0).collect()
    };
    let mut leader = leader(&synced);
    let made = outcome(&mut leader, &reconfig("server.5=e:1:2;3,server.4=d:1:2:observer;3", "2,9"));
    let made = made.unwrap();
    assert_eq!(numbers(&made), [1, 3, 4, 5]);
    assert!(made.contains("server.4=d:1:2:observer;0.0.0.0:3\n"), "{made}");
    assert!(made.ends_with(&format!("version={:x}", leader.last_zxid().0)), "{made}");
    let made = outcome(&mut leader, &reconfig("server.2=z:7:8;9", "")).unwrap();
    assert!(made.contains("server.2=z:7:8:participant;0.0.0.0:9"), "{made}");
    let wanted = "server.7=g:1:2;3\nserver.1=a:1:2;3\nversion=99\n";
    leader.processor.set_ensemble(view(&[1, 7]));
    assert_eq!(numbers(&outcome(&mut leader, &all(wanted)).unwrap()), [1, 7]);
    leader.processor.set_ensemble(view(&[1, 2, 3]));
    let request = Request::Reconfig {
        joining: None,
        leaving: Some("3"),
        new_members: None,
        current_config_id: VERSION.0,
    };
    assert_eq!(numbers(&outcome(&mut leader, &request).unwrap()), [1, 2]);
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    for request in [
        reconfig("server.4=d:1:2", ""),
        reconfig("4=d:1:2;3", ""),
        reconfig("server.4=d:1:2;3,server.4=e:1:2;3", ""),
        reconfig("server.4=a:1:5;6", ""),
        reconfig("", "one"),
        reconfig("", "1,2,3"),
        all(""),
        all("server.1=a:1:2:observer;3"),
        all("server.1=a:1:2;3\nserver.1=b:1:2;3"),
        all("server.1=a:1:2;3\nserver.2=b:4:x;3"),
    ] {
        let refused = outcome(&mut leader(&[1, 2, 3]), &request);
        assert_eq!(refused, Err(ErrorCode::BadArguments), "{request:?}");
    }
    let mut leader = leader(&[1, 2, 3]);
    leader.processor.set_ensemble(EnsembleView { standalone_enabled: true, ..view(&[1, 2, 3]) });
    let one_left = outcome(&mut leader, &reconfig("", "2,3"));
    assert_eq!(one_left, Err(ErrorCode::BadArguments), "it would stand alone");
    leader.processor.set_ensemble(view(&[1]));
    assert!(outcome(&mut leader, &reconfig("", "2,3")).is_ok());
}

#[test]
fn a_second_one_waits_until_the_first_is_applied() {
    let mut leader = leader(&[1, 2, 3, 4]);
    let first = leader.prepare_as(SESSION, &reconfig("server.4=d:1:2;3", ""));
    assert!(matches!(first.body, TxnBody::Reconfig { .. }));
    let second = leader.prepare_as(SESSION, &reconfig("", "4"));
    assert_eq!(second.body, TxnBody::Error(ErrorCode::ReconfigInProgress.code()));
    leader.apply_all();
    let third = leader.prepare_as(SESSION, &reconfig("", "3"));
    assert!(matches!(third.body, TxnBody::Reconfig { .. }));
    // A leadership that is lost takes what it had prepared along.
    leader.processor.reset();
    let next = leader.prepare_as(SESSION, &reconfig("", "2"));
    assert!(matches!(next.body, TxnBody::Reconfig { .. }));
}

#[test]
fn the_files_configuration_becomes_a_transaction_of_its_own_version() {
    let mut leader = leader(&[1, 2, 3]);
    let txn = leader.processor.prepare_configuration(MEMBERS, 5).unwrap();
    let TxnBody::Reconfig { members, data } = &txn.body else { panic!("{txn:?}") };
    assert_eq!(members, MEMBERS);
    let text = std::str::from_utf8(data).unwrap();
    assert_eq!(text, format!("{MEMBERS}version={:x}", txn.zxid.0));
}
