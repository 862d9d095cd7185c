//! Failures that others had in the wild and that take real processes to bring about; each is named after
//! its ticket and its place in `tests/KNOWN_FAILURES.md`.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use znodefs::wire::{ConnectRequest, Encode, EventType, Request, Response, put_frame};
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

/// Elections leave traces: rounds that differ, votes for leaders that are gone. Whoever starts after
/// many of them joins the leader there is, and nobody is elected anew because of it.
#[test]
fn zookeeper_1818_and_1732_item_30_members_started_after_many_elections_join_the_leader_there_is() {
    let mut ensemble = Ensemble::start_with(5, 1, SETTINGS);
    let runtime = Runtime::new().expect("a runtime");
    let load = Load::start(&runtime, &ensemble, 2);
    // Two leaders die one after the other, so that the rest has voted for somebody who is gone.
    for _ in 0..3 {
        let first = ensemble.leader();
        ensemble.kill(first);
        let second = ensemble.leader();
        ensemble.kill(second);
        ensemble.leader();
        for id in [second, first] {
            ensemble.start_member(id);
            ensemble.wait_until_serving(id);
        }
    }
    let leader = ensemble.leader();
    let elections =
        |ensemble: &Ensemble| ensemble.log_text(leader).matches("clients are served; ").count();
    let before = elections(&ensemble);
    let mut others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != leader).collect();
    others.reverse();
    for id in others {
        ensemble.kill(id);
        ensemble.start_member(id);
        ensemble.wait_until_serving(id);
        assert_ne!(ensemble.role(id).as_deref(), Some("leader"), "member {id} joins");
        assert_eq!(ensemble.role(leader).as_deref(), Some("leader"), "behind the start of {id}");
    }
    assert_eq!(elections(&ensemble), before, "nobody was elected anew");
    let report = load.stop(&runtime);
    assert_nothing_is_lost(&runtime, &ensemble, &report);
}

/// The owner of a session, who comes again when it was taken away.
struct Returning {
    address: String,
    request: ConnectRequest,
    client: Option<WireClient>,
    returns: usize,
}

impl Returning {
    fn new(address: &str, request: ConnectRequest) -> Returning {
        Returning { address: address.into(), request, client: None, returns: 0 }
    }

    fn set(&mut self, path: &str, value: &[u8]) {
        let data = Some(Bytes::copy_from_slice(value));
        let set = Request::SetData { path, data, version: -1 };
        wait_until("the owner has its session", SOON, || {
            if self.client.as_mut().is_some_and(|client| matches!(client.try_call(&set), Ok(Ok(_))))
            {
                return true;
            }
            if let Some(former) = self.client.take() {
                self.returns += 1;
                former.abandon();
            }
            match WireClient::connect_with(&self.address, &self.request) {
                Ok(client) => {
                    assert_eq!(client.session_id, self.request.session_id, "it has expired");
                    self.client = Some(client);
                }
                Err(error) => println!("not yet: {error}"),
            }
            false
        });
    }
}

/// The first of two moves of a session is the last that the leader hears of: the member that it went
/// to stood still meanwhile.
#[test]
fn zookeeper_710_item_34_a_revalidation_that_comes_late_keeps_nobody_from_their_session() {
    let mut ensemble = Ensemble::start_with(3, 0, SETTINGS);
    let runtime = Runtime::new().expect("a runtime");
    let leader = ensemble.leader();
    let others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != leader).collect();
    let (late, next) = (others[0], others[1]);
    for stays_open in [false, true] {
        let first = ConnectRequest { timeout_ms: 20_000, ..ConnectRequest::default() };
        let mut owner =
            WireClient::connect_with(&ensemble.address(next), &first).expect("a session");
        let path = format!("/owned-{stays_open}");
        let made = owner.create_with(&path, Some(b"0"), CreateMode::Ephemeral);
        made.expect("an ephemeral");
        let again = ConnectRequest {
            session_id: owner.session_id,
            password: Some(owner.password.clone()),
            last_zxid_seen: owner.last_zxid,
            ..first.clone()
        };
        // Shorter than what makes the others give it up.
        ensemble.process(late).signal(Signal::SIGSTOP);
        let mut waiting = TcpStream::connect(ensemble.address(late)).expect("the kernel answers");
        let mut frame = BytesMut::new();
        put_frame(&mut frame, |out| again.encode(out));
        waiting.write_all(&frame).expect("a request to whom stands still");
        let waiting = stays_open.then_some(waiting);
        owner.abandon();
        let mut owner = Returning::new(&ensemble.address(next), again.clone());
        owner.set(&path, b"1");
        ensemble.process(late).signal(Signal::SIGCONT);
        // Now the late one asks for the session. Its owner may have to come again, and then has it for
        // good.
        for number in 0..20 {
            owner.set(&path, format!("{number}").as_bytes());
            pause(Duration::from_millis(50));
        }
        assert!(owner.returns <= 3, "driven out {} times", owner.returns);
        drop(waiting);
        runtime.block_on(async {
            let other = client_of(&ensemble.address(leader)).await;
            let stat = other.exists(&path, false).await.expect("a read").expect("it lives");
            assert_eq!(stat.ephemeral_owner, again.session_id);
        });
    }
}

/// Cut off from everybody but its clients, and asleep while the others elect another leader and write,
/// a leader wakes with a sync in its hands.
#[test]
fn zookeeper_1675_item_36_a_leader_that_was_cut_off_and_deposed_answers_no_sync() {
    let network = Network::new(&[1, 2, 3]);
    network.become_client();
    let mut ensemble = Ensemble::configure_on(Some(network), 3, 0, SETTINGS);
    (1..=3).for_each(|id| ensemble.start_member(id));
    (1..=3).for_each(|id| ensemble.wait_until_serving(id));
    let mut writer = WireClient::connect(&ensemble.address(1));
    writer.create("/value", Some(b"0"));
    drop(writer);
    for (round, sleeps) in [false, true, false, true].into_iter().enumerate() {
        let (old, new) = (format!("{round}"), format!("{}", round + 1));
        let leader = ensemble.leader();
        let mut client = WireClient::connect(&ensemble.address(leader));
        assert_eq!(client.data("/value").as_deref(), Some(old.as_bytes()));
        let others: Vec<u8> = ensemble.ids().into_iter().filter(|id| *id != leader).collect();
        let network = ensemble.network().expect("it has one");
        for other in &others {
            network.cut(leader, *other);
            network.cut(*other, leader);
        }
        if sleeps {
            ensemble.process(leader).signal(Signal::SIGSTOP);
        }
        let (sync, get) =
            (Request::Sync { path: "/value" }, Request::GetData { path: "/value", watch: false });
        wait_for_another_leader(&ensemble, leader);
        let mut writer = WireClient::connect(&ensemble.address(others[0]));
        writer.set("/value", Some(new.as_bytes()));
        // Only now, so that an answer with the old value is a lie.
        let sent = client.send(&[&sync, &get]);
        ensemble.process(leader).signal(Signal::SIGCONT);
        if sent.is_ok()
            && let Ok(Ok(_)) = client.receive(&sync)
        {
            let shown = client.receive(&get);
            panic!("round {round}: the sync was answered, and then {shown:?} shown");
        }
        let network = ensemble.network().expect("it has one");
        for other in &others {
            network.mend(leader, *other);
            network.mend(*other, leader);
        }
        wait_until("it follows", SOON, || ensemble.role(leader).as_deref() == Some("follower"));
        let mut client = WireClient::connect(&ensemble.address(leader));
        client.call(&sync).expect("a sync");
        assert_eq!(client.data("/value").as_deref(), Some(new.as_bytes()));
    }
}
