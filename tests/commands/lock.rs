//! `znode lock` while the service is well: grammar, exit codes, signals, queue.

use nix::sys::signal::Signal;
use znodefs_tests::{on_znoded, wait_until};

use crate::world::{SOON, Service, count_processes, wait_until_gone};

fn the_status_of_the_command_is_passed_on(service: &mut Service) {
    assert_eq!(service.sh("znode lock /l true").code, 0);
    assert_eq!(service.sh("znode lock /l sh -c 'exit 7'").code, 7);
    assert_eq!(service.sh("znode lock /l sh -c 'kill -TERM $$'").code, 143);
    service.sh("znode lock /l no-such-program").says_only(69, &["no-such-program"]);
    assert_eq!(service.sh("znode lock /l").code, 2);
    assert_eq!(service.sh("znode lock l true").code, 2);
    assert_eq!(service.sh("znode lock -n -w 1 /l true").code, 2);
    service.sh("znode lock /l -c 'echo no shell'").says_only(2, &["no shell", "sh -c"]);
    // Short options together, as getopt takes them.
    assert_eq!(service.sh("znode lock -xnE75 /l sh -c 'exit 3'").code, 3);
    assert_eq!(service.sh("znode lock -sow2 /l -- sh -c 'exit 3'").code, 3);
}

fn arguments_reach_the_command_as_they_are(service: &mut Service) {
    let ran = service.sh("znode lock -x /l printf '%s|' '$HOME; a b' -n --wait '' '*'");
    assert_eq!(ran.ok(), "$HOME; a b|-n|--wait||*|");
    assert_eq!(service.sh("echo input | znode lock /l -n -- cat").ok(), "input\n");
}

fn a_held_lock_is_not_waited_for_longer_than_wanted(service: &mut Service) {
    let mut holder = service.start("znode lock /l sleep 1000");
    service.wait_for_children("/l", 1);
    service.sh("znode lock -n /l touch ran").says_only(1, &["/l", "held by", "sleep 1000"]);
    service.sh("znode lock -n -E 75 /l touch ran").says_only(75, &["/l"]);
    service.sh("znode lock -w 0 -E 75 /l touch ran").says_only(75, &["/l"]);
    service.sh("znode lock -w 0.2 -E 76 /l touch ran").says_only(76, &["/l"]);
    assert!(!service.path("ran").exists());
    // Who gave up is not in the way of others.
    service.wait_for_children("/l", 1);
    holder.terminate(SOON);
    service.sh("znode lock -w 20 /l touch ran").ok();
    assert!(&service.path("ran").exists());
}

fn the_environment_names_the_lock_and_a_number_that_grows(service: &mut Service) {
    let script = "znode lock /a/b sh -c 'echo $ZNODE_LOCK_PATH; echo $ZNODE_LOCK_ZXID; \
                  znode get $ZNODE_LOCK_CONTENDER; echo; echo $ZNODE_SERVERS'";
    let mut last = 0;
    for _ in 0..3 {
        let output = service.sh(script).ok();
        let lines: Vec<_> = output.lines().collect();
        assert_eq!((lines[0], lines[3]), ("/a/b", service.server.address().as_str()));
        assert!(lines[2].contains(":sh -c echo"), "{output}");
        let zxid: i64 = lines[1].parse().expect("a decimal number");
        assert!(zxid > last, "{zxid} after {last}");
        last = zxid;
    }
}

fn shared_holders_share_and_exclude_a_writer(service: &mut Service) {
    let mut readers = ["1", "2"].map(|name| {
        service.start(&format!("znode lock -s /l sh -c 'echo {name} >> in; exec sleep 1000'"))
    });
    service.wait_for_line("in", "1");
    service.wait_for_line("in", "2");
    service.sh("znode lock -n /l true").ends_saying(1, &["held by"]);
    service.sh("znode lock -s -n /l true").ok();
    readers[0].terminate(SOON);
    let mut writer = service.start("znode lock /l sh -c 'echo writer >> in; exec sleep 1000'");
    service.wait_for_children("/l", 2);
    // Readers that come after a writer do not overtake it.
    service.sh("znode lock -s -n /l true").ends_saying(1, &["held by"]);
    readers[1].terminate(SOON);
    service.wait_for_line("in", "writer");
    writer.terminate(SOON);
}

fn a_limit_lets_so_many_in(service: &mut Service) {
    let holders: Vec<_> = (0..3)
        .map(|_| service.start("znode lock --limit 3 /l sh -c 'echo in >> in; exec sleep 1000'"))
        .collect();
    wait_until("three are in", SOON, || service.read("in").lines().count() == 3);
    service.sh("znode lock --limit 3 -n /l true").ends_saying(1, &["held by"]);
    drop(holders);
}

fn the_lock_is_held_until_everything_that_the_command_started_has_ended(service: &mut Service) {
    // The second sleep is in a process group of its own.
    let script = "znode lock /l sh -c 'sleep 987654 & timeout 9876540 sleep 9876541 & exit 5'";
    let holder = service.start(script);
    service.wait_for_children("/l", 1);
    wait_until("both sleep", SOON, || {
        count_processes("987654") == 1 && count_processes("9876541") == 2
    });
    for left_behind in ["987654", "9876541"] {
        service.sh("znode lock -n /l true").ends_saying(1, &["held by"]);
        service.sh(&format!("pkill --full --exact 'sleep {left_behind}'")).ok();
    }
    let mut holder = holder;
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(5));
    service.sh("znode lock -n /l true").ok();
    let script = "znode lock -o /l sh -c 'sleep 987656 & exit 6'; code=$?; \
                  pkill --full --exact 'sleep 987656'; exit $code";
    assert_eq!(service.sh(script).code, 6);
}

