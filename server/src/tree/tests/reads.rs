//! Answers to reads, as clients decode them.

use bytes::{Bytes, BytesMut};
use znodefs::wire::CreateMode::*;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::response::ClientInfo;
use znodefs::wire::{MultiResult, Request, Response};
use znodefs::{Acl, ErrorCode};

use crate::test_replica::*;
use crate::tree::read_request::{Reader, answer};

#[test]
fn data_is_answered_as_it_was_written_null_and_empty_apart() {
    let mut replica = TestReplica::new();
    for (path, data) in [("/null", None), ("/empty", Some("")), ("/full", Some("full"))] {
        let data = data.map(|text| Bytes::from_static(text.as_bytes()));
        let request = CreateRequest::new(path, data.clone(), Acl::open(), Persistent, 0);
        replica.write(&Request::Create(request)).unwrap();
        let stat = replica.stat(path);
        let read = replica.read(&Request::GetData { path, watch: false });
        assert_eq!(read, Ok(Response::Data { data, stat }), "{path}");
        let exists = replica.read(&Request::Exists { path, watch: false });
        assert_eq!(exists, Ok(Response::Stat(stat)), "{path}");
    }
    let nul = replica.read(&Request::Exists { path: "/a\0", watch: false });
    assert_eq!(nul, Err(ErrorCode::BadArguments));
}

#[test]
fn children_are_answered_with_and_without_stat() {
    let mut replica = TestReplica::new();
    for path in ["/a", "/a/x", "/a/y", "/a/y/z"] {
        replica.make(path);
    }
    let Ok(Response::Names(mut names)) =
        replica.read(&Request::GetChildren { path: "/a", watch: false })
    else {
        panic!("no names");
    };
    names.sort();
    assert_eq!(names, ["x", "y"]);
    let Ok(Response::Children { names, stat }) =
        replica.read(&Request::GetChildren2 { path: "/a/y", watch: false })
    else {
        panic!("no names");
    };
    assert_eq!((names, stat), (vec!["z".to_string()], replica.stat("/a/y")));
    let all = replica.read(&Request::GetAllChildrenNumber { path: "/a" });
    assert_eq!(all, Ok(Response::Number(3)));
}

#[test]
fn acls_are_masked_for_who_may_not_administer() {
    let mut replica = TestReplica::new();
    let list = acl("world:anyone:r,digest:me:hash=:a");
    replica.write(&create_with("/a", Persistent, list.clone())).unwrap();
    let request = Request::GetAcl { path: "/a" };
    let stat = replica.stat("/a");
    let masked = Response::Acl { acl: acl("world:anyone:r,digest:me:x:a"), stat };
    assert_eq!(replica.read(&request), Ok(masked));
    let me = [identity("digest", "me:hash=")];
    let whole = Response::Acl { acl: list, stat };
    assert_eq!(replica.read_as(SESSION, &me, &request), Ok(whole));
}

#[test]
fn ephemerals_are_found_by_plain_text_prefix() {
    let mut replica = TestReplica::new();
    for path in ["/a", "/ab", "/b"] {
        replica.write(&create_mode(path, Ephemeral)).unwrap();
    }
    replica.write_as(OTHER, &create_mode("/a-other", Ephemeral)).unwrap();
    let expected = [
        ("/a", vec!["/a", "/ab"]),
        ("", vec!["/a", "/ab", "/b"]),
        (" ", vec!["/a", "/ab", "/b"]),
        ("/", vec!["/a", "/ab", "/b"]),
        ("/none", vec![]),
    ];
    for (prefix_path, expected) in expected {
        let read = replica.read(&Request::GetEphemerals { prefix_path });
        let Ok(Response::Names(mut names)) = read else { panic!("no names") };
        names.sort();
        assert_eq!(names, expected, "{prefix_path:?}");
    }
}

#[test]
fn a_multi_read_of_the_same_megabyte_over_and_over_ends_in_refusals() {
    let mut replica = TestReplica::new();
    let data = Some(Bytes::from(vec![7; 1 << 20]));
    let request = CreateRequest::new("/big", data, Acl::open(), Persistent, 0);
    replica.write(&Request::Create(request)).unwrap();
    let read = Request::GetData { path: "/big", watch: false };
    let answered = replica.read(&Request::MultiRead(vec![read; 100]));
    let Ok(Response::Multi(results)) = answered else { panic!("no results") };
    let refused = MultiResult::Error(ErrorCode::ThrottledOp.code());
    assert_eq!(results.iter().filter(|result| **result == refused).count(), 84);
}

#[test]
fn who_am_i_shows_users_but_no_secrets() {
    let replica = TestReplica::new();
    let identities = [identity("ip", "::1"), identity("digest", "me:hash="), identity("super", "")];
    let info = |scheme: &str, user: &str| ClientInfo { scheme: scheme.into(), user: user.into() };
    let expected = vec![info("ip", "::1"), info("digest", "me"), info("super", "")];
    let read = replica.read_as(SESSION, &identities, &Request::WhoAmI);
    assert_eq!(read, Ok(Response::WhoAmI(expected)));
}

#[test]
fn a_refused_read_leaves_what_stands_in_the_buffer_alone() {
    let replica = TestReplica::new();
    let mut out = BytesMut::from(&b"before"[..]);
    let reader = Reader { session_id: SESSION, identities: &[] };
    let request = Request::GetData { path: "/none", watch: true };
    let outcome = answer(&replica.tree, reader, &request, &mut out);
    assert_eq!((outcome.error, outcome.watch), (Some(ErrorCode::NoNode), None));
    assert_eq!(&out[..], b"before");
    let write = delete("/none");
    let outcome = answer(&replica.tree, reader, &write, &mut out);
    assert_eq!(outcome.error, Some(ErrorCode::Unimplemented));
}
