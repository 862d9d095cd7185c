//! What is refused before anything is touched, each with one line: what, where, what to do.

use std::os::unix::fs::PermissionsExt;

use znodefs_tests::{Server, Znoded, free_port};

use crate::Place;

#[test]
fn a_tree_is_not_mounted_over_itself() {
    let server = Znoded::start();
    let place = Place::new();
    place.mount(&[&server.address()]).ok();
    let again = place.mount(&[&server.address()]);
    again.says_only(1, &["already a znodefs mount", &server.address(), "fusermount3 -u"]);
    place.sh("umount $MNT").ok();
}

#[test]
fn every_address_that_was_tried_is_named_in_bounded_time() {
    let place = Place::new();
    let addresses = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let ran = place.mount(&["-o", "connect-timeout=500ms", &addresses.join(",")]);
    ran.says_only(1, &[&addresses[0], &addresses[1], "refused"]);
    assert!(!place.is_mounted());
}

#[test]
fn a_chroot_that_does_not_exist_is_named_with_the_command_that_makes_it() {
    let server = Znoded::start();
    let place = Place::new();
    let ran = place.mount(&[&format!("{}/not/there", server.address())]);
    ran.says_only(1, &["/not/there", &server.address(), "znode -s", "create"]);
    assert!(!place.is_mounted());
}

#[test]
fn secrets_that_others_can_read_are_refused() {
    let place = Place::new();
    let file = place.directory.join("secret");
    std::fs::write(&file, "digest:alice:hunter2\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let ran = place.mount(&["-o", "credentials=secret", "127.0.0.1:1"]);
    ran.says_only(1, &["secret", "chmod 600"]);
    assert!(!ran.output().contains("hunter2"));
}

#[test]
fn a_fifo_for_a_file_holds_nobody_up() {
    let place = Place::new();
    place.sh("mkfifo --mode=600 fifo").ok();
    let ran = place.mount(&["-o", "credentials=fifo", "127.0.0.1:1"]);
    ran.says_only(1, &["fifo", "it is not a file"]);
    place.mount(&["-o", "log=fifo", "127.0.0.1:1"]).says_only(1, &["log file", "fifo"]);
}

#[test]
fn who_is_no_server_is_named_with_what_it_does() {
    let place = Place::new();
    for (answer, reason) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak the ZooKeeper protocol"),
        (b"\0\0\0\x08garbage!", "unreadable"),
        (b"", "closed"),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1000]);
                let _ = stream.write_all(answer);
            }
        });
        let ran = place.mount(&["-o", "connect_timeout=1", &address]);
        ran.says_only(1, &[&address, reason]);
    }
    assert!(!place.is_mounted());
}

#[test]
fn what_lies_inside_the_mountpoint_is_refused() {
    let place = Place::new();
    let data = place.mountpoint.join("data").display().to_string();
    place.mount(&["--embedded", &data]).says_only(1, &[&data, "inside the mountpoint"]);
    let log = format!("log={}", place.mountpoint.join("log").display());
    place.mount(&["-o", &log, "127.0.0.1:1"]).says_only(1, &["inside the mountpoint"]);
    assert_eq!(std::fs::read_dir(&place.mountpoint).unwrap().count(), 0);
}

#[test]
fn nonempty_hides_what_is_there_until_it_is_unmounted() {
    let server = Znoded::start();
    let place = Place::new();
    std::fs::write(place.mountpoint.join("below"), "").unwrap();
    place.mount(&[&server.address()]).says_only(1, &["not empty", "below", "-o nonempty"]);
    place.mount(&["-o", "nonempty", &server.address()]).ok();
    assert!(!place.sh("ls $MNT").ok().contains("below"));
    place.sh("umount $MNT").ok();
    assert_eq!(place.sh("ls $MNT").ok(), "below\n");
}

#[test]
fn wrong_usage_is_status_2_and_touches_nothing() {
    let place = Place::new();
    for (arguments, part) in [
        (&["-o", "uid=nosuchuser", "127.0.0.1:1"][..], "there is no such user"),
        (&["-o", "umask=888", "127.0.0.1:1"], "octal"),
        (&["-o", "timeout=never", "127.0.0.1:1"], "not a time"),
        (&["-o", "ro=1", "127.0.0.1:1"], "takes no value"),
        (&["-o", "alow_other", "127.0.0.1:1"], "did you mean allow_other?"),
        (&["-o", "rw,bogus=7", "127.0.0.1:1"], "unknown mount option \"bogus\""),
        (&["-o", "remount,ro", "127.0.0.1:1"], "unmount it and mount it again"),
        (&["127.0.0.1:http"], "http"),
        (&["--embedded", "data", "--listen", "nowhere"], "--listen"),
        (&[], "two arguments"),
    ] {
        place.mount(arguments).says_only(2, &["znode-mount: ", part]);
    }
    assert!(!place.directory.join("data").exists());
}
