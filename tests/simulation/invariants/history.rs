//! Integrity of histories: a zxid means the same transaction everywhere, and whoever holds it holds
//! the same ones before it, without a gap.

use znodefs::Zxid;
use znodefs_server::zab::Entry;

use super::{ByZxid, Check, violation};
use crate::database::hash;

struct Proposed {
    hash: u64,
    predecessor: Zxid,
}

/// Every transaction ever proposed.
pub struct History {
    proposed: ByZxid<Proposed>,
}

impl History {
    /// Nothing is proposed.
    pub fn new() -> History {
        History { proposed: ByZxid::new() }
    }

    /// A leader proposes: `before` is the end of its log.
    pub fn propose(&mut self, node: usize, before: Zxid, entry: &Entry) -> Check {
        let proposed = Proposed { hash: hash(&entry.payload), predecessor: before };
        if self.proposed.push(entry.zxid, proposed) {
            return Ok(());
        }
        violation(
            "one zxid, one transaction",
            format!("node {node} proposes {} which was used before", entry.zxid),
        )
    }

    /// A replica appends: `before` is the end of its log.
    pub fn append(&self, node: usize, before: Zxid, entry: &Entry) -> Check {
        let Some(known) = self.proposed.get(entry.zxid) else {
            return violation(
                "integrity",
                format!("node {node} logs {} which nobody proposed", entry.zxid),
            );
        };
        if known.hash != hash(&entry.payload) {
            return violation(
                "one zxid, one transaction",
                format!("node {node} logs other bytes as {}", entry.zxid),
            );
        }
        if known.predecessor != before {
            return violation(
                "histories are prefixes",
                format!(
                    "node {node} logs {} after {before}, but its leader had {} before it",
                    entry.zxid, known.predecessor
                ),
            );
        }
        Ok(())
    }
}
