//! A replica's directory as a whole: what fits together starts, what does not is refused with the
//! reason and the way out.

use std::fs;

use znodefs::Epoch;

use super::*;
use crate::persistence::file_header::{FileHeader, FileKind};
use crate::persistence::storage::{Storage, StorageError};
use crate::persistence::{Committed, CommittedFile, ReplicaIdentity, small_file};

fn open(disk: &MemoryDisk) -> Result<Storage, StorageError> {
    Storage::open(shared(disk), shared(disk), storage_options())
}

#[test]
fn an_empty_directory_gets_an_identity_and_keeps_it() {
    let disk = MemoryDisk::new(1);
    let storage = open(&disk).unwrap();
    assert!(storage.is_empty());
    let identity = storage.identity().unwrap();
    assert_eq!((identity.ensemble_id, identity.replica_id), (ENSEMBLE, 1));
    disk.crash();
    let other = StorageOptions { new_ensemble: Some(EnsembleId([9; 16])), ..storage_options() };
    let storage = Storage::open(shared(&disk), shared(&disk), other).unwrap();
    assert_eq!(storage.identity(), Some(identity));
}

#[test]
fn a_replica_that_is_to_join_has_no_ensemble_until_it_does() {
    let disk = MemoryDisk::new(1);
    let joining = StorageOptions { new_ensemble: None, ..storage_options() };
    let mut storage = Storage::open(shared(&disk), shared(&disk), joining).unwrap();
    assert!(storage.identity().is_none() && storage.is_empty());
    storage.join(ENSEMBLE).unwrap();
    storage.join(ENSEMBLE).unwrap();
    let error = storage.join(EnsembleId([1; 16])).unwrap_err();
    assert!(matches!(error, StorageError::OtherEnsemble { .. }), "{error}");
    let mut parts = storage.into_parts().unwrap();
    append_each(&mut parts.log, [1]);
    let storage = Storage::open(shared(&disk), shared(&disk), joining).unwrap();
    assert_eq!((storage.is_empty(), storage.last_zxid()), (false, zxid(1)));
    let disk = MemoryDisk::new(1);
    let storage = Storage::open(shared(&disk), shared(&disk), joining).unwrap();
    assert!(matches!(storage.into_parts(), Err(StorageError::NoEnsemble(_))));
}

#[test]
fn the_directory_of_another_replica_is_refused() {
    let disk = MemoryDisk::new(1);
    drop(open(&disk).unwrap());
    let other = StorageOptions { replica_id: 2, ..storage_options() };
    let error = Storage::open(shared(&disk), shared(&disk), other).err().unwrap().to_string();
    let expected = "/memory belongs to replica 1, this is replica 2: correct dataDir or myid";
    assert_eq!(error, expected);
}

#[test]
fn a_log_of_another_ensemble_is_refused() {
    let (disk, other) = (MemoryDisk::new(1), MemoryDisk::new(2));
    let options = LogOptions { ensemble_id: EnsembleId([1; 16]), ..log_options() };
    append_each(&mut TxnLog::open(shared(&other), options).unwrap().0, [1]);
    drop(open(&disk).unwrap());
    let error = Storage::open(shared(&disk), shared(&other), storage_options()).err().unwrap();
    assert!(matches!(error, StorageError::Log(LogError::WrongFile(_))), "{error}");
}

#[test]
fn data_without_an_identity_is_refused() {
    let disk = MemoryDisk::new(1);
    append_each(&mut open(&disk).unwrap().into_parts().unwrap().log, [1]);
    disk.remove("identity").unwrap();
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, StorageError::IdentityMissing { .. }), "{error}");
    assert!(error.to_string().contains("log.100000001"), "{error}");
}

#[test]
fn a_damaged_identity_or_epoch_is_refused_by_name() {
    for name in ["identity", "acceptedEpoch", "currentEpoch"] {
        let disk = MemoryDisk::new(1);
        let mut parts = open(&disk).unwrap().into_parts().unwrap();
        parts.epochs.set_accepted(Epoch(3)).unwrap();
        parts.epochs.set_current(Epoch(3)).unwrap();
        drop(parts);
        for at in 0..disk.length(name).unwrap() {
            disk.flip(name, at, 1);
            let error = open(&disk).err().unwrap().to_string();
            assert!(error.starts_with(&format!("/memory/{name} is damaged")), "{error}");
            disk.flip(name, at, 1);
        }
        open(&disk).unwrap();
    }
}

