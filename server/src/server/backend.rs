//! Where the core's effects on the disk go: the log thread, the snapshot thread, the epoch files.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::{debug, warn};
use znodefs::Epoch;

use crate::ensemble::MemberEvent;
use crate::persistence::{
    EnsembleId, EpochFiles, LogEvent, LogHandle, LogReader, LogThread, LogWorker, SnapshotFiles,
    StorageParts,
};
use crate::replica::core_thread::Backend;
use crate::replica::snapshot_task::{SnapshotTask, purge_old};
use crate::replica::{Event, LogBatch};
use crate::service::Service;

/// The disk's side of a running replica.
pub(crate) struct StorageBackend {
    service: Arc<Service>,
    workers: Arc<dyn Workers>,
    log: Option<LogThread>,
    handle: LogHandle,
    snapshots: SnapshotFiles,
    reader: LogReader,
    epochs: Arc<Mutex<EpochFiles>>,
    stops: Arc<AtomicBool>,
    snapshot: Option<std::thread::JoinHandle<()>>,
}

/// Tells the core what the log reports, and that it reports nothing more should its thread die.
pub(crate) struct LogReporter {
    service: Arc<Service>,
    for_member: bool,
    closed: AtomicBool,
}

impl LogReporter {
    /// Reports to a replica alone.
    pub(crate) fn new(service: Arc<Service>) -> LogReporter {
        LogReporter { service, for_member: false, closed: AtomicBool::new(false) }
    }

    /// Reports to a member of an ensemble.
    pub(crate) fn for_member(service: Arc<Service>) -> LogReporter {
        LogReporter { service, for_member: true, closed: AtomicBool::new(false) }
    }

    pub(crate) fn report(&self, event: LogEvent) {
        let event = match event {
            event if self.for_member => {
                if matches!(event, LogEvent::Failed(_) | LogEvent::Closed) {
                    self.closed.store(true, Ordering::Relaxed);
                }
                Event::Member(MemberEvent::Log(event))
            }
            LogEvent::Durable(zxid) => Event::TxnsDurable(zxid),
            LogEvent::Full { durable, error } => {
                Event::LogFull { durable, reason: error.to_string() }
            }
            LogEvent::Failed(error) => {
                self.closed.store(true, Ordering::Relaxed);
                let reason = format!("the transaction log failed, so the replica stops: {error}");
                Event::LogFailed { reason }
            }
            LogEvent::Closed => return self.closed.store(true, Ordering::Relaxed),
            LogEvent::Rolled { .. } | LogEvent::Resumed { .. } => return,
            LogEvent::Truncated { .. } | LogEvent::NotTruncated(_) | LogEvent::Reset { .. } => {
                Event::LogFailed { reason: "the log of a replica alone was cut".into() }
            }
        };
        self.service.mailbox.push(event);
    }
}

impl Drop for LogReporter {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Relaxed) {
            let reason = "the log's thread has died, so the replica stops".into();
            self.service.mailbox.push(Event::LogFailed { reason });
        }
    }
}

/// Who does what the core does not wait for.
pub trait Workers: Send + Sync {
    /// Lets a log work; `None` when somebody else ends it.
    fn start_log(&self, worker: LogWorker) -> io::Result<Option<LogThread>>;
    /// Takes a snapshot.
    fn start_snapshot(&self, task: SnapshotTask)
    -> io::Result<Option<std::thread::JoinHandle<()>>>;
}

/// A thread for each.
pub struct Threads;

impl Workers for Threads {
    fn start_log(&self, worker: LogWorker) -> io::Result<Option<LogThread>> {
        LogThread::run(worker).map(Some)
    }

    fn start_snapshot(
        &self,
        task: SnapshotTask,
    ) -> io::Result<Option<std::thread::JoinHandle<()>>> {
        let name = "znoded-snapshot".into();
        std::thread::Builder::new().name(name).spawn(move || task.run()).map(Some)
    }
}

