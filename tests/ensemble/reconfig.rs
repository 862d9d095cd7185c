//! An ensemble that changes while it works: it grows and shrinks under load, changes roles, addresses
//! and leader, and loses neither a write that was acknowledged nor a session.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use znodefs::acl::{Acl, digest_id};
use znodefs::client::{Client, ClientOptions};
use znodefs::{CreateMode, ErrorCode};
use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::ensemble::SERVICE_LIMIT;
use znodefs_tests::{
    Ensemble, Process, Ran, Shell, SmallDisk, Znoded, binary, free_port, wait_until,
};

use crate::load::{self, Load, client_of, create};

const SUPER: &str = "super:secret";
const CONFIG: &str = "/zookeeper/config";

pub fn settings() -> String {
    format!(
        "reconfigEnabled=true\nstandaloneEnabled=false\n\
         DigestAuthenticationProvider.superDigest={}",
        digest_id(SUPER)
    )
}

/// An ensemble of `founders`, with as many more replicas to come.
fn founded(founders: u8, more: u8) -> Ensemble {
    let mut ensemble = Ensemble::configure(founders + more, 0, &settings());
    let known: Vec<u8> = (1..=founders).collect();
    for id in 1..=founders {
        ensemble.start_member_knowing(id, &known, &[]);
    }
    for id in 1..=founders {
        ensemble.wait_until_serving(id);
    }
    ensemble
}

/// Starts a replica that is to join: its file names the members and itself.
fn start_joining(ensemble: &mut Ensemble, members: &[u8], id: u8) {
    let known: Vec<u8> = members.iter().copied().chain([id]).collect();
    ensemble.start_member_knowing(id, &known, &[]);
}

/// `znode` with arguments, as the superuser.
pub fn znode(servers: &str, arguments: &[&str]) -> Ran {
    let auth = format!("digest:{SUPER}");
    let mut command = Command::new(binary("znode"));
    command.args(["--servers", servers, "--auth", &auth]).args(arguments);
    Shell::new(&std::env::temp_dir()).run(&mut command)
}

/// The numbers of the members in a configuration's text, and whether each votes.
fn members(text: &str) -> Vec<(u8, bool)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("server."));
    let member = |line: &str| {
        let (number, rest) = line.split_once('=').expect("server.N=…");
        (number.parse().expect("a number"), rest.contains(":participant"))
    };
    lines.map(member).collect()
}

fn voters(ids: impl IntoIterator<Item = u8>) -> Vec<(u8, bool)> {
    ids.into_iter().map(|id| (id, true)).collect()
}

async fn superuser(servers: &str) -> Client {
    let options = ClientOptions {
        session_timeout: Duration::from_secs(20),
        auth: vec![("digest".into(), SUPER.into())],
        ..ClientOptions::default()
    };
    Client::connect(&servers.parse().expect("servers"), options).await.expect("a session")
}

fn wait_for_role(ensemble: &Ensemble, id: u8, role: &str) {
    wait_until(&format!("member {id} is {role}"), SERVICE_LIMIT, || {
        ensemble.role(id).as_deref() == Some(role)
    });
}

