//! Durability: what a node finds on its disk after any accident holds all that it told others it
//! had, as it was.

use bytes::Bytes;
use znodefs::{Epoch, Zxid};
use znodefs_server::ensemble::MemberRecovered;

use crate::invariants::{Check, violation};
use crate::replica::node::Told;

/// What a start found.
pub struct Found {
    pub accepted_epoch: Epoch,
    pub current_epoch: Epoch,
    pub last_logged: Zxid,
    /// Whether it has noticed that something committed is missing: then it has no vote.
    pub incomplete: bool,
    /// What the newest usable snapshot holds for certain.
    pub snapshot: Zxid,
    /// The log behind it.
    pub entries: Vec<(Zxid, Bytes)>,
}

/// Reads everything that was recovered.
pub fn look_at(recovered: &MemberRecovered) -> Result<Found, String> {
    let history = recovered.history();
    let mut entries = Vec::new();
    recovered
        .replay(|zxid, payload| entries.push((zxid, Bytes::copy_from_slice(payload))))
        .map_err(|error| error.to_string())?;
    Ok(Found {
        accepted_epoch: history.accepted_epoch,
        current_epoch: history.current_epoch,
        last_logged: history.last_logged,
        incomplete: history.incomplete,
        snapshot: history.delivered,
        entries,
    })
}

/// Whether all that was acknowledged is there.
pub fn holds_acknowledged(found: &Found, told: &Told) -> bool {
    holds(found, told.acknowledged)
}

/// Whether a transaction is there.
fn holds(found: &Found, zxid: Zxid) -> bool {
    zxid <= found.snapshot || found.entries.iter().any(|(entry, _)| *entry == zxid)
}

/// currentEpoch stands for the history before it: all that leaders of earlier epochs have committed,
/// of which `committed` is the last (ZOOKEEPER-4643).
pub fn check_adopted(node: usize, found: &Found, committed: Zxid) -> Check {
    if holds(found, committed) {
        return Ok(());
    }
    let (epoch, last) = (found.current_epoch, found.last_logged);
    violation(
        "currentEpoch stands for the history before it",
        format!(
            "node {node} has adopted epoch {epoch} without {committed}; its log ends at {last}"
        ),
    )
}

/// What was told must be there.
pub fn check_found(node: usize, found: &Found, told: &Told) -> Check {
    if found.accepted_epoch < told.promised {
        let (promised, accepted) = (told.promised, found.accepted_epoch);
        return violation(
            "a promise is backed by synced bytes",
            format!("node {node} promised {promised} and finds acceptedEpoch {accepted}"),
        );
    }
    if found.current_epoch < told.adopted {
        let (adopted, current) = (told.adopted, found.current_epoch);
        return violation(
            "an adopted epoch is backed by synced bytes",
            format!("node {node} acknowledged epoch {adopted} and finds currentEpoch {current}"),
        );
    }
    if !holds_acknowledged(found, told) {
        let (acknowledged, last) = (told.acknowledged, found.last_logged);
        return violation(
            "an acknowledgement is backed by synced bytes",
            format!("node {node} acknowledged {acknowledged} and finds a log up to {last}"),
        );
    }
    Ok(())
}
