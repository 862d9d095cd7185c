//! The thread that makes transactions durable: everything that is queued becomes one write and one
//! `fdatasync` (group commit), then one report. It owns the log; what a transaction means is
//! unknown here.

use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tracing::{error, warn};
use znodefs::Zxid;

use super::epoch_file::EpochError;
use super::log_error::LogError;
use super::snapshot::SnapshotError;
use super::snapshot_files::SnapshotFiles;
use super::txn_log::TxnLog;

/// A batch of this many bytes is written even though more is queued, so that the first in the queue
/// need not wait for all of it.
const GROUP_LENGTH_MAX: usize = 8 << 20;

/// What replacing an epoch needs at most, bytes.
const EPOCH_FILE_LENGTH: u64 = 4096;

/// A slower sync than this is worth a line (ZooKeeper's `fsync.warningthresholdms`).
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// What the log thread reports, in the order of what was asked.
#[derive(Debug)]
pub enum LogEvent {
    /// Every transaction up to this one is durable.
    Durable(Zxid),
    /// The disk is full: no transaction after `durable` is in the log, and every append queued
    /// before [`LogHandle::resume`] is dropped unreported. The next append must follow `durable`.
    Full {
        /// The newest durable transaction.
        durable: Zxid,
        /// What the disk said.
        error: LogError,
    },
    /// The log was cut; `last` is the newest transaction left. Memory must be rebuilt from snapshot
    /// and log.
    Truncated {
        /// The newest transaction left.
        last: Zxid,
    },
    /// The log could not be cut, because it does not reach back so far or no snapshot does; nothing
    /// has changed.
    NotTruncated(LogError),
    /// The next transaction begins a new segment; `last` is the newest one before.
    Rolled {
        /// The newest durable transaction.
        last: Zxid,
    },
    /// [`LogHandle::resume`] was heard: the log takes appends again, the next behind `last`. Epochs
    /// are what their files say: nothing is on its way.
    Resumed {
        /// The newest durable transaction.
        last: Zxid,
    },
    /// The log was emptied for the history that begins with an installed snapshot at `base`.
    Reset {
        /// The snapshot's zxid.
        base: Zxid,
    },
    /// The log cannot go on; the thread has ended, and what was asked since is lost. The process
    /// must end as well.
    Failed(LogThreadError),
    /// The thread has ended in order.
    Closed,
}

/// Why the log thread gave up.
#[derive(Debug, thiserror::Error)]
pub enum LogThreadError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots, when history changes.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The epochs.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// A mistake in the program.
    #[error("the log thread panicked")]
    Panicked,
}

/// Counters for monitoring; all since the start.
#[derive(Debug, Default)]
pub struct LogStatistics {
    /// Groups written, each with one `fdatasync`.
    pub syncs: AtomicU64,
    /// Transactions written.
    pub txns: AtomicU64,
    /// Nanoseconds spent in write and `fdatasync`.
    pub sync_nanos_total: AtomicU64,
    /// The longest write and `fdatasync` in nanoseconds.
    pub sync_nanos_max: AtomicU64,
}

/// Work that must not begin before everything queued in front of it is durable.
pub type BarrierWork = Box<dyn FnOnce() -> Result<(), LogThreadError> + Send>;

enum Command {
    Barrier(BarrierWork),
    Append(Vec<(Zxid, Bytes)>),
    Roll,
    Truncate(Zxid),
    Reset { generation: u64, base: Zxid },
    Resume,
    Shutdown,
}

#[derive(Default)]
struct Queue {
    commands: Mutex<Vec<Command>>,
    arrived: Condvar,
}

/// Gives work to the log thread; clones feed the same one. No call blocks.
#[derive(Clone)]
pub struct LogHandle {
    queue: Arc<Queue>,
    statistics: Arc<LogStatistics>,
}

impl LogHandle {
    /// Queues transactions, in order. Answered by [`LogEvent::Durable`].
    pub fn append(&self, batch: Vec<(Zxid, Bytes)>) {
        self.send(Command::Append(batch));
    }

    /// Lets a new segment begin behind what is queued. Answered by [`LogEvent::Rolled`].
    pub fn roll(&self) {
        self.send(Command::Roll);
    }

    /// Removes every transaction after `zxid`, and the snapshots that may hold one. Answered by
    /// [`LogEvent::Truncated`] or [`LogEvent::NotTruncated`].
    pub fn truncate(&self, zxid: Zxid) {
        self.send(Command::Truncate(zxid));
    }

