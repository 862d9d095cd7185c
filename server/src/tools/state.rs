//! The state that a plan leads to: its tree, what the rest holds, and a directory written anew with
//! it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use znodefs::{Epoch, SessionId, Zxid};

use super::error::ToolError;
use super::location::LocationDisks;
use super::log_scan;
use super::plan::Plan;
use super::survey::{Survey, load_snapshot};
use super::timestamp;
use crate::codec;
use crate::persistence::file_disk::DIRECTORY_NAME;
use crate::persistence::{
    Disk, EnsembleId, EpochFiles, FileDisk, ReplicaIdentity, SnapshotFiles, SnapshotWriter,
};
use crate::tree::{DataTree, SnapshotCursor};
use crate::txn::{Txn, TxnBody, TxnOrigin};

/// The length of a snapshot's blocks, about.
const BLOCK_LENGTH: usize = 256 << 10;

/// Paths of lost transactions that are named.
const PATHS_NAMED_MAX: usize = 20;

/// Rebuilds the state at the plan's end.
pub fn rebuild(survey: &Survey, plan: &Plan, disks: &LocationDisks) -> Result<DataTree, ToolError> {
    let (mut last, mut tree) = match &plan.base {
        None => (Zxid::ZERO, DataTree::new(0)),
        Some(base) => {
            let loaded = load_snapshot(&disks.data, &base.name, survey.ensemble_id());
            let (info, tree) =
                loaded.map_err(|error| ToolError::DataDirectory(error.to_string()))?;
            (info.zxid, tree)
        }
    };
    let mut failure = None;
    each_txn(survey, plan, disks, |zxid, payload| {
        if zxid <= last || zxid > plan.end || failure.is_some() {
            return;
        }
        match codec::decode::<Txn>(payload) {
            Ok(txn) => {
                tree.apply(&txn, &mut |_| {});
                last = zxid;
            }
            Err(error) => failure = Some(format!("transaction {zxid} cannot be read: {error}")),
        }
    })?;
    match failure {
        Some(reason) => Err(ToolError::DataDirectory(reason)),
        None if last < plan.end => Err(ToolError::DataDirectory(format!(
            "the log changed while it was read: only transactions up to {last} were found, not {}",
            plan.end
        ))),
        None => Ok(tree),
    }
}

/// Every whole transaction of the plan's history, also behind damage, in the order of the files.
fn each_txn(
    survey: &Survey,
    plan: &Plan,
    disks: &LocationDisks,
    mut visit: impl FnMut(Zxid, &[u8]),
) -> Result<(), ToolError> {
    for segment in &survey.segments {
        let is_void =
            segment.whole_header().is_some_and(|header| header.generation != plan.generation);
        if !is_void {
            let ensemble_id = survey.ensemble_id();
            log_scan::scan(&*disks.log, &segment.name, ensemble_id, |scanned| {
                visit(scanned.record.zxid, scanned.payload);
            })?;
        }
    }
    Ok(())
}

/// What lies behind a plan's end: what would be lost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The transactions that can still be read.
    pub readable: BTreeSet<Zxid>,
    /// Some of the znodes that they change, sorted.
    pub paths: BTreeSet<String>,
    /// Whether there are more such znodes.
    pub has_more_paths: bool,
}

/// Reads what would be lost.
pub fn lost(survey: &Survey, plan: &Plan, disks: &LocationDisks) -> Result<Lost, ToolError> {
    let mut lost = Lost::default();
    each_txn(survey, plan, disks, |zxid, payload| {
        if zxid <= plan.end || zxid > plan.newest_known || !lost.readable.insert(zxid) {
            return;
        }
        let Ok(txn) = codec::decode::<Txn>(payload) else { return };
        for path in super::describe::changed_paths(&txn) {
            if lost.paths.len() < PATHS_NAMED_MAX || lost.paths.contains(path) {
                lost.paths.insert(path.to_owned());
            } else {
                lost.has_more_paths = true;
            }
        }
    })?;
    Ok(lost)
}

/// Ends every session, and with it its ephemeral znodes, as transactions of `epoch`, and forgets who
/// the members were: those of the new ensemble stand in its configuration files. Returns how many
/// sessions and ephemeral znodes there were.
pub fn end_sessions(tree: &mut DataTree, epoch: Epoch) -> (usize, usize) {
    let ephemerals_count = tree.ephemerals_count();
    let mut sessions: BTreeSet<SessionId> = tree.sessions_with_ephemerals().collect();
    sessions.extend(tree.sessions().map(|session| session.session_id));
    let time_ms = timestamp::now_ms();
    let mut zxid = Zxid::new(epoch, 0);
    for &session_id in &sessions {
        // No more sessions than an epoch has numbers: they would not have fitted into memory.
        zxid = zxid.next().unwrap_or(zxid);
        let ephemerals = tree.ephemerals(session_id).collect();
        let body = TxnBody::CloseSession { ephemerals };
        let origin = TxnOrigin::default();
        tree.apply(&Txn { zxid, session_id, xid: 0, origin, time_ms, body }, &mut |_| {});
    }
    let (session_id, origin) = (SessionId(0), TxnOrigin::default());
    let zxid = zxid.max(tree.last_applied());
    let body = TxnBody::Reconfig { members: String::new(), data: Bytes::new() };
    tree.apply(&Txn { zxid, session_id, xid: 0, origin, time_ms, body }, &mut |_| {});
    (sessions.len(), ephemerals_count)
}

