//! A file system of a few MiB, which a test can fill and free.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::reaper::Reaper;

/// A mounted tmpfs, unmounted at the end, also behind a test that was killed.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    _reaper: Reaper,
}

impl SmallDisk {
    /// Mounts one of `megabytes` on a directory, which is made if need be.
    pub fn mount(path: &Path, megabytes: u64) -> SmallDisk {
        std::fs::create_dir_all(path).expect("a directory of the test's own");
        let reaper = Reaper::of(path);
        let options = format!("size={megabytes}m");
        let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, path, kind, flags, Some(options.as_str())).expect("a tmpfs: tests run as root");
        SmallDisk { path: path.to_path_buf(), _reaper: reaper }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast());
        for length in [1 << 20, 4096, 1] {
            let bytes = vec![0; length];
            while file.as_mut().is_ok_and(|file| file.write_all(&bytes).is_ok()) {}
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("what was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A process that still runs keeps it until it ends.
        if let Err(error) = umount2(&self.path, MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}
