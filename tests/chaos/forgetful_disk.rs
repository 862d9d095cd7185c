//! A real directory on a machine whose power fails whenever the process is killed: what was not
//! synchronized stays in the memory of the process and is gone with it. A `kill -9` alone shows nothing of
//! that, since the kernel keeps what was written.
//!
//! Names (created, renamed, removed) and lengths are durable at once, which a disk may do; bytes are
//! so only behind `sync_data`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use znodefs_server::persistence::{Disk, DiskError, DiskFile, FileDisk};
use znodefs_tests::Random;
use znodefs_tests::deadline::pause;

/// Writes to one file that were not synchronized, in their order.
type Unsynced = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// A directory that forgets.
pub struct ForgetfulDisk {
    disk: FileDisk,
    unsynced: Mutex<HashMap<String, Unsynced>>,
    /// How long a sync takes at most: the longer, the more there is to forget.
    sync_max: Duration,
}

impl ForgetfulDisk {
    /// Puts forgetfulness in front of a directory.
    pub fn new(disk: FileDisk, sync_max: Duration) -> ForgetfulDisk {
        ForgetfulDisk { disk, unsynced: Mutex::default(), sync_max }
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let unsynced = self.unsynced.lock().entry(name.to_string()).or_default().clone();
        let (random, sync_max) = (Random::from_system(), self.sync_max);
        Box::new(ForgetfulFile { file, unsynced, random, sync_max })
    }
}

impl Disk for ForgetfulDisk {
    fn path(&self) -> &Path {
        self.disk.path()
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.disk.exists(name)
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        self.disk.length(name)
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn open_read(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(self.file(name, self.disk.open_read(name)?))
    }

    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.disk.create_new(name)?;
        self.unsynced.lock().remove(name);
        Ok(self.file(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut unsynced = self.unsynced.lock();
        self.disk.rename(from, to)?;
        match unsynced.remove(from) {
            Some(writes) => unsynced.insert(to.to_string(), writes),
            None => unsynced.remove(to),
        };
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)?;
        self.unsynced.lock().remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_space(&self) -> Result<u64, DiskError> {
        self.disk.free_space()
    }
}

struct ForgetfulFile {
    file: Box<dyn DiskFile>,
    unsynced: Unsynced,
    random: Random,
    sync_max: Duration,
}

impl DiskFile for ForgetfulFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let unsynced = self.unsynced.lock();
        let count = self.file.read_at(offset, buffer)?;
        // Whoever writes makes room first, so nothing lies behind the end.
        let end = offset + count as u64;
        for (at, bytes) in unsynced.iter() {
            let (first, last) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if first < last {
                let (from, length) = ((first - at) as usize, (last - first) as usize);
                let to = (first - offset) as usize;
                buffer[to..to + length].copy_from_slice(&bytes[from..from + length]);
            }
        }
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut unsynced = self.unsynced.lock();
        self.file.preallocate(offset + bytes.len() as u64)?;
        unsynced.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn preallocate(&mut self, length: u64) -> Result<(), DiskError> {
        self.file.preallocate(length)
    }

    fn set_length(&mut self, length: u64) -> Result<(), DiskError> {
        let mut unsynced = self.unsynced.lock();
        self.file.set_length(length)?;
        unsynced.retain_mut(|(at, bytes)| {
            bytes.truncate(length.saturating_sub(*at) as usize);
            !bytes.is_empty()
        });
        Ok(())
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        let longest = self.sync_max.as_micros() as u64;
        pause(Duration::from_micros(self.random.between(0, longest + 1)));
        let mut unsynced = self.unsynced.lock();
        for (offset, bytes) in unsynced.iter() {
            self.file.write_at(*offset, bytes)?;
        }
        unsynced.clear();
        Ok(())
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.file.length()
    }
}
