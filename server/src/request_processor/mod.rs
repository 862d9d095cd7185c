//! From request to transaction (`PrepRequestProcessor`): every check that can fail a write is made
//! here, on the leader, against the tree plus everything prepared and not yet applied. No I/O, no
//! clock: the time comes with the call.
//!
//! Every request uses up a zxid, a failed one too: its transaction then says only that it failed, so
//! that replies keep their order and every replica sees the same sequence.

mod change;
mod expiry;
mod outstanding;
mod reconfig;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use znodefs::wire::{Decoder, Request};
use znodefs::{Acl, ErrorCode, OpCode, SessionId, Zxid};

use crate::mutation::{Mutation, mutated};
use crate::tree::{DataTree, OwnerKind};
use crate::txn::{Change, Identity, Txn, TxnBody, TxnOrigin};
use outstanding::OutstandingChanges;
pub use reconfig::EnsembleView;
use reconfig::Reconfiguration;
pub use sessions::SessionOwner;
use sessions::Sessions;

/// Bytes that all `auth` entries of one request may be expanded to: as much as a client can send
/// itself.
const EXPANSION_LENGTH_MAX: usize = 1 << 20;

/// A request on its way to become a transaction.
#[derive(Clone, Debug)]
pub struct PendingRequest<'a> {
    /// The session it belongs to.
    pub session_id: SessionId,
    /// The client's number for it.
    pub xid: i32,
    /// What it asks for.
    pub op_code: OpCode,
    /// Its record, behind the header. `createSession` has the timeout in milliseconds, an int.
    pub body: &'a Bytes,
    /// What the connection has proved, its address included.
    pub identities: &'a [Identity],
    /// Through whom it came.
    pub owner: SessionOwner,
}

/// What an administrator may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestProcessorOptions {
    /// Whether znodes may have a time to live (`extendedTypesEnabled`).
    pub extended_types_enabled: bool,
    /// Whether hard limits of quotas are enforced (`enforceQuota`).
    pub enforce_quota: bool,
    /// Whether the ensemble may be changed by clients (`reconfigEnabled`).
    pub reconfig_enabled: bool,
}

/// The epoch's last zxid is used: the leader has to step down, so that a new epoch begins
/// (ZOOKEEPER-1277).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all transaction numbers of epoch {} are used: a new epoch has to begin", .0.epoch())]
pub struct EpochUsedUp(pub Zxid);

/// Makes transactions of requests, one after the other.
#[derive(Debug)]
pub struct RequestProcessor {
    options: RequestProcessorOptions,
    last_zxid: Zxid,
    outstanding: OutstandingChanges,
    sessions: Sessions,
    /// The ensemble; `None` for a replica alone.
    ensemble: Option<EnsembleView>,
    /// A change of the ensemble that is prepared and not applied.
    reconfiguring: Option<Zxid>,
    /// The list that the last request gave its znode: most requests in a row use the same.
    last_acl: Arc<[Acl]>,
    /// Bytes that `auth` entries of the request at hand may still be expanded to.
    expansion_left: usize,
    /// When a soft limit was last complained about.
    quota_warned_ms: i64,
}

/// What all checks of a request look at.
#[derive(Clone, Copy)]
struct Context<'a> {
    tree: &'a DataTree,
    zxid: Zxid,
    time_ms: i64,
    session_id: SessionId,
    identities: &'a [Identity],
    owner: SessionOwner,
}

impl RequestProcessor {
    /// Prepares nothing until [`RequestProcessor::set_last_zxid`]. `hash_seed` keeps clients from
    /// choosing paths that collide.
    pub fn new(options: RequestProcessorOptions, hash_seed: u64) -> RequestProcessor {
        RequestProcessor {
            options,
            last_zxid: Zxid::ZERO,
            outstanding: OutstandingChanges::new(hash_seed),
            sessions: Sessions::default(),
            ensemble: None,
            reconfiguring: None,
            last_acl: Acl::open().into(),
            expansion_left: 0,
            quota_warned_ms: i64::MIN,
        }
    }

