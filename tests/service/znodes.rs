//! Znodes: stats, sequences, versions, order, several operations as one, durability.

use bytes::Bytes;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{MultiResult, Request, Response};
use znodefs::{Acl, CreateMode, ErrorCode, Permissions, Zxid};
use znodefs_tests::{Server, WireClient, on_every_server};

fn create<'a>(path: &'a str, data: &'static str) -> Request<'a> {
    let data = Some(Bytes::from_static(data.as_bytes()));
    Request::Create(CreateRequest::new(path, data, Acl::open(), CreateMode::Persistent, 0))
}

fn set<'a>(path: &'a str, data: &'static str) -> Request<'a> {
    Request::SetData { path, data: Some(Bytes::from_static(data.as_bytes())), version: -1 }
}

fn a_fresh_tree_counts_from_its_built_in_nodes(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    let root = client.stat("/").unwrap();
    assert_eq!((root.cversion, root.num_children, root.version), (-1, 1, 0));
    assert_eq!((root.czxid, root.mzxid, root.pzxid), (Zxid(0), Zxid(0), Zxid(0)));
    client.create("/a", Some(b""));
    let (root, a) = (client.stat("/").unwrap(), client.stat("/a").unwrap());
    assert_eq!((root.cversion, root.pzxid), (0, a.czxid));
    client.delete("/a").unwrap();
    let root = client.stat("/").unwrap();
    assert_eq!((root.cversion, root.mzxid), (1, Zxid(0)));
    assert_eq!(root.pzxid, client.last_zxid, "the deletion's");
}

fn sequence_numbers_count_all_children_ever_created(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    let sequential = || {
        let mut client = WireClient::connect(&server.address());
        client.create_with("/q/n-", Some(b""), CreateMode::PersistentSequential).unwrap()
    };
    client.create("/q", None);
    assert_eq!(sequential(), "/q/n-0000000000");
    client.create("/q/x", None);
    assert_eq!(sequential(), "/q/n-0000000002");
    client.delete("/q/x").unwrap();
    assert_eq!(sequential(), "/q/n-0000000003");
    assert_eq!(client.stat("/q").unwrap().cversion, 5);
    client.create("/q/sub", None);
    let below = client.create_with("/q/sub/", None, CreateMode::EphemeralSequential);
    assert_eq!(below.unwrap(), "/q/sub/0000000000");
}

fn requests_of_one_session_are_answered_in_order(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", Some(b"v0"));
    let get = Request::GetData { path: "/a", watch: false };
    let (first, second) = (set("/a", "v1"), set("/a", "v2"));
    let requests = [&first, &get, &second, &get];
    client.send(&requests).unwrap();
    let mut last_zxid = Zxid(0);
    let mut values = Vec::new();
    for request in requests {
        let answer = client.receive(request).unwrap().unwrap();
        assert!(client.last_zxid >= last_zxid);
        last_zxid = client.last_zxid;
        if let Response::Data { data: Some(data), .. } = answer {
            values.push(data);
        }
    }
    assert_eq!(values, ["v1", "v2"]);
}

fn a_failed_write_consumes_a_zxid(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", None);
    let before = client.last_zxid;
    assert_eq!(client.call(&create("/a", "x")), Err(ErrorCode::NodeExists));
    assert_eq!(client.last_zxid, Zxid(before.0 + 1));
}

fn versions_guard_changes(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", Some(b""));
    let set = |version| Request::SetData { path: "/a", data: None, version };
    assert!(matches!(client.call(&set(0)), Ok(Response::Stat(stat)) if stat.version == 1));
    assert_eq!(client.call(&set(0)), Err(ErrorCode::BadVersion));
    let delete = Request::Delete { path: "/a", version: 0 };
    assert_eq!(client.call(&delete), Err(ErrorCode::BadVersion));
    let set_acl = |version| Request::SetAcl { path: "/a", acl: Acl::open(), version };
    assert!(matches!(client.call(&set_acl(0)), Ok(Response::Stat(stat)) if stat.aversion == 1));
    assert_eq!(client.call(&set_acl(0)), Err(ErrorCode::BadVersion));
    assert_eq!(client.stat("/a").unwrap().version, 1, "the ACL has a version of its own");
}