    /// Empties the log for a history that begins with the installed snapshot just finished, and
    /// removes older ones. Answered by [`LogEvent::Reset`].
    pub fn reset(&self, generation: u64, base: Zxid) {
        self.send(Command::Reset { generation, base });
    }

    /// Does `work` on the log's thread once everything queued before it is durable; nothing queued
    /// after it is written before it is done. Its failure is the end of the log. Like an append it
    /// is dropped after [`LogEvent::Full`].
    pub fn barrier(&self, work: BarrierWork) {
        self.send(Command::Barrier(work));
    }

    /// Says that [`LogEvent::Full`] was heard and what follows was made with it in mind. Answered by
    /// [`LogEvent::Resumed`].
    pub fn resume(&self) {
        self.send(Command::Resume);
    }

    /// Counters for monitoring.
    pub fn statistics(&self) -> &LogStatistics {
        &self.statistics
    }

    fn send(&self, command: Command) {
        let mut commands = self.queue.commands.lock();
        let was_empty = commands.is_empty();
        commands.push(command);
        drop(commands);
        // With work already there, the thread is awake or woken.
        if was_empty {
            self.queue.arrived.notify_one();
        }
    }
}

/// The running thread. Dropping it ends the thread in order and waits for it.
pub struct LogThread {
    handle: LogHandle,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts the thread. `on_event` is called on it and must not block.
    pub fn spawn(
        log: TxnLog,
        snapshots: SnapshotFiles,
        on_event: Box<dyn Fn(LogEvent) + Send>,
    ) -> io::Result<LogThread> {
        LogThread::run(LogWorker::new(log, snapshots, on_event))
    }

    /// Starts a thread for a worker.
    pub fn run(worker: LogWorker) -> io::Result<LogThread> {
        let handle = worker.handle();
        let thread =
            thread::Builder::new().name("znoded-log".to_owned()).spawn(move || worker.run())?;
        Ok(LogThread { handle, thread: Some(thread) })
    }

    /// A handle for giving it work.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// Writes what is queued, marks the clean end, and waits for the thread to end.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.send(Command::Shutdown);
            if thread.join().is_err() {
                error!("the log thread panicked");
            }
        }
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.end();
    }
}

/// The work itself, for whoever gives it a thread, or, in a simulation, its moments.
pub struct LogWorker {
    queue: Arc<Queue>,
    log: TxnLog,
    snapshots: SnapshotFiles,
    on_event: Box<dyn Fn(LogEvent) + Send>,
    statistics: Arc<LogStatistics>,
    /// The disk was full, and the sender does not know yet.
    halted: bool,
    pending_txns: u64,
}

impl LogWorker {
    /// A worker with nothing to do yet. `on_event` must not block.
    pub fn new(
        log: TxnLog,
        snapshots: SnapshotFiles,
        on_event: Box<dyn Fn(LogEvent) + Send>,
    ) -> LogWorker {
        LogWorker {
            queue: Arc::default(),
            log,
            snapshots,
            on_event,
            statistics: Arc::default(),
            halted: false,
            pending_txns: 0,
        }
    }

    /// A handle for giving it work.
    pub fn handle(&self) -> LogHandle {
        LogHandle { queue: self.queue.clone(), statistics: self.statistics.clone() }
    }

    /// Whether anything is queued.
    pub fn has_work(&self) -> bool {
        !self.queue.commands.lock().is_empty()
    }

    /// The newest durable transaction.
    pub fn durable_zxid(&self) -> Zxid {
        self.log.durable_zxid()
    }

    /// Does what is queued without waiting for more; `false` when the log has ended.
    pub fn work_off(&mut self) -> bool {
        let mut commands = mem::take(&mut *self.queue.commands.lock());
        match self.carry_out(&mut commands) {
            Ok(ended) => !ended,
            Err(error) => {
                self.fail(error);
                false
            }
        }
    }

