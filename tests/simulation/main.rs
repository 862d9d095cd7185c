//! Deterministic simulation of whole ensembles: a fixed number of seeds, and the proof that the
//! simulator finds mistakes. `scripts/simulate` runs as many seeds as one likes.

#![allow(missing_docs, reason = "a test")]

mod database;
mod disk;
mod execute;
mod invariants;
mod nemesis;
mod network;
mod node;
mod plan;
mod random;
mod report;
mod trace;
mod world;

use znodefs_server::zab::Mutation;

use report::{Counts, describe, run};
use trace::Detail;

/// Seeds of the everyday run.
const SEEDS: u64 = 100;
/// Every mutation must be caught within so many seeds.
const SEEDS_PER_MUTATION: u64 = 200;

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
