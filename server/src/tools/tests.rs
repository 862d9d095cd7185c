//! Damage of every sort to real files, what the plan makes of it, and that a replica starts
//! afterwards with exactly what the plan promised.

use std::sync::Arc;

use proptest::prelude::*;
use znodefs::{Acl, Epoch, SessionId, Zxid};

use super::location::LocationDisks;
use super::plan::{Action, Plan, plan};
use super::survey::{SnapshotState, Survey};
use super::{repair, state};
use crate::codec;
use crate::persistence::file_header::HEADER_LENGTH;
use crate::persistence::{
    Committed, CommittedFile, Disk, EnsembleId, EpochFiles, MemoryDisk, Storage, StorageOptions,
};
use crate::tree::DataTree;
use crate::txn::{Change, Txn, TxnBody, TxnOrigin};

const SESSION: SessionId = SessionId(0x1234);

fn zxid(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// Transaction `counter` of these tests; each makes a znode of its own.
fn txn(counter: u32) -> Txn {
    let create = Change::Create {
        path: format!("/n{counter}"),
        data: Some(vec![counter as u8; counter as usize % 50].into()),
        acl: Acl::open().into(),
        ephemeral_owner: if counter.is_multiple_of(7) { SESSION.0 } else { 0 },
        parent_child_counter: counter as i32,
        with_stat: false,
    };
    let origin = TxnOrigin::default();
    let body = match counter {
        1 => TxnBody::CreateSession { timeout_ms: 10_000 },
        _ => TxnBody::Change(create),
    };
    Txn { zxid: zxid(counter), session_id: SESSION, xid: 0, origin, time_ms: 0, body }
}

/// The tree after so many transactions.
fn tree_at(count: u32) -> DataTree {
    let mut tree = DataTree::new(0);
    (1..=count).for_each(|counter| {
        tree.apply(&txn(counter), &mut |_| {});
    });
    tree
}

#[track_caller]
fn assert_state(tree: &DataTree, count: u32) {
    assert_eq!(tree.last_applied(), if count == 0 { Zxid::ZERO } else { zxid(count) });
    assert_eq!(tree.node_count(), 5 + count.saturating_sub(1) as usize, "after {count}");
    for counter in 2..=count {
        assert!(tree.node(&format!("/n{counter}")).is_some(), "/n{counter} after {count}");
    }
}

fn disks(disk: &MemoryDisk) -> LocationDisks {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    LocationDisks { data: Arc::clone(&shared), log: shared }
}

/// A stopped replica's files: transactions 1 to `count`, a snapshot behind each of `snapshots`, a
/// new segment behind each of `rolls`.
fn replica(count: u32, snapshots: &[u32], rolls: &[u32]) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    let options = StorageOptions {
        preallocate: 1 << 16,
        zero_ahead: 512,
        ..StorageOptions::new(0, Some(EnsembleId([0x5a; 16])))
    };
    let disks = disks(&disk);
    let storage = Storage::open(disks.data, disks.log, options).unwrap();
    let mut parts = storage.into_parts().unwrap();
    for counter in 1..=count {
        let mut payload = Vec::new();
        codec::encode_into(&txn(counter), &mut payload).unwrap();
        parts.log.append(zxid(counter), &payload).unwrap();
        parts.log.write_and_sync().unwrap();
        if snapshots.contains(&counter) {
            let writer = parts.snapshots.create(zxid(counter)).unwrap();
            state::write_snapshot(writer, &tree_at(counter)).unwrap();
        }
        if rolls.contains(&counter) {
            parts.log.roll().unwrap();
        }
    }
    disk
}

fn look(disk: &MemoryDisk) -> (Survey, Plan) {
    let disks = disks(disk);
    let survey = Survey::take(&disks).unwrap();
    let plan = plan(&survey, &disks);
    (survey, plan)
}

/// Where transaction `counter` lies in a segment.
fn offset_of(disk: &MemoryDisk, name: &str, counter: u32) -> u64 {
    let mut found = None;
    super::log_scan::scan(disk, name, None, |scanned| {
        if scanned.record.zxid == zxid(counter) {
            found = Some(scanned.record.offset);
        }
    })
    .unwrap();
    found.expect("the transaction is in the segment")
}

fn damage(disk: &MemoryDisk, name: &str, counter: u32) -> u64 {
    let offset = offset_of(disk, name, counter);
    disk.flip(name, offset + 30, 0x10);
    offset
}

