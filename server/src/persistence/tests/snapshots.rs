//! Snapshots that are damaged, unfinished or overtaken; what a purge keeps.

use znodefs::Zxid;

use super::*;
use crate::mutation::{self, Mutation};
use crate::persistence::disk::Operation;
use crate::persistence::memory_disk::Fault;
use crate::persistence::purge::Purged;
use crate::persistence::storage::{self, Storage, StorageError};
use crate::persistence::{SnapshotError, SnapshotInfo, StorageParts, purge};

fn open(disk: &MemoryDisk) -> Result<Storage, StorageError> {
    Storage::open(shared(disk), shared(disk), storage_options())
}

fn open_parts(disk: &MemoryDisk) -> StorageParts {
    open(disk).unwrap().into_parts().unwrap()
}

/// A snapshot of one block, which says what it is.
fn write(parts: &StorageParts, counter: u32) -> Result<SnapshotInfo, SnapshotError> {
    let mut writer = parts.snapshots.create(zxid(counter))?;
    writer.write_block(format!("state at {counter}").as_bytes())?;
    writer.finish(zxid(counter))
}

fn name(counter: u32) -> String {
    format!("snapshot.1{counter:08x}")
}

/// Transactions 1 to 50 with a snapshot and a new segment after every tenth.
fn sample(disk: &MemoryDisk) -> StorageParts {
    let mut parts = open_parts(disk);
    for tens in 0..5 {
        append_each(&mut parts.log, tens * 10 + 1..=tens * 10 + 10);
        parts.log.roll().unwrap();
        write(&parts, tens * 10 + 10).unwrap();
    }
    append_each(&mut parts.log, [51]);
    parts
}

/// Which snapshot a start restores; none: it replays everything.
fn restored(disk: &MemoryDisk) -> Result<Option<u32>, StorageError> {
    let storage = open(disk)?;
    let restored = storage.restore(|reader| {
        let mut text = String::new();
        while let Some(block) = reader.next_block()? {
            text.push_str(std::str::from_utf8(block)?);
        }
        Ok(text)
    })?;
    let from = restored.as_ref().map_or(0, |(zxid, _)| zxid.counter());
    let mut expected = from;
    storage.replay_after(if from == 0 { Zxid::ZERO } else { zxid(from) }, |zxid, _| {
        expected += 1;
        assert_eq!(zxid.counter(), expected);
        Ok(())
    })?;
    assert_eq!(storage.last_zxid().counter(), expected);
    Ok(restored.map(|(zxid, text)| {
        assert_eq!(text, format!("state at {}", zxid.counter()));
        zxid.counter()
    }))
}

#[test]
fn a_snapshot_of_many_blocks_reads_back() {
    let disk = MemoryDisk::new(1);
    let parts = open_parts(&disk);
    let blocks: Vec<Vec<u8>> = [1, 70_000, 3, 2_500_000, 1 << 20, 9]
        .iter()
        .map(|length| (0..*length).map(|at: u32| (at * 7 + length) as u8).collect())
        .collect();
    let mut writer = parts.snapshots.create(Zxid::ZERO).unwrap();
    for block in &blocks {
        writer.write_block(block).unwrap();
        writer.write_block(&[]).unwrap();
    }
    let info = writer.finish(Zxid::ZERO).unwrap();
    assert_eq!((info.blocks, info.length), (6, disk.length(&info.name).unwrap()));
    let mut reader = parts.snapshots.open(&info).unwrap();
    for block in &blocks {
        assert!(reader.next_block().unwrap().is_some_and(|read| read == block));
    }
    assert!(reader.next_block().unwrap().is_none());
    assert!(reader.next_block().unwrap().is_none());
}

#[test]
fn a_snapshot_with_any_byte_flipped_gives_way_to_the_one_before() {
    let disk = MemoryDisk::new(1);
    drop(sample(&disk));
    let length = disk.length(&name(50)).unwrap();
    for at in 0..length {
        disk.flip(&name(50), at, 0x10);
        assert_eq!(restored(&disk).unwrap(), Some(40), "byte {at}");
        disk.flip(&name(50), at, 0x10);
    }
    assert_eq!(restored(&disk).unwrap(), Some(50));
}

