//! Leadership and primary integrity: at most one replica is ever established for an epoch, and it
//! holds everything committed in earlier epochs before it broadcasts.

use std::collections::BTreeMap;

use znodefs::Epoch;

use super::{Check, TotalOrder, violation};
use crate::disk::Disk;

/// Who was established when.
pub struct Leadership {
    established: BTreeMap<Epoch, (usize, u32)>,
}

impl Leadership {
    /// Nobody has led.
    pub fn new() -> Leadership {
        Leadership { established: BTreeMap::new() }
    }

    /// How many leaders there have been.
    pub fn count(&self) -> usize {
        self.established.len()
    }

    /// A leader begins to serve, in this life of its node.
    pub fn establish(
        &mut self,
        (node, incarnation): (usize, u32),
        epoch: Epoch,
        disk: &Disk,
        order: &TotalOrder,
    ) -> Check {
        if let Some((other, _)) = self.established.insert(epoch, (node, incarnation)) {
            return violation(
                "one leader per epoch",
                format!("node {node} leads epoch {epoch}, which node {other} led before"),
            );
        }
        let committed = order.last_committed_before(epoch);
        if !disk.contains(committed) {
            return violation(
                "primary integrity",
                format!(
                    "node {node} leads epoch {epoch} without {committed}, which was committed \
                     before; its log ends at {}",
                    disk.last()
                ),
            );
        }
        Ok(())
    }
}

/// Whoever has adopted an epoch, by its currentEpoch on disk, has everything there that leaders of
/// earlier epochs have committed (the paper's initial history; ZOOKEEPER-4643).
pub fn check_adopted(node: usize, disk: &Disk, order: &TotalOrder) -> Check {
    let epoch = disk.current_epoch;
    let committed = order.last_committed_before(epoch);
    if committed <= disk.last() && disk.contains(committed) {
        return Ok(());
    }
    violation(
        "currentEpoch stands for the history before it",
        format!(
            "node {node} has adopted epoch {epoch}, but not {committed}, which was committed before; \
             on its disk is {}",
            disk.last()
        ),
    )
}
