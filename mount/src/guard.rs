//! The guard: a small process beside every mount that unmounts when the mount process dies without
//! having done so, however it dies.
//!
//! It never holds `/dev/fuse`, so the kernel ends the connection the moment the mount process is
//! gone, and it unmounts only what is still the very mount it was told of: a later mount at the
//! same place is somebody else's. Mount process and guard talk in lines over the guard's standard
//! input and output; the death is seen through a pidfd, which works too when something else has
//! inherited the pipe.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Pid, getppid, setsid};

use crate::kernel_mount::{self, MountIdentity, UnmountError};
use crate::logging::{self, LogTarget};

/// The name under which the guard appears in ps(1), and by which the program knows its part.
pub const GUARD_NAME: &str = "znode-guard";

/// How long the guard may take for an answer that needs nobody else.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why a mount goes without its guard, or does not work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The process could not be started.
    #[error("cannot start the guard process: {0}")]
    Start(io::Error),
    /// It ended or fell silent.
    #[error("the guard process ended unexpectedly: {0}")]
    Lost(io::Error),
    /// It looked into the mount and met an error.
    #[error("the mount does not work: {0}")]
    NotWorking(String),
}

/// The mount process' handle on its guard.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// Starts the guard of what will be mounted at `mountpoint` (absolute, no symbolic links).
    ///
    /// # Errors
    /// [`GuardError::Start`], or [`GuardError::Lost`] when it ends at once.
    pub fn start(mountpoint: &Path, log: &LogTarget) -> Result<Guard, GuardError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(GUARD_NAME).arg(std::process::id().to_string()).arg(mountpoint);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        match log {
            LogTarget::StandardError => {}
            LogTarget::Syslog => {
                command.arg("--syslog").stderr(Stdio::null());
            }
            LogTarget::File(path) => {
                command.arg(path).stderr(Stdio::null());
            }
        }
        let mut process = command.spawn().map_err(GuardError::Start)?;
        let missing = || GuardError::Start(io::Error::other("it has no pipes"));
        let orders = process.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(process.stdout.take().ok_or_else(missing)?);
        let mut guard = Guard { process, orders, answers };
        guard.answer(ANSWER_LIMIT)?;
        Ok(guard)
    }

    /// Says that a mount is about to be made, so that one that is never announced is found too.
    ///
    /// # Errors
    /// [`GuardError::Lost`].
    pub fn mounting(&mut self) -> Result<(), GuardError> {
        self.order(&Order::Mounting)?;
        self.answer(ANSWER_LIMIT)
    }

    /// Names the mount to guard.
    ///
    /// # Errors
    /// [`GuardError::Lost`].
    pub fn armed(&mut self, identity: MountIdentity) -> Result<(), GuardError> {
        self.order(&Order::Armed(identity))?;
        self.answer(ANSWER_LIMIT)
    }

    /// Lets the guard look into the mount, as any process would; the mount process itself must
    /// not, since it could never be killed while it waits for its own answer.
    ///
    /// # Errors
    /// [`GuardError::NotWorking`] when the look fails or takes longer than `limit`.
    pub fn look(&mut self, limit: Duration) -> Result<(), GuardError> {
        self.order(&Order::Look)?;
        self.answer(limit)
    }

    /// Whether the guard is gone, which it never should be before the mount.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    /// Ends the guard: nothing is mounted any more.
    pub fn disarm(mut self) {
        // A guard that is gone already needs no order.
        let _ = self.order(&Order::Disarm);
        drop(self.orders);
        let _ = self.process.wait();
    }

    fn order(&mut self, order: &Order) -> Result<(), GuardError> {
        self.orders.write_all(format!("{}\n", order.text()).as_bytes()).map_err(GuardError::Lost)
    }

    fn answer(&mut self, limit: Duration) -> Result<(), GuardError> {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut pipes = [PollFd::new(self.answers.get_ref().as_fd(), PollFlags::POLLIN)];
        match poll(&mut pipes, timeout) {
            Ok(0) => {
                let text = format!("no answer within {:.1} s", limit.as_secs_f64());
                return Err(GuardError::NotWorking(text));
            }
            // A signal cut the wait short: the read below waits on.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(GuardError::Lost(error.into())),
        }
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(GuardError::Lost)?;
        match line.trim_end() {
            "ok" => Ok(()),
            "" => Err(GuardError::Lost(io::ErrorKind::UnexpectedEof.into())),
            reason => Err(GuardError::NotWorking(reason.to_owned())),
        }
    }
}

