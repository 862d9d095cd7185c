//! `scripts/chaos`: torments an ensemble of real processes for as long as one likes, and says how it
//! went.

#![allow(missing_docs, reason = "a program")]

mod clients;
mod members;
mod nemesis;
mod plan;
mod progress;
mod raw_client;
mod record;
mod requests;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use znodefs_server::mutation::Mistake;
use znodefs_tests::Random;

use plan::Plan;
use progress::Progress;
use run::{Failure, run};

const USAGE: &str = "\
usage: scripts/chaos --minutes N [--seed S] [--voters V] [--observers O] [--tls] [--power-cuts]
                     [--mistake NAME]

  --minutes N     how long faults strike; every two minutes there is peace, and what clients saw so
                  far is judged. The first broken promise ends it
  --seed S        where every choice comes from (default: another one each time)
  --voters V      members that vote (default 3)
  --observers O   members that only learn (default 0)
  --tls           the members speak TLS with each other
  --power-cuts    with kill -9 a member loses what it has not synchronized, as if its machine had
                  lost its power
  --mistake NAME  the members make a deliberate mistake, which must be found;
                  `scripts/simulate --mutation list` names them

Exit code: 0 every promise was kept (with --mistake: the mistake was found), 1 not so, 2 wrong usage.
";

/// How long a sync of a disk that forgets takes at most.
const SYNC_MAX: Duration = Duration::from_millis(25);

fn plan() -> Result<Plan, String> {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan::new(Random::from_system().next_u64(), 3, 0, Duration::ZERO);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |value: String| {
            let parsed = value.parse::<u64>();
            parsed.map_err(|_| format!("{argument} {value}: a number is needed"))
        };
        match argument.as_str() {
            "--minutes" => plan.time = Duration::from_secs(60 * number(value()?)?),
            "--seed" => plan.seed = number(value()?)?,
            "--voters" => plan.voters = number(value()?)?.min(100) as u8,
            "--observers" => plan.observers = number(value()?)?.min(100) as u8,
            "--tls" => plan.tls = true,
            "--power-cuts" => plan.forgets = Some(SYNC_MAX),
            "--mistake" => {
                let name = value()?;
                let found = Mistake::all().into_iter().find(|mistake| mistake.name() == name);
                let unknown = "there is none of that name, see `scripts/simulate --mutation list`";
                plan.mistake = Some(found.ok_or(format!("--mistake {name}: {unknown}"))?);
            }
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    if plan.time.is_zero() {
        return Err("--minutes is missing".into());
    }
    if plan.voters < 2 {
        return Err("--voters: with fewer than two there is nothing to agree on".into());
    }
    Ok(plan)
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "-h" || argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let plan = match plan() {
        Ok(plan) => plan,
        Err(reason) => {
            eprintln!("chaos: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let result = run(&plan, &mut Progress::new(Some(plan.time)));
    let is_good = match (&result, plan.mistake) {
        (Ok(summary), None) => {
            println!("{summary}\nevery promise was kept");
            true
        }
        (Ok(summary), Some(mistake)) => {
            println!("{summary}\nthe mistake {} was not found", mistake.name());
            false
        }
        (Err(failure), mistake) => {
            println!("{failure}\n");
            match (failure, mistake) {
                (_, Some(mistake)) => println!("the mistake {} was found", mistake.name()),
                (Failure::Promise(_), None) => println!("A PROMISE WAS BROKEN, see above"),
                (Failure::Other(_), None) => println!("SOMETHING IS WRONG, see above"),
            }
            mistake.is_some()
        }
    };
    println!("once more: {}", plan.command());
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
