//! Sessions: how they begin, move from connection to connection, and end.

use std::sync::Arc;

use tracing::{debug, info, warn};
use znodefs::SessionId;
use znodefs::wire::{ConnectRequest, ConnectResponse, Encode, put_frame};

use super::outstanding::Waiting;
use super::{Effects, Replica};
use crate::connection::{Connection, Outbox, Phase};
use crate::mutation::{Mutation, mutated};

/// A look at the sessions that comes later than this has missed pings that were sent in time.
const STALL_TICKS: u64 = 1;

impl Replica {
    /// A client's ConnectRequest. What makes it no client of this replica is checked first, then its
    /// password, and only then is the session's former connection closed.
    pub(super) fn connect(
        &mut self,
        connection: Arc<Connection>,
        request: &ConnectRequest,
        effects: &mut Effects,
    ) {
        if !self.may_serve(&connection) {
            debug!("client {} closed: this replica has no leader", connection.peer);
            connection.close();
            return;
        }
        let last_applied = self.last_applied();
        if request.last_zxid_seen > last_applied && !mutated(Mutation::ClientMayGoBack) {
            info!(
                "client {} closed: it has seen {}, this replica is at {last_applied}; another one \
                 may serve it",
                connection.peer, request.last_zxid_seen
            );
            connection.close();
            return;
        }
        let wants_to_write =
            request.read_only != Some(true) && !mutated(Mutation::ReadOnlyServesWriters);
        if self.is_read_only() && wants_to_write {
            debug!("client {} closed: there is no quorum, and it wants to write", connection.peer);
            connection.close();
            return;
        }
        let least = self.config.session_timeout_min.as_millis() as i64;
        let most = self.config.session_timeout_max.as_millis() as i64;
        let timeout_ms = i64::from(request.timeout_ms).clamp(least, most.max(least)) as u64;
        if self.is_read_only() {
            self.connect_read_only(connection, timeout_ms, request, effects);
        } else if request.session_id == SessionId(0) {
            self.open_session(connection, timeout_ms, request.read_only, effects);
        } else {
            self.reattach(connection, timeout_ms, request, effects);
        }
    }

    fn open_session(
        &mut self,
        connection: Arc<Connection>,
        timeout_ms: u64,
        read_only: Option<bool>,
        effects: &mut Effects,
    ) {
        if self.member.is_some() {
            self.open_session_of_member(connection, timeout_ms, read_only, effects);
            return;
        }
        let session_id = loop {
            // One made before a clock that was set back may still be there.
            let session_id = self.session_ids.allocate();
            if !self.sessions.contains(session_id) {
                break session_id;
            }
        };
        let (wall_ms, owner) = (self.now.wall_ms, connection.owner());
        let prepared = self.prepare(effects, |processor| {
            processor.prepare_create_session(session_id, timeout_ms as i32, owner, wall_ms)
        });
        if let Some(txn) = prepared {
            let waiting = Waiting::ForSession { connection, timeout_ms, read_only };
            self.outstanding.push(txn.zxid, waiting);
            self.propose(txn, effects);
        }
    }

    fn reattach(
        &mut self,
        connection: Arc<Connection>,
        timeout_ms: u64,
        request: &ConnectRequest,
        effects: &mut Effects,
    ) {
        let session_id = request.session_id;
        let known = self.password_key.verify(session_id, request.password.as_deref());
        if known && !self.makes_transactions() {
            if mutated(Mutation::ReattachWithoutAsking) {
                let read_only = request.read_only;
                self.establish(&connection, session_id, timeout_ms, read_only, effects);
                return;
            }
            self.ask_to_reattach(connection, timeout_ms, request, effects);
            return;
        }
        let owner = self.owner(&connection);
        let attached = known && {
            let last_heard = connection.last_heard.clone();
            last_heard.set(self.now.monotonic_ms);
            let tree = self.database.tree.read();
            self.processor.set_session_owner(&tree, session_id, owner)
                && self.sessions.attach(session_id, last_heard, timeout_ms)
        };
        if attached {
            debug!("client {} takes up session {session_id}", connection.peer);
            self.establish(&connection, session_id, timeout_ms, request.read_only, effects);
            return;
        }
        if known {
            return self.refuse_when_sure(connection, session_id, request.read_only, effects);
        }
        let reason = "has another password";
        self.refuse_session(connection, session_id, request.read_only, reason, effects);
    }

