//! Znodes over the wire: numbers that clients rely on, multis, containers, times to live.

use std::time::Duration;

use bytes::Bytes;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{MultiResult, Request, Response};
use znodefs::{Acl, CreateMode, ErrorCode, OpCode, Zxid};

use super::client::{create, get, set};
use super::*;

fn exists(path: &str) -> Request<'_> {
    Request::Exists { path, watch: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_root_counts_from_minus_one() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let fresh = client.call(&exists("/")).await.stat();
    assert_eq!((fresh.cversion, fresh.num_children, fresh.czxid), (-1, 1, Zxid::ZERO));
    let created = client.create("/a", "").await.header.zxid;
    let stat = client.call(&exists("/")).await.stat();
    assert_eq!((stat.cversion, stat.pzxid), (0, created));
    let deleted = client.call(&Request::Delete { path: "/a", version: 0 }).await.header.zxid;
    let stat = client.call(&exists("/")).await.stat();
    assert_eq!((stat.cversion, stat.pzxid, stat.mzxid), (1, deleted, Zxid::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_start_is_a_new_epoch() {
    let mut server = TestServer::start().await;
    for epoch in 1..4 {
        let mut client = server.client().await;
        let zxid = client.create(&format!("/{epoch}"), "").await.header.zxid;
        assert_eq!(zxid.epoch().0, epoch);
        // The session's own transaction was the first.
        assert_eq!(zxid.counter(), 2);
        server = server.start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_multi_changes_nothing_and_answers_each_operation() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "").await;
    client.create("/s", "").await;
    let sequential = CreateMode::PersistentSequential;
    let multi = Request::Multi(vec![
        Request::Check { path: "/a", version: 0 },
        create("/b", "", CreateMode::Persistent),
        create("/s/n-", "", sequential),
        set("/missing", ""),
        create("/c", "", CreateMode::Persistent),
    ]);
    let reply = client.call(&multi).await;
    let codes = [0, 0, 0, -101, -2].map(MultiResult::Error).to_vec();
    assert_eq!(reply.response, Ok(Response::Multi(codes)));
    assert_eq!(client.call(&exists("/b")).await.error(), Some(ErrorCode::NoNode));
    assert_eq!(client.call(&create("/s/n-", "", sequential)).await.path(), "/s/n-0000000000");

    let multi = Request::Multi(vec![
        create("/b", "", CreateMode::Persistent),
        set("/b", "x"),
        Request::Delete { path: "/a", version: 0 },
    ]);
    let Ok(Response::Multi(results)) = client.call(&multi).await.response else {
        panic!("the multi failed");
    };
    let op_codes: Vec<_> = results
        .iter()
        .map(|result| match result {
            MultiResult::Ok(op_code, _) => *op_code,
            MultiResult::Error(code) => panic!("error {code}"),
        })
        .collect();
    assert_eq!(op_codes, [OpCode::Create2, OpCode::SetData, OpCode::Delete]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multi_read_answers_each_operation_for_itself() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "x").await;
    let children = Request::GetChildren { path: "/", watch: false };
    let multi = Request::MultiRead(vec![get("/a"), get("/missing"), children]);
    let Ok(Response::Multi(results)) = client.call(&multi).await.response else {
        panic!("the multiRead failed");
    };
    assert!(matches!(&results[0], MultiResult::Ok(OpCode::GetData, Response::Data { .. })));
    assert_eq!(results[1], MultiResult::Error(-101));
    assert!(matches!(&results[2], MultiResult::Ok(OpCode::GetChildren, Response::Names(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_container_and_an_old_znode_with_a_time_to_live_go() {
    let mut config = config();
    config.extended_types = true;
    let server = TestServer::start_with(config).await;
    let mut client = server.client().await;
    let request = |path, mode, ttl_ms| {
        Request::Create(CreateRequest::new(path, Some(Bytes::new()), Acl::open(), mode, ttl_ms))
    };
    client.call(&request("/c", CreateMode::Container, 0)).await.response.unwrap();
    client.call(&request("/t", CreateMode::PersistentWithTtl, 5000)).await.response.unwrap();
    client.create("/c/x", "").await;
    client.call(&Request::Delete { path: "/c/x", version: -1 }).await;
    client.call(&exists("/c")).await.response.unwrap();
    // The look at containers is due; the session must not be.
    for _ in 0..13 {
        server.advance(Duration::from_secs(5)).await;
        client.call(&Request::Ping).await;
    }
    for path in ["/c", "/t"] {
        wait_until(path, async || client.call(&exists(path)).await.error().is_some()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reconfiguration_is_disabled_unless_configured() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let reconfig = Request::Reconfig {
        joining: None,
        leaving: Some("3"),
        new_members: None,
        current_config_id: -1,
    };
    assert_eq!(client.call(&reconfig).await.error(), Some(ErrorCode::ReconfigDisabled));
    client.call(&exists("/")).await.response.unwrap();
}
