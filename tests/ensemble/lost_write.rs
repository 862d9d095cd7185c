//! The disk of a member loses a write that it had confirmed, at the log's end, where it looks like
//! one that a crash interrupted: what was acknowledged with that member's help stays.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use znodefs::Zxid;
use znodefs_server::persistence::file_header::{FileHeader, FileKind};
use znodefs_tests::{Ensemble, Shell, WireClient, binary, wait_until};

const SOON: Duration = Duration::from_secs(40);
const VALUE: &[u8] = b"acknowledged last";

/// Waits until a member has written down that so much is committed.
fn wait_until_noted(data: &Path, zxid: Zxid) {
    let file = data.join("znodefs-1/committed");
    wait_until("what is committed is written down", SOON, || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        FileHeader::decode(FileKind::Committed, None, &bytes).is_ok_and(|found| found.zxid >= zxid)
    });
}

/// The file of the log that holds the value, and where in it.
fn place_of_value(data: &Path) -> (PathBuf, u64) {
    let files = std::fs::read_dir(data.join("znodefs-1")).expect("the member's files");
    let mut places = files.filter_map(|file| {
        let path = file.expect("a file").path();
        let is_log = path.file_name()?.to_str()?.starts_with("log.");
        let bytes = std::fs::read(&path).ok().filter(|_| is_log)?;
        let at = bytes.windows(VALUE.len()).position(|window| window == VALUE)?;
        Some((path, at as u64))
    });
    places.next().expect("the value is in the log")
}

fn lose_value(data: &Path) {
    let (log, at) = place_of_value(data);
    let file = std::fs::File::options().write(true).open(log).expect("the log");
    file.write_all_at(&[0; VALUE.len()], at).expect("the value is overwritten");
}

#[test]
fn a_member_that_lost_an_acknowledged_write_does_not_help_to_lose_it_for_all() {
    let mut ensemble = Ensemble::start(3, 0);
    let (keeper, absent) = (ensemble.leader(), ensemble.follower());
    let damaged = 6 - keeper - absent;
    ensemble.kill(absent);
    let mut client = WireClient::connect(&ensemble.address(damaged));
    client.create("/a", Some(VALUE));
    wait_until_noted(&ensemble.data_directory(damaged), client.last_zxid);
    ensemble.kill(damaged);
    ensemble.kill(keeper);
    lose_value(&ensemble.data_directory(damaged));
    // These two would be a quorum, and neither has it.
    ensemble.start_member(damaged);
    ensemble.start_member(absent);
    wait_until("it says what it lost", SOON, || {
        ensemble.log_text(damaged).contains("has no vote")
            && ensemble.word(absent, "ruok").is_some()
    });
    assert!(!ensemble.is_serving(damaged) && !ensemble.is_serving(absent));
    ensemble.start_member(keeper);
    for id in ensemble.ids() {
        ensemble.wait_until_serving(id);
        let mut client = WireClient::connect(&ensemble.address(id));
        assert_eq!(client.data("/a").as_deref(), Some(VALUE), "at member {id}");
    }
    assert!(ensemble.log_text(damaged).contains("this replica votes again"));
    // It counts again, also after another restart.
    ensemble.kill(absent);
    ensemble.kill(damaged);
    ensemble.start_member(damaged);
    ensemble.wait_until_serving(damaged);
    WireClient::connect(&ensemble.address(damaged)).set("/a", Some(b"after"));
}

#[test]
fn an_ensemble_of_one_goes_on_without_what_it_lost_when_its_operator_accepts_that() {
    let mut ensemble = Ensemble::start_with(1, 0, "standaloneEnabled=false\n");
    let mut client = WireClient::connect(&ensemble.address(1));
    client.create("/before", None);
    client.create("/a", Some(VALUE));
    let data = ensemble.data_directory(1);
    wait_until_noted(&data, client.last_zxid);
    ensemble.kill(1);
    lose_value(&data);
    ensemble.start_member(1);
    wait_until("it says what it lost", SOON, || ensemble.log_text(1).contains("has no vote"));
    ensemble.stop(1);
    let shell = Shell::new(&data);
    let znoded =
        |arguments: &[&str]| shell.run(Command::new(binary("znoded")).args(arguments).arg(&data));
    let found = znoded(&["inspect"]).output();
    assert!(found.contains("the disk has lost a write that it had confirmed"), "{found}");
    znoded(&["repair", "--yes"]).ends_saying(1, &["--accept-rollback"]);
    znoded(&["repair", "--yes", "--accept-rollback"]).ok();
    ensemble.start_member(1);
    ensemble.wait_until_serving(1);
    let mut client = WireClient::connect(&ensemble.address(1));
    assert!(client.stat("/before").is_some() && client.stat("/a").is_none());
    client.create("/a", None);
}
