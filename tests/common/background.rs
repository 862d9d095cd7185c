//! Commands that run in the background of a test, in a directory of a mount, and what they say.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Directory, Process, wait_for};

/// How long something may take that should happen at once.
const SOON: Duration = Duration::from_secs(20);

/// A bash script that runs until it ends or the test does; what it writes is kept.
pub struct Background {
    process: Process,
    _directory: Directory,
}

impl Background {
    /// Starts a script with `place` as its working directory. With `exec` before its last command that
    /// is the process itself.
    pub fn start(place: &Path, script: &str) -> Background {
        let directory = Directory::new();
        let mut command = Command::new("bash");
        command.arg("-c").arg(script).current_dir(place);
        let process = Process::spawn(&mut command, &directory.join("output"));
        Background { process, _directory: directory }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Whether it has written this line.
    pub fn has_said(&self, line: &str) -> bool {
        self.process.log_text().lines().any(|said| said == line)
    }

    /// Waits until it has written this line.
    #[track_caller]
    pub fn wait_for(&self, line: &str) {
        if wait_for(SOON, || self.has_said(line).then_some(())).is_none() {
            panic!("not within {SOON:?}: '{line}' in:\n{}", self.process.log_text());
        }
    }

    /// Waits until it has ended by itself; its exit code, 128 + N for signal N.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.process.wait(SOON);
        let status = status.unwrap_or_else(|| panic!("still runs: {}", self.process.log_text()));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }
}
