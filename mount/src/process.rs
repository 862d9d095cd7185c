//! Processes that a znode lives as long as: who may name one, and the moment when it ends. Numbers are
//! those of the pid namespace that this process and its `/proc` are in.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};

use fuser::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::caller::Caller;

/// A process by its pidfd, which goes on meaning it when its number is given to another.
#[derive(Debug)]
pub struct Process(AsyncFd<OwnedFd>);

impl Process {
    /// The process with this number, which must be the caller's own unless that is root.
    ///
    /// # Errors
    /// `ESRCH` when there is none, `EPERM` when it is another user's, or when the caller is in another
    /// pid namespace, in which the number means another process; `EMFILE` and the like when no
    /// descriptor is left. Call it within a runtime.
    pub fn of_caller(caller: Caller, number: u32) -> Result<Process, Errno> {
        if !shares_our_namespace(caller.thread) {
            return Err(Errno::EPERM);
        }
        let pidfd = open(number)?;
        let status = read_status(number).ok_or(Errno::ESRCH)?;
        let owner = real_user(&status).ok_or(Errno::ESRCH)?;
        // Only now it is sure that the status was not that of a successor.
        if has_ended(&pidfd)? {
            return Err(Errno::ESRCH);
        }
        if caller.uid != 0 && caller.uid != owner {
            return Err(Errno::EPERM);
        }
        // SAFETY: an OwnedFd is open for as long as it lives, which is as long as the AsyncFd that
        // owns it, and nothing here changes or hands out the descriptor.
        let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        registered.map(Process).map_err(|error| errno_of(error.into()))
    }

    /// Resolves when the process has ended, also when nobody has waited for it yet.
    pub async fn ended(&self) {
        if let Err(error) = self.0.readable().await {
            // Not in a runtime that works. To end too early is the safe side for nobody.
            tracing::error!("cannot wait for the end of a process: {error}");
            std::future::pending().await
        }
    }
}

fn open(number: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, number as libc::pid_t, 0) };
    if result >= 0 {
        // SAFETY: the kernel has just made this descriptor for us (close-on-exec), and nobody else
        // knows it.
        return Ok(unsafe { OwnedFd::from_raw_fd(result as i32) });
    }
    Err(match errno_of(std::io::Error::last_os_error()) {
        errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSYS) => errno,
        // What is a thread but no process is EINVAL or ENOENT, depending on the kernel.
        _ => Errno::ESRCH,
    })
}

fn errno_of(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_i32)
}

fn has_ended(pidfd: &OwnedFd) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let ready =
        poll(&mut polled, PollTimeout::ZERO).map_err(|error| Errno::from_i32(error as i32))?;
    Ok(ready > 0)
}

fn read_status(number: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{number}/status")).ok()
}

/// Whether numbers of processes mean the same to a thread as to us.
fn shares_our_namespace(thread: u32) -> bool {
    // A thread without a number here is 0.
    thread != 0 && read_status(thread).as_deref().is_some_and(|status| namespaces(status) == 1)
}

/// In how many pid namespaces a thread has a number, counted from the one of `/proc`.
fn namespaces(status: &str) -> usize {
    // Kernels without pid namespaces have no such line.
    field(status, "NSpid:").map_or(1, |numbers| numbers.split_whitespace().count())
}

fn real_user(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_whitespace().next()?.parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: 0, thread: nix::unistd::gettid().as_raw() as u32 }
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_before_its_parent_has_waited() {
        let mut sleeper = Sleeper::start();
        let process = Process::of_caller(caller(0), sleeper.0.id()).unwrap();
        let moment = Duration::from_millis(10);
        assert!(tokio::time::timeout(moment, process.ended()).await.is_err());
        sleeper.0.kill().unwrap();
        process.ended().await;
        assert_eq!(Process::of_caller(caller(0), sleeper.0.id()).unwrap_err(), Errno::ESRCH);
    }

    #[tokio::test]
    async fn only_processes_of_the_caller_can_be_named() {
        let sleeper = Sleeper::start();
        let own = nix::unistd::getuid().as_raw();
        assert!(Process::of_caller(caller(own), sleeper.0.id()).is_ok());
        let stranger = caller(own + 1);
        assert_eq!(Process::of_caller(stranger, sleeper.0.id()).unwrap_err(), Errno::EPERM);
        assert_eq!(Process::of_caller(caller(0), i32::MAX as u32).unwrap_err(), Errno::ESRCH);
        let elsewhere = Caller { thread: 0, ..caller(0) };
        assert_eq!(Process::of_caller(elsewhere, sleeper.0.id()).unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn a_thread_in_a_nested_namespace_has_several_numbers() {
        assert_eq!(namespaces("Name:\tx\nNSpid:\t812\t5\n"), 2);
        assert_eq!(namespaces("Name:\tx\nNSpid:\t812\n"), 1);
        assert_eq!(real_user("Uid:\t1000\t0\t0\t0\n"), Some(1000));
    }
}
