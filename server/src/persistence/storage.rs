//! The directory of a replica as a whole: opens identity, snapshots and log so that they fit
//! together, refuses what does not, and feeds memory at a start.
//!
//! **Generations.** A snapshot that is *installed* (sent by the leader, restored from a backup)
//! replaces the whole history. It carries a generation one higher than everything before; its
//! rename into place is the one moment at which history changes: log segments and snapshots of
//! older generations are void from then on, whether or not they are removed yet. Otherwise a crash
//! between the installation and the removal of the log would bring back what was replaced.

use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};
use znodefs::{Epoch, Zxid};

use super::committed_file::Committed;
use super::disk::{Disk, DiskError};
use super::epoch_file::{EpochError, EpochFiles, ReplicaIdentity};
use super::file_disk::{FileDisk, FileDiskError, apache_directory};
use super::file_header::{EnsembleId, FileHeader, HEADER_LENGTH};
use super::log_error::LogError;
use super::log_index::parse_segment_name;
use super::log_reader::LogReader;
use super::log_thread::LogThreadError;
use super::snapshot::{SnapshotError, SnapshotReader, parse_snapshot_name};
use super::snapshot_files::SnapshotFiles;
use super::txn_log::{CutTail, LogOptions, TxnLog};
use crate::mutation::{Mutation, mutated};

/// How a replica's directory is opened.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// This replica's number (`myid`); 0 standing alone.
    pub replica_id: u64,
    /// The random id that an empty directory's ensemble gets; `None` leaves it without one until
    /// [`Storage::join`].
    pub new_ensemble: Option<EnsembleId>,
    /// The length of a log segment in bytes (`preAllocSize`).
    pub preallocate: u64,
    /// How many bytes of the log are zeroed ahead of its end.
    pub zero_ahead: u64,
    /// Whether what is acknowledged is synced (`forceSync`).
    pub force_sync: bool,
}

impl StorageOptions {
    /// The defaults.
    pub fn new(replica_id: u64, new_ensemble: Option<EnsembleId>) -> StorageOptions {
        let log = LogOptions::new(EnsembleId([0; 16]));
        StorageOptions {
            replica_id,
            new_ensemble,
            preallocate: log.preallocate,
            zero_ahead: log.zero_ahead,
            force_sync: log.force_sync,
        }
    }
}

/// Why a replica's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The directory itself: missing, not readable, in use by another process.
    #[error(transparent)]
    Directory(#[from] FileDiskError),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Identity or epochs cannot be used.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The directory is that of another replica.
    #[error(
        "{path} belongs to replica {found}, this is replica {expected}: correct dataDir or myid"
    )]
    OtherReplica {
        /// The directory.
        path: String,
        /// Whose it is.
        found: u64,
        /// Who asks.
        expected: u64,
    },
    /// The directory belongs to another ensemble.
    #[error("{path} belongs to ensemble {found}, not to {expected}: correct dataDir")]
    OtherEnsemble {
        /// The directory.
        path: String,
        /// Whose it is.
        found: EnsembleId,
        /// Whose it should be.
        expected: EnsembleId,
    },
    /// Data without identity.
    #[error(
        "{path} holds {file} but no file `identity`: restore the directory as a whole, or empty it \
         to have it brought up to date by the other replicas"
    )]
    IdentityMissing {
        /// The directory.
        path: String,
        /// What is there.
        file: String,
    },
    /// The log begins behind every usable snapshot (ZOOKEEPER-2325).
    #[error(
        "the log in {path} begins behind transaction {base}, but no usable snapshot reaches so far: restore \
         the missing snapshots, or empty the dataDir to have it brought up to date by the other \
         replicas"
    )]
    SnapshotsMissing {
        /// The log's directory.
        path: String,
        /// The last transaction before the log.
        base: Zxid,
    },
    /// Snapshots without the log that belongs to them.
    #[error(
        "{snapshot} holds transactions up to {newest}, but the log in {path} ends at {last}: log files \
         are missing (was dataLogDir changed?); put them back, or empty the dataDir to have it \
         brought up to date by the other replicas"
    )]
    LogMissing {
        /// The newest snapshot.
        snapshot: String,
        /// What it may hold.
        newest: Zxid,
        /// The log's directory.
        path: String,
        /// The log's end.
        last: Zxid,
    },
    /// The log lacks transactions that are known to have been in it.
    #[error(
        "{path} held transactions up to {committed}, which were committed, but its log ends at {last}: the disk \
         has lost a write that it had confirmed; the other replicas bring it up to date, and if there are none \
         that have them, `znoded repair` and `znoded recover` go on without"
    )]
    CommittedMissing {
        /// The directory.
        path: String,
        /// What was known to be committed.
        committed: Zxid,
        /// The log's end.
        last: Zxid,
    },
    /// The replica has no ensemble yet.
    #[error("{0} belongs to no ensemble yet")]
    NoEnsemble(String),
    /// A transaction of the log could not be taken by the replica.
    #[error("transaction {zxid} of the log could not be replayed: {reason}")]
    Replay {
        /// The transaction.
        zxid: Zxid,
        /// Why.
        reason: String,
    },
}