fn what_is_missing_or_in_the_way_is_told_apart(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", None);
    client.create("/a/b", None);
    let refused = |client: &mut WireClient, path: &str| {
        client.create_with(path, None, CreateMode::Persistent).unwrap_err()
    };
    assert_eq!(client.delete("/a"), Err(ErrorCode::NotEmpty));
    assert_eq!(client.delete("/missing"), Err(ErrorCode::NoNode));
    assert_eq!(client.delete("/"), Err(ErrorCode::BadArguments));
    assert_eq!(client.delete("/zookeeper"), Err(ErrorCode::BadArguments));
    assert_eq!(refused(&mut client, "/a"), ErrorCode::NodeExists);
    assert_eq!(refused(&mut client, "/"), ErrorCode::NodeExists);
    assert_eq!(refused(&mut client, "/missing/b"), ErrorCode::NoNode);
    assert_eq!(refused(&mut client, "/a/"), ErrorCode::BadArguments);
    client.create_with("/e", None, CreateMode::Ephemeral).unwrap();
    assert_eq!(refused(&mut client, "/e/b"), ErrorCode::NoChildrenForEphemerals);
}

fn several_operations_are_done_as_one_or_not_at_all(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", None);
    let check = Request::Check { path: "/a", version: 0 };
    let failed = vec![check.clone(), create("/b", ""), set("/missing", ""), create("/c", "")];
    let errors: Vec<i32> = client
        .multi(failed)
        .iter()
        .map(|result| match result {
            MultiResult::Error(code) => *code,
            MultiResult::Ok(..) => panic!("no part of it is done: {result:?}"),
        })
        .collect();
    assert_eq!(errors, [0, 0, -101, -2]);
    assert_eq!(client.children("/"), ["a", "zookeeper"]);
    let done = client.multi(vec![
        check,
        create("/b", "1"),
        create("/b/c", "2"),
        set("/b", "3"),
        Request::Delete { path: "/a", version: 0 },
    ]);
    assert!(done.iter().all(|result| matches!(result, MultiResult::Ok(..))), "{done:?}");
    let (b, c) = (client.stat("/b").unwrap(), client.stat("/b/c").unwrap());
    assert_eq!((b.czxid, b.mzxid, b.pzxid, c.czxid), (c.czxid, c.czxid, c.czxid, b.czxid));
    assert_eq!(client.children("/"), ["b", "zookeeper"]);
}

fn null_and_empty_data_stay_apart_through_a_restart(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/null", None);
    client.create("/empty", Some(b""));
    server.start_again();
    let mut client = WireClient::connect(&server.address());
    assert_eq!(client.data("/null"), None);
    assert_eq!(client.data("/empty").as_deref(), Some(&b""[..]));
    assert_eq!(client.data("/").as_deref(), Some(&b""[..]));
}

fn everything_of_a_znode_survives_a_restart(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", Some(b"1"));
    client.set("/a", Some(b"2"));
    client.create("/a/b", None);
    let acl = vec![Acl::world(Permissions::READ)];
    let closed = Request::SetAcl { path: "/a/b", acl: acl.clone(), version: -1 };
    client.call(&closed).unwrap();
    let before =
        (client.stat("/").unwrap(), client.get("/a").unwrap(), client.get("/a/b").unwrap());
    let zxid = client.last_zxid;
    server.start_again();
    let mut client = WireClient::connect(&server.address());
    let after = (client.stat("/").unwrap(), client.get("/a").unwrap(), client.get("/a/b").unwrap());
    assert_eq!(after, before);
    assert_eq!(client.acl("/a/b"), acl);
    assert!(client.last_zxid > zxid, "time goes on");
}

fn permissions_are_judged_by_the_acl_and_creation_by_the_parents(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create("/a", Some(b"x"));
    client.create("/a/b", None);
    let acl = vec![Acl::world(Permissions::READ)];
    client.call(&Request::SetAcl { path: "/a", acl, version: -1 }).unwrap();
    assert_eq!(client.call(&set("/a", "y")), Err(ErrorCode::NoAuth));
    assert_eq!(client.call(&create("/a/c", "")), Err(ErrorCode::NoAuth));
    assert_eq!(client.delete("/a/b"), Err(ErrorCode::NoAuth));
    assert_eq!(client.data("/a").as_deref(), Some(&b"x"[..]));
    assert!(client.call(&set("/a/b", "y")).is_ok(), "nothing is inherited");
    client.delete("/a").unwrap_err();
}

on_every_server![
    a_fresh_tree_counts_from_its_built_in_nodes,
    sequence_numbers_count_all_children_ever_created,
    requests_of_one_session_are_answered_in_order,
    a_failed_write_consumes_a_zxid,
    versions_guard_changes,
    what_is_missing_or_in_the_way_is_told_apart,
    several_operations_are_done_as_one_or_not_at_all,
    null_and_empty_data_stay_apart_through_a_restart,
    everything_of_a_znode_survives_a_restart,
    permissions_are_judged_by_the_acl_and_creation_by_the_parents,
];
