//! `scripts/simulate`: runs seeds, on every core, until one fails or all are done.

#![allow(missing_docs, reason = "a program")]

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
mod progress;
mod proof;
mod random;
mod replica;
mod report;
mod trace;
mod world;

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use progress::Progress;
use proof::{Level, protocol, prove};
use replica::plan::{Limits, Mistake};
use trace::Detail;

const USAGE: &str = "\
usage: scripts/simulate --seeds A..B [--level zab|replica] [--mutation NAME] [--keep-going]
                        [--trace] [--jobs N] [--seconds N] [--faults N] [--clients N]

  --seeds A..B      the seeds to run, B not included
  --level LEVEL     zab: the protocol between replicas alone, fast; replica: whole replicas with
                    clients, on disks that fail (default: first one, then the other)
  --mutation NAME   with a deliberate mistake; `--mutation list` names them. Those of the protocol
                    can be made at both levels. `--mutation all` makes each in turn, at each level,
                    until a seed catches it that passes without it, and says which, how long that
                    took, and what was violated; it fails when one is not caught within the seeds
  --keep-going      do not stop at the first seed that fails
  --trace           print every step (use it with one seed and one level)
  --jobs N          threads (default: one for each core)
  --seconds N, --faults N, --clients N
                    whole replicas: no longer, and with no more of these (as the report of a
                    failure says)
";

struct Options {
    seeds: Range<u64>,
    levels: Vec<Level>,
    mistake: Option<Mistake>,
    every_mistake: bool,
    limits: Limits,
    keep_going: bool,
    trace: bool,
    jobs: usize,
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag} needs a number, not {value}"))
}

fn find_mistake(value: &str) -> Result<Mistake, String> {
    let all = Mistake::all();
    let names: Vec<String> = all.iter().map(|mistake| mistake.name()).collect();
    let place = names.iter().position(|name| *name == value);
    place.map(|place| all[place]).ok_or(format!("mutations are: {}", names.join(" ")))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        seeds: 0..0,
        levels: vec![Level::Zab, Level::Replica],
        mistake: None,
        every_mistake: false,
        limits: Limits::NONE,
        keep_going: false,
        trace: false,
        jobs,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--seeds" => {
                let value = value()?;
                let range = value.split_once("..").and_then(|(from, to)| {
                    Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()?)
                });
                options.seeds = range.ok_or(format!("{value} is not a range like 0..1000"))?;
            }
            "--level" => {
                options.levels = match value()?.as_str() {
                    "zab" => vec![Level::Zab],
                    "replica" => vec![Level::Replica],
                    other => return Err(format!("--level is zab or replica, not {other}")),
                }
            }
            "--mutation" => match value()?.as_str() {
                "all" => options.every_mistake = true,
                name => options.mistake = Some(find_mistake(name)?),
            },
            "--keep-going" => options.keep_going = true,
            "--trace" => options.trace = true,
            "--jobs" => options.jobs = number("--jobs", &value()?)?,
            "--seconds" => {
                let seconds: u64 = number("--seconds", &value()?)?;
                options.limits.duration_us = seconds * 1_000_000;
            }
            "--faults" => options.limits.faults = number("--faults", &value()?)?,
            "--clients" => options.limits.clients = number("--clients", &value()?)?,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if options.seeds.is_empty() {
        return Err("--seeds A..B is needed".to_owned());
    }
    if let Some(Mistake::Replica(_)) = options.mistake {
        options.levels.retain(|level| *level == Level::Replica);
    }
    Ok(options)
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprint!("simulate: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // What panics is told with the seed.
    std::panic::set_hook(Box::new(|_| {}));
    if options.every_mistake {
        let Options { levels, seeds, limits, jobs, .. } = options;
        return ExitCode::from(u8::from(prove(&levels, seeds, limits, jobs)));
    }
    let seed = options.seeds.start;
    let mut failed = false;
    for level in &options.levels {
        let mistake = options.mistake;
        failed |= match (level, options.trace) {
            (Level::Zab, true) => {
                let outcome = report::run(seed, protocol(mistake), Detail::All);
                println!("{:#?}\n{:?}", outcome.counts, outcome.violation);
                outcome.violation.is_some()
            }
            (Level::Replica, true) => {
                let outcome = replica::report::run(seed, mistake, options.limits, Detail::All);
                println!("{:#?}\n{:?}", outcome.counts, outcome.violation);
                outcome.violation.is_some()
            }
            (Level::Zab, false) => zab_level(&options),
            (Level::Replica, false) => replica_level(&options),
        };
    }
    ExitCode::from(u8::from(failed))
}

fn zab_level(options: &Options) -> bool {
    let mutation = protocol(options.mistake);
    let total = Mutex::new(report::Counts::default());
    println!("the protocol alone:");
    let failed = run_all(options, |seed| {
        let outcome = report::run(seed, mutation, Detail::Nothing);
        if let Ok(mut total) = total.lock() {
            total.add(&outcome.counts);
        }
        outcome.violation.map(|violation| match options.keep_going {
            true => format!("seed {seed}: {}: {}", violation.invariant, violation.detail),
            false => report::describe(seed, mutation),
        })
    });
    println!("{:#?}", total.into_inner().unwrap_or_default());
    failed
}

fn replica_level(options: &Options) -> bool {
    let (mistake, limits) = (options.mistake, options.limits);
    let total = Mutex::new(replica::report::Counts::default());
    println!("whole replicas:");
    let failed = run_all(options, |seed| {
        let outcome = replica::report::run(seed, mistake, limits, Detail::Nothing);
        if let Ok(mut total) = total.lock() {
            total.add(&outcome.counts);
        }
        outcome.violation.map(|violation| match options.keep_going {
            true => format!("seed {seed}: {}: {}", violation.invariant, violation.detail),
            false => replica::report::describe(seed, mistake, limits),
        })
    });
    println!("{:#?}", total.into_inner().unwrap_or_default());
    failed
}

/// Runs every seed, on all cores; whether one has failed, with what was to be said of it.
fn run_all(options: &Options, run: impl Fn(u64) -> Option<String> + Sync) -> bool {
    let progress = Progress::new(options.seeds.end - options.seeds.start);
    let next = AtomicU64::new(options.seeds.start);
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = !options.keep_going && failed.load(Ordering::Relaxed) > 0;
                    if seed >= options.seeds.end || stop {
                        return;
                    }
                    if let Some(failure) = run(seed) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        progress.say(&failure);
                    }
                    progress.step(failed.load(Ordering::Relaxed));
                }
            });
        }
    });
    let failed = failed.into_inner();
    let (seeds, seconds) = progress.finish();
    println!(
        "{seeds} seeds of {} simulated seconds in {seconds:.1} s ({:.0} a minute), {failed} failed",
        options.limits.duration_us / 1_000_000,
        seeds as f64 / seconds * 60.0,
    );
    failed > 0
}
