//! Sessions over time: expiry, restarts, identities.

use std::time::Duration;

use bytes::Bytes;
use znodefs::wire::{ConnectRequest, Request, Response, xid};
use znodefs::{Acl, CreateMode, ErrorCode, Permissions, SessionId};

use super::client::{create, get, new_session, set};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_expires_with_its_ephemerals_and_one_that_pings_does_not() {
    let server = TestServer::start().await;
    let mut silent = server.client().await;
    let mut lively = server.client().await;
    silent.call(&create("/silent", "", CreateMode::Ephemeral)).await.response.unwrap();
    lively.call(&create("/lively", "", CreateMode::Ephemeral)).await.response.unwrap();
    for _ in 0..3 {
        server.advance(Duration::from_secs(5)).await;
        lively.call(&Request::Ping).await;
    }
    assert!(silent.is_closed_silently().await);
    assert_eq!(lively.call(&get("/silent")).await.error(), Some(ErrorCode::NoNode));
    lively.call(&get("/lively")).await.response.unwrap();
    let request = silent.reconnect_request();
    let gone = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    assert_eq!(gone.session_id, SessionId(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_expires_because_the_replica_stood_still() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    server.clock.advance(Duration::from_secs(3600));
    server.settle().await;
    client.call(&Request::Ping).await;
    server.advance(Duration::from_secs(13)).await;
    assert!(client.is_closed_silently().await, "silence counts again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_connection_broke_lives_until_its_timeout() {
    let server = TestServer::start().await;
    let mut owner = server.client().await;
    owner.call(&create("/e", "", CreateMode::Ephemeral)).await.response.unwrap();
    let request = owner.reconnect_request();
    drop(owner);
    server.advance(Duration::from_secs(9)).await;
    let mut again = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    assert_eq!(again.session_id, request.session_id);
    // Taking it up counted as being heard.
    server.advance(Duration::from_secs(9)).await;
    again.call(&get("/e")).await.response.unwrap();
    drop(again);
    let mut other = server.client().await;
    wait_until("it is gone", async || {
        server.advance(Duration::from_secs(1)).await;
        other.call(&get("/e")).await.error() == Some(ErrorCode::NoNode)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_every_session_has_its_full_timeout() {
    let server = TestServer::start().await;
    let mut owner = server.client().await;
    owner.call(&create("/e", "", CreateMode::Ephemeral)).await.response.unwrap();
    let request = owner.reconnect_request();
    server.advance(Duration::from_secs(8)).await;
    let server = server.start_again().await;
    server.advance(Duration::from_secs(9)).await;
    let mut again = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    assert_eq!(again.session_id, request.session_id);
    again.call(&get("/e")).await.response.unwrap();
    assert_ne!(server.client().await.session_id, again.session_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_a_connection_that_lost_its_session_has_no_effect() {
    let server = TestServer::start().await;
    let mut former = server.client().await;
    former.create("/a", "before").await.response.unwrap();
    // The core learns of the new connection first, the write is already on its way.
    let request = former.reconnect_request();
    let mut now = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    former.send(&[set("/a", "late")]).await;
    assert!(former.is_closed_silently().await);
    assert_eq!(now.call(&get("/a")).await.data(), "before");
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_are_proved_shown_and_used() {
    let mut config = config();
    config.super_digest = Some(znodefs::acl::digest_id("super:secret"));
    let server = TestServer::start_with(config).await;
    let mut bob = server.client().await;
    let auth = |credential: &'static str| Request::Auth {
        scheme: "digest",
        credential: Bytes::from_static(credential.as_bytes()),
    };
    assert_eq!(bob.call(&auth("bob:pw")).await.error(), None);
    let Response::WhoAmI(identities) = bob.call(&Request::WhoAmI).await.response.unwrap() else {
        panic!("no identities");
    };
    let shown: Vec<_> = identities.iter().map(|i| (i.scheme.as_str(), i.user.as_str())).collect();
    assert_eq!(shown, [("ip", "127.0.0.1"), ("digest", "bob")]);

    bob.create("/private", "x").await.response.unwrap();
    let acl = vec![Acl { permissions: Permissions::ALL, scheme: "auth".into(), id: "".into() }];
    bob.call(&Request::SetAcl { path: "/private", acl, version: -1 }).await.response.unwrap();
    let mut other = server.client().await;
    assert_eq!(other.call(&get("/private")).await.error(), Some(ErrorCode::NoAuth));
    assert_eq!(other.call(&set("/private", "y")).await.error(), Some(ErrorCode::NoAuth));
    other.call(&auth("super:secret")).await;
    other.call(&set("/private", "y")).await.response.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_authentication_is_told_and_closes() {
    let server = TestServer::start().await;
    for scheme in ["sasl", "nobody-knows-this"] {
        let mut client = server.client().await;
        let auth = Request::Auth { scheme, credential: Bytes::from_static(b"x") };
        let mut out = bytes::BytesMut::new();
        znodefs::wire::request::put_request(&mut out, xid::AUTH, &auth);
        client.send_bytes(&out).await;
        let reply = client.receive(&auth).await.unwrap();
        assert_eq!((reply.header.xid, reply.error()), (xid::AUTH, Some(ErrorCode::AuthFailed)));
        assert!(client.is_closed_silently().await);
    }
    let mut client = server.client().await;
    let sasl = Request::Sasl { token: Bytes::from_static(b"x") };
    assert_eq!(client.call(&sasl).await.error(), Some(ErrorCode::AuthFailed));
    assert!(client.is_closed_silently().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_ephemerals_are_listed_by_prefix() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    for path in ["/ab", "/a", "/c"] {
        client.call(&create(path, "", CreateMode::Ephemeral)).await.response.unwrap();
    }
    let reply = client.call(&Request::GetEphemerals { prefix_path: "/a" }).await;
    let Ok(Response::Names(mut names)) = reply.response else { panic!("no names") };
    names.sort();
    assert_eq!(names, ["/a", "/ab"]);
    let count = client.call(&Request::GetAllChildrenNumber { path: "/" }).await;
    assert_eq!(count.response, Ok(Response::Number(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ids_differ_between_starts() {
    let server = TestServer::start().await;
    let first = server.client().await.session_id;
    let server = server.start_again().await;
    // The clock has not moved: the session that is still there is not given out again.
    let second = server.client().await.session_id;
    assert_ne!(first, second);
    let request = ConnectRequest { timeout_ms: 4000, ..new_session() };
    let third = TestClient::connect_with(server.server.address(), &request).await.unwrap();
    assert_ne!(second, third.session_id);
}
