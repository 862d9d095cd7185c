//! The checks of each change, in ZooKeeper's order, since the order decides which error a client
//! sees (`PrepRequestProcessor.pRequest2Txn`). No I/O.

use std::sync::Arc;

use bytes::Bytes;
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{CreateMode, Request};
use znodefs::{Acl, ErrorCode, OpCode, Permissions, path};

use super::outstanding::NodeState;
use super::{Checked, Context, RequestProcessor};
use crate::tree::{OwnerKind, TTL_MS_MAX, access, ephemeral_length, is_built_in};
use crate::txn::Change;

/// How much the list of a session's ephemeral znodes may take: the transaction that closes the session
/// holds all of it, and has to fit into a record of the log (ZOOKEEPER-3496, -4306).
const EPHEMERALS_LENGTH_MAX: usize = 32 << 20;

/// How long it is silent between two complaints about soft limits, milliseconds.
const QUOTA_WARNING_INTERVAL_MS: i64 = 1000;

/// A path that may lack every other virtue but has a parent.
fn parent_of_any(path: &str) -> Result<&str, ErrorCode> {
    match path.rfind('/') {
        Some(slash) if !path.contains('\0') => Ok(&path[..slash]),
        _ => Err(ErrorCode::BadArguments),
    }
}

fn validate(path: &str) -> Result<(), ErrorCode> {
    path::validate(path).map_err(|_| ErrorCode::BadArguments)
}

/// The version behind `current`, if `expected` is that or -1. -1 is left out, since no client could
/// ever ask for it (ZOOKEEPER-4743).
pub(super) fn next_version(current: i32, expected: i32) -> Result<i32, ErrorCode> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BadVersion);
    }
    match current.wrapping_add(1) {
        -1 => Ok(0),
        next => Ok(next),
    }
}

