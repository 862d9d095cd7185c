//! kazoo, the Python client.

use std::process::Command;

use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::{Backend, Ran, Server, Shell, World, on_every_server};

/// Runs one step of `kazoo_client.py` against the server at `address`.
#[track_caller]
fn kazoo(address: &str, step: &[&str]) -> Ran {
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

#[test]
fn kazoo_and_the_mount_see_what_the_other_wrote() {
    let world = World::new(Backend::Znoded);
    world.sh("mkdir service; echo from the mount > service/file").ok();
    assert_eq!(kazoo(&world.address, &["read", "/service/file"]).ok(), "from the mount\n");
    kazoo(&world.address, &["write", "/service/other", "from kazoo"]).ok();
    assert_eq!(world.sh("cat service/other; ls service").ok(), "from kazoofile\nother\n");
    world.sh("rm service/file").ok();
    assert_eq!(kazoo(&world.address, &["children", "/service"]).ok(), "other\n");
    kazoo(&world.address, &["delete", "/service"]).ok();
    world.sh("ls service").fails("No such file or directory");
}