/// Removes old files every so often, where that is configured (`autopurge.purgeInterval`), by a task of
/// `runtime`.
pub(crate) fn purge_periodically(
    runtime: &Handle,
    service: &Service,
    snapshots: &SnapshotFiles,
    reader: &LogReader,
) -> Option<JoinHandle<()>> {
    let policy = service.config.purge.filter(|policy| !policy.interval.is_zero())?;
    let (snapshots, reader) = (snapshots.clone(), reader.clone());
    Some(runtime.spawn(async move {
        let mut interval = tokio::time::interval(policy.interval);
        loop {
            interval.tick().await;
            let (snapshots, reader) = (snapshots.clone(), reader.clone());
            let purge = move || purge_old(&snapshots, &reader, policy.snapshots_kept);
            // A panic there has been told on standard error; the next round tries again.
            let _ = tokio::task::spawn_blocking(purge).await;
        }
    }))
}

impl StorageBackend {
    /// Starts the log, which reports to `reporter`.
    pub(crate) fn start(
        service: Arc<Service>,
        workers: Arc<dyn Workers>,
        reporter: LogReporter,
        parts: StorageParts,
    ) -> io::Result<StorageBackend> {
        let StorageParts { identity: _, log, reader, snapshots, epochs } = parts;
        let report = Box::new(move |event| reporter.report(event));
        let worker = LogWorker::new(log, snapshots.clone(), report);
        let handle = worker.handle();
        let log = workers.start_log(worker)?;
        let stops = Arc::default();
        let epochs = Arc::new(Mutex::new(epochs));
        let snapshot = None;
        Ok(StorageBackend {
            service,
            workers,
            log,
            handle,
            snapshots,
            reader,
            epochs,
            stops,
            snapshot,
        })
    }
}

impl StorageBackend {
    /// The way to the log's thread.
    pub(crate) fn log(&self) -> &LogHandle {
        &self.handle
    }

    /// Reads the log.
    pub(crate) fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// The snapshots.
    pub(crate) fn snapshots(&self) -> &SnapshotFiles {
        &self.snapshots
    }

    /// The epochs.
    pub(crate) fn epochs(&self) -> Arc<Mutex<EpochFiles>> {
        Arc::clone(&self.epochs)
    }

    /// Whose data this is.
    pub(crate) fn ensemble_id(&self) -> EnsembleId {
        self.epochs.lock().ensemble_id()
    }
}

impl Backend for StorageBackend {
    fn append(&mut self, batch: LogBatch) {
        let LogBatch { bytes, ends } = batch;
        let bytes = Bytes::from(bytes);
        let mut start = 0;
        let txns = ends.into_iter().map(|(zxid, end)| {
            let payload = bytes.slice(start..end);
            start = end;
            (zxid, payload)
        });
        self.handle.append(txns.collect());
    }

    fn resume_log(&mut self) {
        self.handle.resume();
    }

    fn take_snapshot(&mut self) {
        self.handle.roll();
        let (service, stops) = (Arc::clone(&self.service), Arc::clone(&self.stops));
        let (snapshots, reader) = (self.snapshots.clone(), self.reader.clone());
        let task = SnapshotTask::new(service, snapshots, reader, stops);
        match self.workers.start_snapshot(task) {
            Ok(thread) => self.snapshot = thread,
            // The task has told the core that it came to nothing.
            Err(error) => warn!("no thread for a snapshot: {error}"),
        }
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), String> {
        let mut epochs = self.epochs.lock();
        let accepted = epochs.set_accepted(epoch);
        let current = accepted.and_then(|()| epochs.set_current(epoch));
        current.map_err(|error| format!("epoch {epoch} cannot be made durable: {error}"))
    }

    fn close(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        // It gives the disk back; what goes wrong in it has been told on standard error.
        let _ = self.snapshot.take().map(std::thread::JoinHandle::join);
        if let Some(log) = self.log.take() {
            log.shutdown();
            debug!("the log is closed");
        }
    }
}
