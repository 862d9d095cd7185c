//! The proof that the simulator finds mistakes: each is made, at each level at which it can show, with
//! the faults of every day and nothing arranged for it, seed after seed until one catches it. A seed
//! counts only if the same run without the mistake passes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use znodefs_server::{mutation, zab};

use crate::invariants::Violation;
use crate::replica;
use crate::replica::plan::{Limits, Mistake};
use crate::report;
use crate::trace::Detail;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The protocol alone.
    Zab,
    /// Whole replicas with clients.
    Replica,
}

impl Level {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Level::Zab => "zab",
            Level::Replica => "replica",
        }
    }
}

/// The mistake in the protocol alone, if it is one.
pub fn protocol(mistake: Option<Mistake>) -> Option<zab::Mutation> {
    match mistake {
        Some(Mistake::Protocol(mutation)) => Some(mutation),
        _ => None,
    }
}

/// Why a mistake cannot show at a level, and what finds it instead.
pub fn cannot_show(level: Level, mistake: Mistake) -> Option<&'static str> {
    match (level, mistake) {
        (Level::Replica, Mistake::Replica(mutation::Mutation::TruncateKeepsSnapshots)) => Some(
            "snapshots hold what is committed, which nothing truncates: it takes a second mistake; \
             found by persistence::tests::snapshots",
        ),
        (Level::Replica, Mistake::Protocol(zab::Mutation::SyncWithoutQuorum)) => Some(
            "a leader that stood still hears that its followers left before it hears a later sync; it \
             would have to be cut off as well; found in the protocol alone",
        ),
        _ => None,
    }
}

/// What a run of a seed violates.
pub fn violation(
    level: Level,
    seed: u64,
    mistake: Option<Mistake>,
    limits: Limits,
) -> Option<Violation> {
    match level {
        Level::Zab => report::run(seed, protocol(mistake), Detail::Nothing).violation,
        Level::Replica => replica::report::run(seed, mistake, limits, Detail::Nothing).violation,
    }
}

/// One mistake at one level.
struct Trial {
    mistake: Mistake,
    level: Level,
}

/// What came of it.
enum Outcome {
    Caught { seed: u64, invariant: &'static str },
    CannotShow(&'static str),
    Missed,
}

/// What is shared by all that try.
struct Proof {
    seeds: Range<u64>,
    limits: Limits,
    /// Whether a seed passes without any mistake, where that is known.
    sound: Mutex<BTreeMap<(Level, u64), bool>>,
}

impl Proof {
    /// Whether the seed passes without any mistake.
    fn is_sound(&self, level: Level, seed: u64) -> bool {
        let known = |sound: &mut BTreeMap<_, _>| sound.get(&(level, seed)).copied();
        if let Ok(mut sound) = self.sound.lock()
            && let Some(is_sound) = known(&mut sound)
        {
            return is_sound;
        }
        let violation = violation(level, seed, None, self.limits);
        if let Some(violation) = &violation {
            println!(
                "{} seed {seed} fails without any mistake: {}: {}",
                level.name(),
                violation.invariant,
                violation.detail
            );
        }
        if let Ok(mut sound) = self.sound.lock() {
            sound.insert((level, seed), violation.is_none());
        }
        violation.is_none()
    }

    fn try_until_caught(&self, trial: &Trial) -> Outcome {
        if let Some(reason) = cannot_show(trial.level, trial.mistake) {
            return Outcome::CannotShow(reason);
        }
        let caught = self.seeds.clone().find_map(|seed| {
            let found = violation(trial.level, seed, Some(trial.mistake), self.limits)?;
            self.is_sound(trial.level, seed).then_some((seed, found.invariant))
        });
        match caught {
            Some((seed, invariant)) => Outcome::Caught { seed, invariant },
            None => Outcome::Missed,
        }
    }
}

/// Makes every mistake at each of the levels until it is caught, and says with what; whether one was
/// not caught, or a seed fails without any.
#[allow(clippy::disallowed_methods, reason = "how long it took is for the person who waits")]
pub fn prove(levels: &[Level], seeds: Range<u64>, limits: Limits, jobs: usize) -> bool {
    let trials: Vec<Trial> = Mistake::all()
        .into_iter()
        .flat_map(|mistake| levels.iter().map(move |level| Trial { mistake, level: *level }))
        .filter(|trial| trial.level == Level::Replica || protocol(Some(trial.mistake)).is_some())
        .collect();
    let proof = Proof { seeds, limits, sound: Mutex::default() };
    let (next, missed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    println!("{:<34}{:<9}{:>6}{:>10}  violates", "mutation", "level", "seed", "seconds");
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let outcome = proof.try_until_caught(trial);
                    let seconds = started.elapsed().as_secs_f64();
                    let (seed, what) = match outcome {
                        Outcome::Caught { seed, invariant } => {
                            (seed.to_string(), invariant.to_owned())
                        }
                        Outcome::CannotShow(reason) => ("-".into(), format!("cannot: {reason}")),
                        Outcome::Missed => {
                            missed.fetch_add(1, Ordering::Relaxed);
                            let (from, to) = (proof.seeds.start, proof.seeds.end);
                            ("-".into(), format!("NOT caught by seeds {from}..{to}"))
                        }
                    };
                    let (name, level) = (trial.mistake.name(), trial.level.name());
                    println!("{name:<34}{level:<9}{seed:>6}{seconds:>10.1}  {what}");
                }
            });
        }
    });
    let sound = proof.sound.into_inner().unwrap_or_default();
    missed.into_inner() > 0 || sound.values().any(|is_sound| !is_sound)
}
