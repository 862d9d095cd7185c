//! Servers that do not tell of all changes, as ZooKeeper before 3.6: nothing is kept, and everything is
//! seen all the same.

use std::fs;

use znodefs_tests::{Mount, Proxy, Server, Znoded, wait_until};

use crate::{LIMIT, statistic};

#[test]
fn with_servers_that_do_not_tell_of_changes_every_look_asks() {
    let server = Znoded::start();
    let proxy = Proxy::of_older(&server.address());
    let mut here = Mount::of(proxy.address(), &["-o", "timeout=30"]);
    let there = Mount::of(&server.address(), &[]);
    for round in 0..3 {
        there.sh("mkdir d; echo 0 > d/f").ok();
        for n in 1..=20 {
            let before = statistic(&here, "requests_sent");
            assert_eq!(fs::read_to_string(here.join("d/f")).unwrap(), format!("{}\n", n - 1));
            assert!(!here.join(format!("d/{n}")).exists());
            assert_eq!(fs::read_dir(here.join("d")).unwrap().count(), n);
            there.sh(&format!("echo {n} > d/f; touch d/{n}")).ok();
            assert!(here.join(format!("d/{n}")).exists());
            assert!(statistic(&here, "requests_sent") >= before + 4);
        }
        there.sh("rm -r d").ok();
        assert!(!here.join("d").exists(), "in round {round}");
        proxy.cut();
        proxy.mend();
    }
    // Changes through this mount, and locks, need nobody who tells.
    here.sh("mkdir e; echo x > e/f; flock e/f mv e/f e/g; cat e/g").ok();
    assert_eq!(there.sh("flock e/g cat e/g").ok(), "x\n");
    let log = here.process().log_text();
    assert!(log.contains("do not tell of all changes"), "{log}");
    assert!(proxy.add_watches() >= 1);
}

#[test]
fn a_connection_lost_at_the_start_says_nothing_of_the_servers() {
    let server = Znoded::start();
    let proxy = Proxy::cutting_the_first_watch(&server.address());
    let mut here = Mount::of(proxy.address(), &[]);
    server_tells(&here, &server);
    let log = here.process().log_text();
    assert!(!log.contains("do not tell of all changes"), "{log}");
    assert!(proxy.add_watches() >= 2);
}

/// What is kept is dropped when it changes.
fn server_tells(here: &Mount, server: &Znoded) {
    let there = Mount::of(&server.address(), &[]);
    there.sh("echo old > f").ok();
    let read = || fs::read_to_string(here.join("f")).unwrap();
    wait_until("it is there", LIMIT, || read() == "old\n");
    let before = statistic(here, "requests_sent");
    for _ in 0..20 {
        assert_eq!(read(), "old\n");
    }
    assert!(statistic(here, "requests_sent") < before + 20, "it is kept");
    there.sh("echo new > f").ok();
    wait_until("it has changed", LIMIT, || read() == "new\n");
}
