//! What happens once transactions are durable: they are applied, watchers hear of them, whoever asked
//! is answered, and what that client asked next is answered too.

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::RwLockWriteGuard;
use tracing::{info, warn};
use znodefs::wire::watch::put_watcher_event;
use znodefs::wire::{Encode, KeeperState, ReplyHeader, put_frame, xid};
use znodefs::{ErrorCode, OpCode, Permissions, Zxid};

use super::outstanding::{Origin, Waiting};
use super::{Effects, Replica};
use crate::connection::{Connection, ConnectionId, Phase};
use crate::local_request::{self, Pace};
use crate::mutation::{Mutation, mutated};
use crate::tree::{Applied, DataTree, TreeEvent, WatchManager, access, put_reply};
use crate::txn::{Txn, TxnBody};

/// Transactions applied under one hold of the tree's lock: readers come in between.
const APPLIED_AT_ONCE_MAX: usize = 64;

/// The database, locked so that nothing is applied meanwhile.
struct View<'a> {
    tree: &'a DataTree,
    watches: &'a mut WatchManager,
}

impl Replica {
    /// Everything up to `zxid` is durable.
    pub(super) fn deliver(&mut self, zxid: Zxid, effects: &mut Effects) {
        let mut delivered = std::mem::take(&mut self.delivered);
        self.broadcast.txns_durable(zxid, &mut delivered);
        if !delivered.is_empty() && self.log_is_full {
            self.log_is_full = false;
            info!("writes are taken again");
        }
        self.apply_delivered(delivered, effects);
        self.answer_whose_turn_it_is(effects);
    }

    /// Applies transactions whose time has come, and answers who waits for them.
    pub(super) fn apply_delivered(&mut self, mut delivered: Vec<Txn>, effects: &mut Effects) {
        let database = Arc::clone(&self.database);
        for batch in delivered.chunks(APPLIED_AT_ONCE_MAX) {
            let mut tree = database.tree.write();
            let mut watches = database.watches.lock();
            for txn in batch {
                self.apply(&mut tree, &mut watches, txn, effects);
            }
            drop(watches);
            RwLockWriteGuard::unlock_fair(tree);
        }
        if let Some(last) = delivered.last() {
            self.processor.applied(last.zxid);
        }
        delivered.clear();
        self.delivered = delivered;
    }

    fn apply(
        &mut self,
        tree: &mut DataTree,
        watches: &mut WatchManager,
        txn: &Txn,
        effects: &mut Effects,
    ) {
        let view = &mut View { tree, watches };
        while let Some(waiting) = self.outstanding.pop_before(txn.zxid) {
            self.answer_waiting(view, waiting, effects);
        }
        let waiting = match self.member {
            None => self.outstanding.pop_txn(txn.zxid),
            Some(_) => self.take_submitted(txn),
        };
        if let Some(Waiting::ForTxn(origin)) = &waiting {
            self.answer_reads_before(view, &origin.connection);
        }
        let mut late = Vec::new();
        let applied = self.apply_and_notify(tree, watches, txn, &mut late, effects);
        let view = &mut View { tree, watches };
        match waiting {
            // It came through a connection that no longer has the session (ZOOKEEPER-710).
            Some(Waiting::ForTxn(origin)) if applied == Applied::Error(ErrorCode::SessionMoved) => {
                self.close_moved(&origin);
            }
            Some(Waiting::ForTxn(origin)) => {
                self.answer(view, &origin, txn.zxid, effects, |out| put_reply(txn, &applied, out));
            }
            Some(Waiting::ForSession { connection, timeout_ms, read_only }) => {
                connection.last_heard.set(self.now.monotonic_ms);
                if self.makes_transactions() {
                    self.sessions.add(txn.session_id, timeout_ms, self.now.monotonic_ms);
                    let last_heard = connection.last_heard.clone();
                    self.sessions.attach(txn.session_id, last_heard, timeout_ms);
                }
                self.establish(&connection, txn.session_id, timeout_ms, read_only, effects);
            }
            _ => {}
        }
        for (connection, frame) in late {
            connection.outbox().put_frame_bytes(&frame);
        }
        match &txn.body {
            TxnBody::CreateSession { timeout_ms } if self.makes_transactions() => {
                let timeout_ms = (*timeout_ms).max(0) as u64;
                self.sessions.add(txn.session_id, timeout_ms, self.now.monotonic_ms);
            }
            TxnBody::CloseSession { .. } => self.session_closed(txn.session_id, effects),
            _ => {}
        }
        if txn.origin.server == self.config.server_id.0 {
            let connection = ConnectionId(txn.origin.connection);
            while let Some(waiting) = self.take_turn(connection) {
                self.answer_waiting(&mut View { tree, watches }, waiting, effects);
            }
        }
    }

    /// Who waits for a transaction, among the clients of this member.
    fn take_submitted(&mut self, txn: &Txn) -> Option<Waiting> {
        if txn.origin.server != self.config.server_id.0 {
            return None;
        }
        let connection = ConnectionId(txn.origin.connection);
        self.member.as_mut()?.submitted.take_write(connection, txn.xid)
    }

    /// Answers those of a connection's requests whose turn has come.
    pub(super) fn answer_turns(&mut self, connection: ConnectionId, effects: &mut Effects) {
        let Some(first) = self.take_turn(connection) else { return };
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        let mut watches = database.watches.lock();
        let view = &mut View { tree: &tree, watches: &mut watches };
        self.answer_waiting(view, first, effects);
        while let Some(waiting) = self.take_turn(connection) {
            self.answer_waiting(view, waiting, effects);
        }
    }

