//! Total order, agreement, local and global primary order: any two replicas deliver prefixes of one
//! sequence; applied once; equal zxid, equal state. Committed is what was delivered anywhere.

use znodefs::{Epoch, Zxid};
use znodefs_server::zab::Entry;

use super::{Check, violation};
use crate::database::{Database, extend_chain};

struct Delivered {
    zxid: Zxid,
    /// The state's hash afterwards.
    chain: u64,
    /// The epoch of the leader that committed it.
    epoch: Epoch,
}

/// The sequence.
pub struct TotalOrder {
    sequence: Vec<Delivered>,
}

impl TotalOrder {
    /// Nothing is delivered.
    pub fn new() -> TotalOrder {
        TotalOrder { sequence: Vec::new() }
    }

    /// The last transaction that any replica delivered.
    pub fn last(&self) -> Zxid {
        self.sequence.last().map_or(Zxid::ZERO, |delivered| delivered.zxid)
    }

    /// How many were delivered.
    pub fn length(&self) -> usize {
        self.sequence.len()
    }

    /// The last transaction that was committed under a leader of an epoch before this one.
    pub fn last_committed_before(&self, epoch: Epoch) -> Zxid {
        let end = self.sequence.partition_point(|delivered| delivered.epoch < epoch);
        end.checked_sub(1).map_or(Zxid::ZERO, |last| self.sequence[last].zxid)
    }

    /// Whether any replica has delivered it.
    pub fn is_committed(&self, zxid: Zxid) -> bool {
        self.sequence.binary_search_by_key(&zxid, |delivered| delivered.zxid).is_ok()
    }

    /// A replica, in the epoch of its leader, delivers `entry` on top of `database`. True when it is the first to do so.
    pub fn deliver(
        &mut self,
        node: usize,
        epoch: Epoch,
        database: &Database,
        entry: &Entry,
    ) -> Result<bool, super::Violation> {
        let index = database.applied as usize;
        if let Some(expected) = self.sequence.get(index).map(|delivered| delivered.zxid) {
            if expected != entry.zxid {
                violation(
                    "total order",
                    format!(
                        "node {node} delivers {} as number {index}, another replica {expected}",
                        entry.zxid
                    ),
                )?;
            }
            return Ok(false);
        }
        if index != self.sequence.len() || entry.zxid <= self.last() {
            violation(
                "total order",
                format!(
                    "node {node} delivers {} as number {index}; the last one delivered anywhere is \
                     number {} with {}",
                    entry.zxid,
                    self.sequence.len(),
                    self.last()
                ),
            )?;
        }
        let chain = extend_chain(database.chain, entry.zxid, &entry.payload);
        let before = self.sequence.last().map_or(Epoch(0), |delivered| delivered.epoch);
        self.sequence.push(Delivered { zxid: entry.zxid, chain, epoch: epoch.max(before) });
        Ok(true)
    }

    /// A replica's state must be that of the sequence's prefix.
    pub fn check_state(&self, node: usize, database: &Database, what: &str) -> Check {
        let expected = match (database.applied as usize).checked_sub(1) {
            None => (Zxid::ZERO, 0),
            Some(last) => match self.sequence.get(last) {
                Some(delivered) => (delivered.zxid, delivered.chain),
                None => (Zxid(-1), 0),
            },
        };
        if expected == (database.zxid, database.chain) {
            return Ok(());
        }
        violation(
            "equal zxid, equal state",
            format!(
                "node {node} after {what}: {} transactions up to {}, where the order has {} there",
                database.applied, database.zxid, expected.0
            ),
        )
    }
}
