//! Mounting as a plain user, through fusermount3. The device is opened to all users in a mount
//! namespace of the test's own, whatever the machine's udev does.

use znodefs_tests::{Ran, Server, Znoded, binary};

use crate::Place;

/// Runs `script` as nobody in a new mount namespace; `znode-mount` is in its path.
fn as_nobody(place: &Place, script: &str) -> Ran {
    let setup = r#"
        chmod 755 . && mkdir -p bin && touch bin/znode-mount
        mount --bind "$BINARY" bin/znode-mount
        [ -e fuse ] || mknod -m 666 fuse c 10 229
        mount --bind fuse /dev/fuse
        chown 65534 "$MNT"
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \
            env PATH="$PWD/bin:/usr/bin:/bin" bash -c "$SCRIPT"
    "#;
    let line = format!(
        "SCRIPT={} exec unshare --mount --propagation private bash -ec {}",
        quoted(script),
        quoted(setup)
    );
    place.sh(&format!("BINARY={} ; export BINARY; {line}", binary("znode-mount").display()))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Polls for the end of the mount, as seen in the namespace.
const GONE: &str = r#"for _ in $(seq 500); do grep -q " $MNT " /proc/mounts || break; sleep 0.01; done
    ! grep " $MNT " /proc/mounts"#;

#[test]
fn a_user_mounts_works_and_unmounts() {
    let server = Znoded::start();
    let place = Place::new();
    let address = server.address();
    let script = format!(
        r#"set -e
        znode-mount {address},{address} $MNT
        grep " $MNT " /proc/mounts
        echo x > $MNT/f; cat $MNT/f
        fusermount3 -u $MNT
        {GONE}"#
    );
    let text = as_nobody(&place, &script).ok();
    assert!(text.contains(&format!("{address},{address} ")), "{text}");
    assert!(text.contains("fuse.znodefs") && text.contains("user_id=65534"), "{text}");
    assert!(text.ends_with("x\n"), "{text}");
}

#[test]
fn a_users_killed_mount_is_gone_too() {
    let server = Znoded::start();
    let place = Place::new();
    let address = server.address();
    let script = format!(
        r#"set -e
        znode-mount --pid-file run/pid {address} $MNT || exit 9
        kill -9 $(cat run/pid)
        {GONE}"#
    );
    let run = place.directory.subdirectory("run");
    std::os::unix::fs::chown(&run, Some(65534), None).unwrap();
    as_nobody(&place, &script).ok();
}

#[test]
fn what_fusermount3_would_refuse_a_user_is_said_before() {
    let place = Place::new();
    let fuse_conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !fuse_conf.lines().any(|line| line.trim() == "user_allow_other") {
        let ran = as_nobody(&place, "znode-mount -o allow_other 127.0.0.1:1 $MNT");
        ran.says_only(1, &["allow_other", "user_allow_other", "/etc/fuse.conf"]);
    }
    let ran = as_nobody(&place, "znode-mount 127.0.0.1:1 /usr/share");
    ran.says_only(1, &["/usr/share", "not writable"]);
}
