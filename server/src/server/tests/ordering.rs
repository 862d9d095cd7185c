//! The order in which one connection's requests are answered.

use znodefs::wire::{OpCode, Request};
use znodefs::{CreateMode, ErrorCode, Zxid};

use super::client::{create, get, set};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_pipelined_read_sees_exactly_the_writes_before_it() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "v0").await;
    let requests =
        [get("/a"), set("/a", "v1"), get("/a"), set("/a", "v2"), set("/a", "v3"), get("/a")];
    let first = client.send(&requests).await;
    let mut last = Zxid::ZERO;
    let expected = ["v0", "", "v1", "", "", "v3"];
    for (index, (request, value)) in requests.iter().zip(expected).enumerate() {
        let reply = client.receive(request).await.unwrap();
        assert_eq!(reply.header.xid, first + index as i32);
        assert!(reply.header.zxid >= last);
        last = reply.header.zxid;
        if request.op_code() == OpCode::GetData {
            assert_eq!(reply.data(), value);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_pipelined_requests_come_back_complete_and_in_order() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    client.create("/a", "x").await;
    let (count, kinds) = (12_000, [set("/a", "y"), get("/a"), Request::Ping, get("/none")]);
    let requests: Vec<Request<'_>> = (0..count).map(|n| kinds[n % 4].clone()).collect();
    let first = client.send(&requests).await;
    for (index, request) in requests.iter().enumerate() {
        let reply = client.receive(request).await.unwrap();
        assert_eq!(reply.header.xid, first + index as i32);
        assert_eq!(reply.error().is_some(), index % 4 == 3);
    }
    wait_until("nothing is outstanding", async || {
        server.server.service().metrics.outstanding() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_requests_keep_their_place_and_failed_writes_use_a_zxid() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let before = client.create("/a", "").await.header.zxid;
    let requests = [
        Request::Delete { path: "/missing", version: -1 },
        get("/missing"),
        Request::Sync { path: "/any" },
        create("/a", "", CreateMode::Persistent),
    ];
    client.send(&requests).await;
    let replies = [
        client.receive(&requests[0]).await.unwrap(),
        client.receive(&requests[1]).await.unwrap(),
        client.receive(&requests[2]).await.unwrap(),
        client.receive(&requests[3]).await.unwrap(),
    ];
    let errors: Vec<_> = replies.iter().map(super::client::Reply::error).collect();
    use ErrorCode::{NoNode, NodeExists};
    assert_eq!(errors, [Some(NoNode), Some(NoNode), None, Some(NodeExists)]);
    let zxids: Vec<_> = replies.iter().map(|reply| reply.header.zxid.0 - before.0).collect();
    assert_eq!(zxids, [1, 1, 1, 2]);
    let [.., sync, _] = replies;
    assert_eq!(sync.path(), "/any");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_session_gets_its_replies_before_the_socket_closes() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let requests =
        [create("/e", "", CreateMode::Ephemeral), get("/e"), Request::CloseSession, get("/e")];
    client.send(&requests).await;
    for request in &requests[..3] {
        client.receive(request).await.unwrap().response.unwrap();
    }
    assert!(client.is_closed_silently().await);
    let mut other = server.client().await;
    assert_eq!(other.call(&get("/e")).await.error(), Some(ErrorCode::NoNode));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_much_data_are_answered_as_the_client_takes_them() {
    let server = TestServer::start().await;
    let mut client = server.client().await;
    let big = vec![b'x'; 900_000];
    client.create("/big", "").await;
    let big = Request::SetData { path: "/big", data: Some(big.into()), version: -1 };
    client.call(&big).await.response.unwrap();
    // A hundred megabytes of answers behind a write and in front of one.
    let mut requests = vec![set("/marker", ""), set("/big", "small")];
    requests.splice(1..1, (0..110).map(|_| get("/big")));
    client.send(&requests).await;
    assert_eq!(client.receive(&requests[0]).await.unwrap().error(), Some(ErrorCode::NoNode));
    for _ in 0..110 {
        assert_eq!(client.receive(&get("/big")).await.unwrap().data().len(), 900_000);
    }
    client.receive(&requests[111]).await.unwrap().response.unwrap();
}