#[test]
fn an_epoch_never_goes_back_and_must_fit_the_log() {
    let disk = MemoryDisk::new(1);
    let mut epochs = open(&disk).unwrap().into_parts().unwrap().epochs;
    epochs.set_accepted(Epoch(5)).unwrap();
    epochs.set_current(Epoch(4)).unwrap();
    assert!(epochs.set_accepted(Epoch(4)).is_err());
    assert!(epochs.set_current(Epoch(3)).is_err());
    assert_eq!((epochs.accepted(), epochs.current()), (Epoch(5), Epoch(4)));
    epochs.check(Zxid::new(Epoch(4), 9)).unwrap();
    // A crash between a leader's history and the adoption of its epoch leaves this.
    epochs.check(Zxid::new(Epoch(5), 1)).unwrap();
    epochs.check(Zxid::new(Epoch(6), 1)).unwrap_err();
}

#[test]
fn snapshots_whose_log_is_gone_are_refused() {
    let disk = MemoryDisk::new(1);
    let mut parts = open(&disk).unwrap().into_parts().unwrap();
    append_each(&mut parts.log, 1..=5);
    parts.snapshots.create(zxid(5)).unwrap().finish(zxid(5)).unwrap();
    append_each(&mut parts.log, 6..=9);
    drop(parts);
    let elsewhere = MemoryDisk::new(2);
    let error = Storage::open(shared(&disk), shared(&elsewhere), storage_options()).err().unwrap();
    assert!(matches!(error, StorageError::LogMissing { .. }), "{error}");
    assert!(error.to_string().contains("was dataLogDir changed?"), "{error}");
    open(&disk).unwrap();
}

#[test]
fn without_force_sync_a_log_that_lost_its_end_begins_anew_behind_the_snapshot() {
    let disk = MemoryDisk::new(1);
    let options = StorageOptions { force_sync: false, ..storage_options() };
    let open = || Storage::open(shared(&disk), shared(&disk), options);
    let mut parts = open().unwrap().into_parts().unwrap();
    append_each(&mut parts.log, 1..=5);
    parts.snapshots.create(zxid(5)).unwrap().finish(zxid(5)).unwrap();
    drop(parts);
    disk.remove("log.100000001").unwrap();
    for _ in 0..2 {
        assert_eq!(open().unwrap().last_zxid(), zxid(5));
    }
    append_each(&mut open().unwrap().into_parts().unwrap().log, [6]);
    assert_eq!(open().unwrap().last_zxid(), zxid(6));
}

#[test]
fn unfinished_files_are_removed_at_a_start() {
    let disk = MemoryDisk::new(1);
    drop(open(&disk).unwrap());
    disk.put("snapshot.100000005.tmp", b"half");
    disk.put("currentEpoch.tmp", b"half");
    drop(open(&disk).unwrap());
    assert_eq!(disk.list().unwrap(), ["identity"]);
}

#[test]
fn real_directories_are_locked_and_apache_zookeepers_data_is_left_alone() {
    let (data, log) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let apache = data.path().join("version-2");
    fs::create_dir(&apache).unwrap();
    fs::write(apache.join("log.1"), "ZKLG").unwrap();
    let open = |log_dir| Storage::open_directories(data.path(), log_dir, storage_options());
    let mut parts = open(Some(log.path())).unwrap().into_parts().unwrap();
    append_each(&mut parts.log, 1..=100);
    let error = open(None).err().unwrap();
    assert!(error.to_string().contains("is in use by process"), "{error}");
    parts.log.close().unwrap();
    drop((parts.reader, parts.snapshots, parts.epochs));
    let storage = open(Some(log.path())).unwrap();
    assert_eq!(storage.last_zxid(), zxid(100));
    assert_eq!(fs::read(apache.join("log.1")).unwrap(), b"ZKLG");
    drop(storage);
    assert!(open(None).unwrap().is_empty());
    // The same directory twice, spelled differently, is one.
    let spelled = data.path().join(".");
    assert!(open(Some(&spelled)).unwrap().is_empty());
}

#[test]
fn a_missing_data_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("gone");
    let error = Storage::open_directories(&missing, None, storage_options()).err().unwrap();
    assert!(error.to_string().starts_with(&format!("{} does not exist", missing.display())));
}

/// Everything that a member has before its ensemble is formed: identity, a promise, and files of other
/// parts of it.
fn blank_member(ensemble_id: EnsembleId) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let options = StorageOptions::new(3, Some(ensemble_id));
    let mut parts =
        Storage::open(shared(&disk), shared(&disk), options).unwrap().into_parts().unwrap();
    parts.epochs.set_accepted(Epoch(4)).unwrap();
    for (name, kind) in OTHER_FILES {
        let header = FileHeader { kind, flags: 0, ensemble_id, generation: 0, zxid: Zxid::ZERO };
        small_file::replace(&disk, name, &header, b"of the ensemble").unwrap();
    }
    disk
}

const OTHER_FILES: [(&str, FileKind); 2] =
    [("sessionKey", FileKind::Identity), ("configuration", FileKind::Configuration)];