#[test]
fn a_snapshot_cut_or_lengthened_gives_way_to_the_one_before() {
    let disk = MemoryDisk::new(1);
    drop(sample(&disk));
    let whole = disk.contents(&name(50)).unwrap();
    for length in 0..whole.len() {
        disk.put(&name(50), &whole[..length]);
        assert_eq!(restored(&disk).unwrap(), Some(40), "{length} bytes");
    }
    disk.put(&name(50), &[&whole[..], b"more"].concat());
    assert_eq!(restored(&disk).unwrap(), Some(40));
}

#[test]
fn a_snapshot_that_the_caller_cannot_read_gives_way_to_the_one_before() {
    let disk = MemoryDisk::new(1);
    drop(sample(&disk));
    let storage = open(&disk).unwrap();
    let restored = storage.restore(|reader| {
        let zxid = reader.info().zxid;
        if zxid.counter() > 25 { Err("no".into()) } else { Ok(zxid) }
    });
    assert_eq!(restored.unwrap(), Some((zxid(20), zxid(20))));
}

#[test]
fn zookeeper_3082_item_17_a_full_disk_never_lets_a_bad_snapshot_displace_good_ones() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename] {
        let disk = MemoryDisk::new(7);
        let mut parts = sample(&disk);
        for counter in 52..60 {
            append_each(&mut parts.log, [counter]);
            disk.inject(Fault::new(operation, libc::ENOSPC).on("snapshot."));
            let error = write(&parts, counter).unwrap_err();
            assert!(matches!(&error, SnapshotError::Disk(error) if error.is_full()), "{error}");
            assert!(!disk.list().unwrap().iter().any(|name| name.ends_with(".tmp")));
            purge(&parts.snapshots, &parts.reader, 3).unwrap();
        }
        drop(parts);
        disk.crash();
        assert_eq!(restored(&disk).unwrap(), Some(50), "{operation}");
        disk.flip(&name(50), 70, 1);
        assert_eq!(restored(&disk).unwrap(), Some(40), "{operation}");
    }
}

#[test]
fn zookeeper_3231_item_18_damaged_snapshots_do_not_count_in_a_purge() {
    for keep in 1..=3 {
        let disk = MemoryDisk::new(1);
        let parts = sample(&disk);
        // The newest three: one in a block, one in its trailer, one in its header.
        disk.flip(&name(50), 75, 1);
        disk.flip(&name(40), disk.length(&name(40)).unwrap() - 3, 1);
        disk.flip(&name(30), 20, 1);
        let purged = purge(&parts.snapshots, &parts.reader, keep).unwrap();
        let expected = if keep == 1 { 1 } else { 0 };
        assert_eq!(purged.snapshots, expected, "with {keep} kept");
        drop(parts);
        disk.crash();
        assert_eq!(restored(&disk).unwrap(), Some(20));
    }
}

#[test]
fn a_purge_keeps_the_newest_snapshots_and_the_log_behind_the_oldest_of_them() {
    let disk = MemoryDisk::new(1);
    let parts = sample(&disk);
    assert_eq!(segment_names(&disk).len(), 6);
    let purged = purge(&parts.snapshots, &parts.reader, 2).unwrap();
    assert_eq!(purged, Purged { snapshots: 3, segments: 4 });
    assert_eq!(segment_names(&disk), ["log.100000029", "log.100000033"]);
    assert_eq!(purge(&parts.snapshots, &parts.reader, 2).unwrap(), Purged::default());
    assert_eq!(purge(&parts.snapshots, &parts.reader, 3).unwrap(), Purged::default());
    assert_eq!(parts.reader.base(), zxid(40));
    let error = parts.reader.read_after(zxid(39)).err().unwrap();
    assert!(matches!(error, LogError::NotReachingBack { .. }), "{error}");
    drop(parts);
    disk.crash();
    assert_eq!(restored(&disk).unwrap(), Some(50));
    disk.flip(&name(50), 75, 1);
    assert_eq!(restored(&disk).unwrap(), Some(40));
}

#[test]
fn zookeeper_2325_item_19_a_log_whose_snapshots_are_gone_is_refused() {
    let disk = MemoryDisk::new(1);
    let parts = sample(&disk);
    purge(&parts.snapshots, &parts.reader, 2).unwrap();
    drop(parts);
    disk.put(&name(50), b"");
    disk.remove(&name(40)).unwrap();
    let before = disk.list().unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, StorageError::SnapshotsMissing { .. }), "{error}");
    assert!(error.to_string().starts_with("the log in /memory begins behind transaction 0x1"));
    assert_eq!(disk.list().unwrap(), before, "a refusal changes nothing");
}

