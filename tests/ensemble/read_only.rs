//! Two of three members are gone, and `readonlymode.enabled` is set: the third serves reads, and
//! everything comes back with the quorum.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use znodefs::acl::Acl;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{ConnectRequest, Request, Response};
use znodefs::{CreateMode, ErrorCode, SessionId, Zxid};
use znodefs_tests::binaries::{python, source_directory};
use znodefs_tests::deadline::pause;
use znodefs_tests::{
    Background, Directory, Ensemble, Mount, Shell, WireClient, binary, wait_until,
};

use crate::load::{Load, ROOT, assert_nothing_is_lost, names_at};

const SETTINGS: &str = "readonlymode.enabled=true\ntickTime=500\nmaxSessionTimeout=30000\n";
const SOON: Duration = Duration::from_secs(40);

/// What a client that is content with reads says first.
fn reader() -> ConnectRequest {
    ConnectRequest {
        timeout_ms: 30_000,
        password: Some(Bytes::from_static(&[0; 16])),
        read_only: Some(true),
        ..ConnectRequest::default()
    }
}

fn wait_for_read_only(ensemble: &Ensemble, id: u8) {
    wait_until("it serves reads", SOON, || ensemble.word(id, "isro").as_deref() == Some("ro"));
}

fn wait_until_all_serve(ensemble: &Ensemble) {
    for id in ensemble.ids() {
        wait_until("it serves", SOON, || ensemble.word(id, "isro").as_deref() == Some("rw"));
    }
}

/// A file's contents; nothing while it cannot be read.
fn read(mount: &Mount, name: &str) -> String {
    std::fs::read_to_string(mount.join(name)).unwrap_or_default()
}

/// Three members of which only the first is left, and `/a` with the value `before`.
fn cut_off() -> (Ensemble, WireClient) {
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    let mut client = WireClient::connect_with(&ensemble.address(1), &reader()).expect("a session");
    assert_eq!(client.read_only, Some(false));
    client.create("/a", Some(b"before"));
    ensemble.kill(2);
    ensemble.kill(3);
    wait_for_read_only(&ensemble, 1);
    (ensemble, client)
}

#[test]
fn without_a_quorum_reads_are_served_and_everything_else_is_refused() {
    let (mut ensemble, mut before) = cut_off();
    let address = ensemble.address(1);
    assert!(before.is_closed_within(SOON), "its session is the ensemble's");
    let words = ensemble.word(1, "srvr").expect("an answer");
    assert!(words.contains("READ-ONLY mode") && words.contains("Mode: read-only"), "{words}");
    assert_eq!(ensemble.role(1).as_deref(), Some("read-only"));

    let mut client = WireClient::connect_with(&address, &reader()).expect("a session");
    assert_eq!(client.read_only, Some(true));
    assert_eq!(client.data("/a").as_deref(), Some(&b"before"[..]));
    let zxid = client.last_zxid;
    assert!(client.children("/").contains(&"a".to_string()));
    let watch = client.call(&Request::GetData { path: "/a", watch: true });
    assert!(matches!(watch, Ok(Response::Data { .. })));
    let create = CreateRequest::new("/b", None, Acl::open(), CreateMode::Persistent, 0);
    for request in [
        Request::Create(create.clone()),
        Request::SetData { path: "/a", data: None, version: -1 },
        Request::Delete { path: "/a", version: -1 },
        Request::Sync { path: "/a" },
        Request::Check { path: "/a", version: -1 },
        Request::Multi(vec![Request::Create(create.clone())]),
    ] {
        assert_eq!(client.call(&request), Err(ErrorCode::NotReadOnly), "{request:?}");
        assert_eq!(client.last_zxid, zxid);
    }
    assert_eq!(client.data("/a").as_deref(), Some(&b"before"[..]), "it goes on");
    assert_eq!(ensemble.monitored(1, "zk_local_sessions").as_deref(), Some("1"));

    for id in [2, 3] {
        ensemble.start_member(id);
    }
    assert!(client.is_closed_within(SOON), "there is a quorum again");
    wait_until_all_serve(&ensemble);
    let mut client = WireClient::connect_with(&address, &reader()).expect("a session");
    assert_eq!(client.read_only, Some(false));
    client.set("/a", Some(b"after"));
    assert_eq!(client.stat("/b"), None);
}

