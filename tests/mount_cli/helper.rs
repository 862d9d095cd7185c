//! The same program as mount(8) calls it: `mount.znodefs SOURCE MOUNTPOINT [-sfnv] [-o …]`.

use std::process::Command;

use znodefs_tests::{Ran, Server, Znoded, binary, mount_table};

use crate::{Place, wait_until_ended};

/// Calls the program by mount(8)'s name for it, through a link as it would be installed.
fn helper(place: &Place, arguments: &[&str]) -> Ran {
    let link = place.directory.join("mount.znodefs");
    if !link.exists() {
        std::os::unix::fs::symlink(binary("znode-mount"), &link).unwrap();
    }
    let mountpoint = place.mountpoint.display().to_string();
    let arguments = arguments.iter().map(|word| if *word == "MNT" { &*mountpoint } else { *word });
    place.run(Command::new(link).args(arguments))
}

#[test]
fn a_line_of_fstab_mounts_silently() {
    let server = Znoded::start();
    let place = Place::new();
    let options = "rw,_netdev,nofail,noauto,user,x-systemd.automount,nosuid,nodev,noatime";
    let ran = helper(&place, &[&server.address(), "MNT", "-o", options]);
    assert_eq!(ran.output(), "");
    ran.ok();
    let entry = mount_table::find(&place.mountpoint).expect("mounted when it returns");
    assert_eq!((&*entry.file_system_type, &*entry.source), ("fuse.znodefs", &*server.address()));
    assert!(entry.options.contains("nosuid") && entry.options.contains("nodev"), "{entry:?}");
    place.sh("umount $MNT").ok();
    wait_until_ended("mount.znodefs", &place.mountpoint);
}

#[test]
fn fake_checks_and_does_not_mount() {
    let server = Znoded::start();
    let place = Place::new();
    helper(&place, &[&server.address(), "MNT", "-fnv"]).ok();
    assert!(!place.is_mounted());
    let missing = place.directory.join("missing").display().to_string();
    helper(&place, &[&server.address(), &missing, "-f"]).says_only(1, &["mount.znodefs", &missing]);
}

#[test]
fn sloppy_passes_over_unknown_options_and_only_sloppy() {
    let server = Znoded::start();
    let place = Place::new();
    let address = server.address();
    let ran = helper(&place, &[&address, "MNT", "-o", "alow_other"]);
    ran.says_only(2, &["mount.znodefs", "alow_other", "did you mean allow_other"]);
    helper(&place, &[&address, "MNT", "-s", "-o", "bogus,ro"]).ok();
    place.sh("touch $MNT/f").fails("Read-only file system");
    place.sh("umount $MNT").ok();
}
