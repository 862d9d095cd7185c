//! What stands between the request processor and the tree: it gives transactions their final order
//! and says when each may be applied. A replica alone needs nobody's agreement; its own disk's is
//! enough. Zab takes this place in an ensemble: [`Broadcast::propose`] becomes a proposal to all,
//! [`Broadcast::txns_durable`] an acknowledgement, and what a quorum acknowledged is delivered.
//!
//! Pure.

use std::collections::VecDeque;

use znodefs::Zxid;

use crate::txn::Txn;

/// The order of transactions.
#[derive(Debug)]
pub enum Broadcast {
    /// A replica alone.
    Standalone(Standalone),
}

/// A transaction is delivered once it is durable here.
#[derive(Debug)]
pub struct Standalone {
    proposed: VecDeque<Txn>,
    last_proposed: Zxid,
}

impl Broadcast {
    /// A replica alone whose newest transaction is `last`.
    pub fn standalone(last: Zxid) -> Broadcast {
        Broadcast::Standalone(Standalone { proposed: VecDeque::new(), last_proposed: last })
    }

    /// Takes a transaction in; it is to be logged next. Zxids must grow.
    pub fn propose(&mut self, txn: Txn) {
        let Broadcast::Standalone(standalone) = self;
        assert!(txn.zxid > standalone.last_proposed, "transactions are proposed in order");
        standalone.last_proposed = txn.zxid;
        standalone.proposed.push_back(txn);
    }

    /// The newest transaction taken in.
    pub fn last_proposed(&self) -> Zxid {
        let Broadcast::Standalone(standalone) = self;
        standalone.last_proposed
    }

    /// The log is durable up to `zxid`: moves what may be applied now to `delivered`, in order.
    pub fn txns_durable(&mut self, zxid: Zxid, delivered: &mut Vec<Txn>) {
        let Broadcast::Standalone(standalone) = self;
        let count = standalone.proposed.partition_point(|txn| txn.zxid <= zxid);
        delivered.extend(standalone.proposed.drain(..count));
    }

    /// Takes the next transaction out if it is this one: whoever made it need not decode it.
    pub fn take(&mut self, zxid: Zxid) -> Option<Txn> {
        let Broadcast::Standalone(standalone) = self;
        standalone.proposed.pop_front_if(|txn| txn.zxid == zxid)
    }

    /// Nothing proposed after `durable` will ever be durable: forgets it.
    pub fn forget_after(&mut self, durable: Zxid) {
        let Broadcast::Standalone(standalone) = self;
        let count = standalone.proposed.partition_point(|txn| txn.zxid <= durable);
        standalone.proposed.truncate(count);
        standalone.last_proposed = durable;
    }
}

#[cfg(test)]
mod tests {
    use znodefs::{Epoch, SessionId};

    use super::*;
    use crate::txn::{TxnBody, TxnOrigin};

    fn txn(counter: u32) -> Txn {
        let zxid = Zxid::new(Epoch(1), counter);
        let (session_id, origin) = (SessionId(1), TxnOrigin::default());
        Txn { zxid, session_id, xid: 0, origin, time_ms: 0, body: TxnBody::Error(-101) }
    }

    #[test]
    fn nothing_is_delivered_before_it_is_durable_and_then_in_order() {
        let mut broadcast = Broadcast::standalone(Zxid::ZERO);
        (1..=3).for_each(|counter| broadcast.propose(txn(counter)));
        let mut delivered = Vec::new();
        broadcast.txns_durable(Zxid::ZERO, &mut delivered);
        assert!(delivered.is_empty());
        broadcast.txns_durable(Zxid::new(Epoch(1), 2), &mut delivered);
        assert_eq!(delivered, [txn(1), txn(2)]);
        broadcast.forget_after(Zxid::new(Epoch(1), 2));
        assert_eq!(broadcast.last_proposed(), Zxid::new(Epoch(1), 2));
        broadcast.txns_durable(Zxid::new(Epoch(1), 3), &mut delivered);
        assert_eq!(delivered.len(), 2);
    }
}