#[test]
fn sessions_without_a_quorum_are_the_members_own() {
    let (mut ensemble, before) = cut_off();
    let address = ensemble.address(1);
    let refused = |request: &ConnectRequest| {
        let answer = WireClient::connect_with(&address, request);
        assert!(answer.is_err(), "closed without an answer: {answer:?}");
    };
    let of = |session_id: SessionId, password: &Bytes| ConnectRequest {
        session_id,
        password: Some(password.clone()),
        ..reader()
    };
    // Who has a session of the ensemble, wants to write, or has seen more.
    refused(&of(before.session_id, &before.password));
    refused(&ConnectRequest { read_only: Some(false), ..reader() });
    refused(&ConnectRequest { read_only: None, ..reader() });
    refused(&ConnectRequest { last_zxid_seen: Zxid(i64::MAX), ..reader() });

    let mut first = WireClient::connect_with(&address, &reader()).expect("a session");
    let (session_id, password) = (first.session_id, first.password.clone());
    let again = WireClient::connect_with(&address, &of(session_id, &password)).expect("an answer");
    assert_eq!((again.session_id, again.read_only), (session_id, Some(true)));
    assert!(first.is_closed_within(SOON), "its session has moved");
    let wrong = of(session_id, &Bytes::from_static(b"another password"));
    let wrong = WireClient::connect_with(&address, &wrong).expect("an answer");
    assert_eq!(wrong.session_id, SessionId(0));

    let mut closing = WireClient::connect_with(&address, &reader()).expect("a session");
    assert_eq!(closing.call(&Request::CloseSession), Ok(Response::Empty));
    assert!(closing.is_closed_within(SOON));
    let closed = of(closing.session_id, &closing.password);
    assert_eq!(WireClient::connect_with(&address, &closed).expect("one").session_id, SessionId(0));

    ensemble.start_member(2);
    ensemble.start_member(3);
    wait_until_all_serve(&ensemble);
    let answer = WireClient::connect_with(&address, &of(session_id, &password)).expect("an answer");
    assert_eq!(answer.session_id, SessionId(0), "the ensemble never had it");
    let own = of(before.session_id, &before.password);
    let back = WireClient::connect_with(&address, &own).expect("an answer");
    assert_eq!(back.session_id, before.session_id, "it has lived on");
}

#[test]
fn a_member_that_starts_without_a_quorum_shows_what_it_had_applied() {
    let (mut ensemble, _) = cut_off();
    for _ in 0..2 {
        ensemble.kill(1);
        ensemble.start_member(1);
        wait_for_read_only(&ensemble, 1);
        let mut client =
            WireClient::connect_with(&ensemble.address(1), &reader()).expect("a session");
        assert_eq!(client.data("/a").as_deref(), Some(&b"before"[..]));
    }
}

#[test]
fn zookeeper_3526_read_only_service_costs_nothing_that_was_committed() {
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 4);
    // What nobody else has is cut off the log of the one that stayed, if the others elect one another
    // first. What it showed was committed.
    let mut shown = BTreeSet::new();
    for left in [1, 2, 3] {
        let enough = load.count() + 100;
        wait_until("writes flow", SOON, || load.count() >= enough);
        let others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != left).collect();
        others.iter().for_each(|id| ensemble.kill(*id));
        wait_for_read_only(&ensemble, left);
        let before = shown.len();
        shown.extend(names_read_only_at(&ensemble.address(left)));
        assert!(shown.len() >= before + 100, "it shows what was acknowledged");
        others.iter().for_each(|id| ensemble.start_member(*id));
        wait_until_all_serve(&ensemble);
    }
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
    for id in ensemble.ids() {
        let names = runtime.block_on(names_at(&ensemble.address(id)));
        let lost: Vec<_> = shown.difference(&names).collect();
        assert!(lost.is_empty(), "member {id} lost what was shown without a quorum: {lost:?}");
    }
}

