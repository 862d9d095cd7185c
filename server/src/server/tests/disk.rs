//! What the disk does to the replica: crashes, snapshots, no room, failures.

use znodefs::ErrorCode;
use znodefs::wire::Request;

use super::client::{get, set};
use super::*;
use crate::persistence::disk::Operation;
use crate::persistence::memory_disk::Fault;

fn snapshots(disk: &MemoryDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("snapshot.") && !name.ends_with(".tmp"));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_crash_that_forgets_everything_unsynced() {
    let mut server = TestServer::start().await;
    for round in 0..5 {
        let mut client = server.client().await;
        for number in 0..40 {
            client.create(&format!("/{round}-{number}"), "value").await.response.unwrap();
        }
        // Not waited for: it may be there or not.
        client.send(&[set("/0-0", "value")]).await;
        server = server.crash().await;
        let mut client = server.client().await;
        for number in 0..40 {
            assert_eq!(client.call(&get(&format!("/{round}-{number}"))).await.data(), "value");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_while_writes_go_on_and_old_ones_go() {
    let mut config = config();
    config.snapshot_txns = 50;
    let server = TestServer::start_with(config).await;
    let mut client = server.client().await;
    let mut written = 0;
    wait_until("several snapshots were taken", async || {
        for _ in 0..20 {
            client.create(&format!("/{written}"), "x").await.response.unwrap();
            written += 1;
        }
        let found = snapshots(&server.disk);
        assert!(found.len() <= 4, "{found:?}");
        found.len() >= 3 && written > 600
    })
    .await;
    let server = server.crash().await;
    let mut client = server.client().await;
    for number in 0..written {
        client.call(&get(&format!("/{number}"))).await.response.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_is_tried_again_and_harms_nobody() {
    let mut config = config();
    config.snapshot_txns = 20;
    let server = TestServer::start_with(config).await;
    server.disk.inject(Fault::new(Operation::Create, libc::EIO).on("snapshot.").times(2));
    let mut client = server.client().await;
    let mut written = 0;
    wait_until("a later snapshot succeeds", async || {
        client.create(&format!("/{written}"), "x").await.response.unwrap();
        written += 1;
        !snapshots(&server.disk).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "before").await.response.unwrap();
    server.disk.set_capacity(Some(server.disk.used() + 1000));
    let big = vec![b'x'; 100_000];
    let big = Request::SetData { path: "/a", data: Some(big.into()), version: -1 };
    // Several at once, so that what is queued behind the first is refused with it.
    client.send(&[big.clone(), set("/a", "small"), get("/a"), big.clone()]).await;
    assert_eq!(client.receive(&big).await.unwrap().error(), Some(ErrorCode::SystemError));
    let second = client.receive(&big).await.unwrap();
    let read = client.receive(&get("/a")).await.unwrap().data();
    assert!(second.error().is_none() || read == "before");
    assert_eq!(client.receive(&big).await.unwrap().error(), Some(ErrorCode::SystemError));

    server.disk.set_capacity(None);
    client.call(&set("/a", "after")).await.response.unwrap();
    let server = server.crash().await;
    assert_eq!(server.client().await.call(&get("/a")).await.data(), "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_replica_and_nothing_is_acknowledged() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "before").await.response.unwrap();
    server.disk.inject(Fault::new(Operation::Sync, libc::EIO).on("log."));
    client.send(&[set("/a", "lost")]).await;
    assert!(client.is_closed_silently().await);
    let reason = tokio::time::timeout(LIMIT, server.server.failed()).await.unwrap();
    assert!(reason.contains("fdatasync") && reason.contains("log."), "{reason}");
    let server = server.crash().await;
    let data = server.client().await.call(&get("/a")).await.data();
    assert!(data == "before" || data == "lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let server = TestServer::start().await;
    let mut config = config();
    config.client_address = server.server.address();
    let clock = Arc::clone(&server.clock);
    let Err(error) = TestServer::start_on(config, MemoryDisk::new(2), clock).await else {
        panic!("two replicas on one port");
    };
    let message = error.to_string();
    let address = server.server.address().to_string();
    assert!(message.starts_with(&address) && message.contains("--listen"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_server_line_is_another_machines_is_refused_clearly() {
    use crate::config::ensemble::{Member, ServerId};
    let mut config = config();
    config.server_id = ServerId(1);
    for number in 1..=3 {
        // TEST-NET-1: nobody's address.
        let member = Member::parse(ServerId(number), "192.0.2.1:2888:3888;2181").unwrap();
        config.members.push(member);
    }
    let clock = Arc::new(crate::clock::ManualClock::at(0));
    let Err(error) = TestServer::start_on(config, MemoryDisk::new(2), clock).await else {
        panic!("it started");
    };
    assert!(error.to_string().contains("192.0.2.1:3888"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_replica_gives_its_directory_back_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = ServerConfig::standalone(directory.path().join("new"), config().client_address);
    for round in 0..3 {
        let server =
            Server::start(ServerConfig { snapshot_txns: 4, ..config.clone() }).await.unwrap();
        let refused = Server::start(config.clone()).await.err().unwrap();
        assert!(refused.to_string().contains("is in use by process"), "{refused}");
        let mut client = TestClient::connect(server.address()).await;
        for number in 0..20 {
            client.create(&format!("/{round}-{number}"), "x").await.response.unwrap();
        }
        client.call(&get("/0-0")).await.response.unwrap();
        server.stop().await;
    }
}
