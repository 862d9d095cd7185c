//! Making, listing and removing.

use std::collections::BTreeMap;

use znodefs_tests::{Backend, World, on_every_backend};

fn the_usual_mistakes_get_the_usual_answers(world: &World) {
    world.sh("mkdir d; touch d/f; echo x > file").ok();
    world.sh("mkdir d").fails("File exists");
    world.sh("mkdir missing/d").fails("No such file or directory");
    world.sh("rmdir d").fails("Directory not empty");
    world.sh("rmdir file").fails("Not a directory");
    world.sh("rm d").fails("Is a directory");
    world.sh("cat d").fails("Is a directory");
    world.sh("cat missing").fails("No such file or directory");
    world.sh("touch file/below").fails("Not a directory");
    world.sh("cd file").fails("Not a directory");
    world.sh("echo x > d").fails("Is a directory");
}

fn what_a_coordination_tree_has_not_is_not_permitted(world: &World) {
    world.sh("touch f").ok();
    world.sh("ln --symbolic f link").fails("Operation not permitted");
    world.sh("ln f link").fails("Operation not permitted");
    world.sh("mkfifo fifo").fails("Operation not permitted");
    world.sh("mknod device c 1 3").fails("Operation not permitted");
    assert_eq!(world.client().children("/"), ["f", "zookeeper"]);
}

fn a_listing_has_each_entry_once_while_others_come_and_go(world: &World) {
    let mut client = world.client();
    client.create("/d", None);
    for number in 0..3000 {
        client.create(&format!("/d/stays-{number:04}"), Some(b""));
        if number % 3 == 0 {
            client.create(&format!("/d/goes-{number:04}"), Some(b""));
        }
    }
    let mut listing = std::fs::read_dir(world.path("d")).unwrap();
    let mut seen = BTreeMap::new();
    let mut count = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        *seen.entry(name).or_insert(0) += 1;
    };
    listing.by_ref().take(100).for_each(&mut count);
    for number in (0..3000).step_by(3) {
        client.delete(&format!("/d/goes-{number:04}")).unwrap();
        client.create(&format!("/d/comes-{number:04}"), Some(b""));
    }
    listing.for_each(&mut count);
    assert!(seen.values().all(|times| *times == 1), "an entry twice");
    let stayed = seen.keys().filter(|name| name.starts_with("stays-")).count();
    assert_eq!(stayed, 3000, "an entry that was there all the time is missing");
}

fn a_listing_starts_anew_after_rewind(world: &World) {
    let script = "import os
d = os.open('.', os.O_RDONLY)
before = os.listdir(d)
open('new', 'w').close()
after = os.listdir(d)
assert 'new' not in before and 'new' in after, (before, after)";
    world.sh(&format!("/usr/bin/python3 -c \"{script}\"")).ok();
}

fn dot_and_dot_dot_are_listed_with_their_inode_numbers(world: &World) {
    world.sh("mkdir --parents d/e").ok();
    let listed = world.sh("ls --all --inode --format=single-column d").ok();
    let inode = |path: &str| world.sh(&format!("stat --format=%i {path}")).ok();
    let line = |name: &str| {
        let found = listed.lines().find(|line| line.split_whitespace().last() == Some(name));
        found.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_string()
    };
    assert_eq!(format!("{}\n", line(".")), inode("d"));
    assert_eq!(format!("{}\n", line("..")), inode("."));
    assert_eq!(format!("{}\n", line("e")), inode("d/e"));
}

fn files_are_found_and_removed(world: &World, directories: usize, files: usize) {
    let shell = world.mount.shell().time_limit(std::time::Duration::from_secs(170));
    let made = format!(
        "mkdir many; cd many; mkdir $(seq {directories}); for d in $(seq {directories}); do
            for i in $(seq {files}); do : > $d/$i; done; done"
    );
    shell.sh(&made).ok();
    let found = shell.sh("find many -type f | wc --lines").ok();
    assert_eq!(found, format!("{}\n", directories * files));
    shell.sh("rm --recursive --force many").ok();
    assert_eq!(world.client().stat("/many"), None);
}

#[test]
fn ten_thousand_files_are_found_and_removed() {
    files_are_found_and_removed(&World::new(Backend::Znoded), 10, 1000);
}

fn a_thousand_files_are_found_and_removed(world: &World) {
    files_are_found_and_removed(world, 10, 100);
}

on_every_backend![
    the_usual_mistakes_get_the_usual_answers,
    what_a_coordination_tree_has_not_is_not_permitted,
    a_listing_has_each_entry_once_while_others_come_and_go,
    a_listing_starts_anew_after_rewind,
    dot_and_dot_dot_are_listed_with_their_inode_numbers,
    a_thousand_files_are_found_and_removed,
];
