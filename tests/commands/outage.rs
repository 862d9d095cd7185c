//! `znode lock` and `znode elect` when the servers fall silent: short outages disturb nobody, long
//! ones end the command before somebody else can hold the lock.

use znodefs_tests::deadline::pause;
use znodefs_tests::{Proxy, on_znoded, wait_until};

use crate::world::{SOON, Service, count_processes};

use std::time::Duration;

fn a_short_silence_does_not_disturb_the_command(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let script = "znode --timeout 8s lock /l sh -c 'trap \"echo term >> got\" TERM; echo in >> got; \
                  while [ ! -e end ]; do sleep 0.1; done; echo done >> got'";
    let mut holder = service.start_to(proxy.address(), script);
    service.wait_for_line("got", "in");
    proxy.fall_silent();
    // Half of the timeout is what is promised.
    pause(Duration::from_secs(3));
    proxy.speak();
    // Longer than the whole timeout since the silence began.
    pause(Duration::from_secs(8));
    std::fs::write(service.path("end"), "").unwrap();
    let status = holder.wait(SOON).expect("the command ends");
    assert!(status.success(), "{status}: {}", holder.log_text());
    assert_eq!(service.read("got"), "in\ndone\n");
}

fn a_restart_of_the_replica_does_not_disturb_the_command(service: &mut Service) {
    let script = "znode lock /l sh -c 'echo in >> got; while [ ! -e end ]; do sleep 0.1; done'";
    let mut holder = service.start(script);
    service.wait_for_line("got", "in");
    service.server.start_again();
    service.sh("znode lock -n /l true").ends_saying(1, &["held by"]);
    std::fs::write(service.path("end"), "").unwrap();
    let status = holder.wait(SOON).expect("the command ends");
    assert!(status.success(), "{status}: {}", holder.log_text());
}

/// The two commands write the time of every step to one file; they never run at once.
fn the_command_of_a_cut_off_holder_has_ended_before_the_next_one_starts(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    // Deaf to SIGTERM, and with a child in a process group of its own that does the writing.
    let section = "trap \"echo term >> got\" TERM; timeout 1000 bash -c \"trap : TERM; while :; do \
                   echo old >> got; sleep 0.01; done\" & while :; do wait; done";
    let script = format!("znode --timeout 6s lock /l bash -c '{section}'");
    let mut old = service.start_to(proxy.address(), &script);
    service.wait_for_line("got", "old");
    let mut new = service.start("znode --timeout 6s lock /l sh -c 'echo new >> got; sleep 2'");
    service.wait_for_children("/l", 2);
    proxy.fall_silent();
    service.wait_for_line("got", "new");
    assert_eq!(new.wait(SOON).and_then(|status| status.code()), Some(0));
    assert_eq!(old.wait(SOON).and_then(|status| status.code()), Some(137));
    let got = service.read("got");
    let (before, after) = got.split_once("new\n").expect("the new holder came");
    assert!(before.contains("term\n"), "the old one was asked to end first");
    assert!(!after.contains("old"), "two held the lock at once");
    let log = old.log_text();
    assert!(log.contains("SIGTERM") && log.contains("killed"), "{log}");
}

fn a_lost_lock_has_an_exit_code_and_a_hook_of_its_own(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let hook = "#!/bin/sh\necho lost $ZNODE_LOCK_PATH >> got\n";
    std::fs::write(service.path("hook"), hook).unwrap();
    service.sh("chmod +x hook").ok();
    let options = "--on-lost ./hook --lost-exit-code 79";
    service.sh(&format!("znode lock {options} /l sh -c 'exit 3'; [ $? = 3 ] && [ ! -e got ]")).ok();
    let script =
        format!("znode --timeout 4s lock {options} /l sh -c 'echo in >> got; exec sleep 1000'");
    let mut holder = service.start_to(proxy.address(), &script);
    service.wait_for_line("got", "in");
    proxy.fall_silent();
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(79));
    assert_eq!(service.read("got"), "in\nlost /l\n");
}

fn a_command_that_ends_when_asked_has_its_own_status(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let script = "znode --timeout 4s lock /l sh -c 'trap \"exit 9\" TERM; echo in >> got; \
                  while :; do sleep 0.1; done'";
    let mut holder = service.start_to(proxy.address(), script);
    service.wait_for_line("got", "in");
    proxy.fall_silent();
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(9));
}

fn who_waits_through_an_outage_queues_again(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let mut holder = service.start("exec znode lock /l sleep 1000");
    service.wait_for_children("/l", 1);
    let mut waiting = service.start_to(proxy.address(), "znode --timeout 4s lock /l echo got it");
    service.wait_for_children("/l", 2);
    proxy.fall_silent();
    service.wait_for_children("/l", 1);
    proxy.speak();
    service.wait_for_children("/l", 2);
    holder.terminate(SOON);
    let status = waiting.wait(SOON).expect("it gets the lock");
    assert!(status.success() && waiting.log_text().contains("got it"), "{}", waiting.log_text());
    assert!(waiting.log_text().contains("queueing again"), "{}", waiting.log_text());
}

fn a_wait_with_a_limit_ends_in_an_outage_too(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let mut holder = service.start("exec znode lock /l sleep 1000");
    service.wait_for_children("/l", 1);
    let mut waiting =
        service.start_to(proxy.address(), "znode --timeout 20s lock -w 1 -E 75 /l touch ran");
    service.wait_for_children("/l", 2);
    proxy.fall_silent();
    assert_eq!(waiting.wait(SOON).and_then(|status| status.code()), Some(75));
    holder.terminate(SOON);
}

fn a_leader_that_was_cut_off_stands_again(service: &mut Service) {
    let proxy = Proxy::of(&service.server.address());
    let script =
        "exec znode --timeout 4s elect --name one /e sh -c 'echo one >> led; exec sleep 987660'";
    let mut leader = service.start_to(proxy.address(), script);
    service.wait_for_line("led", "one");
    proxy.fall_silent();
    service.wait_for_children("/e", 0);
    assert_eq!(count_processes("987660"), 0);
    proxy.speak();
    wait_until("it leads again", SOON, || service.read("led") == "one\none\n");
    leader.terminate(SOON);
    assert!(leader.log_text().contains("standing for election again"), "{}", leader.log_text());
}

on_znoded![|server| &mut super::Service::of(server);
    a_short_silence_does_not_disturb_the_command,
    a_restart_of_the_replica_does_not_disturb_the_command,
    the_command_of_a_cut_off_holder_has_ended_before_the_next_one_starts,
    a_lost_lock_has_an_exit_code_and_a_hook_of_its_own,
    a_command_that_ends_when_asked_has_its_own_status,
    who_waits_through_an_outage_queues_again,
    a_wait_with_a_limit_ends_in_an_outage_too,
    a_leader_that_was_cut_off_stands_again,
];
