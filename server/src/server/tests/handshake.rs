//! What decides whether a connection gets a session.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use znodefs::wire::request::put_request;
use znodefs::wire::{ConnectRequest, Encode, Request, put_frame};
use znodefs::{SessionId, Zxid};

use super::client::{create, new_session};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_is_clamped_between_2_and_20_ticks() {
    let server = TestServer::start().await;
    for (asked, granted) in [(1, 4000), (7000, 7000), (1_000_000, 40_000), (-5, 4000)] {
        let request = ConnectRequest { timeout_ms: asked, ..new_session() };
        let client = TestClient::connect_with(server.server.address(), &request).await.unwrap();
        assert_eq!(client.timeout_ms, granted);
        assert_ne!(client.session_id, SessionId(0));
        assert_eq!(client.password.len(), 16);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_only_byte_is_answered_only_to_those_who_sent_it() {
    let server = TestServer::start().await;
    for read_only in [None, Some(false), Some(true)] {
        let mut client = TestClient::open(server.server.address()).await;
        let request = ConnectRequest { read_only, ..new_session() };
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| request.encode(out));
        client.send_bytes(&out).await;
        let response = client.read_connect_response().await.unwrap();
        assert_eq!(response.read_only, read_only.map(|_| false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_what_the_replica_is_and_not_what_the_client_may_be() {
    let server = TestServer::start().await;
    let owner = server.client().await;
    for read_only in [None, Some(false), Some(true)] {
        let password = Some(Bytes::from_static(&[1; 16]));
        let request = ConnectRequest { password, read_only, ..owner.reconnect_request() };
        let mut client = TestClient::open(server.server.address()).await;
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| request.encode(out));
        client.send_bytes(&out).await;
        let response = client.read_connect_response().await.unwrap();
        assert_eq!(response.session_id, SessionId(0));
        assert_eq!(response.read_only, read_only.map(|_| false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_seen_more_is_turned_away_without_a_word() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let seen = client.create("/a", "").await.header.zxid;
    let address = server.server.address();
    let ahead = ConnectRequest { last_zxid_seen: Zxid(seen.0 + 1), ..client.reconnect_request() };
    assert!(TestClient::connect_with(address, &ahead).await.is_none());
    // Its session is untouched.
    client.call(&Request::Ping).await;
    let level = ConnectRequest { last_zxid_seen: seen, ..client.reconnect_request() };
    assert!(TestClient::connect_with(address, &level).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_leaves_the_sessions_connection_alone() {
    let server = TestServer::start().await;
    let mut owner = server.client().await;
    for password in [None, Some(Bytes::from_static(&[1; 16])), Some(Bytes::from_static(b"short"))] {
        let request = ConnectRequest { password, ..owner.reconnect_request() };
        let mut thief = TestClient::open(server.server.address()).await;
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| request.encode(out));
        thief.send_bytes(&out).await;
        let response = thief.read_connect_response().await.unwrap();
        assert_eq!((response.timeout_ms, response.session_id), (0, SessionId(0)));
        assert_eq!(&response.password[..], &[0; 16]);
        assert!(thief.is_closed_silently().await);
    }
    owner.create("/still-mine", "").await.response.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_session_is_told_that_it_is_gone() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let request = ConnectRequest { session_id: SessionId(0x1234), ..client.reconnect_request() };
    let refused = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    assert_eq!((refused.session_id, refused.timeout_ms), (SessionId(0), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_taken_up_elsewhere_closes_its_former_connection() {
    let server = TestServer::start().await;
    let mut former = server.client().await;
    let request = former.reconnect_request();
    let mut now = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    assert_eq!(now.session_id, former.session_id);
    assert!(former.is_closed_silently().await);
    now.create("/a", "").await.response.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_with_the_connect_request_wait_for_the_session() {
    let server = TestServer::start().await;
    let mut client = TestClient::open(server.server.address()).await;
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| new_session().encode(out));
    let request = create("/early", "x", znodefs::CreateMode::Persistent);
    put_request(&mut out, 1, &request);
    put_request(&mut out, 2, &Request::Ping);
    client.send_bytes(&out).await;
    assert_ne!(client.read_connect_response().await.unwrap().session_id, SessionId(0));
    assert_eq!(client.receive(&request).await.unwrap().path(), "/early");
    assert_eq!(client.receive(&Request::Ping).await.unwrap().header.xid, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_connect_request_is_closed_after_a_while() {
    let mut config = config();
    config.handshake_timeout = Duration::from_millis(50);
    let server = TestServer::start_with(config).await;
    let mut silent = TestClient::open(server.server.address()).await;
    assert!(silent.is_closed_silently().await);
    let mut halting = TestClient::open(server.server.address()).await;
    halting.send_bytes(&[0, 0, 0, 45, 0, 0]).await;
    assert!(halting.is_closed_silently().await);
}
