//! A run: members in a network of their own with disks of their own, clients that record what they see,
//! faults, and after each round the judgement over what was recorded.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use znodefs_tests::binaries::{example, source_directory};
use znodefs_tests::certificates::quorum_settings;
use znodefs_tests::deadline::{Deadline, pause};
use znodefs_tests::history::{ClientId, Report};
use znodefs_tests::{Authority, Directory, Ensemble, Network, Random, SmallDisk};

use crate::clients::{look_at_everything, prepare, work};
use crate::members;
use crate::nemesis::{Fault, Nemesis};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::raw_client;
use crate::record::Record;

/// Clients of the library at work.
const WORKERS: u64 = 6;

/// Clients with nothing but the protocol.
const RAW_WORKERS: u64 = 3;

/// Room on a member's disk: two segments of the log and some snapshots.
const DISK_MIB: u64 = 192;

/// Ticks of 200 ms: syncLimit is 1 s, initLimit 4 s. Sessions of 2 s and more.
const SETTINGS: &str = "tickTime=200\ninitLimit=20\nsyncLimit=5\nminSessionTimeout=1000\n\
                        maxSessionTimeout=60000\nsnapCount=500\nautopurge.snapRetainCount=3\n\
                        autopurge.purgeInterval=1\n";

/// How long sessions that nobody holds may live on: much longer than the longest, since every new
/// leader gives them their full time again, and on a busy machine there may be some.
const ALL_EXPIRED: Duration = Duration::from_secs(90);

/// The same where it is part of the mistake.
const ALL_EXPIRED_BY_MISTAKE: Duration = Duration::from_secs(15);

/// With a mistake, the history is judged so often: somewhere in it the mistake shows.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How a run went.
#[derive(Debug, Default)]
pub struct Summary {
    /// Histories judged.
    pub rounds: u64,
    /// How often what was done.
    pub faults: BTreeMap<Fault, u64>,
    /// Reconfigurations that were answered with success.
    pub reconfigurations: u64,
    /// Requests of clients.
    pub requests: usize,
    /// Of these, the ones that were answered.
    pub answered: usize,
    /// Writes without an answer.
    pub unknown: usize,
    /// Of these, the ones that something shown gave away.
    pub recognised: usize,
    /// Watch events.
    pub events: usize,
    /// Sessions of clients.
    pub sessions: usize,
    /// Sessions left without a goodbye, whose ephemeral znodes must be gone.
    pub lost: usize,
    /// Znodes for whose unknown writes there were too many places to try them all.
    pub undecided: usize,
    /// How long judging took.
    pub judging: Duration,
}

/// What must not have happened.
#[derive(Debug)]
pub enum Failure {
    /// Clients saw what no service that keeps its promises shows.
    Promise(Report),
    /// Something else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Promise(report) => report.fmt(f),
            Failure::Other(reason) => f.write_str(reason),
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::Other(reason)
    }
}

/// Members with a network and disks of their own.
fn start(plan: &Plan, certificates: &Directory) -> (Ensemble, Vec<SmallDisk>) {
    let network = Network::new(&plan.ids());
    network.become_client();
    let settings = format!("{SETTINGS}{}", members::settings());
    let (voters, observers) = (plan.voters, plan.observers);
    let mut ensemble = Ensemble::configure_on(Some(network), voters, observers, &settings);
    if plan.mistake.is_some() || plan.forgets.is_some() {
        let mistake = plan.mistake.map(|mistake| ["--mistake".to_string(), mistake.name()]);
        let forgets = plan.forgets.map(|longest| longest.as_millis().to_string());
        let forgets = forgets.map(|longest| ["--forgets".to_string(), longest]);
        let arguments = mistake.into_iter().flatten().chain(forgets.into_iter().flatten());
        ensemble.set_program(example("znoded_with_mistake"), arguments.collect());
    }
    if plan.tls {
        let authority = Authority::new("chaos");
        for id in plan.ids() {
            let address = ensemble.address(id);
            let host = address.split(':').next().unwrap_or_default();
            let trusted = [&authority];
            let settings = quorum_settings(certificates, id, host, &authority, &trusted);
            ensemble.set_settings(id, &settings);
        }
    }
    let disk = |id: &u8| SmallDisk::mount(&ensemble.data_directory(*id), DISK_MIB);
    let disks = plan.ids().iter().map(disk).collect();
    plan.ids().into_iter().for_each(|id| ensemble.start_member(id));
    plan.ids().into_iter().for_each(|id| ensemble.wait_until_serving(id));
    (ensemble, disks)
}

