//! The log thread: group commit, order of reports, a full disk, a failing one, the end.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::persistence::disk::Operation;
use crate::persistence::memory_disk::Fault;
use crate::persistence::storage::Storage;
use crate::persistence::{
    EpochFiles, LogEvent, LogHandle, LogReader, LogThread, LogThreadError, SnapshotFiles,
};

struct Running {
    disk: MemoryDisk,
    thread: LogThread,
    handle: LogHandle,
    reader: LogReader,
    snapshots: SnapshotFiles,
    events: Receiver<LogEvent>,
    /// Holding it keeps the thread inside its report.
    gate: Arc<Mutex<()>>,
}

fn start() -> Running {
    start_held_in(|_| true)
}

/// A thread that the gate holds in those reports only.
fn start_held_in(is_held: fn(&LogEvent) -> bool) -> Running {
    let disk = MemoryDisk::new(1);
    let storage = Storage::open(shared(&disk), shared(&disk), storage_options()).unwrap();
    let parts = storage.into_parts().unwrap();
    let (sender, events) = mpsc::channel();
    let gate = Arc::new(Mutex::new(()));
    let held = Arc::clone(&gate);
    let on_event = Box::new(move |event| {
        let is_held = is_held(&event);
        let _ = sender.send(event);
        if is_held {
            drop(held.lock());
        }
    });
    let thread = LogThread::spawn(parts.log, parts.snapshots.clone(), on_event).unwrap();
    let handle = thread.handle();
    let (reader, snapshots) = (parts.reader, parts.snapshots);
    Running { disk, thread, handle, reader, snapshots, events, gate }
}

impl Running {
    fn append(&self, counters: impl IntoIterator<Item = u32>) {
        let batch =
            counters.into_iter().map(|counter| (zxid(counter), Bytes::from(payload(counter))));
        self.handle.append(batch.collect());
    }

