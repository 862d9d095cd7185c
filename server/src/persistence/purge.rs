//! Which snapshots and log segments may go (`autopurge.*`). Only whole snapshots count
//! (ZOOKEEPER-3231), and the log from the oldest kept one on always stays.

use tracing::{info, warn};

use super::disk::DiskError;
use super::log_reader::LogReader;
use super::snapshot::{SnapshotError, SnapshotInfo, parse_snapshot_name};
use super::snapshot_files::SnapshotFiles;

/// What a purge removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// How many snapshot files.
    pub snapshots: usize,
    /// How many log segments.
    pub segments: usize,
}

/// Keeps the `keep` newest snapshots that prove whole when read (at least one) and the log behind the
/// oldest of them, and removes what is older. With fewer whole ones nothing is removed. Reads
/// every byte of the kept snapshots: not for a thread that others wait for.
///
/// Errors are those of the disk; whatever was removed until then, the rest still starts.
pub fn purge(
    snapshots: &SnapshotFiles,
    log: &LogReader,
    keep: usize,
) -> Result<Purged, SnapshotError> {
    let (_, era) = snapshots.generation_and_era();
    let Some(oldest_kept) = oldest_to_keep(snapshots, keep.max(1))? else {
        return Ok(Purged::default());
    };
    let removed = snapshots.while_unchanged(era, || remove_older(snapshots, log, &oldest_kept));
    let purged = removed.unwrap_or(Ok(Purged::default()))?;
    if purged != Purged::default() {
        info!(
            "purged {} snapshots and {} log segments older than {}",
            purged.snapshots, purged.segments, oldest_kept.name
        );
    }
    Ok(purged)
}

fn oldest_to_keep(
    snapshots: &SnapshotFiles,
    keep: usize,
) -> Result<Option<SnapshotInfo>, SnapshotError> {
    let mut whole = 0;
    for info in snapshots.list()? {
        match snapshots.verify(&info) {
            Ok(()) => whole += 1,
            Err(error @ SnapshotError::Damaged { .. }) => {
                warn!("snapshot does not count when old ones are purged: {error}");
            }
            Err(error) => return Err(error),
        }
        if whole == keep {
            return Ok(Some(info));
        }
    }
    Ok(None)
}

fn remove_older(
    snapshots: &SnapshotFiles,
    log: &LogReader,
    oldest_kept: &SnapshotInfo,
) -> Result<Purged, SnapshotError> {
    let disk = snapshots.disk();
    let mut names: Vec<_> = disk
        .list()?
        .into_iter()
        .filter_map(|name| Some((parse_snapshot_name(&name)?, name)))
        .filter(|(zxid, _)| *zxid < oldest_kept.zxid)
        .collect();
    names.sort_unstable();
    for (_, name) in &names {
        disk.remove(name)?;
    }
    if !names.is_empty() {
        // Before any segment goes: a snapshot without the log behind it must not come back.
        disk.sync_dir()?;
    }
    let segments = remove_segments(log, oldest_kept)?;
    Ok(Purged { snapshots: names.len(), segments })
}

fn remove_segments(log: &LogReader, oldest_kept: &SnapshotInfo) -> Result<usize, DiskError> {
    let mut removed = 0;
    loop {
        let doomed = log.index().with(|view| {
            let unneeded = view.segments.len() > 1 && view.last_of(0) <= oldest_kept.zxid;
            unneeded.then(|| view.segments.remove(0))
        });
        let Some(segment) = doomed else { return Ok(removed) };
        log.disk().remove(&segment.name)?;
        // One at a time: a crash must leave a chain without a gap.
        log.disk().sync_dir()?;
        removed += 1;
    }
}
