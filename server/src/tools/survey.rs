//! Everything in a replica's directory, read to its last byte and judged file by file. Changes
//! nothing, and no contents make it fail: what cannot be read is part of the answer.

use std::sync::Arc;

use znodefs::{Epoch, Zxid};

use super::error::ToolError;
use super::location::LocationDisks;
use super::log_scan::{self, Segment};
use super::progress::Progress;
use crate::persistence::committed_file::COMMITTED_NAME;
use crate::persistence::file_header::{FileHeader, FileKind, HEADER_LENGTH};
use crate::persistence::log_index::parse_segment_name;
use crate::persistence::snapshot::parse_snapshot_name;
use crate::persistence::{
    Committed, Disk, DiskError, EnsembleId, EpochFiles, ReplicaIdentity, SnapshotError,
    SnapshotInfo, SnapshotReader,
};
use crate::tree::{DataTree, TreeRestorer};

/// Files that are neither log nor snapshot, and belong there.
const SMALL_FILES: [&str; 5] =
    ["identity", "acceptedEpoch", "currentEpoch", "sessionKey", COMMITTED_NAME];

/// What a directory holds.
pub struct Survey {
    /// Who the replica is; `None` without a file.
    pub identity: Result<Option<ReplicaIdentity>, String>,
    /// The epochs.
    pub epochs: Result<Epochs, String>,
    /// What was known to be committed.
    pub committed: Committed,
    /// Newest first.
    pub snapshots: Vec<Snapshot>,
    /// By the zxid in the name.
    pub segments: Vec<Segment>,
    /// Files that no replica reads, with their lengths.
    pub others: Vec<(String, u64)>,
}

/// The epochs of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// acceptedEpoch.
    pub accepted: Epoch,
    /// currentEpoch; 0 if it is distrusted.
    pub current: Epoch,
    /// currentEpoch if it is distrusted, since something of what it stood for is lost; else 0.
    pub distrusted: Epoch,
}

/// A snapshot file.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// What reading all of it showed.
    pub state: SnapshotState,
}

/// Whether a snapshot can be used.
#[derive(Clone, Debug)]
pub enum SnapshotState {
    /// Every checksum is right, and the blocks make a tree.
    Whole(SnapshotInfo, Contents),
    /// It is not what was written.
    Damaged(String),
    /// It is of another ensemble or program version.
    Foreign(String),
}

/// How much a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Number of znodes, those that the service makes itself included.
    pub znodes: u64,
    /// How many of them go with a session.
    pub ephemerals: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Bytes of all paths and values.
    pub bytes: u64,
}

impl Contents {
    /// What a tree holds.
    pub fn of(tree: &DataTree) -> Contents {
        Contents {
            znodes: tree.node_count() as u64 - 1,
            ephemerals: tree.ephemerals_count() as u64,
            sessions: tree.session_count() as u64,
            bytes: tree.approximate_data_size(),
        }
    }
}

impl Snapshot {
    /// What a whole snapshot says of itself.
    pub fn info(&self) -> Option<&SnapshotInfo> {
        match &self.state {
            SnapshotState::Whole(info, _) => Some(info),
            _ => None,
        }
    }
}