/// Anything that went wrong in the caller's own restoring or replaying.
pub type CallerError = Box<dyn std::error::Error + Send + Sync>;

/// A replica's open directory.
pub struct Storage {
    data: Arc<dyn Disk>,
    log_disk: Arc<dyn Disk>,
    options: StorageOptions,
    parts: Option<StorageParts>,
    cut: Option<CutTail>,
}

/// What a directory consists of, for those who use it while the replica runs.
pub struct StorageParts {
    /// Who the replica is.
    pub identity: ReplicaIdentity,
    /// The log, for the log thread.
    pub log: TxnLog,
    /// Reads the log.
    pub reader: LogReader,
    /// The snapshots.
    pub snapshots: SnapshotFiles,
    /// The epochs.
    pub epochs: EpochFiles,
}

impl Storage {
    /// Opens and locks `data_dir/znodefs-1`, and `log_dir/znodefs-1` for the log where that is
    /// another directory (`dataLogDir`).
    pub fn open_directories(
        data_dir: &Path,
        log_dir: Option<&Path>,
        options: StorageOptions,
    ) -> Result<Storage, StorageError> {
        let data: Arc<dyn Disk> = Arc::new(FileDisk::open(data_dir)?);
        let same = |log_dir: &Path| {
            log_dir == data_dir
                || matches!(
                    (log_dir.canonicalize(), data_dir.canonicalize()),
                    (Ok(log), Ok(data)) if log == data
                )
        };
        let log_disk: Arc<dyn Disk> = match log_dir {
            Some(log_dir) if !same(log_dir) => Arc::new(FileDisk::open(log_dir)?),
            _ => data.clone(),
        };
        let storage = Storage::open(data, log_disk, options)?;
        if let Some(found) = apache_directory(data_dir)
            && storage.is_empty()
        {
            warn!(
                "{} holds data of Apache ZooKeeper: it is left alone and not used; \
                 `znode import` can read it",
                found.display()
            );
        }
        Ok(storage)
    }

    /// Opens a directory, and one for its log, which may be the same.
    pub fn open(
        data: Arc<dyn Disk>,
        log_disk: Arc<dyn Disk>,
        options: StorageOptions,
    ) -> Result<Storage, StorageError> {
        remove_temporary_files(&*data)?;
        remove_what_was_left(&*data)?;
        let identity = find_identity(&*data, &*log_disk, &options)?;
        let mut storage = Storage { data, log_disk, options, parts: None, cut: None };
        if let Some(identity) = identity {
            storage.open_parts(identity)?;
        }
        Ok(storage)
    }

    /// Makes an empty directory without an ensemble one of `ensemble_id`.
    ///
    /// Errors: [`StorageError::OtherEnsemble`] when it belongs to another.
    pub fn join(&mut self, ensemble_id: EnsembleId) -> Result<(), StorageError> {
        if let Some(parts) = &self.parts {
            let found = parts.identity.ensemble_id;
            if found == ensemble_id {
                return Ok(());
            }
            let path = self.data.path().display().to_string();
            return Err(StorageError::OtherEnsemble { path, found, expected: ensemble_id });
        }
        let identity = ReplicaIdentity { ensemble_id, replica_id: self.options.replica_id };
        identity.write(&*self.data)?;
        self.open_parts(identity)
    }

    /// Who this replica is; `None` before it belongs to an ensemble.
    pub fn identity(&self) -> Option<ReplicaIdentity> {
        self.parts.as_ref().map(|parts| parts.identity)
    }

    /// acceptedEpoch and currentEpoch; `None` before the directory belongs to an ensemble.
    pub fn epochs(&self) -> Option<(Epoch, Epoch)> {
        self.parts.as_ref().map(|parts| (parts.epochs.accepted(), parts.epochs.current()))
    }