/// Writes a tree into a snapshot.
pub fn write_snapshot(mut writer: SnapshotWriter, tree: &DataTree) -> Result<(), ToolError> {
    let mut cursor = SnapshotCursor::new(tree);
    let mut block = Vec::with_capacity(BLOCK_LENGTH * 2);
    loop {
        block.clear();
        let has_more = tree.snapshot_block(&mut cursor, BLOCK_LENGTH, &mut block);
        writer.write_block(&block)?;
        if !has_more {
            break;
        }
    }
    writer.finish(tree.last_applied())?;
    Ok(())
}

/// Who and what a new directory is made for.
pub struct NewDirectory<'a> {
    /// The dataDir.
    pub data_dir: &'a Path,
    /// The ensemble and the replica's number.
    pub identity: ReplicaIdentity,
    /// Its acceptedEpoch and currentEpoch.
    pub epoch: Epoch,
    /// Its state.
    pub tree: &'a DataTree,
}

/// Puts a directory with this state into a dataDir, in one step that a crash does not halve. What
/// was there goes to the returned path; `None` when nothing was. A caller that replaces something
/// holds its lock.
pub fn install(new: &NewDirectory<'_>) -> Result<Option<PathBuf>, ToolError> {
    let stamp = timestamp::for_names(timestamp::now_ms());
    let building = new.data_dir.join(format!("znodefs-new-{stamp}-{}", std::process::id()));
    let installed = build(new, &building).and_then(|disk| {
        let replaced = swap(new.data_dir, &building, &stamp);
        drop(disk);
        replaced
    });
    // On success it is an empty shell.
    let _ = std::fs::remove_dir_all(&building);
    installed
}

fn build(new: &NewDirectory<'_>, building: &Path) -> Result<Arc<dyn Disk>, ToolError> {
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::create(building)?);
    let ensemble_id = new.identity.ensemble_id;
    let snapshots = SnapshotFiles::new(Arc::clone(&disk), ensemble_id);
    write_snapshot(snapshots.create_installed(new.tree.last_applied())?, new.tree)?;
    let mut epochs = EpochFiles::open(Arc::clone(&disk), ensemble_id)?;
    epochs.set_accepted(new.epoch)?;
    epochs.set_current(new.epoch)?;
    // Last: without it no replica starts from what is there.
    new.identity.write(&*disk)?;
    give_to_owner_of(new.data_dir, disk.path())?;
    Ok(disk)
}

fn swap(data_dir: &Path, building: &Path, stamp: &str) -> Result<Option<PathBuf>, ToolError> {
    let (ours, new) = (data_dir.join(DIRECTORY_NAME), building.join(DIRECTORY_NAME));
    let aside = data_dir.join(format!("{DIRECTORY_NAME}.before-{stamp}"));
    let failed = |error: io::Error| {
        ToolError::DataDirectory(format!("{} cannot be replaced: {error}", ours.display()))
    };
    let replaced = ours.exists();
    if replaced {
        exchange(&new, &ours).map_err(failed)?;
        std::fs::rename(&new, &aside).map_err(failed)?;
    } else {
        std::fs::rename(&new, &ours).map_err(failed)?;
    }
    std::fs::File::open(data_dir).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(replaced.then_some(aside))
}

/// Exchanges two directories at once.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
}

/// When an administrator made these files for a replica that runs as another user, they are to be
/// that user's: the one who owns `like`.
pub fn give_to_owner_of(like: &Path, path: &Path) -> Result<(), ToolError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let failed = |error: io::Error| {
        ToolError::DataDirectory(format!("{}: its owner cannot be set: {error}", path.display()))
    };
    let owner = std::fs::metadata(like).map_err(failed)?;
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()));
    give(path).map_err(failed)?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed)? {
            give(&entry.map_err(failed)?.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// A random id for an ensemble that is born now.
pub fn new_ensemble_id() -> Result<EnsembleId, ToolError> {
    let mut id = [0; 16];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut random| io::Read::read_exact(&mut random, &mut id));
    match read {
        Ok(()) => Ok(EnsembleId(id)),
        Err(error) => Err(ToolError::Failed(format!("no randomness for a new id: {error}"))),
    }
}