    fn next(&self) -> LogEvent {
        self.events.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn expect_durable(&self, counter: u32) {
        let event = self.next();
        assert!(matches!(event, LogEvent::Durable(last) if last == zxid(counter)), "{event:?}");
    }
}

#[test]
fn what_queues_up_during_a_sync_becomes_one_write_and_one_sync() {
    let running = start();
    let closed = running.gate.lock();
    running.append([1]);
    running.expect_durable(1);
    let before = running.disk.changes();
    (2..=40).for_each(|counter| running.append([counter]));
    drop(closed);
    running.expect_durable(40);
    assert_eq!(running.disk.changes() - before, 2);
    running.append([41, 42]);
    running.expect_durable(42);
    assert_eq!(running.reader.last_zxid(), zxid(42));
}

#[test]
fn a_very_long_queue_is_written_in_several_groups() {
    let running = start();
    let closed = running.gate.lock();
    running.append([1]);
    running.expect_durable(1);
    let large = Bytes::from(vec![3; 1 << 20]);
    for counter in 2..=20 {
        running.handle.append(vec![(zxid(counter), large.clone())]);
    }
    drop(closed);
    let mut reports = 0;
    loop {
        reports += 1;
        match running.next() {
            LogEvent::Durable(last) if last == zxid(20) => break,
            LogEvent::Durable(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reports, 3);
}

#[test]
fn a_full_disk_drops_what_follows_until_the_sender_knows() {
    let running = start_held_in(|event| matches!(event, LogEvent::Full { .. }));
    running.append([1, 2]);
    running.expect_durable(2);
    running.disk.set_capacity(Some(running.disk.used()));
    let large = Bytes::from(vec![3; 100_000]);
    running.handle.append(vec![(zxid(3), large)]);
    let event = running.next();
    assert!(matches!(event, LogEvent::Full { durable, .. } if durable == zxid(2)), "{event:?}");
    running.append([4, 5]);
    let done = Arc::new(Mutex::new(Vec::new()));
    let work = |name: &'static str| {
        let done = Arc::clone(&done);
        Box::new(move || {
            done.lock().push(name);
            Ok(())
        })
    };
    // An epoch must not be adopted whose history is not in the log.
    running.handle.barrier(work("behind what was dropped"));
    running.disk.set_capacity(None);
    running.append([6]);
    running.handle.truncate(zxid(5));
    running.handle.resume();
    let event = running.next();
    assert!(matches!(event, LogEvent::Resumed { last } if last == zxid(2)), "{event:?}");
    running.append([3]);
    running.expect_durable(3);
    running.append([4]);
    running.handle.barrier(work("behind what is durable"));
    running.expect_durable(4);
    running.thread.shutdown();
    running.disk.crash();
    assert_eq!(*done.lock(), ["behind what is durable"]);
    assert_eq!(running.reader.read_after(Zxid::ZERO).unwrap().count(), 4);
}

#[test]
fn an_epoch_that_finds_no_room_is_not_adopted_and_the_log_goes_on_later() {
    let running = start();
    running.append([1]);
    running.expect_durable(1);
    let epochs = EpochFiles::open(shared(&running.disk), ENSEMBLE).unwrap();
    let epochs = Arc::new(Mutex::new(epochs));
    let adopt = |epoch: u32| {
        let epochs = Arc::clone(&epochs);
        running.handle.barrier(Box::new(move || Ok(epochs.lock().set_accepted(Epoch(epoch))?)));
    };
    for (operation, name) in [
        (Operation::Create, "acceptedEpoch.tmp"),
        (Operation::Write, "acceptedEpoch.tmp"),
        (Operation::Rename, "acceptedEpoch.tmp"),
    ] {
        running.disk.inject(Fault::new(operation, libc::ENOSPC).on(name));
        adopt(7);
        running.append([2]);
        let event = running.next();
        assert!(matches!(event, LogEvent::Full { durable, .. } if durable == zxid(1)), "{event:?}");
        running.handle.resume();
        assert!(matches!(running.next(), LogEvent::Resumed { last } if last == zxid(1)));
        assert_eq!(epochs.lock().accepted(), Epoch(0), "{operation}");
    }
    adopt(7);
    running.append([2]);
    running.expect_durable(2);
    assert_eq!(epochs.lock().accepted(), Epoch(7));
    // What a failed sync covered is unknown, also for want of room.
    running.disk.inject(Fault::new(Operation::Sync, libc::ENOSPC).on("acceptedEpoch.tmp"));
    adopt(8);
    assert!(matches!(running.next(), LogEvent::Failed(LogThreadError::Epoch(_))));
}

#[test]
fn a_failed_sync_ends_the_thread_with_a_report() {
    let running = start();
    running.append([1]);
    running.expect_durable(1);
    running.disk.inject(Fault::new(Operation::Sync, libc::EIO));
    running.append([2]);
    let event = running.next();
    let LogEvent::Failed(error) = event else { panic!("{event:?}") };
    assert!(error.to_string().contains("cannot fdatasync"), "{error}");
    running.append([3]);
    running.thread.shutdown();
    assert!(running.events.try_recv().is_err(), "nothing is reported after the failure");
}

#[test]
fn the_log_is_rolled_cut_and_emptied_in_the_order_asked() {
    let running = start();
    running.append(1..=3);
    running.handle.roll();
    running.append(4..=6);
    running.handle.truncate(zxid(4));
    running.append([5]);
    running.expect_durable(3);
    assert!(matches!(running.next(), LogEvent::Rolled { last } if last == zxid(3)));
    running.expect_durable(6);
    assert!(matches!(running.next(), LogEvent::Truncated { last } if last == zxid(4)));
    running.expect_durable(5);
    let writer = running.snapshots.create_installed(zxid(90)).unwrap();
    let info = writer.finish(zxid(90)).unwrap();
    running.handle.reset(info.generation, info.zxid);
    running.append([91]);
    running.handle.truncate(zxid(80));
    assert!(matches!(running.next(), LogEvent::Reset { base } if base == zxid(90)));
    running.expect_durable(91);
    let event = running.next();
    assert!(matches!(event, LogEvent::NotTruncated(LogError::NotReachingBack { .. })), "{event:?}");
    running.append([92]);
    running.expect_durable(92);
}

#[test]
fn the_end_in_order_writes_what_is_queued_and_marks_the_log() {
    let running = start();
    let closed = running.gate.lock();
    running.append([1]);
    running.expect_durable(1);
    running.append([2, 3]);
    let gate = closed;
    let thread = running.thread;
    let ending = std::thread::spawn(move || thread.shutdown());
    drop(gate);
    ending.join().unwrap();
    let events: Vec<LogEvent> = running.events.try_iter().collect();
    assert!(matches!(events[..], [LogEvent::Durable(last), LogEvent::Closed] if last == zxid(3)));
    // Marked: damage to the very last record is noticed.
    let end = running.disk.length("log.100000001").unwrap();
    running.disk.flip("log.100000001", end - 24 - 16, 1);
    assert!(matches!(open_log(&running.disk), Err(LogError::Damaged { .. })));
}
