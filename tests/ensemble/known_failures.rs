//! Failures that others had in the wild and that take real processes to bring about; each is named after
//! its ticket and its place in `tests/KNOWN_FAILURES.md`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use znodefs::wire::{EventType, Request, Response};
use znodefs::{CreateMode, acl::Acl};
use znodefs_tests::deadline::pause;
use znodefs_tests::{Ensemble, Network, Random, WireClient, wait_until};

use crate::load::{Load, assert_nothing_is_lost, client_of, create};

const SOON: Duration = Duration::from_secs(40);

/// syncLimit is 1 s.
const SETTINGS: &str = "tickTime=200\ninitLimit=20\nsyncLimit=5\nminSessionTimeout=1000\n\
                        maxSessionTimeout=60000\nsnapCount=500\n";

fn wait_for_another_leader(ensemble: &Ensemble, former: u8) {
    wait_until("another one leads", SOON, || {
        let others = ensemble.ids().into_iter().filter(|id| *id != former);
        others.into_iter().any(|id| ensemble.role(id).as_deref() == Some("leader"))
    });
}

#[test]
fn etcd_15247_and_12528_item_38_a_leader_that_stood_still_ends_no_live_session() {
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    let runtime = Runtime::new().expect("a runtime");
    let (leader, follower) = (ensemble.leader(), ensemble.follower());
    let client = runtime.block_on(async {
        let servers = ensemble.address(follower).parse().expect("a connect string");
        let session_timeout = Duration::from_secs(2);
        let options = znodefs::client::ClientOptions {
            session_timeout,
            ..znodefs::client::ClientOptions::default()
        };
        let client = znodefs::client::Client::connect(&servers, options).await.expect("a session");
        let data = Some(Bytes::from_static(b"alive"));
        client.create("/alive", data, Acl::open(), CreateMode::Ephemeral).await.expect("a create");
        client
    });
    ensemble.process(leader).signal(Signal::SIGSTOP);
    wait_for_another_leader(&ensemble, leader);
    // For much longer than the session may be silent; it is not.
    pause(Duration::from_secs(6));
    ensemble.process(leader).signal(Signal::SIGCONT);
    wait_until("it follows", SOON, || ensemble.role(leader).as_deref() == Some("follower"));
    pause(Duration::from_secs(3));
    for id in ensemble.ids() {
        let mut other = WireClient::connect(&ensemble.address(id));
        other.call(&Request::Sync { path: "/" }).expect("a sync");
        let stat = other.stat("/alive").unwrap_or_else(|| panic!("gone at member {id}"));
        assert_eq!(stat.ephemeral_owner, client.session_id());
    }
}

#[test]
fn etcd_17529_and_18089_item_40_a_slow_reader_with_many_watches_misses_no_event() {
    const WATCHES: usize = 3000;
    let ensemble = Ensemble::start(3, 0);
    let mut writer = WireClient::connect(&ensemble.address(ensemble.leader()));
    let path = |number: usize| format!("/watched-{number:05}");
    let paths: Vec<String> = (0..WATCHES).map(path).collect();
    let set_all = |writer: &mut WireClient, data: &Bytes| {
        // Many at once, or the reader's session would end before all is written.
        let set = |path| Request::SetData { path, data: Some(data.clone()), version: -1 };
        let writes: Vec<Request<'_>> = paths.iter().map(|path| set(path)).collect();
        for part in writes.chunks(200) {
            writer.send(&part.iter().collect::<Vec<_>>()).expect("a connection");
            for write in part {
                assert!(writer.receive(write).expect("an answer").is_ok(), "{write:?}");
            }
        }
    };
    paths.iter().for_each(|path| writer.create(path, Some(b"0")));
    let mut reader = WireClient::connect(&ensemble.address(ensemble.follower()));
    reader.call(&Request::Sync { path: "/" }).expect("a sync");
    for number in 0..WATCHES {
        let watched = reader.call(&Request::GetData { path: &path(number), watch: true });
        assert!(matches!(watched, Ok(Response::Data { .. })), "{watched:?}");
    }
    // Nothing is read of all this until it is over; twice each, and a one-shot watch tells of the first.
    for round in 1..=2 {
        set_all(&mut writer, &Bytes::from(format!("{round}")));
    }
    reader.call(&Request::Sync { path: "/" }).expect("a sync");
    let told = reader.events_so_far();
    let expected: Vec<(EventType, String)> =
        (0..WATCHES).map(|number| (EventType::NodeDataChanged, path(number))).collect();
    assert!(told == expected, "{} events of {WATCHES}", told.len());
}

