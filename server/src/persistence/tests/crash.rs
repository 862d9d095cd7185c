//! The power goes between any two operations: what was acknowledged is there afterwards, what was
//! not is there whole or not at all, and the replica starts.

use proptest::prelude::*;

use super::model::{Model, Step, eventful_life};

/// Runs `steps` once for every operation that changes the disk, and cuts the power there; then
/// starts, works on, and crashes again.
fn cut_power_everywhere(steps: &[Step], seeds: u64) {
    let mut whole = Model::new(0);
    whole.reopen();
    let begin = whole.disk.changes();
    whole.run_until_stop(steps);
    let changes = whole.disk.changes() - begin;
    for cut in 0..changes {
        for seed in 0..seeds {
            let mut model = Model::new(seed << 32 | cut);
            model.reopen();
            model.disk.cut_power_after(cut);
            model.run_until_stop(steps);
            model.disk.crash();
            // Some starts are cut short as well.
            if seed % 2 == 1 {
                model.disk.cut_power_after(cut % 7);
                let _ = model.start();
                model.disk.crash();
            }
            model.reopen();
            model.run(&[Step::Append(vec![10, 600]), Step::Sync, Step::Crash], true);
            model.run(&[Step::Append(vec![1]), Step::Sync, Step::Kill], true);
        }
    }
}

#[test]
fn a_crash_at_any_moment_of_an_eventful_life_loses_nothing_acknowledged() {
    cut_power_everywhere(&eventful_life(), 6);
}

#[test]
fn clickhouse_112101_item_41_a_crash_during_truncation_leaves_a_log_that_starts() {
    let steps = [
        Step::Append(vec![600; 8]),
        Step::Sync,
        Step::Append(vec![700; 8]),
        Step::Sync,
        Step::Append(vec![800; 8]),
        Step::Snapshot { back: 0 },
        Step::Append(vec![900; 8]),
        Step::Sync,
        Step::Truncate { back: 28 },
        Step::Append(vec![300; 2]),
        Step::Sync,
    ];
    cut_power_everywhere(&steps, 24);
}

#[test]
fn clickhouse_102629_item_41_the_durable_zxid_goes_back_with_a_truncation() {
    use super::*;
    let disk = MemoryDisk::new(1);
    let mut log = open_log(&disk).unwrap();
    append_each(&mut log, 1..=50);
    let reader = log.reader();
    log.truncate_to(zxid(20)).unwrap();
    assert_eq!((log.durable_zxid(), reader.last_zxid()), (zxid(20), zxid(20)));
    log.append(zxid(21), b"other").unwrap();
    assert_eq!((log.durable_zxid(), reader.last_zxid()), (zxid(20), zxid(20)));
}

#[test]
fn a_crash_while_a_snapshot_replaces_the_history_leaves_the_old_or_the_new() {
    let steps = [
        Step::Append(vec![600; 8]),
        Step::Snapshot { back: 2 },
        Step::Append(vec![600; 8]),
        Step::Sync,
        Step::Install { back: 9, new: 3 },
        Step::Append(vec![10]),
        Step::Sync,
        Step::Install { back: 1, new: 0 },
    ];
    cut_power_everywhere(&steps, 24);
}

#[test]
fn zookeeper_2307_item_29_a_crash_during_a_change_of_epoch_leaves_the_old_or_the_new() {
    cut_power_everywhere(&[Step::Epoch, Step::Epoch, Step::Epoch], 32);
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = prop::collection::vec(prop_oneof![0..64_usize, 0..1500_usize], 1..8);
    prop_oneof![
        6 => lengths.prop_map(Step::Append),
        6 => Just(Step::Sync),
        1 => (0..4_usize).prop_map(|back| Step::Snapshot { back }),
        1 => (0..12_usize).prop_map(|back| Step::Truncate { back }),
        1 => (1..3_usize).prop_map(|keep| Step::Purge { keep }),
        1 => (0..6_usize, 0..3_usize).prop_map(|(back, new)| Step::Install { back, new }),
        1 => Just(Step::Epoch),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        2 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_life_with_crashes_keeps_what_was_synced_and_invents_nothing(
        seed: u64,
        steps in prop::collection::vec(step(), 1..60),
        cut in prop::option::of(0..200_u64),
    ) {
        let mut model = Model::new(seed);
        model.reopen();
        if let Some(cut) = cut {
            model.disk.cut_power_after(cut);
        }
        model.run(&steps, true);
        model.disk.crash();
        model.reopen();
    }
}

#[test]
fn regression_a_new_segment_never_takes_the_name_of_a_renamed_one() {
    // Of the emptied segment's rename only the old name came back, and the next segment wanted it.
    let steps = [
        Step::Append(vec![0; 10]),
        Step::Crash,
        Step::Append(vec![0, 0]),
        Step::Sync,
        Step::Crash,
        Step::Truncate { back: 2 },
        Step::Crash,
        Step::Append(vec![520, 392, 1368, 48, 8, 480, 64, 24, 16, 8]),
        Step::Sync,
        Step::Crash,
        Step::Append(vec![760]),
        Step::Sync,
        Step::Crash,
    ];
    for seed in 0..500 {
        let mut model = Model::new(seed);
        model.reopen();
        model.run(&steps, true);
    }
}
