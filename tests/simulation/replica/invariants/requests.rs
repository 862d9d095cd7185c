//! What clients are answered: a write that succeeded has its one effect, in its place, after
//! everything that anyone had seen when it was asked for; one that failed has none and failed for a
//! reason; a read shows its replica's state; a sync shows all that anyone had seen before it.

use std::collections::HashMap;

use znodefs::wire::{MultiResult, Response};
use znodefs::{ErrorCode, SessionId, Zxid, path};
use znodefs_server::tree::CONFIG_PATH;
use znodefs_server::txn::{Change, Txn, TxnBody};

use super::order::Order;
use super::states::States;
use crate::invariants::{Check, violation};
use crate::replica::ask::{Ask, Asked};

/// What came of a request: its record, or its error's code.
pub type Answer = Result<Response, i32>;

/// Requests and their effects.
pub struct Requests {
    effects: HashMap<(SessionId, i32), Zxid>,
    /// The last request of each session that took effect.
    last_effects: HashMap<SessionId, i32>,
    forbidden: HashMap<(SessionId, i32), &'static str>,
    /// The newest state that any client has seen.
    pub observed: Zxid,
    pub writes: u64,
    pub failures: u64,
    pub reads: u64,
    pub syncs: u64,
}

impl Requests {
    /// None.
    pub fn new() -> Requests {
        Requests {
            effects: HashMap::new(),
            last_effects: HashMap::new(),
            forbidden: HashMap::new(),
            observed: Zxid::ZERO,
            writes: 0,
            failures: 0,
            reads: 0,
            syncs: 0,
        }
    }

    /// This request must never take effect, because of this.
    pub fn forbid(&mut self, session_id: SessionId, xid: i32, reason: &'static str) {
        self.forbidden.insert((session_id, xid), reason);
    }

    /// A transaction is committed.
    pub fn committed(&mut self, txn: &Txn) -> Check {
        if txn.session_id == SessionId(0) || txn.xid <= 0 {
            return Ok(());
        }
        let request = (txn.session_id, txn.xid);
        if let Some(before) = self.effects.insert(request, txn.zxid) {
            let detail =
                format!("request {} of {} at {before} and {}", txn.xid, txn.session_id, txn.zxid);
            return violation("a request takes effect once", detail);
        }
        let effective = !matches!(txn.body, TxnBody::Error(_) | TxnBody::MultiError(_));
        // A session's end is taken through any connection that it ever had, as ZooKeeper takes it.
        if effective && !matches!(txn.body, TxnBody::CloseSession { .. }) {
            let last = self.last_effects.insert(txn.session_id, txn.xid).unwrap_or(0);
            if last > txn.xid {
                let (session_id, xid, zxid) = (txn.session_id, txn.xid, txn.zxid);
                let detail = format!("request {xid} of {session_id} at {zxid}, behind {last}");
                return violation("a session's requests take effect in their order", detail);
            }
        }
        match self.forbidden.get(&request) {
            Some(reason) if effective => {
                let detail = format!("request {} of {} at {}", txn.xid, txn.session_id, txn.zxid);
                violation(reason, detail)
            }
            _ => Ok(()),
        }
    }

    /// A client has its answer to a write.
    pub fn check_write(
        &mut self,
        (order, states): (&Order, &States),
        session_id: SessionId,
        asked: &Asked,
        zxid: Zxid,
        answer: &Answer,
    ) -> Check {
        let request = (session_id, asked.xid);
        let what = || format!("{session_id} {asked:?} answered at {zxid} with {answer:?}");
        let effect = self.effects.get(&request).copied();
        if effect != Some(zxid) {
            if answer.is_err() && effect.is_none() {
                // Refused without a transaction: then none may come.
                self.failures += 1;
                self.forbid(session_id, asked.xid, "a request that failed has no effect");
                return Ok(());
            }
            let detail = format!("{}; its transaction is {effect:?}", what());
            return violation("a write is answered with its transaction", detail);
        }
        if zxid <= asked.floor {
            let detail = format!("{}; {} had been seen before it was asked", what(), asked.floor);
            return violation("writes are linearizable", detail);
        }
        let Some(committed) = order.committed(zxid) else {
            return violation("a write is answered once it is committed", what());
        };
        let (txn, before) = (&committed.txn, Zxid(zxid.0 - 1));
        let fits = match (answer, &txn.body) {
            (Err(code), TxnBody::Error(error)) => {
                self.failures += 1;
                code == error && explains(*code, &asked.ask, states, before)
            }
            (Ok(Response::Multi(results)), TxnBody::MultiError(codes)) => {
                self.failures += 1;
                let same = |(result, code): (&MultiResult, &i32)| matches!(result, MultiResult::Error(error) if error == code);
                results.len() == codes.len()
                    && results.iter().zip(codes).all(same)
                    && multi_explains(codes, &asked.ask, states, before)
            }
            (Ok(response), body) => {
                self.writes += 1;
                succeeds(response, body, &asked.ask, states, zxid)
            }
            (Err(_), _) => false,
        };
        match fits {
            true => Ok(()),
            false => {
                violation("an answer tells what was done", format!("{}: {:?}", what(), txn.body))
            }
        }
    }