#[test]
fn an_ensemble_grows_from_one_to_five_and_shrinks_to_three_under_load() {
    let mut ensemble = founded(1, 4);
    let runtime = Runtime::new().expect("a runtime");
    let witness = runtime.block_on(async {
        let client = client_of(&ensemble.connect_string()).await;
        let acl = Acl::open();
        client.create("/witness", None, acl, CreateMode::Ephemeral).await.expect("an ephemeral");
        client
    });
    let load = Load::start(&runtime, &ensemble, 3);
    for id in [2, 3] {
        start_joining(&mut ensemble, &[1], id);
    }
    let (two, three) = (ensemble.line(2).to_string(), ensemble.line(3).to_string());
    // It waits for them.
    let made = znode(&ensemble.address(1), &["reconfig", "--add", &two, "--add", &three]).ok();
    assert_eq!(members(&made), voters(1..=3));
    wait_for_role(&ensemble, 3, "follower");
    for id in [4, 5] {
        start_joining(&mut ensemble, &[1, 2, 3], id);
        let line = ensemble.line(id).to_string();
        znode(&ensemble.address(2), &["reconfig", "--add", &line]).ok();
    }
    assert_eq!(members(&znode(&ensemble.address(5), &["config"]).ok()), voters(1..=5));
    let seen = load.count();
    wait_until("writes go on with five", SERVICE_LIMIT, || load.count() > seen + 20);
    // The leader goes, and one more.
    let leader = ensemble.leader();
    let other = ensemble.follower();
    let gone = format!("{leader},{other}");
    let made = znode(&ensemble.connect_string(), &["reconfig", "--remove", &gone]).ok();
    let stay: Vec<u8> = (1..=5).filter(|id| ![leader, other].contains(id)).collect();
    assert_eq!(members(&made), voters(stay.iter().copied()));
    wait_for_role(&ensemble, leader, "observer");
    wait_for_role(&ensemble, other, "observer");
    assert!(stay.contains(&ensemble.leader()));
    let seen = load.count();
    wait_until("writes go on with three", SERVICE_LIMIT, || load.count() > seen + 20);
    let report = load.stop(&runtime);
    load::assert_nothing_is_lost(&runtime, &ensemble, &report);
    // Who was removed is not missed, and three of five are three of three again.
    ensemble.kill(leader);
    ensemble.kill(other);
    let one = stay[0];
    ensemble.kill(one);
    runtime.block_on(async {
        let client = client_of(&ensemble.address(stay[1])).await;
        create(&client, "/after", b"").await.expect("two of three are a quorum");
        let owned = witness.exists("/witness", false).await.expect("the session lives");
        assert_eq!(owned.map(|stat| stat.ephemeral_owner), Some(witness.session_id()));
    });
}

#[test]
fn a_leader_that_is_removed_answers_and_hands_over_at_once() {
    let ensemble = founded(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 2);
    wait_until("writes flow", SERVICE_LIMIT, || load.count() > 20);
    let leader = ensemble.leader();
    #[allow(clippy::disallowed_methods, reason = "measures the service in real time")]
    let now = std::time::Instant::now();
    let data = runtime.block_on(async {
        let client = superuser(&ensemble.address(leader)).await;
        let leaving = leader.to_string();
        client.reconfig(None, Some(&leaving), None, None).await.expect("an answer").0
    });
    let text = String::from_utf8(data.unwrap_or_default().to_vec()).expect("text");
    assert_eq!(members(&text), voters((1..=3).filter(|id| *id != leader)));
    wait_for_role(&ensemble, leader, "observer");
    let next = ensemble.leader();
    assert_ne!(next, leader);
    let seen = load.count();
    wait_until("writes go on", SERVICE_LIMIT, || load.count() > seen + 20);
    let report = load.stop(&runtime);
    println!("writes paused for {:?} when the leader was removed", report.gap_at(now));
    load::assert_nothing_is_lost(&runtime, &ensemble, &report);
    let log = ensemble.log_text(leader);
    assert!(log.contains("this replica is no member anymore"), "{log}");
}

#[test]
fn an_observer_is_given_a_vote_and_loses_it_again() {
    let mut ensemble = Ensemble::start_with(3, 1, &settings());
    let servers = ensemble.connect_string();
    assert_eq!(ensemble.role(4).as_deref(), Some("observer"));
    let observer = ensemble.line(4).to_string();
    let participant = observer.replace(":observer", "");
    let made = znode(&servers, &["reconfig", "--add", &participant]).ok();
    assert_eq!(members(&made), voters(1..=4));
    wait_for_role(&ensemble, 4, "follower");
    // A majority of four is three: its vote is needed once another is gone.
    let follower = ensemble.follower();
    let other = if follower == 4 { 1 } else { follower };
    let other = if ensemble.leader() == other { other % 3 + 1 } else { other };
    ensemble.kill(other);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client_of(&ensemble.address(4)).await;
        create(&client, "/with-its-vote", b"").await.expect("three of four");
    });
    ensemble.start_member(other);
    ensemble.wait_until_serving(other);
    let made = znode(&servers, &["reconfig", "--add", &observer]).ok();
    assert_eq!(members(&made), [(1, true), (2, true), (3, true), (4, false)]);
    wait_for_role(&ensemble, 4, "observer");
    ensemble.kill(4);
    ensemble.kill(other);
    runtime.block_on(async {
        let client = client_of(&servers).await;
        create(&client, "/without-it", b"").await.expect("two of three");
    });
}