/// What a member without a quorum shows of the load.
fn names_read_only_at(address: &str) -> Vec<String> {
    let mut client = WireClient::connect_with(address, &reader()).expect("a session");
    assert_eq!(client.read_only, Some(true));
    client.children(ROOT)
}

#[test]
fn the_commands_and_a_read_only_mount_read_without_a_quorum() {
    let (mut ensemble, _) = cut_off();
    let directory = Directory::new();
    let shell = Shell::new(&directory).variable("ZNODE_SERVERS", ensemble.connect_string());
    let znode = |arguments: &[&str]| shell.run(Command::new(binary("znode")).args(arguments));
    let refused = znode(&["get", "/a"]).fails("no quorum");
    assert!(refused.contains("--read-only reads what is there"), "{refused}");
    assert_eq!(znode(&["--read-only", "get", "/a"]).ok(), "before");
    znode(&["set", "/a", "new", "--read-only"]).fails("/a: ");
    znode(&["set", "/a", "new", "--read-only"]).fails("cut off from its quorum");
    let status = znode(&["ensemble", "status"]);
    assert!(status.output().contains("read-only"), "{status:?}");
    status.fails("no server leads");

    let mount = Mount::of(&ensemble.connect_string(), &["-o", "ro"]);
    assert_eq!(mount.sh("cat a").ok(), "before");
    mount.sh("echo x > a").fails("Read-only file system");
    ensemble.start_member(2);
    ensemble.start_member(3);
    wait_until_all_serve(&ensemble);
    znode(&["set", "/a", "after"]).ok();
    wait_until("the mount sees it", SOON, || read(&mount, "a") == "after");
}

#[test]
fn a_read_only_mount_outlives_its_quorum() {
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    WireClient::connect(&ensemble.address(1)).create("/a", Some(b"before"));
    let options = ["-o", "ro,timeout=2s"];
    let mount = Mount::of(&ensemble.connect_string(), &options);
    assert_eq!(mount.sh("cat a").ok(), "before");
    ensemble.kill(2);
    ensemble.kill(3);
    wait_for_read_only(&ensemble, 1);
    wait_until("it reads", SOON, || read(&mount, "a") == "before");
    ensemble.start_member(2);
    ensemble.start_member(3);
    wait_until_all_serve(&ensemble);
    WireClient::connect(&ensemble.address(2)).set("/a", Some(b"after"));
    wait_until("it sees what is new", SOON, || read(&mount, "a") == "after");
}

#[test]
fn kazoo_reads_without_a_quorum_and_writes_when_there_is_one() {
    let (mut ensemble, _) = cut_off();
    let script = source_directory().join("tests/clients/kazoo_read_only.py");
    let command = format!(
        "exec {} -B {} {} /a",
        python().display(),
        script.display(),
        ensemble.connect_string()
    );
    let mut kazoo = Background::start(&std::env::temp_dir(), &command);
    kazoo.wait_for("read before");
    kazoo.wait_for("reading");
    ensemble.start_member(2);
    ensemble.start_member(3);
    wait_until_all_serve(&ensemble);
    kazoo.wait_for("written");
    assert_eq!(kazoo.code(), 0);
    let mut client = WireClient::connect(&ensemble.address(1));
    wait_until("it is there", SOON, || client.data("/a").as_deref() == Some(&b"by kazoo"[..]));
}

#[test]
fn readers_find_the_quorum_that_their_own_server_has_lost() {
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    let mut client = WireClient::connect(&ensemble.address(1));
    client.create("/a", Some(b"before"));
    let servers = ensemble.connect_string();
    ensemble.kill(2);
    ensemble.kill(3);
    wait_for_read_only(&ensemble, 1);
    let directory = Directory::new();
    let wait = format!(
        "exec {} --read-only -s {servers} wait -w 60s /a --value after",
        binary("znode").display()
    );
    let mut waiting = Background::start(&directory, &wait);
    pause(Duration::from_millis(500));
    ensemble.start_member(2);
    ensemble.start_member(3);
    wait_until_all_serve(&ensemble);
    WireClient::connect(&ensemble.address(3)).set("/a", Some(b"after"));
    assert_eq!(waiting.code(), 0, "{}", waiting.process().log_text());
}
