//! Members die and come back under load; nothing acknowledged is lost.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use znodefs_tests::deadline::pause;
use znodefs_tests::{Ensemble, wait_until};

use crate::load::{Load, assert_nothing_is_lost, client_of, create};

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

#[test]
fn members_restarted_one_at_a_time_are_not_missed() {
    let mut ensemble = Ensemble::start(3, 1);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, WRITERS);
    for id in ensemble.ids() {
        wait_for_progress(&load, 100);
        ensemble.stop(id);
        wait_for_progress(&load, 100);
        ensemble.start_member(id);
        ensemble.wait_until_serving(id);
    }
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

#[test]
fn a_leader_that_stood_still_beyond_every_limit_is_a_follower_when_it_wakes() {
    let settings = "tickTime=300\ninitLimit=10\nsyncLimit=3\nmaxSessionTimeout=30000\n";
    let mut ensemble = Ensemble::start_with(3, 0, settings);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, WRITERS);
    wait_for_progress(&load, 100);
    let leader = ensemble.leader();
    ensemble.process(leader).signal(Signal::SIGSTOP);
    let others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != leader).collect();
    wait_until("another one leads", Duration::from_secs(40), || {
        others.iter().any(|id| ensemble.role(*id).as_deref() == Some("leader"))
    });
    wait_for_progress(&load, 100);
    ensemble.process(leader).signal(Signal::SIGCONT);
    wait_until("it follows", Duration::from_secs(40), || {
        ensemble.role(leader).as_deref() == Some("follower")
    });
    wait_for_progress(&load, 100);
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}
