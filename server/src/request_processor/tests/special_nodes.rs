//! Containers, times to live, quotas.

use bytes::Bytes;
use znodefs::wire::CreateMode::*;
use znodefs::wire::Request;
use znodefs::wire::request::CreateRequest;
use znodefs::{Acl, ErrorCode, OpCode};

use crate::request_processor::RequestProcessorOptions;
use crate::test_replica::*;

fn expire(replica: &mut TestReplica, never_used_ms: i64) -> Vec<String> {
    let mut paths = replica.processor.expired_nodes(&replica.tree, replica.time_ms, never_used_ms);
    paths.sort();
    for path in &paths {
        let time_ms = replica.time_ms;
        let prepared =
            replica.processor.prepare_delete_container(&replica.tree, path, time_ms, never_used_ms);
        if let Some(txn) = prepared.unwrap() {
            replica.queue(txn);
        }
    }
    replica.apply_all();
    paths
}

#[test]
fn a_container_goes_once_its_last_child_is_gone() {
    let mut replica = TestReplica::new();
    replica.write(&create_mode("/c", Container)).unwrap();
    assert_eq!(expire(&mut replica, 0), [""; 0], "it was never used");
    replica.make("/c/x");
    assert_eq!(expire(&mut replica, 0), [""; 0], "it has a child");
    replica.write(&delete("/c/x")).unwrap();
    assert_eq!(expire(&mut replica, 0), ["/c"]);
    assert!(replica.tree.node("/c").is_none());
    assert_eq!(replica.tree.containers_and_ttls().count(), 0);
}

#[test]
fn a_container_that_was_never_used_goes_after_its_time() {
    let mut replica = TestReplica::new();
    replica.write(&create_mode("/c", Container)).unwrap();
    replica.time_ms += 500;
    assert_eq!(expire(&mut replica, 500), [""; 0]);
    replica.time_ms += 1;
    assert_eq!(expire(&mut replica, 500), ["/c"]);
}

#[test]
fn a_time_to_live_starts_again_with_every_change_of_the_data() {
    let mut replica = TestReplica::new();
    replica.write(&create_mode("/t", PersistentWithTtl)).unwrap();
    replica.time_ms += 900;
    replica.write(&set_data("/t", "", -1)).unwrap();
    replica.time_ms += 1000;
    assert_eq!(expire(&mut replica, 0), [""; 0]);
    replica.make("/t/x");
    replica.time_ms += 1;
    assert_eq!(expire(&mut replica, 0), [""; 0], "it has a child");
    replica.write(&delete("/t/x")).unwrap();
    assert_eq!(expire(&mut replica, 0), ["/t"]);
}

#[test]
fn what_is_prepared_between_look_and_deletion_keeps_a_znode() {
    let mut replica = TestReplica::new();
    replica.write(&create_mode("/c", Container)).unwrap();
    replica.make("/c/x");
    replica.write(&delete("/c/x")).unwrap();
    replica.write(&create_mode("/t", PersistentWithTtl)).unwrap();
    replica.time_ms += 2000;
    let due = replica.processor.expired_nodes(&replica.tree, replica.time_ms, 0);
    assert_eq!(due.len(), 2);
    replica.prepare_as(SESSION, &create("/c/y"));
    replica.prepare_as(SESSION, &set_data("/t", "", -1));
    let zxid = replica.last_zxid();
    for path in ["/c", "/t", "/none", "/"] {
        let time_ms = replica.time_ms;
        let prepared = replica.processor.prepare_delete_container(&replica.tree, path, time_ms, 0);
        assert_eq!(prepared, Ok(None), "{path}");
    }
    assert_eq!(replica.last_zxid(), zxid);
    let body = Bytes::from_static(b"\0\0\0\x02/c");
    let txn = replica.prepare_raw(SESSION, OpCode::DeleteContainer, body, OWNER);
    let refused = crate::txn::TxnBody::Error(ErrorCode::Unimplemented.code());
    assert_eq!(txn.body, refused, "clients cannot delete containers this way");
}

