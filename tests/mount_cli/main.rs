//! The command `znode-mount` itself: how it starts, what it refuses, how it ends, and that nothing
//! it does, dying included, leaves a dead mount behind. What a mounted tree does is in
//! `tests/mount`.

mod background;
mod fstab;
mod guard;
mod helper;
mod refusals;
mod units;
mod user;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use znodefs_tests::reaper::Reaper;
use znodefs_tests::{Directory, Ran, Shell, binary, mount_table, wait_until};

/// How long anything here may take that should be quick.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory with an empty mountpoint, and mounts made there by commands that return.
struct Place {
    mountpoint: PathBuf,
    directory: Directory,
    reaper: Reaper,
}

impl Place {
    fn new() -> Place {
        let directory = Directory::new();
        let mountpoint = directory.subdirectory("mnt");
        let reaper = Reaper::of(&mountpoint);
        Place { mountpoint, directory, reaper }
    }

    /// Runs `znode-mount ARGUMENTS MOUNTPOINT` until it returns.
    #[track_caller]
    fn mount(&self, arguments: &[&str]) -> Ran {
        self.run(Command::new(binary("znode-mount")).args(arguments).arg(&self.mountpoint))
    }

    #[track_caller]
    fn run(&self, command: &mut Command) -> Ran {
        Shell::new(&self.directory).run(command)
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        Shell::new(&self.directory).variable("MNT", self.mountpoint.display()).sh(script)
    }

    fn is_mounted(&self) -> bool {
        mount_table::find(&self.mountpoint).is_some()
    }

    #[track_caller]
    fn wait_until_gone(&self) {
        wait_until("the mount is gone", LIMIT, || !self.is_mounted());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted() {
            self.reaper.reap();
        }
    }
}

/// The living processes that serve or guard a mount at `mountpoint`, by the name of the program.
fn processes(program: &str, mountpoint: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("a process table").flatten();
    let numbered = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        // A process that has ended has no command line any more.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let named = Path::new(&*words[0]).file_name().is_some_and(|name| name == program);
        named && words.iter().any(|word| Path::new(&**word) == mountpoint)
    };
    numbered.filter(ours).map(Pid::from_raw).collect()
}

/// The one process of that name at `mountpoint`.
#[track_caller]
fn process(program: &str, mountpoint: &Path) -> Pid {
    let found = processes(program, mountpoint);
    assert_eq!(found.len(), 1, "{program} processes at {}", mountpoint.display());
    found[0]
}

#[track_caller]
fn wait_until_ended(program: &str, mountpoint: &Path) {
    let what = format!("{program} has ended");
    wait_until(&what, LIMIT, || processes(program, mountpoint).is_empty());
}

fn send(pid: Pid, signal: Signal) {
    kill(pid, signal).expect("the process is there");
}
