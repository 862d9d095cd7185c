//! How a mount begins and ends, and what it does while its server is away.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::reaper::Reaper;
use znodefs_tests::{
    Backend, Directory, Mount, Server, Shell, WireClient, World, Znoded, binary, free_port,
    mount_table, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Mounts in the background at `mnt` of this directory and waits for the command only.
fn mount_in_background(directory: &Directory, arguments: &[&str]) -> znodefs_tests::Ran {
    let mut command = Command::new(binary("znode-mount"));
    command.args(arguments).arg(directory.subdirectory("mnt"));
    Shell::new(directory).run(&mut command)
}

#[test]
fn a_signal_unmounts_and_ends_with_success() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = Znoded::start();
        let mut mount = Mount::of(&server.address(), &[]);
        mount.sh("echo x > f").ok();
        let status = mount.stop(signal);
        assert!(status.success(), "{signal}: {status}");
    }
}

#[test]
fn umount_ends_the_process_with_success() {
    let server = Znoded::start();
    let mut mount = Mount::of(&server.address(), &[]);
    // Busy for the moment in which znode-mount itself looks whether the mount works.
    wait_until("umount succeeds", LIMIT, || {
        Shell::new(Path::new("/")).run(Command::new("umount").arg(&*mount)).code == 0
    });
    let status = mount.process().wait(LIMIT).expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn a_killed_mount_process_leaves_no_mount_behind() {
    let server = Znoded::start();
    let mut mount = Mount::of(&server.address(), &[]);
    mount.process().kill();
    wait_until("the mount is gone", LIMIT, || mount.table_entry().is_none());
}

#[test]
fn the_background_command_returns_once_the_mount_works() {
    let server = Znoded::start();
    let directory = Directory::new();
    let mountpoint = directory.join("mnt");
    let mut reaper = Reaper::of(&mountpoint);
    mount_in_background(&directory, &[&server.address()]).ok();
    assert!(mount_table::find(&mountpoint).is_some(), "mounted when the command returns");
    let shell = Shell::new(Path::new("/"));
    let script = format!("echo x > {0}/f; cat {0}/f; umount {0}", mountpoint.display());
    assert_eq!(shell.sh(&script).ok(), "x\n");
    reaper.reap();
    assert!(mount_table::find(&mountpoint).is_none());
}

#[test]
fn an_embedded_replica_keeps_its_tree_from_mount_to_mount() {
    let data = Directory::new();
    let (mut mount, _) = Mount::embedded(&data, &[]);
    mount.sh("mkdir --parents a/b; echo kept > a/b/f").ok();
    mount.stop(Signal::SIGTERM);
    let (mut mount, _) = Mount::embedded(&data, &[]);
    assert_eq!(mount.sh("cat a/b/f").ok(), "kept\n");
    mount.process().kill();
    wait_until("the mount is gone", LIMIT, || mount.table_entry().is_none());
    let (mount, _) = Mount::embedded(&data, &[]);
    assert_eq!(mount.sh("cat a/b/f").ok(), "kept\n");
}

#[test]
fn work_goes_on_after_the_server_was_away() {
    let mut server = Znoded::start();
    let mount = Mount::of(&server.address(), &[]);
    mount.sh("echo one > f").ok();
    server.kill();
    server.start_again();
    assert_eq!(mount.sh("cat f; echo two > f; cat f").ok(), "one\ntwo\n");
}

#[test]
fn operations_wait_for_a_server_that_is_away() {
    let mut server = Znoded::start();
    let mount = Mount::of(&server.address(), &[]);
    mount.sh("echo one > f").ok();
    server.kill();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| mount.sh("cat f; echo two > f"));
        server.start_again();
        assert_eq!(reader.join().unwrap().ok(), "one\n");
    });
}

#[test]
fn operations_time_out_when_the_server_stays_away() {
    let mut server = Znoded::start();
    let mut mount = Mount::of(&server.address(), &["-o", "timeout=4"]);
    mount.sh("echo one > f").ok();
    assert_eq!(mount.sh("cat @status/state").ok(), "connected\n");
    server.kill();
    // From outside: a shell whose working directory does not answer is not even started.
    let shell = Shell::new(Path::new("/")).variable("f", mount.join("f").display());
    shell.sh("cat $f").fails("Connection timed out");
    shell.sh("echo two > $f").fails("Connection timed out");
    server.start_again();
    wait_until("the mount works again", LIMIT, || shell.sh("cat $f").stdout == "one\n");
    assert!(mount.stop(Signal::SIGTERM).success());
}

#[test]
fn a_mount_goes_on_in_a_new_session_after_its_own_has_expired() {
    let server = Znoded::start();
    let mut mount = Mount::of(&server.address(), &["-o", "timeout=4"]);
    mount.sh("echo kept > f; mkdir ephemeral@eph").ok();
    let session = mount.sh("cat @status/session").ok();
    let mut client = WireClient::connect(&server.address());
    mount.process().signal(Signal::SIGSTOP);
    wait_until("the session has expired", LIMIT, || client.stat("/ephemeral").is_none());
    mount.process().signal(Signal::SIGCONT);
    wait_until("the mount works again", LIMIT, || mount.sh("cat f").stdout == "kept\n");
    assert_eq!(
        mount.sh("ls; mkdir ephemeral@eph; ls").ok(),
        "f\nzookeeper\nephemeral\nf\nzookeeper\n"
    );
    assert_ne!(mount.sh("cat @status/session").ok(), session);
}

#[test]
fn a_mountpoint_that_cannot_be_mounted_on_is_named_with_the_reason() {
    let server = Znoded::start();
    let directory = Directory::new();
    std::fs::write(directory.join("file"), "").unwrap();
    std::fs::write(directory.subdirectory("full").join("entry"), "").unwrap();
    for (name, reason) in [("file", "not a directory"), ("full", "not empty"), ("missing", "")] {
        let mountpoint = directory.join(name);
        let mut command = Command::new(binary("znode-mount"));
        command.arg(server.address()).arg(&mountpoint);
        let ran = Shell::new(&directory).run(&mut command);
        ran.says_only(1, &[&mountpoint.display().to_string(), reason]);
        assert!(mount_table::find(&mountpoint).is_none());
    }
}

#[test]
fn no_server_there_is_said_with_the_address() {
    let directory = Directory::new();
    let address = format!("127.0.0.1:{}", free_port());
    let ran = mount_in_background(&directory, &["-o", "connect_timeout=1", &address]);
    ran.says_only(1, &[&address]);
    assert!(!mount_table::is_anything_mounted_below(&directory));
}

#[test]
fn a_port_in_use_is_said_with_the_way_out() {
    let server = Znoded::start();
    let directory = Directory::new();
    let data = directory.subdirectory("data").display().to_string();
    let ran =
        mount_in_background(&directory, &["--listen", &server.address(), "--embedded", &data]);
    ran.says_only(1, &[&server.address(), "--listen"]);
    assert!(!mount_table::is_anything_mounted_below(&directory));
}

#[test]
fn data_in_use_by_another_replica_are_refused() {
    let world = World::new(Backend::Embedded);
    drop(world);
    let data = Directory::new();
    let (_mount, _) = Mount::embedded(&data, &[]);
    let directory = Directory::new();
    let listen = format!("127.0.0.1:{}", free_port());
    let data = data.display().to_string();
    let ran = mount_in_background(&directory, &["--listen", &listen, "--embedded", &data]);
    ran.says_only(1, &[&data]);
}
