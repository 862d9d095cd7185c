//! Tests of persistence as a whole, on the forgetful disk. Tests of one file stand beside its code.

mod astray;
mod crash;
mod faults;
mod log;
mod log_damage;
mod model;
mod snapshots;
mod storage;
mod thread;

use std::sync::Arc;

use znodefs::{Epoch, Zxid};

use super::disk::Disk;
use super::{EnsembleId, LogError, LogOptions, MemoryDisk, StorageOptions, TxnLog};

pub const ENSEMBLE: EnsembleId = EnsembleId([0x5a; 16]);

/// Segments of 4 KiB, so that tests roll often.
pub fn log_options() -> LogOptions {
    LogOptions { preallocate: 4096, zero_ahead: 512, ..LogOptions::new(ENSEMBLE) }
}

pub fn storage_options() -> StorageOptions {
    StorageOptions { preallocate: 4096, zero_ahead: 512, ..StorageOptions::new(1, Some(ENSEMBLE)) }
}

pub fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub fn zxid(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

pub fn open_log(disk: &MemoryDisk) -> Result<TxnLog, LogError> {
    TxnLog::open(shared(disk), log_options()).map(|(log, _)| log)
}

/// What transaction `counter` holds in these tests: a length of its own, then the number.
pub fn payload(counter: u32) -> Vec<u8> {
    let mut payload = vec![counter as u8; (counter as usize * 7) % 40];
    payload.extend_from_slice(&counter.to_le_bytes());
    payload
}

/// Appends these transactions of epoch 1, one batch each.
pub fn append_each(log: &mut TxnLog, counters: impl IntoIterator<Item = u32>) {
    for counter in counters {
        log.append(zxid(counter), &payload(counter)).unwrap();
        log.write_and_sync().unwrap();
    }
}

/// The counters of all transactions in the log; their payloads must be right.
pub fn counters(log: &TxnLog) -> Result<Vec<u32>, LogError> {
    let reader = log.reader();
    let mut found = Vec::new();
    for record in reader.read_after(reader.base())? {
        let (zxid, bytes) = record?;
        assert_eq!(bytes, payload(zxid.counter()), "payload of {zxid}");
        found.push(zxid.counter());
    }
    Ok(found)
}

/// The segments' names, oldest first.
pub fn segment_names(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("log."));
    names.sort_by_key(|name| i64::from_str_radix(&name[4..], 16).unwrap());
    names
}
