//! Members killed, stopped, paused and started at random under load, several at once. At the end all
//! are there, show the same, and have every acknowledged write.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use znodefs::Stat;
use znodefs_tests::deadline::{Deadline, pause};
use znodefs_tests::{Ensemble, Random};

use crate::load::{Load, ROOT, assert_nothing_is_lost, client_of};

/// How long it goes on, seconds, unless `ZNODEFS_CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 15;

/// How many znodes' stats are compared between the members.
const COMPARED: usize = 300;

/// What is done to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Runs,
    Down,
    Paused,
}

fn change(ensemble: &mut Ensemble, id: u8, condition: Condition, random: &mut Random) -> Condition {
    match (condition, random.between(0, 10)) {
        (Condition::Runs, 0..6) => {
            ensemble.kill(id);
            Condition::Down
        }
        (Condition::Runs, 6..8) => {
            ensemble.stop(id);
            Condition::Down
        }
        (Condition::Runs, _) => {
            ensemble.process(id).signal(Signal::SIGSTOP);
            Condition::Paused
        }
        (Condition::Down, _) => {
            ensemble.start_member(id);
            Condition::Runs
        }
        (Condition::Paused, 0..3) => {
            ensemble.kill(id);
            Condition::Down
        }
        (Condition::Paused, _) => {
            ensemble.process(id).signal(Signal::SIGCONT);
            Condition::Runs
        }
    }
}

/// Stats of some znodes of the load as a member shows them.
async fn stats_at(address: &str) -> BTreeMap<String, Stat> {
    let client = client_of(address).await;
    client.sync(ROOT).await.expect("a sync");
    let (mut names, _) = client.get_children(ROOT, false).await.expect("the children");
    names.sort();
    let step = (names.len() / COMPARED).max(1);
    let mut stats = BTreeMap::new();
    for path in names.iter().step_by(step).map(|name| format!("{ROOT}/{name}")) {
        let stat = client.exists(&path, false).await.expect("a read").expect("what was listed");
        stats.insert(path, stat);
    }
    let root = client.exists(ROOT, false).await.expect("a read").expect("the root");
    stats.insert(ROOT.to_string(), root);
    stats
}

#[test]
fn etcd_13766_and_13854_item_37_members_that_come_and_go_at_random_stay_alike() {
    let mut random = Random::announced();
    let settings = "tickTime=400\ninitLimit=20\nsyncLimit=4\nmaxSessionTimeout=60000\n\
                    snapCount=1000\n";
    let mut ensemble = Ensemble::start_with(3, 1, settings);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 6);
    let mut conditions = vec![Condition::Runs; 4];
    let given = std::env::var("ZNODEFS_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Deadline::after(Duration::from_secs(given.unwrap_or(SECONDS)));
    let mut changes = 0;
    while !end.has_passed() {
        pause(Duration::from_millis(random.between(10, 900)));
        for _ in 0..random.between(1, 3) {
            let id = random.between(1, 5) as u8;
            let place = usize::from(id) - 1;
            conditions[place] = change(&mut ensemble, id, conditions[place], &mut random);
            changes += 1;
        }
    }
    for (id, condition) in ensemble.ids().into_iter().zip(conditions) {
        match condition {
            Condition::Runs => {}
            Condition::Down => ensemble.start_member(id),
            Condition::Paused => ensemble.process(id).signal(Signal::SIGCONT),
        }
    }
    ensemble.ids().into_iter().for_each(|id| ensemble.wait_until_serving(id));
    let report = load.stop(&runtime);
    println!(
        "{changes} changes of members, {} writes acknowledged, {} unknown",
        report.acknowledged.len(),
        report.unknown
    );
    assert_nothing_is_lost(&runtime, &ensemble, &report);
    let first = runtime.block_on(stats_at(&ensemble.address(1)));
    for id in ensemble.ids() {
        let other = runtime.block_on(stats_at(&ensemble.address(id)));
        assert!(first == other, "members 1 and {id} show different stats");
    }
}
