//! Permission bits, extended attributes and the file system's own numbers.

use znodefs::{Acl, Permissions};
use znodefs_tests::{World, on_every_backend};

fn extended_attributes_show_the_stat(world: &World) {
    let mut client = world.client();
    world.sh("mkdir d; echo one > d/f; echo two > d/f").ok();
    let stat = client.stat("/d/f").unwrap();
    let get =
        |name: &str| world.sh(&format!("getfattr --only-values -n user.znode.{name} d/f")).ok();
    assert_eq!(get("version"), stat.version.to_string());
    assert_eq!(get("cversion"), stat.cversion.to_string());
    assert_eq!(get("aversion"), stat.aversion.to_string());
    let listed = world.sh("getfattr -d d/f").ok();
    for name in
        ["ctime", "version", "cversion", "aversion", "czxid", "mzxid", "pzxid", "ephemeral_owner"]
    {
        assert!(listed.contains(&format!("user.znode.{name}=")), "no {name} in {listed}");
    }
    assert!(listed.contains("user.znode.acl="), "{listed}");
}

fn extended_attributes_that_cannot_be_set_are_not_supported(world: &World) {
    world.sh("touch f").ok();
    world.sh("setfattr -n user.znode.version -v 7 f").fails("Operation not supported");
    world.sh("setfattr -n user.other -v 7 f").fails("Operation not supported");
    world.sh("getfattr -n user.other f").fails("No such attribute");
}

fn the_acl_is_an_attribute_in_zk_clis_syntax(world: &World) {
    world.sh("touch f").ok();
    let get = "getfattr --only-values -n user.znode.acl f";
    assert_eq!(world.sh(get).ok(), "world:anyone:cdrwa");
    world.sh("setfattr -n user.znode.acl -v world:anyone:ra f").ok();
    let expected = vec![Acl::world(Permissions::READ.union(Permissions::ADMIN))];
    assert_eq!(world.client().acl("/f"), expected);
    world.sh("setfattr -n user.znode.acl -v nonsense f").fails("Invalid argument");
    let create =
        "import os; os.setxattr('f', 'user.znode.acl', b'world:anyone:r', os.XATTR_CREATE)";
    world.sh(&format!("/usr/bin/python3 -c \"{create}\"")).fails("File exists");
}

fn permission_bits_follow_the_acl(world: &World) {
    world.sh("touch f; setfattr -n user.znode.acl -v world:anyone:ra f").ok();
    let mode = world.sh("stat --format=%A f").ok();
    assert_eq!(&mode[7..8], "r", "others may read: {mode}");
    assert_eq!(&mode[8..9], "-", "others may not write: {mode}");
}

fn what_the_acl_forbids_is_refused_at_open(world: &World) {
    world.sh("echo x > f; setfattr -n user.znode.acl -v world:anyone:ra f").ok();
    assert_eq!(world.sh("cat f").ok(), "x\n");
    world.sh("echo y > f").fails("Permission denied");
    assert_eq!(world.sh("cat f").ok(), "x\n");
}

fn chmod_without_credentials_succeeds_and_changes_nothing(world: &World) {
    world.sh("touch f; chmod 600 f; chmod u+x f").ok();
    assert_eq!(world.client().acl("/f"), Acl::open());
}

fn a_copy_with_all_attributes_goes_in_and_out(world: &World) {
    let directory = znodefs_tests::Directory::new();
    let outside = directory.display();
    world
        .sh(&format!(
            "echo x > {outside}/f; cp --archive {outside}/f f; cp --archive f {outside}/g"
        ))
        .ok();
    world.sh(&format!("cp --archive {outside}/g h; cmp {outside}/f h")).ok();
}

fn a_lock_is_held_in_the_tree_and_not_on_this_machine_alone(world: &World) {
    world.sh("touch f").ok();
    let held = "flock f sh -c 'flock -n f true; echo $?; ls znodefs/locks | wc -l'";
    assert_eq!(world.sh(held).ok(), "1\n1\n");
    assert_eq!(world.sh("flock -n f echo free").ok(), "free\n");
    assert!(!world.sh("ls").ok().contains("znodefs"), "the locks are hidden from listings");
}

fn df_tells_what_is_mounted_and_how_much_is_in_it(world: &World) {
    let source = &world.address;
    let shown = world.sh("df --output=source,fstype . | tail -n 1").ok();
    let mut words = shown.split_whitespace();
    let shown_source = words.next().unwrap();
    assert_eq!(words.next(), Some("fuse.znodefs"), "{shown}");
    assert!(shown_source.contains(source) || shown_source.contains("znodefs"), "{shown}");
    let numbers = || -> Vec<u64> {
        let shown = world.sh("stat --file-system --format='%b %f %S %c %d' .").ok();
        shown.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    let before = numbers();
    assert!(before.iter().all(|number| *number > 0), "{before:?}");
    world.sh("df . && df --inodes .").ok();
}

on_every_backend![
    extended_attributes_show_the_stat,
    extended_attributes_that_cannot_be_set_are_not_supported,
    the_acl_is_an_attribute_in_zk_clis_syntax,
    permission_bits_follow_the_acl,
    what_the_acl_forbids_is_refused_at_open,
    chmod_without_credentials_succeeds_and_changes_nothing,
    a_copy_with_all_attributes_goes_in_and_out,
    a_lock_is_held_in_the_tree_and_not_on_this_machine_alone,
    df_tells_what_is_mounted_and_how_much_is_in_it,
];
