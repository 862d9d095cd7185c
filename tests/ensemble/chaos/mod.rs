//! Chaos on real processes, in a network of their own, with disks of their own: while members are
//! killed, paused, cut off and filled up, clients record what they see; the history is judged, and in
//! the end all members show the same tree. `scripts/chaos` goes on for as long as one likes.

mod clients;
mod nemesis;

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_tests::deadline::{Deadline, pause};
use znodefs_tests::{Ensemble, Network, Random, SmallDisk};

use clients::{Record, look_at_everything, prepare, work};
use nemesis::Nemesis;

/// How long it goes on, seconds, unless `ZNODEFS_CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 20;

/// Clients at work.
const WORKERS: u64 = 8;

/// Room on a member's disk: two segments of the log and some snapshots.
const DISK_MIB: u64 = 192;

/// Ticks of 200 ms: syncLimit is 1 s, initLimit 4 s. Sessions of 3 s and more.
const SETTINGS: &str = "tickTime=200\ninitLimit=20\nsyncLimit=5\nminSessionTimeout=1000\n\
                        maxSessionTimeout=60000\nsnapCount=500\nautopurge.snapRetainCount=3\n\
                        autopurge.purgeInterval=1\n";

/// Longer than the longest session of a client, and what the leader adds.
const ALL_EXPIRED: Duration = Duration::from_secs(10);

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Members with a network and disks of their own.
fn start(voters: u8, observers: u8) -> (Ensemble, Vec<SmallDisk>) {
    let ids: Vec<u8> = (1..=voters + observers).collect();
    let network = Network::new(&ids);
    network.become_client();
    let mut ensemble = Ensemble::configure_on(Some(network), voters, observers, SETTINGS);
    let disk = |id: &u8| SmallDisk::mount(&ensemble.data_directory(*id), DISK_MIB);
    let disks = ids.iter().map(disk).collect();
    ids.iter().for_each(|id| ensemble.start_member(*id));
    ids.iter().for_each(|id| ensemble.wait_until_serving(*id));
    (ensemble, disks)
}

fn chaos(voters: u8, observers: u8, seconds: u64) {
    let seed = number_from("ZNODEFS_SEED").unwrap_or_else(|| Random::from_system().next_u64());
    eprintln!(
        "once more: scripts/chaos --minutes {} --seed {seed} --voters {voters} --observers {observers}",
        seconds.div_ceil(60)
    );
    let random = Random::from_seed(seed);
    // Dropped in this order, the disks before the directories that they are mounted in.
    let (mut ensemble, disks) = start(voters, observers);
    let members = usize::from(voters + observers);
    let mut nemesis = Nemesis::new(random, members, disks);
    let runtime = Runtime::new().expect("a runtime");
    let record = Record::new();
    let servers = ensemble.connect_string();
    runtime.block_on(prepare(&record, &servers));
    let stops = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let random = Random::from_seed(nemesis.random.next_u64());
            let (record, servers, stops) = (record.clone(), servers.clone(), Arc::clone(&stops));
            runtime.spawn(work(record, servers, random, number, stops))
        })
        .collect();
    let end = Deadline::after(Duration::from_secs(seconds));
    nemesis.rage(&mut ensemble, end, || {
        if stderr().is_terminal() {
            let left = end.remaining().as_secs();
            eprint!("\r{left} s left, {} requests   ", record.len());
        }
    });
    nemesis.relent(&mut ensemble);
    // A while of peace shows what became of what was under way.
    pause(Duration::from_secs(1));
    stops.store(true, Ordering::Relaxed);
    let mut lost = Vec::new();
    for worker in workers {
        lost.extend(runtime.block_on(worker).expect("a client that does not panic"));
    }
    pause(ALL_EXPIRED);
    lost.into_iter().for_each(|client| record.must_be_over(client));
    let mut shown = None;
    for id in ensemble.ids() {
        let tree = runtime.block_on(look_at_everything(&record, &ensemble.address(id)));
        let first = shown.get_or_insert_with(|| tree.clone());
        assert!(*first == tree, "members 1 and {id} show different trees:\n{first:#?}\n{tree:#?}");
    }
    let report = record.history().check();
    println!("{:?}: {report}", nemesis.done);
    report.assert_clean();
    assert!(report.answered > 100, "the service was hardly ever there");
}

#[test]
fn chaos_with_three_members_breaks_no_promise() {
    let seconds = number_from("ZNODEFS_CHAOS_SECONDS").unwrap_or(SECONDS);
    let voters = number_from("ZNODEFS_CHAOS_VOTERS").unwrap_or(3) as u8;
    let observers = number_from("ZNODEFS_CHAOS_OBSERVERS").unwrap_or(0) as u8;
    chaos(voters, observers, seconds);
}

#[test]
fn chaos_with_five_voters_and_an_observer_breaks_no_promise() {
    chaos(5, 1, SECONDS);
}
