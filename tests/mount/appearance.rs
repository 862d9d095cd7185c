//! What a znode looks like: directory or file, `@data`, `NAME@dir`.

use znodefs_tests::{World, on_every_backend};

fn null_data_without_children_is_a_directory(world: &World) {
    world.client().create("/null", None);
    assert!(world.path("null").is_dir());
    assert_eq!(world.sh("ls --almost-all null").ok(), "");
}

fn data_without_children_is_a_file_even_of_zero_bytes(world: &World) {
    let mut client = world.client();
    client.create("/empty", Some(b""));
    client.create("/full", Some(b"value"));
    assert_eq!(world.sh("stat --format='%F %s' empty full").ok(), STAT_OF_TWO_FILES);
    assert_eq!(world.sh("cat empty full").ok(), "value");
}

const STAT_OF_TWO_FILES: &str = "regular empty file 0\nregular file 5\n";

fn children_make_a_directory_and_its_data_a_file_inside(world: &World) {
    let mut client = world.client();
    client.create("/with", Some(b"data of the parent"));
    client.create("/with/child", Some(b"x"));
    client.create("/without", None);
    client.create("/without/child", Some(b"x"));
    assert_eq!(world.sh("ls with").ok(), "@data\nchild\n");
    assert_eq!(world.sh("cat with/@data").ok(), "data of the parent");
    assert_eq!(world.sh("ls without").ok(), "child\n");
    world.sh("cat without/@data").fails("No such file or directory");
}

fn data_of_a_directory_is_written_read_and_removed_as_at_data(world: &World) {
    let mut client = world.client();
    world.sh("mkdir --parents d/sub; echo one > d/@data").ok();
    assert_eq!(client.data("/d").as_deref(), Some(&b"one\n"[..]));
    assert_eq!(world.sh("echo two >> d/@data; ls d; cat d/@data").ok(), "@data\nsub\none\ntwo\n");
    world.sh("rm d/@data").ok();
    assert_eq!(client.data("/d"), None);
    assert_eq!(world.sh("ls d").ok(), "sub\n");
    assert_eq!(client.children("/d"), ["sub"], "@data is no znode");
}

fn any_znode_is_seen_as_a_directory_by_the_name_with_at_dir(world: &World) {
    let mut client = world.client();
    client.create("/leaf", Some(b"value"));
    world.sh("mkdir leaf@dir/child").ok();
    assert_eq!(client.children("/leaf"), ["child"]);
    assert_eq!(world.sh("ls leaf@dir; cat leaf@dir/@data").ok(), "@data\nchild\nvalue");
    let listed = world.sh("ls").ok();
    assert!(!listed.contains("@dir"), "{listed}");
    world.sh("ls missing@dir").fails("No such file or directory");
}

fn mkdir_makes_null_data_and_touch_makes_empty_data(world: &World) {
    world.sh("mkdir directory; touch touched; > redirected; echo x > written").ok();
    let mut client = world.client();
    assert_eq!(client.data("/directory"), None);
    assert_eq!(client.data("/touched").as_deref(), Some(&b""[..]));
    assert_eq!(client.data("/redirected").as_deref(), Some(&b""[..]));
    assert_eq!(client.data("/written").as_deref(), Some(&b"x\n"[..]));
}

fn a_tree_of_znodes_with_data_and_children_is_removed_as_a_whole(world: &World) {
    let mut client = world.client();
    client.create("/tree", Some(b"1"));
    client.create("/tree/branch", Some(b"2"));
    client.create("/tree/branch/leaf", Some(b"3"));
    client.create("/tree/twig", None);
    world.sh("rm --recursive tree").ok();
    assert_eq!(client.stat("/tree"), None);
}

fn a_directory_stays_one_while_a_process_is_in_it(world: &World) {
    let mut client = world.client();
    client.create("/held", Some(b"data"));
    client.create("/held/child", None);
    let script = "cd held && rmdir child && stat --format=%F . && ls && cat @data";
    assert_eq!(world.sh(script).ok(), "directory\n@data\ndata");
}

fn size_and_time_are_those_of_the_znode(world: &World) {
    let mut client = world.client();
    client.create("/file", Some(b"12345"));
    client.set("/file", Some(b"1234567"));
    let stat = client.stat("/file").unwrap();
    let shown = world.sh("stat --format='%s %Y %h' file").ok();
    assert_eq!(shown, format!("7 {} 1\n", stat.mtime / 1000));
}

fn an_inode_number_belongs_to_one_life_of_a_znode(world: &World) {
    let inode = || world.sh("stat --format=%i file").ok();
    world.sh("echo one > file").ok();
    let first = inode();
    world.sh("echo two > file").ok();
    assert_eq!(inode(), first, "the same znode");
    world.sh("rm file; echo three > file").ok();
    assert_ne!(inode(), first, "a recreated znode is another file");
    let again = world.mount_again(&[]);
    assert_eq!(again.sh("stat --format=%i file").ok(), inode(), "the same on every mount");
}

fn what_others_change_is_seen_at_the_next_look(world: &World) {
    let mut client = world.client();
    world.sh("mkdir d; echo one > d/file; cat d/file; ls d; ! stat d/new").ok();
    client.set("/d/file", Some(b"two"));
    client.create("/d/new", Some(b"x"));
    let seen = |expected: &str| {
        let look = || world.sh("cat d/file; ls d").stdout == expected;
        znodefs_tests::wait_until(expected, std::time::Duration::from_secs(5), look);
    };
    seen("twofile\nnew\n");
    client.delete("/d/new").unwrap();
    seen("twofile\n");
}

on_every_backend![
    null_data_without_children_is_a_directory,
    data_without_children_is_a_file_even_of_zero_bytes,
    children_make_a_directory_and_its_data_a_file_inside,
    data_of_a_directory_is_written_read_and_removed_as_at_data,
    any_znode_is_seen_as_a_directory_by_the_name_with_at_dir,
    mkdir_makes_null_data_and_touch_makes_empty_data,
    a_tree_of_znodes_with_data_and_children_is_removed_as_a_whole,
    a_directory_stays_one_while_a_process_is_in_it,
    size_and_time_are_those_of_the_znode,
    an_inode_number_belongs_to_one_life_of_a_znode,
    what_others_change_is_seen_at_the_next_look,
];