#[test]
fn a_restart_of_everything_finds_the_members_there_were_last() {
    let mut ensemble = founded(1, 2);
    for id in [2, 3] {
        start_joining(&mut ensemble, &[1], id);
        let line = ensemble.line(id).to_string();
        znode(&ensemble.address(1), &["reconfig", "--add", &line]).ok();
    }
    // Nobody had to wait for 3.
    wait_until("3 is up to date", SERVICE_LIMIT, || {
        ensemble.monitored(1, "zk_synced_followers").as_deref() == Some("2")
    });
    (1..=3).for_each(|id| ensemble.kill(id));
    // By its file, 2 would need 1; by what was agreed on, 2 and 3 are a quorum.
    for id in [2, 3] {
        start_joining(&mut ensemble, &[1], id);
    }
    ensemble.wait_until_serving(2);
    ensemble.wait_until_serving(3);
    assert_eq!(members(&znode(&ensemble.address(3), &["config"]).ok()), voters(1..=3));
    ensemble.start_member_knowing(1, &[1], &[]);
    ensemble.wait_until_serving(1);
    wait_for_role(&ensemble, 1, "follower");
    // And one of three that has become one of one starts alone.
    znode(&ensemble.address(1), &["reconfig", "--remove", "2,3"]).ok();
    ensemble.leader();
    (1..=3).for_each(|id| ensemble.kill(id));
    ensemble.start_member_knowing(1, &[1, 2, 3], &[]);
    ensemble.wait_until_serving(1);
    assert_eq!(ensemble.role(1).as_deref(), Some("leader"));
}

#[test]
fn a_member_that_was_down_learns_what_has_changed_and_one_can_move() {
    let mut ensemble = founded(3, 1);
    let leader = ensemble.leader();
    ensemble.kill(if leader == 3 { 1 } else { 3 });
    let down = if leader == 3 { 1 } else { 3 };
    start_joining(&mut ensemble, &[1, 2, 3], 4);
    let four = ensemble.line(4).to_string();
    znode(&ensemble.connect_string(), &["reconfig", "--add", &four]).ok();
    // 2 moves to other ports while it runs; then 4 does.
    for id in [2, 4] {
        let ports = [free_port(), free_port(), free_port()];
        let [quorum, election, client] = ports;
        let moved = format!("server.{id}=127.0.0.1:{quorum}:{election};127.0.0.1:{client}");
        znode(&ensemble.connect_string(), &["reconfig", "--add", &moved]).ok();
        ensemble.set_line(id, &moved);
        ensemble.wait_until_serving(id);
    }
    ensemble.start_member_knowing(down, &[1, 2, 3], &[]);
    ensemble.wait_until_serving(down);
    assert_eq!(members(&znode(&ensemble.address(down), &["config"]).ok()), voters(1..=4));
    // Each finds the others where they are now.
    let leader = ensemble.leader();
    ensemble.kill(leader);
    let next = ensemble.leader();
    assert_ne!(next, leader);
    ensemble.start_member(leader);
    ensemble.wait_until_serving(leader);
}

