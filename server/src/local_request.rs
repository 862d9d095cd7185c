//! Requests that need no agreement: reads, watches, pings, authentication, and those that are refused.
//! They are answered into the connection's outbox by whoever's turn it is: the connection's own task,
//! or the core when it has just answered the write in front of them. No I/O.

use std::sync::Arc;

use znodefs::wire::{AddWatchMode, Decoder, Encode, Request, WatcherType, put_frame};
use znodefs::{ErrorCode, OpCode};

use crate::authentication;
use crate::config::ServerConfig;
use crate::connection::{Connection, Outbox, Phase, RawRequest};
use crate::mutation::{Mutation, mutated};
use crate::tree::read_request::{self, Reader};
use crate::tree::{DataTree, WatchManager, WatcherId, access};
use crate::txn::Identity;

/// How many queued requests are answered in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// While there is room for answers.
    WhileThereIsRoom,
    /// All that need not wait, since the write behind them is about to be applied.
    All,
}

/// The name under which a connection watches.
pub fn watcher(connection: &Connection) -> WatcherId {
    WatcherId(connection.id.0)
}

/// Whether an opcode is answered by the core, because it writes or waits for writes. Without a quorum
/// there is nothing to write or to wait for, only sessions end.
pub fn needs_core(op_code: i32, read_only: bool) -> Option<OpCode> {
    use OpCode::*;
    let op_code = OpCode::from_code(op_code)?;
    match op_code {
        _ if read_only && op_code != CloseSession => None,
        Create | Create2 | CreateContainer | CreateTtl | Delete | SetData | SetAcl | Multi
        | Reconfig | Sync | CloseSession => Some(op_code),
        _ => None,
    }
}

/// Whether a replica without a quorum refuses it: it needs others.
fn needs_quorum(op_code: OpCode) -> bool {
    op_code == OpCode::Check || needs_core(op_code as i32, false).is_some()
}

/// Whether answering a request may look at or set watches. `true` for some that do not.
pub fn may_touch_watches(op_code: i32, body: &[u8]) -> bool {
    use OpCode::*;
    match OpCode::from_code(op_code) {
        // The flag that asks for a watch is the last byte.
        Some(Exists | GetData | GetChildren | GetChildren2) => body.last() == Some(&1),
        Some(CheckWatches | RemoveWatches | SetWatches | SetWatches2 | AddWatch) => true,
        _ => false,
    }
}

/// About how long the reply to a request will be, bytes, as the tree is now.
pub fn reply_length(tree: &DataTree, request: &RawRequest) -> usize {
    const SMALL: usize = 128;
    let node = || {
        let path = Decoder::new(&request.body).read_ustring().ok()?;
        tree.node(path)
    };
    let more = match OpCode::from_code(request.op_code) {
        Some(OpCode::GetData) => node().map(|node| node.data().map_or(0, <[u8]>::len)),
        Some(OpCode::GetChildren | OpCode::GetChildren2) => {
            node().map(|node| node.num_children().max(0) as usize * 24)
        }
        // Each operation asks for something of its own.
        Some(OpCode::MultiRead) => Some(request.body.len() * 64),
        _ => None,
    };
    SMALL + more.unwrap_or(0)
}

/// Answers queued requests until one must wait for the core.
pub fn answer_queued(
    tree: &DataTree,
    watches: &mut WatchManager,
    connection: &Connection,
    outbox: &mut Outbox,
    pace: Pace,
    now_ms: u64,
) -> u64 {
    let mut count = 0;
    while pace == Pace::All || outbox.has_room() {
        let Some(request) = outbox.pop_local() else { break };
        answer(tree, Some(watches), connection, &request, outbox);
        let latency_ms = now_ms.saturating_sub(request.received_ms);
        outbox.note_answered(request.xid, request.op_code, tree.last_applied(), latency_ms, now_ms);
        count += 1;
    }
    count
}

