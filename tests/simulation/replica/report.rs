//! A run with whole replicas and what came of it; a failure made small.

use std::panic::{AssertUnwindSafe, catch_unwind};

use znodefs_server::mutation;

use super::log::Log;
use super::plan::{Limits, Mistake, Plan};
use super::world::World;
use crate::invariants::Violation;
use crate::trace::Detail;

/// Runs tried to make a failure smaller.
const SHRINKING_RUNS: usize = 24;

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// How much of everything a run had.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $(pub $name: u64,)*
            /// From the end of the faults until all was well, in microseconds.
            pub recovery_us: u64,
        }

        impl Counts {
            /// Adds a run's counts; of the times to recover, the longest.
            pub fn add(&mut self, other: &Counts) {
                $(self.$name += other.$name;)*
                self.recovery_us = self.recovery_us.max(other.recovery_us);
            }
        }
    };
}

counts!(
    events,
    turns,
    effects,
    messages,
    log_works,
    requests,
    answers,
    events_heard,
    committed,
    writes,
    failures,
    reads,
    syncs,
    watches_restored,
    moved_writes,
    sessions_moved,
    sessions_lost,
    sessions_expired,
    expiries_judged,
    faults,
    crashes,
    starts,
    refused_starts,
    stops,
    handovers,
    jumps,
    wipes,
    disk_failures,
    full_disks,
    rotten_bits,
    misdirected_writes,
    reconfigurations,
    read_only_services,
    read_only_sessions,
    read_only_resumed,
    read_only_answers,
    read_only_refusals,
    read_only_turned_away,
    read_only_returns,
    quorums_lost,
    elections,
    leaders,
    truncations,
    log_reads,
    snapshots_taken,
    snapshots_sent,
    snapshots_installed,
    snapshots_given_up,
);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How much happened.
    pub counts: Counts,
    /// What must not have happened.
    pub violation: Option<Violation>,
    /// What has to do with it.
    pub about: Vec<String>,
    /// Everything, where it was asked for.
    pub lines: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64, mistake: Option<Mistake>, limits: Limits, detail: Detail) -> Outcome {
    mutation::choose(mistake.and_then(Mistake::of_replica));
    let mut world = World::new(Plan::new(seed, mistake, limits), Log::new(detail));
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    mutation::choose(None);
    if let Err(panic) = ran {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let detail = text.unwrap_or_else(|| "without a word".to_owned());
        world.violation = Some(Violation { invariant: "nothing panics", detail });
    }
    let mut counts = world.counts;
    counts.messages = world.network.sent;
    let invariants = &world.invariants;
    counts.committed = invariants.order.length() as u64;
    counts.leaders = invariants.order.leaders() as u64;
    counts.reconfigurations = invariants.membership.changes();
    counts.writes = invariants.requests.writes;
    counts.failures = invariants.requests.failures;
    counts.reads = invariants.requests.reads;
    counts.syncs = invariants.requests.syncs;
    counts.sessions_expired = invariants.sessions.expired;
    counts.expiries_judged = invariants.sessions.judged;
    counts.watches_restored = world.clients.iter().map(|client| client.watches.restored).sum();
    let violation = world.violation.take();
    let about = violation.as_ref().map(|violation| world.log.about(violation));
    let about = about.unwrap_or_default().into_iter().map(str::to_owned).collect();
    let lines = if detail == Detail::Last { world.log.lines() } else { Vec::new() };
    // A process that ended by a panic may be in any state.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(world)));
    let _ = dropped;
    Outcome { counts, violation, about, lines }
}

/// Leaves away of a failing run what can be left away: it must fail in the same way.
pub fn shrink(seed: u64, mistake: Option<Mistake>, invariant: &str) -> Limits {
    let mut best = Limits::NONE;
    let mut runs = 0;
    let mut fails = |limits: Limits| {
        runs += 1;
        runs <= SHRINKING_RUNS
            && run(seed, mistake, limits, Detail::Nothing)
                .violation
                .is_some_and(|violation| violation.invariant == invariant)
    };
    for seconds in [2, 5, 10, 20, 40] {
        let limits = Limits { duration_us: seconds * 1_000_000, ..best };
        if fails(limits) {
            best = limits;
            break;
        }
    }
    for clients in 1..4 {
        let limits = Limits { clients, ..best };
        if fails(limits) {
            best = limits;
            break;
        }
    }
    for faults in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
        let limits = Limits { faults, ..best };
        if fails(limits) {
            best = limits;
            break;
        }
    }
    best
}

/// A failed seed for a person: what failed, how it came to it, how to see it again.
pub fn describe(seed: u64, mistake: Option<Mistake>, limits: Limits) -> String {
    let Some(violation) = run(seed, mistake, limits, Detail::Nothing).violation else {
        return format!("seed {seed} does not fail");
    };
    let limits = match limits == Limits::NONE {
        true => shrink(seed, mistake, violation.invariant),
        false => limits,
    };
    let outcome = run(seed, mistake, limits, Detail::Last);
    let Some(violation) = &outcome.violation else {
        return format!("seed {seed} does not fail a second time: it is no deterministic run");
    };
    let flag = mistake.map(|mistake| format!(" --mutation {}", mistake.name())).unwrap_or_default();
    format!(
        "{}\nseed {seed} violates \"{}\": {}\nagain, with every step: scripts/simulate --level replica \
         --seeds {seed}..{}{flag}{} --trace\n",
        outcome.about.join("\n"),
        violation.invariant,
        violation.detail,
        seed + 1,
        limits.arguments(),
    )
}
