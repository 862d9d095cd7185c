//! Going into the background, and telling whoever started us that the mount works or why not.
//!
//! The fork happens before there is any thread. The parent waits on a pipe and ends with the
//! child's verdict: status and text.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};

/// Who goes on after [`into_background`].
pub enum Role {
    /// The process that was started: it ends with this status.
    Parent(ExitCode),
    /// The process that mounts.
    Child(Readiness),
}

/// The way to tell the starter how the start went; once.
pub struct Readiness {
    /// To the waiting parent; `None` in the foreground.
    pipe: Option<File>,
    program: String,
}

impl Readiness {
    /// For a process that stays in the foreground.
    pub fn foreground(program: &str) -> Readiness {
        Readiness { pipe: None, program: program.to_owned() }
    }

    /// The mount works; `text` is for standard output. Leaves the starter's terminal and pipes.
    ///
    /// # Errors
    /// When the parent does not wait any more: then nobody knows of the mount, and it should go.
    pub fn ready(self, text: &str) -> io::Result<()> {
        let Some(mut pipe) = self.pipe else {
            // A closed standard output is no reason not to mount.
            let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
            return Ok(());
        };
        // From here on the parent's end is not ours.
        nix::sys::prctl::set_pdeathsig(None)?;
        pipe.write_all(format!("0\n{text}").as_bytes())?;
        dup2_stderr(open_null()?)?;
        Ok(())
    }

    /// The mount failed; `reason` is one line without the program's name.
    pub fn failed(self, reason: &str) -> ExitCode {
        let line = format!("{}: {reason}\n", self.program);
        match self.pipe {
            // A parent that is gone wants no message.
            Some(mut pipe) => drop(pipe.write_all(format!("1\n{line}").as_bytes())),
            None => drop(io::stderr().write_all(line.as_bytes())),
        }
        ExitCode::from(1)
    }
}

/// Forks. The child is in a session of its own, works in `/`, has nothing on standard input and
/// output, and dies with the parent until it has said that it is ready.
///
/// # Errors
/// When there are no processes or descriptors left.
pub fn into_background(program: &str) -> io::Result<Role> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let parent = Pid::this();
    // SAFETY: the process has one thread, so the child may go on as if nothing had happened.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            Ok(Role::Parent(wait_for_verdict(File::from(reader), child, program)))
        }
        ForkResult::Child => {
            drop(reader);
            settle_in_background(&writer, parent)?;
            let pipe = Some(File::from(writer));
            Ok(Role::Child(Readiness { pipe, program: program.to_owned() }))
        }
    }
}

fn settle_in_background(pipe: &OwnedFd, parent: Pid) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
    if nix::unistd::getppid() != parent {
        return Err(io::Error::other("the parent process is gone"));
    }
    setsid()?;
    std::env::set_current_dir("/")?;
    dup2_stdin(open_null()?)?;
    dup2_stdout(open_null()?)?;
    // What the starter happened to have open, locks and pipes included, is not ours to keep.
    let kept = pipe.as_raw_fd().unsigned_abs();
    // SAFETY: only standard streams and the pipe are in use in this process so far.
    unsafe {
        if kept > 3 {
            libc::close_range(3, kept - 1, 0);
        }
        libc::close_range(kept + 1, libc::c_uint::MAX, 0);
    }
    Ok(())
}

fn open_null() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/null")
}

/// Reads the child's verdict, passes its text on, and gives the status to end with.
fn wait_for_verdict(mut pipe: File, child: Pid, program: &str) -> ExitCode {
    let mut verdict = String::new();
    // An error is like a silent end, and is told as one.
    let _ = pipe.read_to_string(&mut verdict);
    match verdict.split_once('\n') {
        Some(("0", text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Some((_, text)) => {
            let _ = io::stderr().write_all(text.as_bytes());
            // It is taking down what it had begun; whoever tries again should not meet that.
            let _ = waitpid(child, None);
            ExitCode::from(1)
        }
        None => {
            let how = match waitpid(child, None) {
                Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
                Ok(WaitStatus::Exited(_, status)) => format!("ended with status {status}"),
                _ => String::from("ended"),
            };
            let line = format!(
                "{program}: the background process {how} while mounting; -f shows what it does\n"
            );
            let _ = io::stderr().write_all(line.as_bytes());
            ExitCode::from(1)
        }
    }
}
