//! The helper's side: a process of its own, because a process that waits for an answer of the mount
//! cannot be killed as long as it holds the device that the answer would come through. It holds no
//! `/dev/fuse`; killed at any point, it takes nothing with it.
//!
//! It never touches what lies underneath a mount: for each command it opens the mountpoint afresh,
//! compares the device, and goes on from there without crossing into another file system.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, ftruncate, getppid, gettid, setsid, unlinkat};

use super::{Action, Answer, Command, FRAME_LENGTH_MAX, Order, WORKERS};

/// The name under which the helper appears in ps(1), and by which the program knows its part.
pub const HELPER_NAME: &str = "znode-replay";

/// Whether the arguments (the program's name first) are those of a helper.
pub fn is_helper(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|name| name == HELPER_NAME) && arguments.len() == 3
}

/// The helper's whole life: `arguments` are its name, the mount process' id and the mountpoint. It
/// ends with its standard input or with the mount process.
pub fn run(arguments: &[OsString]) -> ExitCode {
    // What a terminal or a service manager sends to everybody is the mount process' to act on.
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { signal(ignored, SigHandler::SigIgn) };
    }
    // Executed through a link of /proc, the process would be called "exe". A name is all it is for.
    let _ = nix::sys::prctl::set_name(c"znode-replay");
    // Without it the helper still ends with its standard input.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    // It fails only for a process that leads a group, which a child does not.
    let _ = setsid();
    // SAFETY: nothing in this process has opened a descriptor above 2 yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let parent = arguments[1].to_str().and_then(|text| text.parse().ok()).map(Pid::from_raw);
    if parent != Some(getppid()) {
        return ExitCode::from(2);
    }
    match serve(PathBuf::from(&arguments[2])) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

fn serve(mountpoint: PathBuf) -> io::Result<()> {
    let (commands, queue) = channel();
    let work = Arc::new(Work { mountpoint, device: OnceLock::new(), queue: Mutex::new(queue) });
    let (announce, announced) = channel();
    for _ in 0..WORKERS {
        let (work, announce) = (work.clone(), announce.clone());
        let builder = std::thread::Builder::new().stack_size(128 * 1024);
        builder.spawn(move || work.run(&announce))?;
    }
    // The kernel tells the mount process of threads, not of processes.
    let mut hello = Vec::with_capacity(4 * WORKERS);
    for thread in announced.iter().take(WORKERS) {
        hello.extend(thread.to_le_bytes());
    }
    io::stdout().write_all(&hello)?;
    io::stdout().flush()?;
    let mut orders = io::stdin().lock();
    loop {
        let mut length = [0; 4];
        if orders.read_exact(&mut length).is_err() {
            // The mount process is gone. Threads that still wait for it end with it.
            return Ok(());
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_LENGTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        orders.read_exact(&mut body)?;
        match Order::decode(&body) {
            Some(Order::Arm(major, minor)) => {
                // A second device is no business of this helper's.
                let _ = work.device.set((major, minor));
            }
            Some(Order::Perform(number, command)) => {
                commands.send((number, command)).map_err(io::Error::other)?;
            }
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

struct Work {
    mountpoint: PathBuf,
    device: OnceLock<(u32, u32)>,
    queue: Mutex<Receiver<(u64, Command)>>,
}

impl Work {
    fn run(&self, announce: &Sender<i32>) {
        let _ = announce.send(gettid().as_raw());
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, command)) = next else { return };
            let errno = match self.perform(&command) {
                Ok(()) => 0,
                Err(errno) => errno as i32,
            };
            let mut answers = io::stdout().lock();
            let written = answers.write_all(&Answer { number, errno }.encode());
            if written.and_then(|()| answers.flush()).is_err() {
                return;
            }
        }
    }

    fn perform(&self, command: &Command) -> Result<(), Errno> {
        let device = self.device.get().ok_or(Errno::ENODEV)?;
        let root = open_root(&self.mountpoint, *device)?;
        let directory = descend(root, &command.directory)?;
        let name = command.name.as_str();
        match command.action {
            Action::CreateFile(length) => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
                let file = open_below(&directory, name, flags)?;
                if length > 0 { ftruncate(file, offset(length)) } else { Ok(()) }
            }
            Action::CreateDirectory => mkdirat(&directory, name, Mode::S_IRWXU),
            Action::Modify(length) => {
                let file = open_below(&directory, name, OFlag::O_WRONLY)?;
                ftruncate(file, offset(length))
            }
            Action::Unlink => unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir),
            Action::RemoveDirectory => unlinkat(&directory, name, UnlinkatFlags::RemoveDir),
        }
    }
}

