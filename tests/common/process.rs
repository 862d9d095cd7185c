//! Processes under test. Each writes its output to a file, is killed by the kernel when the test's
//! thread ends, and is killed and awaited when its guard is dropped.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline::wait_for;

/// How many of the last bytes of a process' output a failed test shows.
const LOG_TAIL_SHOWN: usize = 8192;

/// A running process and the file with its output.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and standard error appended to `log`.
    ///
    /// Must be called by a thread that lives as long as the process should: the kernel kills the
    /// process when that thread ends.
    pub fn spawn(command: &mut Command, log: &Path) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(log).expect("a log file");
        let errors = output.try_clone().expect("a second descriptor of the log file");
        die_with_this_thread(command);
        let started = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = started.unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { child, name, log: log.to_path_buf() }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    pub fn log_text(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        crate::restarts::hear(&text);
        text
    }

    /// How it ended; `None` while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// Waits until it ends; `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_for(limit, || self.exit_status())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // A process that has ended meanwhile needs none.
        let _ = kill(Pid::from_raw(self.pid() as i32), signal);
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end with SIGTERM and waits for it.
    ///
    /// # Panics
    /// If it still runs after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match self.wait(limit) {
            Some(status) => status,
            None => panic!("{} did not end within {limit:?} of SIGTERM", self.name),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.exit_status();
        self.kill();
        if std::thread::panicking() {
            let log = self.log_text();
            let mut start = log.len().saturating_sub(LOG_TAIL_SHOWN);
            while !log.is_char_boundary(start) {
                start += 1;
            }
            let state = ended.map_or("was running".to_string(), describe);
            eprintln!("--- {} ({state}) wrote:\n{}---", self.name, &log[start..]);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("ended by signal {signal}"),
        None => format!("exited with {}", status.code().unwrap_or_default()),
    }
}

/// Lets the kernel kill the child when the thread that starts it ends, however it ends.
pub fn die_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
}