impl RequestProcessor {
    /// Checks one change and notes what it makes of the tree.
    pub(super) fn change(&mut self, context: &Context<'_>, request: Request<'_>) -> Checked {
        match request {
            Request::Create(create) => self.create(context, create),
            Request::Delete { path, version } => self.delete(context, path, version),
            Request::SetData { path, data, version } => self.set_data(context, path, data, version),
            Request::SetAcl { path, acl, version } => self.set_acl(context, path, &acl, version),
            Request::Check { path, version } => self.check_version(context, path, version),
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    fn check_owner(&mut self, context: &Context<'_>) -> Result<(), ErrorCode> {
        self.sessions.check(context.tree, context.session_id, context.owner)
    }

    pub(super) fn node(&self, context: &Context<'_>, path: &str) -> Result<NodeState, ErrorCode> {
        self.outstanding.node(context.tree, path).ok_or(ErrorCode::NoNode)
    }

    fn fixup_acl(&mut self, context: &Context<'_>, acl: &[Acl]) -> Result<Arc<[Acl]>, ErrorCode> {
        // What is stored in these schemes does not depend on who asks.
        let is_plain = |entry: &Acl| matches!(entry.scheme.as_str(), "world" | "digest" | "ip");
        if *self.last_acl == *acl && acl.iter().all(is_plain) {
            return Ok(self.last_acl.clone());
        }
        let fixed = access::fixup_acl(acl, context.identities)?;
        if acl.iter().any(|entry| entry.scheme == "auth") {
            let left = self.expansion_left.checked_sub(access::encoded_length(&fixed));
            self.expansion_left = left.ok_or(ErrorCode::InvalidAcl)?;
        }
        self.last_acl = fixed.clone();
        Ok(fixed)
    }

    fn create(&mut self, context: &Context<'_>, create: CreateRequest<'_>) -> Checked {
        let mode = CreateMode::from_flags(create.flags).ok_or(ErrorCode::BadArguments)?;
        let kind = self.kind_of_new(context, &create, mode)?;
        self.check_owner(context)?;
        let parent_path = parent_of_any(create.path)?;
        let acl = self.fixup_acl(context, &create.acl)?;
        let mut parent = self.node(context, parent_path)?;
        access::check(&parent.acl, Permissions::CREATE, context.identities)?;

        let mut path = create.path.to_string();
        if mode.is_sequential() {
            // The counter stays where it is once it can go no further; names would repeat.
            if parent.child_counter == i32::MAX {
                return Err(ErrorCode::BadArguments);
            }
            path.push_str(&format!("{:010}", parent.child_counter));
        }
        validate(&path)?;
        if self.outstanding.exists(context.tree, &path) {
            return Err(ErrorCode::NodeExists);
        }
        if parent.kind.is_ephemeral() {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let data_length = create.data.as_ref().map_or(0, Bytes::len) as i32;
        if kind.is_ephemeral() {
            self.check_ephemerals(context, &path)?;
        }
        self.check_quota(context, &path, 1, i64::from(data_length))?;

        parent.child_counter = parent.child_counter.saturating_add(1);
        parent.num_children += 1;
        let parent_child_counter = parent.child_counter;
        self.outstanding.set(context.zxid, parent_path, Some(parent));
        let state = NodeState {
            kind,
            acl: acl.clone(),
            version: 0,
            aversion: 0,
            child_counter: 0,
            num_children: 0,
            data_length,
            mtime: context.time_ms,
        };
        self.outstanding.set(context.zxid, &path, Some(state));
        Ok(Change::Create {
            path,
            data: create.data,
            acl,
            ephemeral_owner: kind.to_stored(),
            parent_child_counter,
            with_stat: create.op_code != OpCode::Create,
        })
    }

    fn kind_of_new(
        &self,
        context: &Context<'_>,
        create: &CreateRequest<'_>,
        mode: CreateMode,
    ) -> Result<OwnerKind, ErrorCode> {
        if mode.has_ttl() && !self.options.extended_types_enabled {
            return Err(ErrorCode::Unimplemented);
        }
        // Only this operation's record has a time to live, and only this one makes containers.
        let is_ttl_operation = create.op_code == OpCode::CreateTtl;
        if mode.has_ttl() != is_ttl_operation
            || (create.op_code == OpCode::CreateContainer && mode != CreateMode::Container)
        {
            return Err(ErrorCode::BadArguments);
        }
        Ok(match mode {
            CreateMode::Container => OwnerKind::Container,
            mode if mode.has_ttl() => {
                if !(1..=TTL_MS_MAX).contains(&create.ttl_ms) {
                    return Err(ErrorCode::BadArguments);
                }
                OwnerKind::Ttl { ttl_ms: create.ttl_ms }
            }
            mode if mode.is_ephemeral() => OwnerKind::Ephemeral(context.session_id),
            _ => OwnerKind::Persistent,
        })
    }

    fn delete(&mut self, context: &Context<'_>, path: &str, version: i32) -> Checked {
        self.check_owner(context)?;
        let parent_path = parent_of_any(path)?;
        if is_built_in(path) {
            return Err(ErrorCode::BadArguments);
        }
        let parent = self.node(context, parent_path)?;
        access::check(&parent.acl, Permissions::DELETE, context.identities)?;
        let node = self.node(context, path)?;
        next_version(node.version, version)?;
        if node.num_children > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.will_delete(context.tree, context.zxid, path);
        Ok(Change::Delete { path: path.to_string() })
    }

    fn set_data(
        &mut self,
        context: &Context<'_>,
        path: &str,
        data: Option<Bytes>,
        version: i32,
    ) -> Checked {
        self.check_owner(context)?;
        validate(path)?;
        let mut node = self.node(context, path)?;
        access::check(&node.acl, Permissions::WRITE, context.identities)?;
        let data_length = data.as_ref().map_or(0, Bytes::len) as i32;
        self.check_quota(context, path, 0, i64::from(data_length) - i64::from(node.data_length))?;
        node.version = next_version(node.version, version)?;
        node.data_length = data_length;
        node.mtime = context.time_ms;
        let version = node.version;
        self.outstanding.set(context.zxid, path, Some(node));
        Ok(Change::SetData { path: path.to_string(), data, version })
    }

    fn set_acl(&mut self, context: &Context<'_>, path: &str, acl: &[Acl], version: i32) -> Checked {
        self.check_owner(context)?;
        validate(path)?;
        let acl = self.fixup_acl(context, acl)?;
        let mut node = self.node(context, path)?;
        access::check(&node.acl, Permissions::ADMIN, context.identities)?;
        node.aversion = next_version(node.aversion, version)?;
        node.acl = acl.clone();
        let aversion = node.aversion;
        self.outstanding.set(context.zxid, path, Some(node));
        Ok(Change::SetAcl { path: path.to_string(), acl, aversion })
    }

    fn check_version(&mut self, context: &Context<'_>, path: &str, version: i32) -> Checked {
        self.check_owner(context)?;
        validate(path)?;
        let node = self.node(context, path)?;
        access::check(&node.acl, Permissions::READ, context.identities)?;
        next_version(node.version, version)?;
        Ok(Change::Check)
    }

    fn check_ephemerals(&self, context: &Context<'_>, path: &str) -> Result<(), ErrorCode> {
        let applied = context.tree.ephemerals_length(context.session_id);
        let prepared = self.outstanding.ephemerals_length();
        let length = applied + prepared + ephemeral_length(path.len());
        if length > EPHEMERALS_LENGTH_MAX { Err(ErrorCode::QuotaExceeded) } else { Ok(()) }
    }

    /// Usage is that of the tree, as it is for ZooKeeper: a quota may be passed by as much as is
    /// being prepared at once.
    fn check_quota(
        &mut self,
        context: &Context<'_>,
        path: &str,
        count: i64,
        bytes: i64,
    ) -> Result<(), ErrorCode> {
        let Some(quota) = context.tree.quota(path) else { return Ok(()) };
        let limits = &quota.limits;
        let checks = [
            ("znodes", count, quota.count, limits.count, limits.count_hard_limit),
            ("bytes", bytes, quota.bytes, limits.bytes, limits.byte_hard_limit),
        ];
        for (what, more, now, soft, hard) in checks {
            let limit = if hard > -1 { hard } else { soft };
            if more == 0 || limit < 0 || now + more <= limit {
                continue;
            }
            if hard > -1 && self.options.enforce_quota {
                return Err(ErrorCode::QuotaExceeded);
            }
            let since_warning = context.time_ms.saturating_sub(self.quota_warned_ms);
            if since_warning >= QUOTA_WARNING_INTERVAL_MS {
                self.quota_warned_ms = context.time_ms;
                let (path, will_be) = (quota.path, now + more);
                tracing::warn!("quota of {path} exceeded: {will_be} {what}, limit {limit}");
            }
        }
        Ok(())
    }
}
