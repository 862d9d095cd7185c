//! No herd: each contender watches only the one before it, and a release stirs only the one behind. The
//! server's own words are the witness.

use std::collections::BTreeMap;
use std::time::Duration;

use znodefs_tests::server::four_letter_word;
use znodefs_tests::{Background, Ensemble, Mount, WireClient, wait_until};

const LIMIT: Duration = Duration::from_secs(40);
const LOCK: &str = "/znodefs/locks/%2Ff";
const WAITERS: usize = 20;

/// How many sessions watch each contender, by the server's `wchp`.
fn watchers(port: u16) -> BTreeMap<String, usize> {
    let mut paths = BTreeMap::new();
    let mut current = None;
    for line in four_letter_word(port, "wchp").expect("an answer").lines() {
        if let Some(path) = line.strip_prefix(LOCK).filter(|path| !path.is_empty()) {
            current = Some(path.to_string());
            paths.insert(path.to_string(), 0);
        } else if line.starts_with('/') {
            assert_ne!(line, LOCK, "nobody watches the queue as a whole");
            current = None;
        } else if let Some(path) = &current {
            *paths.get_mut(path).expect("just inserted") += 1;
        }
    }
    paths
}

fn packets_received(port: u16) -> u64 {
    let text = four_letter_word(port, "mntr").expect("an answer");
    let line = text.lines().find_map(|line| line.strip_prefix("zk_packets_received"));
    line.expect("the count").trim().parse().expect("a number")
}

#[test]
fn a_release_stirs_one_of_twenty_waiters() {
    let ensemble = Ensemble::start_with(1, 0, "4lw.commands.whitelist=*\n");
    let address = ensemble.address(1);
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let mounts = [Mount::of(&address, &[]), Mount::of(&address, &[])];
    mounts[0].sh("touch f").ok();
    let mut contenders = Vec::new();
    let mut client = WireClient::connect(&address);
    for number in 0..=WAITERS {
        let script = "exec 9<f; flock 9; echo in; exec sleep 1000";
        contenders.push(Background::start(&mounts[number % 2], script));
        wait_until("so many contenders", LIMIT, || {
            client.stat(LOCK).is_some_and(|stat| stat.num_children as usize == number + 1)
        });
    }
    contenders[0].wait_for("in");
    wait_until("all but the last are watched", LIMIT, || watchers(port).len() >= WAITERS);
    let watched = watchers(port);
    assert_eq!(watched.len(), WAITERS, "nobody watches the last: {watched:?}");
    // The holder's mount looks after its lock, beside the one that waits for it.
    assert!(watched.values().all(|count| *count <= 2), "{watched:?}");
    assert!(watched.values().filter(|count| **count == 2).count() <= 1, "{watched:?}");

    let before = packets_received(port);
    contenders.remove(0);
    contenders[0].wait_for("in");
    let needed = packets_received(port) - before;
    // A delete, a look at the queue, a few pings; a herd would be twenty looks.
    assert!(needed < WAITERS as u64 / 2, "{needed} requests for one release");
    let in_now = contenders.iter().filter(|contender| contender.has_said("in")).count();
    assert_eq!(in_now, 1);
}
