//! `znoded repair`.

use std::process::Command;

use znodefs_tests::{Server, Shell, WireClient, Znoded, free_port};

use crate::damage::{
    VALUES, assert_values, contents, damage_value, filled, filled_and_killed, log_file, names,
    path, znoded,
};

/// What a start says that must be refused.
fn refusal(server: &Znoded) -> String {
    let directory = server.data_directory().parent().unwrap().to_path_buf();
    let mut command: Command = Znoded::command(&directory, free_port());
    Shell::new(&directory).run(&mut command).ends_saying(3, &["znoded repair"])
}

#[test]
fn a_refused_start_names_the_command_that_brings_back_everything_before_the_damage() {
    let mut server = filled_and_killed();
    let data = server.data_directory();
    let log = log_file(&data);
    damage_value(&log, 60);
    let said = refusal(&server);
    let offset = said.split("at byte ").nth(1).unwrap().split(':').next().unwrap().to_string();
    let before = contents(&data);

    // Without --yes it only shows.
    let shown = znoded(["repair".as_ref(), data.as_os_str()]);
    shown.ends_saying(
        1,
        &["nothing was changed", "znoded repair --yes", &data.display().to_string()],
    );
    for part in [
        &format!("{} is damaged at byte {offset}", log.display()),
        &format!("cut {} at byte {offset}", log.file_name().unwrap().display()),
        "39 of them can still be read",
        &path(61),
    ] {
        assert!(shown.stdout.contains(part), "{part} is not in {shown:#?}");
    }
    let untouched = contents(&data).into_iter().filter(|(name, _)| name != "lock");
    assert!(untouched.eq(before.into_iter().filter(|(name, _)| name != "lock")));

    let done = znoded(["repair".as_ref(), "--yes".as_ref(), data.as_os_str()]).ok();
    assert!(done.contains("is repaired"), "{done}");
    assert!(names(&data).iter().any(|name| name.contains(&format!("at-{offset}.cut-"))), "{done}");
    server.start_again();
    assert_values(&server.address(), 0..60);
    WireClient::connect(&server.address()).create("/afterwards", Some(b"x"));
    server.start_again();
    assert!(WireClient::connect(&server.address()).stat("/afterwards").is_some());
}

#[test]
fn what_is_whole_is_left_alone() {
    let mut server = filled_and_killed();
    let data = server.data_directory();
    let said = znoded(["repair".as_ref(), "--yes".as_ref(), data.as_os_str()]).ok();
    assert!(said.contains("nothing to repair"), "{said}");
    server.start_again();
    assert_values(&server.address(), 0..VALUES);
}

#[test]
fn a_directory_in_use_is_not_repaired() {
    let mut server = filled();
    let data = server.data_directory();
    let pid = format!("process {}", server.process().pid());
    znoded(["repair".as_ref(), "--yes".as_ref(), data.as_os_str()])
        .ends_saying(3, &[&pid, "stop it"]);
    assert_values(&server.address(), 0..VALUES);
}

#[test]
fn a_directory_without_data_is_named() {
    let directory = znodefs_tests::Directory::new();
    let shown = directory.display().to_string();
    for tool in ["repair", "inspect", "recover"] {
        znoded([tool, &shown]).ends_saying(3, &[&shown, "holds no data"]);
    }
    let missing = format!("{shown}/missing");
    znoded(["repair", &missing]).ends_saying(3, &[&missing]);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing was made");
}
