//! What a client may not do, and what it costs the others.

use bytes::{BufMut, BytesMut};
use znodefs::ErrorCode;
use znodefs::wire::request::put_request;
use znodefs::wire::{AddWatchMode, Request, put_frame};

use super::client::{get, set};
use super::*;
use crate::connection::OUTBOX_HARD_LIMIT;

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_the_limit_is_taken_and_one_byte_more_ends_that_connection_alone() {
    let mut config = config();
    config.frame_length_max = 2000;
    let server = TestServer::start_with(config).await;
    let mut other = server.client().await;
    other.create("/a", "").await.response.unwrap();
    let frame = |length: usize| {
        // Header, path, version, and the data's own length.
        let data = vec![b'x'; length - 8 - 6 - 4 - 4];
        let request = Request::SetData { path: "/a", data: Some(data.into()), version: -1 };
        let mut out = BytesMut::new();
        put_request(&mut out, 1, &request);
        assert_eq!(out.len(), 4 + length);
        out
    };
    let mut client = server.client().await;
    client.send_bytes(&frame(2000)).await;
    client.receive(&set("/a", "")).await.unwrap().response.unwrap();
    client.send_bytes(&frame(2001)).await;
    assert!(client.is_closed_silently().await);
    for length in [-1, i32::MIN, i32::MAX] {
        let mut client = server.client().await;
        client.send_bytes(&length.to_be_bytes()).await;
        assert!(client.is_closed_silently().await);
    }
    assert_eq!(other.call(&get("/a")).await.stat().data_length, 2000 - 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_that_clients_may_not_ask_for_are_refused_and_close() {
    let server = TestServer::start().await;
    // check alone, deleteContainer, createSession, error, and one that nobody knows.
    for op_code in [13, 20, -10, -1, 4711] {
        let mut client = server.client().await;
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| {
            out.put_i32(7);
            out.put_i32(op_code);
            out.put_slice(&[0, 0, 0, 2, b'/', b'a', 0, 0, 0, 0]);
        });
        client.send_bytes(&out).await;
        let reply = client.receive(&Request::Ping).await.unwrap();
        assert_eq!((reply.header.xid, reply.error()), (7, Some(ErrorCode::Unimplemented)));
        assert!(client.is_closed_silently().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_read_are_answered_in_their_place() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let mut out = BytesMut::new();
    for (xid, op_code) in [(1, 5), (2, 4), (3, 14), (4, 9)] {
        put_frame(&mut out, |out| {
            out.put_i32(xid);
            out.put_i32(op_code);
            out.put_slice(&[0, 0]);
        });
    }
    client.send_bytes(&out).await;
    for xid in 1..=4 {
        let reply = client.receive(&Request::Ping).await.unwrap();
        assert_eq!((reply.header.xid, reply.error()), (xid, Some(ErrorCode::MarshallingError)));
    }
    let mut short = server.client().await;
    short.send_bytes(&[0, 0, 0, 3, 1, 2, 3]).await;
    assert!(short.is_closed_silently().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_gets_only_so_many_connections() {
    let mut config = config();
    config.connections_per_address_max = 2;
    let server = TestServer::start_with(config).await;
    let first = server.client().await;
    let _second = server.client().await;
    let mut third = TestClient::open(server.server.address()).await;
    assert!(third.is_closed_silently().await);
    drop(first);
    let address = server.server.address();
    wait_until("there is room again", async || {
        TestClient::connect_with(address, &super::client::new_session()).await.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_given_up_and_harms_nobody() {
    let server = TestServer::start().await;
    let mut writer = server.client().await;
    // Paths of 60,000 characters make events of that length.
    let path = format!("/{}", "x".repeat(60_000));
    writer.create(&path, "").await.response.unwrap();
    let mut deaf = server.client().await;
    let mode = AddWatchMode::Persistent.code();
    deaf.call(&Request::AddWatch { path: &path, mode }).await.response.unwrap();
    let rounds = OUTBOX_HARD_LIMIT / 60_000 + 400;
    for _ in 0..rounds.div_ceil(50) {
        let batch = vec![set(&path, "y"); 50];
        writer.send(&batch).await;
        for request in &batch {
            writer.receive(request).await.unwrap().response.unwrap();
        }
    }
    wait_until("it is given up", async || server.server.service().connections.len() == 1).await;
}
