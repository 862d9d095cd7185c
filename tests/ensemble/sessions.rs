//! Sessions, ephemerals and watches across members.

use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs::acl::Acl;
use znodefs::client::{Client, ClientOptions};
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{ConnectRequest, Request};
use znodefs::{CreateMode, SessionId, Zxid};
use znodefs_tests::{Ensemble, WireClient, wait_until};

use crate::load::{client, client_of, create};

async fn create_ephemeral(client: &Client, path: &str) {
    let created = client.create(path, None, Acl::open(), CreateMode::Ephemeral);
    created.await.expect("an ephemeral");
}

#[test]
fn a_session_and_its_ephemerals_survive_the_death_of_the_leader_and_of_its_own_member() {
    let mut ensemble = Ensemble::start(3, 0);
    let runtime = Runtime::new().expect("a runtime");
    let owner = runtime.block_on(client(&ensemble));
    runtime.block_on(create_ephemeral(&owner, "/alive"));
    let session_id = owner.session_id();
    for _ in 0..2 {
        let leader = ensemble.leader();
        ensemble.kill(leader);
        runtime.block_on(async {
            let stat = owner.exists("/alive", false).await.expect("a read on another member");
            assert_eq!(stat.map(|stat| stat.ephemeral_owner), Some(session_id));
            owner.sync("/alive").await.expect("a sync");
        });
        ensemble.start_member(leader);
        ensemble.wait_until_serving(leader);
    }
    assert_eq!(owner.session_id(), session_id);
    runtime.block_on(async {
        owner.close().await.expect("a close");
        let other = client(&ensemble).await;
        other.sync("/alive").await.expect("a sync");
        assert!(other.exists("/alive", false).await.expect("a read").is_none());
    });
}

#[test]
fn clickhouse_121361_item_44_a_client_that_only_reads_at_a_follower_does_not_expire() {
    let ensemble = Ensemble::start_with(3, 0, "tickTime=500\n");
    let runtime = Runtime::new().expect("a runtime");
    let follower = ensemble.follower();
    let request = |timeout_ms| ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(0),
        timeout_ms,
        session_id: SessionId(0),
        password: None,
        read_only: Some(false),
    };
    let mut silent = WireClient::connect_with(&ensemble.address(follower), &request(1000))
        .expect("a connection");
    let create = |path: &'static str| {
        Request::Create(CreateRequest::new(path, None, Acl::open(), CreateMode::Ephemeral, 0))
    };
    silent.call(&create("/silent")).expect("a create");
    let options = ClientOptions { session_timeout: Duration::from_secs(1), ..Default::default() };
    let servers = ensemble.address(follower).parse().expect("an address");
    let reader = runtime.block_on(Client::connect(&servers, options)).expect("a session");
    runtime.block_on(create_ephemeral(&reader, "/reading"));
    let watching = runtime.block_on(client_of(&ensemble.address(ensemble.leader())));
    wait_until("the silent client's ephemeral is gone", Duration::from_secs(20), || {
        runtime.block_on(async {
            reader.exists("/reading", false).await.expect("a read").expect("its own ephemeral");
            watching.exists("/silent", false).await.expect("a read").is_none()
        })
    });
    runtime.block_on(async {
        let alive = watching.exists("/reading", false).await.expect("a read");
        assert!(alive.is_some(), "reads at a follower keep a session alive");
    });
    assert!(silent.is_closed_within(Duration::from_secs(10)));
}

#[test]
fn zookeeper_710_item_34_a_session_that_has_moved_is_not_written_to_through_its_former_member() {
    let ensemble = Ensemble::start(3, 0);
    let request = |session_id, password| ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid(0),
        timeout_ms: 10_000,
        session_id,
        password,
        read_only: Some(false),
    };
    for (former, next) in [(1, 2), (2, 3), (3, 1)] {
        let first = request(SessionId(0), None);
        let mut old =
            WireClient::connect_with(&ensemble.address(former), &first).expect("connects");
        let again = request(old.session_id, Some(old.password.clone()));
        let mut new = WireClient::connect_with(&ensemble.address(next), &again).expect("moves");
        assert_eq!(new.session_id, old.session_id);
        let path = format!("/moved-{former}");
        let create = Request::Create(CreateRequest::new(
            &path,
            None,
            Acl::open(),
            CreateMode::Persistent,
            0,
        ));
        assert!(old.try_call(&create).is_err(), "a write through the former member is answered");
        assert!(old.is_closed_within(Duration::from_secs(10)));
        assert!(new.stat(&path).is_none());
        new.create(&path, None);
    }
}

#[test]
fn a_watch_at_one_member_hears_of_a_write_at_another() {
    let ensemble = Ensemble::start(3, 1);
    let runtime = Runtime::new().expect("a runtime");
    for watcher in ensemble.ids() {
        let path = format!("/watched-{watcher}");
        let mut watching = WireClient::connect(&ensemble.address(watcher));
        assert!(watching.call(&Request::Exists { path: &path, watch: true }).is_err());
        let writer = if watcher == 1 { 2 } else { 1 };
        runtime.block_on(async {
            let client = client_of(&ensemble.address(writer)).await;
            create(&client, &path, b"").await.expect("a create");
        });
        assert_eq!(watching.next_event().path, path);
    }
}