#[test]
fn zookeeper_2325_item_19_snapshots_that_prove_damaged_only_when_read_are_refused_too() {
    let disk = MemoryDisk::new(1);
    let parts = sample(&disk);
    purge(&parts.snapshots, &parts.reader, 2).unwrap();
    drop(parts);
    disk.flip(&name(50), 75, 1);
    disk.flip(&name(40), 75, 1);
    let error = restored(&disk).unwrap_err();
    assert!(matches!(error, StorageError::SnapshotsMissing { .. }), "{error}");
}

#[test]
fn without_snapshots_a_log_from_the_beginning_is_enough() {
    let disk = MemoryDisk::new(1);
    drop(sample(&disk));
    for tens in 1..=5 {
        disk.remove(&name(tens * 10)).unwrap();
    }
    assert_eq!(restored(&disk).unwrap(), None);
}

#[test]
fn zookeeper_4837_item_26_a_truncation_undoes_newer_snapshots() {
    let disk = MemoryDisk::new(1);
    let mut parts = sample(&disk);
    // Named 35, but made while 36 to 45 were applied.
    let mut writer = parts.snapshots.create(zxid(35)).unwrap();
    writer.write_block(b"state at 35").unwrap();
    writer.finish(zxid(45)).unwrap();
    assert_eq!(storage::truncate(&mut parts.log, &parts.snapshots, zxid(42)).unwrap(), zxid(42));
    drop(parts);
    disk.crash();
    assert_eq!(restored(&disk).unwrap(), Some(40));
}

/// The simulator cannot show this mistake, since no replica truncates what is committed, and a
/// snapshot holds nothing else.
#[test]
fn a_truncation_that_keeps_newer_snapshots_is_caught() {
    let disk = MemoryDisk::new(1);
    let mut parts = sample(&disk);
    mutation::choose(Some(Mutation::TruncateKeepsSnapshots));
    storage::truncate(&mut parts.log, &parts.snapshots, zxid(42)).unwrap();
    mutation::choose(None);
    drop(parts);
    disk.crash();
    let error = restored(&disk).unwrap_err();
    assert!(matches!(error, StorageError::LogMissing { .. }), "{error}");
}

#[test]
fn a_snapshot_begun_before_a_truncation_never_appears_after_it() {
    let disk = MemoryDisk::new(1);
    let mut parts = sample(&disk);
    let mut writer = parts.snapshots.create(zxid(51)).unwrap();
    writer.write_block(b"state at 51").unwrap();
    storage::truncate(&mut parts.log, &parts.snapshots, zxid(45)).unwrap();
    let error = writer.finish(zxid(51)).unwrap_err();
    assert!(matches!(error, SnapshotError::Overtaken { .. }), "{error}");
    drop(parts);
    assert_eq!(restored(&disk).unwrap(), Some(40));
}

#[test]
fn a_snapshot_begun_before_an_installation_never_appears_after_it() {
    let disk = MemoryDisk::new(1);
    let mut parts = sample(&disk);
    let mut own = parts.snapshots.create(zxid(51)).unwrap();
    own.write_block(b"state at 51").unwrap();
    let mut installed = parts.snapshots.create_installed(zxid(30)).unwrap();
    installed.write_block(b"state at 30").unwrap();
    let info = installed.finish(zxid(30)).unwrap();
    assert!(matches!(own.finish(zxid(51)), Err(SnapshotError::Overtaken { .. })));
    // Even when the process ends here, the history is the new one.
    drop(parts);
    disk.crash();
    assert_eq!(restored(&disk).unwrap(), Some(30));
    parts = open_parts(&disk);
    assert_eq!(parts.snapshots.generation(), info.generation);
    assert_eq!((parts.log.last_zxid(), disk.list().unwrap().len()), (zxid(30), 2));
}

#[test]
fn a_truncation_to_a_state_that_cannot_be_rebuilt_is_refused_unchanged() {
    let disk = MemoryDisk::new(1);
    let mut parts = sample(&disk);
    purge(&parts.snapshots, &parts.reader, 2).unwrap();
    disk.flip(&name(40), 75, 1);
    let before = disk.list().unwrap();
    let error = storage::truncate(&mut parts.log, &parts.snapshots, zxid(45)).unwrap_err();
    assert!(error.to_string().contains("does not reach back"), "{error}");
    assert_eq!(disk.list().unwrap(), before);
    append_each(&mut parts.log, [52]);
}