/// Does what the plan says.
pub fn run(plan: &Plan, progress: &mut Progress) -> Result<Summary, Failure> {
    let certificates = Directory::new();
    // Dropped in this order, the disks before the directories that they are mounted in.
    let (mut ensemble, disks) = start(plan, &certificates);
    let members = usize::from(plan.voters + plan.observers);
    let mut nemesis = Nemesis::new(Random::from_seed(plan.seed), members, disks);
    nemesis.makes_mistakes = plan.mistake.is_some();
    let mut summary = Summary::default();
    let end = Deadline::after(plan.time);
    while summary.rounds == 0 || !end.has_passed() {
        let round = plan.round.min(end.remaining()).max(Duration::from_secs(1));
        let ran = run_round(plan, round, &mut ensemble, &mut nemesis, &mut summary, progress);
        summary.faults = nemesis.done.clone();
        summary.reconfigurations = nemesis.changer.made();
        if let Err(failure) = ran {
            nemesis.changer.settle();
            progress.end();
            if plan.mistake.is_none() {
                keep_logs(plan, &ensemble, &failure);
            }
            return Err(failure);
        }
        progress.round(&summary);
    }
    Ok(summary)
}

/// The clients of a round.
struct Clients {
    stops: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<ClientId>>>,
    threads: Vec<std::thread::JoinHandle<Vec<ClientId>>>,
}

impl Clients {
    fn start(runtime: &Runtime, record: &Record, servers: &str, random: &mut Random) -> Clients {
        let stops = Arc::new(AtomicBool::new(false));
        let mut own = || {
            let random = Random::from_seed(random.next_u64());
            (record.clone(), servers.to_string(), random, Arc::clone(&stops))
        };
        let workers = (0..WORKERS).map(|number| {
            let (record, servers, random, stops) = own();
            runtime.spawn(work(record, servers, random, number, stops))
        });
        let workers = workers.collect();
        let threads = (0..RAW_WORKERS).map(|number| {
            let (record, servers, random, stops) = own();
            let number = WORKERS + number;
            std::thread::spawn(move || raw_client::work(&record, &servers, random, number, &stops))
        });
        let threads = threads.collect();
        Clients { stops, workers, threads }
    }

    /// Whether one has ended before it was told to.
    fn have_failed(&self) -> bool {
        let workers = self.workers.iter().any(JoinHandle::is_finished);
        workers || self.threads.iter().any(std::thread::JoinHandle::is_finished)
    }

    /// Lets them end; the sessions that they lost without a goodbye. An error if one was answered what
    /// is not the protocol.
    fn stop(self, runtime: &Runtime) -> Result<Vec<ClientId>, String> {
        self.stops.store(true, Ordering::Relaxed);
        let mut lost = Vec::new();
        let failed = |error: &dyn fmt::Display| format!("a client failed: {error}");
        for worker in self.workers {
            lost.extend(runtime.block_on(worker).map_err(|error| failed(&error))?);
        }
        for thread in self.threads {
            let words = |panic: Box<dyn Any + Send>| panic.downcast_ref::<String>().cloned();
            let ended = thread.join().map_err(|panic| words(panic).unwrap_or_default());
            lost.extend(ended.map_err(|error| failed(&error))?);
        }
        Ok(lost)
    }
}

/// Faults, then peace, then the judgement.
fn run_round(
    plan: &Plan,
    time: Duration,
    ensemble: &mut Ensemble,
    nemesis: &mut Nemesis,
    summary: &mut Summary,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| format!("no threads: {error}"))?;
    let record = Record::new(&format!("/chaos-{}", summary.rounds + 1));
    let servers = ensemble.connect_string();
    let prepared = runtime.block_on(prepare(&record, &servers));
    prepared.map_err(|error| format!("no service without faults: {error}"))?;
    let clients = Clients::start(&runtime, &record, &servers, &mut nemesis.random);
    let (end, mut next_look) = (Deadline::after(time), Deadline::after(LOOK_INTERVAL));
    let raged = nemesis.rage(ensemble, end, || {
        progress.show(summary, record.len());
        if clients.have_failed() {
            return Err("a client was told what is not the protocol".into());
        }
        if plan.mistake.is_some() && next_look.has_passed() {
            next_look = Deadline::after(LOOK_INTERVAL);
            if !record.history().check().violations.is_empty() {
                return Err("a promise is broken already".into());
            }
        }
        Ok(())
    });
    let relented = raged.and_then(|()| nemesis.relent(ensemble));
    if let Err(reason) = relented {
        nemesis.let_go(ensemble);
        let stopped = clients.stop(&runtime);
        let report = record.history().check();
        // What clients saw says more than that somebody did not come back.
        return Err(match report.violations.is_empty() {
            true => Failure::Other(stopped.err().unwrap_or(reason)),
            false => Failure::Promise(report),
        });
    }
    // A while of peace shows what became of what was under way.
    pause(Duration::from_secs(1));
    let lost = clients.stop(&runtime)?;
    progress.say("all is well again; waiting until lost sessions are over");
    wait_for_expiry(plan, ensemble);
    summary.lost += lost.len();
    lost.into_iter().for_each(|client| record.must_be_over(client));
    let mut trees = Vec::new();
    for id in ensemble.ids() {
        let seen = runtime.block_on(look_at_everything(&record, &ensemble.address(id)));
        trees.push((id, seen.map_err(|error| format!("member {id} shows nothing: {error}"))?));
    }
    judge(&record, trees, summary, progress)?;
    nemesis.complaint.take().map_or(Ok(()), |complaint| Err(Failure::Other(complaint)))
}

