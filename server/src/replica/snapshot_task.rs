//! Takes a snapshot while the replica goes on: the tree is read a small block at a time, so that nobody
//! waits for longer than one block takes. A thread runs the task to its end; a simulation takes its
//! steps one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;
use znodefs::Zxid;

use super::Event;
use crate::persistence::{LogReader, SnapshotError, SnapshotFiles, SnapshotWriter, purge};
use crate::service::Service;
use crate::tree::SnapshotCursor;

/// Bytes of the tree copied under one hold of its lock.
const BLOCK_LENGTH: usize = 64 << 10;

/// A snapshot of the database as it is, or becomes meanwhile. The core is told once how it ended,
/// also when the task is dropped before.
pub struct SnapshotTask {
    service: Arc<Service>,
    snapshots: SnapshotFiles,
    log: LogReader,
    stops: Arc<AtomicBool>,
    block_length: usize,
    block: Vec<u8>,
    begun: Option<Begun>,
    result: Option<Result<Zxid, String>>,
}

struct Begun {
    cursor: SnapshotCursor,
    writer: SnapshotWriter,
    /// Which tree it is of.
    replacements: u64,
}

/// What came of a step.
enum Step {
    More,
    /// Written, under this name.
    Done(Zxid),
    /// Given up: the replica stops.
    GivenUp,
    /// Given up: nothing of the old tree counts anymore.
    Replaced,
}

impl SnapshotTask {
    /// A snapshot to be taken; it is given up once `stops` is set.
    pub fn new(
        service: Arc<Service>,
        snapshots: SnapshotFiles,
        log: LogReader,
        stops: Arc<AtomicBool>,
    ) -> SnapshotTask {
        SnapshotTask {
            service,
            snapshots,
            log,
            stops,
            block_length: BLOCK_LENGTH,
            block: Vec::new(),
            begun: None,
            result: Some(Err("its thread has died".into())),
        }
    }

    /// Copies about so many bytes in a step.
    pub fn with_block_length(mut self, block_length: usize) -> SnapshotTask {
        self.block_length = block_length;
        self
    }

    /// Takes the whole snapshot.
    pub fn run(mut self) {
        while self.step() {}
    }

    /// Writes a block; `false` when there is nothing more to do.
    pub fn step(&mut self) -> bool {
        match self.try_step() {
            Ok(Step::More) => return true,
            Ok(Step::Done(zxid)) => {
                if let Some(policy) = self.service.config.purge
                    && policy.interval.is_zero()
                {
                    purge_old(&self.snapshots, &self.log, policy.snapshots_kept);
                }
                self.result = Some(Ok(zxid));
            }
            Ok(Step::GivenUp) => self.result = None,
            Ok(Step::Replaced) => {
                let reason = "the leader's snapshot has replaced what it was of";
                self.result = Some(Err(reason.into()));
            }
            Err(error) => self.result = Some(Err(error.to_string())),
        }
        false
    }

    fn try_step(&mut self) -> Result<Step, SnapshotError> {
        let database = &self.service.database;
        let replaced = || database.replacements.load(Ordering::Acquire);
        let begun = match &mut self.begun {
            Some(begun) => begun,
            none => {
                let (cursor, replacements) = {
                    let tree = database.tree.read();
                    (SnapshotCursor::new(&tree), replaced())
                };
                let writer = self.snapshots.create(cursor.zxid())?;
                none.insert(Begun { cursor, writer, replacements })
            }
        };
        self.block.clear();
        let (more, newest) = {
            let tree = database.tree.read();
            if replaced() != begun.replacements {
                return Ok(Step::Replaced);
            }
            let (cursor, length) = (&mut begun.cursor, self.block_length);
            (tree.snapshot_block(cursor, length, &mut self.block), tree.last_applied())
        };
        begun.writer.write_block(&self.block)?;
        if !more {
            let Some(Begun { writer, .. }) = self.begun.take() else { return Ok(Step::GivenUp) };
            return writer.finish(newest).map(|info| Step::Done(info.zxid));
        }
        Ok(if self.stops.load(Ordering::Relaxed) { Step::GivenUp } else { Step::More })
    }
}

impl Drop for SnapshotTask {
    fn drop(&mut self) {
        if let Some(result) = self.result.take() {
            self.service.mailbox.push(Event::SnapshotDone(result));
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
