//! What the clients of a member of an ensemble wait for, connection by connection: what was sent on
//! its way to become a transaction, in order, and what has to wait behind a `sync`. Pure.
//!
//! Nothing of a connection goes past its unanswered `sync`: a write behind it could be applied
//! first, and a read between the two would see the write that it precedes.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;
use znodefs::ErrorCode;

use super::WriteRequest;
use super::outstanding::{Origin, Waiting};
use crate::connection::ConnectionId;

/// Something that a client of this member waits for.
#[derive(Debug)]
pub(super) enum Submission {
    /// A transaction: [`Waiting::ForTxn`] or [`Waiting::ForSession`].
    Write(Waiting),
    /// A `sync`; the record of its answer.
    Sync { origin: Origin, record: Bytes, confirmed: bool },
    /// To be refused when its turn comes.
    Refused(Origin, ErrorCode),
    /// A `sync` stands before it.
    Held(WriteRequest),
}

/// Who can be answered now.
#[derive(Debug)]
pub(super) enum Turn {
    /// A `sync` is done; the record of its answer.
    Synced(Origin, Bytes),
    /// A request is refused.
    Refused(Origin, ErrorCode),
}

#[derive(Debug, Default)]
struct ConnectionQueue {
    submissions: VecDeque<Submission>,
    /// Whether a `sync` is under way; there is never more than one.
    syncs: bool,
}

/// Everything submitted and not answered.
#[derive(Debug, Default)]
pub(super) struct SubmittedRequests {
    queues: HashMap<ConnectionId, ConnectionQueue>,
    /// Who asked for a `sync`, by its token.
    syncs: HashMap<u64, ConnectionId>,
    last_token: u64,
}

impl SubmittedRequests {
    /// Puts something at the end of a connection's queue.
    pub fn push(&mut self, connection: ConnectionId, submission: Submission) {
        self.queues.entry(connection).or_default().submissions.push_back(submission);
    }

    /// Puts a `sync` at the end of a connection's queue and returns its token.
    pub fn push_sync(&mut self, connection: ConnectionId, origin: Origin, record: Bytes) -> u64 {
        let queue = self.queues.entry(connection).or_default();
        queue.submissions.push_back(Submission::Sync { origin, record, confirmed: false });
        queue.syncs = true;
        let token = self.next_token();
        self.syncs.insert(token, connection);
        token
    }

    /// The token of another `sync`.
    pub fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// Whether the connection's next request has to wait behind a `sync`.
    pub fn is_held(&self, connection: ConnectionId) -> bool {
        self.queues.get(&connection).is_some_and(|queue| queue.syncs)
    }

    /// A `sync` is confirmed; whose it was.
    pub fn confirm(&mut self, token: u64) -> Option<ConnectionId> {
        let connection = self.syncs.remove(&token)?;
        let queue = self.queues.get_mut(&connection)?;
        for submission in &mut queue.submissions {
            if let Submission::Sync { confirmed, .. } = submission {
                *confirmed = true;
            }
        }
        Some(connection)
    }

    /// Who waits for the transaction that a connection's request `xid` (0 for its session) became;
    /// `None` when it is not the next that the connection waits for.
    pub fn take_write(&mut self, connection: ConnectionId, xid: i32) -> Option<Waiting> {
        let queue = self.queues.get_mut(&connection)?;
        let submission = queue.submissions.pop_front_if(|submission| match submission {
            Submission::Write(Waiting::ForTxn(origin)) => origin.xid == xid,
            Submission::Write(Waiting::ForSession { .. }) => true,
            _ => false,
        });
        match submission? {
            Submission::Write(waiting) => Some(waiting),
            _ => None,
        }
    }

