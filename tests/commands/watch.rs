//! `znode watch`: lines, JSON, runs of a command, and what is found after an outage.

use std::time::Duration;

use nix::sys::signal::Signal;
use znodefs_tests::deadline::pause;
use znodefs_tests::{DebianZooKeeper, Proxy, on_znoded, wait_until};

use crate::world::{Background, SOON, Service};

/// The lines of a file without the zxids, which differ from run to run.
fn told(service: &Service, name: &str) -> Vec<String> {
    let text = service.read(name);
    let columns = |line: &str| {
        let columns: Vec<_> = line.split('\t').collect();
        assert_eq!(columns.len(), 3, "{line}");
        assert!(columns[2] == "-" || columns[2].starts_with("0x"), "{line}");
        format!("{} {}", columns[0], columns[1])
    };
    text.lines().map(columns).collect()
}

#[track_caller]
fn wait_until_told(service: &Service, name: &str, expected: &[&str]) {
    wait_until(&format!("{expected:?} in {name}, not {:?}", told(service, name)), SOON, || {
        told(service, name) == expected
    });
}

/// A watch of `/a` that is known to stand.
fn watch(service: &Service, address: &str, arguments: &str) -> Background {
    let script = format!("exec znode --timeout 4s watch --initial {arguments} > told");
    let process = service.start_to(address, &script);
    wait_until("it watches", SOON, || service.read("told").contains("ready\t"));
    process
}

fn a_znode_is_followed_from_its_creation_to_its_deletion(service: &mut Service) {
    let _watch = watch(service, &service.server.address(), "/a");
    service.sh("znode create /a x; znode set /a y; znode create /a/b x; znode set /a/b y").ok();
    service.sh("znode rm -r /a").ok();
    wait_until_told(
        service,
        "told",
        &["ready /a", "created /a", "changed /a", "children /a", "children /a", "deleted /a"],
    );
}

