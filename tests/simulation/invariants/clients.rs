//! What clients see: an acknowledged write took effect, once, and is visible to every later sync; a
//! write that was refused took none.

use znodefs::Zxid;

use super::{Check, violation};

/// One write of a client.
#[derive(Clone, Copy, Debug)]
struct Operation {
    node: usize,
    term: u64,
    effects: u32,
}

/// All writes and syncs.
pub struct Clients {
    operations: Vec<Operation>,
    syncs: Vec<(usize, u64, Zxid)>,
    acknowledged: Zxid,
    acknowledged_count: u64,
    synced_count: u64,
}

impl Clients {
    /// No client has asked for anything.
    pub fn new() -> Clients {
        Clients {
            operations: Vec::new(),
            syncs: Vec::new(),
            acknowledged: Zxid::ZERO,
            acknowledged_count: 0,
            synced_count: 0,
        }
    }

    /// Writes acknowledged so far, and syncs answered.
    pub fn counts(&self) -> (u64, u64) {
        (self.acknowledged_count, self.synced_count)
    }

    /// A client writes through a node that serves in this term; the result is the write's number.
    pub fn write(&mut self, node: usize, term: u64) -> u64 {
        self.operations.push(Operation { node, term, effects: 0 });
        self.operations.len() as u64 - 1
    }

    /// The write took effect for the first time on any replica.
    pub fn effect(&mut self, zxid: Zxid, operation: u64) -> Check {
        let Some(known) = self.operations.get_mut(operation as usize) else {
            return violation("integrity", format!("{zxid} is a write of no client"));
        };
        known.effects += 1;
        if known.effects > 1 {
            return violation("applied once", format!("write {operation} took effect twice"));
        }
        Ok(())
    }

    /// A node applies the write; true when its client still waits there, and is told.
    pub fn applied(&mut self, node: usize, term: u64, zxid: Zxid, operation: u64) -> bool {
        if let Some(known) = self.operations.get(operation as usize)
            && (known.node, known.term) == (node, term)
        {
            self.acknowledged = self.acknowledged.max(zxid);
            self.acknowledged_count += 1;
            return true;
        }
        false
    }

    /// A client asks for a sync; the result is its number.
    pub fn sync(&mut self, node: usize) -> u64 {
        self.syncs.push((node, 0, self.acknowledged));
        self.syncs.len() as u64 - 1
    }

    /// The node has taken the request in, while it serves in this term.
    pub fn accept_sync(&mut self, token: u64, term: u64) {
        if let Some(sync) = self.syncs.get_mut(token as usize) {
            sync.1 = term;
        }
    }

    /// A node answers a sync: it must have applied all that was acknowledged when it was asked for.
    pub fn synced(&mut self, node: usize, term: u64, applied: Zxid, token: u64) -> Check {
        let Some((asked, in_term, acknowledged)) = self.syncs.get(token as usize).copied() else {
            return violation("sync", format!("node {node} answers sync {token} of no client"));
        };
        self.synced_count += 1;
        if (asked, in_term) == (node, term) && applied < acknowledged {
            return violation(
                "sync then read is linearizable",
                format!(
                    "node {node} answers a sync at {applied}; {acknowledged} was acknowledged \
                     before it was asked"
                ),
            );
        }
        Ok(())
    }
}
