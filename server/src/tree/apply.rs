//! Applying transactions to the tree. No I/O, and no decision whether a change is allowed.
//!
//! Applying is idempotent, which is what fuzzy snapshots need: a transaction may meet a tree that
//! shows its effect, or those of later ones, already. So values are absolute; a change touches no
//! znode that is newer than itself (its path was taken by a later creation, or its data by a later
//! change); a parent's counter and pzxid are only ever raised; and what finds its znode missing
//! still raises the parent's pzxid, on which watches set again after a reconnection depend.

use std::sync::Arc;

use bytes::Bytes;
use znodefs::path;
use znodefs::wire::EventType;
use znodefs::{Acl, ErrorCode, SessionId, Stat, Zxid};

use super::applied::{Applied, TreeEvent};
use super::data_tree::{CONFIG_PATH, DataTree};
use super::node_store::{NewNode, NodeNumber, ROOT};
use crate::mutation::{Mutation, mutated};
use crate::txn::{Change, Txn, TxnBody};

/// What all changes of a transaction have in common, and where their events go.
struct Context<'a, F> {
    zxid: Zxid,
    time_ms: i64,
    events: &'a mut F,
}

impl<F: FnMut(TreeEvent<'_>)> Context<'_, F> {
    fn raise(&mut self, event_type: EventType, path: &str, acl: &Arc<[Acl]>) {
        (self.events)(TreeEvent { event_type, path, acl, zxid: self.zxid });
    }
}

impl DataTree {
    /// Applies a transaction; `events` is told what watches may be waiting for, in ZooKeeper's
    /// order. Replaying ones that were applied before changes nothing, as long as every later one
    /// is replayed too.
    pub fn apply(&mut self, txn: &Txn, events: &mut impl FnMut(TreeEvent<'_>)) -> Applied {
        let mut context = Context { zxid: txn.zxid, time_ms: txn.time_ms, events };
        let applied = match &txn.body {
            TxnBody::Error(code) => {
                Applied::Error(ErrorCode::from_code(*code).unwrap_or(ErrorCode::SystemError))
            }
            TxnBody::MultiError(_) => Applied::MultiError,
            TxnBody::CreateSession { timeout_ms } => {
                self.sessions.insert(txn.session_id, *timeout_ms);
                Applied::Done
            }
            TxnBody::CloseSession { ephemerals } => {
                self.close_session(&mut context, txn.session_id, ephemerals);
                Applied::Done
            }
            TxnBody::Change(change) => match self.change(&mut context, change) {
                Ok(Some(stat)) => Applied::Stat(stat),
                Ok(None) => Applied::Done,
                Err(error) => Applied::Error(error),
            },
            TxnBody::Multi(changes) => {
                let results = changes.iter().map(|change| self.change(&mut context, change));
                Applied::Multi(results.map(|result| result.ok().flatten()).collect())
            }
            TxnBody::Reconfig { data, .. } => {
                match self.set_data(&mut context, CONFIG_PATH, Some(data), -1) {
                    Ok(stat) => Applied::Stat(stat),
                    Err(error) => Applied::Error(error),
                }
            }
        };
        // Last, and once for a whole multi: a snapshot must never carry a zxid that it holds only
        // a part of (ZOOKEEPER-3127).
        self.last_applied = self.last_applied.max(txn.zxid);
        applied
    }

    fn change<F: FnMut(TreeEvent<'_>)>(
        &mut self,
        context: &mut Context<'_, F>,
        change: &Change,
    ) -> Result<Option<Stat>, ErrorCode> {
        match change {
            Change::Create { path, data, acl, ephemeral_owner, parent_child_counter, .. } => {
                let owner = *ephemeral_owner;
                let number = self.create(context, path, data, acl, owner, *parent_child_counter)?;
                Ok(Some(self.node_ref(number).stat()))
            }
            Change::Delete { path } => self.delete(context, path).map(|()| None),
            Change::SetData { path, data, version } => {
                self.set_data(context, path, data.as_ref(), *version).map(Some)
            }
            Change::SetAcl { path, acl, aversion } => {
                let number = self.find(path).ok_or(ErrorCode::NoNode)?;
                if self.store[number].czxid <= context.zxid {
                    self.replace_acl(number, acl, *aversion);
                }
                Ok(Some(self.node_ref(number).stat()))
            }
            Change::Check => Ok(None),
        }
    }

    /// The parent of a path that a change creates or deletes. A parent that is newer than the
    /// change is another znode than the one the change was made for.
    fn parent_for(&self, zxid: Zxid, path: &str) -> Result<NodeNumber, ErrorCode> {
        let parent = path::parent(path).ok_or(ErrorCode::BadArguments)?;
        let parent = self.find(parent).ok_or(ErrorCode::NoNode)?;
        if self.store[parent].czxid > zxid { Err(ErrorCode::NoNode) } else { Ok(parent) }
    }

    fn create<F: FnMut(TreeEvent<'_>)>(
        &mut self,
        context: &mut Context<'_, F>,
        path: &str,
        data: &Option<Bytes>,
        acl: &Arc<[Acl]>,
        ephemeral_owner: i64,
        parent_child_counter: i32,
    ) -> Result<NodeNumber, ErrorCode> {
        let parent = self.parent_for(context.zxid, path)?;
        let rare = self.store.rare_mut(parent);
        rare.child_counter = match mutated(Mutation::ReplayCountsAgain) {
            true => rare.child_counter + 1,
            false => rare.child_counter.max(parent_child_counter),
        };
        rare.pzxid = rare.pzxid.max(context.zxid);

        let name = path::name(path);
        if let Some(existing) = self.index.find_child(&self.store, parent, name) {
            if self.store[existing].czxid >= context.zxid {
                return Err(ErrorCode::NodeExists);
            }
            self.remove(existing, path);
        }
        let path_hash = self.index.hasher.child(self.store[parent].path_hash, name.as_bytes());
        let new = NewNode {
            acl: self.acls.acquire(acl),
            path_hash,
            ephemeral_owner,
            ..NewNode::created(name, data.as_deref(), context.zxid, context.time_ms)
        };
        let number = self.attach(parent, &new);
        self.data_size += (path.len() + self.store.view(number).data_length()) as u64;
        self.quota_created(path, number);

        context.raise(EventType::NodeCreated, path, acl);
        self.raise_children_changed(context, parent, path);
        Ok(number)
    }

    fn raise_children_changed<F: FnMut(TreeEvent<'_>)>(
        &self,
        context: &mut Context<'_, F>,
        parent: NodeNumber,
        child_path: &str,
    ) {
        let parent_path = path::parent(child_path).unwrap_or("/");
        let acl = self.acls.list(self.store[parent].acl);
        context.raise(EventType::NodeChildrenChanged, parent_path, acl);
    }

    fn delete<F: FnMut(TreeEvent<'_>)>(
        &mut self,
        context: &mut Context<'_, F>,
        path: &str,
    ) -> Result<(), ErrorCode> {
        let parent = self.parent_for(context.zxid, path)?;
        let rare = self.store.rare_mut(parent);
        rare.pzxid = rare.pzxid.max(context.zxid);

        let found = self.index.find_child(&self.store, parent, path::name(path));
        let number = found.ok_or(ErrorCode::NoNode)?;
        if self.store[number].czxid > context.zxid {
            return Err(ErrorCode::NoNode);
        }
        let acl = self.acls.list(self.store[number].acl).clone();
        self.remove(number, path);
        context.raise(EventType::NodeDeleted, path, &acl);
        self.raise_children_changed(context, parent, path);
        Ok(())
    }

    /// Takes a znode out, with all that is below it. Below it can only be what a fuzzy snapshot
    /// brought too early; its creation is still to be replayed.
    fn remove(&mut self, number: NodeNumber, path: &str) {
        debug_assert_ne!(number, ROOT);
        let mut below = Vec::new();
        if self.store.view(number).num_children() > 0 {
            self.walk(number, |other| {
                below.push(other);
                true
            });
        }
        // Children stand behind their parents.
        for &other in below.iter().skip(1).rev() {
            let other_path = self.path_of(other);
            self.remove_leaf(other, &other_path);
        }
        self.remove_leaf(number, path);
    }

    fn remove_leaf(&mut self, number: NodeNumber, path: &str) {
        self.unindex_owner(number);
        self.index.remove(&self.store, number);
        self.store.unlink(number);
        let (acl, data_length) = (self.store[number].acl, self.store.view(number).data_length());
        self.store.remove(number);
        self.acls.release(acl);
        self.data_size -= (path.len() + data_length) as u64;
        self.quota_deleted(path, data_length);
    }

    fn set_data<F: FnMut(TreeEvent<'_>)>(
        &mut self,
        context: &mut Context<'_, F>,
        path: &str,
        data: Option<&Bytes>,
        version: i32,
    ) -> Result<Stat, ErrorCode> {
        let number = self.find(path).ok_or(ErrorCode::NoNode)?;
        if self.store[number].mzxid > context.zxid {
            return Ok(self.node_ref(number).stat());
        }
        let old_length = self.store.view(number).data_length();
        self.store.set_data(number, data.map(|data| &data[..]));
        let node = &mut self.store[number];
        node.mzxid = context.zxid;
        node.mtime = context.time_ms;
        node.version = version;
        let new_length = self.store.view(number).data_length();
        self.data_size = self.data_size - old_length as u64 + new_length as u64;
        self.quota_data_set(path, old_length, new_length);

        let stat = self.node_ref(number).stat();
        let acl = self.acls.list(self.store[number].acl);
        context.raise(EventType::NodeDataChanged, path, acl);
        Ok(stat)
    }

    fn close_session<F: FnMut(TreeEvent<'_>)>(
        &mut self,
        context: &mut Context<'_, F>,
        session_id: SessionId,
        ephemerals: &[String],
    ) {
        self.sessions.remove(&session_id);
        for path in ephemerals {
            // A missing znode is one that a fuzzy snapshot saw deleted; the parent is raised.
            let _ = self.delete(context, path);
        }
        // The list is complete wherever it was made by a request processor; this keeps the
        // guarantee that no ephemeral outlives its session even if it was not.
        if mutated(Mutation::CloseSessionMissesEphemerals) {
            return;
        }
        let left: Vec<String> = self.ephemerals(session_id).collect();
        for path in left {
            let _ = self.delete(context, &path);
        }
    }
}
