//! What must hold of whole replicas after every step, whatever fails: one file a group of
//! properties. They watch what members append, deliver and acknowledge, keep a tree of their own
//! that is never restored or replayed, and judge by it all that replicas and clients see.

pub mod membership;
pub mod order;
pub mod read_only;
pub mod recovered;
pub mod requests;
pub mod sessions;
pub mod states;
pub mod watches;

use znodefs::{Epoch, Zxid};
use znodefs_server::config::ensemble::Member;

use crate::invariants::Check;
use membership::Membership;
use order::Order;
use read_only::ReadOnly;
use requests::Requests;
use sessions::Sessions;
use states::States;

/// All that the checks keep.
pub struct Invariants {
    /// Histories, their one order, and the state at each point of it.
    pub order: Order,
    /// What became of clients' requests.
    pub requests: Requests,
    /// The lives of sessions.
    pub sessions: Sessions,
    /// Every znode's history.
    pub states: States,
    /// What members showed without a quorum.
    pub read_only: ReadOnly,
    /// Who belonged to the ensemble when.
    pub membership: Membership,
}

impl Invariants {
    /// Before anything has happened.
    pub fn new(founders: Vec<Member>) -> Invariants {
        Invariants {
            order: Order::new(),
            requests: Requests::new(),
            sessions: Sessions::new(),
            states: States::new(),
            read_only: ReadOnly::new(),
            membership: Membership::new(founders),
        }
    }

    /// A member in this epoch delivers these; what nobody has delivered before is committed now.
    pub fn deliver(
        &mut self,
        (node, epoch): (usize, Epoch),
        zxids: &[Zxid],
        now: u64,
        disturbed_us: u64,
    ) -> Check {
        for zxid in zxids {
            let Some(txn) = self.order.deliver(node, *zxid)? else { continue };
            self.states.apply(&txn)?;
            self.order.commit(*zxid, epoch, self.states.digest(), txn.clone());
            self.membership.committed(&txn);
            self.requests.committed(&txn)?;
            self.read_only.committed(&txn)?;
            let proposed_us = self.order.proposed_us(*zxid);
            self.sessions.committed(&txn, proposed_us, now, disturbed_us)?;
        }
        Ok(())
    }
}
