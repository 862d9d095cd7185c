//! Sessions: their end, their ephemerals, their identities.

use std::time::Duration;

use bytes::Bytes;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{ConnectRequest, Request, Response};
use znodefs::{Acl, CreateMode, ErrorCode, Permissions};
use znodefs_tests::{Server, WireClient, on_every_server, wait_until};

const LIMIT: Duration = Duration::from_secs(10);

/// Two ticks, the shortest that a server grants.
const TIMEOUT_SHORTEST_MS: i32 = 4000;

fn connect_request(client: &WireClient) -> ConnectRequest {
    ConnectRequest {
        timeout_ms: TIMEOUT_SHORTEST_MS,
        session_id: client.session_id,
        password: Some(client.password.clone()),
        last_zxid_seen: client.last_zxid,
        ..ConnectRequest::default()
    }
}

fn a_closed_session_takes_its_ephemerals_along(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    let mut other = WireClient::connect(&server.address());
    let ephemeral = CreateRequest::new("/e", None, Acl::open(), CreateMode::Ephemeral, 0);
    let create = Request::Create(ephemeral);
    client.send(&[&create, &Request::CloseSession]).unwrap();
    assert!(client.receive(&create).unwrap().is_ok());
    assert_eq!(client.receive(&Request::CloseSession).unwrap(), Ok(Response::Empty));
    assert!(client.is_closed_within(LIMIT));
    assert_eq!(other.stat("/e"), None);
}

fn a_session_goes_on_over_another_connection(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create_with("/e", None, CreateMode::Ephemeral).unwrap();
    let owner = client.stat("/e").unwrap().ephemeral_owner;
    assert_eq!(owner, client.session_id);
    let mut moved = WireClient::connect_with(&server.address(), &connect_request(&client)).unwrap();
    assert_eq!(moved.session_id, owner);
    assert_eq!(moved.stat("/e").unwrap().ephemeral_owner, owner);
    moved.call(&Request::CloseSession).unwrap();
    let mut other = WireClient::connect(&server.address());
    assert_eq!(other.stat("/e"), None);
}

fn a_session_survives_the_server_with_its_ephemerals(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    client.create_with("/e", None, CreateMode::Ephemeral).unwrap();
    let request = connect_request(&client);
    server.start_again();
    let mut again = WireClient::connect_with(&server.address(), &request).unwrap();
    assert_eq!(again.session_id, request.session_id);
    assert!(again.stat("/e").is_some());
}

fn a_silent_session_expires_with_its_ephemerals(server: &mut dyn Server) {
    let request = ConnectRequest { timeout_ms: TIMEOUT_SHORTEST_MS, ..ConnectRequest::default() };
    let mut silent = WireClient::connect_with(&server.address(), &request).unwrap();
    silent.create_with("/e", None, CreateMode::Ephemeral).unwrap();
    let mut other = WireClient::connect(&server.address());
    wait_until("the ephemeral is gone", LIMIT, || other.stat("/e").is_none());
    assert!(silent.is_closed_within(LIMIT));
    let expired = WireClient::connect_with(&server.address(), &connect_request(&silent)).unwrap();
    assert_eq!(expired.session_id.0, 0);
}

fn pings_keep_a_session(server: &mut dyn Server) {
    let request = ConnectRequest { timeout_ms: TIMEOUT_SHORTEST_MS, ..ConnectRequest::default() };
    let mut client = WireClient::connect_with(&server.address(), &request).unwrap();
    client.create_with("/e", None, CreateMode::Ephemeral).unwrap();
    for _ in 0..8 {
        znodefs_tests::deadline::pause(Duration::from_millis(1000));
        client.call(&Request::Ping).unwrap();
    }
    assert!(client.stat("/e").is_some());
}

fn a_digest_identity_opens_what_is_closed_to_others(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    let credential = Bytes::from_static(b"user:password");
    client.call(&Request::Auth { scheme: "digest", credential }).unwrap();
    let mine =
        vec![Acl { permissions: Permissions::ALL, scheme: "auth".to_string(), id: String::new() }];
    let create = CreateRequest::new("/mine", None, mine, CreateMode::Persistent, 0);
    client.call(&Request::Create(create)).unwrap();
    assert_eq!(client.acl("/mine")[0].id, znodefs::acl::digest_id("user:password"));
    client.set("/mine", Some(b"x"));
    let mut other = WireClient::connect(&server.address());
    assert_eq!(other.get("/mine"), Err(ErrorCode::NoAuth));
}

fn an_unknown_scheme_is_refused_and_the_connection_closed(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    let auth = Request::Auth { scheme: "no-such-scheme", credential: Bytes::from_static(b"x") };
    assert_eq!(client.call(&auth), Err(ErrorCode::AuthFailed));
    assert!(client.is_closed_within(LIMIT));
}

fn sync_answers_with_its_path(server: &mut dyn Server) {
    let mut client = WireClient::connect(&server.address());
    let answer = client.call(&Request::Sync { path: "/anything" });
    assert_eq!(answer, Ok(Response::Path("/anything".to_string())));
}

on_every_server![
    a_closed_session_takes_its_ephemerals_along,
    a_session_goes_on_over_another_connection,
    a_session_survives_the_server_with_its_ephemerals,
    a_silent_session_expires_with_its_ephemerals,
    pings_keep_a_session,
    a_digest_identity_opens_what_is_closed_to_others,
    an_unknown_scheme_is_refused_and_the_connection_closed,
    sync_answers_with_its_path,
];