/// What the mount process tells its guard.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Mounting,
    Armed(MountIdentity),
    Look,
    Disarm,
}

impl Order {
    fn text(&self) -> String {
        match self {
            Order::Mounting => String::from("mounting"),
            Order::Armed(identity) => format!("armed {identity}"),
            Order::Look => String::from("look"),
            Order::Disarm => String::from("disarm"),
        }
    }

    fn parse(line: &str) -> Option<Order> {
        match line.split_once(' ') {
            Some(("armed", identity)) => Some(Order::Armed(identity.parse().ok()?)),
            None if line == "mounting" => Some(Order::Mounting),
            None if line == "look" => Some(Order::Look),
            None if line == "disarm" => Some(Order::Disarm),
            _ => None,
        }
    }
}

/// What the guard knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Nothing is mounted.
    Idle,
    /// A mount may appear over what was there before.
    Mounting { before: MountIdentity },
    /// This mount is ours.
    Armed(MountIdentity),
}

/// Whether the arguments (the program's name first) are those of a guard.
pub fn is_guard(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|name| name == GUARD_NAME) && arguments.len() >= 3
}

/// The guard's whole life: `arguments` are its name, the mount process' id, the mountpoint and,
/// unless it logs to standard error, `--syslog` or a log file.
pub fn run(arguments: &[OsString]) -> ExitCode {
    // What a terminal or a service manager sends to everybody is the mount process' to act on.
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    // Executed through a link of /proc, the process would be called "exe". A name is all it is for.
    let _ = nix::sys::prctl::set_name(c"znode-guard");
    // It fails only for a process that leads a group, which a child does not.
    let _ = setsid();
    // SAFETY: nothing in this process has opened a descriptor above 2 yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let log = match arguments.get(3) {
        None => LogTarget::StandardError,
        Some(name) if name == "--syslog" => LogTarget::Syslog,
        Some(path) => LogTarget::File(PathBuf::from(path)),
    };
    // Without its log the guard still does its work.
    let _ = logging::start(&log, 0);
    let guarded = arguments[1].to_str().and_then(|text| text.parse().ok()).map(Pid::from_raw);
    let Some(guarded) = guarded else { return ExitCode::from(2) };
    let mut session = GuardSession {
        mountpoint: PathBuf::from(&arguments[2]),
        watch: Watch::Idle,
        unread: Vec::new(),
    };
    let death = open_pidfd(guarded);
    if getppid() != guarded {
        // Dead already, before it could mount anything.
        return ExitCode::SUCCESS;
    }
    reply("ok");
    if session.wait_for_the_end(death.as_ref()) == End::Death {
        session.clean_up(guarded);
    }
    ExitCode::SUCCESS
}

/// `None` on a kernel before 5.3, where the pipe's end has to do.
fn open_pidfd(process: Pid) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes a process id and flags and gives a new descriptor or -1.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0)?;
    // SAFETY: the kernel has just made it, and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn reply(text: &str) {
    // When nobody reads any more, the mount process is dying; the pidfd says so.
    let _ = io::stdout().write_all(format!("{text}\n").as_bytes());
    let _ = io::stdout().flush();
}

/// How the guard's wait ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The mount process said that nothing is mounted any more.
    Disarmed,
    /// It is gone.
    Death,
}

struct GuardSession {
    mountpoint: PathBuf,
    watch: Watch,
    /// The beginning of an order whose end has not come yet.
    unread: Vec<u8>,
}

