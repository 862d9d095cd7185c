//! The history that all clients of a run write together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use znodefs_tests::History;
use znodefs_tests::history::ClientId;

/// Directories below the root.
pub const DIRECTORIES: u64 = 4;

/// Names in each.
pub const NAMES: u64 = 5;

/// The history, and where it takes place.
#[derive(Clone)]
pub struct Record {
    history: Arc<Mutex<History>>,
    start: Instant,
    root: Arc<str>,
}

impl Record {
    /// Nothing has happened below `root`.
    #[allow(clippy::disallowed_methods, reason = "records in real time")]
    pub fn new(root: &str) -> Record {
        Record { history: Arc::default(), start: Instant::now(), root: root.into() }
    }

    /// Everything is done below it.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// One of the directories.
    pub fn directory(&self, number: u64) -> String {
        format!("{}/{number}", self.root)
    }

    /// The history, for as long as nobody else writes it.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    /// What happened so far.
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// How many requests there were.
    pub fn len(&self) -> usize {
        self.history.lock().len()
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The session of a client that has not been used for so long must be over.
    pub fn must_be_over(&self, client: ClientId) {
        self.history.lock().must_be_over(client, self.now());
    }
}
