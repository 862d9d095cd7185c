//! The simulated disk's writes that go astray: until when their absence may be taken for that of a
//! write that the power's end interrupted. The simulator forgives a replica no longer than that.

use super::*;
use crate::persistence::disk::{Disk, DiskFile};

/// A disk with a file that holds something, and the file.
fn disk_with_log() -> (MemoryDisk, Box<dyn DiskFile>) {
    let disk = MemoryDisk::new(7);
    let mut file = disk.create_new("log.1").unwrap();
    file.write_at(0, &[1; 1024]).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    (disk, file)
}

/// The same, and the write behind it has gone astray.
fn disk_with_write_astray() -> (MemoryDisk, Box<dyn DiskFile>) {
    let (disk, mut file) = disk_with_log();
    disk.misdirect("log.");
    file.write_at(1024, &[2; 512]).unwrap();
    (disk, file)
}

#[test]
fn no_write_has_gone_astray_before_one_does() {
    let (disk, mut file) = disk_with_log();
    assert!(!disk.last_write_went_astray());
    disk.misdirect("log.");
    assert!(!disk.last_write_went_astray(), "none was made yet");
    let mut other = disk.create_new("snapshot.1").unwrap();
    other.write_at(0, &[1; 1024]).unwrap();
    other.write_at(1024, &[1; 512]).unwrap();
    assert!(!disk.last_write_went_astray(), "it is another file's");
    file.write_at(1024, &[2; 512]).unwrap();
    assert!(disk.last_write_went_astray());
}

#[test]
fn a_write_that_went_astray_is_seen_where_it_was_meant_to_be_until_the_machine_stops() {
    let (disk, mut file) = disk_with_write_astray();
    file.sync_data().unwrap();
    let meant =
        |disk: &MemoryDisk| disk.contents("log.1").unwrap().get(1024..1536) == Some(&[2; 512]);
    assert!(meant(&disk));
    disk.crash();
    assert!(!meant(&disk));
    assert!(disk.contents("log.1").unwrap().contains(&2), "it lies elsewhere");
}

#[test]
fn a_write_that_went_astray_is_the_last_until_something_is_synced_behind_it() {
    let (disk, mut file) = disk_with_write_astray();
    file.sync_data().unwrap();
    assert!(disk.last_write_went_astray(), "that was its own sync");
    file.write_at(1536, &[0; 4096]).unwrap();
    file.sync_data().unwrap();
    assert!(disk.last_write_went_astray(), "zeros tell nothing");
    file.write_at(1536, &[3; 512]).unwrap();
    assert!(disk.last_write_went_astray(), "what is not synced may be gone as well");
    file.sync_data().unwrap();
    assert!(!disk.last_write_went_astray(), "behind a hole there is something");
}

#[test]
fn what_is_synced_in_the_next_file_of_a_log_is_behind_a_write_that_went_astray() {
    let (disk, mut file) = disk_with_write_astray();
    file.sync_data().unwrap();
    let mut snapshot = disk.create_new("snapshot.1").unwrap();
    snapshot.write_at(0, &[1; 512]).unwrap();
    snapshot.sync_data().unwrap();
    let mut next = disk.create_new("log.2").unwrap();
    next.preallocate(4096).unwrap();
    next.sync_data().unwrap();
    assert!(disk.last_write_went_astray(), "neither another kind of file nor zeros follow it");
    next.write_at(0, &[4; 64]).unwrap();
    next.sync_data().unwrap();
    assert!(!disk.last_write_went_astray(), "the next file says what stands before it");
}

#[test]
fn after_a_crash_the_first_sync_is_behind_a_write_that_went_astray() {
    let (disk, file) = disk_with_write_astray();
    drop(file);
    disk.crash();
    assert!(disk.last_write_went_astray(), "that write was never synced, or it lies elsewhere");
    let mut file = disk.open("log.1").unwrap();
    file.write_at(1024, &[5; 512]).unwrap();
    file.sync_data().unwrap();
    assert!(!disk.last_write_went_astray());
}
