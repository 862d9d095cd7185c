//! Every test of a client runs on an ensemble whose members are restarted, or is on the list of those left
//! out, with its reason; and the list names only what there is.

use std::path::Path;

use znodefs_tests::restarts::{Exception, exceptions};

use crate::{assert_none, read, sources};

/// The binaries with tests of clients. The others test servers: how they start, agree, crash and are mended.
const OF_CLIENTS: &[&str] = &[
    "bad_input",
    "cache",
    "cli",
    "clients",
    "commands",
    "conformance",
    "inotify",
    "lifetimes",
    "locks",
    "mount",
    "mount_cli",
    "service",
];

/// The files of such a binary with the modules they are.
fn modules() -> Vec<(String, String)> {
    let sources = sources(".rs");
    let within = sources.iter().filter_map(|path| {
        let area = path.strip_prefix("tests").ok()?.parent()?.to_str()?;
        let name = path.file_stem()?.to_str()?;
        let module = if name == "main" { area.to_string() } else { format!("{area}::{name}") };
        OF_CLIENTS.contains(&area).then(|| (module, read(Path::new(path))))
    });
    within.collect()
}

/// The tests that run on one kind of server only; those on a list of servers have no `#[test]` themselves.
fn tests_of_their_own(text: &str) -> Vec<&str> {
    let pairs = text.lines().zip(text.lines().skip(1));
    let tests = pairs.filter(|(attribute, _)| attribute.trim() == "#[test]");
    tests.filter_map(|(_, line)| line.trim().strip_prefix("fn ")?.split('(').next()).collect()
}

#[test]
fn every_client_test_meets_restarts_or_is_left_out_with_a_reason() {
    let listed: Vec<_> =
        exceptions().into_iter().filter(|one| one.exception == Exception::LeftOut).collect();
    let mut findings = Vec::new();
    for (module, text) in modules() {
        for test in tests_of_their_own(&text) {
            if !listed.iter().any(|one| one.names(&module, test)) {
                findings.push(format!("{module}::{test}"));
            }
        }
    }
    assert_none("neither run with restarts nor in tests/common/restarts/exceptions.txt", findings);
}

#[test]
fn the_list_of_exceptions_names_what_there_is() {
    let modules = modules();
    let mut findings = Vec::new();
    for one in exceptions() {
        let text = modules.iter().find(|(module, _)| module == one.module).map(|(_, text)| text);
        let function = format!("fn {}(", one.test);
        if !text.is_some_and(|text| one.test == "*" || text.contains(&function)) {
            findings.push(format!("{}::{}", one.module, one.test));
        }
        if one.reason.is_empty() {
            findings.push(format!("{}::{} has no reason", one.module, one.test));
        }
    }
    assert_none("tests/common/restarts/exceptions.txt names what is not there", findings);
}
