//! An ensemble forms, agrees, and says who is who.

use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_tests::deadline::pause;
use znodefs_tests::{Ensemble, wait_until};

use crate::load::{client_of, create};

#[test]
fn three_voters_and_an_observer_are_one_tree() {
    let ensemble = Ensemble::start(3, 1);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for writer in ensemble.ids() {
            let path = format!("/from-{writer}");
            let client = client_of(&ensemble.address(writer)).await;
            create(&client, &path, b"value").await.expect("a create");
            for reader in ensemble.ids() {
                let client = client_of(&ensemble.address(reader)).await;
                client.sync(&path).await.expect("a sync");
                let (data, _) = client.get_data(&path, false).await.expect("what was written");
                assert_eq!(data.as_deref(), Some(&b"value"[..]), "{writer} to {reader}");
            }
        }
    });
}

#[test]
fn every_member_says_what_it_is() {
    let ensemble = Ensemble::start(3, 1);
    let leader = ensemble.leader();
    let roles = |wanted: &str| {
        ensemble
            .ids()
            .into_iter()
            .filter(|id| ensemble.role(*id).as_deref() == Some(wanted))
            .count()
    };
    assert_eq!((roles("leader"), roles("follower"), roles("observer")), (1, 2, 1));
    assert_eq!(ensemble.role(4).as_deref(), Some("observer"));
    wait_until("the leader counts its learners", Duration::from_secs(10), || {
        ensemble.monitored(leader, "zk_synced_followers").as_deref() == Some("2")
            && ensemble.monitored(leader, "zk_synced_observers").as_deref() == Some("1")
    });
    let status = ensemble.word(leader, "srvr").unwrap_or_default();
    assert!(status.contains("Mode: leader"), "{status}");
    let client = Runtime::new().expect("a runtime").block_on(async {
        let client = client_of(&ensemble.address(4)).await;
        client.get_data("/zookeeper/config", false).await.expect("the configuration").0
    });
    let config = String::from_utf8(client.unwrap_or_default().to_vec()).expect("text");
    assert!(config.contains("server.4=127.0.0.1:") && config.contains(":observer;"), "{config}");
    assert!(config.ends_with("version=0"), "{config}");
}

#[test]
fn nobody_serves_before_all_voters_of_a_new_ensemble_are_there() {
    let mut ensemble = Ensemble::configure(3, 0, "");
    ensemble.start_member(1);
    ensemble.start_member(2);
    wait_until("both answer words", Duration::from_secs(20), || {
        let not_serving = |id| {
            ensemble.word(id, "srvr").is_some_and(|answer| answer.contains("not currently serving"))
        };
        not_serving(1) && not_serving(2)
    });
    // A majority of empty replicas is none: the third may have the data.
    pause(Duration::from_secs(2));
    assert!(!ensemble.is_serving(1) && !ensemble.is_serving(2));
    assert_eq!(ensemble.word(1, "isro").as_deref(), Some("null"));
    assert_eq!(ensemble.word(1, "ruok").as_deref(), Some("imok"));
    ensemble.start_member(3);
    (1..=3).for_each(|id| ensemble.wait_until_serving(id));
}

#[test]
fn a_majority_may_be_told_to_begin_without_the_rest() {
    let mut ensemble = Ensemble::configure(3, 0, "");
    ensemble.start_member_with(1, &["--initialize"]);
    ensemble.start_member_with(2, &["--initialize"]);
    ensemble.wait_until_serving(1);
    ensemble.wait_until_serving(2);
    ensemble.start_member(3);
    ensemble.wait_until_serving(3);
}

#[test]
fn an_ensemble_that_removes_old_files_forms_and_starts_again() {
    let mut ensemble = Ensemble::start_with(3, 0, "autopurge.purgeInterval=1\n");
    for id in 1..=3 {
        ensemble.stop(id);
        ensemble.start_member(id);
        ensemble.wait_until_serving(id);
    }
}
