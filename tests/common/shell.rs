//! Shell commands as a user types them, with their output and their exit code kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::deadline::wait_for;
use crate::process::die_with_this_thread;

/// How long a command may take unless the test says otherwise.
const TIME_LIMIT_DEFAULT: Duration = Duration::from_secs(60);

/// A command that has returned.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; 128 + N if signal N ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// Standard error of a command that must have failed, saying `message` among other things.
    #[track_caller]
    pub fn fails(self, message: &str) -> String {
        assert_ne!(self.code, 0, "{self:#?}");
        assert!(self.stderr.contains(message), "expected '{message}' in {self:#?}");
        self.stderr
    }

    /// For a command that must have failed with `code`: its last line, which names all of these.
    #[track_caller]
    pub fn ends_saying(&self, code: i32, parts: &[&str]) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        let last = self.stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "'{part}' is not in the last line of {self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        last.to_string()
    }

    /// The same for a command that says nothing else.
    #[track_caller]
    pub fn says_only(&self, code: i32, parts: &[&str]) {
        let last = self.ends_saying(code, parts);
        assert_eq!(self.stderr.trim(), last.trim(), "one clear line");
    }

    /// Both of what it wrote.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// How to run commands: where, with which variables, for how long.
#[derive(Clone, Debug)]
pub struct Shell {
    directory: PathBuf,
    variables: BTreeMap<String, String>,
    time_limit: Duration,
}

impl Shell {
    /// Commands run in `directory`.
    pub fn new(directory: &Path) -> Shell {
        let variables = [("LC_ALL", "C.UTF-8"), ("TERM", "xterm")];
        Shell {
            directory: directory.to_path_buf(),
            variables: variables.map(|(name, value)| (name.into(), value.into())).into(),
            time_limit: TIME_LIMIT_DEFAULT,
        }
    }

    /// Sets an environment variable.
    pub fn variable(mut self, name: &str, value: impl ToString) -> Shell {
        self.variables.insert(name.to_string(), value.to_string());
        self
    }

    /// Allows commands to run this long.
    pub fn time_limit(mut self, limit: Duration) -> Shell {
        self.time_limit = limit;
        self
    }

    /// Runs a bash script.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Ran {
        self.run(Command::new("bash").arg("-c").arg(script))
    }

    /// Runs a command with its arguments.
    ///
    /// # Panics
    /// If it cannot be started or runs longer than allowed; it is killed then, with all that it
    /// started.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Ran {
        let line = command_line(command);
        let mut stdout = tempfile::tempfile().expect("a temporary file");
        let mut stderr = tempfile::tempfile().expect("a temporary file");
        let cloned = |file: &File| file.try_clone().expect("a second descriptor");
        command.current_dir(&self.directory).envs(&self.variables).process_group(0);
        command.stdin(Stdio::null()).stdout(cloned(&stdout)).stderr(cloned(&stderr));
        die_with_this_thread(command);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        let ended = wait_for(self.time_limit, || child.try_wait().expect("the state of a child"));
        if ended.is_none() {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        }
        let (stdout, stderr) = (contents(&mut stdout), contents(&mut stderr));
        let Some(status) = ended else {
            // Not awaited: a process that hangs in a mount does not end before the mount does.
            panic!("{line} did not end within {:?}\n{stdout}{stderr}", self.time_limit);
        };
        let ran = Ran { command: line, code: exit_code(status), stdout, stderr };
        crate::restarts::hear(&ran.output());
        ran
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn contents(file: &mut File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().expect("a seekable file");
    file.read_to_end(&mut bytes).expect("what was written");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
