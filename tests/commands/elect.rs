//! `znode elect`: who leads, and who is told.

use nix::sys::signal::Signal;
use znodefs_tests::{on_znoded, wait_until};

use crate::world::{SOON, Service};

fn the_next_one_leads_when_the_leader_ends(service: &mut Service) {
    let stand = |name: &str| {
        let command = format!("sh -c 'echo {name} >> led; exec sleep 1000'");
        service.start(&format!("exec znode elect --name {name} /e {command}"))
    };
    let mut first = stand("one");
    service.wait_for_line("led", "one");
    let mut second = stand("two");
    service.wait_for_children("/e", 2);
    assert_eq!(service.read("led"), "one\n");
    assert_eq!(first.terminate(SOON).code(), Some(143));
    service.wait_for_line("led", "two");
    second.terminate(SOON);
    assert_eq!(service.sh("znode elect /e sh -c 'exit 3'").code, 3);
    assert_eq!(service.sh("znode elect /e").code, 2);
    assert_eq!(service.sh("znode elect --observe /e true").code, 2);
}

fn observers_are_told_of_every_change_and_of_nothing_else(service: &mut Service) {
    let mut observer = service.start("exec znode elect --observe /e > seen");
    let seen = |expected: &str| {
        wait_until(&format!("seen: {expected:?}"), SOON, || service.read("seen") == expected);
    };
    seen("\n");
    let mut first = service.start("exec znode elect --name one /e sleep 1000");
    seen("\none\n");
    let mut second = service.start("exec znode elect --name two /e sleep 1000");
    service.wait_for_children("/e", 2);
    first.terminate(SOON);
    seen("\none\ntwo\n");
    let leader = service.wait_for_children("/e", 1).remove(0);
    service.sh(&format!("znode set /e/{leader} renamed")).ok();
    seen("\none\ntwo\nrenamed\n");
    second.terminate(SOON);
    seen("\none\ntwo\nrenamed\n\n");
    observer.signal(Signal::SIGTERM);
    assert!(observer.wait(SOON).is_some());
}

fn who_leads_now_can_be_asked_once(service: &mut Service) {
    service.sh("znode elect --observe --once /e").says_only(1, &["/e: nobody leads"]);
    let mut leader = service.start("exec znode elect --name one /e sleep 1000");
    service.wait_for_children("/e", 1);
    assert_eq!(service.sh("znode elect --observe --once /e").ok(), "one\n");
    leader.terminate(SOON);
    service.sh("znode elect --observe --once /e").says_only(1, &["nobody leads"]);
    assert_eq!(service.sh("znode elect --once /e true").code, 2);
}

fn an_observer_ends_with_its_reader(service: &mut Service) {
    assert_eq!(service.sh("set -o pipefail; znode elect --observe /e | head -n 1").ok(), "\n");
}

on_znoded![|server| &mut super::Service::of(server);
    the_next_one_leads_when_the_leader_ends,
    observers_are_told_of_every_change_and_of_nothing_else,
    who_leads_now_can_be_asked_once,
    an_observer_ends_with_its_reader,
];