/// Answers one request. `watches` must be there when [`may_touch_watches`].
pub fn answer(
    tree: &DataTree,
    watches: Option<&mut WatchManager>,
    connection: &Connection,
    request: &RawRequest,
    outbox: &mut Outbox,
) {
    if outbox.phase != Phase::Established {
        return;
    }
    let zxid = tree.last_applied();
    let op_code = OpCode::from_code(request.op_code);
    if outbox.read_only && op_code.is_some_and(needs_quorum) {
        let acknowledges = mutated(Mutation::ReadOnlyAcknowledgesWrites);
        let answer = if acknowledges { Ok(()) } else { Err(ErrorCode::NotReadOnly) };
        outbox.put_reply(request.xid, zxid, |_| answer);
        return;
    }
    // What a client may never ask for: `check` alone (ZOOKEEPER-2623), and what replicas do among
    // themselves.
    let refused = matches!(
        op_code,
        None | Some(OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession)
    );
    let Some(op_code) = op_code.filter(|_| !refused) else {
        outbox.put_reply(request.xid, zxid, |_| Err(ErrorCode::Unimplemented));
        tracing::warn!(
            "client {} closed: it asked for operation {}, which is not available to clients",
            connection.peer,
            request.op_code
        );
        outbox.close();
        return;
    };
    if op_code == OpCode::Sasl {
        outbox.put_reply(request.xid, znodefs::Zxid::ZERO, |_| Err(ErrorCode::AuthFailed));
        tracing::warn!("client {} closed: SASL is not available", connection.peer);
        outbox.close();
        return;
    }
    let mut decoder = Decoder::new(&request.body);
    let decoded = match Request::decode(op_code, &mut decoder) {
        Ok(decoded) => decoded,
        Err(error) => {
            tracing::debug!("client {}: {}: {error}", connection.peer, op_code.name());
            outbox.put_reply(request.xid, zxid, |_| Err(ErrorCode::MarshallingError));
            return;
        }
    };
    match &decoded {
        Request::SetWatches(sets) | Request::SetWatches2(sets) => {
            let Some(watches) = watches else { return };
            let tell = &mut |event_type, path: &str| put_notification(outbox, event_type, path);
            watches.set_watches(tree, watcher(connection), sets, tell);
            outbox.put_reply(request.xid, zxid, |_| Ok(()));
        }
        Request::AddWatch { .. } | Request::CheckWatches { .. } | Request::RemoveWatches { .. } => {
            let Some(watches) = watches else { return };
            let result = change_watches(watches, watcher(connection), &decoded);
            outbox.put_reply(request.xid, zxid, |out| {
                if result? {
                    bytes::BufMut::put_i32(out, 0);
                }
                Ok(())
            });
        }
        read => {
            let reader = Reader { session_id: outbox.session_id, identities: &request.identities };
            let mut watch = None;
            outbox.put_reply(request.xid, zxid, |out| {
                let outcome = read_request::answer(tree, reader, read, out);
                watch = outcome.watch;
                outcome.error.map_or(Ok(()), Err)
            });
            if let (Some((path, kind)), Some(watches)) = (watch, watches) {
                watches.add(path, watcher(connection), kind);
            }
        }
    }
}

/// `Ok(true)` where the reply has the record of `addWatch`: an error code of 0.
fn change_watches(
    watches: &mut WatchManager,
    watcher: WatcherId,
    request: &Request<'_>,
) -> Result<bool, ErrorCode> {
    let watcher_type = |code: i32| WatcherType::from_code(code).ok_or(ErrorCode::BadArguments);
    let found = |found: bool| if found { Ok(false) } else { Err(ErrorCode::NoWatcher) };
    match *request {
        Request::AddWatch { path, mode } => {
            let mode = AddWatchMode::from_code(mode).ok_or(ErrorCode::BadArguments)?;
            if znodefs::path::validate(path).is_err() {
                return Err(ErrorCode::BadArguments);
            }
            watches.add(path, watcher, mode.into());
            Ok(true)
        }
        Request::CheckWatches { path, watcher_type: code } => {
            found(watches.check(path, watcher, watcher_type(code)?))
        }
        Request::RemoveWatches { path, watcher_type: code } => {
            found(watches.remove(path, watcher, watcher_type(code)?))
        }
        _ => Err(ErrorCode::Unimplemented),
    }
}

/// Puts a notification without a known cause into the outbox: one that watches set again have raised.
fn put_notification(outbox: &mut Outbox, event_type: znodefs::wire::EventType, path: &str) {
    use znodefs::wire::{KeeperState, ReplyHeader, watch::put_watcher_event, xid};
    let mut frame = bytes::BytesMut::new();
    put_frame(&mut frame, |out| {
        ReplyHeader { xid: xid::NOTIFICATION, zxid: znodefs::Zxid(-1), error: 0 }.encode(out);
        put_watcher_event(out, event_type, KeeperState::SYNC_CONNECTED, path);
    });
    outbox.put_frame_bytes(&frame);
}

/// Answers an `auth` request and returns the identities that the connection has from now on. A failure
/// closes the connection behind its answer.
pub fn authenticate(
    config: &ServerConfig,
    connection: &Connection,
    request: &RawRequest,
    outbox: &mut Outbox,
) -> Arc<[Identity]> {
    let known = Arc::clone(&request.identities);
    let mut decoder = Decoder::new(&request.body);
    let decoded = Request::decode(OpCode::Auth, &mut decoder);
    let scheme = match &decoded {
        Ok(Request::Auth { scheme, .. }) => *scheme,
        _ => "",
    };
    let proved = match &decoded {
        Ok(Request::Auth { scheme, credential }) => authentication::authenticate(
            scheme,
            credential,
            connection.peer.ip(),
            config.super_digest.as_deref(),
        ),
        _ => Err(ErrorCode::MarshallingError),
    };
    match proved {
        Ok(proved) => {
            outbox.put_reply(request.xid, znodefs::Zxid::ZERO, |_| Ok(()));
            let mut all = known.to_vec();
            proved.into_iter().for_each(|identity| {
                if !all.contains(&identity) {
                    all.push(identity);
                }
            });
            outbox.identities = all.into();
            Arc::clone(&outbox.identities)
        }
        Err(_) => {
            tracing::warn!(
                "client {} closed: it could not authenticate with scheme '{scheme}'",
                connection.peer
            );
            outbox.put_reply(request.xid, znodefs::Zxid::ZERO, |_| Err(ErrorCode::AuthFailed));
            outbox.close();
            known
        }
    }
}

/// What a connection has proved before it says anything: its address; and where access control lists
/// are ignored (`skipACL`), whatever they ask for.
pub fn first_identities(config: &ServerConfig, connection: &Connection) -> Arc<[Identity]> {
    let address = authentication::ip_identity(connection.peer.ip());
    if config.skip_acl {
        let passing = Identity { scheme: access::SUPER_SCHEME.into(), id: String::new() };
        Arc::from([address, passing])
    } else {
        Arc::from([address])
    }
}