    /// An error unless epochs and log fit together, as they do at every member of an ensemble.
    pub fn check_epochs(&self) -> Result<(), StorageError> {
        let Some(parts) = &self.parts else { return Ok(()) };
        Ok(parts.epochs.check(parts.log.last_zxid())?)
    }

    /// What is known to be committed of the history that is here.
    pub fn committed(&self) -> Committed {
        let Some(parts) = &self.parts else { return Committed::default() };
        let found = Committed::read(&*self.data, parts.identity.ensemble_id);
        let is_of_this = found.generation == parts.snapshots.generation();
        if is_of_this { found } else { Committed::default() }
    }

    /// An error if the log ends before what this replica knew to be committed: then the disk has lost
    /// a write that it had confirmed.
    pub fn check_committed(&self) -> Result<(), StorageError> {
        let (committed, last) = (self.committed(), self.last_zxid());
        if !self.options.force_sync || !committed.is_missing_behind(last) {
            return Ok(());
        }
        let path = self.data.path().display().to_string();
        Err(StorageError::CommittedMissing { path, committed: committed.zxid, last })
    }

    /// Takes the vote of a member that has lost what was committed, until a leader has brought it up
    /// to date; durable when it returns. Whether it is without a vote for that reason, since now or
    /// since an earlier start.
    pub fn distrust_if_incomplete(&mut self) -> Result<bool, StorageError> {
        let checked = self.check_committed();
        let Some(parts) = &mut self.parts else { return Ok(false) };
        if let Err(lost) = checked {
            error!("{lost}; until it is brought up to date this replica has no vote");
            parts.epochs.distrust()?;
        } else if parts.epochs.distrusted() > Epoch(0) {
            warn!(
                "the disk had lost what was committed: this replica has no vote until it is brought up to date"
            );
        }
        Ok(parts.epochs.distrusted() > Epoch(0))
    }

    /// Whether no transaction was ever taken, neither in the log nor in a snapshot.
    pub fn is_empty(&self) -> bool {
        self.last_zxid() == Zxid::ZERO
    }

    /// The newest transaction in log or snapshots.
    pub fn last_zxid(&self) -> Zxid {
        self.parts.as_ref().map_or(Zxid::ZERO, |parts| parts.log.last_zxid())
    }

    /// A torn tail that was cut off at this start.
    pub fn cut_tail(&self) -> Option<&CutTail> {
        self.cut.as_ref()
    }

    /// Feeds the newest usable snapshot to `load`, which reads blocks until there are none, and
    /// builds a state. When the snapshot proves damaged, or `load` cannot make sense of it, the
    /// next older one is tried with a warning. Returns the snapshot's zxid and the state; `None`
    /// when the log begins at the first transaction and no snapshot is needed.
    ///
    /// Errors: [`StorageError::SnapshotsMissing`] when none is usable and the log does not begin at
    /// the first transaction.
    pub fn restore<T>(
        &self,
        load: impl FnMut(&mut SnapshotReader) -> Result<T, CallerError>,
    ) -> Result<Option<(Zxid, T)>, StorageError> {
        let Some(parts) = &self.parts else { return Ok(None) };
        restore(&parts.snapshots, &parts.reader, load)
    }

    /// Hands every transaction later than `zxid` to `apply`, in order; returns the newest.
    pub fn replay_after(
        &self,
        zxid: Zxid,
        apply: impl FnMut(Zxid, &[u8]) -> Result<(), CallerError>,
    ) -> Result<Zxid, StorageError> {
        let Some(parts) = &self.parts else { return Ok(zxid) };
        replay_after(&parts.reader, zxid, apply)
    }

    /// As [`replay_after`](Self::replay_after), but nothing later than `through`.
    pub fn replay_between(
        &self,
        after: Zxid,
        through: Zxid,
        mut apply: impl FnMut(Zxid, &[u8]) -> Result<(), CallerError>,
    ) -> Result<Zxid, StorageError> {
        let Some(parts) = &self.parts else { return Ok(after) };
        let mut cursor = parts.reader.read_after(after)?;
        let mut last = after;
        while let Some((zxid, payload)) = cursor.next_record()?.filter(|(zxid, _)| *zxid <= through)
        {
            apply(zxid, payload)
                .map_err(|error| StorageError::Replay { zxid, reason: error.to_string() })?;
            last = zxid;
        }
        Ok(last)
    }