fn offset(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The root of the mount, if that is what is at the mountpoint. It is not kept open: a mount in use
/// cannot be unmounted.
fn open_root(mountpoint: &Path, device: (u32, u32)) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let root = open(mountpoint, flags, Mode::empty())?;
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is a C string, and `found` has room for one statx; both outlive the call.
    let result = unsafe {
        libc::statx(root.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_TYPE, found.as_mut_ptr())
    };
    Errno::result(result)?;
    // SAFETY: every bit pattern is a valid statx, and the call above filled it.
    let found = unsafe { found.assume_init() };
    let is_ours = (found.stx_dev_major, found.stx_dev_minor) == device;
    if is_ours { Ok(root) } else { Err(Errno::ENODEV) }
}

/// Goes down to a directory, in steps that are short enough for one call.
fn descend(root: OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    const STEP_LENGTH_MAX: usize = 3500;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let (mut directory, mut rest) = (root, path);
    while !rest.is_empty() {
        let end = if rest.len() <= STEP_LENGTH_MAX {
            rest.len()
        } else {
            // Names are far shorter than a step.
            rest.as_bytes()[..STEP_LENGTH_MAX]
                .iter()
                .rposition(|byte| *byte == b'/')
                .ok_or(Errno::ENAMETOOLONG)?
        };
        directory = open_below(&directory, &rest[..end], flags)?;
        rest = rest[end..].trim_start_matches('/');
    }
    Ok(directory)
}

fn open_below(directory: impl AsFd, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_XDEV
        | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let creates = flags.contains(OFlag::O_CREAT);
    let mode = if creates { Mode::S_IRUSR | Mode::S_IWUSR } else { Mode::empty() };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    loop {
        match openat2(&directory, path, how) {
            // The kernel could not rule out a race with a rename.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device_of(path: &Path) -> (u32, u32) {
        use std::os::unix::fs::MetadataExt;
        let device = std::fs::metadata(path).unwrap().dev();
        (libc::major(device), libc::minor(device))
    }

    fn work(mountpoint: &Path, device: (u32, u32)) -> Work {
        let (_, queue) = channel();
        let mountpoint = mountpoint.to_owned();
        Work { mountpoint, device: OnceLock::from(device), queue: Mutex::new(queue) }
    }

    fn command(directory: &str, name: &str, action: Action) -> Command {
        Command { directory: directory.into(), name: name.into(), action }
    }

    #[test]
    fn commands_do_what_they_say() {
        let directory = tempfile::tempdir().unwrap();
        let work = work(directory.path(), device_of(directory.path()));
        let perform =
            |directory: &str, name: &str, action| work.perform(&command(directory, name, action));
        perform("", "d", Action::CreateDirectory).unwrap();
        perform("d", "f", Action::CreateFile(3)).unwrap();
        assert_eq!(perform("d", "f", Action::CreateFile(3)), Err(Errno::EEXIST));
        perform("d", "f", Action::Modify(5)).unwrap();
        assert_eq!(std::fs::read(directory.path().join("d/f")).unwrap(), [0; 5]);
        assert_eq!(perform("d", "f", Action::RemoveDirectory), Err(Errno::ENOTDIR));
        perform("d", "f", Action::Unlink).unwrap();
        perform("", "d", Action::RemoveDirectory).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_on_another_device_or_above_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), "precious").unwrap();
        let other = work(directory.path(), (0, 0));
        assert_eq!(other.perform(&command("", "f", Action::Unlink)), Err(Errno::ENODEV));
        std::fs::create_dir(directory.path().join("root")).unwrap();
        std::os::unix::fs::symlink("..", directory.path().join("root/up")).unwrap();
        let root = work(&directory.path().join("root"), device_of(directory.path()));
        for above in ["..", "up"] {
            assert!(root.perform(&command(above, "f", Action::Unlink)).is_err(), "{above}");
        }
        assert_eq!(std::fs::read(directory.path().join("f")).unwrap(), b"precious");
    }

    #[test]
    fn paths_longer_than_one_call_takes_are_walked() {
        let directory = tempfile::tempdir().unwrap();
        let work = work(directory.path(), device_of(directory.path()));
        let name = "n".repeat(200);
        let mut path = String::new();
        for _ in 0..40 {
            work.perform(&command(&path, &name, Action::CreateDirectory)).unwrap();
            path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        }
        work.perform(&command(&path, "f", Action::CreateFile(0))).unwrap();
        assert_eq!(work.perform(&command(&path, "f", Action::CreateFile(0))), Err(Errno::EEXIST));
    }

    #[test]
    fn only_its_own_name_makes_a_helper() {
        let helper =
            |line: &str| is_helper(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(helper("znode-replay 12 /mnt"));
        assert!(!helper("znode-replay 12"));
        assert!(!helper("znode-mount 12 /mnt"));
    }
}
