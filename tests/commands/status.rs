//! `znode ensemble status`: with everybody there, with members that are dead or stand still, with an observer,
//! and without a quorum.

use nix::sys::signal::Signal;
use znodefs_tests::{Ensemble, wait_until};

use crate::world::{SOON, Shells};

/// The line of a server.
fn line_of<'a>(table: &'a str, address: &str) -> &'a str {
    let found = table.lines().find(|line| line.starts_with(&format!("{address} ")));
    found.unwrap_or_else(|| panic!("no line of {address}: {table}"))
}

#[test]
fn everybody_has_a_line_whoever_is_asked() {
    let mut ensemble = Ensemble::start(3, 1);
    let shells = Shells::new();
    // One name is enough: it knows the others.
    let one = ensemble.address(2);
    let table = shells.sh_to(&one, "znode create /a x; znode ensemble status --all").ok();
    let leader = ensemble.leader();
    for id in ensemble.ids() {
        let words: Vec<_> = line_of(&table, &ensemble.address(id)).split_whitespace().collect();
        let role = match id {
            4 => "observer",
            id if id == leader => "leader",
            _ => "follower",
        };
        assert_eq!(words[1..3], [id.to_string().as_str(), role], "{table}");
        assert!(words[3].starts_with("0x1"), "{table}");
        assert!(words[4].parse::<u64>().is_ok() && words[5].parse::<u64>().is_ok(), "{table}");
    }
    let follower = ensemble.follower();
    ensemble.kill(follower);
    ensemble.process(4).signal(Signal::SIGSTOP);
    let servers = ensemble.connect_string();
    let ran = shells.sh_to(&servers, "znode ensemble status");
    assert_eq!(ran.code, 0, "writes flow: {ran:?}");
    assert!(line_of(&ran.stdout, &ensemble.address(follower)).contains("refused"), "{ran:?}");
    assert!(line_of(&ran.stdout, &ensemble.address(4)).contains("no answer within"), "{ran:?}");
    let missing = shells.sh_to(&servers, "znode ensemble status --all");
    missing.says_only(1, &["not serving", &ensemble.address(follower), &ensemble.address(4)]);
    let json = shells.sh_to(&servers, "znode ensemble status --json").ok();
    assert_eq!(json.lines().count(), 1, "{json}");
    let leads = format!("{{\"leader\":\"{}\",\"servers\":[", ensemble.address(leader));
    assert!(json.starts_with(&leads), "{json}");
    assert_eq!(json.matches("\"trouble\":null").count(), 2, "{json}");
    assert_eq!(json.matches("\"lag\":0").count(), 2, "{json}");
    ensemble.process(4).signal(Signal::SIGCONT);
    ensemble.kill(leader);
    wait_until("it is noticed", SOON, || shells.sh_to(&servers, "znode ensemble status").code == 1);
    let ran = shells.sh_to(&servers, "znode ensemble status --json");
    ran.clone().ends_saying(1, &["no server leads", "majority"]);
    assert!(ran.stdout.starts_with("{\"leader\":null,"), "{ran:?}");
}
