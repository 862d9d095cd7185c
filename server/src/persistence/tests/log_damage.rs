//! A log that is not as it was written: torn tails are cut, damage is refused, and the two are told
//! apart.

use znodefs::Zxid;

use super::*;
use crate::persistence::file_header::{HEADER_LENGTH, WrongFile};
use crate::persistence::log_format::{RecordKind, Salt, push_record};

const NAME: &str = "log.100000001";

/// A log of transactions 1 to 6, one batch each but 3 and 4, which share one. Returns the disk and
/// where each transaction's record ends.
fn sample() -> (MemoryDisk, Vec<usize>) {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=2);
    log.append(zxid(3), &payload(3)).unwrap();
    append_each(&mut log, 4..=6);
    let mut ends = vec![HEADER_LENGTH];
    for counter in 1..=6 {
        let length = (24 + payload(counter).len()).next_multiple_of(8);
        ends.push(ends[ends.len() - 1] + length);
    }
    (disk, ends)
}

/// How many records are as they were, from the first on.
fn whole_records(ends: &[usize], whole: &[u8], bytes: &[u8]) -> u32 {
    let same = |end: &&usize| bytes.get(..**end) == Some(&whole[..**end]);
    ends.iter().take_while(same).count().saturating_sub(1) as u32
}

fn assert_damaged(error: &LogError, file: &str, offset: u64) {
    let text = error.to_string();
    assert!(matches!(error, LogError::Damaged { .. }), "{text}");
    assert!(text.contains(&format!("/memory/{file} is damaged at byte {offset}:")), "{text}");
    assert!(text.contains("znoded repair"), "{text}");
}

#[test]
fn etcd_5230_and_15068_item_39_a_tail_cut_at_any_byte_is_no_damage() {
    let (disk, ends) = sample();
    let whole = disk.contents(NAME).unwrap();
    let end = ends[6];
    for length in 0..=whole.len().min(end + 100) {
        for preallocated in [false, true] {
            let mut bytes = whole[..length].to_vec();
            if preallocated {
                bytes.resize(whole.len(), 0);
            }
            let disk = MemoryDisk::new(1);
            disk.put(NAME, &bytes);
            let expected = whole_records(&ends, &whole, &bytes);
            let (mut log, cut) = TxnLog::open(shared(&disk), log_options()).unwrap();
            assert_eq!(counters(&log).unwrap(), (1..=expected).collect::<Vec<_>>());
            if let Some(cut) = cut {
                assert_eq!(cut.offset as usize, ends[expected as usize]);
                assert!(cut.last == log.last_zxid() && length < end);
            }
            // ClickHouse #75197: what is appended behind a cut tail must be found again.
            append_each(&mut log, expected + 1..=expected + 3);
            disk.crash();
            let log = open_log(&disk).unwrap();
            assert_eq!(counters(&log).unwrap(), (1..=expected + 3).collect::<Vec<_>>());
        }
    }
}

#[test]
fn garbage_behind_the_last_batch_is_cut() {
    let (disk, ends) = sample();
    let whole = disk.contents(NAME).unwrap();
    for from in ends[5]..whole.len() {
        let mut bytes = whole.clone();
        for (at, byte) in bytes[from..].iter_mut().enumerate() {
            *byte = (at * 37 + from) as u8 | 1;
        }
        let disk = MemoryDisk::new(1);
        disk.put(NAME, &bytes);
        let log = open_log(&disk).unwrap();
        let expected = whole_records(&ends, &whole, &bytes);
        assert_eq!(counters(&log).unwrap(), (1..=expected).collect::<Vec<_>>());
        assert_eq!(disk.length(NAME).unwrap() as usize, ends[expected as usize]);
    }
}