#[test]
fn a_member_that_holds_nothing_changes_over_to_the_ensemble_that_was_formed_at_once_or_not_at_all()
{
    let options = StorageOptions::new(3, None);
    let (lost, formed) = (EnsembleId([1; 16]), EnsembleId([2; 16]));
    let change_over = |disk: &MemoryDisk| -> Result<Storage, StorageError> {
        let identity = ReplicaIdentity { ensemble_id: formed, replica_id: 3 };
        identity.write_over(lost, disk)?;
        Storage::open(shared(disk), shared(disk), options)
    };
    let whole = blank_member(lost);
    let begin = whole.changes();
    change_over(&whole).unwrap();
    let changes = whole.changes() - begin;
    assert!(changes > 5, "{changes}");
    let mut seen = Vec::new();
    for cut in 0..=changes {
        let disk = blank_member(lost);
        disk.cut_power_after(cut);
        let _ = change_over(&disk);
        disk.crash();
        // The start may be cut short as well.
        disk.cut_power_after(cut % 3);
        let _ = Storage::open(shared(&disk), shared(&disk), options).map(drop);
        disk.crash();
        let storage = Storage::open(shared(&disk), shared(&disk), options).unwrap();
        let ensemble_id = storage.identity().unwrap().ensemble_id;
        let (accepted, _) = storage.epochs().unwrap();
        assert_eq!(accepted, if ensemble_id == lost { Epoch(4) } else { Epoch(0) }, "cut {cut}");
        for (name, kind) in OTHER_FILES {
            let found = small_file::read(&disk, name, kind, Some(ensemble_id));
            assert_eq!(found.unwrap().is_some(), ensemble_id == lost, "{name}, cut {cut}");
        }
        drop(storage);
        if !seen.contains(&ensemble_id) {
            seen.push(ensemble_id);
        }
        // And it gets there.
        if ensemble_id == lost {
            assert_eq!(change_over(&disk).unwrap().epochs(), Some((Epoch(0), Epoch(0))));
        }
        assert_eq!(ReplicaIdentity::read(&disk).unwrap().unwrap().ensemble_id, formed);
    }
    assert_eq!(seen, [lost, formed]);
}

/// A member with transactions 1 to 5 in epoch 1, which knows them to be committed up to `committed`,
/// and whose disk has lost the last.
fn member_that_lost_its_last(committed: Committed) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let mut parts = open(&disk).unwrap().into_parts().unwrap();
    append_each(&mut parts.log, 1..=4);
    let before = disk.contents("log.100000001").unwrap();
    append_each(&mut parts.log, [5]);
    parts.epochs.set_accepted(Epoch(1)).unwrap();
    parts.epochs.set_current(Epoch(1)).unwrap();
    CommittedFile::new(shared(&disk), ENSEMBLE).write(committed).unwrap();
    drop(parts);
    disk.put("log.100000001", &before);
    disk
}

#[test]
fn a_member_that_lost_what_was_committed_has_no_vote_until_it_is_brought_up_to_date() {
    let committed = Committed { zxid: zxid(5), generation: 0, synced: true };
    let disk = member_that_lost_its_last(committed);
    let mut storage = open(&disk).unwrap();
    let error = storage.check_committed().unwrap_err().to_string();
    assert!(
        error.contains("up to 0x100000005") && error.contains("ends at 0x100000004"),
        "{error}"
    );
    assert!(storage.distrust_if_incomplete().unwrap());
    assert_eq!(storage.epochs(), Some((Epoch(1), Epoch(0))), "the promise stays");
    disk.crash();
    disk.remove("committed").unwrap();
    let mut storage = open(&disk).unwrap();
    assert!(storage.distrust_if_incomplete().unwrap(), "durably");
    let mut parts = storage.into_parts().unwrap();
    append_each(&mut parts.log, [5]);
    parts.epochs.set_accepted(Epoch(2)).unwrap();
    parts.epochs.set_current(Epoch(2)).unwrap();
    drop(parts);
    disk.crash();
    let mut storage = open(&disk).unwrap();
    assert!(!storage.distrust_if_incomplete().unwrap());
    assert_eq!(storage.epochs(), Some((Epoch(2), Epoch(2))));
}

#[test]
fn nothing_is_missed_that_a_crash_may_take_or_another_history_replaced() {
    let committed = Committed { zxid: zxid(5), generation: 0, synced: true };
    for (found, options) in [
        (Committed { zxid: zxid(4), ..committed }, storage_options()),
        (Committed { synced: false, ..committed }, storage_options()),
        (Committed { generation: 1, ..committed }, storage_options()),
        (committed, StorageOptions { force_sync: false, ..storage_options() }),
    ] {
        let disk = member_that_lost_its_last(found);
        let mut storage = Storage::open(shared(&disk), shared(&disk), options).unwrap();
        assert!(!storage.distrust_if_incomplete().unwrap(), "{found:?}");
        assert_eq!(storage.epochs(), Some((Epoch(1), Epoch(1))));
    }
}
