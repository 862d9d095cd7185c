//! Total order, agreement and integrity, primary order and integrity: every member's log is a path
//! through one tree of proposals, any two members deliver prefixes of one sequence, nothing
//! committed is truncated, one leader an epoch, and equal zxid means equal state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use znodefs::{Epoch, SessionId, Zxid};
use znodefs_server::codec;
use znodefs_server::txn::{Txn, TxnBody};
use znodefs_server::zab::Entry;

use crate::invariants::{Check, Violation, violation};

struct Proposed {
    payload: Bytes,
    before: Zxid,
    at: u64,
}

/// Something committed.
pub struct Committed {
    pub zxid: Zxid,
    /// No leader of an earlier epoch committed it.
    pub epoch: Epoch,
    /// Of the state afterwards.
    pub digest: u64,
    pub txn: Arc<Txn>,
}

/// Histories and their order.
pub struct Order {
    proposed: HashMap<Zxid, Proposed>,
    sequence: Vec<Committed>,
    /// How many of the sequence each node has delivered.
    delivered: BTreeMap<usize, usize>,
    log_ends: BTreeMap<usize, Zxid>,
    leaders: BTreeMap<Epoch, usize>,
}

impl Order {
    /// Nothing is proposed.
    pub fn new() -> Order {
        Order {
            proposed: HashMap::new(),
            sequence: Vec::new(),
            delivered: BTreeMap::new(),
            log_ends: BTreeMap::new(),
            leaders: BTreeMap::new(),
        }
    }

    /// How many transactions are committed.
    pub fn length(&self) -> usize {
        self.sequence.len()
    }

    /// How many leaders have served.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// The last one.
    pub fn last(&self) -> Zxid {
        self.sequence.last().map_or(Zxid::ZERO, |committed| committed.zxid)
    }

    /// The last one that a leader of an earlier epoch committed.
    pub fn last_before(&self, epoch: Epoch) -> Zxid {
        let count = self.sequence.partition_point(|committed| committed.epoch < epoch);
        count.checked_sub(1).map_or(Zxid::ZERO, |last| self.sequence[last].zxid)
    }

    /// A committed transaction.
    pub fn committed(&self, zxid: Zxid) -> Option<&Committed> {
        let place = self.sequence.binary_search_by_key(&zxid, |committed| committed.zxid).ok()?;
        self.sequence.get(place)
    }

    fn is_committed(&self, zxid: Zxid) -> bool {
        self.committed(zxid).is_some()
    }

    /// Whether the end of a session is proposed and not committed yet.
    pub fn is_being_closed(&self, session_id: SessionId) -> bool {
        let last = self.last();
        let under_way = self.proposed.iter().filter(|(zxid, _)| **zxid > last);
        let mut txns = under_way.filter_map(|(_, known)| codec::decode::<Txn>(&known.payload).ok());
        txns.any(|txn| {
            txn.session_id == session_id && matches!(txn.body, TxnBody::CloseSession { .. })
        })
    }

    /// When a transaction was first appended to a log.
    pub fn proposed_us(&self, zxid: Zxid) -> u64 {
        self.proposed.get(&zxid).map_or(0, |proposed| proposed.at)
    }

    fn log_end(&self, node: usize) -> Zxid {
        self.log_ends.get(&node).copied().unwrap_or(Zxid::ZERO)
    }

    /// A member that is elected has this as its newest transaction.
    pub fn elected(&mut self, node: usize, last_logged: Zxid) {
        let end = self.log_ends.entry(node).or_insert(Zxid::ZERO);
        *end = last_logged.min(*end);
    }

