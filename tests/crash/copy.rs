//! Copying a tree of real files, one `cp` per file, with a record of which copies have returned.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use znodefs::ErrorCode;
use znodefs_tests::process::die_with_this_thread;
use znodefs_tests::{WireClient, tree, wait_until};

/// How long a mount may take to find its replica again and to finish a copy.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// What is copied and how far it has come.
pub struct Copy {
    /// The mounted directory that is copied to.
    target: PathBuf,
    /// The same as a path of the service, without a slash at its end.
    znode: String,
    files: Vec<(PathBuf, PathBuf, Vec<u8>)>,
    returned: Mutex<Vec<usize>>,
    given_up: AtomicBool,
}

/// Ends a copy when the test that watches it fails, so that the failure is not held up.
pub struct GiveUp<'a>(pub &'a Copy);

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
    }
}

impl Copy {
    /// Prepares to copy the files below `source` to the mounted directory `target`, which is the
    /// znode `znode`.
    pub fn new(source: &Path, target: PathBuf, znode: &str) -> Copy {
        let named = tree::files(source).into_iter();
        let files = named.map(|(name, bytes)| (source.join(&name), name, bytes)).collect();
        Copy {
            target,
            znode: znode.to_string(),
            files,
            returned: Mutex::default(),
            given_up: AtomicBool::new(false),
        }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Copies all files in order; a copy that fails is left out of the record.
    pub fn run(&self) {
        for (index, (source, name, _)) in self.files.iter().enumerate() {
            if self.given_up.load(Ordering::Relaxed) {
                return;
            }
            let target = self.target.join(name);
            let directory = target.parent().expect("a file is in a directory");
            if succeeds(Command::new("mkdir").arg("--parents").arg(directory))
                && succeeds(Command::new("cp").arg("--dereference").arg(source).arg(&target))
            {
                self.returned.lock().expect("no panic in between").push(index);
            }
        }
    }

    /// The files whose copy has returned so far.
    pub fn returned(&self) -> Vec<usize> {
        self.returned.lock().expect("no panic in between").clone()
    }

    /// Waits until one more copy has returned, or all are through.
    ///
    /// # Panics
    /// If neither happens: the mount does not come back to its replica.
    pub fn wait_for_progress(&self, is_over: impl Fn() -> bool) {
        let before = self.returned().len();
        wait_until("a copy goes on after the restart", PROGRESS_LIMIT, || {
            is_over() || self.returned().len() > before
        });
    }

    /// Ends after the file that is being copied.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Asks the replica itself, not the mount, for each of these files.
    ///
    /// # Panics
    /// If one is not there byte for byte.
    pub fn assert_are_there(&self, returned: &[usize], client: &mut WireClient) {
        for index in returned {
            let (_, name, bytes) = &self.files[*index];
            let (path, found) = self.get(name, client);
            match found {
                Ok(data) => assert!(data == bytes, "{path}: {} bytes differ", data.len()),
                Err(error) => panic!("{path}: its copy had returned, but: {error}"),
            }
        }
    }

    /// A file whose copy has not returned is absent, new or whole: a commit is one value.
    pub fn assert_none_is_half(&self, client: &mut WireClient) {
        for (_, name, bytes) in &self.files {
            let (path, found) = self.get(name, client);
            let whole = found.map_or(true, |data| data.is_empty() || data == bytes);
            assert!(whole, "{path}: neither empty nor whole");
        }
    }

    fn get(&self, name: &Path, client: &mut WireClient) -> (String, Result<Bytes, ErrorCode>) {
        let path = format!("{}/{}", self.znode, name.display());
        let found = client.get(&path).map(|(data, _)| data.unwrap_or_default());
        (path, found)
    }
}

/// Whether a command ends with exit code 0; what it says is of no interest while servers die.
fn succeeds(command: &mut Command) -> bool {
    die_with_this_thread(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("a command of the system").success()
}
