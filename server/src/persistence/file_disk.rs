//! The real disk: one directory `znodefs-1` inside a dataDir, locked so that two daemons cannot
//! share it. System calls only; what the files mean is not known here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::statvfs::fstatvfs;

use super::disk::{Disk, DiskError, DiskFile, Operation};

/// The name of our directory inside a dataDir; the number is the layout's version.
pub const DIRECTORY_NAME: &str = "znodefs-1";

/// The name of Apache ZooKeeper's directory inside a dataDir.
const APACHE_DIRECTORY_NAME: &str = "version-2";

/// The file whose lock a daemon holds; its pid is in it.
pub const LOCK_NAME: &str = "lock";

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    /// The dataDir is not there.
    #[error("{} does not exist: create it, or correct dataDir (is its file system mounted?)", .0.display())]
    Missing(PathBuf),
    /// The dataDir is something else.
    #[error("{} is not a directory: correct dataDir", .0.display())]
    NotDirectory(PathBuf),
    /// Another process uses the directory.
    #[error("{} is in use by process {holder}: stop it, or give this replica a dataDir of its own", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The pid that the holder wrote into the lock file, or `unknown`.
        holder: String,
    },
    /// Something else went wrong.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// One directory of a file system, locked, or only looked at.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    /// `None` for who only looks: every change is refused.
    held: Option<Held>,
}

/// What a daemon keeps of its directory.
#[derive(Debug)]
struct Held {
    directory: File,
    /// Held for as long as the disk is; the kernel lets go of it when the process ends.
    _lock: Flock<File>,
}

impl FileDisk {
    /// Opens `znodefs-1` in `data_dir`, which must exist, creating the former on first use, and
    /// locks it against every other process.
    pub fn open(data_dir: &Path) -> Result<FileDisk, FileDiskError> {
        match fs::metadata(data_dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(FileDiskError::NotDirectory(data_dir.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FileDiskError::Missing(data_dir.to_owned()));
            }
            Err(error) => {
                return Err(DiskError::new(Operation::Stat, data_dir, error).into());
            }
        }
        let path = data_dir.join(DIRECTORY_NAME);
        match fs::create_dir(&path) {
            // Our directory's own name must survive a crash as well.
            Ok(()) => File::open(data_dir)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| DiskError::new(Operation::SyncDirectory, data_dir, error))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(DiskError::new(Operation::Create, path, error).into()),
        }
        let directory =
            File::open(&path).map_err(|error| DiskError::new(Operation::Open, &path, error))?;
        let lock = lock(&path)?;
        Ok(FileDisk { path, held: Some(Held { directory, _lock: lock }) })
    }

    /// As [`FileDisk::open`], but makes `data_dir` itself where it is missing.
    pub fn create(data_dir: &Path) -> Result<FileDisk, FileDiskError> {
        fs::create_dir_all(data_dir)
            .map_err(|error| DiskError::new(Operation::Create, data_dir, error))?;
        FileDisk::open(data_dir)
    }

    /// The directory at `path` as those see it who only look: not locked, and every change is refused.
    pub fn look_at(path: impl Into<PathBuf>) -> FileDisk {
        FileDisk { path: path.into(), held: None }
    }

    /// What changes need; an error for who only looks.
    fn held(&self, operation: Operation, name: &str) -> Result<&Held, DiskError> {
        self.held.as_ref().ok_or_else(|| {
            let refused = io::ErrorKind::ReadOnlyFilesystem.into();
            DiskError::new(operation, self.path.join(name), refused)
        })
    }

    fn open_with(
        &self,
        name: &str,
        operation: Operation,
        options: &OpenOptions,
    ) -> Result<Box<dyn DiskFile>, DiskError> {
        let path = self.path.join(name);
        match options.open(&path) {
            Ok(file) => Ok(Box::new(OpenFile { file, path })),
            Err(error) => Err(DiskError::new(operation, path, error)),
        }
    }
}

/// Where Apache ZooKeeper's own data lies in a dataDir, if it does. It is never touched.
pub fn apache_directory(data_dir: &Path) -> Option<PathBuf> {
    let path = data_dir.join(APACHE_DIRECTORY_NAME);
    path.is_dir().then_some(path)
}

