//! `znode watch`: tells of changes, or runs a command after them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;
use znodefs::Zxid;
use znodefs::recipe::{Change, ChangeKind};

use super::arguments::{parse_duration, parse_path};
use super::child::{Child, CommandLine, Ended};
use super::failure::{Failure, say};
use super::follow::{Followed, Follower};
use super::output::{json_string, reader_gone};
use super::service::{Service, close};
use super::signals::{self, Signals};

/// Greatest length of the list of changes in a command's environment, in bytes; Linux takes strings of
/// 128 KiB.
const EVENTS_LENGTH_MAX: usize = 100_000;
/// How many changed znodes are remembered for a command.
const CHANGES_MAX: usize = 10_000;
/// After how many debounce times a burst that does not end is taken for one.
const BURST_DEBOUNCE_TIMES: u32 = 10;

/// Tell of changes to a znode or a subtree, or run a command after them
///
/// Prints a line for each change as it happens: what has happened, PATH, and the transaction, separated by
/// tabs. It survives lost connections and sessions: servers tell nothing of what happened meanwhile, so
/// everything watched is compared with what was known, what has changed is told like an event, and
/// standard error says so. Of several changes to one znode during an outage, the result is told.
///
/// With --exec it runs a command instead, once after each burst of changes, and again when something
/// has changed while it ran. Two never run at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode watch /app/config                            the znode, its data and its list of children
  znode watch --recursive /app                       everything below it
  znode watch --recursive --initial /services/web    who is there, then who comes and goes
  znode watch /app/config --initial --exec reload    now, and after each change
  znode watch /app/config | while read -r type path zxid; do echo \"$path was $type\"; done

Lines (--json: objects with type, path, zxid):
  created   PATH ZXID     deleted PATH ZXID
  changed   PATH ZXID     its data was set, be it to the same
  children  PATH ZXID     a child was created or deleted (without --recursive)
  present   PATH ZXID     with --initial: it is there; the last change of its data
  ready     PATH ZXID     with --initial: all that was there is told, changes follow
ZXID is hexadecimal with 0x, or - where it is not known: for what was deleted without a connection,
and from servers before ZooKeeper 3.9.

Environment of CMD: ZNODE_WATCH_PATH; ZNODE_WATCH_EVENTS, the last line of each changed znode (at most
100 kB; ZNODE_WATCH_OMITTED is the number of lines left out); ZNODE_WATCH_COUNT, the number of changes;
ZNODE_SERVERS. Signals are passed on to CMD, and its failures are reported and change nothing. CMD reads
with --sync (znode get, znode ls): another server may be behind the one that told of the change.

Exit status: 0 when the reader of the lines has gone; 1 if the service fails; 69 if CMD cannot be
started; 2 wrong usage.")]
pub struct Watch {
    /// Watch everything below it too
    #[arg(short, long)]
    recursive: bool,
    /// Tell first what is there; with --exec, run the command once at the start
    #[arg(short, long)]
    initial: bool,
    /// Print JSON, an object on each line
    #[arg(long, conflicts_with = "exec")]
    json: bool,
    /// How long nothing must have changed before the command is run (a burst that does not end is
    /// cut after ten times as long)
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "100ms")]
    debounce: Duration,
    /// Run a command after changes; everything behind this option is the command and its arguments
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "CMD")]
    exec: Vec<OsString>,
    /// The znode; it need not exist
    #[arg(value_parser = parse_path)]
    path: String,
}