fn a_subtree_is_followed_and_told_as_lines_or_json(service: &mut Service) {
    service.sh("znode create -p '/a/b c' x").ok();
    let _watch = watch(service, &service.server.address(), "--recursive /a");
    let json = service.start("exec znode watch --initial --recursive --json /a > json");
    wait_until("it watches", SOON, || service.read("json").contains("ready"));
    service
        .sh("znode create /a/d x; znode create /a/d/e x; znode set '/a/b c' y; znode rm -r /a/d")
        .ok();
    wait_until_told(
        service,
        "told",
        &[
            "present /a",
            "present /a/b c",
            "ready /a",
            "created /a/d",
            "created /a/d/e",
            "changed /a/b c",
            "deleted /a/d/e",
            "deleted /a/d",
        ],
    );
    wait_until("the same as JSON", SOON, || service.read("json").lines().count() == 8);
    let stat = service.client().stat("/a/b c").expect("it is there");
    let line = format!(r#"{{"type":"changed","path":"/a/b c","zxid":"0x{:x}"}}"#, stat.mzxid.0);
    assert!(service.read("json").lines().any(|found| found == line), "{}", service.read("json"));
    drop(json);
}

fn what_happened_in_an_outage_is_found(service: &Service, is_expired: bool) {
    let proxy = Proxy::of(&service.server.address());
    service
        .sh("znode create -p /a/kept x; znode create -p /a/gone/deep x; znode create /a/new x")
        .ok();
    let watch = watch(service, proxy.address(), "--recursive /a");
    service.sh("znode create /a/before x").ok();
    wait_until("the last event", SOON, || service.read("told").contains("before"));
    let before = told(service, "told").len();
    // Of a server that does not name the transaction of an event, it is asked for behind the event.
    pause(Duration::from_millis(500));
    proxy.fall_silent();
    service
        .sh("znode set /a/kept y; znode rm -r /a/gone; znode create /a/in x; znode rm /a/new; \
                znode create /a/new y")
        .ok();
    // Told when the watcher notices; a session of 4 s expires within 8.
    let is_lost = || {
        let log = watch.log_text();
        log.matches("the connection is lost").count() > log.matches("compared").count()
    };
    wait_until("it notices", SOON, is_lost);
    if is_expired {
        pause(Duration::from_secs(9));
    }
    proxy.speak();
    wait_until("it has compared", SOON, || !is_lost());
    let mut found = told(service, "told").split_off(before);
    found.sort();
    assert_eq!(
        found,
        [
            "changed /a/kept",
            "created /a/in",
            "created /a/new",
            "deleted /a/gone",
            "deleted /a/gone/deep",
            "deleted /a/new",
        ]
    );
    let log = watch.log_text();
    assert!(log.contains("6 changes found"), "{log}");
    assert_eq!(log.contains("new one"), is_expired, "{log}");
    service.sh("znode create /a/after x").ok();
    wait_until("events go on", SOON, || service.read("told").contains("after"));
}

fn what_happened_in_a_short_outage_is_found(service: &mut Service) {
    what_happened_in_an_outage_is_found(service, false);
}

fn what_happened_while_the_session_expired_is_found(service: &mut Service) {
    what_happened_in_an_outage_is_found(service, true);
}

#[test]
fn the_same_holds_with_zookeeper() {
    what_happened_in_an_outage_is_found(&Service::of(&mut DebianZooKeeper::start()), true);
}

fn a_restart_of_the_replica_is_an_outage(service: &mut Service) {
    let watch = watch(service, &service.server.address(), "/a");
    service.server.start_again();
    service.sh("znode create /a x").ok();
    wait_until_told(service, "told", &["ready /a", "created /a"]);
    wait_until("it says so", SOON, || watch.log_text().contains("compared"));
}

fn it_ends_quietly_with_its_reader(service: &mut Service) {
    let ran = service.sh("set -o pipefail; znode watch --initial / | head -n 1");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
}

fn a_command_is_run_after_each_burst_and_again_for_what_came_meanwhile(service: &mut Service) {
    let script = "exec znode watch --recursive --initial /a --exec sh -c 'echo run >> told; \
                  echo \"$ZNODE_WATCH_EVENTS\" | cut -f1,2 >> told; \
                  echo $ZNODE_WATCH_COUNT $ZNODE_WATCH_PATH >> told; \
                  znode wait /go-on-$(grep -c run told) --exists'";
    let mut watch = service.start(script);
    wait_until("the first run", SOON, || service.read("told").ends_with("0 /a\n"));
    service.sh("znode create /a x; for n in 1 2 3 4 5; do znode set /a $n; done").ok();
    service.sh("znode create /a/b x; znode create /go-on-1 x").ok();
    wait_until("the second run", SOON, || service.read("told").ends_with("7 /a\n"));
    service.sh("znode rm /a/b; znode create /go-on-2 x").ok();
    wait_until("the third run", SOON, || service.read("told").ends_with("1 /a\n"));
    let expected = "run\n\n0 /a\nrun\nchanged\t/a\ncreated\t/a/b\n7 /a\nrun\ndeleted\t/a/b\n1 /a\n";
    assert_eq!(service.read("told"), expected);
    // A signal ends the command and the watch.
    watch.signal(Signal::SIGTERM);
    assert!(watch.wait(SOON).is_some());
}

fn a_command_that_fails_is_reported_and_the_watch_goes_on(service: &mut Service) {
    let watch =
        service.start("exec znode watch --initial /a --exec sh -c 'echo run >> told; exit 4'");
    wait_until("the first run", SOON, || watch.log_text().contains("ended with status 4"));
    service.sh("znode create /a x").ok();
    wait_until("the second run", SOON, || service.read("told") == "run\nrun\n");
    service.sh("znode watch -i /a --exec no-such-program").says_only(69, &["no-such-program"]);
}

on_znoded![|server| &mut super::Service::of(server);
    a_znode_is_followed_from_its_creation_to_its_deletion,
    a_subtree_is_followed_and_told_as_lines_or_json,
    a_restart_of_the_replica_is_an_outage,
    it_ends_quietly_with_its_reader,
    a_command_is_run_after_each_burst_and_again_for_what_came_meanwhile,
    a_command_that_fails_is_reported_and_the_watch_goes_on,
    what_happened_in_a_short_outage_is_found,
    what_happened_while_the_session_expired_is_found,
];
