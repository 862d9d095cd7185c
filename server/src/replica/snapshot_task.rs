//! Takes a snapshot while the replica goes on: the tree is read a small block at a time, so that nobody
//! waits for longer than one block takes.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;
use znodefs::Zxid;

use crate::persistence::{LogReader, SnapshotError, SnapshotFiles, purge};
use crate::service::Database;
use crate::tree::SnapshotCursor;

/// Bytes of the tree copied under one hold of its lock.
const BLOCK_LENGTH: usize = 64 << 10;

/// Writes a snapshot of the database as it is, or becomes meanwhile, and returns the zxid that it is
/// named by; `None` when it was given up because of `stops`.
pub fn write_snapshot(
    database: &Database,
    snapshots: &SnapshotFiles,
    stops: &AtomicBool,
) -> Result<Option<Zxid>, SnapshotError> {
    let replaced = || database.replacements.load(Ordering::Acquire);
    let (mut cursor, begun) = {
        let tree = database.tree.read();
        (SnapshotCursor::new(&tree), replaced())
    };
    let mut writer = snapshots.create(cursor.zxid())?;
    let mut block = Vec::with_capacity(BLOCK_LENGTH + (8 << 10));
    loop {
        block.clear();
        let (more, newest) = {
            let tree = database.tree.read();
            if replaced() != begun {
                // Nothing of the old one counts anymore.
                return Ok(None);
            }
            (tree.snapshot_block(&mut cursor, BLOCK_LENGTH, &mut block), tree.last_applied())
        };
        writer.write_block(&block)?;
        if !more {
            return writer.finish(newest).map(|info| Some(info.zxid));
        }
        if stops.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
}

/// Removes old snapshots and the log that only they need; what cannot be removed stays for the next
/// time.
pub fn purge_old(snapshots: &SnapshotFiles, log: &LogReader, snapshots_kept: usize) {
    if let Err(error) = purge(snapshots, log, snapshots_kept) {
        warn!("old snapshots and logs could not be removed: {error}");
    }
}