    /// The zxid that the last prepared transaction got.
    pub fn last_zxid(&self) -> Zxid {
        self.last_zxid
    }

    /// The next transaction gets the zxid behind this one: the last one in the log, or counter 0 of
    /// a new epoch.
    pub fn set_last_zxid(&mut self, zxid: Zxid) {
        self.last_zxid = zxid;
    }

    /// Forgets everything prepared and every session's owner, as when leadership is lost: the tree
    /// is all that holds.
    pub fn reset(&mut self) {
        self.outstanding.clear();
        self.sessions.clear();
        self.reconfiguring = None;
    }

    /// Tells that the tree has everything up to `zxid`. To be called after the transaction was
    /// applied to the tree, never before.
    pub fn applied(&mut self, zxid: Zxid) {
        self.outstanding.applied(zxid);
        self.sessions.applied(zxid);
        self.reconfiguring.take_if(|prepared| *prepared <= zxid);
    }

    /// Whether a request that needs no transaction is taken from a session through `owner`.
    pub fn check_session(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        owner: SessionOwner,
    ) -> Result<(), ErrorCode> {
        self.sessions.check(tree, session_id, owner)
    }

    /// A session is attached through `owner` from now on (`REVALIDATE`); false when it is not open.
    pub fn set_session_owner(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        owner: SessionOwner,
    ) -> bool {
        self.sessions.set_owner(tree, session_id, owner)
    }

    /// Makes the transaction of a request. A request that fails, be it that its record could not be
    /// decoded, becomes a [`TxnBody::Error`] or [`TxnBody::MultiError`]; the connection of one that
    /// fails with [`ErrorCode::SessionMoved`] is to be closed without a reply.
    ///
    /// `tree` may be behind what was prepared, by what [`RequestProcessor::applied`] has not told.
    pub fn prepare(
        &mut self,
        tree: &DataTree,
        request: &PendingRequest<'_>,
        time_ms: i64,
    ) -> Result<Txn, EpochUsedUp> {
        let zxid = self.next_zxid()?;
        let context = Context {
            tree,
            zxid,
            time_ms,
            session_id: request.session_id,
            identities: request.identities,
            owner: request.owner,
        };
        let body = self.body(&context, request);
        Ok(Txn {
            zxid,
            session_id: request.session_id,
            xid: request.xid,
            origin: TxnOrigin::default(),
            time_ms,
            body: body.unwrap_or_else(|error| TxnBody::Error(error.code())),
        })
    }

    /// The transaction that ends a session, asked for by its client or because it was silent for
    /// too long. Whatever the session asks for from now on fails.
    pub fn prepare_close_session(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        xid: i32,
        time_ms: i64,
    ) -> Result<Txn, EpochUsedUp> {
        let zxid = self.next_zxid()?;
        let body = self.close_session(tree, zxid, session_id);
        let origin = TxnOrigin::default();
        Ok(Txn { zxid, session_id, xid, origin, time_ms, body })
    }

    /// The transaction that opens a session.
    pub fn prepare_create_session(
        &mut self,
        session_id: SessionId,
        timeout_ms: i32,
        owner: SessionOwner,
        time_ms: i64,
    ) -> Result<Txn, EpochUsedUp> {
        let zxid = self.next_zxid()?;
        self.sessions.create(session_id, owner);
        let body = TxnBody::CreateSession { timeout_ms };
        let origin = TxnOrigin::default();
        Ok(Txn { zxid, session_id, xid: 0, origin, time_ms, body })
    }

    fn next_zxid(&mut self) -> Result<Zxid, EpochUsedUp> {
        self.last_zxid = self.last_zxid.next().ok_or(EpochUsedUp(self.last_zxid))?;
        Ok(self.last_zxid)
    }

