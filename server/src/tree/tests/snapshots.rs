//! Blocks of a snapshot: what survives them, and what becomes of damaged ones.

use bytes::Bytes;
use proptest::prelude::*;
use znodefs::Acl;
use znodefs::wire::CreateMode::*;
use znodefs::wire::Request;
use znodefs::wire::request::CreateRequest;

use crate::test_replica::*;
use crate::tree::{DataTree, RestoreError, SnapshotCursor, TreeRestorer};

fn blocks_of(tree: &DataTree, max_bytes: usize) -> Vec<Vec<u8>> {
    let mut cursor = SnapshotCursor::new(tree);
    let mut blocks = Vec::new();
    loop {
        let mut block = Vec::new();
        let more = tree.snapshot_block(&mut cursor, max_bytes, &mut block);
        blocks.push(block);
        if !more {
            return blocks;
        }
    }
}

fn restore(blocks: Vec<Vec<u8>>) -> Result<DataTree, RestoreError> {
    let mut restorer = TreeRestorer::new(5);
    for block in blocks {
        restorer.block(&block)?;
    }
    restorer.finish()
}

fn replica_with_some_of_everything() -> TestReplica {
    let mut replica = TestReplica::new();
    let with_data = |path, data: Option<&'static [u8]>| {
        let data = data.map(Bytes::from_static);
        Request::Create(CreateRequest::new(path, data, Acl::open(), Persistent, 0))
    };
    replica.write(&with_data("/null", None)).unwrap();
    replica.write(&with_data("/empty", Some(b""))).unwrap();
    replica.write(&with_data("/full", Some(b"full"))).unwrap();
    replica.write(&create_mode("/full/e", Ephemeral)).unwrap();
    replica.write(&create_mode("/full/c", Container)).unwrap();
    replica.write(&create_mode("/full/t", PersistentWithTtl)).unwrap();
    replica.write(&create_with("/mine", Persistent, acl("digest:me:h=:r"))).unwrap();
    replica.write(&delete("/empty")).unwrap();
    replica.write(&with_data("/full/empty", Some(b""))).unwrap();
    replica
}

#[test]
fn null_and_empty_data_stay_different_and_so_does_everything_else() {
    let replica = replica_with_some_of_everything();
    let restored = restore(blocks_of(&replica.tree, 50)).unwrap();
    assert_eq!(restored.node("/null").unwrap().data(), None);
    assert_eq!(restored.node("/full/empty").unwrap().data(), Some(&b""[..]));
    assert_eq!(restored.node("/full/e").unwrap().kind().shown(), SESSION);
    assert_eq!(restored.session_timeout_ms(OTHER), Some(4000));
    assert_eq!(restored.ephemerals(SESSION).collect::<Vec<_>>(), ["/full/e"]);
    assert_eq!(restored.digest(), replica.tree.digest());
}

#[test]
fn blocks_end_with_the_record_that_fills_them() {
    let mut replica = TestReplica::new();
    for number in 0..100 {
        replica.make(&format!("/n{number}"));
    }
    let blocks = blocks_of(&replica.tree, 64);
    assert!(blocks.len() > 20);
    assert!(blocks.iter().all(|block| block.len() < 64 + 128));
    assert_eq!(blocks_of(&replica.tree, usize::MAX).len(), 1);
}

#[test]
fn blocks_that_end_early_are_no_snapshot() {
    let mut blocks = blocks_of(&replica_with_some_of_everything().tree, 50);
    while blocks.pop().is_some() {
        assert!(matches!(restore(blocks.clone()), Err(RestoreError::Malformed(_))));
    }
}

#[test]
fn zookeeper_3145_item_22_a_closing_that_finds_its_znodes_gone_still_moves_the_parents_pzxid() {
    // ZOOKEEPER-3145: the parent's pzxid must come out right although neither creation nor deletion
    // finds anything to do.
    let mut replica = TestReplica::new();
    replica.make("/p");
    replica.write(&create_mode("/p/e", Ephemeral)).unwrap();
    let mut cursor = SnapshotCursor::new(&replica.tree);
    let from = cursor.zxid();
    replica.close_session(SESSION);
    replica.apply_all();
    let mut block = Vec::new();
    while replica.tree.snapshot_block(&mut cursor, 1, &mut block) {}
    let mut restored = restore(vec![block]).unwrap();
    assert!(restored.node("/p/e").is_none());
    for txn in replica.log.iter().filter(|txn| txn.zxid > from) {
        restored.apply(txn, &mut |_| {});
    }
    assert_eq!(restored.node("/p").unwrap().stat().pzxid, replica.last_zxid());
    assert_eq!(restored.digest(), replica.tree.digest());
}

#[test]
fn a_znode_whose_parents_number_was_taken_by_another_is_left_out() {
    let mut replica = TestReplica::new();
    replica.make("/x");
    replica.make("/a");
    replica.write(&delete("/x")).unwrap();
    // Takes the number of /x, which comes before its parent's.
    replica.make("/a/c");
    let mut cursor = SnapshotCursor::new(&replica.tree);
    let from = cursor.zxid();
    let mut block = Vec::new();
    while !block.ends_with(b"c\x01\0") {
        assert!(replica.tree.snapshot_block(&mut cursor, 1, &mut block));
    }
    replica.write(&delete("/a/c")).unwrap();
    replica.write(&delete("/a")).unwrap();
    // Takes the number of /a.
    replica.make("/b");
    while replica.tree.snapshot_block(&mut cursor, 1, &mut block) {}
    let mut restored = restore(vec![block]).unwrap();
    assert!(restored.node("/b").is_some());
    assert!(restored.node("/b/c").is_none());
    for txn in replica.log.iter().filter(|txn| txn.zxid > from) {
        restored.apply(txn, &mut |_| {});
    }
    assert_eq!(restored.digest(), replica.tree.digest());
}