fn a_daemon_keeps_the_lock_as_it_does_with_flock(service: &mut Service) {
    let mut holder = service.start("exec znode lock /l sh -c 'setsid --fork sleep 987657; exit 3'");
    wait_until("the daemon runs", SOON, || count_processes("987657") == 1);
    service.sh("znode lock -n /l true").ends_saying(1, &["held by"]);
    service.sh("pkill --full --exact 'sleep 987657'").ok();
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(3));
    service.sh("znode lock -n /l true").ok();
}

fn signals_reach_everything_that_runs_under_the_lock(service: &mut Service) {
    let script = "exec znode lock /l sh -c 'sleep 987658; echo not reached > after'";
    let mut holder = service.start(script);
    wait_until("the command runs", SOON, || count_processes("987658") == 1);
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(143));
    wait_until_gone("987658");
    assert!(!service.path("after").exists());

    let script = "exec znode lock /l bash -c 'trap \"echo usr1 >> got\" USR1; \
                  trap \"echo int >> got; exit 4\" INT; echo ready >> got; while :; do sleep 0.05; done'";
    let mut holder = service.start(script);
    service.wait_for_line("got", "ready");
    holder.signal(Signal::SIGUSR1);
    service.wait_for_line("got", "usr1");
    holder.signal(Signal::SIGINT);
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(4));
    service.wait_for_line("got", "int");
}

fn signals_that_were_ignored_stay_ignored(service: &mut Service) {
    let script = "trap '' HUP; exec znode lock /l sh -c 'echo ready > got; sleep 0.5; kill -HUP $$; \
                  echo alive >> got; exec sleep 1000'";
    let mut holder = service.start(script);
    service.wait_for_line("got", "ready");
    holder.signal(Signal::SIGHUP);
    service.wait_for_line("got", "alive");
    holder.terminate(SOON);
}

fn a_signal_takes_a_waiting_contender_out_of_the_queue(service: &mut Service) {
    use std::os::unix::process::ExitStatusExt;
    let mut holder = service.start("exec znode lock /l sleep 1000");
    service.wait_for_children("/l", 1);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut waiting = service.start("exec znode lock /l touch ran");
        service.wait_for_children("/l", 2);
        waiting.signal(signal);
        // It dies of it, so that a shell's loop around it ends too.
        assert_eq!(waiting.wait(SOON).and_then(|status| status.signal()), Some(signal as i32));
        service.wait_for_children("/l", 1);
    }
    holder.terminate(SOON);
    assert!(!service.path("ran").exists());
}

fn the_command_does_not_outlive_a_killed_znode(service: &mut Service) {
    let mut holder = service.start("exec znode lock /l sleep 987659");
    wait_until("the command runs", SOON, || count_processes("987659") == 2);
    holder.signal(Signal::SIGKILL);
    wait_until_gone("987659");
    assert!(holder.wait(SOON).is_some());
}

fn a_contender_deleted_by_hand_ends_the_command_at_once(service: &mut Service) {
    let script =
        "znode --timeout 60s lock /l sh -c 'trap \"\" TERM; timeout 9876600 sleep 9876601'";
    let mut holder = service.start(script);
    wait_until("the command runs", SOON, || count_processes("9876601") == 2);
    let contender = service.wait_for_children("/l", 1).remove(0);
    service.sh(&format!("znode rm /l/{contender}")).ok();
    assert_eq!(holder.wait(SOON).and_then(|status| status.code()), Some(137));
    assert_eq!(
        count_processes("9876601"),
        0,
        "the command and what it started is gone before znode is"
    );
    assert!(holder.log_text().contains("somebody has deleted"), "{}", holder.log_text());
}

fn twenty_contenders_on_many_sessions_exclude_each_other_while_the_replica_is_restarted(
    service: &mut Service,
) {
    // Independent of znodefs: whoever finds the file there was let in beside another.
    let section = "set -C; { : > inside; } 2>/dev/null || echo VIOLATION >> record; set +C; \
                   echo in >> record; sleep 0.05; echo out >> record; rm -f inside";
    let script = format!("znode --timeout 10s lock /l bash -c '{section}'");
    let mut contenders: Vec<_> =
        (0..20).map(|_| service.start(&format!("{script}; {script}"))).collect();
    service.wait_for_line("record", "out");
    for _ in 0..2 {
        let seen = service.read("record").len();
        service.server.start_again();
        wait_until("it goes on", SOON, || service.read("record").len() > seen);
    }
    for contender in &mut contenders {
        let status = contender.wait(3 * SOON).expect("no contender starves");
        assert!(status.success(), "{status}: {}", contender.log_text());
    }
    let record = service.read("record");
    assert!(!record.contains("VIOLATION"), "{record}");
    let lines: Vec<_> = record.lines().collect();
    assert_eq!(lines.len(), 80);
    assert!(lines.chunks(2).all(|pair| pair == ["in", "out"]), "{record}");
}

on_znoded![|server| &mut super::Service::of(server);
    the_status_of_the_command_is_passed_on,
    arguments_reach_the_command_as_they_are,
    a_held_lock_is_not_waited_for_longer_than_wanted,
    the_environment_names_the_lock_and_a_number_that_grows,
    shared_holders_share_and_exclude_a_writer,
    a_limit_lets_so_many_in,
    the_lock_is_held_until_everything_that_the_command_started_has_ended,
    a_daemon_keeps_the_lock_as_it_does_with_flock,
    signals_reach_everything_that_runs_under_the_lock,
    signals_that_were_ignored_stay_ignored,
    a_signal_takes_a_waiting_contender_out_of_the_queue,
    the_command_does_not_outlive_a_killed_znode,
    a_contender_deleted_by_hand_ends_the_command_at_once,
    twenty_contenders_on_many_sessions_exclude_each_other_while_the_replica_is_restarted,
];
