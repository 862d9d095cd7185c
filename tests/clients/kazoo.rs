//! kazoo, the Python client.

use std::process::Command;

use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::{Ran, Server, Shell, on_every_server};

/// Runs one step of `kazoo_client.py` against the server at `address`.
#[track_caller]
pub fn kazoo(address: &str, step: &[&str]) -> Ran {
    let script = source_directory().join("tests/clients/kazoo_client.py");
    let shell = Shell::new(&std::env::temp_dir());
    shell.run(Command::new(python()).arg("-B").arg(script).arg(address).args(step))
}

fn kazoo_creates_reads_and_deletes(server: &mut dyn Server) {
    kazoo(&server.address(), &["create_read_delete"]).ok();
}

fn kazoo_is_told_of_changes_by_watches(server: &mut dyn Server) {
    kazoo(&server.address(), &["watches"]).ok();
}

fn kazoo_commits_transactions_whole_or_not_at_all(server: &mut dyn Server) {
    kazoo(&server.address(), &["transactions"]).ok();
}

fn kazoo_opens_what_its_identity_may(server: &mut dyn Server) {
    kazoo(&server.address(), &["access"]).ok();
}

fn kazoo_runs_its_recipes(server: &mut dyn Server) {
    kazoo(&server.address(), &["recipes"]).ok();
}

on_every_server![
    kazoo_creates_reads_and_deletes,
    kazoo_is_told_of_changes_by_watches,
    kazoo_commits_transactions_whole_or_not_at_all,
    kazoo_opens_what_its_identity_may,
    kazoo_runs_its_recipes,
];