    fn run(mut self) {
        // Whatever ends this thread must be heard of: a replica whose log is dead looks alive.
        let worked = panic::catch_unwind(AssertUnwindSafe(|| self.work()));
        match worked.unwrap_or(Err(LogThreadError::Panicked)) {
            Ok(()) => self.close(),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&self, error: LogThreadError) {
        error!("the transaction log has failed: {error}");
        (self.on_event)(LogEvent::Failed(error));
    }

    /// Works until the end in order.
    fn work(&mut self) -> Result<(), LogThreadError> {
        let queue = Arc::clone(&self.queue);
        let mut commands = Vec::new();
        loop {
            let mut queued = queue.commands.lock();
            while queued.is_empty() {
                queue.arrived.wait(&mut queued);
            }
            mem::swap(&mut *queued, &mut commands);
            drop(queued);
            if self.carry_out(&mut commands)? {
                return Ok(());
            }
        }
    }

    /// `true`: it was the end.
    fn carry_out(&mut self, commands: &mut Vec<Command>) -> Result<bool, LogThreadError> {
        for command in commands.drain(..) {
            match command {
                Command::Append(batch) => {
                    self.append(batch)?;
                    continue;
                }
                Command::Barrier(work) => {
                    self.flush()?;
                    // What it was to stand behind is not in the log.
                    if !self.halted {
                        self.do_work(work)?;
                    }
                }
                Command::Resume => {
                    self.halted = false;
                    (self.on_event)(LogEvent::Resumed { last: self.log.last_zxid() });
                }
                Command::Roll => {
                    self.flush()?;
                    self.log.roll()?;
                    (self.on_event)(LogEvent::Rolled { last: self.log.last_zxid() });
                }
                Command::Truncate(zxid) => {
                    self.flush()?;
                    // What it was to keep may have been dropped.
                    if !self.halted || zxid <= self.log.last_zxid() {
                        self.truncate(zxid)?;
                    }
                }
                Command::Reset { generation, base } => {
                    self.flush()?;
                    self.log.reset(generation, base)?;
                    self.snapshots.begin_generation(generation)?;
                    self.halted = false;
                    (self.on_event)(LogEvent::Reset { base });
                }
                Command::Shutdown => {
                    self.flush()?;
                    return Ok(true);
                }
            }
        }
        self.flush()?;
        Ok(false)
    }

    fn do_work(&mut self, work: BarrierWork) -> Result<(), LogThreadError> {
        match work() {
            Err(LogThreadError::Epoch(error)) if error.is_full() => {
                let path = self.log.reader().disk().path().to_owned();
                self.halt(LogError::DiskFull { path, needed: EPOCH_FILE_LENGTH });
                Ok(())
            }
            result => result,
        }
    }

    /// Drops what follows until the sender knows.
    fn halt(&mut self, error: LogError) {
        self.log.discard_pending();
        self.halted = true;
        let durable = self.log.durable_zxid();
        (self.on_event)(LogEvent::Full { durable, error });
    }

    fn append(&mut self, batch: Vec<(Zxid, Bytes)>) -> Result<(), LogThreadError> {
        for (zxid, payload) in batch {
            if self.halted {
                return Ok(());
            }
            self.log.append(zxid, &payload)?;
            self.pending_txns += 1;
            if self.log.pending_length() >= GROUP_LENGTH_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    #[allow(clippy::disallowed_methods, reason = "measures the disk; decides nothing")]
    fn flush(&mut self) -> Result<(), LogThreadError> {
        let txns = mem::take(&mut self.pending_txns);
        if txns == 0 {
            return Ok(());
        }
        let start = Instant::now();
        match self.log.write_and_sync() {
            Ok(durable) => {
                self.count(txns, start.elapsed());
                (self.on_event)(LogEvent::Durable(durable));
            }
            Err(error @ LogError::DiskFull { .. }) => {
                self.halt(error);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn count(&self, txns: u64, time: Duration) {
        if time > SLOW_SYNC {
            warn!("writing the transaction log took {} ms: the disk is slow", time.as_millis());
        }
        let nanos = time.as_nanos() as u64;
        let statistics = &self.statistics;
        statistics.syncs.fetch_add(1, Ordering::Relaxed);
        statistics.txns.fetch_add(txns, Ordering::Relaxed);
        statistics.sync_nanos_total.fetch_add(nanos, Ordering::Relaxed);
        statistics.sync_nanos_max.fetch_max(nanos, Ordering::Relaxed);
    }

    fn truncate(&mut self, zxid: Zxid) -> Result<(), LogThreadError> {
        match super::storage::truncate(&mut self.log, &self.snapshots, zxid) {
            Ok(last) => {
                self.halted = false;
                (self.on_event)(LogEvent::Truncated { last });
            }
            Err(LogThreadError::Log(error @ LogError::NotReachingBack { .. })) => {
                (self.on_event)(LogEvent::NotTruncated(error));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Marks the clean end.
    pub fn close(self) {
        if let Err(error) = self.log.close() {
            // Everything acknowledged is durable all the same.
            warn!("the transaction log's clean end could not be marked: {error}");
        }
        (self.on_event)(LogEvent::Closed);
    }
}
