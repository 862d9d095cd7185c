//! Where log lines go, and how many of the same kind: standard error in the foreground, syslog or a
//! file in the background.
//!
//! A server that is down for a night must not fill the disk with one line, so each place in the
//! source may write [`LINES_PER_WINDOW`] lines in [`WINDOW`]; what is left out is counted and said.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::syslog::{Facility, LogFlags, Priority, Severity, openlog, syslog};
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines one place in the source may write within one window.
const LINES_PER_WINDOW: u32 = 20;
/// The length of a window.
const WINDOW: Duration = Duration::from_secs(10);

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, with colours when it is a terminal.
    StandardError,
    /// syslog(3), facility `daemon`.
    Syslog,
    /// Appended to this file; an absolute path.
    File(PathBuf),
}

/// Starts logging for the rest of the process. Panics become log lines too.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(target: &LogTarget, verbosity: u8) -> io::Result<()> {
    let sink = match target {
        LogTarget::StandardError => Sink::StandardError,
        LogTarget::Syslog => {
            openlog(Some(c"znode-mount"), LogFlags::LOG_PID, Facility::LOG_DAEMON)?;
            Sink::Syslog
        }
        LogTarget::File(path) => Sink::File(open_log_file(path)?),
    };
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    // fuser reports every end of a mount as a warning, which ours is not.
    let default = format!("{level},fuser=error");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(verbosity > 0)
        .with_ansi(matches!(sink, Sink::StandardError) && io::stderr().is_terminal());
    // journald and syslog have their own clocks.
    let timed = match sink {
        Sink::StandardError => std::env::var_os("JOURNAL_STREAM").is_none(),
        Sink::Syslog => false,
        Sink::File(_) => true,
    };
    let writer = LimitedWriter { sink, limiter: Mutex::new(Limiter::new()), started: now() };
    // Only a second start in the same process fails, and then the first one serves.
    if timed {
        let _ = builder.with_writer(writer).try_init();
    } else {
        let _ = builder.with_writer(writer).without_time().try_init();
    }
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        before(panic);
    }));
    Ok(())
}

/// Opens a log file as logging will; also the check that it can be opened.
///
/// # Errors
/// What the system says.
pub fn open_log_file(path: &Path) -> io::Result<File> {
    // A fifo that nobody reads must hold nobody up.
    File::options().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[allow(clippy::disallowed_methods, reason = "the log of a running process is bound to real time")]
fn now() -> Instant {
    Instant::now()
}

enum Sink {
    StandardError,
    Syslog,
    File(File),
}

impl Sink {
    /// Writes one whole line, its newline included. A log that cannot be written stops nothing.
    fn write_line(&self, level: Level, line: &[u8]) {
        let result = match self {
            Sink::StandardError => io::stderr().write_all(line),
            Sink::File(file) => (&*file).write_all(line),
            Sink::Syslog => {
                let priority = Priority::new(severity(level), Facility::LOG_DAEMON);
                let text = String::from_utf8_lossy(line.trim_ascii_end());
                syslog(priority, &*text).map_err(io::Error::from)
            }
        };
        let _ = result;
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::LOG_ERR,
        Level::WARN => Severity::LOG_WARNING,
        Level::INFO => Severity::LOG_INFO,
        _ => Severity::LOG_DEBUG,
    }
}

/// Counts the lines of each place in the source.
struct Limiter<P> {
    windows: HashMap<P, LineWindow>,
}

struct LineWindow {
    began: Duration,
    written: u32,
    left_out: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Write it; before it so many of its kind were left out.
    Write { left_out: u32 },
    /// Leave it out.
    LeaveOut,
}

impl<P: Eq + Hash> Limiter<P> {
    fn new() -> Limiter<P> {
        Limiter { windows: HashMap::new() }
    }

    /// Decides over a line of `place` at `now`, a time since any fixed moment.
    fn decide(&mut self, place: P, now: Duration) -> Verdict {
        let fresh = LineWindow { began: now, written: 0, left_out: 0 };
        let window = self.windows.entry(place).or_insert(fresh);
        let mut left_out = 0;
        if now >= window.began + WINDOW {
            left_out = window.left_out;
            *window = LineWindow { began: now, written: 0, left_out: 0 };
        }
        if window.written == LINES_PER_WINDOW {
            window.left_out = window.left_out.saturating_add(1);
            return Verdict::LeaveOut;
        }
        window.written += 1;
        Verdict::Write { left_out }
    }
}

struct LimitedWriter {
    sink: Sink,
    limiter: Mutex<Limiter<Identifier>>,
    started: Instant,
}

/// Takes one formatted line; the formatter hands over each in one piece.
struct LineWriter<'a> {
    sink: Option<&'a Sink>,
    level: Level,
}

impl<'a> MakeWriter<'a> for LimitedWriter {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { sink: Some(&self.sink), level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter<'a> {
        let level = *metadata.level();
        let elapsed = now().saturating_duration_since(self.started);
        let verdict = self.limiter.lock().decide(metadata.callsite(), elapsed);
        let sink = match verdict {
            Verdict::LeaveOut => None,
            Verdict::Write { left_out } => {
                if left_out > 0 {
                    let note = format!("{left_out} more lines like the next one were left out\n");
                    self.sink.write_line(level, note.as_bytes());
                }
                Some(&self.sink)
            }
        };
        LineWriter { sink, level }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(sink) = self.sink {
            sink.write_line(self.level, line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_repeats_is_left_out_and_counted() {
        let mut limiter = Limiter::new();
        let second = Duration::from_secs(1);
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(limiter.decide("here", second), Verdict::Write { left_out: 0 });
        }
        for _ in 0..1000 {
            assert_eq!(limiter.decide("here", second), Verdict::LeaveOut);
        }
        assert_eq!(limiter.decide("there", second), Verdict::Write { left_out: 0 });
        let later = second + WINDOW;
        assert_eq!(limiter.decide("here", later), Verdict::Write { left_out: 1000 });
        assert_eq!(limiter.decide("here", later), Verdict::Write { left_out: 0 });
    }
}