#[test]
fn every_flipped_byte_of_an_early_record_is_refused_and_never_shortens_the_log() {
    let (disk, ends) = sample();
    for at in 0..ends[5] {
        for mask in [1, 0x80, 0xff] {
            disk.flip(NAME, at as u64, mask);
            let before = disk.contents(NAME);
            let error = open_log(&disk).err().unwrap_or_else(|| panic!("byte {at} went unnoticed"));
            let record = ends.iter().rfind(|end| **end <= at).copied().unwrap_or(0);
            assert_damaged(&error, NAME, record as u64);
            assert_eq!(disk.contents(NAME), before, "a refusal changes nothing");
            disk.flip(NAME, at as u64, mask);
        }
    }
    assert_eq!(counters(&open_log(&disk).unwrap()).unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_torn_batch_is_cut_even_where_its_later_records_are_whole() {
    let (disk, ends) = sample();
    let bytes = disk.contents(NAME).unwrap();
    // The batch of 3 and 4 is the last; 3 is torn, 4 whole: the crash wrote the sectors so.
    let mut torn = bytes[..ends[4]].to_vec();
    torn[ends[2] + 9] ^= 1;
    disk.put(NAME, &torn);
    let (log, cut) = TxnLog::open(shared(&disk), log_options()).unwrap();
    assert_eq!(counters(&log).unwrap(), [1, 2]);
    let cut = cut.unwrap();
    assert_eq!((cut.offset as usize, cut.last), (ends[2], zxid(2)));
    assert_eq!(disk.length(NAME).unwrap() as usize, ends[2], "record 4 must not come back");
}

#[test]
fn after_a_clean_end_damage_to_the_last_record_is_refused_too() {
    let (disk, ends) = sample();
    open_log(&disk).unwrap().close().unwrap();
    for at in ends[5]..ends[6] {
        disk.flip(NAME, at as u64, 4);
        assert_damaged(&open_log(&disk).err().unwrap(), NAME, ends[5] as u64);
        disk.flip(NAME, at as u64, 4);
    }
}

#[test]
fn damage_in_an_earlier_segment_is_refused_when_it_is_read() {
    let (disk, ends) = sample();
    let mut log = open_log(&disk).unwrap();
    log.roll().unwrap();
    append_each(&mut log, 7..=9);
    disk.flip(NAME, ends[5] as u64 + 8, 1);
    let log = open_log(&disk).unwrap();
    assert_damaged(&counters(&log).unwrap_err(), NAME, ends[5] as u64);
    // What begins behind it can still be read.
    assert_eq!(log.reader().read_after(zxid(6)).unwrap().count(), 3);
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=300);
    let names = segment_names(&disk);
    disk.remove(&names[2]).unwrap();
    let log = open_log(&disk).unwrap();
    let error = counters(&log).unwrap_err();
    assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains(&names[1]), "{error}");
}

#[test]
fn a_segment_whose_header_never_came_to_the_disk_is_removed() {
    let (disk, _) = sample();
    let mut torn = vec![0; 4096];
    torn[..8].copy_from_slice(b"ZNODELOG");
    disk.put("log.100000007", &torn);
    let mut log = open_log(&disk).unwrap();
    assert_eq!(segment_names(&disk), [NAME]);
    append_each(&mut log, 7..=7);
    assert_eq!(counters(&open_log(&disk).unwrap()).unwrap(), [1, 2, 3, 4, 5, 6, 7]);
}

/// A segment with these records, all whole, each its own batch.
fn segment_of(zxids: &[Zxid]) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, [1]);
    log.truncate_to(Zxid::ZERO).unwrap();
    let mut bytes = disk.contents(NAME).unwrap();
    for zxid in zxids {
        let mut record = Vec::new();
        push_record(&mut record, *zxid, RecordKind::Txn, &payload(zxid.counter()));
        Salt::new(ENSEMBLE).seal(&mut record, bytes.len() as u64);
        bytes.extend_from_slice(&record);
    }
    disk.put(NAME, &bytes);
    disk
}

#[test]
fn a_gap_or_a_step_back_in_the_log_is_damage() {
    for wrong in [&[1, 3][..], &[1, 2, 2], &[1, 2, 1]] {
        let zxids: Vec<Zxid> = wrong.iter().map(|counter| zxid(*counter)).collect();
        let error = open_log(&segment_of(&zxids)).err().unwrap();
        assert!(matches!(error, LogError::Damaged { .. }), "{error}");
    }
    assert_eq!(counters(&open_log(&segment_of(&[zxid(1), zxid(2)])).unwrap()).unwrap(), [1, 2]);
}

#[test]
fn a_copy_of_a_record_inside_a_torn_transaction_proves_nothing() {
    let (disk, ends) = sample();
    let whole = disk.contents(NAME).unwrap();
    let mut log = open_log(&disk).unwrap();
    // A client stores a copy of our own log, and the machine stops in the middle of that write.
    let mut stored = vec![0; 16];
    stored.extend_from_slice(&whole[HEADER_LENGTH..ends[6]]);
    log.append(zxid(7), &stored).unwrap();
    log.write_and_sync().unwrap();
    let torn_at = ends[6] as u64 + 30;
    disk.flip(NAME, torn_at, 1);
    let log = open_log(&disk).unwrap();
    assert_eq!(counters(&log).unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn another_version_and_another_ensemble_are_their_own_errors() {
    let (disk, _) = sample();
    let foreign = LogOptions { ensemble_id: EnsembleId([1; 16]), ..log_options() };
    let error = TxnLog::open(shared(&disk), foreign).err().unwrap();
    assert!(matches!(error, LogError::WrongFile(WrongFile::Foreign { .. })), "{error}");
    assert!(
        error.to_string().contains("/memory/log.100000001 belongs to ensemble 5a5a"),
        "{error}"
    );
    let mut bytes = disk.contents(NAME).unwrap();
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    disk.put(NAME, &bytes);
    let error = open_log(&disk).err().unwrap();
    assert!(matches!(error, LogError::WrongFile(WrongFile::Version { found: 2, .. })), "{error}");
    assert!(error.to_string().contains("has format version 2"), "{error}");
}
