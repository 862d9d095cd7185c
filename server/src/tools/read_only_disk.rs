//! A replica's directory as those see it who only look: no lock, no writes, and who holds it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::persistence::disk::Operation;
use crate::persistence::file_disk::LOCK_NAME;
use crate::persistence::{Disk, DiskError, DiskFile};

/// One directory of a file system, for reading. Every change is refused.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    path: PathBuf,
}

impl ReadOnlyDisk {
    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> ReadOnlyDisk {
        ReadOnlyDisk { path: path.into() }
    }

    fn refused<T>(&self, operation: Operation, name: &str) -> Result<T, DiskError> {
        let source = io::ErrorKind::ReadOnlyFilesystem.into();
        Err(DiskError::new(operation, self.path.join(name), source))
    }
}

/// The pid of the process that holds a replica's directory, as far as this user can see. Asking
/// changes nothing: a lock taken for the question could keep a replica from starting.
pub fn holder(directory: &Path) -> Option<String> {
    let lock = directory.join(LOCK_NAME);
    let inode = fs::metadata(&lock).ok()?.ino().to_string();
    let pid = fs::read_to_string(&lock).ok()?;
    let pid = pid.trim();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holds = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_flock = fields.next() == Some("FLOCK");
        let mut fields = fields.skip(2);
        let has_pid = fields.next() == Some(pid);
        // The device may be shown by another number than stat(2) has (btrfs, overlayfs).
        let has_inode =
            fields.next().and_then(|file| file.rsplit(':').next()) == Some(inode.as_str());
        is_flock && has_pid && has_inode
    };
    locks.lines().any(holds).then(|| pid.to_owned())
}

impl Disk for ReadOnlyDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let fail = |error| DiskError::new(Operation::List, &self.path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            if let Ok(name) = entry.map_err(fail)?.file_name().into_string()
                && name != LOCK_NAME
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        let path = self.path.join(name);
        path.try_exists().map_err(|error| DiskError::new(Operation::Stat, path, error))
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(DiskError::new(Operation::Stat, path, error)),
        }
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.refused(Operation::Open, name)
    }

    fn open_read(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let path = self.path.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Box::new(ReadOnlyFile { file, path })),
            Err(error) => Err(DiskError::new(Operation::Open, path, error)),
        }
    }

    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.refused(Operation::Create, name)
    }

    fn rename(&self, from: &str, _to: &str) -> Result<(), DiskError> {
        self.refused(Operation::Rename, from)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.refused(Operation::Remove, name)
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.refused(Operation::SyncDirectory, "")
    }

    fn free_space(&self) -> Result<u64, DiskError> {
        Ok(0)
    }
}

struct ReadOnlyFile {
    file: File,
    path: PathBuf,
}

impl ReadOnlyFile {
    fn refused<T>(&self, operation: Operation) -> Result<T, DiskError> {
        Err(DiskError::new(operation, &self.path, io::ErrorKind::ReadOnlyFilesystem.into()))
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(count) => return Ok(count),
                Err(error) => return Err(DiskError::new(Operation::Read, &self.path, error)),
            }
        }
    }

    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> Result<(), DiskError> {
        self.refused(Operation::Write)
    }

    fn preallocate(&mut self, _length: u64) -> Result<(), DiskError> {
        self.refused(Operation::Preallocate)
    }

    fn set_length(&mut self, _length: u64) -> Result<(), DiskError> {
        self.refused(Operation::SetLength)
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        self.refused(Operation::Sync)
    }

    fn length(&self) -> Result<u64, DiskError> {
        match self.file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(DiskError::new(Operation::Stat, &self.path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::FileDisk;
    use crate::persistence::file_disk::DIRECTORY_NAME;

    #[test]
    fn the_holder_is_seen_without_asking_for_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRECTORY_NAME);
        assert_eq!(holder(&path), None);
        let disk = FileDisk::open(directory.path()).unwrap();
        assert_eq!(holder(&path), Some(std::process::id().to_string()));
        drop(disk);
        assert_eq!(holder(&path), None);
    }
}
