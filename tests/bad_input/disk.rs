//! Damaged logs and directories that cannot be used.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use znodefs_tests::{Directory, Ran, Server, Shell, WireClient, Znoded, binary, free_port};

/// The exit code for a data directory that cannot be used, as ZooKeeper's servers have it.
const DATA_UNUSABLE: i32 = 3;

/// Number of values that are acknowledged before the log is damaged.
const VALUES: usize = 100;

/// A stopped replica that has acknowledged [`VALUES`] values.
fn stopped_replica() -> Znoded {
    let mut server = Znoded::start();
    let mut client = WireClient::connect(&server.address());
    for number in 0..VALUES {
        client.create(&path(number), Some(value(number).as_bytes()));
    }
    server.kill();
    server
}

fn path(number: usize) -> String {
    format!("/value-{number}")
}

fn value(number: usize) -> String {
    format!("the {number}th value of the log")
}

#[track_caller]
fn assert_all_there(server: &Znoded) {
    let mut client = WireClient::connect(&server.address());
    for number in 0..VALUES {
        let data = client.data(&path(number));
        assert_eq!(data.as_deref(), Some(value(number).as_bytes()), "{}", path(number));
    }
}

/// The newest log file, and where its last record ends: what follows is preallocated zeros.
fn log_file(server: &Znoded) -> (PathBuf, u64) {
    let mut logs = Vec::new();
    let mut pending = vec![server.data_directory()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_dir() {
                true => pending.push(path),
                false if name.starts_with("log") => logs.push(path),
                false => {}
            }
        }
    }
    logs.sort();
    let newest = logs.pop().expect("a log");
    let bytes = std::fs::read(&newest).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    (newest, end)
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    std::fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Tries to start a replica that must refuse.
fn start(command: &mut Command) -> Ran {
    Shell::new(Path::new("/")).run(command)
}

#[test]
fn a_torn_record_at_the_logs_end_is_cut_off() {
    let mut server = stopped_replica();
    let (log, end) = log_file(&server);
    let bytes = std::fs::read(&log).unwrap();
    // Some bytes of a record that was being written: a copy of the last one's. Zeros at the end of
    // the last whole record look like preallocated ones, hence the distance.
    let half = &bytes[end as usize - 40..end as usize - 10];
    write_at(&log, (end + 16).next_multiple_of(8), half);
    server.start_again();
    assert_all_there(&server);
    WireClient::connect(&server.address()).create("/afterwards", Some(b"x"));
    server.start_again();
    assert_all_there(&server);
    assert!(WireClient::connect(&server.address()).stat("/afterwards").is_some());
}

#[test]
fn a_log_cut_in_its_last_record_loses_that_record_only() {
    let mut server = stopped_replica();
    let (log, end) = log_file(&server);
    std::fs::File::options().write(true).open(&log).unwrap().set_len(end - 7).unwrap();
    server.start_again();
    let mut client = WireClient::connect(&server.address());
    for number in 0..VALUES - 1 {
        assert_eq!(client.data(&path(number)).as_deref(), Some(value(number).as_bytes()));
    }
}

#[test]
fn a_log_damaged_in_the_middle_is_refused_by_name_and_offset() {
    let server = stopped_replica();
    let (log, end) = log_file(&server);
    let middle = end / 2;
    let byte = std::fs::read(&log).unwrap()[middle as usize];
    write_at(&log, middle, &[!byte]);
    let directory = server.data_directory().parent().unwrap().to_path_buf();
    let ran = start(&mut Znoded::command(&directory, free_port()));
    let line = ran.ends_saying(DATA_UNUSABLE, &[&log.display().to_string(), "at byte "]);
    let offset = line.split("at byte ").nth(1).and_then(|rest| rest.split(':').next());
    let offset: u64 = offset.and_then(|offset| offset.parse().ok()).expect(&line);
    assert!(offset <= middle && middle < offset + 200, "the record with byte {middle}: {line}");
    // Nothing was touched: undoing the damage brings everything back.
    write_at(&log, middle, &[byte]);
    let mut server = server;
    server.start_again();
    assert_all_there(&server);
}

#[test]
fn a_file_in_place_of_the_directory_is_named() {
    let directory = Directory::new();
    let file = directory.join("data");
    std::fs::write(&file, "not a directory").unwrap();
    let ran = start(&mut Znoded::command(&directory, free_port()));
    ran.ends_saying(DATA_UNUSABLE, &[&file.display().to_string()]);
}

#[test]
fn a_directory_that_may_not_be_read_is_named() {
    let directory = Directory::new();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
    let data = directory.subdirectory("data");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    // Where the binary was built may be closed to other users.
    let program = directory.join("znoded");
    std::fs::copy(binary("znoded"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command.arg("--standalone").arg(&data).arg("--listen");
    command.arg(format!("127.0.0.1:{}", free_port()));
    start(&mut command)
        .ends_saying(DATA_UNUSABLE, &[&data.display().to_string(), "ermission denied"]);
}

#[test]
fn a_directory_in_use_by_another_replica_is_named() {
    let server = Znoded::start();
    let directory = server.data_directory().parent().unwrap().to_path_buf();
    let ran = start(&mut Znoded::command(&directory, free_port()));
    ran.ends_saying(DATA_UNUSABLE, &[&server.data_directory().display().to_string()]);
}
