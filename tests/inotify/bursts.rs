//! Ten thousand changes at once: what watchers see in the end is what there is, memory stays bounded
//! and nothing hangs.

use std::path::Path;

use znodefs::wire::Request;
use znodefs::wire::request::CreateRequest;
use znodefs::{Acl, CreateMode};
use znodefs_tests::{Mount, WireClient, on_znoded, wait_until};

use crate::fixture::{Inotifywait, LIMIT, TwoMounts};

const CHANGES: usize = 10_000;

/// How many requests are on their way at once.
const WINDOW: usize = 500;

/// More memory than this a burst must not take, in KiB, in a build without optimization.
const MEMORY_MAX_KIB: u64 = 200 << 10;

fn send_all(client: &mut WireClient, requests: &[Request<'_>]) {
    for window in requests.chunks(WINDOW) {
        let references: Vec<_> = window.iter().collect();
        client.send(&references).expect("requests are taken");
        for request in window {
            client.receive(request).expect("an answer").expect("a change");
        }
    }
}

fn create<'a>(path: &'a str) -> Request<'a> {
    let data = Some(b"x".as_slice().into());
    Request::Create(CreateRequest::new(path, data, Acl::open(), CreateMode::Persistent, 0))
}

/// The most memory that the process has had so far, in KiB.
fn memory_peak(mount: &mut Mount) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mount.process().pid()));
    let status = status.expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What the mount remembers of a burst goes when the burst is over.
fn check_afterwards(mounts: &mut TwoMounts) {
    assert!(mounts.here.sh("cat @status/state").ok() == "connected\n");
    let peak = memory_peak(&mut mounts.here);
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
}

fn count(events: &[String], start: &str) -> usize {
    events.iter().filter(|event| event.starts_with(start)).count()
}

fn the_last_of_ten_thousand_values_of_one_file_is_seen(mounts: &mut TwoMounts) {
    let mut client = WireClient::connect(&mounts.server.address());
    client.create("/f", Some(b"first"));
    let watching = Inotifywait::of(&mounts.here);
    let values: Vec<_> = (1..=CHANGES).map(|number| number.to_string()).collect();
    let set = |value: &String| Request::SetData {
        path: "/f",
        data: Some(value.clone().into()),
        version: -1,
    };
    send_all(&mut client, &values.iter().map(set).collect::<Vec<_>>());
    let seen = || std::fs::read_to_string(mounts.here.join("f")).expect("the file");
    let last = CHANGES.to_string();
    wait_until("the last value is read", LIMIT, || seen() == last);
    // Whoever reads upon the last event reads the last value.
    mounts.there.sh("touch last").ok();
    let events = watching.wait_for("CREATE last");
    assert!(count(&events, "MODIFY f") > 0, "{events:?}");
    check_afterwards(mounts);
}

fn ten_thousand_new_files_are_each_told_of_once(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let watching = Inotifywait::of(&mounts.here.join("d"));
    let mut client = WireClient::connect(&mounts.server.address());
    let paths: Vec<_> = (0..CHANGES).map(|number| format!("/d/f{number:05}")).collect();
    send_all(&mut client, &paths.iter().map(|path| create(path)).collect::<Vec<_>>());
    let long = 4 * LIMIT;
    let told = || count(&watching.events(), "CREATE f");
    wait_until("all were told of", long, || told() >= CHANGES);
    let names = std::fs::read_dir(mounts.here.join("d")).expect("the directory").count();
    assert_eq!((told(), names), (CHANGES, CHANGES));
    let delete = |path: &String| -> Request<'static> {
        Request::Delete { path: path.clone().leak(), version: -1 }
    };
    // The session of the first one may have ended meanwhile.
    let mut client = WireClient::connect(&mounts.server.address());
    send_all(&mut client, &paths.iter().map(delete).collect::<Vec<_>>());
    wait_until("their end was told", long, || count(&watching.events(), "DELETE f") >= CHANGES);
    assert_eq!(std::fs::read_dir(mounts.here.join("d")).expect("the directory").count(), 0);
    check_afterwards(mounts);
}

fn a_name_that_comes_and_goes_five_thousand_times_is_there_in_the_end(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let watching = Inotifywait::of(&mounts.here.join("d"));
    let mut client = WireClient::connect(&mounts.server.address());
    let pair = || [create("/d/n"), Request::Delete { path: "/d/n", version: -1 }];
    let mut requests: Vec<_> = (0..CHANGES / 2).flat_map(|_| pair()).collect();
    requests.push(create("/d/n"));
    send_all(&mut client, &requests);
    mounts.there.sh("touch d/last").ok();
    let events = watching.wait_for("CREATE last");
    let last = events.iter().rfind(|event| event.starts_with("CREATE n") || *event == "DELETE n");
    assert_eq!(last.map(String::as_str), Some("CREATE n"), "{events:?}");
    assert_eq!(mounts.here.sh("cat d/n; ls d").ok(), "xlast\nn\n");
    client.delete("/d/n").expect("it is there");
    watching.wait_for("DELETE n");
    let is_gone = |path: &Path| !path.exists();
    wait_until("it is gone", LIMIT, || is_gone(&mounts.here.join("d/n")));
    check_afterwards(mounts);
}

on_znoded![|server| &mut super::TwoMounts::on(server);
    the_last_of_ten_thousand_values_of_one_file_is_seen,
    ten_thousand_new_files_are_each_told_of_once,
    a_name_that_comes_and_goes_five_thousand_times_is_there_in_the_end,
];
