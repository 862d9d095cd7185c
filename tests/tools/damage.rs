//! A replica's files, the damage done to them, and `znoded` as an administrator runs it.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use znodefs_tests::{Ran, Server, Shell, WireClient, Znoded, binary};

/// Number of values that [`filled`] has acknowledged.
pub const VALUES: usize = 100;

/// The path of a value.
pub fn path(number: usize) -> String {
    format!("/value-{number:03}")
}

/// The value itself.
pub fn value(number: usize) -> String {
    format!("the {number}th value")
}

/// A running replica that has acknowledged [`VALUES`] values.
pub fn filled() -> Znoded {
    let server = Znoded::start();
    let mut client = WireClient::connect(&server.address());
    (0..VALUES).for_each(|number| client.create(&path(number), Some(value(number).as_bytes())));
    server
}

/// The same, stopped by `kill -9`.
pub fn filled_and_killed() -> Znoded {
    let mut server = filled();
    server.kill();
    server
}

/// Runs `znoded` with these arguments.
pub fn znoded<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    Shell::new(Path::new("/")).run(Command::new(binary("znoded")).args(arguments))
}

/// Where the replica's own files are.
pub fn inner(data: &Path) -> PathBuf {
    data.join("znodefs-1")
}

/// The names of all files there, sorted.
pub fn names(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(inner(data)).expect("the replica's files");
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The contents of all files there.
pub fn contents(data: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(inner(data).join(name)).unwrap());
    names(data).into_iter().map(read).collect()
}

/// The only file of the log.
pub fn log_file(data: &Path) -> PathBuf {
    let is_log = |name: &String| {
        name.strip_prefix("log.").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut logs = names(data).into_iter().filter(is_log);
    let log = logs.next().expect("a log");
    assert_eq!(logs.next(), None, "one log");
    inner(data).join(log)
}

/// Flips a byte inside the value with this number; returns where.
pub fn damage_value(log: &Path, number: usize) -> u64 {
    let bytes = std::fs::read(log).expect("the log");
    let wanted = value(number).into_bytes();
    let at = bytes.windows(wanted.len()).position(|window| window == wanted);
    let at = at.expect("the value in the log") as u64;
    let file = std::fs::File::options().write(true).open(log).expect("the log");
    file.write_all_at(&[!bytes[at as usize]], at).expect("a byte");
    at
}

/// Fails unless exactly these values are there.
#[track_caller]
pub fn assert_values(address: &str, numbers: std::ops::Range<usize>) {
    let mut client = WireClient::connect(address);
    for number in 0..VALUES {
        let expected = numbers.contains(&number).then(|| value(number));
        let data = client.get(&path(number)).ok().and_then(|(data, _)| data);
        assert_eq!(data.as_deref(), expected.as_deref().map(str::as_bytes), "{}", path(number));
    }
}
