//! fsx: random reads, writes, truncations, closes and synchronizations of one file, up to the largest value,
//! each read compared with what must be there.

use std::process::Command;

use znodefs_tests::binaries::{source_directory, tool};
use znodefs_tests::{Backend, Directory, World, on_restarts};

use crate::{LIMIT, rounds};

/// Operations of one round; a few seconds.
const OPERATIONS: &str = "600";

/// Works through one seed on a file, and gives its last line.
fn fsx(world: &World, seed: u64) {
    let artifacts = Directory::new();
    let mut command = Command::new(tool("fsx"));
    command.args(["-N", OPERATIONS, "-S", &seed.to_string(), "-P"]).arg(&*artifacts);
    command.arg("-f").arg(source_directory().join("tests/conformance/fsx.toml"));
    command.arg("file").env("RUST_BACKTRACE", "0");
    let said = world.mount.shell().time_limit(LIMIT).run(&mut command);
    assert_eq!(said.code, 0, "seed {seed}: {said:#?}");
    assert!(said.stdout.contains("All operations completed A-OK!"), "seed {seed}: {said:#?}");
}

#[track_caller]
fn a_file_is_what_was_written_to_it(backend: Backend) {
    for seed in 1..=rounds() {
        // A server of its own for each: ZooKeeper keeps the last 500 transactions in memory, which are as
        // many megabytes here.
        fsx(&World::new(backend), seed);
    }
}

#[test]
fn a_file_is_what_was_written_to_it_on_znoded() {
    a_file_is_what_was_written_to_it(Backend::Znoded);
}

#[test]
fn a_file_is_what_was_written_to_it_on_an_embedded_replica() {
    a_file_is_what_was_written_to_it(Backend::Embedded);
}

#[test]
fn a_file_is_what_was_written_to_it_on_zookeeper() {
    a_file_is_what_was_written_to_it(Backend::ZooKeeper);
}

fn a_file_is_what_was_written_to_it_with_one_seed(world: &World) {
    fsx(world, 1);
}

on_restarts![
    |server| &znodefs_tests::World::of(server, &[]);
    a_file_is_what_was_written_to_it_with_one_seed,
];