    /// Applies a transaction and puts its events into the outboxes of those who watch and may read.
    fn apply_and_notify(
        &mut self,
        tree: &mut DataTree,
        watches: &mut WatchManager,
        txn: &Txn,
        late: &mut Vec<(Arc<Connection>, BytesMut)>,
        effects: &mut Effects,
    ) -> Applied {
        let mut frame = BytesMut::new();
        let by_connection = &self.by_connection;
        tree.apply(txn, &mut |event: TreeEvent<'_>| {
            frame.clear();
            watches.trigger(event.event_type, event.path, &mut |watcher| {
                let Some(connection) = by_connection.get(&ConnectionId(watcher.0)) else { return };
                if frame.is_empty() {
                    put_notification(&mut frame, &event);
                }
                if mutated(Mutation::WatchAfterReply) {
                    late.push((Arc::clone(connection), frame.clone()));
                    return;
                }
                let mut outbox = connection.outbox();
                if access::is_allowed(event.acl, Permissions::READ, &outbox.identities) {
                    outbox.put_frame_bytes(&frame);
                    if outbox.queue_wake() {
                        effects.wake.push(Arc::clone(connection));
                    }
                }
            });
        })
    }

    /// Reads that came before a write but had to wait for room must not see the write.
    fn answer_reads_before(&mut self, view: &mut View<'_>, connection: &Connection) {
        let mut outbox = connection.outbox();
        if outbox.front_is_local() {
            let (tree, watches) = (view.tree, &mut *view.watches);
            let now_ms = self.now.monotonic_ms;
            local_request::answer_queued(tree, watches, connection, &mut outbox, Pace::All, now_ms);
        }
    }

    /// Answers a request of the core's, and the requests queued behind it up to the next that the core
    /// has.
    fn answer(
        &mut self,
        view: &mut View<'_>,
        origin: &Origin,
        zxid: Zxid,
        effects: &mut Effects,
        write: impl FnOnce(&mut BytesMut) -> Result<(), ErrorCode>,
    ) {
        let now_ms = self.now.monotonic_ms;
        let latency_ms = now_ms.saturating_sub(origin.received_ms);
        self.metrics.add_outstanding(-1);
        self.metrics.add_latency(latency_ms, 1);
        let connection = &origin.connection;
        let mut outbox = connection.outbox();
        if outbox.phase != Phase::Established {
            return;
        }
        outbox.pop_core();
        outbox.put_reply(origin.xid, zxid, write);
        outbox.note_answered(origin.xid, origin.op_code, zxid, latency_ms, now_ms);
        if origin.op_code == OpCode::CloseSession as i32 {
            outbox.close();
        }
        if outbox.front_is_local() {
            let (tree, watches) = (view.tree, &mut *view.watches);
            let pace = Pace::WhileThereIsRoom;
            let count =
                local_request::answer_queued(tree, watches, connection, &mut outbox, pace, now_ms);
            self.metrics.add_latency(latency_ms, count);
        }
        if outbox.queue_wake() {
            effects.wake.push(Arc::clone(connection));
        }
    }

    fn close_moved(&mut self, origin: &Origin) {
        self.metrics.add_outstanding(-1);
        let connection = &origin.connection;
        let session_id = connection.outbox().session_id;
        warn!("client {} closed: its session {session_id} has moved", connection.peer);
        connection.close();
    }

    /// Answers those who waited for nothing but their turn.
    pub(super) fn answer_whose_turn_it_is(&mut self, effects: &mut Effects) {
        let last_applied = self.last_applied();
        let Some(first) = self.outstanding.pop_upto(last_applied) else { return };
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        let mut watches = database.watches.lock();
        let view = &mut View { tree: &tree, watches: &mut watches };
        self.answer_waiting(view, first, effects);
        while let Some(waiting) = self.outstanding.pop_upto(last_applied) {
            self.answer_waiting(view, waiting, effects);
        }
    }

    fn answer_waiting(&mut self, view: &mut View<'_>, waiting: Waiting, effects: &mut Effects) {
        let zxid = view.tree.last_applied();
        match waiting {
            Waiting::ForSync(origin, record) => self.answer(view, &origin, zxid, effects, |out| {
                out.extend_from_slice(&record);
                Ok(())
            }),
            Waiting::Refused(origin, ErrorCode::SessionMoved) => self.close_moved(&origin),
            Waiting::Refused(origin, error) => {
                self.answer(view, &origin, zxid, effects, |_| Err(error));
            }
            Waiting::ForTxn(origin) => {
                self.answer(view, &origin, zxid, effects, |_| Err(ErrorCode::SystemError));
            }
            // Without its session's transaction there is nothing to answer; it may try elsewhere.
            Waiting::ForSession { connection, .. } => connection.close(),
        }
    }

    /// Refuses everybody who waits: what they asked for could not be logged.
    pub(super) fn refuse_all(&mut self, effects: &mut Effects) {
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        let mut watches = database.watches.lock();
        let view = &mut View { tree: &tree, watches: &mut watches };
        while let Some(waiting) = self.outstanding.pop() {
            self.answer_waiting(view, waiting, effects);
        }
        // The request processor has forgotten what it prepared, ends of sessions included.
        self.sessions.reopen_all(self.now.monotonic_ms);
        for (session_id, connection) in &self.by_session {
            self.processor.set_session_owner(&tree, *session_id, connection.owner());
        }
    }
}

fn put_notification(frame: &mut BytesMut, event: &TreeEvent<'_>) {
    put_frame(frame, |out| {
        ReplyHeader { xid: xid::NOTIFICATION, zxid: event.zxid, error: 0 }.encode(out);
        put_watcher_event(out, event.event_type, KeeperState::SYNC_CONNECTED, event.path);
    });
}
