//! A command run by ours: in a process group of its own, with the terminal if there is one, with our
//! signals passed on, and not over before every process that belongs to it has ended. Who ends it when
//! a lock is lost is the [`Guard`].

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid, getppid};

use super::failure::Failure;
use super::guard::Guard;
use super::process_tree::{self, Command};
use super::signals::{self, Signals};
use super::terminal::{self, Terminal};

/// Time between two looks for processes that a command has left behind, if none of them is ours.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Exit code of a command that could not be started, as flock(1) has it (sysexits' EX_UNAVAILABLE).
const NOT_STARTED: u8 = 69;

/// A command and what it finds in its environment beside ours.
pub struct CommandLine<'a> {
    /// Program and arguments, at least the program.
    pub words: &'a [OsString],
    pub environment: Vec<(&'static str, String)>,
    /// What the kernel sends the program when we die without having ended it.
    pub death_signal: Signal,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    status: ExitStatus,
    had_terminal: bool,
}

impl Ended {
    /// Its exit code; 128 + N if signal N ended it.
    pub fn code(&self) -> u8 {
        let signalled = || 128 + self.status.signal().unwrap_or_default();
        // Exit codes have eight bits.
        self.status.code().unwrap_or_else(signalled) as u8
    }

    /// Ends as it did. A key that ended it, such as Ctrl-C, was meant for us and the script that
    /// runs us as well, but the terminal sent its signal to the command alone.
    pub fn report(&self) -> ExitCode {
        if self.had_terminal && self.status.signal() == Some(libc::SIGINT) {
            signals::tell_own_group(Signal::SIGINT);
            return signals::die_of(Signal::SIGINT);
        }
        ExitCode::from(self.code())
    }
}

/// A running command.
pub struct Child {
    process: std::process::Child,
    command: Command,
    terminal: Option<Terminal>,
    guard: Option<Arc<Guard>>,
    /// The signal with which we were told to end while it ran.
    told_to_end: Option<Signal>,
}

impl Child {
    /// Starts a command.
    pub fn start(line: &CommandLine<'_>) -> Result<Child, Failure> {
        // Orphans of the command become our children, so that we see them end. Without it (an old
        // kernel) they are looked for.
        let _ = nix::sys::prctl::set_child_subreaper(true);
        let strangers = process_tree::own_children();
        let mut terminal = Terminal::open();
        let to_take = terminal.as_mut().and_then(Terminal::taken_at_start);
        let (parent, death_signal) = (getpid(), line.death_signal);
        let (program, arguments) = line.words.split_first().expect("clap requires a program");
        let mut command = std::process::Command::new(program);
        command.args(arguments).process_group(0);
        command.envs(line.environment.iter().map(|(name, value)| (name, value)));
        let before_exec = move || {
            nix::sys::prctl::set_pdeathsig(death_signal)?;
            // It may have died before it could be told about.
            if getppid() != parent {
                raise(death_signal)?;
            }
            if let Some(terminal) = to_take {
                // Without it the command is in the background, and it is given it when it asks.
                let _ = terminal::take(terminal);
            }
            Ok(())
        };
        // SAFETY: between fork and exec only prctl, getppid, raise, sigprocmask and tcsetpgrp are
        // called, which are async-signal-safe; the terminal's descriptor is open as long as `terminal`.
        unsafe { command.pre_exec(before_exec) };
        let process = command.spawn().map_err(|error| {
            let program = program.to_string_lossy();
            Failure::with_code(format!("cannot start {program}: {error}"), NOT_STARTED)
        })?;
        let group = Pid::from_raw(process.id() as i32);
        Ok(Child {
            process,
            command: Command { group, strangers },
            terminal,
            guard: None,
            told_to_end: None,
        })
    }

    /// The processes it consists of.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The first signal with which we, and so the command, were told to end.
    pub fn told_to_end(&self) -> Option<Signal> {
        self.told_to_end
    }

    /// Puts it under guard.
    pub fn set_guard(&mut self, guard: Arc<Guard>) {
        self.guard = Some(guard);
    }

    /// Passes a signal on to its process group.
    pub fn pass_on(&mut self, signal: Signal) {
        match signal {
            Signal::SIGCHLD => {}
            // The shell has put us into the foreground or the background.
            Signal::SIGCONT => self.go_on(),
            signal => {
                if signals::ends(signal) {
                    self.told_to_end.get_or_insert(signal);
                }
                self.command.signal_group(signal);
            }
        }
    }

    /// Waits until it has ended, and unless `alone`, until everything it has started has. Passes
    /// signals on meanwhile. May be cancelled and called again.
    pub async fn wait(&mut self, signals: &mut Signals, alone: bool) -> std::io::Result<Ended> {
        while !self.has_ended() {
            let signal = signals.next().await;
            self.pass_on(signal);
        }
        let had_terminal = self.terminal.as_ref().is_some_and(Terminal::is_given);
        // Before it, nobody else can get its process id, and the name of its group with it.
        while !alone && !self.command.running().is_empty() {
            tokio::select! {
                signal = signals.next() => self.pass_on(signal),
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            self.adopt_orphans();
        }
        if let Some(guard) = self.guard.take() {
            guard.finish();
        }
        self.terminal = None;
        let status = self.process.wait()?;
        Ok(Ended { status, had_terminal })
    }

    /// Whether its first process has ended; it stays a zombie, which keeps its process id. Deals with
    /// one that has stopped, and with orphans that have ended.
    fn has_ended(&mut self) -> bool {
        let id = || Id::Pid(self.command.group);
        let no_wait = WaitPidFlag::WNOHANG;
        let stop = waitid(id(), WaitPidFlag::WSTOPPED | no_wait);
        let end = waitid(id(), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | no_wait);
        if let Ok(WaitStatus::Stopped(_, signal)) = stop {
            self.stopped(signal);
        }
        self.adopt_orphans();
        match end {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => false,
            // An error is a signal that nix has no name for.
            Ok(_) | Err(_) => true,
        }
    }

    /// Buries the orphans that have ended.
    fn adopt_orphans(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        loop {
            let ended = waitid(Id::All, flags).ok().and_then(|status| status.pid());
            // The command itself stands before those that have ended after it: they are buried by
            // init when we end, and zombies do not count as running.
            let Some(pid) = ended.filter(|pid| *pid != self.command.group) else { return };
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }

    /// The command was stopped. If that was the terminal's doing, so are we: whoever runs us sees a
    /// stopped job.
    fn stopped(&mut self, signal: Signal) {
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        if !wants_terminal && signal != Signal::SIGTSTP {
            return;
        }
        if let Some(terminal) = &mut self.terminal {
            if wants_terminal && !terminal.is_given() && terminal.is_ours() {
                terminal.give(self.command.group);
                self.command.signal_group(Signal::SIGCONT);
                return;
            }
            terminal.take_back();
        }
        signals::stop(signal);
        // For SIGTTIN and SIGTTOU, going on makes sense only once somebody has continued us.
        if signal == Signal::SIGTSTP {
            self.go_on();
        }
    }

    /// We were continued, and the command is with us, unless its lock is lost meanwhile.
    fn go_on(&mut self) {
        if let Some(terminal) = &mut self.terminal
            && terminal.is_wanted()
        {
            terminal.give(self.command.group);
        }
        if self.guard.as_ref().is_none_or(|guard| guard.allows_running()) {
            self.command.signal_group(Signal::SIGCONT);
        }
    }
}

impl Drop for Child {
    /// A command that is not waited for to the end is not left behind.
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            self.command.kill();
            let _ = self.process.wait();
        }
    }
}