/// The joiner stands still, so that its acknowledgement of the reconfiguration is missing.
#[test]
fn a_crash_between_proposal_and_commit_loses_nothing_and_is_made_good() {
    let mut ensemble = founded(1, 1);
    start_joining(&mut ensemble, &[1], 2);
    ensemble.wait_until_serving(2);
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(superuser(&ensemble.address(1)));
    runtime.block_on(create(&client, "/before", b"")).expect("a create");
    wait_until("2 is up to date", SERVICE_LIMIT, || {
        ensemble.monitored(1, "zk_synced_observers").as_deref() == Some("1")
    });
    ensemble.process(2).signal(Signal::SIGSTOP);
    let line = ensemble.line(2).to_string();
    let pending = runtime.spawn({
        let (client, line) = (client.clone(), line.clone());
        async move { client.reconfig(Some(&line), None, None, None).await }
    });
    let logged = |ensemble: &Ensemble, id: u8, text: &str| {
        wait_until(text, SERVICE_LIMIT, || ensemble.log_text(id).contains(text));
    };
    logged(&ensemble, 1, "is proposed: server.1=");
    ensemble.kill(1);
    ensemble.process(2).signal(Signal::SIGCONT);
    assert!(runtime.block_on(pending).expect("no panic").is_err());
    ensemble.start_member_knowing(1, &[1], &[]);
    logged(&ensemble, 1, "which may not be committed: server.1=");
    for id in [1, 2] {
        ensemble.wait_until_serving(id);
    }
    assert_eq!(members(&znode(&ensemble.connect_string(), &["config"]).ok()), voters(1..=2));
    let kept = runtime.block_on(async {
        let client = client_of(&ensemble.address(2)).await;
        client.sync("/before").await.expect("a sync");
        client.exists("/before", false).await.expect("an answer")
    });
    assert!(kept.is_some());
}

#[test]
fn of_two_changes_at_once_one_is_made_and_one_refused() {
    let mut ensemble = founded(1, 1);
    start_joining(&mut ensemble, &[1], 2);
    ensemble.wait_until_serving(2);
    let runtime = Runtime::new().expect("a runtime");
    let open = || runtime.block_on(superuser(&ensemble.address(1)));
    let (first, second) = (open(), open());
    let line = ensemble.line(2).to_string();
    // Until it goes on, nothing is committed: both are under way.
    ensemble.process(2).signal(Signal::SIGSTOP);
    let first = runtime.spawn(async move { first.reconfig(Some(&line), None, None, None).await });
    wait_until("the first is proposed", SERVICE_LIMIT, || {
        ensemble.log_text(1).contains("is proposed: server.1=")
    });
    let second = runtime.spawn(async move { second.reconfig(None, Some("2"), None, None).await });
    // What is answered is answered in the order of the transactions.
    wait_until("the second is there as well", SERVICE_LIMIT, || {
        ensemble.monitored(1, "zk_outstanding_requests").as_deref() == Some("2")
    });
    ensemble.process(2).signal(Signal::SIGCONT);
    let (first, second) = runtime.block_on(async { (first.await, second.await) });
    first.expect("no panic").expect("it came first");
    let refused = second.expect("no panic").expect_err("one at a time");
    assert_eq!(refused.code(), Some(ErrorCode::ReconfigInProgress), "{refused}");
}

#[test]
fn what_cannot_be_done_is_refused_with_a_way_out() {
    let mut ensemble = founded(3, 1);
    let servers = ensemble.connect_string();
    let four = ensemble.line(4).to_string();
    let absent = znode(&servers, &["reconfig", "--remove", "1,2", "--add", &four, "--wait", "0"]);
    let message = absent.fails("nothing was changed: waiting for server.4");
    assert!(message.contains("refused"), "{message}");
    znode(&servers, &["reconfig", "--remove", "3", "--if-version", "1"])
        .fails("look at it with `znode config`");
    let taken =
        four.replace("server.4", "server.9").replace(&ensemble.address(4), &ensemble.address(1));
    znode(&servers, &["reconfig", "--add", &taken]).fails("the leader's log says what is wrong");
    let log = ensemble.log_text(ensemble.leader());
    assert!(log.contains("server.9 and server.1 both have 127.0.0.1:"), "{log}");
    znode(&servers, &["reconfig", "--remove", "1,2,3"]).fails("one participant stays");
    let shell = Shell::new(&std::env::temp_dir()).variable("ZNODE_SERVERS", &servers);
    let reconfig = |shell: &Shell| {
        shell.run(Command::new(binary("znode")).args(["reconfig", "--remove", "3"]))
    };
    reconfig(&shell).fails("superuser");
    ensemble.stop(3);
    // Two of three follow; of 1 and 4 one does.
    let disabled = Ensemble::start(1, 0);
    let shell = Shell::new(&std::env::temp_dir()).variable("ZNODE_SERVERS", disabled.address(1));
    reconfig(&shell).fails("reconfigEnabled=true");
    let alone = Znoded::start();
    let address = format!("127.0.0.1:{}", alone.port());
    let shell = Shell::new(&std::env::temp_dir()).variable("ZNODE_SERVERS", &address);
    reconfig(&shell).fails("reconfigEnabled=true");
    let shown = shell.run(Command::new(binary("znode")).arg("config")).ok();
    assert_eq!(shown, "");
}

