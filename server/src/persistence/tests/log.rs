//! The log in ordinary use: order, segments, truncation, a full disk.

use znodefs::{Epoch, Zxid};

use super::*;
use crate::persistence::log_format::PAYLOAD_LENGTH_MAX;

#[test]
fn what_was_synced_is_read_back_after_a_crash() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    assert_eq!((log.last_zxid(), log.first_zxid().unwrap()), (Zxid::ZERO, None));
    append_each(&mut log, 1..=3);
    log.append(zxid(4), &payload(4)).unwrap();
    log.append(zxid(5), &payload(5)).unwrap();
    assert_eq!(log.write_and_sync().unwrap(), zxid(5));
    assert_eq!(log.write_and_sync().unwrap(), zxid(5));
    disk.crash();
    let log = open_log(&disk).unwrap();
    assert_eq!(log.last_zxid(), zxid(5));
    assert_eq!(log.first_zxid().unwrap(), Some(zxid(1)));
    assert_eq!(counters(&log).unwrap(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_reader_never_sees_what_is_not_durable() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=2);
    let reader = log.reader();
    log.append(zxid(3), &payload(3)).unwrap();
    assert_eq!(reader.last_zxid(), zxid(2));
    assert_eq!(reader.read_after(zxid(1)).unwrap().count(), 1);
    log.write_and_sync().unwrap();
    assert_eq!(reader.read_after(zxid(1)).unwrap().count(), 2);
    assert_eq!(reader.read_after(zxid(3)).unwrap().count(), 0);
}

#[test]
fn a_gap_or_a_step_back_is_refused_and_changes_nothing() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=2);
    for wrong in [zxid(2), zxid(1), zxid(4), Zxid::new(Epoch(0), 9)] {
        let error = log.append(wrong, b"").unwrap_err();
        assert!(matches!(error, LogError::OutOfOrder { .. }), "{error}");
    }
    let long = vec![0; PAYLOAD_LENGTH_MAX + 1];
    assert!(matches!(log.append(zxid(3), &long), Err(LogError::TooLong { .. })));
    append_each(&mut log, [3]);
    log.append(Zxid::new(Epoch(7), 1), &payload(1)).unwrap();
    log.write_and_sync().unwrap();
    assert_eq!(counters(&open_log(&disk).unwrap()).unwrap(), [1, 2, 3, 1]);
}

#[test]
fn segments_follow_one_another_by_size_and_by_roll() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=200);
    log.roll().unwrap();
    log.roll().unwrap();
    append_each(&mut log, 201..=202);
    let names = segment_names(&disk);
    assert!(names.len() > 3, "{names:?}");
    assert_eq!(names[0], "log.100000001");
    assert_eq!(names[names.len() - 1], format!("log.1{:08x}", 201));
    let log = open_log(&disk).unwrap();
    assert_eq!(counters(&log).unwrap(), (1..=202).collect::<Vec<_>>());
    for after in [0, 1, 57, 200, 201, 202] {
        let rest = log.reader().read_after(zxid(after)).unwrap();
        let rest: Vec<u32> = rest.map(|record| record.unwrap().0.counter()).collect();
        assert_eq!(rest, (after + 1..=202).collect::<Vec<_>>());
    }
}

#[test]
fn a_transaction_longer_than_a_segment_has_one_of_its_own() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    let large = vec![7; 300_000];
    log.append(zxid(1), b"small").unwrap();
    log.write_and_sync().unwrap();
    log.append(zxid(2), &large).unwrap();
    log.write_and_sync().unwrap();
    log.append(zxid(3), b"small").unwrap();
    log.write_and_sync().unwrap();
    let log = open_log(&disk).unwrap();
    let found: Vec<_> = log.reader().read_after(zxid(1)).unwrap().map(Result::unwrap).collect();
    assert_eq!(found, [(zxid(2), large), (zxid(3), b"small".to_vec())]);
}

#[test]
fn zookeeper_1489_item_14_appends_after_a_truncation_are_there_after_a_restart() {
    for to in 0..=60 {
        let disk = MemoryDisk::new(u64::from(to));
        let mut log = open_log(&disk).unwrap();
        append_each(&mut log, 1..=60);
        let target = if to == 0 { Zxid::ZERO } else { zxid(to) };
        assert_eq!(log.truncate_to(target).unwrap(), target);
        assert_eq!(log.last_zxid(), target);
        assert_eq!(counters(&log).unwrap(), (1..=to).collect::<Vec<_>>());
        let next = Zxid::new(Epoch(2), 1);
        log.append(next, &payload(1)).unwrap();
        log.write_and_sync().unwrap();
        disk.crash();
        let mut log = open_log(&disk).unwrap();
        let expected: Vec<u32> = (1..=to).chain([1]).collect();
        assert_eq!(counters(&log).unwrap(), expected);
        log.append(next.next().unwrap(), &payload(2)).unwrap();
        log.write_and_sync().unwrap();
        let expected: Vec<u32> = expected.into_iter().chain([2]).collect();
        assert_eq!(counters(&open_log(&disk).unwrap()).unwrap(), expected);
    }
}

