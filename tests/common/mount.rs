//! Mounts under test: `znode-mount` in the foreground, removed at the end of the test come what
//! may.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deadline::wait_for;
use crate::mount_table::{self, MountTableEntry};
use crate::reaper::Reaper;
use crate::restarts::settle;
use crate::server::STOP_LIMIT;
use crate::{Directory, Process, Ran, Shell, binary, free_port};

/// How long a mount may take until it is there.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// A mounted tree. Its path is what it dereferences to.
#[derive(Debug)]
pub struct Mount {
    process: Process,
    mountpoint: PathBuf,
    /// Who serves it, unless that is the mount itself.
    servers: String,
    reaper: Reaper,
    // Last, so that it is removed after the mount.
    _directory: Directory,
}

impl Mount {
    /// Mounts `HOST:PORT[/CHROOT]` with these further arguments, `["-o", "ro"]` for example.
    pub fn of(source: &str, arguments: &[&str]) -> Mount {
        let mut mount = Mount::start(|command| {
            command.args(arguments).arg(source);
        });
        mount.servers = source.split('/').next().unwrap_or_default().to_string();
        mount
    }

    /// Mounts a replica inside the mount process, with its data in `data`; also gives the address
    /// of its client port.
    pub fn embedded(data: &Path, arguments: &[&str]) -> (Mount, String) {
        let address = format!("127.0.0.1:{}", free_port());
        let mount = Mount::start(|command| {
            command.args(arguments).arg("--listen").arg(&address).arg("--embedded").arg(data);
        });
        (mount, address)
    }

    fn start(arguments: impl FnOnce(&mut Command)) -> Mount {
        let directory = Directory::new();
        let mountpoint = directory.subdirectory("mnt");
        let reaper = Reaper::of(&mountpoint);
        let mut command = Command::new(binary("znode-mount"));
        command.arg("-f");
        arguments(&mut command);
        command.arg(&mountpoint);
        let process = Process::spawn(&mut command, &directory.join("znode-mount.log"));
        let servers = String::new();
        let mut mount = Mount { process, mountpoint, servers, reaper, _directory: directory };
        mount.wait_until_mounted();
        mount
    }

    /// # Panics
    /// If the command ends instead, or nothing is mounted in time.
    fn wait_until_mounted(&mut self) {
        let mounted = wait_for(MOUNT_LIMIT, || {
            if let Some(status) = self.process.exit_status() {
                panic!("znode-mount ended while mounting ({status}): {}", self.process.log_text());
            }
            self.table_entry()
        });
        let log = || self.process.log_text();
        assert!(mounted.is_some(), "nothing is mounted within {MOUNT_LIMIT:?}: {}", log());
    }

    /// The kernel's entry for it; `None` when it is not mounted (any more).
    pub fn table_entry(&self) -> Option<MountTableEntry> {
        mount_table::find(&self.mountpoint)
    }

    /// The process that serves it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A shell in its root.
    pub fn shell(&self) -> Shell {
        Shell::new(&self.mountpoint)
    }

    /// Runs a bash script in its root.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        settle(&self.servers);
        self.shell().sh(script)
    }

    /// Ends it with a signal and returns how the process ended.
    ///
    /// # Panics
    /// If it does not end in time or leaves the mount behind.
    #[track_caller]
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        let ended = self.process.wait(STOP_LIMIT);
        let status = ended.unwrap_or_else(|| panic!("still running after {signal}"));
        assert!(self.table_entry().is_none(), "a mount is left behind after {signal}");
        status
    }
}

impl Deref for Mount {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.mountpoint
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        let ended = self.process.wait(STOP_LIMIT).is_some();
        // A process that was killed leaves the mount to its guard, which comes a moment later.
        let left = wait_for(STOP_LIMIT, || self.table_entry().is_none().then_some(())).is_none();
        if !ended || left {
            self.reaper.reap();
            if !std::thread::panicking() {
                let log = self.process.log_text();
                panic!("no clean end: process ended: {ended}, mount left: {left}\n{log}");
            }
        }
    }
}
