//! Going into the background, telling the starter, and ending.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::{Process, Server, Znoded, binary, free_port, wait_until};

use crate::{LIMIT, Place, process, send, wait_until_ended};

#[test]
fn the_starter_reads_what_was_mounted_and_is_let_go() {
    let server = Znoded::start();
    let place = Place::new();
    // The substitution ends only when nobody holds the pipes any more.
    let mountpoint = place.mountpoint.display().to_string();
    let command = format!("{} {} $MNT", binary("znode-mount").display(), server.address());
    let text = place.sh(&format!("text=$({command} 2>&1); echo \"$text\"")).ok();
    assert_eq!(text, format!("mounted {} on {mountpoint}\n", server.address()));
    place.sh("umount $MNT").ok();
    wait_until_ended("znode-mount", &place.mountpoint);
    wait_until_ended("znode-guard", &place.mountpoint);
}

#[test]
fn it_works_with_nothing_in_its_environment_and_in_a_directory_that_vanishes() {
    let server = Znoded::start();
    let place = Place::new();
    let gone = place.directory.subdirectory("gone");
    let mut command = Command::new(binary("znode-mount"));
    command.env_clear().arg(server.address()).arg("../mnt").current_dir(&gone);
    assert!(command.status().unwrap().success());
    std::fs::remove_dir(&gone).unwrap();
    assert_eq!(place.sh("echo x > $MNT/f; cat $MNT/f").ok(), "x\n");
    place.sh("umount $MNT").ok();
}

#[test]
fn the_process_id_is_on_file_while_it_is_mounted() {
    let server = Znoded::start();
    let place = Place::new();
    let file = place.directory.join("pid");
    place.mount(&["--pid-file", "pid", &server.address()]).ok();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written, format!("{}\n", process("znode-mount", &place.mountpoint)));
    send(process("znode-mount", &place.mountpoint), Signal::SIGTERM);
    wait_until_ended("znode-mount", &place.mountpoint);
    assert!(!file.exists() && !place.is_mounted());
}

#[test]
fn a_log_file_takes_the_lines_of_the_background() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&["-o", "log=mount.log", &server.address()]).ok();
    send(process("znode-mount", &place.mountpoint), Signal::SIGHUP);
    send(process("znode-mount", &place.mountpoint), Signal::SIGTERM);
    wait_until_ended("znode-mount", &place.mountpoint);
    let log = std::fs::read_to_string(place.directory.join("mount.log")).unwrap();
    assert!(log.contains("mounted") && log.contains("SIGTERM") && !log.contains("SIGHUP"), "{log}");
}

#[test]
fn a_busy_mount_is_detached_after_a_while() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    let mut inside = Command::new("sleep");
    inside.arg("1000").current_dir(&place.mountpoint);
    let inside = Process::spawn(&mut inside, &place.directory.join("sleep.log"));
    send(process("znode-mount", &place.mountpoint), Signal::SIGTERM);
    wait_until_ended("znode-mount", &place.mountpoint);
    assert!(!place.is_mounted());
    drop(inside);
}

#[test]
fn an_embedded_replica_tells_its_real_address() {
    let place = Place::new();
    let data = place.directory.join("data").display().to_string();
    let text = place.mount(&["--embedded", &data, "--listen", "127.0.0.1:0"]).ok();
    let address = text.split_whitespace().nth(1).unwrap();
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{text}");
    assert!(text.contains(&format!("znode -s {address}")), "{text}");
    place.sh("echo x > $MNT/f").ok();
    let znode = binary("znode").display().to_string();
    assert_eq!(place.sh(&format!("{znode} -s {address} get /f")).ok(), "x\n");
    place.sh("umount $MNT").ok();
    wait_until_ended("znode-mount", &place.mountpoint);
}

#[test]
fn a_service_manager_is_told_of_start_and_end() {
    let server = Znoded::start();
    let place = Place::new();
    let path = place.directory.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut command = Command::new(binary("znode-mount"));
    command.args(["-f", &server.address()]).arg(&place.mountpoint).env("NOTIFY_SOCKET", &path);
    let mut serving = Process::spawn(&mut command, &place.directory.join("log"));
    let receive = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(receive().contains("READY=1"));
    assert!(place.is_mounted());
    serving.signal(Signal::SIGTERM);
    assert!(receive().contains("STOPPING=1"));
    assert!(serving.wait(LIMIT).unwrap().success());
}

#[test]
fn giving_up_the_start_gives_up_the_mount() {
    let place = Place::new();
    let mut command = Command::new(binary("znode-mount"));
    let nobody = format!("127.0.0.1:{}", free_port());
    command.args(["-o", "connect_timeout=1h", &nobody]).arg(&place.mountpoint);
    let mut starter = Process::spawn(&mut command, &place.directory.join("log"));
    let started = || crate::processes("znode-guard", &place.mountpoint).len() == 1;
    wait_until("it tries to connect", LIMIT, started);
    starter.kill();
    wait_until_ended("znode-mount", &place.mountpoint);
    wait_until_ended("znode-guard", &place.mountpoint);
    assert!(!place.is_mounted());
}

#[test]
fn a_signal_ends_the_wait_for_a_server() {
    let place = Place::new();
    let mut command = Command::new(binary("znode-mount"));
    let nobody = format!("127.0.0.1:{}", free_port());
    command.args(["-f", "-o", "connect_timeout=1h", &nobody]).arg(&place.mountpoint);
    let mut waiting = Process::spawn(&mut command, &place.directory.join("log"));
    let started = || crate::processes("znode-guard", &place.mountpoint).len() == 1;
    wait_until("it tries to connect", LIMIT, started);
    // The signal may come before there is a handler, which ends it too.
    waiting.signal(Signal::SIGINT);
    assert!(!waiting.wait(Duration::from_secs(5)).expect("it ends").success());
}