/// Repairs, and checks that a replica starts with what was promised.
#[track_caller]
fn repair_and_check(disk: &MemoryDisk, survey: &Survey, plan: &Plan) {
    let disks = disks(disk);
    state::lost(survey, plan, &disks).unwrap();
    assert_state(&state::rebuild(survey, plan, &disks).unwrap(), plan.end.counter());
    repair::act(survey, plan, &disks).unwrap();
    let contents = repair::try_start(survey, &disks).unwrap();
    let expected = 4 + u64::from(plan.end.counter().saturating_sub(1));
    assert_eq!(contents.znodes, expected, "{plan:?}");
    let (_, again) = look(disk);
    assert!(again.is_healthy(), "{again:?}");
    assert_eq!(again.end, plan.end);
}

const FIRST: &str = "log.100000001";

#[test]
fn whole_files_need_no_repair_also_with_a_torn_tail() {
    let disk = replica(20, &[10], &[10]);
    let (survey, found) = look(&disk);
    assert!(found.is_healthy() && !found.loses(), "{found:?}");
    assert_eq!((survey.segments.len(), survey.snapshots.len()), (2, 1));
    assert_eq!(found.end, zxid(20));
    let name = "log.10000000b";
    let mut bytes = disk.contents(name).unwrap();
    let last = offset_of(&disk, name, 20) as usize;
    bytes[last + 30] ^= 1;
    disk.put(name, &bytes);
    let (_, found) = look(&disk);
    assert!(found.is_healthy() && !found.loses(), "{found:?}");
    assert_eq!(found.end, zxid(19));
}

#[test]
fn a_log_that_ends_before_what_was_committed_is_damage_that_a_repair_settles() {
    let disk = replica(20, &[10], &[10]);
    let committed = Committed { zxid: zxid(23), generation: 0, synced: true };
    let note = || {
        let mut file = CommittedFile::new(disks(&disk).data, EnsembleId([0x5a; 16]));
        file.write(committed).unwrap();
    };
    note();
    let mut epochs = EpochFiles::open(disks(&disk).data, EnsembleId([0x5a; 16])).unwrap();
    epochs.set_accepted(Epoch(1)).unwrap();
    epochs.set_current(Epoch(1)).unwrap();
    epochs.distrust().unwrap();
    for _ in ["committed", "currentEpoch"] {
        let (_, found) = look(&disk);
        assert!(!found.is_healthy() && found.loses() && found.end == zxid(20), "{found:?}");
        disk.remove("committed").unwrap_or_default();
    }
    note();
    let (survey, found) = look(&disk);
    assert_eq!((found.newest_known, &found.action), (zxid(23), &Action::Nothing));
    repair_and_check(&disk, &survey, &found);
    let epochs = EpochFiles::open(disks(&disk).data, EnsembleId([0x5a; 16])).unwrap();
    assert_eq!((epochs.current(), epochs.distrusted()), (Epoch(1), Epoch(0)));
}

#[test]
fn an_empty_directory_is_healthy() {
    let (_, found) = look(&MemoryDisk::new(1));
    assert!(found.is_healthy(), "{found:?}");
}

#[test]
fn damage_in_the_middle_is_cut_and_everything_before_it_stays() {
    let disk = replica(20, &[], &[12]);
    let offset = damage(&disk, FIRST, 8);
    let (survey, found) = look(&disk);
    let later = vec!["log.10000000d".to_owned()];
    let segment = FIRST.to_owned();
    assert_eq!(found.action, Action::Cut { segment, offset, later });
    assert_eq!((found.end, found.newest_known), (zxid(7), zxid(20)));
    let lost = state::lost(&survey, &found, &disks(&disk)).unwrap();
    assert_eq!(lost.readable.len(), 12);
    assert!(lost.paths.contains("/n9") && !lost.paths.contains("/n8"));
    repair_and_check(&disk, &survey, &found);
    let kept = disk.list().unwrap();
    assert_eq!(kept.iter().filter(|name| name.contains(".cut-")).count(), 2, "{kept:?}");
}

#[test]
fn damage_to_what_a_snapshot_holds_loses_nothing() {
    // Inside the segment that the snapshot's own transaction is in.
    let disk = replica(20, &[10], &[]);
    damage(&disk, FIRST, 4);
    let (survey, found) = look(&disk);
    assert!(matches!(found.action, Action::Rebuild { .. }) && !found.loses(), "{found:?}");
    repair_and_check(&disk, &survey, &found);
    // In a segment that is not needed at all.
    let disk = replica(20, &[10], &[10]);
    damage(&disk, FIRST, 4);
    let (survey, found) = look(&disk);
    assert_eq!(found.action, Action::SetAside { segments: vec![FIRST.to_owned()] });
    assert!(!found.loses());
    repair_and_check(&disk, &survey, &found);
}

