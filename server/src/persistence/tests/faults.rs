//! The disk refuses: full, or broken, at any operation. Nothing acknowledged is lost, nothing refused
//! appears, and failure is never taken for success.

use super::model::{Model, Step, eventful_life};
use super::*;
use crate::persistence::disk::Operation;
use crate::persistence::memory_disk::Fault;

const OPERATIONS: [Operation; 8] = [
    Operation::Create,
    Operation::Write,
    Operation::Preallocate,
    Operation::SetLength,
    Operation::Sync,
    Operation::Rename,
    Operation::Remove,
    Operation::SyncDirectory,
];

/// Runs `steps` with a failure at the first, second, … operation of every kind.
fn fail_everywhere(steps: &[Step], errno: i32, times: u64) {
    for operation in OPERATIONS {
        for nth in 0..120 {
            let mut model = Model::new(nth);
            model.reopen();
            model.disk.inject(Fault::new(operation, errno).after(nth).times(times));
            model.run_until_stop(steps);
            model.disk.clear_faults();
            // The process ended; first only it starts again, then the machine as well.
            model.reopen();
            model.run(&[Step::Append(vec![10, 600]), Step::Sync, Step::Crash], true);
            model.run(&[Step::Append(vec![1]), Step::Sync, Step::Kill], true);
        }
    }
}

#[test]
fn zookeeper_4882_item_16_a_disk_error_anywhere_ends_the_log_and_leaves_no_hole() {
    fail_everywhere(&eventful_life(), libc::EIO, 1);
}

#[test]
fn zookeeper_3701_item_15_a_full_disk_anywhere_is_never_taken_for_success() {
    fail_everywhere(&eventful_life(), libc::ENOSPC, 1);
    fail_everywhere(&eventful_life(), libc::ENOSPC, 3);
}

#[test]
fn a_disk_of_any_size_refuses_in_order_and_works_on_with_more_room() {
    for capacity in (2_000..60_000).step_by(1_111) {
        let mut model = Model::new(capacity);
        model.reopen();
        model.disk.set_capacity(Some(capacity));
        model.run_until_stop(&eventful_life());
        model.disk.set_capacity(None);
        model.reopen();
        let before = model.len();
        model.run(&[Step::Append(vec![10, 600]), Step::Sync, Step::Crash], true);
        assert_eq!(model.len(), before + 2);
    }
}

#[test]
fn zookeeper_4882_item_16_after_a_failed_sync_nothing_is_tried_again() {
    let disk = MemoryDisk::new(3);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=3);
    disk.inject(Fault::new(Operation::Sync, libc::EIO));
    log.append(zxid(4), &payload(4)).unwrap();
    let error = log.write_and_sync().unwrap_err().to_string();
    assert_eq!(error, "cannot fdatasync /memory/log.100000001: Input/output error (os error 5)");
    assert_eq!(log.durable_zxid(), zxid(3));
    let error = log.write_and_sync().unwrap_err();
    assert!(matches!(error, LogError::Poisoned(_)), "{error}");
    assert!(matches!(log.append(zxid(5), b""), Err(LogError::Poisoned(_))));
    assert!(matches!(log.truncate_to(zxid(1)), Err(LogError::Poisoned(_))));
    assert!(matches!(log.roll(), Err(LogError::Poisoned(_))));
}

#[test]
fn what_a_killed_process_left_unsynced_is_durable_once_a_start_has_taken_it() {
    for seed in 0..50 {
        let disk = MemoryDisk::new(seed);
        let mut log = open_log(&disk).unwrap();
        append_each(&mut log, 1..=3);
        disk.inject(Fault::new(Operation::Sync, libc::EIO));
        log.append(zxid(4), &payload(4)).unwrap();
        log.write_and_sync().unwrap_err();
        drop(log);
        // The kernel still shows transaction 4, and has given up writing it.
        let log = open_log(&disk).unwrap();
        assert_eq!(log.last_zxid(), zxid(4));
        disk.crash();
        let log = open_log(&disk).unwrap();
        assert_eq!(counters(&log).unwrap(), [1, 2, 3, 4]);
    }
}
