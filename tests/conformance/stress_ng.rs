//! stress-ng: several processes at once that lock, watch, create, rename, open and touch.

use znodefs_tests::{World, on_every_backend};

use crate::{LIMIT, rounds};

/// The stressors, and whether they check what they see. Two do not:
/// - `utime` compares the times that it has set, which znodes do not keep;
/// - `open` opens with random flags, some of which ask for sequential and ephemeral znodes here.
const STRESSORS: &[(&str, bool)] = &[
    ("flock", true),
    ("lockf", true),
    ("inotify", true),
    ("dir", true),
    ("dirdeep", true),
    ("dirmany", true),
    ("rename", true),
    ("open", false),
    ("utime", false),
];

/// How long each of them works in one round, seconds.
const SECONDS: u64 = 2;

fn many_processes_at_once_find_what_they_expect(world: &World) {
    world.sh("mkdir stress").ok();
    for (stressor, verifies) in STRESSORS {
        let seconds = SECONDS * rounds();
        let verify = if *verifies { "--verify" } else { "" };
        let script = format!(
            "cd stress && exec stress-ng --{stressor} 2 --timeout {seconds} {verify} --temp-path . 2>&1"
        );
        let shell = world.mount.shell().time_limit(LIMIT * rounds() as u32);
        let said = shell.sh(&script).ok();
        assert!(said.contains(": 2 "), "{stressor} did not run: {said}");
        for trouble in [" fail: ", " error: "] {
            assert!(!said.contains(trouble), "{stressor}: {said}");
        }
    }
    world.sh("rm -r stress; mkdir after; ls after").ok();
}

on_every_backend!(many_processes_at_once_find_what_they_expect);
