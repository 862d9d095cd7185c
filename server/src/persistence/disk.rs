//! What persistence asks of a disk: one directory of files, named without slashes. The real one is
//! [`FileDisk`](super::file_disk::FileDisk), the forgetful one for tests and the simulator is
//! [`MemoryDisk`](super::memory_disk::MemoryDisk). No file format lives here.
//!
//! The promises are those of a POSIX file system, and no more: bytes and length of a file are
//! durable after [`DiskFile::sync_data`], names (created, renamed, removed) after
//! [`Disk::sync_dir`]. Until then anything may survive a crash or not, in any order, torn at
//! sector boundaries.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What was asked of the disk when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Listing the directory.
    List,
    /// Looking at a file's length or existence.
    Stat,
    /// Opening an existing file.
    Open,
    /// Creating a file that must not exist.
    Create,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Reserving space.
    Preallocate,
    /// Changing a file's length.
    SetLength,
    /// Making a file's bytes and length durable.
    Sync,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making the directory's names durable.
    SyncDirectory,
    /// Asking for free space.
    FreeSpace,
    /// Taking the lock on the directory.
    Lock,
}

impl Operation {
    /// Whether the operation changes something, so that a crash before or after it differs.
    pub fn changes_disk(self) -> bool {
        use Operation::*;
        matches!(
            self,
            Create | Write | Preallocate | SetLength | Sync | Rename | Remove | SyncDirectory
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::List => "list",
            Operation::Stat => "stat",
            Operation::Open => "open",
            Operation::Create => "create",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Preallocate => "preallocate",
            Operation::SetLength => "set the length of",
            Operation::Sync => "fdatasync",
            Operation::Rename => "rename",
            Operation::Remove => "remove",
            Operation::SyncDirectory => "sync directory",
            Operation::FreeSpace => "ask free space of",
            Operation::Lock => "lock",
        })
    }
}

/// A disk operation that failed, and where.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {source}", path.display())]
pub struct DiskError {
    /// What was tried.
    pub operation: Operation,
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

impl DiskError {
    /// An error of `operation` on `path`.
    pub fn new(operation: Operation, path: impl Into<PathBuf>, source: io::Error) -> DiskError {
        DiskError { operation, path: path.into(), source }
    }

    /// Whether the disk, or this user's quota on it, is full (ENOSPC, EDQUOT).
    pub fn is_full(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
            || matches!(
                self.source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
    }

    /// Whether the disk is full and, since whatever is written first goes to a file of its own,
    /// nothing that counts has changed. What a failed sync covered is never known.
    pub fn is_full_before_change(&self) -> bool {
        use Operation::{Create, Preallocate, Rename, Write};
        self.is_full() && matches!(self.operation, Create | Preallocate | Rename | Write)
    }

    /// Whether the file is not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// One directory on a disk. File names hold no slash.
pub trait Disk: Send + Sync + 'static {
    /// Where the directory is, for messages.
    fn path(&self) -> &Path;

    /// The names of all files, in no particular order.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// Whether the file is there.
    fn exists(&self, name: &str) -> Result<bool, DiskError>;

    /// The file's length in bytes.
    fn length(&self, name: &str) -> Result<u64, DiskError>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Opens an existing file for reading only.
    fn open_read(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Creates a file for reading and writing; it is an error when it exists.
    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Gives a file another name, replacing what has that name.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Makes every creation, rename and removal so far durable.
    fn sync_dir(&self) -> Result<(), DiskError>;

    /// Bytes that can still be written.
    fn free_space(&self) -> Result<u64, DiskError>;

    /// Where the file is, for messages.
    fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// All bytes of a file; more than `length_max` of them is an error.
    fn read_whole(&self, name: &str, length_max: u64) -> Result<Vec<u8>, DiskError> {
        let file = self.open_read(name)?;
        let length = file.length()?;
        if length > length_max {
            let reason = format!("{length} bytes are more than the {length_max} it may have");
            return Err(DiskError::new(
                Operation::Read,
                self.path_of(name),
                io::Error::new(io::ErrorKind::InvalidData, reason),
            ));
        }
        let mut bytes = vec![0; length as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(filled as u64, &mut bytes[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// An open file.
pub trait DiskFile: Send {
    /// Reads into `buffer` from `offset` and returns how many bytes came; 0 is the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError>;

    /// Writes all of `bytes` at `offset`, lengthening the file where needed.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Reserves space and makes the file at least `length` bytes long; new bytes read as zero.
    fn preallocate(&mut self, length: u64) -> Result<(), DiskError>;

    /// Makes the file exactly `length` bytes long; new bytes read as zero.
    fn set_length(&mut self, length: u64) -> Result<(), DiskError>;

    /// Makes every byte and the length durable (fdatasync).
    fn sync_data(&mut self) -> Result<(), DiskError>;

    /// The length in bytes.
    fn length(&self) -> Result<u64, DiskError>;
}

/// Removes a file that may already be gone.
pub fn remove_if_there(disk: &dyn Disk, name: &str) -> Result<(), DiskError> {
    match disk.remove(name) {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