#[test]
fn clickhouse_54572_item_42_what_a_cut_off_leader_had_under_way_dies_with_its_leadership() {
    let network = Network::new(&[1, 2, 3]);
    network.become_client();
    let mut ensemble = Ensemble::configure_on(Some(network), 3, 0, SETTINGS);
    (1..=3).for_each(|id| ensemble.start_member(id));
    (1..=3).for_each(|id| ensemble.wait_until_serving(id));
    let runtime = Runtime::new().expect("a runtime");
    let leader = ensemble.leader();
    let mut client = WireClient::connect(&ensemble.address(leader));
    client.create("/pending", Some(b"before"));
    let others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != leader).collect();
    let network = ensemble.network().expect("it has one");
    for other in &others {
        network.cut(leader, *other);
        network.cut(*other, leader);
    }
    let data = |number: usize| Some(Bytes::from(format!("pending {number}")));
    let writes: Vec<Request<'_>> = (0..50)
        .map(|number| Request::SetData { path: "/pending", data: data(number), version: -1 })
        .collect();
    client.send(&writes.iter().collect::<Vec<_>>()).expect("a connection");
    wait_for_another_leader(&ensemble, leader);
    // The others go on, past what they keep in memory and past several snapshots.
    runtime.block_on(async {
        let client = client_of(&ensemble.address(others[0])).await;
        let mut under_way = Vec::new();
        for number in 0..12_000 {
            under_way.push({
                let (client, path) = (client.clone(), format!("/new-{number}"));
                async move { create(&client, &path, b"").await }
            });
            if under_way.len() == 500 {
                let batch = under_way.drain(..).map(|one| runtime.spawn(one)).collect::<Vec<_>>();
                for one in batch {
                    one.await.expect("a task").expect("a create");
                }
            }
        }
    });
    let network = ensemble.network().expect("it has one");
    for other in &others {
        network.mend(leader, *other);
        network.mend(*other, leader);
    }
    wait_until("it follows", SOON, || ensemble.role(leader).as_deref() == Some("follower"));
    let mut shown = Vec::new();
    for id in ensemble.ids() {
        let mut client = WireClient::connect(&ensemble.address(id));
        client.call(&Request::Sync { path: "/" }).expect("a sync");
        let (data, stat) = client.get("/pending").expect("it is there");
        assert_eq!(data.as_deref(), Some(&b"before"[..]), "at member {id}");
        shown.push((stat, client.stat("/"), client.children("/").len()));
    }
    assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "{shown:?}");
}

/// Every file below a directory that has something in it.
fn files_below(directory: PathBuf) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a data directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(path));
        } else if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn fast17_item_46_flipped_bits_on_one_member_cost_neither_data_nor_service() {
    let mut random = Random::announced();
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 4);
    wait_until("snapshots are there", SOON, || load.count() > 1500);
    let (mut refused, mut served) = (0, 0);
    for _ in 0..8 {
        let id = random.between(1, 4) as u8;
        ensemble.kill(id);
        let files = files_below(ensemble.data_directory(id));
        let file = &files[random.between(0, files.len() as u64) as usize];
        let mut bytes = std::fs::read(file).expect("a file");
        // What is preallocated and not yet written is no data.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
        let place = random.between(0, written as u64) as usize;
        bytes[place] ^= 1 << random.between(0, 8);
        std::fs::write(file, bytes).expect("the same file");
        println!("member {id}: a bit of {} at {place}", file.display());
        let count = load.count();
        wait_until("the others go on", SOON, || load.count() > count + 50);
        ensemble.start_member(id);
        let mut ended = None;
        wait_until("it serves or refuses", SOON, || {
            ended = ensemble.process(id).exit_status();
            ended.is_some() || ensemble.is_serving(id)
        });
        match ended {
            None => served += 1,
            Some(status) => {
                refused += 1;
                assert!(!status.success(), "it says why");
                // As the operator does who has no other way: it comes back from the others.
                ensemble.wipe(id);
                ensemble.start_member(id);
                ensemble.wait_until_serving(id);
            }
        }
    }
    println!("{refused} refused to start, {served} served");
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}
