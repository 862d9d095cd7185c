//! A run and what came of it.

use znodefs_server::zab::Mutation;

use crate::invariants::Violation;
use crate::plan::Plan;
use crate::trace::{Detail, Trace};
use crate::world::World;

/// How much of everything a run had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub effects: u64,
    pub packets: u64,
    pub proposals: u64,
    pub delivered: u64,
    pub acknowledged: u64,
    pub syncs: u64,
    pub faults: u64,
    pub crashes: u64,
    pub wipes: u64,
    pub handovers: u64,
    pub reconfigurations: u64,
    pub elections: u64,
    pub leaders: u64,
    pub truncations: u64,
    pub log_reads: u64,
    pub snapshots_sent: u64,
    pub snapshots_installed: u64,
    /// From the end of the faults until all was well, in microseconds.
    pub recovery_us: u64,
}

impl Counts {
    /// Adds a run's counts; of the times to recover, the longest.
    pub fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.effects += other.effects;
        self.packets += other.packets;
        self.proposals += other.proposals;
        self.delivered += other.delivered;
        self.acknowledged += other.acknowledged;
        self.syncs += other.syncs;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.wipes += other.wipes;
        self.handovers += other.handovers;
        self.reconfigurations += other.reconfigurations;
        self.elections += other.elections;
        self.leaders += other.leaders;
        self.truncations += other.truncations;
        self.log_reads += other.log_reads;
        self.snapshots_sent += other.snapshots_sent;
        self.snapshots_installed += other.snapshots_installed;
        self.recovery_us = self.recovery_us.max(other.recovery_us);
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How much happened.
    pub counts: Counts,
    /// What must not have happened.
    pub violation: Option<Violation>,
    /// The last lines before it.
    pub trace: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64, mutation: Option<Mutation>, detail: Detail) -> Outcome {
    let mut world = World::new(Plan::new(seed, mutation), Trace::new(detail));
    world.run();
    let (acknowledged, syncs) = world.invariants.clients.counts();
    world.counts.packets = world.network.sent;
    world.counts.acknowledged = acknowledged;
    world.counts.syncs = syncs;
    world.counts.delivered = world.invariants.total_order.length() as u64;
    world.counts.leaders = world.invariants.leadership.count() as u64;
    Outcome {
        counts: world.counts,
        violation: world.violation.take(),
        trace: world.trace.lines().map(str::to_owned).collect(),
    }
}

/// A failed seed for a person: what failed, how it came to it, how to see it again.
pub fn describe(seed: u64, mutation: Option<Mutation>) -> String {
    let outcome = run(seed, mutation, Detail::Last);
    let Some(violation) = &outcome.violation else {
        return format!("seed {seed} does not fail");
    };
    let mut text = outcome.trace.join("\n");
    let flag = mutation.map(|mutation| format!(" --mutation {mutation:?}")).unwrap_or_default();
    text += &format!(
        "\nseed {seed} violates \"{}\": {}\nagain, with every step: scripts/simulate --seeds \
         {seed}..{}{flag} --trace\n",
        violation.invariant,
        violation.detail,
        seed + 1
    );
    text
}