    /// Takes the next of a connection that needs no transaction anymore.
    pub fn take_turn(&mut self, connection: ConnectionId) -> Option<Turn> {
        let queue = self.queues.get_mut(&connection)?;
        let submission = queue.submissions.pop_front_if(|submission| match submission {
            Submission::Sync { confirmed, .. } => *confirmed,
            Submission::Refused(..) => true,
            Submission::Write(_) | Submission::Held(_) => false,
        });
        match submission? {
            Submission::Sync { origin, record, .. } => {
                queue.syncs = false;
                Some(Turn::Synced(origin, record))
            }
            Submission::Refused(origin, error) => Some(Turn::Refused(origin, error)),
            Submission::Write(_) | Submission::Held(_) => None,
        }
    }

    /// Takes the requests that wait behind a `sync` which is answered by now.
    pub fn take_held(&mut self, connection: ConnectionId) -> Vec<WriteRequest> {
        let Some(queue) = self.queues.get_mut(&connection) else { return Vec::new() };
        let mut held = Vec::new();
        while !queue.syncs && matches!(queue.submissions.front(), Some(Submission::Held(_))) {
            if let Some(Submission::Held(request)) = queue.submissions.pop_front() {
                held.push(request);
            }
        }
        held
    }

    /// Forgets a connection; how many requests it still waited for.
    pub fn remove(&mut self, connection: ConnectionId) -> usize {
        self.queues.remove(&connection).map_or(0, |queue| queue.requests())
    }

    /// Forgets everything; how many requests were waited for.
    pub fn clear(&mut self) -> usize {
        self.syncs.clear();
        self.queues.drain().map(|(_, queue)| queue.requests()).sum()
    }
}

impl ConnectionQueue {
    fn requests(&self) -> usize {
        let is_session = |submission: &&Submission| {
            matches!(submission, Submission::Write(Waiting::ForSession { .. }))
        };
        self.submissions.len() - self.submissions.iter().filter(is_session).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use znodefs::OpCode;

    use super::*;
    use crate::connection::{Connection, RawRequest};

    const CONNECTION: ConnectionId = ConnectionId(1);

    fn origin(xid: i32) -> Origin {
        let peer = "127.0.0.1:1".parse().unwrap();
        let connection = Arc::new(Connection::new(CONNECTION, peer, 0, 0));
        Origin { connection, xid, op_code: 1, received_ms: 0 }
    }

    fn held(xid: i32) -> Submission {
        let body = Bytes::new();
        let request =
            RawRequest { xid, op_code: 1, body, identities: Arc::new([]), received_ms: 0 };
        Submission::Held(WriteRequest { op_code: OpCode::Create, request })
    }

    #[test]
    fn a_sync_is_answered_in_its_turn_and_then_lets_go_what_waits_behind_it() {
        let mut submitted = SubmittedRequests::default();
        submitted.push(CONNECTION, Submission::Write(Waiting::ForTxn(origin(1))));
        let token = submitted.push_sync(CONNECTION, origin(2), Bytes::new());
        assert!(submitted.is_held(CONNECTION));
        submitted.push(CONNECTION, held(3));
        assert_eq!(submitted.confirm(token), Some(CONNECTION));
        assert!(submitted.take_turn(CONNECTION).is_none(), "the write comes first");
        assert!(submitted.take_held(CONNECTION).is_empty());
        assert!(submitted.take_write(CONNECTION, 7).is_none(), "another request's transaction");
        assert!(submitted.take_write(CONNECTION, 1).is_some());
        assert!(matches!(submitted.take_turn(CONNECTION), Some(Turn::Synced(..))));
        assert_eq!(submitted.take_held(CONNECTION).len(), 1);
        assert!(!submitted.is_held(CONNECTION));
    }

    #[test]
    fn what_a_lost_connection_waited_for_is_counted_and_forgotten() {
        let mut submitted = SubmittedRequests::default();
        submitted.push(CONNECTION, Submission::Write(Waiting::ForTxn(origin(1))));
        let token = submitted.push_sync(CONNECTION, origin(2), Bytes::new());
        submitted.push(CONNECTION, held(3));
        assert_eq!(submitted.remove(CONNECTION), 3);
        assert_eq!(submitted.confirm(token), None);
        assert!(submitted.take_write(CONNECTION, 1).is_none());
    }
}