    /// A member appends these to its log, of which `durable` is on its disk. What was not may have
    /// been given up since, where there was no room for it.
    pub fn appended(&mut self, node: usize, entries: &[Entry], durable: Zxid, now: u64) -> Check {
        if let Some(first) = entries.first()
            && let Some(before) = self.proposed.get(&first.zxid).map(|known| known.before)
            && before >= durable
            && (before == Zxid::ZERO
                || self
                    .back_from(self.log_end(node))
                    .take_while(|zxid| *zxid >= before)
                    .any(|zxid| zxid == before))
        {
            self.log_ends.insert(node, before);
        }
        for entry in entries {
            let before = self.log_end(node);
            self.check_entry(node, entry.zxid, &entry.payload, before, now)?;
            self.log_ends.insert(node, entry.zxid);
        }
        Ok(())
    }

    fn check_entry(
        &mut self,
        node: usize,
        zxid: Zxid,
        payload: &Bytes,
        before: Zxid,
        now: u64,
    ) -> Check {
        let known = self.proposed.entry(zxid).or_insert_with(|| Proposed {
            payload: payload.clone(),
            before,
            at: now,
        });
        if known.payload != *payload {
            return violation(
                "equal zxid, equal transaction",
                format!("node {node} has another transaction {zxid} than was proposed first"),
            );
        }
        if known.before != before || zxid <= before {
            let first = known.before;
            return violation(
                "histories have no gaps",
                format!("node {node} has {zxid} behind {before}; it was proposed behind {first}"),
            );
        }
        Ok(())
    }

    /// A member's log as it was found at a start: `entries` come behind `from`.
    pub fn found(&mut self, node: usize, from: Zxid, entries: &[(Zxid, Bytes)]) -> Check {
        let mut before = from;
        for (zxid, payload) in entries {
            let Some(known) = self.proposed.get(zxid) else {
                let detail = format!("node {node} finds {zxid}, which nobody proposed");
                return violation("what is found was proposed", detail);
            };
            if known.payload != *payload || (known.before != before && before != from) {
                let detail = format!("node {node} finds {zxid} behind {before} or changed");
                return violation("a log is found as it was written", detail);
            }
            before = *zxid;
        }
        self.log_ends.insert(node, before);
        let place = self.place_of(node, from)?;
        self.delivered.insert(node, place);
        Ok(())
    }

    /// How many transactions of the order a state of `zxid` holds.
    fn place_of(&self, node: usize, zxid: Zxid) -> Result<usize, Violation> {
        if zxid == Zxid::ZERO {
            return Ok(0);
        }
        match self.sequence.binary_search_by_key(&zxid, |committed| committed.zxid) {
            Ok(place) => Ok(place + 1),
            Err(_) => {
                let detail =
                    format!("node {node} has a snapshot of {zxid}, which is not committed");
                Err(Violation { invariant: "snapshots hold what is committed", detail })
            }
        }
    }

