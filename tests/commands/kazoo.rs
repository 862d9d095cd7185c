//! Programs with kazoo and `znode lock` and `znode elect` exclude each other.

use std::process::Command;

use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::{Process, on_znoded, wait_until};

use crate::world::{SOON, Service};

/// Holds one of kazoo's locks: writes its name to the file `in`, and ends when standard input does.
fn kazoo(service: &Service, recipe: &str, path: &str) -> Process {
    let script = source_directory().join("tests/commands/kazoo_holder.py");
    let mut command = Command::new(python());
    command.arg("-B").arg(script).args([&service.server.address(), recipe, path]);
    command.current_dir(&service.directory);
    Process::spawn(&mut command, &service.path(&format!("{recipe}.kazoo")))
}

fn a_lock_of_kazoo_keeps_znode_lock_out(service: &mut Service) {
    for recipe in ["Lock", "WriteLock"] {
        let holder = kazoo(service, recipe, "/l");
        service.wait_for_line("in", recipe);
        service.sh("znode lock -n /l true").says_only(1, &["held by kazoo"]);
        service.sh("znode lock -n -s /l true").says_only(1, &["held by kazoo"]);
        drop(holder);
        service.sh("znode --timeout 30s lock -w 30 /l true").ok();
    }
    let reader = kazoo(service, "ReadLock", "/l");
    service.wait_for_line("in", "ReadLock");
    service.sh("znode lock -n /l true").says_only(1, &["held by kazoo"]);
    service.sh("znode lock -n -s /l true").ok();
    drop(reader);
}

fn znode_lock_keeps_the_locks_of_kazoo_out(service: &mut Service) {
    let hold = |flags: &str| {
        service.start(&format!("exec znode lock {flags} /l sh -c 'echo znode >> in; sleep 1000'"))
    };
    for recipe in ["Lock", "WriteLock", "ReadLock"] {
        let mut holder = hold("");
        wait_until("znode is in", SOON, || service.read("in").ends_with("znode\n"));
        let waiting = kazoo(service, recipe, "/l");
        service.wait_for_children("/l", 2);
        assert!(service.read("in").ends_with("znode\n"));
        holder.terminate(SOON);
        wait_until("kazoo is in", SOON, || service.read("in").ends_with(&format!("{recipe}\n")));
        drop(waiting);
        service.sh("znode rm -r /l").ok();
    }
    let mut reader = hold("-s");
    wait_until("a reader is in", SOON, || service.read("in").ends_with("znode\n"));
    let other = kazoo(service, "ReadLock", "/l");
    wait_until("so is kazoo's", SOON, || service.read("in").ends_with("ReadLock\n"));
    drop(other);
    reader.terminate(SOON);
}

fn kazoo_and_znode_elect_stand_in_one_election(service: &mut Service) {
    let mut leader = service.start("exec znode elect --name znode /e sleep 1000");
    service.wait_for_children("/e", 1);
    let candidate = kazoo(service, "Election", "/e");
    service.wait_for_children("/e", 2);
    assert_eq!(service.sh("znode elect --observe /e | head -n 1").ok(), "znode\n");
    leader.terminate(SOON);
    service.wait_for_line("in", "Election");
    assert_eq!(service.sh("znode elect --observe /e | head -n 1").ok(), "kazoo\n");
    drop(candidate);
}

on_znoded![|server| &mut super::Service::of(server);
    a_lock_of_kazoo_keeps_znode_lock_out,
    znode_lock_keeps_the_locks_of_kazoo_out,
    kazoo_and_znode_elect_stand_in_one_election,
];