    /// The newest transaction that the snapshot named by `zxid` may show; `zxid` itself when there
    /// is no such snapshot.
    pub fn newest_shown(&self, zxid: Zxid) -> Result<Zxid, StorageError> {
        let Some(parts) = &self.parts else { return Ok(zxid) };
        let found = parts.snapshots.list()?.into_iter().find(|info| info.zxid == zxid);
        Ok(found.map_or(zxid, |info| info.newest))
    }

    /// The parts, for the running replica.
    ///
    /// Errors: [`StorageError::NoEnsemble`] before the directory belongs to one.
    pub fn into_parts(self) -> Result<StorageParts, StorageError> {
        let path = self.data.path().display().to_string();
        self.parts.ok_or(StorageError::NoEnsemble(path))
    }

    fn open_parts(&mut self, identity: ReplicaIdentity) -> Result<(), StorageError> {
        let ensemble_id = identity.ensemble_id;
        let snapshots = SnapshotFiles::new(self.data.clone(), ensemble_id);
        let generation = choose_generation(&snapshots)?;
        let options = LogOptions {
            ensemble_id,
            generation,
            preallocate: self.options.preallocate,
            zero_ahead: self.options.zero_ahead,
            force_sync: self.options.force_sync,
        };
        let (mut log, cut) = TxnLog::open(self.log_disk.clone(), options)?;
        snapshots.begin_generation(generation)?;
        fit_together(&snapshots, &mut log, generation, self.options.force_sync)?;
        let epochs = EpochFiles::open(self.data.clone(), ensemble_id)?;
        self.cut = cut;
        let reader = log.reader();
        snapshots.attach_log(reader.clone());
        self.parts = Some(StorageParts { identity, log, reader, snapshots, epochs });
        Ok(())
    }
}

/// As [`Storage::restore`], for a replica that rebuilds its memory while it runs.
pub fn restore<T>(
    snapshots: &SnapshotFiles,
    log: &LogReader,
    mut load: impl FnMut(&mut SnapshotReader) -> Result<T, CallerError>,
) -> Result<Option<(Zxid, T)>, StorageError> {
    let base = log.base();
    for info in snapshots.list()? {
        if info.zxid < base {
            break;
        }
        let loaded = snapshots.open(&info).map_err(CallerError::from).and_then(|mut reader| {
            let state = load(&mut reader)?;
            // What the caller did not ask for must be right as well.
            while reader.next_block()?.is_some() {}
            Ok(state)
        });
        match loaded {
            Ok(state) => {
                info!("restored {}", info.name);
                if mutated(Mutation::ReplayFromSnapshotEnd) {
                    return Ok(Some((info.newest, state)));
                }
                return Ok(Some((info.zxid, state)));
            }
            Err(error) => warn!("{} is not usable, trying the one before: {error}", info.name),
        }
    }
    if base == Zxid::ZERO && snapshots.generation() == 0 {
        return Ok(None);
    }
    let path = log.disk().path().display().to_string();
    Err(StorageError::SnapshotsMissing { path, base })
}

/// As [`Storage::replay_after`], for a replica that rebuilds its memory while it runs.
pub fn replay_after(
    log: &LogReader,
    zxid: Zxid,
    mut apply: impl FnMut(Zxid, &[u8]) -> Result<(), CallerError>,
) -> Result<Zxid, StorageError> {
    let mut cursor = log.read_after(zxid)?;
    let mut last = zxid;
    while let Some((zxid, payload)) = cursor.next_record()? {
        apply(zxid, payload)
            .map_err(|error| StorageError::Replay { zxid, reason: error.to_string() })?;
        last = zxid;
    }
    Ok(last)
}

/// Removes every transaction after `zxid` from log and snapshots, in the order that a crash at any
/// moment survives, and returns the newest one left.
///
/// Errors: [`LogError::NotReachingBack`] when the state at `zxid` could not be rebuilt; then nothing
/// has changed. Any other is fatal.
pub fn truncate(
    log: &mut TxnLog,
    snapshots: &SnapshotFiles,
    zxid: Zxid,
) -> Result<Zxid, LogThreadError> {
    if zxid >= log.last_zxid() {
        return Ok(log.last_zxid());
    }
    // First the snapshots: with the log still whole, an older one leads to the same state.
    if !mutated(Mutation::TruncateKeepsSnapshots) && !snapshots.cut_at(zxid, &log.reader())? {
        return Err(LogError::NotReachingBack { base: log.base(), asked: zxid }.into());
    }
    Ok(log.truncate_to(zxid)?)
}