#[test]
fn damage_behind_the_newest_snapshot_falls_back_to_what_is_whole() {
    let disk = replica(20, &[5, 15], &[]);
    damage(&disk, FIRST, 17);
    let (survey, found) = look(&disk);
    assert_eq!(found.end, zxid(16));
    repair_and_check(&disk, &survey, &found);
    // A snapshot behind the damage beats the log before it.
    let disk = replica(20, &[5, 15], &[]);
    damage(&disk, FIRST, 12);
    let (survey, found) = look(&disk);
    assert_eq!((found.end, found.loses()), (zxid(20), false));
    repair_and_check(&disk, &survey, &found);
}

#[test]
fn a_damaged_snapshot_is_set_aside_where_an_older_one_suffices() {
    let disk = replica(20, &[5, 15], &[5, 15]);
    disk.flip("snapshot.10000000f", 200, 1);
    let (survey, found) = look(&disk);
    assert_eq!(found.damaged_snapshots, ["snapshot.10000000f"]);
    assert_eq!((found.action.clone(), found.end), (Action::Nothing, zxid(20)));
    assert!(!found.is_healthy() && !found.loses());
    repair_and_check(&disk, &survey, &found);
}

#[test]
fn zookeeper_2325_item_19_without_a_whole_snapshot_nothing_is_invented() {
    let disk = replica(20, &[10], &[10]);
    disk.remove(FIRST).unwrap();
    disk.flip("snapshot.10000000a", 200, 1);
    let (survey, found) = look(&disk);
    assert!(matches!(survey.snapshots[0].state, SnapshotState::Damaged(_)));
    let Action::Impossible { reason } = &found.action else { panic!("{found:?}") };
    assert!(reason.contains("cannot be had") && reason.contains("znoded restore"), "{reason}");
}

#[test]
fn a_snapshot_alone_is_enough_when_the_log_is_gone() {
    let disk = replica(20, &[10], &[10]);
    disk.remove("log.10000000b").unwrap();
    disk.remove(FIRST).unwrap();
    let (survey, found) = look(&disk);
    assert!(matches!(found.action, Action::Rebuild { .. }), "{found:?}");
    assert_eq!(found.end, zxid(10));
    repair_and_check(&disk, &survey, &found);
}

#[test]
fn a_lost_header_loses_nothing_where_the_records_say_where_they_belong() {
    let disk = replica(20, &[5], &[12]);
    disk.flip("log.10000000d", 20, 1);
    let (survey, found) = look(&disk);
    assert_eq!((found.end, found.loses()), (zxid(20), false), "{found:?}");
    repair_and_check(&disk, &survey, &found);
}

#[test]
fn ended_sessions_take_their_ephemerals_along() {
    let mut tree = tree_at(20);
    assert_eq!(state::end_sessions(&mut tree, Epoch(2)), (1, 2));
    assert_eq!((tree.session_count(), tree.ephemerals_count()), (0, 0));
    assert_eq!(tree.last_applied(), Zxid::new(Epoch(2), 1));
    assert!(tree.node("/n7").is_none() && tree.node("/n8").is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_is_damaged_a_repair_keeps_its_word(
        snapshots in prop::collection::vec(1u32..40, 0..3),
        rolls in prop::collection::vec(1u32..40, 0..3),
        flips in prop::collection::vec((0usize..6, 0u64..5000, 1u8..), 1..4),
        cut in prop::option::of((0usize..6, 0usize..4000)),
    ) {
        let disk = replica(40, &snapshots, &rolls);
        let mut names = disk.list().unwrap();
        names.sort();
        for (place, offset, mask) in flips {
            let name = &names[place % names.len()];
            let length = disk.contents(name).unwrap().len() as u64;
            if offset < length {
                disk.flip(name, offset, mask);
            }
        }
        if let Some((place, length)) = cut {
            let name = &names[place % names.len()];
            let mut bytes = disk.contents(name).unwrap();
            bytes.truncate(length.max(HEADER_LENGTH));
            disk.put(name, &bytes);
        }
        let (survey, found) = look(&disk);
        if !matches!(found.action, Action::Impossible { .. }) {
            repair_and_check(&disk, &survey, &found);
        }
    }

    #[test]
    fn garbage_of_any_kind_is_only_reported(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let disk = MemoryDisk::new(1);
        for name in ["log.1", "log.100000001", "snapshot.5", "identity", "currentEpoch"] {
            disk.put(name, &bytes);
        }
        let (_, found) = look(&disk);
        let is_impossible = matches!(found.action, Action::Impossible { .. });
        prop_assert!(is_impossible, "{:?}", found);
    }
}
