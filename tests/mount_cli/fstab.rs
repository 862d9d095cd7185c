//! mount(8) with the helper where it looks for it, a private fstab and an automount point, all in a mount
//! namespace of the test's own.

use std::os::unix::fs::PermissionsExt;

use znodefs_tests::{Ran, Server, Znoded, binary};

use crate::{Place, wait_until_ended};

/// Runs a bash script in the test's directory, in a namespace in which the helpers are installed. `$SOURCE` and
/// `$MNT` are what is mounted, and where.
#[track_caller]
fn with_helpers(place: &Place, source: &str, script: &str) -> Ran {
    let helpers = place.directory.subdirectory("sbin");
    for name in ["mount.znodefs", "mount.fuse.znodefs"] {
        let link = helpers.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(binary("znode-mount"), link).unwrap();
        }
    }
    std::fs::write(place.directory.join("script"), script).unwrap();
    // What else is in /sbin is not needed.
    let setup = "mount --bind sbin /usr/sbin && exec bash -eu script";
    place.sh(&format!(
        "export SOURCE={source}; exec unshare --mount --propagation private bash -ec '{setup}'"
    ))
}

#[test]
fn a_line_of_fstab_is_mounted_by_its_directory_and_by_all() {
    let server = Znoded::start();
    let place = Place::new();
    let credentials = place.directory.join("credentials");
    std::fs::write(&credentials, "digest:tester:secret\n").unwrap();
    std::fs::set_permissions(&credentials, PermissionsExt::from_mode(0o600)).unwrap();
    let script = r#"
        options=_netdev,nofail,x-systemd.automount,allow_other,credentials=$PWD/credentials
        echo "$SOURCE $MNT znodefs $options 0 0" > fstab
        mount -T fstab $MNT
        echo secret > $MNT/f
        chmod 600 $MNT/f
        getfattr --only-values -n user.znode.acl $MNT/f
        umount $MNT
        mount -T fstab --all
        mount -T fstab --all
        grep --count " $MNT fuse.znodefs " /proc/mounts
        cat $MNT/f
        umount $MNT
        mount -T fstab --fake $MNT
        ls $MNT"#;
    let said = with_helpers(&place, &server.address(), script).ok();
    assert!(said.starts_with("digest:tester:"), "{said}");
    assert!(said.ends_with(":cdrwa1\nsecret\n"), "{said}");
    wait_until_ended("mount.znodefs", &place.mountpoint);
}

#[test]
fn the_type_is_znodefs_or_what_proc_mounts_shows() {
    let server = Znoded::start();
    let place = Place::new();
    let script = r#"
        for type in znodefs fuse.znodefs; do
            mount -t $type -o ro $SOURCE $MNT
            touch $MNT/f 2>&1 | grep "Read-only"
            umount $MNT
        done"#;
    let said = with_helpers(&place, &server.address(), script).ok();
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
}

#[test]
fn what_cannot_be_is_said_in_one_line_and_nothing_is_lost() {
    let server = Znoded::start();
    let place = Place::new();
    let script = r#"
        echo "$SOURCE $MNT znodefs _netdev 0 0" > fstab
        mount -T fstab $MNT
        echo kept > $MNT/f
        refused() { if "$@" 2> said; then echo "$* worked"; else wc --lines < said; cat said; fi; }
        refused mount -T fstab $MNT
        refused mount -o remount,ro $MNT
        refused mount -T fstab -o remount,ro $MNT
        cat $MNT/f
        echo changed > $MNT/f
        umount $MNT
        chmod 644 credentials
        refused mount -t znodefs -o credentials=$PWD/credentials $SOURCE $MNT
        refused mount -t znodefs -o alow_other $SOURCE $MNT
        refused mount -t znodefs $SOURCE/no/where $MNT
        ls $MNT"#;
    std::fs::write(place.directory.join("credentials"), "digest:tester:secret\n").unwrap();
    let said = with_helpers(&place, &server.address(), script).ok();
    let lines: Vec<_> = said.lines().collect();
    for (at, program, part) in [
        (0, "mount.znodefs: ", "already a znodefs mount"),
        (2, "mount.fuse.znodefs: ", "unmount it and mount it again"),
        (4, "mount.znodefs: ", "unmount it and mount it again"),
        (7, "mount.znodefs: ", "chmod 600"),
        (9, "mount.znodefs: ", "did you mean allow_other?"),
        (11, "mount.znodefs: ", "/no/where"),
    ] {
        assert_eq!(lines[at], "1", "one line each: {said}");
        let line = lines[at + 1];
        assert!(line.starts_with(program) && line.contains(part), "{line}");
    }
    assert_eq!(lines[6], "kept");
    assert_eq!(lines.len(), 13, "{said}");
}

#[test]
fn an_automount_point_is_mounted_on_without_waiting_for_itself() {
    let server = Znoded::start();
    let place = Place::new();
    // The test's Python plays systemd: whoever is not of its process group waits for the mount.
    let script = r#"exec /usr/bin/python3 -c '
import ctypes, os, subprocess
os.setpgid(0, 0)
place, source = os.environ["MNT"], os.environ["SOURCE"]
reader, writer = os.pipe()
options = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"systemd-1", place.encode(), b"autofs", 0, options.encode()) == 0
command = ["mount", "-t", "znodefs", "-o", "_netdev,x-systemd.automount", source, place]
subprocess.run(command, start_new_session=True, timeout=30, check=True)
print(os.listdir(place))
for _ in range(2): subprocess.run(["umount", place], check=True)
'"#;
    let said = with_helpers(&place, &server.address(), script).ok();
    assert_eq!(said, "['zookeeper']\n");
}
