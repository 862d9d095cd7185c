//! Programs people use on files: cp, tar, find, sed, editors, git.

use std::time::Duration;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::tree::files;
use znodefs_tests::{Directory, World, on_every_backend};

/// Files of this project to copy: a few hundred, with directories.
fn sources() -> std::path::PathBuf {
    source_directory().join("src")
}

fn cp_copies_a_tree_in_and_out(world: &World) {
    let outside = Directory::new();
    let source = sources();
    world.sh(&format!("cp --recursive {} copy", source.display())).ok();
    assert_eq!(files(&world.path("copy")), files(&source));
    world.sh(&format!("cp --recursive copy {}/back", outside.display())).ok();
    assert_eq!(files(&outside.join("back")), files(&source));
}

fn tar_packs_and_unpacks_inside_the_mount(world: &World) {
    let source = sources();
    world
        .sh(&format!(
            "tar --create --directory={} . | (mkdir a; cd a; tar --extract)",
            source.display()
        ))
        .ok();
    assert_eq!(files(&world.path("a")), files(&source));
    world.sh("mkdir b; tar --create --directory=a . | tar --extract --directory=b").ok();
    assert_eq!(files(&world.path("b")), files(&source));
    world.sh("diff --recursive a b").ok();
}

fn find_finds_by_name_kind_and_size(world: &World) {
    world
        .sh("mkdir --parents a/b; echo 1 > a/one.txt; echo 22 > a/b/two.txt; touch a/b/empty")
        .ok();
    assert_eq!(world.sh("find a -name '*.txt' | sort").ok(), "a/b/two.txt\na/one.txt\n");
    assert_eq!(world.sh("find a -type d | sort").ok(), "a\na/b\n");
    assert_eq!(world.sh("find a -type f -empty").ok(), "a/b/empty\n");
    assert_eq!(world.sh("grep --recursive --files-with-matches 22 a").ok(), "a/b/two.txt\n");
}

fn sed_edits_in_place(world: &World) {
    world.sh("printf 'port=1\\nhost=a\\n' > conf; sed --in-place s/port=1/port=2/ conf").ok();
    assert_eq!(world.sh("cat conf; ls").ok(), "port=2\nhost=a\nconf\nzookeeper\n");
}

fn sort_and_other_filters_write_their_result(world: &World) {
    world
        .sh("printf 'b\\na\\n' > list; sort --output=list list; install -m 644 list installed")
        .ok();
    assert_eq!(
        world.sh("cat list; tee copy < list > /dev/null; cmp copy installed").ok(),
        "a\nb\n"
    );
}

fn vim_saves_a_file(world: &World) {
    world.sh("printf 'one\\ntwo\\n' > f").ok();
    world.sh("vim -es -u NONE -i NONE -c '%s/two/three/' -c wq f").ok();
    assert_eq!(world.sh("cat f; ls").ok(), "one\nthree\nf\nzookeeper\n");
}

fn vim_saves_a_file_as_its_user_has_it_set_up(world: &World) {
    let home = Directory::new();
    let settings = "set nocompatible backup writebackup swapfile undofile fsync\n";
    std::fs::write(home.join(".vimrc"), settings).unwrap();
    let shell = world.mount.shell().variable("HOME", home.display());
    shell.sh("printf 'one\\n' > f").ok();
    // In a terminal, with the keys as a user types them.
    shell.sh("printf 'otwo\\033:wq\\r' | script --quiet --return --command 'vim f' /dev/null").ok();
    assert_eq!(world.sh("cat f").ok(), "one\ntwo\n");
}

fn nano_saves_a_file(world: &World) {
    let socket = Directory::new();
    world.sh("printf 'one\\n' > f").ok();
    let tmux = format!("tmux -S {}/socket", socket.display());
    let shell = world.mount.shell().time_limit(Duration::from_secs(60));
    // It is left through its own save-and-exit dialogue, in a terminal of its own.
    let script = format!(
        "{tmux} -f /dev/null new-session -d -x 80 -y 24 'nano --ignorercfiles f'
        until {tmux} capture-pane -p | grep --quiet one; do sleep 0.1; done
        {tmux} send-keys two Space C-x
        until {tmux} capture-pane -p | grep --quiet 'Save modified'; do sleep 0.1; done
        {tmux} send-keys y
        until {tmux} capture-pane -p | grep --quiet 'File Name'; do sleep 0.1; done
        {tmux} send-keys Enter
        while {tmux} has-session 2>/dev/null; do sleep 0.1; done"
    );
    shell.sh(&script);
    assert_eq!(world.sh("cat f; ls").ok(), "two one\nf\nzookeeper\n");
}

fn git_keeps_a_repository(world: &World) {
    let script = "set -e; git init --quiet repository; cd repository
        git config user.email a@b; git config user.name a
        echo one > file; git add file; git commit --quiet --message=one
        echo two > file; git commit --quiet --all --message=two
        git fsck --strict; git log --format=%s";
    assert_eq!(world.mount.shell().variable("HOME", "/nonexistent").sh(script).ok(), "two\none\n");
}

fn a_program_is_run_from_the_mount(world: &World) {
    world.sh("printf '#!/bin/sh\\necho ran\\n' > program; chmod +x program").ok();
    assert_eq!(world.sh("sh ./program").ok(), "ran\n");
}

on_every_backend![
    cp_copies_a_tree_in_and_out,
    tar_packs_and_unpacks_inside_the_mount,
    find_finds_by_name_kind_and_size,
    sed_edits_in_place,
    sort_and_other_filters_write_their_result,
    vim_saves_a_file,
    vim_saves_a_file_as_its_user_has_it_set_up,
    nano_saves_a_file,
    git_keeps_a_repository,
    a_program_is_run_from_the_mount,
];
