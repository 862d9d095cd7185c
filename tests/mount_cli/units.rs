//! The unit files and the script that installs them: systemd finds nothing to complain about, and what they run
//! works as they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Directory, Ran, Server, Shell, Znoded, binary, wait_until};

use crate::{LIMIT, Place};

/// Installs everything below a fresh directory, with the programs under test.
fn install(below: &Path, prefix: &str) -> Ran {
    let binaries = binary("znode-mount").parent().expect("a directory").to_path_buf();
    let mut command = Command::new(source_directory().join("scripts/install-system"));
    command.arg(prefix).env("DESTDIR", below).env("BINARIES", binaries);
    Shell::new(below).run(&mut command)
}

/// The value of a setting in an installed unit.
fn setting(unit: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(unit).unwrap_or_else(|error| panic!("{unit:?}: {error}"));
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} in {unit:?}")).to_string()
}

#[test]
fn what_is_installed_is_whole_and_follows_the_prefix() {
    let root = Directory::new();
    install(&root, "/opt/znodefs").ok();
    for name in ["znode", "znoded", "znode-mount"] {
        let program = root.join("opt/znodefs/bin").join(name);
        let mut command = Command::new(&program);
        assert!(Shell::new(&root).run(command.arg("--version")).ok().starts_with(name));
    }
    for helper in ["mount.znodefs", "mount.fuse.znodefs"] {
        let target = std::fs::read_link(root.join("sbin").join(helper)).unwrap();
        assert_eq!(target, PathBuf::from("/opt/znodefs/bin/znode-mount"));
    }
    let units = root.join("opt/znodefs/lib/systemd/system");
    let run = setting(&units.join("znoded.service"), "ExecStart");
    assert_eq!(run, "/opt/znodefs/bin/znoded /etc/znodefs/zoo.cfg");
    assert!(root.join("opt/znodefs/share/man/man8/mount.znodefs.8").exists());
    install(&root, "relative").fails("not an absolute path");
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    let directory = Directory::new();
    let binaries = binary("znoded").parent().expect("a directory").display().to_string();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for unit in std::fs::read_dir(source_directory().join("docs/systemd")).unwrap() {
        let unit = unit.unwrap();
        let text = std::fs::read_to_string(unit.path()).unwrap();
        let name = unit.file_name().into_string().unwrap().replace('@', "@mnt-zk");
        std::fs::write(directory.join(&name), text.replace("/usr/local/bin", &binaries)).unwrap();
        command.arg(directory.join(name));
    }
    let ran = Shell::new(&directory).run(&mut command);
    assert_eq!((ran.code, ran.output().as_str()), (0, ""), "{ran:#?}");
}

#[test]
fn a_mount_works_with_no_more_capabilities_than_its_unit_gives() {
    let server = Znoded::start();
    let place = Place::new();
    let unit = source_directory().join("docs/systemd/znode-mount@.service");
    let capabilities = setting(&unit, "CapabilityBoundingSet").to_lowercase();
    let kept: Vec<_> = capabilities
        .split_whitespace()
        .map(|name| format!("+{}", name.strip_prefix("cap_").expect("a capability")))
        .collect();
    let script = format!(
        "setpriv --no-new-privs --bounding-set=-all,{} {} -o allow_other {} $MNT
        echo x > $MNT/f; flock $MNT/f cat $MNT/f; mkdir $MNT/d@pid=$$
        setpriv --reuid=65534 --clear-groups cat $MNT/f",
        kept.join(","),
        binary("znode-mount").display(),
        server.address(),
    );
    std::fs::set_permissions(
        &*place.directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let said = place.sh(&script).ok();
    assert!(said.ends_with("x\nx\n"), "{said}");
    // What the process left behind is announced meanwhile, on the mount itself.
    wait_until("it is unmounted", LIMIT, || place.sh("umount $MNT").code == 0);
}
