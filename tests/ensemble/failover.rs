//! Members die and come back under load; nothing acknowledged is lost.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use znodefs_tests::deadline::pause;
use znodefs_tests::{Ensemble, wait_until};

use crate::load::{Load, LoadReport, client_of, create, names_at};

const WRITERS: usize = 8;

/// Waits until `more` further writes are acknowledged.
fn wait_for_progress(load: &Load, more: usize) {
    let enough = load.count() + more;
    let limit = Duration::from_secs(60);
    wait_until("writes flow", limit, || load.count() >= enough);
}

#[allow(clippy::disallowed_methods, reason = "measures the service in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Every acknowledged write is at every member, and every member shows the same.
fn assert_nothing_is_lost(runtime: &Runtime, ensemble: &Ensemble, report: &LoadReport) {
    let mut shown = None;
    for id in ensemble.ids() {
        ensemble.wait_until_serving(id);
        let names = runtime.block_on(names_at(&ensemble.address(id)));
        let lost: Vec<_> = report.acknowledged.difference(&names).collect();
        assert!(lost.is_empty(), "member {id} lost {lost:?}");
        let more = names.len() - report.acknowledged.len();
        assert!(more <= report.unknown, "{more} more than asked for at member {id}");
        assert_eq!(shown.get_or_insert_with(|| names.clone()), &names, "member {id}");
    }
}

#[test]
fn a_killed_leader_is_replaced_at_once_and_nothing_acknowledged_is_lost() {
    let mut ensemble = Ensemble::start(3, 1);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, WRITERS);
    let mut kills = Vec::new();
    for _ in 0..3 {
        wait_for_progress(&load, 200);
        let leader = ensemble.leader();
        kills.push(now());
        ensemble.kill(leader);
        wait_for_progress(&load, 200);
        ensemble.start_member(leader);
        ensemble.wait_until_serving(leader);
    }
    wait_for_progress(&load, 200);
    let report = load.stop(&runtime);
    for kill in &kills {
        let gap = report.gap_at(*kill);
        println!("failover after kill -9 of the leader: {} ms without a write", gap.as_millis());
        // A machine with much else to do takes its time; the figure is printed to be looked at.
        assert!(gap < Duration::from_secs(2), "{gap:?}");
    }
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn a_killed_follower_is_not_missed_and_catches_up() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, WRITERS);
    for _ in 0..3 {
        wait_for_progress(&load, 200);
        let follower = ensemble.follower();
        ensemble.kill(follower);
        wait_for_progress(&load, 200);
        ensemble.start_member(follower);
        ensemble.wait_until_serving(follower);
    }
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn all_members_killed_at_once_come_back_with_everything() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, WRITERS);
    for _ in 0..2 {
        wait_for_progress(&load, 300);
        (1..=3).for_each(|id| ensemble.kill(id));
        (1..=3).for_each(|id| ensemble.start_member(id));
        (1..=3).for_each(|id| ensemble.wait_until_serving(id));
    }
    wait_for_progress(&load, 100);
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn a_leader_that_is_stopped_hands_over() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, WRITERS);
    wait_for_progress(&load, 200);
    let leader = ensemble.leader();
    let stopped = now();
    ensemble.stop(leader);
    wait_for_progress(&load, 200);
    ensemble.start_member(leader);
    ensemble.wait_until_serving(leader);
    let report = load.stop(&runtime);
    let gap = report.gap_at(stopped);
    println!("handover of a stopped leader: {} ms without a write", gap.as_millis());
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn with_the_majority_gone_writes_are_refused_and_come_back_with_it() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client_of(&ensemble.address(1)).await;
        create(&client, "/before", b"1").await.expect("a create");
    });
    ensemble.kill(2);
    // Full service with one dead.
    ensemble.wait_until_serving(1);
    ensemble.wait_until_serving(3);
    runtime.block_on(async {
        let client = client_of(&ensemble.address(1)).await;
        create(&client, "/minority-dead", b"2").await.expect("a create with one dead");
    });
    ensemble.kill(3);
    wait_until("the one that is left stops serving", Duration::from_secs(20), || {
        ensemble.word(1, "srvr").is_some_and(|answer| answer.contains("not currently serving"))
    });
    pause(Duration::from_millis(500));
    assert!(!ensemble.is_serving(1));
    ensemble.start_member(2);
    ensemble.wait_until_serving(1);
    runtime.block_on(async {
        let client = client_of(&ensemble.address(1)).await;
        for path in ["/before", "/minority-dead"] {
            assert!(client.exists(path, false).await.expect("a read").is_some(), "{path}");
        }
        create(&client, "/after", b"3").await.expect("a create after the return");
    });
}
