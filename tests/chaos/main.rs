//! Chaos on real processes, in a network of their own, with disks of their own: while members are
//! killed, paused, cut off, filled up, removed and taken back, clients record what they see; the
//! history is judged, and in the end all members show the same tree. `scripts/chaos` goes on for as
//! long as one likes.

#![allow(missing_docs, reason = "a test")]

mod clients;
mod members;
mod nemesis;
mod plan;
mod progress;
mod raw_client;
mod record;
mod requests;
mod run;

use std::time::Duration;

use znodefs_server::mutation::{Mistake, Mutation};
use znodefs_tests::Random;

use plan::Plan;
use progress::Progress;
use run::{Failure, run};

/// How long the everyday run goes on.
const TIME: Duration = Duration::from_secs(20);

/// How long a sync takes at most on a disk that forgets.
const SYNC_MAX: Duration = Duration::from_millis(25);

/// How long a mistake may go unnoticed; most of them take seconds.
const MISTAKE_TIME: Duration = Duration::from_secs(300);

fn seed() -> u64 {
    let given = std::env::var("ZNODEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| Random::from_system().next_u64())
}

#[track_caller]
fn assert_keeps_promises(plan: &Plan) {
    eprintln!("once more: {}", plan.command());
    match run(plan, &mut Progress::new(None)) {
        Ok(summary) => println!("{summary}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn chaos_with_three_members_breaks_no_promise() {
    assert_keeps_promises(&Plan::new(seed(), 3, 0, TIME));
}

#[test]
fn chaos_with_five_voters_two_observers_and_tls_breaks_no_promise() {
    let plan = Plan::new(seed(), 5, 2, TIME);
    assert_keeps_promises(&Plan { tls: true, ..plan });
}

#[test]
fn power_cuts_cost_nothing_that_was_acknowledged() {
    let plan = Plan::new(seed(), 3, 1, TIME);
    assert_keeps_promises(&Plan { forgets: Some(SYNC_MAX), ..plan });
}

/// A mistake that the members themselves do not notice, and clients do, within seconds. `scripts/chaos
/// --mistake` tries the others, of which some need minutes and luck.
#[track_caller]
fn assert_clients_notice(mistake: Mistake) {
    let plan = Plan::new(seed(), 3, 0, MISTAKE_TIME);
    let plan = Plan { mistake: Some(mistake), round: MISTAKE_TIME, ..plan };
    match run(&plan, &mut Progress::new(None)) {
        Err(Failure::Promise(report)) => {
            let violation = &report.violations[0];
            println!("{}: {}: {}", mistake.name(), violation.rule, violation.description);
        }
        Err(Failure::Other(other)) => {
            panic!("{}: found by something else: {other}", mistake.name())
        }
        Ok(summary) => panic!("{} is not found: {summary}", mistake.name()),
    }
}

#[test]
fn a_watch_that_fires_twice_is_noticed_by_clients() {
    assert_clients_notice(Mistake::Replica(Mutation::WatchFiresTwice));
}

#[test]
fn a_change_that_a_watch_set_again_does_not_tell_is_noticed_by_clients() {
    assert_clients_notice(Mistake::Replica(Mutation::SetWatchesNotComparing));
}

#[test]
fn a_write_of_a_session_that_is_being_closed_is_noticed_by_clients() {
    assert_clients_notice(Mistake::Replica(Mutation::ClosingSessionStillWrites));
}
