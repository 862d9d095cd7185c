//! The ensemble itself, and the thread that restarts its members.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::{Ensemble, Random, Server, WireClient};

/// How many voters it has.
const VOTERS: u8 = 3;

/// How long all of them serve before the next one goes, in milliseconds; the first goes sooner.
const ALL_SERVE_MS: std::ops::Range<u64> = 500..2000;
const FIRST_MS: std::ops::Range<u64> = 0..500;

/// How long one is down before it is started again.
const DOWN_MS: std::ops::Range<u64> = 0..1000;

/// Lines of a member's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 40;

/// Three replicas, of which one at a time is ended, by SIGTERM or `kill -9`, and started again.
pub struct Restarted {
    ensemble: Arc<Mutex<Ensemble>>,
    servers: String,
    events: Arc<Mutex<Vec<Event>>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
enum Event {
    /// A member is ended in this way.
    Ending(u8, &'static str),
    /// All serve again.
    Over,
}

impl Restarted {
    /// Starts them with empty directories; once all serve, the first restart is not far. The leader may be
    /// left alone.
    pub fn start(leader_stays: bool, random: &mut Random) -> Restarted {
        let ensemble = Ensemble::start(VOTERS, 0);
        let servers = ensemble.connect_string();
        let ensemble = Arc::new(Mutex::new(ensemble));
        let (stop, stopped) = channel();
        let events = Arc::new(Mutex::new(Vec::new()));
        let mut restarter = Restarter {
            ensemble: ensemble.clone(),
            events: events.clone(),
            stopped,
            leader_stays,
            random: Random::from_seed(random.next_u64()),
        };
        let thread = Some(std::thread::spawn(move || restarter.run()));
        Restarted { ensemble, servers, events, stop, thread }
    }

    /// How many restarts have begun.
    pub fn count(&self) -> usize {
        self.events.lock().iter().filter(|event| matches!(event, Event::Ending(..))).count()
    }

    /// How many of each member, in the order of their ids.
    pub fn restarts_of_each(&self) -> Vec<usize> {
        let events = self.events.lock();
        let is_of =
            |event: &Event, member: u8| matches!(event, Event::Ending(id, _) if *id == member);
        let count = |id: u8| events.iter().filter(|event| is_of(event, id)).count();
        (1..=VOTERS).map(count).collect()
    }

    /// Whether a member is down.
    pub fn is_restarting(&self) -> bool {
        matches!(self.events.lock().last(), Some(Event::Ending(..)))
    }

    /// What was done, and what the members have said of it last.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for event in self.events.lock().iter() {
            match event {
                Event::Ending(id, how) => text += &format!("{how} of member {id}; "),
                Event::Over => text += "all serve again\n",
            }
        }
        let ensemble = self.ensemble.lock();
        for id in ensemble.ids() {
            let log = ensemble.log_text(id);
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            text += &format!("\n--- member {id} wrote:\n{}\n", shown.join("\n"));
        }
        text
    }
}

impl Server for Restarted {
    /// All of them, separated by commas.
    fn address(&self) -> String {
        self.servers.clone()
    }

    /// All of them, one after the other: commands give up when nobody serves for seconds.
    fn start_again(&mut self) {
        let mut ensemble = self.ensemble.lock();
        for id in ensemble.ids() {
            ensemble.kill(id);
            ensemble.start_member(id);
            for id in ensemble.ids() {
                ensemble.wait_until_serving(id);
            }
        }
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        // It may have ended by a panic of its own, which is told below.
        let _ = self.stop.send(());
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) && !std::thread::panicking() {
            panic!("not all members came back: {}", self.describe());
        }
    }
}

struct Restarter {
    ensemble: Arc<Mutex<Ensemble>>,
    events: Arc<Mutex<Vec<Event>>>,
    stopped: Receiver<()>,
    leader_stays: bool,
    random: Random,
}

impl Restarter {
    fn run(&mut self) {
        let mut range = FIRST_MS;
        while self.passes(range) && self.restart() {
            range = ALL_SERVE_MS;
        }
    }

    /// Waits for a random time; `false` when the test is over before.
    fn passes(&mut self, milliseconds: std::ops::Range<u64>) -> bool {
        let time = self.random.between(milliseconds.start, milliseconds.end);
        let woken = self.stopped.recv_timeout(Duration::from_millis(time));
        woken == Err(RecvTimeoutError::Timeout)
    }

    /// `false` when the test is over before the member is back.
    fn restart(&mut self) -> bool {
        let ensemble = self.ensemble.clone();
        let mut ensemble = ensemble.lock();
        let mut candidates = ensemble.ids();
        if self.leader_stays {
            let leader = ensemble.leader();
            candidates.retain(|id| *id != leader);
        }
        let victim = candidates[self.random.between(0, candidates.len() as u64) as usize];
        let is_killed = self.random.between(0, 2) == 0;
        let how = if is_killed { "kill -9" } else { "SIGTERM" };
        self.events.lock().push(Event::Ending(victim, how));
        if is_killed {
            ensemble.kill(victim);
        } else {
            ensemble.stop(victim);
        }
        if !self.passes(DOWN_MS) {
            return false;
        }
        ensemble.start_member(victim);
        for id in ensemble.ids() {
            ensemble.wait_until_serving(id);
        }
        self.events.lock().push(Event::Over);
        true
    }
}

/// Waits until every member of a list has what was acknowledged before; nothing to do where there is one.
/// Members answer reads by themselves, and one may be behind another by a moment.
pub fn settle(servers: &str) {
    if !servers.contains(',') {
        return;
    }
    for member in servers.split(',') {
        // The answer to a new session comes behind all transactions before it. Who does not serve now is
        // brought up to date before it does.
        drop(WireClient::try_connect(member));
    }
}
