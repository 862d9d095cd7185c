//! Durability: what is acknowledged is synced, what is committed is synced by a quorum, epochs never
//! go back, and what is found after a crash is a state of the one order.

use znodefs::{Epoch, Zxid};
use znodefs_server::zab::{QuorumVerifier, ServerId};

use super::{Check, TotalOrder, violation};
use crate::database::Database;
use crate::disk::Disk;

/// A replica acknowledges everything up to `zxid`.
pub fn check_ack(node: usize, disk: &Disk, zxid: Zxid) -> Check {
    if zxid <= disk.last() && disk.contains(zxid) {
        return Ok(());
    }
    violation(
        "an acknowledgement is backed by synced bytes",
        format!("node {node} acknowledges {zxid}; its disk is at {}", disk.last()),
    )
}

/// A voter acknowledges NEWLEADER of an epoch: it has adopted it, and has promised no later one.
pub fn check_new_leader_ack(node: usize, disk: &Disk, epoch: Epoch) -> Check {
    let (accepted, current) = (disk.accepted_epoch, disk.current_epoch);
    if current != epoch {
        return violation(
            "an acknowledgement is backed by synced bytes",
            format!(
                "node {node} acknowledges NEWLEADER {epoch}; currentEpoch on its disk is {current}"
            ),
        );
    }
    if accepted > epoch {
        return violation(
            "a promise is kept",
            format!("node {node} acknowledges NEWLEADER {epoch} after it promised {accepted}"),
        );
    }
    Ok(())
}

/// Somebody delivers `zxid` for the first time: a quorum must have it on disk, or must have had it
/// until an operator's accident took the disk away.
pub fn check_quorum<'a, Disks: Iterator<Item = &'a Disk>>(
    quorum: &QuorumVerifier,
    zxid: Zxid,
    disks: impl Fn(ServerId) -> Disks,
) -> Check {
    let holds = |id| disks(id).any(|disk| zxid <= disk.last() && disk.contains(zxid));
    if quorum.has_quorum(holds) {
        return Ok(());
    }
    let holders: Vec<u32> =
        quorum.voters().into_iter().filter(|id| holds(*id)).map(|id| id.0).collect();
    violation(
        "a committed transaction is on the disks of a quorum",
        format!("{zxid} is committed and synced only by {holders:?}"),
    )
}

/// A disk has changed from `before` (accepted, current).
pub fn check_epochs(node: usize, before: (u32, u32), disk: &Disk) -> Check {
    let (accepted, current) = (disk.accepted_epoch, disk.current_epoch);
    if accepted.0 < before.0 || current.0 < before.1 {
        return violation(
            "epochs never decrease",
            format!("node {node} went from {before:?} to ({accepted}, {current})"),
        );
    }
    Ok(())
}

/// What a replica finds after a crash.
pub fn check_recovery(node: usize, disk: &Disk, database: &Database, order: &TotalOrder) -> Check {
    let (accepted, current) = (disk.accepted_epoch, disk.current_epoch);
    let promised = accepted >= current && accepted >= disk.last().epoch();
    if !promised {
        return violation(
            "acceptedEpoch bounds what is on the disk",
            format!(
                "node {node} starts with acceptedEpoch {accepted}, currentEpoch {current}, last \
                 zxid {}",
                disk.last()
            ),
        );
    }
    order.check_state(node, database, "recovery")
}
