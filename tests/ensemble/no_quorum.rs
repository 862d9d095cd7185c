//! Two of three members are gone, and nothing else is configured: clients are told so, nothing is
//! half done, and service is back within one election.

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use znodefs::wire::Request;
use znodefs_tests::{Directory, Ensemble, Shell, WireClient, binary, wait_until};

const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_command_says_that_there_is_no_quorum_and_names_the_servers() {
    let mut ensemble = Ensemble::start(3, 0);
    WireClient::connect(&ensemble.address(1)).create("/a", Some(b"before"));
    ensemble.kill(1);
    ensemble.kill(3);
    wait_until("it stops serving", SOON, || {
        ensemble.word(2, "srvr").is_some_and(|answer| answer.contains("not currently serving"))
    });
    let directory = Directory::new();
    let shell = Shell::new(&directory).variable("ZNODE_SERVERS", ensemble.connect_string());
    for arguments in [vec!["get", "/a"], vec!["set", "/a", "x"], vec!["--read-only", "get", "/a"]] {
        let ran = shell.run(Command::new(binary("znode")).args(&arguments));
        let told = ran.fails("no quorum for 3.0 s, so nothing can be read or written");
        for id in [1, 3] {
            assert!(told.contains(&format!("{}: connection refused", ensemble.address(id))));
        }
        assert!(told.contains(&format!("{}: up, without a leader", ensemble.address(2))));
    }
    ensemble.start_member(1);
    ensemble.wait_until_serving(2);
    assert_eq!(shell.sh(&format!("{} get /a", binary("znode").display())).ok(), "before");
}

#[test]
fn a_write_under_way_when_the_quorum_is_lost_is_not_answered_and_clients_are_let_go() {
    let mut ensemble = Ensemble::start_with(3, 0, "tickTime=400\nsyncLimit=3\n");
    let leader = ensemble.leader();
    let others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != leader).collect();
    let mut client = WireClient::connect(&ensemble.address(leader));
    client.create("/a", Some(b"before"));
    others.iter().for_each(|id| ensemble.process(*id).signal(Signal::SIGSTOP));
    let data = Some(Bytes::from_static(b"under way"));
    let write = Request::SetData { path: "/a", data, version: -1 };
    // Closed, not answered.
    assert!(client.try_call(&write).is_err());
    assert!(WireClient::try_connect(&ensemble.address(leader)).is_err(), "none is taken");
    others.iter().for_each(|id| ensemble.process(*id).signal(Signal::SIGCONT));
    ensemble.ids().into_iter().for_each(|id| ensemble.wait_until_serving(id));
    let mut values = Vec::new();
    for id in ensemble.ids() {
        let mut client = WireClient::connect(&ensemble.address(id));
        client.call(&Request::Sync { path: "/a" }).expect("a sync");
        values.push(client.data("/a").expect("a value"));
    }
    assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{values:?}");
    assert!([&b"before"[..], b"under way"].contains(&&values[0][..]), "{values:?}");
}