#[test]
fn zookeeper_3144_item_21_sessions_that_come_and_go_during_a_snapshot_are_settled_by_replay() {
    // ZOOKEEPER-3144.
    let mut replica = TestReplica::new();
    for number in 0..600 {
        replica.open_session(znodefs::SessionId(0x0200_0000_0000_0000 + 2 * number));
    }
    replica.apply_all();
    let mut cursor = SnapshotCursor::new(&replica.tree);
    let from = cursor.zxid();
    let mut block = Vec::new();
    let mut number = 0;
    while replica.tree.snapshot_block(&mut cursor, 1, &mut block) {
        replica.close_session(znodefs::SessionId(0x0200_0000_0000_0000 + 2 * number));
        replica.open_session(znodefs::SessionId(0x0200_0000_0000_0001 + 2 * (599 - number)));
        replica.apply_all();
        number += 1;
    }
    let mut restored = restore(vec![block]).unwrap();
    for txn in replica.log.iter().filter(|txn| txn.zxid > from) {
        restored.apply(txn, &mut |_| {});
    }
    assert_eq!(restored.digest(), replica.tree.digest());
}

/// What a fuzzy snapshot makes of a replica's writes: it begins, then `write` is done between any two
/// of its blocks, and what the log has behind its beginning is replayed.
fn snapshot_among(
    replica: &mut TestReplica,
    mut write: impl FnMut(&mut TestReplica, usize),
) -> DataTree {
    let mut cursor = SnapshotCursor::new(&replica.tree);
    let from = cursor.zxid();
    let mut block = Vec::new();
    let mut number = 0;
    loop {
        write(replica, number);
        number += 1;
        if !replica.tree.snapshot_block(&mut cursor, 1, &mut block) {
            break;
        }
    }
    let mut restored = restore(vec![block]).unwrap();
    for txn in replica.log.iter().filter(|txn| txn.zxid > from) {
        restored.apply(txn, &mut |_| {});
    }
    restored
}

fn replica_with_children() -> TestReplica {
    let mut replica = TestReplica::new();
    replica.make("/p");
    for number in 0..30 {
        replica.make(&format!("/p/{number}"));
    }
    replica
}

#[test]
fn zookeeper_3127_item_20_a_multi_that_a_snapshot_caught_in_part_is_made_whole() {
    let mut replica = replica_with_children();
    let restored = snapshot_among(&mut replica, |replica, number| {
        if number < 30 {
            let (new, old) = (format!("/new-{number}"), format!("/p/{number}"));
            let multi = vec![create_mode(&new, Persistent), delete(&old)];
            replica.write(&Request::Multi(multi)).unwrap();
        }
    });
    assert_eq!(restored.digest(), replica.tree.digest());
    assert!(restored.node("/new-29").is_some() && restored.node("/p/29").is_none());
    assert_eq!(restored.last_applied(), replica.last_zxid());
}

#[test]
fn zookeeper_3249_item_23_replay_of_what_a_snapshot_holds_already_changes_no_stat() {
    let mut replica = replica_with_children();
    let restored = snapshot_among(&mut replica, |replica, number| {
        if number == 0 {
            for child in 0..20 {
                replica.make(&format!("/p/again-{child}"));
                replica.write(&delete(&format!("/p/{child}"))).unwrap();
                replica.write(&delete(&format!("/p/again-{child}"))).unwrap();
            }
        }
    });
    assert_eq!(restored.node("/p").unwrap().stat(), replica.tree.node("/p").unwrap().stat());
    assert_eq!(restored.digest(), replica.tree.digest());
}

#[test]
fn zookeeper_3306_item_24_an_acl_that_is_new_while_a_snapshot_is_written_is_there_behind_it() {
    let mut replica = replica_with_children();
    let restored = snapshot_among(&mut replica, |replica, number| {
        if number < 40 {
            let list = acl(&format!("digest:user{number}:h=:rwcda"));
            replica.write(&create_with(&format!("/owned-{number}"), Persistent, list)).unwrap();
        }
    });
    for number in 0..40 {
        let path = format!("/owned-{number}");
        let (restored, original) = (restored.node(&path), replica.tree.node(&path));
        assert_eq!(restored.unwrap().acl(), original.unwrap().acl(), "{path}");
    }
    assert_eq!(restored.digest(), replica.tree.digest());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = restore(vec![garbage]);
    }

    #[test]
    fn damaged_blocks_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut block = blocks_of(&replica_with_some_of_everything().tree, usize::MAX).remove(0);
        for (place, value) in damage {
            let place = place.index(block.len());
            block[place] = value;
        }
        let length = block.len();
        let _ = restore(vec![block.clone()]).map(|tree| tree.digest());
        block.truncate(cut.index(length));
        prop_assert!(restore(vec![block]).is_err());
    }
}
