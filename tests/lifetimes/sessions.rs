//! Znodes that go with their mount's session.

use nix::sys::signal::Signal;
use znodefs_tests::{Background, Server, World, on_every_server};

use crate::wait_until_gone;

fn what_a_killed_mount_leaves_goes_with_its_session(server: &mut dyn Server) {
    let mut world = World::of(server, &["-o", "session_timeout=4"]);
    let script = "mkdir lock@pid=$$; exec 9<>member@fd; echo ready; exec sleep 1000";
    let process = Background::start(&world.mount, script);
    process.wait_for("ready");
    world.mount.process().kill();
    for znode in ["/lock", "/member"] {
        wait_until_gone(&world, znode);
    }
}

fn a_session_that_has_ended_takes_them_along_and_they_stay_away(server: &mut dyn Server) {
    let mut world = World::of(server, &["-o", "session_timeout=4"]);
    let script =
        "mkdir lock@pid=$$; exec 9<>member@fd; echo ready; read -r; cat <&9; exec sleep 1000";
    let process = Background::start(&world.mount, script);
    process.wait_for("ready");
    world.mount.process().signal(Signal::SIGSTOP);
    for znode in ["/lock", "/member"] {
        wait_until_gone(&world, znode);
    }
    world.mount.process().signal(Signal::SIGCONT);
    assert_eq!(world.sh("echo new > f; ls").ok(), "f\nzookeeper\n");
    drop(process);
    world.sh("mkdir lock@pid=$$").ok();
    wait_until_gone(&world, "/lock");
    assert_eq!(world.sh("ls").ok(), "f\nzookeeper\n");
}

on_every_server![
    what_a_killed_mount_leaves_goes_with_its_session,
    a_session_that_has_ended_takes_them_along_and_they_stay_away,
];
