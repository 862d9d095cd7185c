//! The guard: a mount process may die in any way and at any time.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::deadline::Deadline;
use znodefs_tests::{Mount, Server, Shell, Znoded, wait_until};

use crate::{LIMIT, Place, process, processes, send, wait_until_ended};

#[test]
fn a_killed_mount_process_leaves_no_mount_and_no_guard() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    let serving = process("znode-mount", &place.mountpoint);
    process("znode-guard", &place.mountpoint);
    send(serving, Signal::SIGKILL);
    let deadline = Deadline::after(Duration::from_secs(1));
    place.wait_until_gone();
    assert!(!deadline.has_passed(), "gone long before anybody asks");
    wait_until_ended("znode-guard", &place.mountpoint);
    place.mount(&[&server.address()]).ok();
    place.sh("umount $MNT").ok();
}

#[test]
fn a_process_blocked_on_a_killed_mount_gets_an_error() {
    let mut server = Znoded::start();
    let mut mount = Mount::of(&server.address(), &["-o", "timeout=60"]);
    mount.sh("echo x > f").ok();
    server.process().signal(Signal::SIGSTOP);
    let shell = Shell::new(Path::new("/")).time_limit(LIMIT);
    let script = format!("cat {}/f", mount.display());
    let ran = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| shell.sh(&script));
        wait_until("the reader waits in the kernel", LIMIT, || is_anybody_waiting(&script));
        mount.process().signal(Signal::SIGKILL);
        blocked.join().unwrap()
    });
    assert_ne!(ran.code, 0, "{ran:#?}");
    mount.process().kill();
    wait_until("the mount is gone", LIMIT, || mount.table_entry().is_none());
}

/// Whether the last command of `script` sleeps in the kernel, on an answer of the mount.
fn is_anybody_waiting(script: &str) -> bool {
    let wanted: Vec<_> = script.split(' ').collect();
    let entries = std::fs::read_dir("/proc").expect("a process table").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).any(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let waits = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        line.trim_end_matches('\0').split('\0').eq(wanted.iter().copied())
            && waits.contains("request_wait")
    })
}

#[test]
fn a_mount_that_somebody_else_made_there_is_left_alone() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    let first = process("znode-mount", &place.mountpoint);
    // Stopped, it does not see that its mount ends, and so cannot tell its guard.
    send(first, Signal::SIGSTOP);
    place.sh("umount --lazy $MNT").ok();
    place.mount(&[&server.address()]).ok();
    let guards = processes("znode-guard", &place.mountpoint).len();
    assert_eq!(guards, 2, "the first mount's guard still waits");
    send(first, Signal::SIGKILL);
    wait_until("the first guard has ended", LIMIT, || {
        processes("znode-guard", &place.mountpoint).len() == 1
    });
    assert_eq!(place.sh("echo x > $MNT/f; cat $MNT/f").ok(), "x\n");
    place.sh("umount $MNT").ok();
    wait_until_ended("znode-mount", &place.mountpoint);
}

#[test]
fn the_guard_survives_what_a_terminal_sends_and_holds_no_device() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    let guard = process("znode-guard", &place.mountpoint);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        send(guard, signal);
    }
    let descriptors = std::fs::read_dir(format!("/proc/{guard}/fd")).unwrap().flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let device: Vec<_> = targets.filter(|target| target.ends_with("fuse")).collect();
    assert!(device.is_empty(), "{device:?}");
    send(process("znode-mount", &place.mountpoint), Signal::SIGKILL);
    place.wait_until_gone();
}

#[test]
fn a_killed_guard_is_followed_by_another() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    let first = process("znode-guard", &place.mountpoint);
    send(first, Signal::SIGKILL);
    wait_until("there is another guard", LIMIT, || {
        processes("znode-guard", &place.mountpoint).iter().any(|guard| *guard != first)
    });
    // It may not have been told of the mount yet; it answers once it was.
    assert_eq!(place.sh("echo x > $MNT/f; cat $MNT/f").ok(), "x\n");
    place.sh("umount $MNT").ok();
    wait_until_ended("znode-mount", &place.mountpoint);
    wait_until_ended("znode-guard", &place.mountpoint);
}

#[test]
fn a_dead_mount_without_a_guard_is_named_with_the_way_out() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    // Stopped, the mount process cannot start another.
    send(process("znode-mount", &place.mountpoint), Signal::SIGSTOP);
    send(process("znode-guard", &place.mountpoint), Signal::SIGKILL);
    send(process("znode-mount", &place.mountpoint), Signal::SIGKILL);
    wait_until_ended("znode-mount", &place.mountpoint);
    place.mount(&[&server.address()]).says_only(1, &["stale mount", "fusermount3 -u"]);
    place.sh("fusermount3 -u $MNT").ok();
    place.mount(&[&server.address()]).ok();
    place.sh("umount $MNT").ok();
}