    /// The transactions of a member's log up to `through`, newest first.
    fn back_from(&self, through: Zxid) -> impl Iterator<Item = Zxid> + '_ {
        let mut next = through;
        std::iter::from_fn(move || {
            let zxid = next;
            next = self.proposed.get(&zxid)?.before;
            Some(zxid)
        })
    }

    /// The transactions of a member's log behind `after` and up to `through`.
    pub fn between(&self, _node: usize, after: Zxid, through: Zxid) -> Vec<Zxid> {
        let mut zxids: Vec<Zxid> =
            self.back_from(through).take_while(|zxid| *zxid > after).collect();
        zxids.reverse();
        zxids
    }

    /// A member cuts its log. Whoever has no vote may hold what was committed without it, after its
    /// leader decided how to synchronize it; it is sent that again.
    pub fn truncated(&mut self, node: usize, zxid: Zxid, votes: bool) -> Check {
        let (end, delivered) = (self.log_end(node), self.delivered_at(node));
        let lost = self
            .back_from(end)
            .take_while(|entry| *entry > zxid)
            .find(|entry| self.is_committed(*entry) && (votes || *entry <= delivered));
        self.log_ends.insert(node, zxid);
        match lost {
            None => Ok(()),
            Some(lost) => violation(
                "no committed transaction is ever truncated",
                format!("node {node} truncates to {zxid} and loses {lost}"),
            ),
        }
    }

    /// A member takes over its leader's snapshot.
    pub fn installed(&mut self, node: usize, zxid: Zxid) {
        self.log_ends.insert(node, zxid);
        // One that is not committed is found by what follows.
        let place = self.place_of(node, zxid).unwrap_or(self.sequence.len());
        self.delivered.insert(node, place);
    }

    /// A leader begins to serve.
    pub fn leads(&mut self, node: usize, epoch: Epoch) -> Check {
        if let Some(other) = self.leaders.insert(epoch, node) {
            return violation(
                "one leader per epoch",
                format!("node {node} leads epoch {epoch}, which node {other} led before"),
            );
        }
        let (last, end) = (self.last(), self.log_end(node));
        let holds = last == Zxid::ZERO
            || last.epoch() >= epoch
            || end == last
            || self.back_from(end).take_while(|zxid| *zxid >= last).any(|zxid| zxid == last);
        match holds {
            true => Ok(()),
            false => violation(
                "primary integrity",
                format!("node {node} leads epoch {epoch} without {last}; its log ends at {end}"),
            ),
        }
    }

    /// The last transaction that a node has delivered.
    pub fn delivered_at(&self, node: usize) -> Zxid {
        let count = self.delivered.get(&node).copied().unwrap_or(0);
        let last = count.checked_sub(1).and_then(|last| self.sequence.get(last));
        last.map_or(Zxid::ZERO, |last| last.zxid)
    }

    /// A member delivers a transaction. The transaction, if nobody has before.
    pub fn deliver(&mut self, node: usize, zxid: Zxid) -> Result<Option<Arc<Txn>>, Violation> {
        let place = self.delivered.entry(node).or_insert(0);
        let number = *place;
        *place += 1;
        if let Some(expected) = self.sequence.get(number).map(|committed| committed.zxid) {
            if expected != zxid {
                let detail =
                    format!("node {node} delivers {zxid} as number {number}, not {expected}");
                return Err(Violation { invariant: "total order", detail });
            }
            return Ok(None);
        }
        if number != self.sequence.len() || zxid <= self.last() {
            let (count, last) = (self.sequence.len(), self.last());
            let detail = format!(
                "node {node} delivers {zxid} as number {number}, after {count} up to {last}"
            );
            return Err(Violation { invariant: "total order", detail });
        }
        let Some(proposed) = self.proposed.get(&zxid) else {
            let detail = format!("node {node} delivers {zxid}, which nobody proposed");
            return Err(Violation { invariant: "integrity", detail });
        };
        match codec::decode::<Txn>(&proposed.payload) {
            Ok(txn) => Ok(Some(Arc::new(txn))),
            Err(error) => {
                let detail = format!("{zxid} cannot be understood: {error}");
                Err(Violation { invariant: "what is delivered is a transaction", detail })
            }
        }
    }

    /// A transaction is committed by the leader of an epoch; `digest` is that of the state afterwards.
    pub fn commit(&mut self, zxid: Zxid, epoch: Epoch, digest: u64, txn: Arc<Txn>) {
        // Who follows the leader before may be the first to deliver what was committed long ago.
        let before = self.sequence.last().map_or(Epoch(0), |last| last.epoch);
        self.sequence.push(Committed { zxid, epoch: epoch.max(before), digest, txn });
    }

    /// A member's tree must be that of the order.
    pub fn compare(&self, node: usize, applied: Zxid, digest: u64) -> Check {
        let delivered = self.delivered_at(node);
        if applied != delivered {
            let detail = format!("node {node} has applied {applied} and delivered {delivered}");
            return violation("what is delivered is applied", detail);
        }
        match self.committed(applied) {
            Some(committed) if committed.digest != digest => {
                let detail =
                    format!("node {node} at {applied} has another state than replay gives");
                violation("equal zxid, equal state", detail)
            }
            _ => Ok(()),
        }
    }
}
