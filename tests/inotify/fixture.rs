//! Two mounts of one tree, and inotifywait(1) on one of them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use znodefs_tests::{Directory, Mount, Process, Ran, Server, Shell, binary, wait_for};

/// How long an event may take before a test gives it up; it takes a millisecond.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A server and two mounts: what happens `there` is to be seen `here`.
pub struct TwoMounts<'a> {
    pub here: Mount,
    pub there: Mount,
    pub server: &'a dyn Server,
}

impl TwoMounts<'_> {
    pub fn on(server: &dyn Server) -> TwoMounts<'_> {
        let (here, there) = (Mount::of(&server.address(), &[]), Mount::of(&server.address(), &[]));
        TwoMounts { here, there, server }
    }

    /// Runs `znode` with these arguments.
    #[track_caller]
    pub fn znode(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(binary("znode"));
        command.args(["-s", &self.server.address()]).args(arguments);
        Shell::new(Path::new("/")).run(&mut command)
    }
}

/// `inotifywait -m -r`, and what it has said so far.
pub struct Inotifywait {
    process: Process,
    root: String,
    _directory: Directory,
}

impl Inotifywait {
    /// Watches everything below a directory, or a file.
    pub fn of(path: &Path) -> Inotifywait {
        let directory = Directory::new();
        let mut command = Command::new("inotifywait");
        command.args(["-m", "-r", "--format", "%e %w%f"]);
        command.args(["-e", "create,modify,close_write,delete,delete_self,attrib,move"]);
        command.arg(path);
        let process = Process::spawn(&mut command, &directory.join("events"));
        let watching =
            Inotifywait { process, root: path.display().to_string(), _directory: directory };
        let ready = || watching.process.log_text().contains("Watches established").then_some(());
        wait_for(LIMIT, ready).expect("inotifywait watches");
        watching
    }

    /// The events so far, as `EVENT NAME` with the name below what is watched.
    pub fn events(&self) -> Vec<String> {
        let log = self.process.log_text();
        let events = log.lines().filter(|line| {
            line.split(' ').next().is_some_and(|word| {
                word.bytes().all(|byte| byte.is_ascii_uppercase() || b",_".contains(&byte))
            })
        });
        let below = |line: &str| {
            let line = line.replace(&format!("{}/", self.root), "").replace(&self.root, ".");
            line.replace("CLOSE_WRITE,CLOSE", "CLOSE_WRITE")
        };
        events.map(below).collect()
    }

    /// Waits until the events so far include this one, and gives all of them.
    #[track_caller]
    pub fn wait_for(&self, event: &str) -> Vec<String> {
        let found = wait_for(LIMIT, || {
            let events = self.events();
            events.iter().any(|known| known == event).then_some(events)
        });
        found.unwrap_or_else(|| panic!("{event} did not come: {:#?}", self.events()))
    }

    /// Waits for a last event, and checks that these and no others came up to it.
    #[track_caller]
    pub fn expect(&self, expected: &[&str]) {
        let last = expected.last().expect("an event to wait for");
        wait_for(LIMIT, || (self.events().len() >= expected.len()).then_some(()));
        let events = self.wait_for(last);
        assert_eq!(events, expected);
    }
}
