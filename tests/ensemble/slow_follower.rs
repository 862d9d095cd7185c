//! A follower that reads nothing costs its leader bounded memory, and is brought up to date afterwards.

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use znodefs_tests::ensemble::SERVICE_LIMIT;
use znodefs_tests::{Ensemble, WireClient, wait_until};

use crate::load::{client_of, create};

/// Length of a value in bytes.
const VALUE: usize = 512 << 10;
/// How much is written while the follower stands still: several times of what may wait for it.
const WRITES: usize = 1200;
/// What may wait for one follower, in MiB, and as much again for what the allocator keeps.
const GROWTH_MAX: u64 = 2 * 128;

/// Memory that a process has in use, in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.expect("VmRSS") >> 10
}

#[test]
fn a_follower_that_stands_still_costs_bounded_memory_and_catches_up() {
    // Its leader would give it up for its silence long before, at the usual limit.
    let settings =
        "syncLimit=100\npreAllocSize=16384\nsnapSizeLimitInKb=65536\nautopurge.purgeInterval=1\n";
    let mut ensemble = Ensemble::start_with(3, 0, settings);
    let runtime = Runtime::new().expect("a runtime");
    let (leader, slow) = (ensemble.leader(), ensemble.follower());
    let address = ensemble.address(leader);
    let (before, peak) = runtime.block_on(async {
        let client = client_of(&address).await;
        create(&client, "/value", b"").await.expect("a create");
        let pid = ensemble.process(leader).pid();
        let write = |number: usize| {
            let data = Bytes::from(vec![number as u8; VALUE]);
            let client = &client;
            async move { client.set_data("/value", Some(data), None).await.expect("a write") }
        };
        for number in 0..20 {
            write(number).await;
        }
        let before = resident(pid);
        ensemble.process(slow).signal(Signal::SIGSTOP);
        let mut peak = 0;
        for number in 0..WRITES {
            write(number).await;
            peak = peak.max(resident(pid));
        }
        (before, peak)
    });
    println!(
        "{before} MiB before, at most {peak} MiB while {} MiB were written",
        (WRITES * VALUE) >> 20
    );
    assert!(peak < before + GROWTH_MAX, "{before} MiB became {peak} MiB");
    ensemble.process(slow).signal(Signal::SIGCONT);
    let last = vec![(WRITES - 1) as u8; VALUE];
    wait_until("it serves again", SERVICE_LIMIT, || ensemble.is_serving(slow));
    wait_until("it has caught up", SERVICE_LIMIT, || {
        let client = WireClient::try_connect(&ensemble.address(slow));
        client.is_ok_and(|mut client| client.data("/value").as_deref() == Some(&last[..]))
    });
}
