//! Reads without a quorum: they show one committed state, at least as new as what the client has seen,
//! for as long as the tree does not change; what needs a quorum is refused and has no effect; their
//! sessions are nothing to the ensemble.

use std::collections::BTreeSet;

use znodefs::{ErrorCode, SessionId, Zxid};
use znodefs_server::txn::Txn;

use super::order::Order;
use super::requests::Answer;
use crate::invariants::{Check, violation};
use crate::replica::ask::{Ask, Asked};
use crate::replica::read_only::Alone;

/// Of an answer that tells of success, and is not what was asked for.
const NOT_UNDERSTOOD: i32 = i32::MIN;

/// What members showed without a quorum.
pub struct ReadOnly {
    /// Sessions that only one member knows.
    sessions: BTreeSet<SessionId>,
}

impl ReadOnly {
    /// Nothing.
    pub fn new() -> ReadOnly {
        ReadOnly { sessions: BTreeSet::new() }
    }

    /// A member without a quorum has given a client this session.
    pub fn begins(&mut self, session_id: SessionId) {
        self.sessions.insert(session_id);
    }

    /// A transaction is committed.
    pub fn committed(&self, txn: &Txn) -> Check {
        match self.sessions.contains(&txn.session_id) {
            false => Ok(()),
            true => violation(
                "a session of one member is none of the ensemble",
                format!("{} at {}: {:?}", txn.session_id, txn.zxid, txn.body),
            ),
        }
    }
}

/// Whether a member without a quorum must refuse it.
pub fn needs_quorum(ask: &Ask) -> bool {
    let writes = ask.is_write() && *ask != Ask::Close;
    writes || matches!(ask, Ask::Sync | Ask::Check { .. })
}

/// An answer's zxid: one for the whole connection, committed, and not behind what was `seen` before.
pub fn check_state(order: &Order, alone: &Alone, seen: Zxid, zxid: Zxid) -> Check {
    let what = || format!("{} is shown {zxid}", alone.session_id);
    match alone.at {
        Some(at) if at != zxid => {
            let detail = format!("{} after {at}", what());
            return violation("reads without a quorum end before the tree changes", detail);
        }
        Some(_) => return Ok(()),
        None => {}
    }
    if zxid < seen {
        let detail = format!("{}, its client has seen {seen}", what());
        return violation("nobody goes back in time where there is no quorum", detail);
    }
    match zxid == Zxid::ZERO || order.committed(zxid).is_some() {
        true => Ok(()),
        false => violation("what is shown without a quorum is committed", what()),
    }
}

/// The answer to what needs a quorum.
pub fn check_refused(alone: &Alone, asked: &Asked, answer: &Answer) -> Check {
    let session_id = alone.session_id;
    match answer {
        Err(code) if *code == ErrorCode::NotReadOnly.code() => Ok(()),
        Err(code) if *code != NOT_UNDERSTOOD => violation(
            "what needs a quorum is refused for that reason",
            format!("{session_id} {asked:?} answered with error {code}"),
        ),
        _ => violation(
            "nothing is acknowledged without a quorum",
            format!("{session_id} {asked:?} answered with {answer:?}"),
        ),
    }
}
