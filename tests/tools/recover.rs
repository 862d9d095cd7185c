//! `znoded recover`, and restoring a whole ensemble.

use std::path::Path;

use znodefs_tests::{Directory, Ensemble, WireClient};

use crate::damage::znoded;

/// Stops all members but `survivor`, and then that one too, as after a fire.
fn lose_all_but(ensemble: &mut Ensemble, survivor: u8) {
    for id in ensemble.ids() {
        ensemble.kill(id);
    }
    for id in ensemble.ids().into_iter().filter(|id| *id != survivor) {
        ensemble.wipe(id);
    }
}

fn configuration(ensemble: &Ensemble, id: u8) -> std::path::PathBuf {
    ensemble.data_directory(id).with_extension("cfg")
}

/// The 32 digits behind the word `ensemble` in the last line that has them.
fn ensemble_id(said: &str) -> String {
    let behind = said.split("of ensemble ").last().expect("an ensemble");
    behind.chars().take(32).collect()
}

#[test]
fn a_lost_quorum_is_recovered_from_one_replica_as_the_procedure_says() {
    let mut ensemble = Ensemble::start(3, 0);
    let mut client = WireClient::connect(&ensemble.address(ensemble.leader()));
    for number in 0..50 {
        client.create(&format!("/kept-{number}"), Some(b"x"));
    }
    let survivor = ensemble.follower();
    WireClient::connect(&ensemble.address(survivor)).create("/through-the-survivor", None);
    drop(client);
    lose_all_but(&mut ensemble, survivor);

    let file = configuration(&ensemble, survivor);
    let data = ensemble.data_directory(survivor);
    let shown = znoded(["recover".as_ref(), file.as_os_str()]);
    shown.ends_saying(1, &["nothing was changed", "znoded recover --yes"]);
    assert!(shown.stdout.contains("The cost:"), "{shown:#?}");
    let said = znoded(["recover".as_ref(), "--yes".as_ref(), file.as_os_str()]).ok();
    assert!(said.contains(&format!("is now replica {survivor} of ensemble")), "{said}");
    let id = ensemble_id(said.split("which is new").next().unwrap());

    let directory = Directory::new();
    let backup = directory.join("backup");
    znoded(["backup".as_ref(), data.as_os_str(), backup.as_os_str()]).ok();
    for other in ensemble.ids().into_iter().filter(|other| *other != survivor) {
        restore_member(&backup, &ensemble.data_directory(other), other, Some(&id));
    }
    serve_again(&mut ensemble, "/kept-49");
    let mut client = WireClient::connect(&ensemble.address(1));
    assert!(client.stat("/through-the-survivor").is_some());
}

#[test]
fn an_ensemble_is_restored_from_a_backup_of_one_running_member() {
    let mut ensemble = Ensemble::start(3, 0);
    WireClient::connect(&ensemble.address(2)).create("/kept", Some(b"x"));
    let directory = Directory::new();
    let backup = directory.join("backup");
    let source = ensemble.data_directory(2);
    znoded(["backup".as_ref(), source.as_os_str(), backup.as_os_str()]).ok();
    for id in ensemble.ids() {
        ensemble.kill(id);
        ensemble.wipe(id);
    }
    let said = restore_member(&backup, &ensemble.data_directory(1), 1, None);
    let id = ensemble_id(said.split(", which").next().unwrap());
    for other in [2, 3] {
        restore_member(&backup, &ensemble.data_directory(other), other, Some(&id));
    }
    serve_again(&mut ensemble, "/kept");
}

fn restore_member(backup: &Path, data: &Path, id: u8, ensemble_id: Option<&str>) -> String {
    let id = id.to_string();
    let mut arguments = vec!["restore".as_ref(), "--id".as_ref(), std::ffi::OsStr::new(&id)];
    if let Some(ensemble_id) = ensemble_id {
        arguments.extend([std::ffi::OsStr::new("--ensemble-id"), ensemble_id.as_ref()]);
    }
    arguments.extend([backup.as_os_str(), data.as_os_str()]);
    znoded(arguments).ok()
}

/// Starts all members; each must have `path`, take a write, and lose it to none.
#[track_caller]
fn serve_again(ensemble: &mut Ensemble, path: &str) {
    for id in ensemble.ids() {
        ensemble.start_member(id);
    }
    for id in ensemble.ids() {
        ensemble.wait_until_serving(id);
        let mut client = WireClient::connect(&ensemble.address(id));
        assert!(client.stat(path).is_some(), "{path} at member {id}");
        client.create(&format!("/written-at-{id}"), None);
    }
}

#[test]
fn a_member_with_a_damaged_log_is_not_cut_without_another_word() {
    let mut ensemble = Ensemble::start(3, 0);
    let follower = ensemble.follower();
    let mut client = WireClient::connect(&ensemble.address(follower));
    for number in 0..crate::damage::VALUES {
        let value = crate::damage::value(number);
        client.create(&crate::damage::path(number), Some(value.as_bytes()));
    }
    ensemble.kill(follower);
    let data = ensemble.data_directory(follower);
    crate::damage::damage_value(&crate::damage::log_file(&data), 50);
    let file = configuration(&ensemble, follower);
    znoded(["repair".as_ref(), "--yes".as_ref(), file.as_os_str()])
        .ends_saying(1, &["member of an ensemble", "--accept-rollback", "empty "]);
    // What it says instead works.
    ensemble.wipe(follower);
    ensemble.start_member(follower);
    ensemble.wait_until_serving(follower);
    crate::damage::assert_values(&ensemble.address(follower), 0..crate::damage::VALUES);
}