impl GuardSession {
    fn wait_for_the_end(&mut self, death: Option<&OwnedFd>) -> End {
        let mut pipe_open = true;
        loop {
            let stdin = io::stdin();
            let mut ready = Vec::with_capacity(2);
            ready.extend(pipe_open.then(|| PollFd::new(stdin.as_fd(), PollFlags::POLLIN)));
            ready.extend(death.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            if poll(&mut ready, PollTimeout::NONE).is_err() {
                continue;
            }
            let died = death.is_some() && ready.last().is_some_and(has_happened);
            let has_orders = pipe_open && has_happened(&ready[0]);
            // Orders first: what was said before the death counts.
            if has_orders {
                match self.read_orders() {
                    Some(End::Disarmed) => return End::Disarmed,
                    Some(End::Death) => pipe_open = false,
                    None if died => continue,
                    None => {}
                }
            }
            if died || (!pipe_open && death.is_none()) {
                return End::Death;
            }
        }
    }

    /// Reads what is there; `Death` says that the pipe has ended.
    fn read_orders(&mut self) -> Option<End> {
        let mut buffer = [0; 1024];
        // Not through io::stdin(): its buffer would hide orders from poll.
        let count = match nix::unistd::read(io::stdin().as_fd(), &mut buffer) {
            Ok(0) => return Some(End::Death),
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return None,
            Err(_) => return Some(End::Death),
        };
        self.unread.extend_from_slice(&buffer[..count]);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match Order::parse(line.trim_end()) {
                Some(Order::Disarm) => return Some(End::Disarmed),
                Some(order) => self.obey(order),
                None => reply("the guard does not know this order"),
            }
        }
        None
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Mounting => match MountIdentity::at(&self.mountpoint) {
                Ok(before) => {
                    self.watch = Watch::Mounting { before };
                    reply("ok");
                }
                Err(error) => reply(&error.to_string()),
            },
            Order::Armed(identity) => {
                self.watch = Watch::Armed(identity);
                reply("ok");
            }
            Order::Look => match fs::metadata(&self.mountpoint) {
                Ok(_) => reply("ok"),
                Err(error) => reply(&error.to_string()),
            },
            Order::Disarm => self.watch = Watch::Idle,
        }
    }

    /// Unmounts what the dead process left, if it left anything.
    fn clean_up(&self, dead: Pid) {
        let identity = match self.watch {
            Watch::Idle => return,
            Watch::Armed(identity) => identity,
            Watch::Mounting { before } => match MountIdentity::at(&self.mountpoint) {
                Ok(found) if found != before && is_dead_mount(&self.mountpoint) => found,
                _ => return,
            },
        };
        let place = self.mountpoint.display();
        match kernel_mount::unmount(&self.mountpoint, identity, true) {
            Ok(()) => tracing::warn!("process {dead} died: unmounted {place}"),
            Err(UnmountError::NotMounted) => {}
            Err(error) => tracing::error!("process {dead} died: cannot unmount {place}: {error}"),
        }
    }
}

fn has_happened(descriptor: &PollFd<'_>) -> bool {
    descriptor.any() == Some(true)
}

/// Whether a FUSE file system is there that nobody serves.
fn is_dead_mount(path: &Path) -> bool {
    let looked = kernel_mount::look(path);
    looked.is_err_and(|error| error.raw_os_error() == Some(Errno::ENOTCONN as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_pipe() {
        let identity = MountIdentity { id: 1 << 40, device: (0, 77) };
        for order in [Order::Mounting, Order::Armed(identity), Order::Look, Order::Disarm] {
            assert_eq!(Order::parse(&order.text()), Some(order));
        }
        for nonsense in ["", "armed", "armed x", "disarm now"] {
            assert_eq!(Order::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn only_its_own_name_makes_a_guard() {
        let guard = |line: &str| is_guard(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(guard("znode-guard 12 /mnt"));
        assert!(!guard("znode-guard"));
        assert!(!guard("znode-mount 12 /mnt"));
    }

    #[test]
    fn a_mount_that_is_not_the_guarded_one_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let session = GuardSession {
            mountpoint: directory.path().to_owned(),
            watch: Watch::Armed(MountIdentity { id: 0, device: (0, 0) }),
            unread: Vec::new(),
        };
        session.clean_up(Pid::this());
        assert!(directory.path().is_dir());
    }
}