fn replica_with_quota(limits: &'static str, enforce_quota: bool) -> TestReplica {
    let mut replica = TestReplica::with_options(RequestProcessorOptions {
        enforce_quota,
        ..RequestProcessorOptions::default()
    });
    replica.make("/a");
    replica.make("/zookeeper/quota/a");
    for (name, text) in [("zookeeper_limits", limits), ("zookeeper_stats", "count=0,bytes=0")] {
        let path = format!("/zookeeper/quota/a/{name}");
        let data = Some(Bytes::from_static(text.as_bytes()));
        let request = CreateRequest::new(&path, data, Acl::open(), Persistent, 0);
        replica.write(&Request::Create(request)).unwrap();
    }
    replica
}

fn usage(replica: &TestReplica) -> String {
    let node = replica.tree.node("/zookeeper/quota/a/zookeeper_stats").unwrap();
    String::from_utf8(node.data().unwrap().to_vec()).unwrap()
}

#[test]
fn hard_limits_of_a_quota_are_kept_when_they_are_enforced() {
    let limits = "count=-1,bytes=-1=;byteHardLimit=5;countHardLimit=3";
    for enforced in [true, false] {
        let mut replica = replica_with_quota(limits, enforced);
        replica.make("/a/b");
        replica.make("/a/c");
        replica.write(&set_data("/a/b", "12345", -1)).unwrap();
        let expected = if enforced { Err(ErrorCode::QuotaExceeded) } else { Ok(()) };
        assert_eq!(replica.write(&create("/a/d")).map(|_| ()), expected);
        let longer = replica.write(&set_data("/a/c", "1", -1));
        assert_eq!(longer.map(|_| ()), expected);
        let same_length = replica.write(&set_data("/a/b", "54321", 0));
        assert_eq!(same_length.map(|_| ()), Err(ErrorCode::BadVersion));
        replica.write(&delete("/a/c")).unwrap();
        replica.write(&set_data("/a/b", "1234", -1)).unwrap();
        replica.write(&set_data("/a", "1", -1)).unwrap();
        replica.make("/elsewhere");
    }
}

#[test]
fn soft_limits_of_a_quota_refuse_nothing() {
    let mut replica = replica_with_quota("count=1,bytes=1", true);
    replica.make("/a/b");
    replica.write(&set_data("/a/b", "12345", -1)).unwrap();
}

#[test]
fn usage_counts_the_znode_itself_and_changes_without_version_or_event() {
    let mut replica = replica_with_quota("count=10,bytes=100", false);
    let stats_path = "/zookeeper/quota/a/zookeeper_stats";
    assert_eq!(usage(&replica), "count=1,bytes=0");
    let before = replica.stat(stats_path);
    replica.take_events();
    replica.make("/a/b");
    replica.write(&set_data("/a/b", "12345", -1)).unwrap();
    replica.write(&set_data("/a", "12", -1)).unwrap();
    assert_eq!(usage(&replica), "count=2,bytes=7");
    replica.write(&delete("/a/b")).unwrap();
    assert_eq!(usage(&replica), "count=1,bytes=2");
    assert_eq!(replica.stat(stats_path), before);
    assert!(replica.take_events().iter().all(|(_, path)| !path.starts_with("/zookeeper")));
    // What a client writes there does not count.
    replica.write(&set_data(stats_path, "count=77,bytes=77", -1)).unwrap();
    assert_eq!(usage(&replica), "count=1,bytes=2");
    let quota = replica.tree.quota("/a/b/c").unwrap();
    assert_eq!((quota.path, quota.limits.count, quota.count), ("/a", 10, 1));
    assert_eq!(replica.tree.quota("/ab"), None);
    replica.write(&delete(stats_path)).unwrap();
    assert_eq!(replica.tree.quota("/a"), None);
}

#[test]
fn a_quota_below_another_takes_its_znodes_out_of_the_others_count() {
    let mut replica = replica_with_quota("count=10,bytes=100", false);
    for path in ["/a/b", "/a/b/c", "/a/d", "/zookeeper/quota/a/b"] {
        replica.make(path);
    }
    assert_eq!(usage(&replica), "count=4,bytes=0");
    replica.make("/zookeeper/quota/a/b/zookeeper_stats");
    assert_eq!(usage(&replica), "count=2,bytes=0");
    replica.make("/a/b/e");
    assert_eq!(usage(&replica), "count=2,bytes=0");
    replica.write(&delete("/zookeeper/quota/a/b/zookeeper_stats")).unwrap();
    assert_eq!(usage(&replica), "count=5,bytes=0");
}
