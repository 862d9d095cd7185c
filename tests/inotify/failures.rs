//! Processes that are killed and servers that go away, in the middle of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use znodefs_tests::{Mount, Server, Shell, Znoded, on_znoded, wait_until};

use crate::fixture::{Inotifywait, LIMIT, TwoMounts};

/// The helper of a mount process.
fn helper_of(mount: &mut Mount) -> Option<Pid> {
    let parent = mount.process().pid().to_string();
    let mut command = Command::new("pgrep");
    command.args(["-P", &parent, "-x", "znode-replay"]);
    let found = Shell::new(Path::new("/")).run(&mut command);
    found.stdout.trim().parse().ok().map(Pid::from_raw)
}

fn a_killed_helper_is_replaced_and_nothing_is_missed(mounts: &mut TwoMounts) {
    let watching = Inotifywait::of(&mounts.here);
    for round in 0..5 {
        let helper = helper_of(&mut mounts.here).expect("a helper");
        std::thread::scope(|scope| {
            let there = &mounts.there;
            let script = format!("for n in $(seq 1 60); do : > f{round}-$n; done");
            let writer = scope.spawn(move || there.sh(&script).ok());
            std::thread::sleep(Duration::from_millis(60));
            kill(helper, Signal::SIGKILL).expect("a helper to kill");
            writer.join().expect("the writer");
        });
        watching.wait_for(&format!("CREATE f{round}-60"));
        wait_until("there is another helper", LIMIT, || {
            helper_of(&mut mounts.here).is_some_and(|found| found != helper)
        });
    }
    let listed = || mounts.here.sh("ls | grep -c ^f").ok();
    wait_until("every file is listed", LIMIT, || listed().trim() == "300");
    let told = || watching.events().iter().filter(|event| event.starts_with("CREATE f")).count();
    wait_until("every file was told of", LIMIT, || told() >= 300);
}

#[test]
fn a_mount_killed_in_the_middle_of_it_hangs_nobody() {
    let server = Znoded::start();
    let there = Mount::of(&server.address(), &[]);
    for _ in 0..4 {
        let mut here = Mount::of(&server.address(), &[]);
        let watching = Inotifywait::of(&here);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| there.sh("for n in $(seq 1 150); do : > n; rm n; done"));
            watching.wait_for("CREATE n");
            let helper = helper_of(&mut here).expect("a helper");
            here.process().kill();
            let gone = || !Path::new(&format!("/proc/{helper}")).exists();
            wait_until("the helper is gone", LIMIT, gone);
            writer.join().expect("the writer").ok();
        });
        wait_until("the mount is gone", LIMIT, || here.table_entry().is_none());
    }
}

fn what_lies_underneath_is_never_touched(mounts: &mut TwoMounts) {
    let underneath = mounts.here.to_path_buf();
    let watching = Inotifywait::of(&mounts.here);
    mounts.there.sh("touch precious; mkdir directory").ok();
    watching.wait_for("CREATE,ISDIR directory");
    // Kept open, so that the mount lives on out of sight.
    let _open = std::fs::File::open(underneath.join("precious")).expect("a file of the mount");
    let lazily = format!("umount -l {}", underneath.display());
    Shell::new(Path::new("/")).sh(&lazily).ok();
    std::fs::write(underneath.join("precious"), "data").expect("a file underneath");
    std::fs::create_dir(underneath.join("directory")).expect("a directory underneath");
    mounts.there.sh("rm precious; rmdir directory; touch new").ok();
    mounts.there.sh("for n in $(seq 1 50); do : > f$n; done").ok();
    let names = Shell::new(&underneath).sh("ls; cat precious").ok();
    assert_eq!(names, "directory\nprecious\ndata");
    std::fs::remove_file(underneath.join("precious")).expect("it is still there");
    std::fs::remove_dir(underneath.join("directory")).expect("it is still there");
}

on_znoded![|server| &mut super::TwoMounts::on(server);
    a_killed_helper_is_replaced_and_nothing_is_missed,
    what_lies_underneath_is_never_touched,
];
