//! Names: suffixes at creation, names that would be read as ours, names FUSE cannot show.

use znodefs_tests::{World, on_every_backend};

fn names_that_are_not_ascii_and_names_with_blanks_are_kept(world: &World) {
    for name in ["with blank", "naïve", "日本語", "a+b=c", "-dash", "a@b", "x@", "@"] {
        std::fs::write(world.path(name), name).unwrap();
        assert_eq!(world.client().data(&format!("/{name}")).as_deref(), Some(name.as_bytes()));
        assert_eq!(std::fs::read_to_string(world.path(name)).unwrap(), name);
    }
    let listed = world.sh("ls -N").ok();
    assert!(listed.contains("with blank\n") && listed.contains("日本語\n"), "{listed}");
}

fn a_suffix_never_becomes_part_of_a_name(world: &World) {
    for suffix in ["eph", "seq", "fd", "pid=1", "ttl=30s", "container", "seq,eph", "fd,seq"] {
        world.sh(&format!("touch 'file@{suffix}'; mkdir 'directory@{suffix}'"));
        for name in world.client().children("/") {
            assert!(!name.contains('@'), "{suffix} made the znode {name}");
        }
    }
}

fn a_suffix_that_makes_no_sense_is_an_invalid_argument(world: &World) {
    for name in ["a@ttl=x", "a@eph,eph", "a@pid=x", "a@eph,container", "a@pid=0"] {
        world.sh(&format!("mkdir '{name}'")).fails("Invalid argument");
    }
    assert_eq!(world.client().children("/"), ["zookeeper"]);
}

fn a_name_that_would_be_read_as_ours_is_shown_with_its_at_doubled(world: &World) {
    let mut client = world.client();
    client.create("/d", None);
    let names = [
        ("lock@eph", "lock@@eph"),
        ("n@seq", "n@@seq"),
        ("n@seq,fd", "n@@seq,fd"),
        ("t@ttl=30s", "t@@ttl=30s"),
        ("leaf@dir", "leaf@@dir"),
        ("@data", "@@data"),
        ("lock@@eph", "lock@@@eph"),
    ];
    for (name, _) in names {
        client.create(&format!("/d/{name}"), Some(name.as_bytes()));
    }
    client.create("/@status", Some(b"a znode"));
    let listed = world.sh("ls -N d").ok();
    for (name, shown) in names {
        assert!(listed.lines().any(|line| line == shown), "no {shown} in {listed}");
        assert_eq!(world.sh(&format!("cat 'd/{shown}'")).ok(), name);
        world
            .sh(&format!("echo changed > 'd/{shown}'; rm 'd/{shown}'; echo new > 'd/{shown}'"))
            .ok();
        assert_eq!(client.data(&format!("/d/{name}")).as_deref(), Some(&b"new\n"[..]));
    }
    assert_eq!(world.sh("cat @@status").ok(), "a znode");
}

fn a_name_too_long_to_show_is_left_out_and_the_rest_is_listed(world: &World) {
    let mut client = world.client();
    client.create("/d", None);
    client.create("/d/short", Some(b""));
    client.create(&format!("/d/{}", "n".repeat(5000)), Some(b""));
    client.create(&format!("/d/{}", "n".repeat(255)), Some(b""));
    let listed = world.sh("ls d").ok();
    assert!(listed.lines().any(|line| line == "short"), "{listed}");
    assert!(listed.lines().any(|line| line.len() == 255), "{listed}");
    assert!(listed.lines().all(|line| line.len() < 5000), "{listed}");
}

fn a_name_that_no_znode_can_have_is_refused(world: &World) {
    world.sh("touch $'control\\x01'").fails("Invalid argument");
    world.sh("touch $'not-utf8\\xff'").fails("I");
    world.sh("mkdir $'delete\\x7f'").fails("Invalid argument");
    world.sh(&format!("touch {}", "n".repeat(5000))).fails("File name too long");
    assert_eq!(world.client().children("/"), ["zookeeper"]);
    world.sh("cat $'control\\x01'").fails("No such file or directory");
}

on_every_backend![
    names_that_are_not_ascii_and_names_with_blanks_are_kept,
    a_suffix_never_becomes_part_of_a_name,
    a_suffix_that_makes_no_sense_is_an_invalid_argument,
    a_name_that_would_be_read_as_ours_is_shown_with_its_at_doubled,
    a_name_too_long_to_show_is_left_out_and_the_rest_is_listed,
    a_name_that_no_znode_can_have_is_refused,
];
