//! Five voters and two observers.

use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_tests::{Directory, Ensemble, Shell, WireClient, binary, wait_until};

use crate::load::{Load, assert_nothing_is_lost};

const SOON: Duration = Duration::from_secs(60);
const OBSERVERS: [u8; 2] = [6, 7];

fn wait_for_progress(load: &Load) {
    let enough = load.count() + 200;
    wait_until("writes flow", SOON, || load.count() >= enough);
}

#[test]
fn observers_serve_and_are_not_missed_and_neither_are_two_of_five_voters() {
    let mut ensemble = Ensemble::start(5, 2);
    let directory = Directory::new();
    let shell = Shell::new(&directory).variable("ZNODE_SERVERS", ensemble.address(1));
    let status = shell.run(Command::new(binary("znode")).args(["ensemble", "status"])).ok();
    let count = |role: &str| {
        let roles = status.lines().filter_map(|line| line.split_whitespace().nth(2));
        roles.filter(|found| *found == role).count()
    };
    let counted = ["leader", "follower", "observer"].map(count);
    assert_eq!(counted, [1, 4, 2], "all members, found through one:\n{status}");

    // They forward writes and show them at once to who made them.
    for id in OBSERVERS {
        assert_eq!(ensemble.role(id).as_deref(), Some("observer"));
        let mut client = WireClient::connect(&ensemble.address(id));
        let path = format!("/through-{id}");
        client.create(&path, Some(b"written through an observer"));
        assert_eq!(client.data(&path).as_deref(), Some(&b"written through an observer"[..]));
    }
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 6);
    wait_for_progress(&load);
    let leader = ensemble.leader();
    OBSERVERS.iter().for_each(|id| ensemble.kill(*id));
    wait_for_progress(&load);
    assert_eq!(ensemble.leader(), leader, "nobody looked for another");
    // Three of five are a quorum, without the observers' help.
    let victims: Vec<u8> = (1..=5).filter(|id| *id != leader).take(1).chain([leader]).collect();
    victims.iter().for_each(|id| ensemble.kill(*id));
    wait_for_progress(&load);
    for id in OBSERVERS {
        ensemble.start_member(id);
        ensemble.wait_until_serving(id);
    }
    wait_for_progress(&load);
    for id in victims {
        ensemble.start_member(id);
        ensemble.wait_until_serving(id);
    }
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
    // Two more make it three dead: observers are no quorum.
    let voters: Vec<u8> = (1..=5).collect();
    voters[..3].iter().for_each(|id| ensemble.kill(*id));
    wait_until("observers serve nobody", SOON, || {
        OBSERVERS.iter().all(|id| !ensemble.is_serving(*id))
    });
}

#[test]
fn an_observer_of_a_single_voter_starts_again() {
    let mut ensemble = Ensemble::start(1, 1);
    for id in [2, 1, 2] {
        ensemble.stop(id);
        ensemble.start_member(id);
        ensemble.wait_until_serving(1);
        ensemble.wait_until_serving(2);
    }
    WireClient::connect(&ensemble.address(2)).create("/through-it", None);
}