impl Watch {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        if !self.exec.is_empty() {
            return self.run_commands(service).await;
        }
        let mut follower = Follower::start(service, &self.path, self.recursive).await?;
        let failure = tokio::select! {
            failure = self.print(&mut follower) => failure,
            () = reader_gone() => Failure::OutputClosed,
        };
        close(&follower.client).await;
        Err(failure)
    }

    async fn print(&self, follower: &mut Follower) -> Failure {
        let mut out = BufWriter::new(std::io::stdout().lock());
        loop {
            if let Err(failure) = self.print_some(follower, &mut out).await {
                return failure;
            }
        }
    }

    /// Prints the next change and those that are there already.
    async fn print_some(
        &self,
        follower: &mut Follower,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let mut next = Some(follower.next().await?);
        while let Some(followed) = next {
            if let Some(line) = self.line(followed) {
                writeln!(out, "{line}")?;
            }
            next = follower.try_next()?;
        }
        Ok(out.flush()?)
    }

    fn line(&self, followed: Followed) -> Option<String> {
        let (word, path, zxid) = match &followed {
            Followed::Change(change) if change.kind == ChangeKind::Present && !self.initial => {
                return None;
            }
            Followed::Change(change) => (word(change.kind), &change.path, change.zxid),
            Followed::Begun(zxid) if self.initial => ("ready", &self.path, Some(*zxid)),
            Followed::Begun(_) => return None,
        };
        Some(match self.json {
            true => format_json(word, path, zxid),
            false => format_line(word, path, zxid),
        })
    }

    async fn run_commands(&self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        let mut signals = Signals::catch()?;
        let mut follower = tokio::select! {
            follower = Follower::start(service, &self.path, self.recursive) => follower?,
            signal = signals.next_ending() => return Ok(signals::die_of(signal)),
        };
        let (mut changes, mut child) = (Changes::default(), None);
        let result = loop {
            let due = changes.due(self.debounce);
            tokio::select! {
                followed = follower.next() => match followed {
                    Ok(followed) => self.note(followed, &mut changes),
                    Err(failure) => break Err(failure),
                },
                happened = meanwhile(&mut child, &mut signals, due) => match happened {
                    Happened::Due => match self.start(service, &mut changes) {
                        Ok(started) => child = Some(started),
                        Err(failure) => break Err(failure),
                    },
                    Happened::ToEnd(signal) => break Ok(signals::die_of(signal)),
                    Happened::Ended(ended) => {
                        let told_to_end = child.take().and_then(|child| child.told_to_end());
                        self.report(&ended);
                        if let Some(signal) = told_to_end {
                            break Ok(signals::die_of(signal));
                        }
                    }
                },
            }
        };
        close(&follower.client).await;
        result
    }

    fn note(&self, followed: Followed, changes: &mut Changes) {
        match followed {
            Followed::Change(change) if change.kind == ChangeKind::Present && !self.initial => {}
            Followed::Change(change) => changes.add(change, Instant::now()),
            Followed::Begun(_) if self.initial => changes.touch(Instant::now()),
            Followed::Begun(_) => {}
        }
    }

    fn start(&self, service: &Service<'_>, changes: &mut Changes) -> Result<Child, Failure> {
        let mut environment = service.environment();
        environment.push(("ZNODE_WATCH_PATH", self.path.clone()));
        environment.extend(std::mem::take(changes).environment());
        let line = CommandLine { words: &self.exec, environment, death_signal: Signal::SIGTERM };
        Child::start(&line)
    }

    fn report(&self, ended: &std::io::Result<Ended>) {
        let program = self.exec[0].to_string_lossy();
        match ended {
            Ok(ended) if ended.code() == 0 => {}
            Ok(ended) => {
                say(&format!("{}: {program} ended with status {}", self.path, ended.code()));
            }
            Err(error) => say(&format!("{}: cannot wait for {program}: {error}", self.path)),
        }
    }
}

/// What happens beside the changes.
enum Happened {
    Due,
    Ended(std::io::Result<Ended>),
    ToEnd(Signal),
}

/// Waits for the command that runs, or for the time to run one.
async fn meanwhile(
    child: &mut Option<Child>,
    signals: &mut Signals,
    due: Option<Instant>,
) -> Happened {
    if let Some(child) = child {
        return Happened::Ended(child.wait(signals, true).await);
    }
    let is_due = async {
        match due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = is_due => Happened::Due,
        signal = signals.next_ending() => Happened::ToEnd(signal),
    }
}

/// What has changed since the last run: the last change of each znode.
#[derive(Default)]
struct Changes {
    by_path: BTreeMap<String, Change>,
    count: usize,
    omitted: usize,
    /// When the first and the last of them came.
    burst: Option<(Instant, Instant)>,
}

impl Changes {
    fn add(&mut self, change: Change, now: Instant) {
        self.count += 1;
        self.touch(now);
        if self.by_path.len() < CHANGES_MAX || self.by_path.contains_key(&change.path) {
            self.by_path.insert(change.path.clone(), change);
        } else {
            self.omitted += 1;
        }
    }

