//! Random histories: a fuzzy snapshot with what follows replayed over it, and parts of the log
//! applied a second time, come to the state of straight application.

use proptest::prelude::*;
use znodefs::Zxid;

use super::consistency;
use crate::test_steps::{History, Step, steps};
use crate::tree::{DataTree, SnapshotCursor, TreeRestorer};
use crate::txn::Txn;

fn replay(tree: &mut DataTree, log: &[Txn], after: Zxid) {
    for txn in log.iter().filter(|txn| txn.zxid > after) {
        tree.apply(txn, &mut |_| {});
    }
}

fn restore(blocks: &[Vec<u8>]) -> DataTree {
    let mut restorer = TreeRestorer::new(77);
    for block in blocks {
        restorer.block(block).unwrap();
    }
    restorer.finish().unwrap()
}

/// Takes one block; whether there are more.
fn advance(
    tree: &DataTree,
    cursor: &mut SnapshotCursor,
    max_bytes: usize,
    blocks: &mut Vec<Vec<u8>>,
) -> bool {
    let mut block = Vec::new();
    let more = tree.snapshot_block(cursor, max_bytes, &mut block);
    blocks.push(block);
    more
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_fuzzy_snapshot_and_replay_come_to_the_straight_state(
        before in steps(60),
        during in steps(80),
        after in steps(10),
    ) {
        let mut history = History::new();
        for step in &before {
            history.step(step);
        }
        consistency::check(&history.replica.tree);
        let mut cursor = SnapshotCursor::new(&history.replica.tree);
        let mut blocks = Vec::new();
        let mut more = true;
        for step in &during {
            history.step(step);
            if let (Step::Snapshot { max_bytes }, true) = (step, more) {
                more = advance(&history.replica.tree, &mut cursor, *max_bytes, &mut blocks);
            }
        }
        while more {
            more = advance(&history.replica.tree, &mut cursor, 1000, &mut blocks);
        }
        for step in &after {
            history.step(step);
        }
        history.replica.apply_all();

        let mut restored = restore(&blocks);
        consistency::check(&restored);
        prop_assert_eq!(restored.last_applied(), cursor.zxid());
        replay(&mut restored, &history.replica.log, cursor.zxid());
        consistency::check(&restored);
        prop_assert_eq!(restored.digest(), history.replica.tree.digest());
    }

    #[test]
    fn a_snapshot_taken_at_once_is_the_tree(before in steps(80)) {
        let mut history = History::new();
        for step in &before {
            history.step(step);
        }
        let tree = &history.replica.tree;
        let mut cursor = SnapshotCursor::new(tree);
        let mut blocks = Vec::new();
        while advance(tree, &mut cursor, 100, &mut blocks) {}
        prop_assert_eq!(restore(&blocks).digest(), tree.digest());
    }

    #[test]
    fn applying_the_end_of_the_log_again_changes_nothing(
        before in steps(80),
        place in any::<prop::sample::Index>(),
    ) {
        let mut history = History::new();
        for step in &before {
            history.step(step);
        }
        history.replica.apply_all();
        let digest = history.replica.tree.digest();
        let log = std::mem::take(&mut history.replica.log);
        let from = place.index(log.len());
        replay(&mut history.replica.tree, &log[from..], Zxid::ZERO);
        consistency::check(&history.replica.tree);
        prop_assert_eq!(history.replica.tree.digest(), digest);
    }

    #[test]
    fn replicas_that_apply_the_same_log_agree_whatever_their_seed(before in steps(60)) {
        let mut history = History::new();
        for step in &before {
            history.step(step);
        }
        history.replica.apply_all();
        let mut other = DataTree::new(12345);
        replay(&mut other, &history.replica.log, Zxid::ZERO);
        prop_assert_eq!(other.digest(), history.replica.tree.digest());
    }
}
