//! The snapshots of one replica as a set: listing, opening, removing, and the rule that a snapshot
//! begun before a change of history never appears after it.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{info, warn};
use znodefs::Zxid;

use super::disk::Disk;
use super::file_header::EnsembleId;
use super::snapshot::{
    SnapshotError, SnapshotInfo, SnapshotReader, SnapshotWriter, parse_snapshot_name,
};

/// The snapshots in one directory; clones are the same set.
#[derive(Clone)]
pub struct SnapshotFiles {
    disk: Arc<dyn Disk>,
    ensemble_id: EnsembleId,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    generation: u64,
    /// Rises with every change of history.
    era: u64,
}

impl SnapshotFiles {
    /// The snapshots of `ensemble_id` in `disk`.
    pub fn new(disk: Arc<dyn Disk>, ensemble_id: EnsembleId) -> SnapshotFiles {
        let shared = Arc::new(Mutex::new(Shared { generation: 0, era: 0 }));
        SnapshotFiles { disk, ensemble_id, shared }
    }

    /// The whole-looking snapshots (header and trailer are right), newest first. A damaged one is
    /// left out with a warning.
    ///
    /// Errors: one of another version or ensemble, and a disk that cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let mut found = Vec::new();
        for name in self.disk.list()? {
            if parse_snapshot_name(&name).is_none() {
                continue;
            }
            match self.open_named(&name) {
                Ok(reader) => found.push(reader.info().clone()),
                Err(error @ SnapshotError::Damaged { .. }) => warn!("snapshot not used: {error}"),
                // Purged since it was listed.
                Err(SnapshotError::Disk(error)) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by_key(|info| std::cmp::Reverse((info.generation, info.zxid)));
        Ok(found)
    }

    /// Begins a snapshot of this replica's own state, of which every transaction up to `zxid` is
    /// durable and applied.
    pub fn create(&self, zxid: Zxid) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(self.clone(), zxid, false)
    }

    /// Begins a snapshot that replaces this replica's history (it comes from the leader, or from a
    /// backup): once it is finished, the log and all other snapshots are void, atomically, and the
    /// log is to be emptied with `reset`.
    pub fn create_installed(&self, zxid: Zxid) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(self.clone(), zxid, true)
    }

    /// Opens a listed snapshot.
    pub fn open(&self, info: &SnapshotInfo) -> Result<SnapshotReader, SnapshotError> {
        self.open_named(&info.name)
    }

    /// Reads a snapshot to its end, so that every checksum is tried.
    pub fn verify(&self, info: &SnapshotInfo) -> Result<(), SnapshotError> {
        let mut reader = self.open(info)?;
        while reader.next_block()?.is_some() {}
        Ok(())
    }

    /// Removes all snapshots that may hold transactions later than `zxid`, newest first; snapshots
    /// being written are overtaken. Done before the log is cut at `zxid`.
    pub fn remove_newer_than(&self, zxid: Zxid) -> Result<(), SnapshotError> {
        // A finishing snapshot waits here, and then finds another era.
        let mut shared = self.shared.lock();
        shared.era += 1;
        for info in self.list()? {
            if info.newest > zxid || info.zxid > zxid {
                info!("{} is newer than {zxid}: removed", self.disk.path_of(&info.name).display());
                self.disk.remove(&info.name)?;
                self.disk.sync_dir()?;
            }
        }
        Ok(())
    }

    /// Takes the generation of a snapshot just installed, or found at the start, and removes
    /// those of older ones.
    pub fn begin_generation(&self, generation: u64) -> Result<(), SnapshotError> {
        let mut shared = self.shared.lock();
        if generation != shared.generation {
            shared.generation = generation;
            shared.era += 1;
        }
        for info in self.list()?.iter().rev().filter(|info| info.generation < generation) {
            info!(
                "{} belongs to a history that was replaced: removed",
                self.disk.path_of(&info.name).display()
            );
            self.disk.remove(&info.name)?;
            self.disk.sync_dir()?;
        }
        Ok(())
    }

    /// The generation of the history that new snapshots belong to.
    pub fn generation(&self) -> u64 {
        self.shared.lock().generation
    }

    pub(super) fn generation_and_era(&self) -> (u64, u64) {
        let shared = self.shared.lock();
        (shared.generation, shared.era)
    }

    pub(super) fn ensemble_id(&self) -> EnsembleId {
        self.ensemble_id
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Renames a finished snapshot, unless the history has changed since `era`. One of another
    /// generation is itself a change of history.
    pub(super) fn publish(
        &self,
        temporary: &str,
        info: &SnapshotInfo,
        era: u64,
    ) -> Result<(), SnapshotError> {
        let mut shared = self.shared.lock();
        if shared.era != era {
            return Err(SnapshotError::Overtaken { zxid: info.zxid });
        }
        self.disk.rename(temporary, &info.name)?;
        self.disk.sync_dir()?;
        if info.generation != shared.generation {
            shared.generation = info.generation;
            shared.era += 1;
        }
        Ok(())
    }

    /// Runs `act` unless the history has changed since `era`, and keeps it from changing meanwhile;
    /// `None`: it has.
    pub(super) fn while_unchanged<T>(&self, era: u64, act: impl FnOnce() -> T) -> Option<T> {
        let shared = self.shared.lock();
        (shared.era == era).then(act)
    }

    fn open_named(&self, name: &str) -> Result<SnapshotReader, SnapshotError> {
        SnapshotReader::open(&self.disk, self.ensemble_id, name)
    }
}
