//! kazoo and zkCli.sh beside a mount of the same tree.

use znodefs_tests::{World, on_every_backend};

use crate::kazoo::kazoo;
use crate::zk_cli::{last_line, zk_cli};

fn kazoo_and_the_mount_see_what_the_other_wrote(world: &World) {
    world.sh("mkdir service; echo from the mount > service/file").ok();
    assert_eq!(kazoo(&world.address, &["read", "/service/file"]).ok(), "from the mount\n");
    kazoo(&world.address, &["write", "/service/other", "from kazoo"]).ok();
    assert_eq!(world.sh("cat service/other; ls service").ok(), "from kazoofile\nother\n");
    world.sh("rm service/file").ok();
    assert_eq!(kazoo(&world.address, &["children", "/service"]).ok(), "other\n");
    kazoo(&world.address, &["delete", "/service"]).ok();
    world.sh("ls service").fails("No such file or directory");
}

fn zk_cli_and_the_mount_see_what_the_other_wrote(world: &World) {
    world.sh("mkdir service; printf mounted > service/file").ok();
    let read = zk_cli(&world.address, &["get", "/service/file"]);
    assert!(read.stdout.contains("mounted"), "{read:#?}");
    zk_cli(&world.address, &["create", "/service/other", "typed"]).ok();
    assert_eq!(world.sh("cat service/other; ls service").ok(), "typedfile\nother\n");
    world.sh("rm service/file").ok();
    let listed = zk_cli(&world.address, &["ls", "/service"]);
    assert_eq!(last_line(&listed.stdout), "[other]", "{listed:#?}");
    zk_cli(&world.address, &["deleteall", "/service"]).ok();
    world.sh("ls service").fails("No such file or directory");
}

on_every_backend![
    kazoo_and_the_mount_see_what_the_other_wrote,
    zk_cli_and_the_mount_see_what_the_other_wrote,
];
