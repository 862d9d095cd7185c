//! Looking again at what has not changed asks no server.

use std::fs;
use std::time::{Duration, Instant};

use znodefs_tests::{Backend, World, on_every_backend, wait_until};

use crate::{LIMIT, sent_when_quiet, statistic};

on_every_backend!(
    reading_and_listing_again_asks_no_server,
    attributes_are_asked_for_once_a_second_at_most,
    what_another_mount_changes_is_asked_for_again,
    modes_follow_a_changed_acl,
);

fn prepare(world: &World) {
    world.sh("mkdir d; echo value > d/f; for n in $(seq 1 100); do : > d/g$n; done").ok();
}

fn look(world: &World) {
    assert_eq!(fs::read_to_string(world.path("d/f")).unwrap(), "value\n");
    assert_eq!(fs::read_dir(world.path("d")).unwrap().count(), 101);
    for absent in ["d/absent", "absent", "d/f@data"] {
        let error = fs::File::open(world.path(absent)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{absent}");
    }
}

fn reading_and_listing_again_asks_no_server(world: &World) {
    prepare(world);
    // What was done here is known after the first look behind it.
    look(world);
    look(world);
    let before = sent_when_quiet(&world.mount);
    for _ in 0..50 {
        look(world);
    }
    assert_eq!(statistic(&world.mount, "requests_sent"), before);
}

#[allow(clippy::disallowed_methods, reason = "how long something is kept is what is tested")]
fn attributes_are_asked_for_once_a_second_at_most(world: &World) {
    prepare(world);
    fs::metadata(world.path("d/f")).unwrap();
    let before = sent_when_quiet(&world.mount);
    let (start, mut looks) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(fs::metadata(world.path("d/f")).unwrap().len(), 6);
        looks += 1;
    }
    let asked = statistic(&world.mount, "requests_sent") - before;
    let seconds = start.elapsed().as_secs();
    assert!(asked <= seconds + 1 && looks > 100, "{asked} questions in {seconds} s, {looks} looks");
}

fn what_another_mount_changes_is_asked_for_again(world: &World) {
    prepare(world);
    let there = world.mount_again(&[]);
    look(world);
    there.sh("echo other > d/f; rm d/g1; touch d/absent; mkdir absent").ok();
    let is_seen = || {
        fs::read_to_string(world.path("d/f")).unwrap() == "other\n"
            && !world.path("d/g1").exists()
            && world.path("d/absent").exists()
            && world.path("absent@dir").exists()
            && fs::read_dir(world.path("d")).unwrap().count() == 101
    };
    wait_until("the changes are seen", LIMIT, is_seen);
}

fn modes_follow_a_changed_acl(world: &World) {
    prepare(world);
    let there = world.mount_again(&[]);
    let mode = || world.sh("stat --format=%A d/f").ok();
    assert_eq!(mode(), "-rw-rw-rw-\n");
    there.sh("setfattr -n user.znode.acl -v world:anyone:ra d/f").ok();
    wait_until("the mode is shown", LIMIT, || mode() == "-r--r--r--\n");
}

#[test]
fn without_a_cache_every_look_asks() {
    let world = World::with_options(Backend::Znoded, &["-o", "nocache"]);
    prepare(&world);
    look(&world);
    let before = sent_when_quiet(&world.mount);
    for _ in 0..10 {
        look(&world);
    }
    assert!(statistic(&world.mount, "requests_sent") > before + 50);
    assert_eq!(statistic(&world.mount, "cached_value_bytes"), 0);
}

#[test]
fn values_are_kept_up_to_a_limit() {
    let world = World::with_options(Backend::Znoded, &["-o", "cache_size=100K"]);
    world.sh("for n in $(seq 1 40); do head -c 10000 /dev/zero > f$n; done").ok();
    for _ in 0..3 {
        for number in 1..=40 {
            assert_eq!(fs::read(world.path(&format!("f{number}"))).unwrap().len(), 10_000);
        }
        let kept = statistic(&world.mount, "cached_value_bytes");
        assert!((50_000..=102_400).contains(&kept), "{kept} bytes");
    }
}