#[test]
fn a_truncation_below_the_log_is_refused_and_one_above_it_changes_nothing() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    log.begin_after(zxid(10));
    append_each(&mut log, 11..=12);
    let error = log.truncate_to(zxid(9)).unwrap_err();
    assert!(matches!(error, LogError::NotReachingBack { .. }), "{error}");
    assert_eq!(log.truncate_to(Zxid::new(Epoch(3), 0)).unwrap(), zxid(12));
    assert_eq!(log.truncate_to(zxid(10)).unwrap(), zxid(10));
    // The beginning of the log is still known.
    let log = open_log(&disk).unwrap();
    assert_eq!((log.base(), log.last_zxid()), (zxid(10), zxid(10)));
}

#[test]
fn a_full_disk_keeps_the_log_whole_and_is_over_when_there_is_room() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=10);
    disk.set_capacity(Some(disk.used()));
    let mut last = 10;
    let error = loop {
        log.append(zxid(last + 1), &payload(last + 1)).unwrap();
        match log.write_and_sync() {
            Ok(_) => last += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("make room"), "{error}");
    assert_eq!(log.durable_zxid(), zxid(last));
    assert_eq!(counters(&log).unwrap(), (1..=last).collect::<Vec<_>>());
    assert!(matches!(log.write_and_sync(), Err(LogError::DiskFull { .. })));
    log.discard_pending();
    assert_eq!(log.last_zxid(), zxid(last));
    disk.set_capacity(None);
    append_each(&mut log, last + 1..=last + 30);
    disk.crash();
    let log = open_log(&disk).unwrap();
    assert_eq!(counters(&log).unwrap(), (1..=last + 30).collect::<Vec<_>>());
}

#[test]
fn a_nearly_full_disk_is_used_to_its_end_in_small_steps() {
    let disk = MemoryDisk::new(1);
    let options = LogOptions { preallocate: 64 << 20, ..log_options() };
    disk.set_capacity(Some(1 << 20));
    let (mut log, _) = TxnLog::open(shared(&disk), options).unwrap();
    for counter in 1..=100 {
        log.append(zxid(counter), &vec![1; 5000]).unwrap();
        log.write_and_sync().unwrap();
    }
    assert_eq!(segment_names(&disk).len(), 1);
}

#[test]
fn a_clean_end_is_marked_and_appending_goes_on_behind_it() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=3);
    log.close().unwrap();
    let length = disk.length("log.100000001").unwrap();
    assert!(length < 4096, "unused space is given back");
    for round in 1..=3 {
        let mut log = open_log(&disk).unwrap();
        append_each(&mut log, [3 + round]);
        log.close().unwrap();
    }
    assert_eq!(counters(&open_log(&disk).unwrap()).unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_reset_empties_the_log_for_an_installed_snapshot() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=100);
    log.reset(1, zxid(500)).unwrap();
    assert!(segment_names(&disk).is_empty());
    append_each(&mut log, 501..=502);
    disk.crash();
    let options = LogOptions { generation: 1, ..log_options() };
    let (log, _) = TxnLog::open(shared(&disk), options).unwrap();
    assert_eq!((log.base(), counters(&log).unwrap()), (zxid(500), vec![501, 502]));
}

#[test]
fn zookeeper_2846_item_10_who_reads_a_log_with_a_truncated_past_sees_one_history() {
    let disk = MemoryDisk::new(7);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=60);
    for (epoch, cut) in [(2, 30), (3, 30), (4, 25)] {
        let before = log.reader();
        log.truncate_to(zxid(cut)).unwrap();
        for counter in 1..=20 {
            log.append(Zxid::new(Epoch(epoch), counter), &payload(counter)).unwrap();
            log.write_and_sync().unwrap();
        }
        let expected: Vec<Zxid> = (11..=cut)
            .map(zxid)
            .chain((1..=20).map(|counter| Zxid::new(Epoch(epoch), counter)))
            .collect();
        // Also whoever began to read before, and whoever starts anew.
        let again = open_log(&disk).unwrap();
        for reader in [&before, &log.reader(), &again.reader()] {
            let found: Vec<Zxid> =
                reader.read_after(zxid(10)).unwrap().map(|record| record.unwrap().0).collect();
            assert_eq!(found, expected, "epoch {epoch}");
        }
        log = again;
    }
}

#[test]
fn nuraft_668_item_45_an_emptied_log_ends_where_its_snapshot_does_and_not_at_zero() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=100);
    log.reset(1, Zxid::new(Epoch(3), 7)).unwrap();
    assert_eq!(log.last_zxid(), Zxid::new(Epoch(3), 7));
    // What comes next must continue it.
    assert!(log.append(zxid(101), &payload(101)).is_err());
}
