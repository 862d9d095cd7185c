//! pjdfstest: what POSIX says of each system call. `pjdfstest.toml` lists what a coordination tree does
//! not have, with the reasons.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use znodefs_tests::binaries::{source_directory, tool};
use znodefs_tests::{Backend, Directory, Ran, World};

use crate::LIMIT;

/// Tests of this version of the program, of which a few are skipped.
const TESTS: &str = "398 total";

/// Runs it as root on a mount that has credentials, so that modes are kept, and lets other users in.
fn pjdfstest(backend: Backend) -> Ran {
    let directory = Directory::new();
    let credentials = directory.join("credentials");
    std::fs::write(&credentials, "digest:tester:secret\n").unwrap();
    std::fs::set_permissions(&credentials, PermissionsExt::from_mode(0o600)).unwrap();
    let options = format!("allow_other,credentials={}", credentials.display());
    let world = World::with_options(backend, &["-o", &options]);
    let mut command = Command::new(tool("pjdfstest"));
    command.arg("-c").arg(source_directory().join("tests/conformance/pjdfstest.toml"));
    // Relative paths, since the directories above the mount are closed to other users.
    command.args(["-p", "."]).arg("--secondary-fs").arg(&*directory);
    command.env("RUST_BACKTRACE", "0").env("NO_COLOR", "1");
    world.mount.shell().time_limit(LIMIT).run(&mut command)
}

/// The names of the tests that came to this.
fn names<'a>(ran: &'a Ran, outcome: &str) -> BTreeSet<&'a str> {
    let lines = ran.stdout.lines().filter_map(|line| line.strip_suffix(outcome));
    lines.map(str::trim).collect()
}

#[track_caller]
fn passes_all_but_what_is_listed(backend: Backend) {
    let ran = pjdfstest(backend);
    let (failed, unexpected) = (names(&ran, "FAILED"), names(&ran, "PASSED UNEXPECTEDLY"));
    assert!(
        failed.is_empty() && unexpected.is_empty() && ran.code == 0,
        "failed: {failed:#?}\nlisted, and passed: {unexpected:#?}\n{}\n{}",
        ran.stdout,
        ran.stderr
    );
    assert!(ran.stdout.contains(TESTS), "{}", ran.stdout);
    let skipped = names(&ran, "skipped");
    let listed = |name: &&str| name.contains("::erofs_") || *name == "link::link_count_max";
    assert!(skipped.iter().all(listed), "{skipped:#?}");
}

#[test]
fn znoded_passes_all_but_what_is_listed() {
    passes_all_but_what_is_listed(Backend::Znoded);
}

#[test]
fn zookeeper_passes_all_but_what_is_listed() {
    passes_all_but_what_is_listed(Backend::ZooKeeper);
}
