//! Znodes that end with an open file (`@fd`) or a process (`@pid=N`), however that ends.

mod creation;
mod endings;
mod sessions;

use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::{Background, World, on_every_backend, wait_until};

/// It takes a hundredth of a second; what a busy machine takes is not under test.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn wait_until_gone(world: &World, znode: &str) {
    let mut client = world.client();
    wait_until(&format!("{znode} is gone"), SOON, || client.stat(znode).is_none());
}

fn a_shell_queues_itself_and_leaves_with_its_descriptor(world: &World) {
    let there = world.mount_again(&[]);
    world.sh("mkdir q").ok();
    let script = "exec 9<>'q/n-@seq,fd'; read -r name <&9; echo data >&9; echo \"$name\"
        cat q/$name; exec 9>&-; until [ -z \"$(ls q)\" ]; do :; done; echo gone";
    let queued = Background::start(&world.mount, script);
    queued.wait_for("n-0000000000");
    queued.wait_for("gone");
    assert_eq!(there.sh("ls q").ok(), "");
}

fn an_open_file_is_held_by_the_last_process_that_has_it(world: &World) {
    let mut parent = Background::start(
        &world.mount,
        "exec 9<>'member@fd'; sleep 1000 & echo $!; exec 8<&-; echo ready; exec 9>&-; exec sleep 1000",
    );
    parent.wait_for("ready");
    let child = parent.process().log_text().lines().next().unwrap().to_string();
    parent.process().kill();
    let stat = world.client().stat("/member").expect("the child has the file open");
    assert_ne!(stat.ephemeral_owner.0, 0);
    world.sh(&format!("kill -9 {child}")).ok();
    wait_until_gone(world, "/member");
}

fn a_killed_process_leaves_nothing(world: &World) {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let script = "mkdir lock@pid=$$; exec 9<>member@fd; echo x > data@pid=$$; echo ready; exec sleep 1000";
        let mut process = Background::start(&world.mount, script);
        process.wait_for("ready");
        for znode in ["/lock", "/member", "/data"] {
            assert!(world.client().stat(znode).is_some(), "{znode}");
        }
        assert_eq!(world.sh("mkdir lock@pid=$$").code, 1, "a lock");
        process.process().signal(signal);
        for znode in ["/lock", "/member", "/data"] {
            wait_until_gone(world, znode);
        }
        world.sh("mkdir lock@pid=$$").ok();
        wait_until_gone(world, "/lock");
    }
}

fn a_process_that_is_none_of_the_callers_is_refused(world: &World) {
    world.sh("mkdir a@pid=4194304").fails("No such process");
    world.sh("mkdir a@pid=0").fails("Invalid argument");
    world.sh("mkdir a@fd").fails("Invalid argument");
    world.sh("sh -c 'exit 0' & pid=$!; wait; mkdir a@pid=$pid").fails("No such process");
    assert_eq!(world.client().stat("/a"), None);
}

fn what_another_makes_anew_is_not_deleted(world: &World) {
    let mut process = Background::start(
        &world.mount,
        "mkdir lock@pid=$$; exec 9<>member@fd; echo ready; exec sleep 1000",
    );
    process.wait_for("ready");
    let mut client = world.client();
    for znode in ["/lock", "/member"] {
        client.delete(znode).unwrap();
        client.create(znode, Some(b"another's"));
    }
    process.process().kill();
    // Ended behind those two by the same means.
    world.sh("mkdir last@pid=$$").ok();
    wait_until_gone(world, "/last");
    for znode in ["/lock", "/member"] {
        assert_eq!(client.data(znode).as_deref(), Some(&b"another's"[..]));
    }
}

fn open_flags_ask_for_the_same(world: &World) {
    let script = "
import os
flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_ASYNC
f = os.open('f', flags); s = os.open('s-', flags | os.O_NONBLOCK)
print(os.read(s, 100).decode(), end='')
print(sorted(os.listdir('.')))
os.close(f); os.close(s)
while len(os.listdir('.')) > 1: pass";
    let ran = world
        .mount
        .shell()
        .run(std::process::Command::new("/usr/bin/python3").arg("-c").arg(script));
    assert_eq!(ran.ok(), "s-0000000001\n['f', 's-0000000001', 'zookeeper']\n");
}

fn another_users_process_is_refused(world: &World) {
    let mount = world.mount_again(&["-o", "allow_other"]);
    let as_nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";
    mount.sh(&format!("{as_nobody} mkdir lock@pid=$$ 2>&1")).ok();
    wait_until_gone(world, "/lock");
    mount.sh(&format!("{as_nobody} mkdir lock@pid=1")).fails("Operation not permitted");
    assert_eq!(world.client().stat("/lock"), None);
}

fn watchers_are_told_of_the_end(world: &World) {
    let watching =
        Background::start(&world.mount, "exec inotifywait -m -q -e delete --format '%e %f' . 2>&1");
    let events = |marker: &str| {
        // Until it watches, and until it says so.
        wait_until("inotifywait tells", SOON, || {
            world.sh(&format!("touch {marker}; rm {marker}")).ok();
            watching.has_said(&format!("DELETE {marker}"))
        });
    };
    events("first");
    world.sh("mkdir lock@pid=$$; exec 9<>member@fd").ok();
    watching.wait_for("DELETE member");
    watching.wait_for("DELETE,ISDIR lock");
}

on_every_backend!(
    a_shell_queues_itself_and_leaves_with_its_descriptor,
    an_open_file_is_held_by_the_last_process_that_has_it,
    a_killed_process_leaves_nothing,
    a_process_that_is_none_of_the_callers_is_refused,
    what_another_makes_anew_is_not_deleted,
    open_flags_ask_for_the_same,
    another_users_process_is_refused,
    watchers_are_told_of_the_end,
);