    /// A run is wanted.
    fn touch(&mut self, now: Instant) {
        self.burst = Some((self.burst.map_or(now, |(first, _)| first), now));
    }

    /// When to run; `None` for not yet.
    fn due(&self, debounce: Duration) -> Option<Instant> {
        let (first, last) = self.burst?;
        Some((last + debounce).min(first + debounce * BURST_DEBOUNCE_TIMES))
    }

    fn environment(self) -> [(&'static str, String); 3] {
        let (mut events, mut omitted) = (String::new(), self.omitted);
        for change in self.by_path.values() {
            let line = format_line(word(change.kind), &change.path, change.zxid);
            if events.len() + line.len() >= EVENTS_LENGTH_MAX {
                omitted += 1;
                continue;
            }
            if !events.is_empty() {
                events.push('\n');
            }
            events.push_str(&line);
        }
        [
            ("ZNODE_WATCH_EVENTS", events),
            ("ZNODE_WATCH_COUNT", self.count.to_string()),
            ("ZNODE_WATCH_OMITTED", omitted.to_string()),
        ]
    }
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Present => "present",
        ChangeKind::Created => "created",
        ChangeKind::Changed => "changed",
        ChangeKind::Children => "children",
        ChangeKind::Deleted => "deleted",
    }
}

/// Paths hold no control characters, so no tabs.
fn format_line(word: &str, path: &str, zxid: Option<Zxid>) -> String {
    let mut line = format!("{word}\t{path}\t");
    match zxid {
        // Writing to a string cannot fail.
        Some(zxid) => _ = write!(line, "0x{:x}", zxid.0),
        None => line.push('-'),
    }
    line
}

fn format_json(word: &str, path: &str, zxid: Option<Zxid>) -> String {
    let zxid = zxid.map_or("null".into(), |zxid| format!("\"0x{:x}\"", zxid.0));
    format!("{{\"type\":\"{word}\",\"path\":{},\"zxid\":{zxid}}}", json_string(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: ChangeKind, path: &str, zxid: i64) -> Change {
        Change { kind, path: path.into(), zxid: Some(Zxid(zxid)) }
    }

    #[test]
    fn a_command_learns_the_last_change_of_each_znode() {
        let (mut changes, now) = (Changes::default(), Instant::now());
        changes.add(change(ChangeKind::Created, "/b", 16), now);
        changes.add(change(ChangeKind::Created, "/a", 17), now);
        changes.add(change(ChangeKind::Deleted, "/b", 18), now);
        let [(_, events), (_, count), (_, omitted)] = changes.environment();
        assert_eq!(events, "created\t/a\t0x11\ndeleted\t/b\t0x12");
        assert_eq!((count.as_str(), omitted.as_str()), ("3", "0"));
    }

    #[test]
    fn what_does_not_fit_into_an_environment_is_counted() {
        let (mut changes, now) = (Changes::default(), Instant::now());
        for number in 0..20_000 {
            let path = format!("/some/path/{number:05}");
            changes.add(change(ChangeKind::Changed, &path, number), now);
        }
        let [(_, events), _, (_, omitted)] = changes.environment();
        assert!(events.len() <= EVENTS_LENGTH_MAX && events.len() > EVENTS_LENGTH_MAX / 2);
        assert_eq!(events.lines().count() + omitted.parse::<usize>().unwrap(), 20_000);
    }

    #[test]
    fn a_run_waits_for_the_end_of_a_burst_but_not_for_ever() {
        let debounce = Duration::from_millis(100);
        let (mut changes, began) = (Changes::default(), Instant::now());
        assert_eq!(changes.due(debounce), None);
        changes.touch(began);
        assert_eq!(changes.due(debounce), Some(began + debounce));
        for step in 1..30 {
            changes.touch(began + step * Duration::from_millis(50));
        }
        assert_eq!(changes.due(debounce), Some(began + debounce * 10));
    }

    #[test]
    fn json_lines_quote_what_they_must() {
        assert_eq!(
            format_json("created", "/a\"b", Some(Zxid(16))),
            r#"{"type":"created","path":"/a\"b","zxid":"0x10"}"#
        );
        assert!(format_json("deleted", "/a", None).ends_with(r#""zxid":null}"#));
    }
}