impl Survey {
    /// Reads everything.
    ///
    /// Errors: only those of a disk that cannot be read at all.
    pub fn take(disks: &LocationDisks) -> Result<Survey, ToolError> {
        let identity = ReplicaIdentity::read(&*disks.data).map_err(|error| error.to_string());
        let ensemble_id = identity.as_ref().ok().copied().flatten().map(|one| one.ensemble_id);
        let epochs = match ensemble_id {
            None => Ok(Epochs::default()),
            Some(id) => EpochFiles::open(Arc::clone(&disks.data), id)
                .map(|epochs| Epochs {
                    accepted: epochs.accepted(),
                    current: epochs.current(),
                    distrusted: epochs.distrusted(),
                })
                .map_err(|error| error.to_string()),
        };
        // Before the log: what it says is in there by now.
        let committed =
            ensemble_id.map_or(Committed::default(), |id| Committed::read(&*disks.data, id));
        let (mut log_names, mut snapshot_names, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for name in disks.data.list()? {
            if let Some(zxid) = parse_snapshot_name(&name) {
                snapshot_names.push((zxid, name));
            } else if parse_segment_name(&name).is_none() && !SMALL_FILES.contains(&name.as_str()) {
                let length = disks.data.length(&name).unwrap_or_default();
                others.push((name, length));
            }
        }
        // After the snapshots: what they hold is in the log by now.
        for name in disks.log.list()? {
            if let Some(zxid) = parse_segment_name(&name) {
                log_names.push((zxid, name));
            }
        }
        log_names.sort_unstable();
        snapshot_names.sort_unstable_by(|one, other| other.cmp(one));
        others.sort_unstable();
        let progress = Progress::new("reading", log_names.len() + snapshot_names.len());
        let mut snapshots = Vec::new();
        for (_, name) in snapshot_names {
            snapshots.extend(present(read_snapshot(&disks.data, &name, ensemble_id))?);
            progress.step();
        }
        let mut segments = Vec::new();
        for (_, name) in log_names {
            segments.extend(present(log_scan::scan(&*disks.log, &name, ensemble_id, |_| {}))?);
            progress.step();
        }
        Ok(Survey { identity, epochs, committed, snapshots, segments, others })
    }

    /// The ensemble, where the identity can be read.
    pub fn ensemble_id(&self) -> Option<EnsembleId> {
        self.identity.as_ref().ok().copied().flatten().map(|identity| identity.ensemble_id)
    }
}

/// A file that was purged since it was listed is none.
fn present<T>(read: Result<T, DiskError>) -> Result<Option<T>, DiskError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all of one snapshot. `ensemble_id` is whose it must be, if known.
pub fn read_snapshot(
    disk: &Arc<dyn Disk>,
    name: &str,
    ensemble_id: Option<EnsembleId>,
) -> Result<Snapshot, DiskError> {
    let length = disk.length(name)?;
    let state = match load_snapshot(disk, name, ensemble_id) {
        Ok((info, tree)) => SnapshotState::Whole(info, Contents::of(&tree)),
        Err(LoadError::Disk(error)) => return Err(error),
        Err(LoadError::Damaged(reason)) => SnapshotState::Damaged(reason),
        Err(LoadError::Foreign(reason)) => SnapshotState::Foreign(reason),
    };
    Ok(Snapshot { name: name.to_owned(), length, state })
}

/// Why a snapshot gives no tree.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The disk failed.
    #[error(transparent)]
    Disk(DiskError),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It is of another ensemble or version.
    #[error("{0}")]
    Foreign(String),
}

impl From<SnapshotError> for LoadError {
    fn from(error: SnapshotError) -> LoadError {
        match error {
            SnapshotError::Disk(error) => LoadError::Disk(error),
            SnapshotError::WrongFile(_) => LoadError::Foreign(error.to_string()),
            other => LoadError::Damaged(other.to_string()),
        }
    }
}

/// The tree in a snapshot.
pub fn load_snapshot(
    disk: &Arc<dyn Disk>,
    name: &str,
    ensemble_id: Option<EnsembleId>,
) -> Result<(SnapshotInfo, DataTree), LoadError> {
    let ensemble_id = match ensemble_id {
        Some(id) => id,
        None => own_ensemble_id(&**disk, name)?,
    };
    let mut reader = SnapshotReader::open(disk, ensemble_id, name)?;
    let mut restorer = TreeRestorer::new(0);
    let garbled = |error| {
        let path = disk.path_of(name);
        LoadError::Damaged(format!("{} cannot be understood: {error}", path.display()))
    };
    while let Some(block) = reader.next_block()? {
        restorer.block(block).map_err(garbled)?;
    }
    let tree = restorer.finish().map_err(garbled)?;
    Ok((reader.info().clone(), tree))
}

/// Whose a snapshot says it is; zeros when it says nothing readable.
fn own_ensemble_id(disk: &dyn Disk, name: &str) -> Result<EnsembleId, LoadError> {
    let mut head = [0; HEADER_LENGTH];
    let count = disk.open_read(name).and_then(|file| file.read_at(0, &mut head));
    let count = count.map_err(LoadError::Disk)?;
    let header = FileHeader::decode(FileKind::Snapshot, None, &head[..count]);
    Ok(header.map_or(EnsembleId([0; 16]), |header| header.ensemble_id))
}

/// The newest transaction that anything in a survey speaks of.
pub fn newest_known(segments: &[&Segment], snapshots: &[&SnapshotInfo]) -> Zxid {
    let runs = segments.iter().enumerate().flat_map(|(position, segment)| {
        segment.durable_runs(position + 1 == segments.len()).iter().map(|run| run.last)
    });
    let previous = segments.iter().filter_map(|segment| Some(segment.whole_header()?.zxid));
    let contained = snapshots.iter().map(|info| info.newest);
    runs.chain(previous).chain(contained).max().unwrap_or_default()
}
