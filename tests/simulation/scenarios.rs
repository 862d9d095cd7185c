//! Runs of whole replicas in which one thing is arranged that the faults of every day bring about too
//! seldom to be sure of.

use znodefs::Zxid;
use znodefs_server::persistence::Disk;

use crate::networked::Networked;
use crate::replica::log::Log;
use crate::replica::plan::{Limits, Plan};
use crate::replica::world::{Happening, World};
use crate::trace::Detail;

/// Three replicas and two clients without faults.
fn quiet_plan() -> Plan {
    let mut plan = Plan::new(7, None, Limits { faults: 0, clients: 2, ..Limits::NONE });
    (plan.voters, plan.observers, plan.joiners) = (3, 0, 0);
    (plan.reconfiguration_percent, plan.loss_percent, plan.log_apart) = (0, 0, false);
    plan
}

/// The same, some seconds after all were started a second time:
/// what was committed before is on their disks, and too long ago to be sent entry by entry.
fn quiet_world() -> World {
    let mut plan = quiet_plan();
    plan.block_length = 400;
    let mut world = World::new(plan, Log::new(Detail::Nothing));
    world.run_until(5_000_000);
    (0..3).for_each(|node| world.crash(node, true));
    world.run_until(20_000_000);
    world
}

fn serves(world: &World, node: usize) -> bool {
    world.nodes[node].process.as_ref().is_some_and(|process| process.serving)
}

/// A follower with a new disk of so many bytes; how often it gave its leader's snapshot up.
fn follower_with_room_for(bytes: u64) -> u64 {
    let mut world = quiet_world();
    let leader = world.leader().expect("some seconds are enough for an election");
    let node = (leader + 1) % 3;
    world.end_process(node, true);
    world.empty(node);
    world.nodes[node].disk_fails = true;
    world.nodes[node].data.set_capacity(Some(bytes));
    world.agenda.schedule_in(0, Happening::Start { node });
    world.run_until(world.agenda.now() + 3_000_000);
    let given_up = world.counts.snapshots_given_up;
    assert!(world.nodes[node].process.is_some(), "it lives");
    assert!(!serves(&world, node), "it has nothing to serve");
    world.make_room(node);
    world.run_until(world.agenda.now() + 10_000_000);
    assert!(world.violation.is_none(), "{:?}", world.violation);
    assert!(serves(&world, node), "with room it takes the snapshot");
    given_up
}

#[test]
fn a_snapshot_for_which_there_is_no_room_is_given_up_and_taken_later() {
    for bytes in [1_000, 2_000] {
        assert!(follower_with_room_for(bytes) > 0, "{bytes} bytes were enough");
    }
}

#[test]
fn a_member_whose_snapshot_found_no_room_trusts_its_disk_after_a_restart() {
    let mut world = quiet_world();
    let leader = world.leader().expect("some seconds are enough for an election");
    let node = (leader + 1) % 3;
    // The others go on, and after a restart have no log any more of what it misses.
    world.plan.snapshot_txns = 10;
    let end = world.agenda.now() + 20_000_000;
    world.cut_off(node, 3, 20_000_000);
    world.run_until(end - 10_000_000);
    (0..3).filter(|other| *other != node).for_each(|other| world.crash(other, true));
    let disk = world.nodes[node].data.clone();
    world.nodes[node].disk_fails = true;
    disk.set_capacity(Some(disk.used() + 1_000));
    world.run_until(end + 5_000_000);
    assert!(world.counts.snapshots_given_up > 0, "there was room for it");
    world.end_process(node, false);
    disk.set_capacity(None);
    world.start(node);
    assert!(world.violation.is_none(), "{:?}", world.violation);
    world.run_until(world.agenda.now() + 10_000_000);
    assert!(world.violation.is_none(), "{:?}", world.violation);
    assert!(serves(&world, node), "with room it takes the snapshot");
}

#[test]
fn a_restart_without_its_kept_configuration_knows_the_members_that_what_it_applies_has_made() {
    let mut plan = quiet_plan();
    (plan.reconfiguration_percent, plan.snapshot_txns) = (100, 1_000);
    plan.read_only_nodes = u64::MAX;
    let mut world = World::new(plan, Log::new(Detail::Nothing));
    world.run_until(5_000_000);
    world.end_process(0, false);
    // There was no room for it, and what waited for room went with the process.
    world.nodes[0].data.remove("configuration").expect("it was kept");
    world.start(0);
    assert!(world.violation.is_none(), "{:?}", world.violation);
    let process = world.nodes[0].process.as_ref().expect("it starts");
    let committed = process.driver.zab().quorum().committed().version;
    let applied = process.service.database.tree.read().last_applied();
    assert!(Zxid::ZERO < committed && committed < applied, "{committed}, applied {applied}");
}
