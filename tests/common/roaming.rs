//! A plain client of several servers: when its own goes, it goes on at another one with the same session.
//! It is done as a careful program would do it: a read is asked again; of a change whose answer was lost it
//! looks whether it was made. What cannot be known that way ends the test without a result.

use std::io::{Error, ErrorKind, Result};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use znodefs::wire::{ConnectRequest, ConnectResponse, Request, Response};
use znodefs::{CreateMode, Stat, Zxid};

use crate::Random;
use crate::deadline::{Deadline, pause};
use crate::restarts::inconclusive;
use crate::wire_client::{Answer, Limits, WireClient, open};

/// How long a server that takes the client is looked for.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

/// The pause before the next one is tried.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// What such a client remembers.
#[derive(Debug)]
pub(crate) struct Roaming {
    servers: Vec<String>,
    timeout_ms: i32,
    credentials: Vec<(String, Bytes)>,
    has_watched: bool,
}

impl Roaming {
    /// `None` if only one server is named.
    pub fn among(servers: &str, timeout_ms: i32) -> Option<Roaming> {
        let servers: Vec<String> = servers.split(',').map(str::to_string).collect();
        (servers.len() > 1).then_some(Roaming {
            servers,
            timeout_ms,
            credentials: Vec::new(),
            has_watched: false,
        })
    }

    /// Opens a connection to any of them, in a random order.
    pub fn open(&self, request: &ConnectRequest) -> Result<(TcpStream, ConnectResponse)> {
        let deadline = Deadline::after(OPEN_LIMIT);
        let mut next = Random::from_system().between(0, self.servers.len() as u64) as usize;
        loop {
            match open(&self.servers[next], request, Limits::default()) {
                Err(_) if !deadline.has_passed() => pause(OPEN_PAUSE),
                result => return result,
            }
            next = (next + 1) % self.servers.len();
        }
    }
}

/// Sends a request and waits for its answer, wherever that comes from.
///
/// # Panics
/// If the session does not survive its server.
pub(crate) fn call(client: &mut WireClient, request: &Request<'_>) -> Answer {
    if client.is_closed() {
        go_on(client, &Error::from(ErrorKind::ConnectionReset));
    }
    loop {
        let attempt = catch_up(client, request).map(|before| (before, client.call_here(request)));
        let (error, before) = match attempt {
            Ok((_, Ok(answer))) => {
                remember(client, request, &answer);
                return answer;
            }
            Ok((before, Err(error))) => (error, Some(before)),
            Err(error) => (error, None),
        };
        go_on(client, &error);
        if let Some(answer) = before.and_then(|before| made(client, request, before, &error)) {
            return Ok(answer);
        }
    }
}

/// Ends the test without a result: a connection was lost, and the test depends on it.
pub(crate) fn lost(error: &Error) -> ! {
    inconclusive(format!("a connection was lost that the test cannot go on without: {error}"))
}

/// Lets the server have what others were answered before; the zxid that it has then.
fn catch_up(client: &mut WireClient, request: &Request<'_>) -> Result<Zxid> {
    use Request::{Auth, CloseSession, Ping};
    if !matches!(request, Auth { .. } | CloseSession | Ping) {
        let last_zxid = client.last_zxid;
        let _ = client.call_here(&Request::Sync { path: "/" })?;
        let _ = client.call_here(&Request::Exists { path: "/", watch: false })?;
        return Ok(std::mem::replace(&mut client.last_zxid, last_zxid));
    }
    Ok(client.last_zxid)
}

/// Finds a server for the session.
fn go_on(client: &mut WireClient, error: &Error) {
    let (last_zxid_seen, session_id) = (client.last_zxid, client.session_id);
    let password = Some(client.password.clone());
    let Some(roaming) = client.roaming() else { lost(error) };
    // What happened meanwhile is told in another order, or not at all, when watches are set again.
    if roaming.has_watched {
        lost(error);
    }
    let timeout_ms = roaming.timeout_ms;
    let request = ConnectRequest {
        last_zxid_seen,
        timeout_ms,
        session_id,
        password,
        ..ConnectRequest::default()
    };
    let (stream, response) = roaming.open(&request).expect("a server that takes the session");
    let credentials = roaming.credentials.clone();
    assert_eq!(response.session_id, session_id, "a session survives its server");
    client.go_on_with(stream);
    for (scheme, credential) in credentials {
        // If this connection is lost too, that is found by the next request.
        let _ = client.call_here(&Request::Auth { scheme: &scheme, credential });
    }
}

/// Keeps what is to be said again on the next connection.
fn remember(client: &mut WireClient, request: &Request<'_>, answer: &Answer) {
    let Some(roaming) = client.roaming() else { return };
    match request {
        Request::Auth { scheme, credential } if answer.is_ok() => {
            roaming.credentials.push((scheme.to_string(), credential.clone()));
        }
        Request::Exists { watch: true, .. }
        | Request::GetData { watch: true, .. }
        | Request::GetChildren { watch: true, .. }
        | Request::GetChildren2 { watch: true, .. }
        | Request::AddWatch { .. }
        | Request::SetWatches(_)
        | Request::SetWatches2(_) => roaming.has_watched = true,
        _ => {}
    }
}

/// The answer to a change that was made although its answer was lost: there is something newer than
/// `before`, and who else should have made it. `None` if it is to be asked for again.
fn made(
    client: &mut WireClient,
    request: &Request<'_>,
    before: Zxid,
    error: &Error,
) -> Option<Response> {
    match request {
        Request::Create(create) => {
            let mode = CreateMode::from_flags(create.flags)?;
            if mode.is_sequential() {
                lost(error);
            }
            let stat = client.stat(create.path).filter(|stat| stat.czxid > before)?;
            Some(Response::Created { path: create.path.to_string(), stat })
        }
        Request::SetData { path, .. } => {
            client.stat(path).filter(|stat| stat.mzxid > before).map(Response::Stat)
        }
        Request::Delete { path, .. } => {
            let is_gone = client.stat(path).is_none();
            let parent =
                path.rsplit_once('/').map(|(parent, _)| parent).filter(|one| !one.is_empty());
            let is_newer = |stat: Stat| stat.pzxid > before;
            let was_here = client.stat(parent.unwrap_or("/")).is_some_and(is_newer);
            (is_gone && was_here).then_some(Response::Empty)
        }
        Request::SetAcl { .. } | Request::Multi(_) | Request::Reconfig { .. } => lost(error),
        Request::CloseSession => lost(error),
        _ => None,
    }
}
