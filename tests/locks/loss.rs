//! Holders that end, and sessions that do.

use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::{Background, Server, World, on_every_server, wait_until};

const LIMIT: Duration = Duration::from_secs(40);

/// The shortest that a server of the tests grants.
const SHORT_SESSION: [&str; 2] = ["-o", "session_timeout=4"];

fn the_lock_of_a_mount_that_is_killed_goes_with_its_session(server: &mut dyn Server) {
    let world = &mut World::of(server, &SHORT_SESSION);
    let there = world.mount_again(&[]);
    world.sh("touch f").ok();
    let _holder = Background::start(&world.mount, "exec 9<f; flock 9; echo in; exec sleep 1000");
    _holder.wait_for("in");
    assert_eq!(there.sh("flock -n f true").code, 1);
    world.mount.process().kill();
    there.sh("flock -w 40 f true").ok();
}

fn a_file_whose_lock_is_lost_can_only_be_closed(server: &mut dyn Server) {
    let world = &mut World::of(server, &SHORT_SESSION);
    let there = world.mount_again(&[]);
    world.sh("echo kept > f; echo kept > g").ok();
    let script = "exec 8<g 9<>f; flock 9; echo in; until [ -e go ]; do read -rt 0.01 <> <(:); done
        cat <&9; echo lost >&9; flock -n 9; cat <&8";
    let mut holder = Background::start(&world.mount, script);
    holder.wait_for("in");
    world.mount.process().signal(Signal::SIGSTOP);
    // The session of the mount that stands still ends.
    there.sh("flock -w 40 f touch go").ok();
    world.mount.process().signal(Signal::SIGCONT);
    holder.code();
    let said = holder.process().log_text();
    assert_eq!(said.matches("Stale file handle").count(), 3, "{said}");
    assert!(said.ends_with("kept\n"), "the other file is not concerned: {said}");
    assert_eq!(there.sh("cat f").ok(), "kept\n");
    world.sh("flock -w 20 f cat f").ok();
}

fn a_waiter_outlives_its_session(server: &mut dyn Server) {
    let world = &mut World::of(server, &SHORT_SESSION);
    let there = world.mount_again(&[]);
    world.sh("touch f").ok();
    let holder = Background::start(&there, "exec 9<f; flock 9; echo in; exec sleep 1000");
    holder.wait_for("in");
    let mut waiter = Background::start(&world.mount, "exec flock f echo locked");
    let mut client = world.client();
    let mut contenders = |count| {
        wait_until("so many contenders", LIMIT, || {
            client.children("/znodefs/locks/%2Ff").len() == count
        });
    };
    contenders(2);
    let session = world.sh("cat @status/session").ok();
    stop(world, Signal::SIGSTOP);
    contenders(1);
    stop(world, Signal::SIGCONT);
    contenders(2);
    assert_ne!(world.sh("cat @status/session").ok(), session);
    drop(holder);
    waiter.wait_for("locked");
    assert_eq!(waiter.code(), 0);
}

fn stop(world: &mut World, signal: Signal) {
    world.mount.process().signal(signal);
}

fn a_lock_whose_contender_somebody_deletes_is_lost(server: &mut dyn Server) {
    let world = World::of(server, &[]);
    world.sh("echo kept > f").ok();
    let script = "exec 9<f; flock 9; echo in; until [ -e go ]; do read -rt 0.01 <> <(:); done
        until ! cat <&9; do :; done";
    let mut holder = Background::start(&world.mount, script);
    holder.wait_for("in");
    let mut client = world.client();
    let contender = client.children("/znodefs/locks/%2Ff").remove(0);
    client.delete(&format!("/znodefs/locks/%2Ff/{contender}")).unwrap();
    world.sh("flock -w 20 f touch go").ok();
    holder.code();
    assert!(holder.process().log_text().contains("Stale file handle"));
}

on_every_server![
    the_lock_of_a_mount_that_is_killed_goes_with_its_session,
    a_file_whose_lock_is_lost_can_only_be_closed,
    a_waiter_outlives_its_session,
    a_lock_whose_contender_somebody_deletes_is_lost,
];
