//! Programs with kazoo, `znode lock` and flock(1) on a mount exclude each other.

use std::process::Command;

use nix::sys::signal::Signal;
use znodefs_tests::binaries::{binary, python, source_directory};
use znodefs_tests::{Background, Directory, Process, World, on_every_backend, wait_until};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);
const LOCK: &str = "/znodefs/locks/%2Ff";

/// Holds one of kazoo's locks: writes its name to the file `in` of a directory.
fn kazoo(world: &World, directory: &Directory, recipe: &str) -> Process {
    let script = source_directory().join("tests/commands/kazoo_holder.py");
    let mut command = Command::new(python());
    command.arg("-B").arg(script).args([world.address.as_str(), recipe, LOCK]);
    command.current_dir(directory);
    Process::spawn(&mut command, &directory.join("kazoo.log"))
}

#[track_caller]
fn wait_until_in(directory: &Directory, recipe: &str) {
    wait_until("kazoo is in", LIMIT, || {
        std::fs::read_to_string(directory.join("in")).is_ok_and(|text| text.ends_with(recipe))
    });
}

fn a_lock_of_kazoo_and_flock_exclude_each_other(world: &World) {
    world.sh("touch f").ok();
    let directory = Directory::new();
    for recipe in ["Lock", "WriteLock"] {
        let holder = kazoo(world, &directory, recipe);
        wait_until_in(&directory, &format!("{recipe}\n"));
        assert_eq!(world.sh("flock -n f true").code, 1);
        assert_eq!(world.sh("flock -n -s f true").code, 1);
        drop(holder);
        world.sh("flock -w 20 f true").ok();
    }
    let reader = kazoo(world, &directory, "ReadLock");
    wait_until_in(&directory, "ReadLock\n");
    assert_eq!(world.sh("flock -n f true").code, 1);
    world.sh("flock -n -s f true").ok();
    drop(reader);
    world.sh("flock -w 20 f true").ok();
    let mut flock = Background::start(&world.mount, "exec 9<f; flock 9; echo in; exec sleep 1000");
    flock.wait_for("in");
    let waiting = kazoo(world, &directory, "Lock");
    let mut client = world.client();
    wait_until("kazoo waits", LIMIT, || client.children(LOCK).len() == 2);
    assert!(std::fs::read_to_string(directory.join("in")).unwrap().ends_with("ReadLock\n"));
    flock.process().kill();
    wait_until_in(&directory, "\nLock\n");
    drop(waiting);
}

fn each_kind_stands_in_one_queue_with_each_of_kazoos(world: &World) {
    world.sh("touch f").ok();
    let directory = Directory::new();
    let lockf = |kind: &str| {
        let mode = if kind == "SH" { "r" } else { "r+" };
        format!(
            "exec /usr/bin/python3 -uc 'import fcntl, time; f = open(\"f\", \"{mode}\")
fcntl.lockf(f, fcntl.LOCK_{kind}); print(\"in\"); time.sleep(1000)'"
        )
    };
    let flock = |option: &str| format!("exec 9<f; flock {option} 9; echo in; exec sleep 1000");
    for (script, shares) in
        [(flock("-s"), true), (flock("-x"), false), (lockf("SH"), true), (lockf("EX"), false)]
    {
        // kazoo's plain Lock does not look at readers, not even at its own.
        let recipes = ["ReadLock", "WriteLock", "Lock"];
        for recipe in recipes.into_iter().take(if shares { 2 } else { 3 }) {
            let _ = std::fs::remove_file(directory.join("in"));
            let ours = Background::start(&world.mount, &script);
            ours.wait_for("in");
            let theirs = kazoo(world, &directory, recipe);
            let mut client = world.client();
            wait_until("kazoo stands there", LIMIT, || client.children(LOCK).len() == 2);
            match shares && recipe == "ReadLock" {
                true => wait_until_in(&directory, "ReadLock\n"),
                false => assert!(!directory.join("in").exists(), "{recipe} behind {script}"),
            }
            // Behind both, whoever holds: first come, first served.
            let mut last = Background::start(&world.mount, "exec flock f echo last");
            wait_until("three contenders", LIMIT, || client.children(LOCK).len() == 3);
            assert!(!last.has_said("last"));
            drop(ours);
            wait_until_in(&directory, &format!("{recipe}\n"));
            assert!(!last.has_said("last"), "{recipe} is in");
            // Python leaves the lock behind it in order, which a killed one does only with its session.
            theirs.signal(Signal::SIGINT);
            assert_eq!(last.code(), 0);
        }
    }
}

fn znode_lock_and_flock_exclude_each_other(world: &World) {
    world.sh("touch f").ok();
    let znode = format!("{} --servers {} lock", binary("znode").display(), world.address);
    let holder = Background::start(&world.mount, "exec 9<f; flock 9; echo in; exec sleep 1000");
    holder.wait_for("in");
    assert_eq!(world.sh(&format!("{znode} -n -E 7 {LOCK} true")).code, 7);
    drop(holder);
    world.sh(&format!("{znode} -w 20 {LOCK} flock -n -E 8 f true")).ends_with_code(8);
}

trait EndsWithCode {
    fn ends_with_code(self, code: i32);
}

impl EndsWithCode for znodefs_tests::Ran {
    #[track_caller]
    fn ends_with_code(self, code: i32) {
        assert_eq!(self.code, code, "{self:#?}");
    }
}

on_every_backend!(
    a_lock_of_kazoo_and_flock_exclude_each_other,
    each_kind_stands_in_one_queue_with_each_of_kazoos,
    znode_lock_and_flock_exclude_each_other,
);