    /// A client has its answer to a read.
    pub fn check_read(
        &mut self,
        states: &States,
        asked: &Asked,
        zxid: Zxid,
        answer: &Answer,
    ) -> Check {
        self.reads += 1;
        let Some(path) = asked.ask.path() else { return Ok(()) };
        let znode = states.at(path, zxid);
        let fits = match (answer, znode) {
            (Err(code), None) => *code == ErrorCode::NoNode.code(),
            (Ok(Response::Stat(stat)), Some(znode)) => *stat == znode.stat,
            (Ok(Response::Data { data, stat }), Some(znode)) => {
                *stat == znode.stat && *data == znode.data
            }
            (Ok(Response::Children { names, stat }), Some(znode)) => {
                *stat == znode.stat
                    && names.len() == znode.children.len()
                    && names.iter().all(|name| znode.children.contains(name))
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let detail = format!("{asked:?} at {zxid}: {answer:?}, where {znode:?} is");
        violation("a read shows its replica's state", detail)
    }
}

/// Whether an error has its reason in the state before.
fn explains(code: i32, ask: &Ask, states: &States, before: Zxid) -> bool {
    let at = |path: &str| states.at(path, before);
    match (ErrorCode::from_code(code), ask) {
        (Some(ErrorCode::SessionExpired | ErrorCode::SessionMoved), _) => true,
        (Some(ErrorCode::NodeExists), Ask::Create { path, .. }) => at(path).is_some(),
        (Some(ErrorCode::NoNode), Ask::Create { path, .. }) => {
            path::parent(path).is_some_and(|parent| parent != "/" && at(parent).is_none())
        }
        (Some(ErrorCode::NoChildrenForEphemerals), Ask::Create { path, .. }) => {
            let parent = path::parent(path).and_then(at);
            parent.is_some_and(|parent| parent.stat.ephemeral_owner != SessionId(0))
        }
        (
            Some(ErrorCode::NoNode),
            Ask::Delete { path, .. } | Ask::Set { path, .. } | Ask::Check { path, .. },
        ) => at(path).is_none(),
        (
            Some(ErrorCode::BadVersion),
            Ask::Delete { path, version }
            | Ask::Set { path, version, .. }
            | Ask::Check { path, version },
        ) => at(path).is_some_and(|znode| znode.stat.version != *version),
        (Some(ErrorCode::BadVersion), Ask::Reconfigure { version, .. }) => {
            states.configuration_at(before) != *version
        }
        (
            Some(ErrorCode::ReconfigInProgress | ErrorCode::NewConfigNoQuorum),
            Ask::Reconfigure { .. },
        ) => true,
        (Some(ErrorCode::NotEmpty), Ask::Delete { path, .. }) => {
            at(path).is_some_and(|znode| znode.stat.num_children > 0)
        }
        _ => false,
    }
}

/// The same of a multi, where it can be said without following its own changes.
fn multi_explains(codes: &[i32], ask: &Ask, states: &States, before: Zxid) -> bool {
    let Ask::Multi(operations) = ask else { return false };
    let Some(failed) = codes.iter().position(|code| *code != 0) else { return false };
    failed > 0 || operations.first().is_some_and(|first| explains(codes[0], first, states, before))
}

/// Whether an answer says what a transaction did, and that is what was asked.
fn succeeds(response: &Response, body: &TxnBody, ask: &Ask, states: &States, zxid: Zxid) -> bool {
    match (ask, body, response) {
        (Ask::Close, TxnBody::CloseSession { .. }, Response::Empty) => true,
        (Ask::Multi(operations), TxnBody::Multi(changes), Response::Multi(results)) => {
            operations.len() == changes.len()
                && results.len() == changes.len()
                && results.iter().all(|result| matches!(result, MultiResult::Ok(..)))
                && operations
                    .iter()
                    .zip(changes)
                    .all(|(ask, change)| is_what_was_asked(ask, change))
        }
        (
            Ask::Reconfigure { members: wanted, version, .. },
            TxnBody::Reconfig { members, data },
            Response::Data { data: told, stat },
        ) => {
            members == wanted
                && told.as_ref() == Some(data)
                && states.configuration_at(Zxid(zxid.0 - 1)) == *version
                && states.at(CONFIG_PATH, zxid).is_some_and(|znode| znode.stat == *stat)
        }
        (_, TxnBody::Change(change), response) => {
            if !is_what_was_asked(ask, change) {
                return false;
            }
            match (change, response) {
                (Change::Create { path, .. }, Response::Created { path: told, stat }) => {
                    told == path && states.at(path, zxid).is_some_and(|znode| znode.stat == *stat)
                }
                (Change::SetData { path, .. }, Response::Stat(stat)) => {
                    states.at(path, zxid).is_some_and(|znode| znode.stat == *stat)
                }
                (Change::Delete { .. }, Response::Empty) => true,
                _ => false,
            }
        }
        _ => false,
    }
}

fn is_what_was_asked(ask: &Ask, change: &Change) -> bool {
    match (ask, change) {
        (Ask::Create { path, data, mode }, Change::Create { path: made, data: put, .. }) => {
            let named = match mode.is_sequential() {
                true => made.strip_prefix(path.as_str()).is_some_and(|number| number.len() == 10),
                false => made == path,
            };
            named && put.as_deref() == Some(data.as_bytes())
        }
        (Ask::Delete { path, .. }, Change::Delete { path: gone }) => path == gone,
        (
            Ask::Set { path, data, version },
            Change::SetData { path: set, data: put, version: after },
        ) => {
            path == set
                && put.as_deref() == Some(data.as_bytes())
                && (*version == -1 || version + 1 == *after)
        }
        (Ask::Check { .. }, Change::Check) => true,
        _ => false,
    }
}
