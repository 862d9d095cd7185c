//! The terminal of a command that reads from one: which process group has it, as a shell with job
//! control gives it to its jobs.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The controlling terminal.
pub struct Terminal {
    file: File,
    /// Whether the command has it.
    is_given: bool,
    /// Whether the command gets it when it starts, and when it is continued in the foreground.
    is_wanted: bool,
}

impl Terminal {
    /// The controlling terminal; `None` where there is none.
    pub fn open() -> Option<Terminal> {
        let file = File::options().read(true).write(true).open("/dev/tty").ok()?;
        // In a pipeline another program of our process group may be the one that talks to the user:
        // it keeps the terminal until the command turns out to need it.
        let is_wanted = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        Some(Terminal { file, is_given: false, is_wanted })
    }

    /// Whether it is ours to give away.
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(&self.file) == Ok(getpgrp())
    }

    /// Its descriptor if a new command is to take it for itself; it then counts as given.
    pub fn taken_at_start(&mut self) -> Option<RawFd> {
        self.is_given = self.is_wanted && self.is_ours();
        self.is_given.then(|| self.file.as_raw_fd())
    }

    /// Whether the command has it.
    pub fn is_given(&self) -> bool {
        self.is_given
    }

    /// Gives it to the command that turned out to need it, or had it before; only if it is ours.
    pub fn give(&mut self, group: Pid) {
        if self.is_ours() {
            self.is_wanted = true;
            self.is_given = set_foreground(&self.file, group).is_ok();
        }
    }

    /// Whether the command is to have it whenever we are in the foreground.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Takes it back from the command.
    pub fn take_back(&mut self) {
        if std::mem::take(&mut self.is_given) {
            // Without it, the shell takes it back itself.
            let _ = set_foreground(&self.file, getpgrp());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Gives the terminal to a process group, from the background too.
fn set_foreground(terminal: &File, group: Pid) -> nix::Result<()> {
    without_stopping(|| tcsetpgrp(terminal, group))
}

/// Gives the terminal to the calling process's group; for a child between fork and exec, so it does
/// nothing that is not async-signal-safe.
pub fn take(terminal: RawFd) -> std::io::Result<()> {
    // SAFETY: plain system calls on a descriptor that the caller keeps open.
    let result = without_stopping(|| unsafe { libc::tcsetpgrp(terminal, libc::getpgrp()) });
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A process in the background that sets the foreground group is stopped, unless it blocks SIGTTOU.
fn without_stopping<T>(work: impl FnOnce() -> T) -> T {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let result = work();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    result
}
