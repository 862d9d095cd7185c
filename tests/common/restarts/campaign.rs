//! Which tests are run, how often, and what came of it.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::exceptions::{Exception, Listed, exceptions};
use super::{Restarted, loss};
use crate::deadline::pause;
use crate::{Random, Server};

/// Which tests: `all`, or some by name, separated by commas. Without it a sample of every module.
const CHOICE: &str = "ZNODEFS_RESTARTS";

/// A file that every module appends its figures to.
const REPORT: &str = "ZNODEFS_RESTARTS_REPORT";

/// How many tests of each module make a sample.
const SAMPLE: usize = 1;

/// How often a test may come to nothing before that counts as a failure.
const INCONCLUSIVE_MAX: usize = 12;

/// How often a test is repeated until it meets a restart.
const UNTOUCHED_MAX: usize = 20;

/// For how long the restarts go on before the test begins, in milliseconds at most: it is to meet them
/// in every phase.
const HEAD_START_MS: u64 = 800;

/// A test: its name, and what it does with a server.
#[derive(Clone, Copy)]
pub struct Case {
    /// The function's name.
    pub name: &'static str,
    /// The test.
    pub body: fn(&mut dyn Server),
}

/// What came of a module's tests.
#[derive(Debug, Default)]
struct Figures {
    tests: usize,
    rounds: usize,
    untouched: usize,
    inconclusive: Vec<String>,
    restarts: usize,
    failures: Vec<String>,
}

/// Runs the tests of a module on ensembles whose members are restarted.
///
/// # Panics
/// If a test fails.
pub fn pass(module: &str, cases: &[Case]) {
    let module = module.strip_suffix("::restarts").unwrap_or(module);
    let listed: Vec<Listed> = exceptions().into_iter().filter(|one| one.module == module).collect();
    let is = |exception: Exception, case: &Case| {
        listed.iter().any(|one| one.exception == exception && one.names(module, case.name))
    };
    let mut cases: Vec<Case> = cases.to_vec();
    cases.retain(|case| !is(Exception::LeftOut, case));
    let mut random = Random::announced();
    match std::env::var(CHOICE).ok().as_deref() {
        Some("all") => {}
        Some(names) => cases.retain(|case| names.split(',').any(|name| name == case.name)),
        None => {
            while cases.len() > SAMPLE {
                cases.remove(random.between(0, cases.len() as u64) as usize);
            }
        }
    }
    let mut figures = Figures::default();
    for case in cases {
        eprintln!("{module}::{}", case.name);
        figures.tests += 1;
        figures.run(&case, is(Exception::LeaderStays, &case), &mut random);
    }
    let summary = format!(
        "{module}: {} tests, {} rounds, {} restarts; {} rounds met no restart, {} were inconclusive",
        figures.tests,
        figures.rounds,
        figures.restarts,
        figures.untouched,
        figures.inconclusive.len()
    );
    eprintln!("{summary}");
    report(&figures, &summary);
    assert!(figures.failures.is_empty(), "{module}:\n{}", figures.failures.join("\n"));
}

impl Figures {
    /// Runs a test until it has passed while a member was down, or failed.
    fn run(&mut self, case: &Case, leader_stays: bool, random: &mut Random) {
        let (mut untouched, mut inconclusive) = (0, 0);
        loop {
            let mut server = Restarted::start(leader_stays, random);
            pause(Duration::from_millis(random.between(0, HEAD_START_MS)));
            let (before, was_restarting) = (server.count(), server.is_restarting());
            loss::forget();
            let outcome = catch_unwind(AssertUnwindSafe(|| (case.body)(&mut server)));
            let has_met_one = was_restarting || server.count() > before;
            self.rounds += 1;
            self.restarts += server.count();
            match outcome.map_err(|panic| loss::judge(&*panic)) {
                Ok(()) if has_met_one => return,
                Ok(()) => {
                    untouched += 1;
                    self.untouched += 1;
                }
                Err(Ok(reason)) => {
                    inconclusive += 1;
                    self.inconclusive.push(format!("{}: {reason}", case.name));
                }
                Err(Err(message)) => {
                    eprintln!("--- {} failed: {message}\n{}", case.name, server.describe());
                    self.failures.push(format!("{}: {message}", case.name));
                    return;
                }
            }
            if untouched == UNTOUCHED_MAX || inconclusive == INCONCLUSIVE_MAX {
                self.failures.push(format!(
                    "{}: {untouched} rounds met no restart, {inconclusive} came to nothing",
                    case.name
                ));
                return;
            }
        }
    }
}

/// Appends to the report, if one is asked for: the figures, then why rounds had no result or failed.
fn report(figures: &Figures, summary: &str) {
    let Some(path) = std::env::var_os(REPORT) else { return };
    let file = std::fs::File::options().create(true).append(true).open(path);
    let mut file = file.expect("the file that was asked for");
    let mut text = format!("{summary}\n");
    for reason in &figures.inconclusive {
        text += &format!("INCONCLUSIVE {reason}\n");
    }
    for failure in &figures.failures {
        let line = failure.lines().next().unwrap_or_default();
        text += &format!("FAILED {line}\n");
    }
    file.write_all(text.as_bytes()).expect("room for a line");
}