fn lock(directory: &Path) -> Result<Flock<File>, FileDiskError> {
    let path = directory.join(LOCK_NAME);
    let fail = |error| DiskError::new(Operation::Lock, &path, error);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(fail)?;
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            // The pid is a help for the reader; without it the refusal stands all the same.
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "unknown" } else { holder }.to_owned();
            return Err(FileDiskError::Locked { path: directory.to_owned(), holder });
        }
        Err((_, errno)) => return Err(fail(errno.into()).into()),
    };
    lock.set_len(0).map_err(fail)?;
    lock.rewind().map_err(fail)?;
    // A full disk must not keep a replica from starting (it still serves reads).
    let _ = writeln!(lock, "{}", std::process::id());
    Ok(lock)
}

impl Disk for FileDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let fail = |error| DiskError::new(Operation::List, &self.path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            // A name that is no UTF-8 is none of ours.
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
        self.held(Operation::Open, name)?;
        self.open_with(name, Operation::Open, OpenOptions::new().read(true).write(true))
    }

    fn open_read(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.open_with(name, Operation::Open, OpenOptions::new().read(true))
    }

    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.held(Operation::Create, name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        self.open_with(name, Operation::Create, &options)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.held(Operation::Rename, from)?;
        let path = self.path.join(from);
        fs::rename(&path, self.path.join(to))
            .map_err(|error| DiskError::new(Operation::Rename, path, error))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.held(Operation::Remove, name)?;
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| DiskError::new(Operation::Remove, path, error))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.held(Operation::SyncDirectory, "")?
            .directory
            .sync_all()
            .map_err(|error| DiskError::new(Operation::SyncDirectory, &self.path, error))
    }

    fn free_space(&self) -> Result<u64, DiskError> {
        // Who only looks needs no room.
        let Some(held) = &self.held else { return Ok(0) };
        match fstatvfs(&held.directory) {
            Ok(status) => Ok(status.blocks_available() * status.fragment_size()),
            Err(errno) => Err(DiskError::new(Operation::FreeSpace, &self.path, errno.into())),
        }
    }
}

struct OpenFile {
    file: File,
    path: PathBuf,
}

impl OpenFile {
    fn error(&self, operation: Operation) -> impl Fn(io::Error) -> DiskError + '_ {
        move |error| DiskError::new(operation, &self.path, error)
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(self.error(Operation::Read)),
            }
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(self.error(Operation::Write))
    }

    fn preallocate(&mut self, length: u64) -> Result<(), DiskError> {
        let current = self.length()?;
        if length <= current {
            return Ok(());
        }
        let count = (length - current) as libc::off_t;
        loop {
            let flags = FallocateFlags::empty();
            match fallocate(self.file.as_fd(), flags, current as libc::off_t, count) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                // Some file systems cannot reserve: then a full disk shows at the write instead.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return self.set_length(length),
                Err(errno) => return Err(self.error(Operation::Preallocate)(errno.into())),
            }
        }
    }

    fn set_length(&mut self, length: u64) -> Result<(), DiskError> {
        self.file.set_len(length).map_err(self.error(Operation::SetLength))
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(self.error(Operation::Sync))
    }

    fn length(&self) -> Result<u64, DiskError> {
        match self.file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(self.error(Operation::Stat)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_names_itself_and_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let error = FileDisk::open(directory.path()).unwrap_err().to_string();
        let path = directory.path().join(DIRECTORY_NAME);
        let expected = format!("{} is in use by process {}", path.display(), std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        drop(disk);
        FileDisk::open(directory.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_and_a_file_in_its_place_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(matches!(FileDisk::open(&missing), Err(FileDiskError::Missing(_))));
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(FileDisk::open(&file), Err(FileDiskError::NotDirectory(_))));
        FileDisk::create(&missing).unwrap();
    }

    #[test]
    fn files_keep_what_is_written_and_preallocation_reads_as_zero() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let mut file = disk.create_new("a").unwrap();
        file.preallocate(8192).unwrap();
        file.write_at(10, b"hello").unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.length("a").unwrap(), 8192);
        let mut buffer = [1; 16];
        assert_eq!(file.read_at(8, &mut buffer).unwrap(), 16);
        assert_eq!(&buffer, b"\0\0hello\0\0\0\0\0\0\0\0\0");
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert!(disk.open("a").err().unwrap().is_not_found());
        disk.remove("b").unwrap();
        assert!(disk.free_space().unwrap() > 0);
    }
}
