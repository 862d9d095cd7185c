//! `scripts/simulate`: runs seeds, on every core, until one fails or all are done.

#![allow(missing_docs, reason = "a program")]

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

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use znodefs_server::zab::Mutation;

use report::{Counts, describe, run};
use trace::Detail;

const USAGE: &str = "\
usage: scripts/simulate --seeds A..B [--mutation NAME] [--keep-going] [--trace] [--jobs N]

  --seeds A..B      the seeds to run, B not included
  --mutation NAME   with a deliberate mistake in the protocol; `--mutation list` names them
  --keep-going      do not stop at the first seed that fails
  --trace           print every step (use it with one seed)
  --jobs N          threads (default: one for each core)
";

struct Options {
    seeds: Range<u64>,
    mutation: Option<Mutation>,
    keep_going: bool,
    trace: bool,
    jobs: usize,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options =
        Options { seeds: 0..0, mutation: None, keep_going: false, trace: false, jobs };
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
            "--mutation" => {
                let value = value()?;
                let names: Vec<String> =
                    Mutation::ALL.iter().map(|mutation| format!("{mutation:?}")).collect();
                let place = names.iter().position(|name| *name == value);
                let place = place.ok_or(format!("mutations are: {}", names.join(" ")))?;
                options.mutation = Some(Mutation::ALL[place]);
            }
            "--keep-going" => options.keep_going = true,
            "--trace" => options.trace = true,
            "--jobs" => {
                options.jobs = value()?.parse().map_err(|_| "--jobs needs a number".to_owned())?;
            }
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if options.seeds.is_empty() {
        return Err("--seeds A..B is needed".to_owned());
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprint!("simulate: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.trace {
        let outcome = run(options.seeds.start, options.mutation, Detail::All);
        println!("{:#?}\n{:?}", outcome.counts, outcome.violation);
        return ExitCode::from(u8::from(outcome.violation.is_some()));
    }
    run_all(&options)
}

#[allow(clippy::disallowed_methods, reason = "how long it took is for the person who waits")]
fn run_all(options: &Options) -> ExitCode {
    let started = Instant::now();
    let next = AtomicU64::new(options.seeds.start);
    let failed = AtomicU64::new(0);
    let total = Mutex::new((Counts::default(), 0u64));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let stop = !options.keep_going && failed.load(Ordering::Relaxed) > 0;
                    if seed >= options.seeds.end || stop {
                        return;
                    }
                    let outcome = run(seed, options.mutation, Detail::Nothing);
                    if let Some(violation) = &outcome.violation {
                        failed.fetch_add(1, Ordering::Relaxed);
                        if options.keep_going {
                            println!("seed {seed}: {}: {}", violation.invariant, violation.detail);
                        } else {
                            println!("{}", describe(seed, options.mutation));
                        }
                    }
                    if let Ok(mut total) = total.lock() {
                        total.0.add(&outcome.counts);
                        total.1 += 1;
                    }
                }
            });
        }
    });
    let (counts, seeds) = total.into_inner().unwrap_or_default();
    let (failed, seconds) = (failed.into_inner(), started.elapsed().as_secs_f64());
    println!("{counts:#?}");
    println!(
        "{seeds} seeds of {} simulated seconds in {seconds:.1} s ({:.0} a minute), {failed} failed",
        plan::DURATION_US / 1_000_000,
        seeds as f64 / seconds * 60.0,
    );
    ExitCode::from(u8::from(failed > 0))
}