#[test]
fn a_replica_alone_cannot_be_changed() {
    let directory = znodefs_tests::Directory::new();
    let port = free_port();
    let file = directory.join("zoo.cfg");
    let text = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n{}\n",
        directory.subdirectory("data").display(),
        settings()
    );
    std::fs::write(&file, text).expect("a file in a fresh directory");
    let _process =
        Process::spawn(Command::new(binary("znoded")).arg(&file), &directory.join("log"));
    wait_until("it serves", SERVICE_LIMIT, || znodefs_tests::server::is_serving(port));
    znode(&format!("127.0.0.1:{port}"), &["reconfig", "--remove", "3"])
        .fails("this replica stands alone");
}

#[test]
fn kazoo_changes_the_members_and_hears_of_it() {
    let mut ensemble = founded(2, 1);
    start_joining(&mut ensemble, &[1, 2], 3);
    ensemble.wait_until_serving(3);
    let script = source_directory().join("tests/clients/kazoo_reconfig.py");
    let servers = format!("{},{}", ensemble.address(1), ensemble.address(2));
    let mut command = Command::new(python());
    command.arg("-B").arg(&script).args([&servers, "secret", ensemble.line(3), "3"]);
    Shell::new(&std::env::temp_dir()).run(&mut command).ok();
    let text = znode(&ensemble.address(3), &["config"]).ok();
    assert_eq!(members(&text), voters(1..=3));
    let connect = znode(&ensemble.address(3), &["config", "--connect"]).ok();
    assert_eq!(connect.trim(), ensemble.connect_string());
    let runtime = Runtime::new().expect("a runtime");
    let data = runtime.block_on(async {
        client_of(&ensemble.address(3)).await.get_data(CONFIG, false).await.expect("readable").0
    });
    assert_eq!(data.as_deref().map(<[u8]>::trim_ascii_end), Some(text.trim_end().as_bytes()));
}

#[test]
fn a_member_that_moves_leaves_its_old_ports_and_keeps_its_clients() {
    let mut ensemble = founded(3, 0);
    let id = ensemble.follower();
    let runtime = Runtime::new().expect("a runtime");
    let before = ensemble.address(id);
    let client = runtime.block_on(superuser(&before));
    let old: Vec<String> = ports(ensemble.line(id)).collect();
    let [quorum, election, port] = [free_port(), free_port(), free_port()];
    let moved = format!("server.{id}=127.0.0.1:{quorum}:{election};127.0.0.1:{port}");
    znode(&ensemble.connect_string(), &["reconfig", "--add", &moved]).ok();
    ensemble.set_line(id, &moved);
    ensemble.wait_until_serving(id);
    for address in &old {
        wait_until(&format!("nobody listens on {address}"), SERVICE_LIMIT, || {
            std::net::TcpStream::connect(address).is_err()
        });
    }
    // Its connection is the one that it had.
    runtime.block_on(create(&client, "/on-the-old-connection", b"")).expect("a create");
    // Both links are made anew, on the new ports.
    ensemble.kill(id);
    ensemble.start_member(id);
    ensemble.wait_until_serving(id);
    for address in ports(ensemble.line(id)) {
        std::net::TcpStream::connect(&address).expect("it listens there");
    }
}