    fn body(
        &mut self,
        context: &Context<'_>,
        request: &PendingRequest<'_>,
    ) -> Result<TxnBody, ErrorCode> {
        let mut decoder = Decoder::new(request.body);
        match request.op_code {
            OpCode::CreateSession => {
                let timeout_ms = decoder.read_int().map_err(|_| ErrorCode::MarshallingError)?;
                self.sessions.create(request.session_id, request.owner);
                return Ok(TxnBody::CreateSession { timeout_ms });
            }
            OpCode::CloseSession => {
                return Ok(self.close_session(context.tree, context.zxid, request.session_id));
            }
            // Alone it would be a read; it is only served inside a multi (ZOOKEEPER-2623). Containers
            // are deleted by the service alone.
            OpCode::Check | OpCode::DeleteContainer => return Err(ErrorCode::Unimplemented),
            _ => {}
        }
        self.expansion_left = EXPANSION_LENGTH_MAX;
        let decoded = Request::decode(request.op_code, &mut decoder);
        match decoded.map_err(|_| ErrorCode::MarshallingError)? {
            Request::Multi(operations) => self.multi(context, operations),
            Request::Reconfig { joining, leaving, new_members, current_config_id } => {
                let request = Reconfiguration { joining, leaving, new_members, current_config_id };
                self.reconfig(context, request)
            }
            other => self.change(context, other).map(TxnBody::Change),
        }
    }

    /// All or nothing: each operation is checked against what the ones before it make of the tree.
    fn multi(
        &mut self,
        context: &Context<'_>,
        operations: Vec<Request<'_>>,
    ) -> Result<TxnBody, ErrorCode> {
        let count = operations.len();
        let mut changes = Vec::with_capacity(count);
        self.outstanding.begin();
        for operation in operations {
            match self.change(context, operation) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    match mutated(Mutation::AbortedMultiCounts) {
                        true => self.outstanding.commit(),
                        false => self.outstanding.roll_back(),
                    }
                    if error == ErrorCode::SessionMoved {
                        return Err(error);
                    }
                    let mut codes = vec![ErrorCode::RuntimeInconsistency.code(); count];
                    codes[..changes.len()].fill(0);
                    codes[changes.len()] = error.code();
                    return Ok(TxnBody::MultiError(codes));
                }
            }
        }
        self.outstanding.commit();
        Ok(TxnBody::Multi(changes))
    }

    fn close_session(&mut self, tree: &DataTree, zxid: Zxid, session_id: SessionId) -> TxnBody {
        let kind = OwnerKind::Ephemeral(session_id);
        let will_be_there = |path: &String| {
            self.outstanding.node(tree, path).is_some_and(|state| state.kind == kind)
        };
        let mut ephemerals: Vec<String> =
            tree.ephemerals(session_id).filter(will_be_there).collect();
        let mut pending = self.outstanding.pending_ephemerals(kind);
        if mutated(Mutation::CloseSessionMissesEphemerals) {
            pending.clear();
        }
        pending.retain(|path| tree.node(path).is_none_or(|node| node.kind() != kind));
        ephemerals.append(&mut pending);
        ephemerals.sort();
        for path in &ephemerals {
            self.will_delete(tree, zxid, path);
        }
        self.sessions.close(zxid, session_id);
        TxnBody::CloseSession { ephemerals }
    }

    /// Notes that a znode is going to be deleted.
    fn will_delete(&mut self, tree: &DataTree, zxid: Zxid, path: &str) {
        let parent_path = znodefs::path::parent(path).unwrap_or("/");
        if let Some(mut parent) = self.outstanding.node(tree, parent_path) {
            parent.num_children -= 1;
            self.outstanding.set(zxid, parent_path, Some(parent));
        }
        self.outstanding.set(zxid, path, None);
    }
}

/// A change together with nothing else; the shape of every checker.
type Checked = Result<Change, ErrorCode>;
