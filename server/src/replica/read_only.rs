//! Service without a quorum (`readonlymode.enabled`): reads of what this member has applied, in
//! sessions that only it knows. Whether it is time for that, the driver says (`ensemble`).
//!
//! Writes are refused by the connection's own task (`local_request`).

use std::sync::Arc;

use tracing::{debug, info};
use znodefs::SessionId;
use znodefs::wire::ConnectRequest;

use super::member::Role;
use super::{Effects, Replica, WriteRequest};
use crate::connection::Connection;
use crate::mutation::{Mutation, mutated};
use crate::session_tracker::SessionTracker;

impl Replica {
    /// Read-only service begins. It ends with [`stop_serving`](Self::stop_serving).
    pub fn start_serving_read_only(&mut self) {
        let Some(member) = &mut self.member else { return };
        member.role = Role::ReadOnly;
        self.sessions = SessionTracker::new(self.config.tick.as_millis() as u64);
    }

    /// A client that is content with reads. One with a session of the ensemble is refused without an
    /// answer: the session may well be alive, but nobody here can say so.
    pub(super) fn connect_read_only(
        &mut self,
        connection: Arc<Connection>,
        timeout_ms: u64,
        request: &ConnectRequest,
        effects: &mut Effects,
    ) {
        let (asked, password) = (request.session_id, request.password.as_deref());
        let read_only = request.read_only;
        let session_id = if asked == SessionId(0) {
            let session_id = self.local_session_id();
            self.sessions.add(session_id, timeout_ms, self.now.monotonic_ms);
            session_id
        } else if self.password_key.verify(asked, password)
            && mutated(Mutation::ReadOnlyTakesSessionsUp)
        {
            self.sessions.add(asked, timeout_ms, self.now.monotonic_ms);
            asked
        } else if self.password_key.verify(asked, password) {
            info!(
                "client {} closed: there is no quorum to ask for its session {asked}",
                connection.peer
            );
            connection.close();
            return;
        } else if self.password_key.verify_local(asked, password) {
            asked
        } else {
            self.refuse_session(connection, asked, read_only, "has another password", effects);
            return;
        };
        connection.last_heard.set(self.now.monotonic_ms);
        let last_heard = connection.last_heard.clone();
        if !self.sessions.attach(session_id, last_heard, timeout_ms) {
            let reason = "was another replica's, or has expired";
            self.refuse_session(connection, session_id, read_only, reason, effects);
            return;
        }
        debug!("client {} reads in session {session_id}", connection.peer);
        self.establish(&connection, session_id, timeout_ms, read_only, effects);
    }

    fn local_session_id(&mut self) -> SessionId {
        let tree = self.database.tree.read();
        loop {
            // One made before a clock that was set back may still be there.
            let session_id = self.session_ids.allocate();
            if tree.session_timeout_ms(session_id).is_none() && !self.sessions.contains(session_id)
            {
                return session_id;
            }
        }
    }

    /// What of a reading client's requests comes to the core: the end of its session.
    pub(super) fn read_only_requests(
        &mut self,
        connection: &Arc<Connection>,
        requests: &[WriteRequest],
        effects: &mut Effects,
    ) {
        self.metrics.add_outstanding(-(requests.len() as i64));
        if !self.by_connection.contains_key(&connection.id) {
            // It is closed: it was served while there was a quorum.
            return;
        }
        let session_id = connection.outbox().session_id;
        let zxid = self.last_applied();
        for request in requests {
            let mut outbox = connection.outbox();
            outbox.pop_core();
            outbox.put_reply(request.request.xid, zxid, |_| Ok(()));
        }
        self.session_closed(session_id, effects);
    }

    /// Forgets the sessions of readers that were silent for too long.
    pub(super) fn expire_local_sessions(&mut self, effects: &mut Effects) {
        for session_id in self.silent_sessions() {
            info!("session {session_id} expires: its client was silent for its whole timeout");
            self.session_closed(session_id, effects);
        }
    }
}
