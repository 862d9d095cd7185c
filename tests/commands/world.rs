//! What the tests of this area share: a replica, shells in which `znode` reaches it, and commands that
//! run in the background.

use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use znodefs_tests::{
    Directory, Process, Ran, Server, Shell, WireClient, binary, wait_for, wait_until,
};

/// How long something may take that should happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// Shells in a directory of the test's own.
pub struct Shells {
    pub directory: Directory,
}

impl Shells {
    pub fn new() -> Shells {
        Shells { directory: Directory::new() }
    }

    /// A shell whose `znode` reaches the servers at `address`.
    pub fn shell_to(&self, address: &str) -> Shell {
        Shell::new(&self.directory)
            .variable("PATH", search_path())
            .variable("ZNODE_SERVERS", address)
    }

    /// Runs a bash script.
    #[track_caller]
    pub fn sh_to(&self, address: &str, script: &str) -> Ran {
        self.shell_to(address).sh(script)
    }

    /// Starts a bash script in the background, in a process that is killed at the end of the test.
    pub fn start_to(&self, address: &str, script: &str) -> Background {
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).current_dir(&self.directory);
        command.env("PATH", search_path()).env("ZNODE_SERVERS", address);
        let number = std::fs::read_dir(&self.directory).expect("the test's directory").count();
        command.process_group(0);
        Background(Process::spawn(&mut command, &self.directory.join(format!("{number}.log"))))
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file of the test's directory; empty where there is none.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file of the test's directory has this line.
    #[track_caller]
    pub fn wait_for_line(&self, name: &str, line: &str) {
        let has_line = || self.read(name).lines().any(|found| found == line);
        if wait_for(SOON, || has_line().then_some(())).is_none() {
            panic!("not within {SOON:?}: '{line}' in {name}, which has:\n{}", self.read(name));
        }
    }
}

/// A server, and shells that reach it.
pub struct Service<'a> {
    pub server: &'a mut dyn Server,
    pub shells: Shells,
}

impl Deref for Service<'_> {
    type Target = Shells;

    fn deref(&self) -> &Shells {
        &self.shells
    }
}

impl Service<'_> {
    pub fn of(server: &mut dyn Server) -> Service<'_> {
        Service { server, shells: Shells::new() }
    }

    /// Runs a bash script.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        self.sh_to(&self.server.address(), script)
    }

    /// Starts a bash script in the background, in a process that is killed at the end of the test.
    pub fn start(&self, script: &str) -> Background {
        self.start_to(&self.server.address(), script)
    }

    pub fn client(&self) -> WireClient {
        WireClient::connect(&self.server.address())
    }

    /// Waits until a znode has so many children; gives them.
    #[track_caller]
    pub fn wait_for_children(&self, path: &str, count: usize) -> Vec<String> {
        let mut client = self.client();
        let look = || {
            client.stat(path).filter(|stat| stat.num_children as usize == count)?;
            Some(client.children(path)).filter(|children| children.len() == count)
        };
        let found = wait_for(SOON, look);
        found.unwrap_or_else(|| panic!("not within {SOON:?}: {count} children of {path}"))
    }
}

/// A script in the background, in a process group of its own that is killed at the end. (What `znode`
/// runs is in another one, and dies with it.)
pub struct Background(Process);

impl Deref for Background {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Background {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The group may live on when its first process has ended; if it does not, nothing is hit.
        let _ = killpg(Pid::from_raw(self.0.pid() as i32), Signal::SIGKILL);
    }
}

/// The binaries under test, then the system's.
fn search_path() -> String {
    let binaries = binary("znode");
    let directory = binaries.parent().unwrap_or(Path::new("/"));
    format!("{}:/usr/bin:/bin", directory.display())
}

/// Waits until no process has `marker` among its arguments.
#[track_caller]
pub fn wait_until_gone(marker: &str) {
    wait_until(&format!("no process has '{marker}'"), SOON, || count_processes(marker) == 0);
}

/// How many processes have `marker` among their arguments.
pub fn count_processes(marker: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let command_lines =
        entries.flatten().filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let arguments = |line: &Vec<u8>| {
        line.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
    };
    command_lines.filter(arguments).count()
}