    /// Tells a client that its session is none.
    pub(super) fn refuse_session(
        &self,
        connection: Arc<Connection>,
        session_id: SessionId,
        read_only: Option<bool>,
        reason: &str,
        effects: &mut Effects,
    ) {
        info!("client {} refused: its session {session_id} {reason}", connection.peer);
        // What the client may be is its own affair: the answer says what this replica is.
        let read_only = read_only.map(|_| self.is_read_only());
        let mut outbox = connection.outbox();
        put_connect_response(&mut outbox, &ConnectResponse::invalid_session(read_only));
        outbox.close();
        drop(outbox);
        effects.wake.push(connection);
    }

    /// Gives a connection its session, and tells the client.
    pub(super) fn establish(
        &mut self,
        connection: &Arc<Connection>,
        session_id: SessionId,
        timeout_ms: u64,
        read_only: Option<bool>,
        effects: &mut Effects,
    ) {
        let former = self.by_session.insert(session_id, Arc::clone(connection));
        if let Some(former) = former.filter(|former| former.id != connection.id) {
            info!("client {} closed: its session {session_id} has moved", former.peer);
            former.close();
        }
        self.by_connection.insert(connection.id, Arc::clone(connection));
        let is_read_only = self.is_read_only();
        let mut outbox = connection.outbox();
        if outbox.phase != Phase::Connecting {
            // The client did not wait; its Disconnected event follows.
            return;
        }
        outbox.phase = Phase::Established;
        outbox.session_id = session_id;
        outbox.timeout_ms = timeout_ms;
        outbox.read_only = is_read_only;
        let password = match is_read_only {
            true => self.password_key.local_password(session_id),
            false => self.password_key.password(session_id),
        };
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: timeout_ms as i32,
            session_id,
            password,
            read_only: read_only.map(|_| is_read_only),
        };
        put_connect_response(&mut outbox, &response);
        if outbox.queue_wake() {
            effects.wake.push(Arc::clone(connection));
        }
    }

    /// A connection is gone; its session lives on until its timeout.
    pub(super) fn disconnected(&mut self, connection: &Arc<Connection>, effects: &mut Effects) {
        self.by_connection.remove(&connection.id);
        let session_id = connection.outbox().session_id;
        self.member_disconnected(connection, session_id, effects);
        if self.by_session.get(&session_id).is_some_and(|current| current.id == connection.id) {
            self.by_session.remove(&session_id);
        }
    }

    /// The sessions that were silent for too long.
    pub(super) fn silent_sessions(&mut self) -> Vec<SessionId> {
        let now_ms = self.now.monotonic_ms;
        let late_ms = now_ms.saturating_sub(self.sessions.next_due_ms().unwrap_or(now_ms));
        if late_ms > STALL_TICKS * self.config.tick.as_millis() as u64 {
            warn!("the replica stood still for {late_ms} ms: sessions get their full timeout");
            self.sessions.restart_all(now_ms);
        }
        let mut expired = Vec::new();
        self.sessions.expire(now_ms, &mut expired);
        expired
    }

    /// Closes, by a transaction each, the sessions that were silent for too long.
    pub(super) fn expire_sessions(&mut self, effects: &mut Effects) {
        let expired = self.silent_sessions();
        if expired.is_empty() {
            return;
        }
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        for session_id in expired {
            info!("session {session_id} expires: its client was silent for its whole timeout");
            let wall_ms = self.now.wall_ms;
            let prepared = self.prepare(effects, |processor| {
                processor.prepare_close_session(&tree, session_id, 0, wall_ms)
            });
            if let Some(txn) = prepared {
                self.propose(txn, effects);
            }
        }
    }

    /// A session has ended: its connection goes, behind what it was still sent.
    pub(super) fn session_closed(&mut self, session_id: SessionId, effects: &mut Effects) {
        self.sessions.remove(session_id);
        if let Some(connection) = self.by_session.remove(&session_id) {
            connection.outbox().close();
            effects.wake.push(connection);
        }
    }
}

fn put_connect_response(outbox: &mut Outbox, response: &ConnectResponse) {
    put_frame(&mut outbox.buffer, |out| response.encode(out));
    outbox.stats.sent += 1;
}