/// `127.0.0.1:PORT` of everything that a line names.
fn ports(line: &str) -> impl Iterator<Item = String> {
    let numbers = line.split([':', ';']).filter_map(|part| part.parse::<u16>().ok());
    numbers.map(|port| format!("127.0.0.1:{port}"))
}

#[test]
fn a_member_without_room_for_a_new_configuration_keeps_it_as_soon_as_there_is_room() {
    let mut ensemble = Ensemble::configure(3, 1, &settings());
    let disk = SmallDisk::mount(&ensemble.data_directory(1), 24);
    (1..=4).for_each(|id| ensemble.start_member(id));
    (1..=4).for_each(|id| ensemble.wait_until_serving(id));
    let kept = ensemble.data_directory(1).join("znodefs-1/configuration");
    let kept = || String::from_utf8_lossy(&std::fs::read(&kept).unwrap_or_default()).into_owned();
    wait_until("the first configuration is kept", SERVICE_LIMIT, || kept().contains("server.4"));
    // Its log has room reserved, small files have none.
    disk.fill();
    znode(&ensemble.address(2), &["reconfig", "--remove", "4"]).ok();
    wait_until("it leaves", SERVICE_LIMIT, || {
        ensemble.log_text(1).contains("this replica takes no part in the ensemble")
    });
    assert!(ensemble.process(1).exit_status().is_none() && kept().contains("server.4"));
    disk.free();
    ensemble.wait_until_serving(1);
    assert!(kept().contains("server.3") && !kept().contains("server.4"), "{}", kept());
    assert_eq!(members(&znode(&ensemble.address(1), &["config"]).ok()), voters(1..=3));
}

#[test]
fn a_replica_does_not_begin_alone_on_the_data_of_an_ensemble() {
    let mut ensemble = Ensemble::start(3, 0);
    ensemble.ids().into_iter().for_each(|id| ensemble.stop(id));
    for settings in ["", "standaloneEnabled=false"] {
        ensemble.set_settings(1, settings);
        ensemble.start_member_knowing(1, &[1], &[]);
        wait_until("it ends", SERVICE_LIMIT, || ensemble.process(1).exit_status().is_some());
        assert_eq!(ensemble.process(1).exit_status().and_then(|status| status.code()), Some(3));
        let log = ensemble.log_text(1);
        assert!(log.contains("an ensemble of server.1 server.2 server.3, and this"), "{log}");
    }
    // With the others it goes on.
    ensemble.set_settings(1, "");
    ensemble.ids().into_iter().for_each(|id| ensemble.start_member(id));
    ensemble.ids().into_iter().for_each(|id| ensemble.wait_until_serving(id));
}

#[test]
fn what_an_ensemble_has_shrunk_to_may_stand_alone() {
    let mut ensemble = founded(1, 1);
    start_joining(&mut ensemble, &[1], 2);
    let line = ensemble.line(2).to_string();
    znode(&ensemble.address(1), &["reconfig", "--add", &line]).ok();
    znode(&ensemble.address(1), &["reconfig", "--remove", "2"]).ok();
    ensemble.leader();
    (1..=2).for_each(|id| ensemble.stop(id));
    ensemble.set_settings(1, "standaloneEnabled=true");
    ensemble.start_member_knowing(1, &[1], &[]);
    ensemble.wait_until_serving(1);
    assert_eq!(ensemble.role(1).as_deref(), Some("standalone"));
    ensemble.stop(1);
    ensemble.set_settings(2, "standaloneEnabled=true");
    ensemble.start_member_knowing(2, &[2], &[]);
    wait_until("it ends", SERVICE_LIMIT, || ensemble.process(2).exit_status().is_some());
    assert!(ensemble.log_text(2).contains("an ensemble of server.1, and this configuration"));
}
