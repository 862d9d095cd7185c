//! Mount options by their usual names.

use znodefs_tests::{Mount, Server, World, on_znoded};

/// Who runs a command as another user than the one who mounted.
const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

fn ro_refuses_every_change_and_reads_on(server: &mut dyn Server) {
    let world = World::of(server, &[]);
    world.sh("mkdir d; echo x > d/f").ok();
    let read_only = world.mount_again(&["-o", "ro"]);
    assert_eq!(read_only.sh("cat d/f; ls d").ok(), "x\nf\n");
    for change in ["echo y > d/f", "mkdir e", "rm d/f", "mv d e", "touch g", "truncate -s 0 d/f"] {
        read_only.sh(change).fails("Read-only file system");
    }
    assert_eq!(world.sh("cat d/f").ok(), "x\n");
}

fn uid_gid_and_umask_are_shown(server: &mut dyn Server) {
    let world = World::of(server, &["-o", "uid=1234,gid=5678,umask=027"]);
    world.sh("mkdir d; touch f").ok();
    assert_eq!(world.sh("stat --format='%u %g' d f").ok(), "1234 5678\n1234 5678\n");
    let modes = world.sh("stat --format=%A d f").ok();
    for mode in modes.lines() {
        assert_eq!((&mode[5..6], &mode[7..10]), ("-", "---"), "{mode}");
    }
}

fn only_the_mounting_user_sees_the_tree_unless_others_are_allowed(server: &mut dyn Server) {
    let world = World::of(server, &[]);
    world.sh("echo x > f").ok();
    let list = |mount: &Mount| {
        // Others must be able to reach the mountpoint itself.
        let parent = mount.parent().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(parent, open).unwrap();
        let shell = znodefs_tests::Shell::new(std::path::Path::new("/"));
        shell.sh(&format!("{AS_NOBODY} cat {}/f", mount.display()))
    };
    list(&world.mount).fails("Permission denied");
    let open = world.mount_again(&["-o", "allow_other"]);
    assert_eq!(list(&open).ok(), "x\n");
}

fn strict_chmod_refuses_what_no_credentials_can_keep(server: &mut dyn Server) {
    let world = World::of(server, &["-o", "strict_chmod"]);
    world.sh("touch f").ok();
    world.sh("chmod 600 f").fails("Operation not permitted");
}

fn credentials_close_what_chmod_closes(server: &mut dyn Server) {
    let address = server.address();
    let directory = znodefs_tests::Directory::new();
    let file = directory.join("credentials");
    std::fs::write(&file, "digest:user:password\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let mount = Mount::of(&address, &["-o", &format!("credentials={}", file.display())]);
    mount.sh("echo secret > f; chmod 600 f").ok();
    assert_eq!(mount.sh("cat f; stat --format=%A f").ok(), "secret\n-rw-------\n");
    let others = Mount::of(&address, &[]);
    others.sh("cat f").fails("Permission denied");
    others.sh("echo x > f").fails("Permission denied");
    mount.sh("chmod 644 f").ok();
    assert_eq!(others.sh("cat f").ok(), "secret\n");
    others.sh("echo x > f").fails("Permission denied");
}

fn options_of_fstab_are_ignored_and_dashes_are_underscores(server: &mut dyn Server) {
    let options = "_netdev,nofail,noauto,user,x-systemd.automount,nosuid,nodev,rw,allow-other";
    let address = server.address();
    let mount = Mount::of(&address, &["-o", options]);
    let table = mount.table_entry().unwrap();
    assert_eq!(table.file_system_type, "fuse.znodefs");
    assert_eq!(table.source, address);
    mount.sh("echo x > f; cat f").ok();
}

fn a_chroot_in_the_source_is_the_root_of_the_mount(server: &mut dyn Server) {
    let world = World::of(server, &[]);
    world.sh("mkdir --parents apps/one; echo x > apps/one/f; echo y > outside").ok();
    let mount = Mount::of(&format!("{}/apps/one", world.address), &[]);
    assert_eq!(mount.sh("ls; cat f").ok(), "f\nx\n");
    mount.sh("mkdir new; mv f new/g").ok();
    assert_eq!(world.sh("cat apps/one/new/g").ok(), "x\n");
}

on_znoded![
    ro_refuses_every_change_and_reads_on,
    uid_gid_and_umask_are_shown,
    only_the_mounting_user_sees_the_tree_unless_others_are_allowed,
    strict_chmod_refuses_what_no_credentials_can_keep,
    credentials_close_what_chmod_closes,
    options_of_fstab_are_ignored_and_dashes_are_underscores,
    a_chroot_in_the_source_is_the_root_of_the_mount,
];
