//! Whose requests are taken: sessions as they will be once everything prepared so far is applied,
//! and the replica that each is attached through (`SessionTracker`). No I/O, and no expiry: the
//! runtime decides when a session has been silent for too long.

use std::collections::VecDeque;

use hashbrown::HashMap;
use znodefs::{ErrorCode, SessionId, Zxid};

use crate::mutation::{Mutation, mutated};
use crate::tree::DataTree;

/// Through whom a session is attached; the runtime gives out the numbers. A session that another
/// replica, or a later connection between replicas, has taken over has another owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionOwner(pub u64);

#[derive(Debug, Default)]
struct OpenSession {
    owner: Option<SessionOwner>,
    closing: bool,
}

/// The sessions that were heard of since this replica came to lead.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<SessionId, OpenSession>,
    /// Sessions whose end is prepared and not applied yet.
    closing: VecDeque<(Zxid, SessionId)>,
}

impl Sessions {
    /// Whether a request of the session through `owner` is taken: [`ErrorCode::SessionExpired`] when
    /// it is not open, [`ErrorCode::SessionMoved`] when it is attached through another. The first
    /// to ask after a change of leader is the owner.
    pub fn check(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        owner: SessionOwner,
    ) -> Result<(), ErrorCode> {
        let session = self.known(tree, session_id).ok_or(ErrorCode::SessionExpired)?;
        if session.closing && !mutated(Mutation::ClosingSessionStillWrites) {
            return Err(ErrorCode::SessionExpired);
        }
        let owned = *session.owner.get_or_insert(owner) == owner;
        if !owned && !mutated(Mutation::SessionMovedNotChecked) {
            return Err(ErrorCode::SessionMoved);
        }
        Ok(())
    }

    fn known(&mut self, tree: &DataTree, session_id: SessionId) -> Option<&mut OpenSession> {
        if !self.open.contains_key(&session_id) {
            tree.session_timeout_ms(session_id)?;
        }
        Some(self.open.entry(session_id).or_default())
    }

    /// A session is attached through another owner from now on; false when it is not open.
    pub fn set_owner(
        &mut self,
        tree: &DataTree,
        session_id: SessionId,
        owner: SessionOwner,
    ) -> bool {
        match self.known(tree, session_id) {
            Some(session) if !session.closing => {
                session.owner = Some(owner);
                true
            }
            _ => false,
        }
    }

    pub fn create(&mut self, session_id: SessionId, owner: SessionOwner) {
        self.open.insert(session_id, OpenSession { owner: Some(owner), closing: false });
    }

    pub fn close(&mut self, zxid: Zxid, session_id: SessionId) {
        self.open.entry(session_id).or_default().closing = true;
        self.closing.push_back((zxid, session_id));
    }

    /// Forgets sessions that the tree shows to be gone.
    pub fn applied(&mut self, zxid: Zxid) {
        while let Some(&(closed, session_id)) = self.closing.front() {
            if closed > zxid {
                return;
            }
            self.closing.pop_front();
            self.open.remove(&session_id);
        }
    }

    pub fn clear(&mut self) {
        self.open.clear();
        self.closing.clear();
    }
}
