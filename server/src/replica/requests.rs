//! Requests into transactions: what the core does before the log.

use std::sync::Arc;

use tracing::info;
use znodefs::wire::{Decoder, Request};
use znodefs::{ErrorCode, OpCode, SessionId, Zxid};

use super::outstanding::{Origin, Waiting};
use super::{Effects, Replica, WriteRequest};
use crate::codec;
use crate::connection::Connection;
use crate::request_processor::{EpochUsedUp, PendingRequest, RequestProcessor};
use crate::tree::DataTree;
use crate::txn::Txn;

/// How long a container that never had children is kept, milliseconds; 0 is for ever.
const CONTAINER_NEVER_USED_MS_MAX: i64 = 0;

impl Replica {
    /// A connection's requests, in order.
    pub(super) fn requests(
        &mut self,
        connection: &Arc<Connection>,
        writes: Vec<WriteRequest>,
        effects: &mut Effects,
    ) {
        let session_id = connection.outbox().session_id;
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        for write in writes {
            let origin = Origin::of(connection, &write);
            if write.op_code == OpCode::Sync {
                let waiting = self.sync(&tree, session_id, origin, write);
                self.outstanding.push(self.broadcast.last_proposed(), waiting);
            } else {
                self.write(&tree, session_id, origin, &write, effects);
            }
        }
        drop(tree);
        self.answer_whose_turn_it_is(effects);
    }

    /// A `sync` waits for what was proposed before it; its answer is its own path.
    fn sync(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        origin: Origin,
        write: WriteRequest,
    ) -> Waiting {
        let owner = origin.connection.owner();
        if let Err(error) = self.processor.check_session(tree, session_id, owner) {
            return Waiting::Refused(origin, error);
        }
        match Request::decode(OpCode::Sync, &mut Decoder::new(&write.request.body)) {
            Ok(_) => Waiting::ForSync(origin, write.request.body),
            Err(_) => Waiting::Refused(origin, ErrorCode::MarshallingError),
        }
    }

    fn write(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        origin: Origin,
        write: &WriteRequest,
        effects: &mut Effects,
    ) {
        let request = PendingRequest {
            session_id,
            xid: write.request.xid,
            op_code: write.op_code,
            body: &write.request.body,
            identities: &write.request.identities,
            owner: origin.connection.owner(),
        };
        let wall_ms = self.now.wall_ms;
        let prepared =
            self.prepare(effects, |processor| processor.prepare(tree, &request, wall_ms));
        let Some(txn) = prepared else { return };
        if write.op_code == OpCode::CloseSession {
            self.sessions.set_closing(session_id);
        }
        self.outstanding.push(txn.zxid, Waiting::ForTxn(origin));
        self.propose(txn, effects);
    }

    /// Has the request processor make a transaction; begins a new epoch when the numbers of this one
    /// are used up (ZOOKEEPER-1277), for which a replica alone needs nobody's consent.
    pub(super) fn prepare<T>(
        &mut self,
        effects: &mut Effects,
        make: impl Fn(&mut RequestProcessor) -> Result<T, EpochUsedUp>,
    ) -> Option<T> {
        if let Ok(made) = make(&mut self.processor) {
            return Some(made);
        }
        if self.member.is_some() {
            // The transaction that used the last number up has ended this leadership.
            return None;
        }
        self.epoch.0 += 1;
        info!("all transaction numbers are used: epoch {} begins", self.epoch);
        effects.new_epoch = Some(self.epoch);
        self.processor.set_last_zxid(Zxid::new(self.epoch, 0));
        match make(&mut self.processor) {
            Ok(made) => Some(made),
            Err(error) => {
                effects.fatal = Some(error.to_string());
                None
            }
        }
    }

    /// Hands a transaction to the broadcast and to the log.
    pub(super) fn propose(&mut self, txn: Txn, effects: &mut Effects) {
        let batch = &mut effects.append;
        let start = batch.bytes.len();
        if let Err(reason) = codec::encode_into(&txn, &mut batch.bytes) {
            effects.fatal =
                Some(format!("transaction {} cannot be written to the log: {reason}", txn.zxid));
            return;
        }
        if self.member.is_none() {
            self.snapshots.txns += 1;
            self.snapshots.bytes += (batch.bytes.len() - start) as u64;
        }
        batch.ends.push((txn.zxid, batch.bytes.len()));
        self.broadcast.propose(txn);
    }

    /// Containers without children and znodes whose time to live is over go, each by a transaction
    /// of its own.
    pub(super) fn delete_expired_znodes(&mut self, effects: &mut Effects) {
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        let (wall_ms, never_used) = (self.now.wall_ms, CONTAINER_NEVER_USED_MS_MAX);
        for path in self.processor.expired_nodes(&tree, wall_ms, never_used) {
            let prepared = self.prepare(effects, |processor| {
                processor.prepare_delete_container(&tree, &path, wall_ms, never_used)
            });
            if let Some(Some(txn)) = prepared {
                self.propose(txn, effects);
            }
        }
    }

    /// The newest transaction applied.
    pub(super) fn last_applied(&self) -> Zxid {
        self.database.tree.read().last_applied()
    }
}