/// Nobody holds a session any more: their ephemeral znodes are to go, or are found by the judgement.
fn wait_for_expiry(plan: &Plan, ensemble: &Ensemble) {
    let limit = if plan.mistake.is_some() { ALL_EXPIRED_BY_MISTAKE } else { ALL_EXPIRED };
    let limit = Deadline::after(limit);
    let is_left = |id: u8| {
        let count = ensemble.monitored(id, "zk_ephemerals_count");
        count.as_deref() != Some("0")
    };
    while !limit.has_passed() && ensemble.ids().into_iter().any(is_left) {
        pause(Duration::from_millis(200));
    }
}

fn judge(
    record: &Record,
    trees: Vec<(u8, Vec<(String, String)>)>,
    summary: &mut Summary,
    progress: &mut Progress,
) -> Result<(), Failure> {
    progress.say(&format!("judging {} requests", record.len()));
    let (history, began) = (record.history(), record.now());
    let report = history.check();
    summary.judging += record.now() - began;
    summary.rounds += 1;
    summary.requests += history.len();
    summary.sessions += history.sessions();
    summary.answered += report.answered;
    summary.unknown += report.unknown;
    summary.recognised += report.recognised;
    summary.events += report.events;
    summary.undecided += report.undecided.len();
    if !report.violations.is_empty() {
        return Err(Failure::Promise(report));
    }
    for (id, tree) in &trees {
        if *tree != trees[0].1 {
            let one = trees[0].0;
            let only = |of: &[(String, String)], other: &[(String, String)]| {
                let lines = of.iter().filter(|line| !other.contains(line));
                lines.map(|(path, data)| format!("  {path} {data}\n")).collect::<String>()
            };
            let (here, there) = (only(&trees[0].1, tree), only(tree, &trees[0].1));
            let text = format!("only member {one} shows\n{here}only member {id} shows\n{there}");
            return Err(Failure::Other(text));
        }
    }
    match report.answered > 100 {
        true => Ok(()),
        false => Err(Failure::Other("the service was hardly ever there".into())),
    }
}

/// Leaves what one wants to read behind.
fn keep_logs(plan: &Plan, ensemble: &Ensemble, failure: &Failure) {
    let place = logs_directory(plan);
    let keep = || {
        std::fs::create_dir_all(&place)?;
        std::fs::write(place.join("failure.txt"), failure.to_string())?;
        for id in ensemble.ids() {
            std::fs::copy(ensemble.log_file(id), place.join(format!("{id}.log")))?;
        }
        std::io::Result::Ok(())
    };
    match keep() {
        Ok(()) => eprintln!("the logs of all members are in {}", place.display()),
        Err(error) => eprintln!("{}: the logs cannot be kept: {error}", place.display()),
    }
}

fn logs_directory(plan: &Plan) -> PathBuf {
    source_directory().join(format!("target/chaos/{}", plan.seed))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults")?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {count:7}  {}", fault.name())?;
        }
        writeln!(f, "  {:7}  reconfiguration made", self.reconfigurations)?;
        writeln!(f, "clients")?;
        let lines = [
            (self.sessions, "sessions"),
            (self.lost, "of them lost without a goodbye"),
            (self.requests, "requests"),
            (self.answered, "of them answered, and every answer judged"),
            (self.unknown, "writes of unknown outcome"),
            (self.recognised, "of them seen to have been done"),
            (self.events, "watch events"),
            (self.undecided, "znodes that were not judged: too many writes of unknown outcome"),
        ];
        let said = lines.into_iter().filter(|(count, _)| *count > 0);
        for (count, what) in said {
            writeln!(f, "  {count:7}  {what}")?;
        }
        let seconds = self.judging.as_secs_f64();
        write!(f, "{} histories judged in {seconds:.1} s", self.rounds)
    }
}
