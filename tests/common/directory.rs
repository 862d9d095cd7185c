//! A fresh directory for one test, removed at its end unless something is still mounted below it:
//! what a mount shows is never deleted by a clean-up.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::mount_table;

/// A directory of the test's own.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes an empty directory whose name no other test has.
    #[allow(clippy::new_without_default, reason = "it touches the disk")]
    pub fn new() -> Directory {
        let made = tempfile::Builder::new().prefix("znodefs-test-").tempdir();
        let made = made.expect("a temporary directory");
        Directory { path: made.keep().canonicalize().expect("the directory just made") }
    }

    /// Makes a directory inside this one.
    pub fn subdirectory(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).expect("a directory inside a fresh one");
        path
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Directory {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if mount_table::is_anything_mounted_below(&self.path) {
            eprintln!("{} is left: something is mounted below it", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{} is left: {error}", self.path.display());
        }
    }
}
