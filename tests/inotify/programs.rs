//! What others change is seen by the programs and libraries that people use: the crate `notify`,
//! Python's `watchdog`, and tail(1).

use std::process::Command;
use std::sync::mpsc;

use notify::{Event, EventKind, RecursiveMode, Watcher};
use znodefs_tests::binaries::python;
use znodefs_tests::{Directory, Process, on_znoded, wait_for, wait_until};

use crate::fixture::{LIMIT, TwoMounts};

/// What is done elsewhere; what comes and goes at once need not be seen at all.
const MAKING: &str = "echo one > d/f; mkdir d/sub";
const REMOVING: &str = "echo two > d/f; rm d/f; rmdir d/sub";

fn the_crate_notify_sees_them(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let (sender, events) = mpsc::channel::<notify::Result<Event>>();
    let mut watcher = notify::recommended_watcher(sender).expect("a watcher");
    watcher.watch(&mounts.here.join("d"), RecursiveMode::Recursive).expect("a watch");
    type IsKind = fn(&EventKind) -> bool;
    let steps: [(&str, &[(IsKind, &str)]); 2] = [
        (
            MAKING,
            &[
                (EventKind::is_create, "d/f"),
                (EventKind::is_modify, "d/f"),
                (EventKind::is_create, "d/sub"),
            ],
        ),
        (REMOVING, &[(EventKind::is_remove, "d/f"), (EventKind::is_remove, "d/sub")]),
    ];
    let mut seen = Vec::new();
    for (script, wanted) in steps {
        mounts.there.sh(script).ok();
        let all = wait_for(LIMIT, || {
            seen.extend(events.try_iter().map(|event| event.expect("an event")));
            let came = |(is_kind, name): &(IsKind, &str)| {
                let path = mounts.here.join(name);
                seen.iter().any(|event| is_kind(&event.kind) && event.paths.contains(&path))
            };
            wanted.iter().all(came).then_some(())
        });
        assert!(all.is_some(), "{script}: {seen:#?}");
    }
}

const WATCHDOG: &str = "
import sys, time
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler

class Printer(FileSystemEventHandler):
    def on_any_event(self, event):
        print(event.event_type, event.is_directory, event.src_path, flush=True)

observer = Observer()
observer.schedule(Printer(), sys.argv[1], recursive=True)
observer.start()
print('watching', flush=True)
while True:
    time.sleep(1)
";

fn pythons_watchdog_sees_them(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let (watched, directory) = (mounts.here.join("d"), Directory::new());
    let mut command = Command::new(python());
    command.args(["-c", WATCHDOG]).arg(&watched);
    let process = Process::spawn(&mut command, &directory.join("watchdog.log"));
    let says = |line: &str| process.log_text().lines().any(|known| known == line);
    wait_until("watchdog watches", LIMIT, || says("watching"));
    let at = |what: &str, name: &str| format!("{what} {}", watched.join(name).display());
    let made = [at("created False", "f"), at("closed False", "f"), at("created True", "sub")];
    let removed = [at("modified False", "f"), at("deleted False", "f"), at("deleted True", "sub")];
    for (script, lines) in [(MAKING, made), (REMOVING, removed)] {
        mounts.there.sh(script).ok();
        for line in lines {
            let log = || format!("{line} in {}", process.log_text());
            assert!(wait_for(LIMIT, || says(&line).then_some(())).is_some(), "{}", log());
        }
    }
}

fn tail_follows_a_file_that_is_replaced_and_appended_to(mounts: &mut TwoMounts) {
    mounts.there.sh("echo one > log").ok();
    let directory = Directory::new();
    let mut command = Command::new("tail");
    command.args(["-F", "-n", "+1"]).arg(mounts.here.join("log"));
    let tail = Process::spawn(&mut command, &directory.join("tail.log"));
    let says = |line: &str| tail.log_text().lines().any(|known| known == line);
    wait_until("the first line is there", LIMIT, || says("one"));
    for (script, line) in [
        ("echo two >> log", "two"),
        ("echo three >> log", "three"),
        ("rm log; echo another > log", "another"),
        ("echo four >> log", "four"),
        ("echo renamed > new; mv new log", "renamed"),
    ] {
        mounts.there.sh(script).ok();
        assert!(
            wait_for(LIMIT, || says(line).then_some(())).is_some(),
            "{line}: {}",
            tail.log_text()
        );
    }
}

on_znoded![|server| &mut super::TwoMounts::on(server);
    the_crate_notify_sees_them,
    pythons_watchdog_sees_them,
    tail_follows_a_file_that_is_replaced_and_appended_to,
];
