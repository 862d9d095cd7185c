//! Deterministic simulation of ensembles, of the protocol alone and of whole replicas (`replica`): a
//! fixed number of seeds, and the proof that the simulator finds mistakes. `scripts/simulate` runs as
//! many seeds as one likes.

#![allow(missing_docs, reason = "a test")]

mod agenda;
mod crash_point;
mod database;
mod disk;
mod execute;
mod invariants;
mod nemesis;
mod network;
mod networked;
mod node;
mod plan;
mod random;
mod replica;
mod report;
mod scenarios;
mod trace;
mod world;

use znodefs_server::zab::{Mutation, Settings};

use network::Latency;
use plan::Plan;
use replica::plan::{Limits, Mistake};
use report::{Counts, describe, run};
use trace::{Detail, Trace};
use world::World;

/// Seeds of the everyday run.
const SEEDS: u64 = 100;
/// Every mutation must be caught within so many seeds.
const SEEDS_PER_MUTATION: u64 = 1000;

#[test]
fn invariants_hold_for_a_fixed_set_of_seeds() {
    let mut total = Counts::default();
    for seed in 0..SEEDS {
        let outcome = run(seed, None, Detail::Nothing);
        assert!(outcome.violation.is_none(), "{}", describe(seed, None));
        total.add(&outcome.counts);
    }
    // What was never tried was not tested.
    let tried = [
        total.truncations,
        total.log_reads,
        total.snapshots_installed,
        total.wipes,
        total.handovers,
        total.syncs,
        total.reconfigurations,
    ];
    assert!(!tried.contains(&0), "{total:#?}");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, None, Detail::Last), run(seed, None, Detail::Last));
        assert_eq!(first, second);
    }
}

#[test]
fn every_mutation_is_caught() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let caught = (0..SEEDS_PER_MUTATION)
            .find(|seed| run(*seed, Some(mutation), Detail::Nothing).violation.is_some());
        match caught {
            Some(seed) => println!("{mutation:?}: caught by seed {seed}"),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_PER_MUTATION} seeds: {missed:?}");
}

/// Seeds of the everyday run with whole replicas, and how much of each, in simulated seconds.
const REPLICA_SEEDS: u64 = 20;
const REPLICA_SECONDS: u64 = 20;

fn some_seconds() -> Limits {
    Limits { duration_us: REPLICA_SECONDS * 1_000_000, ..Limits::NONE }
}

#[test]
fn whole_replicas_hold_their_invariants_for_a_fixed_set_of_seeds() {
    let mut total = replica::report::Counts::default();
    for seed in 0..REPLICA_SEEDS {
        let outcome = replica::report::run(seed, None, some_seconds(), Detail::Nothing);
        let described = || replica::report::describe(seed, None, some_seconds());
        assert!(outcome.violation.is_none(), "{}", described());
        total.add(&outcome.counts);
    }
    // What was never tried was not tested.
    let tried = [
        total.writes,
        total.reads,
        total.syncs,
        total.events_heard,
        total.watches_restored,
        total.sessions_moved,
        total.sessions_expired,
        total.crashes,
        total.wipes,
        total.disk_failures,
        total.snapshots_taken,
        total.snapshots_installed,
        total.reconfigurations,
        total.read_only_answers,
        total.read_only_refusals,
        total.read_only_turned_away,
        total.read_only_returns,
    ];
    assert!(!tried.contains(&0), "{total:#?}");
}

#[test]
fn one_seed_is_one_run_of_whole_replicas() {
    for seed in [1, 2] {
        let run = || replica::report::run(seed, None, some_seconds(), Detail::Last);
        assert_eq!(run(), run());
    }
}

/// Some that fail early; `scripts/simulate --mutation all` tries every one.
#[test]
fn mistakes_of_whole_replicas_are_caught() {
    let early = [
        "WatchFiresTwice",
        "ReadOvertakesWrite",
        "ClosingSessionStillWrites",
        "ReadOnlyAcknowledgesWrites",
        "ReadOnlyGoesOn",
    ];
    for mistake in Mistake::all().into_iter().filter(|one| early.contains(&one.name().as_str())) {
        let caught = (0..REPLICA_SEEDS).any(|seed| {
            let limits = some_seconds();
            replica::report::run(seed, Some(mistake), limits, Detail::Nothing).violation.is_some()
        });
        assert!(caught, "{} is not caught within {REPLICA_SEEDS} seeds", mistake.name());
    }
}

/// How long writes do not flow when the leader of three replicas goes, in simulated microseconds:
/// the median over some seeds. A network as on one machine, a sync of the disk in 0.1 to 2 ms.
fn interruption_us(end: impl Fn(&mut World, usize)) -> u64 {
    let interruption = |seed| {
        let mut plan = Plan::new(seed, None);
        plan.voters = 3;
        plan.observers = 0;
        plan.settings = Settings::default();
        plan.latency = Latency { min_us: 50, max_us: 500, spike_one_in: 0 };
        plan.loss_percent = 0;
        plan.fault_mean_us = u64::from(u32::MAX);
        plan.reconfiguration_percent = 0;
        let mut world = World::new(plan, Trace::new(Detail::Nothing));
        world.run_until(10_000_000);
        let leader = world.leader().expect("ten seconds are enough for an election");
        end(&mut world, leader);
        let before = world.agenda.now();
        while world.leader().is_none_or(|next| next == leader || !world.nodes[next].serving) {
            world.run_until(world.agenda.now() + 100);
        }
        assert!(world.violation.is_none(), "{:?}", world.violation);
        world.agenda.now() - before
    };
    let mut interruptions: Vec<u64> = (0..21).map(interruption).collect();
    interruptions.sort_unstable();
    interruptions[interruptions.len() / 2]
}

#[test]
fn leader_that_dies_is_replaced_within_a_tenth_of_a_second() {
    let interruption = interruption_us(World::crash);
    println!("{interruption} us");
    assert!(interruption < 100_000, "{interruption} us");
}

#[test]
fn leader_that_shuts_down_is_replaced_within_a_twentieth_of_a_second() {
    let interruption = interruption_us(World::shut_down);
    println!("{interruption} us");
    assert!(interruption < 50_000, "{interruption} us");
}