fn remove_temporary_files(disk: &dyn Disk) -> Result<(), DiskError> {
    for name in disk.list()? {
        if name.ends_with(".tmp") {
            info!("{} was not finished: removed", disk.path_of(&name).display());
            disk.remove(&name)?;
        }
    }
    // The process before may have ended between a rename and its sync.
    disk.sync_dir()
}

/// Removes the small files of an ensemble that was never formed, and was left for another one: promise,
/// key and configuration. There was neither log nor snapshot of it.
fn remove_what_was_left(disk: &dyn Disk) -> Result<(), StorageError> {
    let Some((_, Some(left))) = ReplicaIdentity::read_with_left(disk)? else { return Ok(()) };
    for name in disk.list()? {
        if parse_segment_name(&name).or(parse_snapshot_name(&name)).is_some() {
            continue;
        }
        let mut head = [0; HEADER_LENGTH];
        let count = disk.open_read(&name)?.read_at(0, &mut head)?;
        if FileHeader::owner(&head[..count]) == Some(left) {
            info!(
                "{} is of an ensemble that was never formed: removed",
                disk.path_of(&name).display()
            );
            disk.remove(&name)?;
        }
    }
    Ok(disk.sync_dir()?)
}

fn find_identity(
    data: &dyn Disk,
    log_disk: &dyn Disk,
    options: &StorageOptions,
) -> Result<Option<ReplicaIdentity>, StorageError> {
    if let Some(identity) = ReplicaIdentity::read(data)? {
        if identity.replica_id != options.replica_id {
            return Err(StorageError::OtherReplica {
                path: data.path().display().to_string(),
                found: identity.replica_id,
                expected: options.replica_id,
            });
        }
        return Ok(Some(identity));
    }
    for disk in [data, log_disk] {
        let is_data =
            |name: &String| parse_segment_name(name).or(parse_snapshot_name(name)).is_some();
        if let Some(file) = disk.list()?.into_iter().find(is_data) {
            let path = disk.path().display().to_string();
            return Err(StorageError::IdentityMissing { path, file });
        }
    }
    let Some(ensemble_id) = options.new_ensemble else { return Ok(None) };
    let identity = ReplicaIdentity { ensemble_id, replica_id: options.replica_id };
    identity.write(data)?;
    Ok(Some(identity))
}

/// The newest history that has a whole snapshot to begin with.
fn choose_generation(snapshots: &SnapshotFiles) -> Result<u64, StorageError> {
    let found = snapshots.list()?;
    let newest = found.first().map_or(0, |info| info.generation);
    if found.iter().all(|info| info.generation == newest) {
        return Ok(newest);
    }
    // Older ones are about to be removed for good, so the newer must prove itself first.
    for info in &found {
        match snapshots.verify(info) {
            Ok(()) => return Ok(info.generation),
            Err(error @ SnapshotError::Damaged { .. }) => {
                warn!("snapshot set aside: {error}");
                snapshots.set_aside(info)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

/// Refuses snapshots and logs of which something is missing in between.
fn fit_together(
    snapshots: &SnapshotFiles,
    log: &mut TxnLog,
    generation: u64,
    force_sync: bool,
) -> Result<(), StorageError> {
    let found = snapshots.list()?;
    let base = log.base();
    if let Some(newest) = found.first() {
        let begins_here = log.is_empty() && (newest.installed || newest.newest == Zxid::ZERO);
        if begins_here {
            log.begin_after(newest.zxid);
            return Ok(());
        }
        if found.iter().any(|info| info.newest > log.last_zxid()) {
            if force_sync {
                return Err(StorageError::LogMissing {
                    snapshot: newest.name.clone(),
                    newest: newest.newest,
                    path: log.reader().disk().path().display().to_string(),
                    last: log.last_zxid(),
                });
            }
            // Without forceSync a crash may well lose log that a snapshot already has.
            warn!("the log ends at {}, before {}: begun anew", log.last_zxid(), newest.name);
            log.reset(generation, newest.zxid)?;
            return Ok(());
        }
    }
    let from_the_start = generation == 0 && base == Zxid::ZERO;
    if from_the_start || found.iter().any(|info| info.zxid >= base) {
        return Ok(());
    }
    let path = log.reader().disk().path().display().to_string();
    Err(StorageError::SnapshotsMissing { path, base })
}
