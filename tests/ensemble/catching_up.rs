//! Who comes late or empty is brought up to date before it counts.

use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_tests::Ensemble;
use znodefs_tests::deadline::pause;

use crate::load::{Load, assert_nothing_is_lost, client_of, create};

/// Creates `count` znodes below `parent` through one member.
fn fill(runtime: &Runtime, ensemble: &Ensemble, id: u8, parent: &str, count: usize) {
    runtime.block_on(async {
        let client = client_of(&ensemble.address(id)).await;
        create(&client, parent, b"").await.expect("the parent");
        let mut under_way = Vec::new();
        for number in 0..count {
            let path = format!("{parent}/{number}");
            let acl = znodefs::acl::Acl::open();
            let data = Some(bytes::Bytes::from_static(&[b'x'; 100]));
            under_way.push(client.create(&path, data, acl, znodefs::CreateMode::Persistent));
            if under_way.len() == 500 {
                for one in under_way.drain(..) {
                    one.await.expect("a create");
                }
            }
        }
        for one in under_way {
            one.await.expect("a create");
        }
    });
}

fn assert_has(runtime: &Runtime, ensemble: &Ensemble, id: u8, parent: &str, count: usize) {
    runtime.block_on(async {
        let client = client_of(&ensemble.address(id)).await;
        let (names, _) = client.get_children(parent, false).await.expect("the children");
        assert_eq!(names.len(), count, "children of {parent} at member {id}");
    });
}

#[test]
fn a_late_follower_gets_what_it_missed_from_memory_and_from_the_log() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let late = ensemble.follower();
    ensemble.kill(late);
    let leader = ensemble.leader();
    fill(&runtime, &ensemble, leader, "/little", 100);
    ensemble.start_member(late);
    ensemble.wait_until_serving(late);
    assert_has(&runtime, &ensemble, late, "/little", 100);
    ensemble.kill(late);
    // More than the leader keeps in memory.
    fill(&runtime, &ensemble, leader, "/much", 12_000);
    ensemble.start_member(late);
    ensemble.wait_until_serving(late);
    assert_has(&runtime, &ensemble, late, "/much", 12_000);
}

/// The znodes of a wiped follower come as a snapshot, while `writes` go on or not.
fn wiped_follower_gets_a_snapshot(writes: bool) {
    let mut ensemble = Ensemble::start_with(3, 1, "snapCount=500\n");
    let runtime = Runtime::new().expect("a runtime");
    let leader = ensemble.leader();
    // More than the leader keeps in memory.
    fill(&runtime, &ensemble, leader, "/data", 11_000);
    let late = [ensemble.follower(), 4];
    for id in late {
        ensemble.kill(id);
        ensemble.wipe(id);
    }
    let load = writes.then(|| Load::start(&runtime, &ensemble, 4));
    for id in late {
        ensemble.start_member(id);
        ensemble.wait_until_serving(id);
        let log = ensemble.log_text(id);
        assert!(log.contains("replaces this replica's history"), "{log}");
        assert_has(&runtime, &ensemble, id, "/data", 11_000);
    }
    let report = load.map(|load| load.stop(&runtime));
    // What they got is on their disks: they serve it after a kill of everybody.
    ensemble.ids().into_iter().for_each(|id| ensemble.kill(id));
    ensemble.ids().into_iter().for_each(|id| ensemble.start_member(id));
    for id in ensemble.ids() {
        ensemble.wait_until_serving(id);
        assert_has(&runtime, &ensemble, id, "/data", 11_000);
    }
    if let Some(report) = report {
        assert_nothing_is_lost(&runtime, &ensemble, &report);
    }
}

#[test]
fn a_wiped_follower_and_observer_get_a_snapshot_and_keep_it() {
    wiped_follower_gets_a_snapshot(false);
}

#[test]
fn zookeeper_3104_item_8_a_snapshot_taken_by_a_follower_while_writes_go_on_misses_none() {
    wiped_follower_gets_a_snapshot(true);
}

#[test]
fn nuraft_185_item_45_a_wiped_follower_does_not_vote_before_it_is_up_to_date() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let wiped = ensemble.follower();
    ensemble.kill(wiped);
    let leader = ensemble.leader();
    fill(&runtime, &ensemble, leader, "/kept", 50);
    // Of the two that have the data only one is left; the wiped one must not make it a quorum.
    let other = ensemble.ids().into_iter().find(|id| *id != wiped && *id != leader).unwrap_or(0);
    ensemble.kill(leader);
    ensemble.kill(other);
    ensemble.wipe(wiped);
    ensemble.start_member(wiped);
    ensemble.start_member(other);
    pause(Duration::from_secs(3));
    assert!(!ensemble.is_serving(wiped) && !ensemble.is_serving(other));
    ensemble.start_member(leader);
    (1..=3).for_each(|id| ensemble.wait_until_serving(id));
    (1..=3).for_each(|id| assert_has(&runtime, &ensemble, id, "/kept", 50));
    // Now it counts.
    ensemble.kill(leader);
    ensemble.wait_until_serving(wiped);
    ensemble.wait_until_serving(other);
    assert_has(&runtime, &ensemble, wiped, "/kept", 50);
}

#[test]
fn an_observer_comes_and_goes_without_being_missed() {
    let mut ensemble = Ensemble::start(3, 1);
    let runtime = Runtime::new().expect("a runtime");
    ensemble.kill(4);
    let leader = ensemble.leader();
    fill(&runtime, &ensemble, leader, "/unseen", 200);
    ensemble.start_member(4);
    ensemble.wait_until_serving(4);
    runtime.block_on(async {
        let client = client_of(&ensemble.address(4)).await;
        client.sync("/").await.expect("a sync");
        create(&client, "/through-the-observer", b"").await.expect("a forwarded create");
    });
    assert_has(&runtime, &ensemble, 4, "/unseen", 200);
}
