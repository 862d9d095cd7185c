//! What clients wait for, in the order in which it will be answered. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use znodefs::{ErrorCode, Zxid};

use super::WriteRequest;
use crate::connection::Connection;

/// Which request of which connection.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub connection: Arc<Connection>,
    pub xid: i32,
    pub op_code: i32,
    /// Milliseconds of the monotonic clock.
    pub received_ms: u64,
}

impl Origin {
    pub fn of(connection: &Arc<Connection>, request: &WriteRequest) -> Origin {
        Origin {
            connection: Arc::clone(connection),
            xid: request.request.xid,
            op_code: request.request.op_code,
            received_ms: request.request.received_ms,
        }
    }
}

/// Why somebody waits.
#[derive(Debug)]
pub(super) enum Waiting {
    /// For the transaction that was made of its request.
    ForTxn(Origin),
    /// For the transaction that opens its session.
    ForSession {
        connection: Arc<Connection>,
        timeout_ms: u64,
        /// Whether the client said whether it would take a read-only replica.
        read_only: Option<bool>,
    },
    /// For everything before its `sync`; the record of the answer.
    ForSync(Origin, Bytes),
    /// For its turn to be refused.
    Refused(Origin, ErrorCode),
}

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct OutstandingQueue {
    /// Each with the transaction it waits for, or after which its turn comes.
    queue: VecDeque<(Zxid, Waiting)>,
}

impl OutstandingQueue {
    /// Puts somebody at the end.
    pub fn push(&mut self, zxid: Zxid, waiting: Waiting) {
        self.queue.push_back((zxid, waiting));
    }

    /// Takes the next whose turn comes before the transaction `zxid` is applied.
    pub fn pop_before(&mut self, zxid: Zxid) -> Option<Waiting> {
        self.pop_if(|after, waits_for_txn| !waits_for_txn && after < zxid)
    }

    /// Takes the next whose turn comes now that everything up to `zxid` is applied.
    pub fn pop_upto(&mut self, zxid: Zxid) -> Option<Waiting> {
        self.pop_if(|after, waits_for_txn| !waits_for_txn && after <= zxid)
    }

    /// Takes the one who waits for exactly this transaction.
    pub fn pop_txn(&mut self, zxid: Zxid) -> Option<Waiting> {
        self.pop_if(|after, waits_for_txn| waits_for_txn && after == zxid)
    }

    /// Takes the next, whatever it waits for.
    pub fn pop(&mut self) -> Option<Waiting> {
        self.pop_if(|_, _| true)
    }

    fn pop_if(&mut self, condition: impl FnOnce(Zxid, bool) -> bool) -> Option<Waiting> {
        let (zxid, waiting) = self.queue.front()?;
        let waits_for_txn = matches!(waiting, Waiting::ForTxn(_) | Waiting::ForSession { .. });
        if !condition(*zxid, waits_for_txn) {
            return None;
        }
        self.queue.pop_front().map(|(_, waiting)| waiting)
    }
}
