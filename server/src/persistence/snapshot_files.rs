//! The snapshots of one replica as a set: listing, opening, removing, and the rule that a snapshot
//! begun before a change of history never appears after it.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{info, warn};
use znodefs::Zxid;

use super::disk::Disk;
use super::file_header::EnsembleId;
use super::log_reader::LogReader;
use super::snapshot::{
    Origin, SnapshotError, SnapshotInfo, SnapshotReader, SnapshotWriter, parse_snapshot_name,
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
    /// The log that the snapshots belong to.
    log: Option<LogReader>,
}

impl SnapshotFiles {
    /// The snapshots of `ensemble_id` in `disk`.
    pub fn new(disk: Arc<dyn Disk>, ensemble_id: EnsembleId) -> SnapshotFiles {
        let shared = Arc::new(Mutex::new(Shared { generation: 0, era: 0, log: None }));
        SnapshotFiles { disk, ensemble_id, shared }
    }

    /// Says which log the snapshots belong to.
    pub(super) fn attach_log(&self, log: LogReader) {
        self.shared.lock().log = Some(log);
    }

    /// The whole-looking snapshots (header and trailer are right) of all generations, newest first. A damaged one is
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
        // With no log at all, this snapshot takes the place of the installed one that began the
        // generation.
        let begins = |log: &LogReader| log.has_no_segments() && log.last_zxid() == zxid;
        let begins = self.shared.lock().log.as_ref().is_some_and(begins);
        SnapshotWriter::create(self.clone(), zxid, Origin::Own { begins })
    }

    /// Begins a snapshot that replaces this replica's history (it comes from the leader, or from a
    /// backup): once it is finished, the log and all other snapshots are void, atomically, and the
    /// log is to be emptied with `reset`.
    pub fn create_installed(&self, zxid: Zxid) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::create(self.clone(), zxid, Origin::Elsewhere)
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
    /// being written are overtaken. Done before the log is cut at `zxid`. Returns `false`, having
    /// done nothing, when the state at `zxid` could not be rebuilt from what would be left.
    pub(super) fn cut_at(&self, zxid: Zxid, log: &LogReader) -> Result<bool, SnapshotError> {
        // Neither a purge nor a finishing snapshot comes between.
        let mut shared = self.shared.lock();
        let base = log.base();
        let mut rebuildable = base == Zxid::ZERO && shared.generation == 0;
        let found = self.list()?;
        for info in &found {
            let fits = info.newest <= zxid && info.zxid >= base;
            rebuildable = rebuildable || (fits && self.verify(info).is_ok());
        }
        if zxid < base || !rebuildable {
            return Ok(false);
        }
        shared.era += 1;
        for info in found.iter().filter(|info| info.newest > zxid) {
            info!("{} is newer than {zxid}: removed", self.disk.path_of(&info.name).display());
            self.disk.remove(&info.name)?;
            self.disk.sync_dir()?;
        }
        Ok(true)
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

    /// Puts a snapshot that proved damaged aside, as `snapshot.….damaged`.
    pub(super) fn set_aside(&self, info: &SnapshotInfo) -> Result<(), SnapshotError> {
        self.disk.rename(&info.name, &format!("{}.damaged", info.name))?;
        self.disk.sync_dir()?;
        Ok(())
    }

    /// The generation of the history that new snapshots belong to.
    pub fn generation(&self) -> u64 {
        self.shared.lock().generation
    }

    /// The generation, and a number that rises with every change of history.
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
