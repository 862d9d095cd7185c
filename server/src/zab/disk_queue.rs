//! What was given to the disk and is not known to be durable, and what is. Nothing here touches a
//! disk: effects carry tickets, and the driver says which ticket is done.
//!
//! The disk works in the order of the tickets, so one number says everything; a late completion can
//! not be taken for one of what came after it.

use std::collections::VecDeque;

use znodefs::{Epoch, Zxid};

/// The place of a disk effect in the order in which they must become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a ticket changes once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// The log reaches to this zxid.
    Append(Zxid),
    /// The log ends at this zxid.
    Truncate(Zxid),
    /// A snapshot with this zxid replaced tree and log.
    Snapshot(Zxid),
    /// acceptedEpoch.
    AcceptedEpoch(Epoch),
    /// currentEpoch.
    CurrentEpoch(Epoch),
}

/// What is on disk for certain. Only completions change it; acknowledgements are made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DurableFacts {
    zxid: Zxid,
    accepted_epoch: Epoch,
    current_epoch: Epoch,
}

impl DurableFacts {
    /// The last durable entry of the log.
    pub(super) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// acceptedEpoch.
    pub(super) fn accepted_epoch(&self) -> Epoch {
        self.accepted_epoch
    }

    /// currentEpoch.
    pub(super) fn current_epoch(&self) -> Epoch {
        self.current_epoch
    }
}

/// The tickets that are out.
#[derive(Debug)]
pub(super) struct DiskQueue {
    facts: DurableFacts,
    last: Ticket,
    done: Ticket,
    pending: VecDeque<(Ticket, Operation)>,
}

impl DiskQueue {
    /// After recovery: everything that was found has been made durable.
    pub(super) fn new(zxid: Zxid, accepted_epoch: Epoch, current_epoch: Epoch) -> DiskQueue {
        DiskQueue {
            facts: DurableFacts { zxid, accepted_epoch, current_epoch },
            last: Ticket(0),
            done: Ticket(0),
            pending: VecDeque::new(),
        }
    }

    /// What is on disk.
    pub(super) fn facts(&self) -> &DurableFacts {
        &self.facts
    }

    /// After a full disk: nothing is on its way any more, and this is what there is.
    pub(super) fn restart(&mut self, zxid: Zxid, accepted_epoch: Epoch, current_epoch: Epoch) {
        self.facts = DurableFacts { zxid, accepted_epoch, current_epoch };
        self.done = self.last;
        self.pending.clear();
    }

    /// Takes the next ticket.
    pub(super) fn submit(&mut self, operation: Operation) -> Ticket {
        self.last = Ticket(self.last.0 + 1);
        self.pending.push_back((self.last, operation));
        self.last
    }

    /// The last ticket given out.
    pub(super) fn last(&self) -> Ticket {
        self.last
    }

    /// Whether this ticket is durable.
    pub(super) fn is_done(&self, ticket: Ticket) -> bool {
        ticket <= self.done
    }

    /// Everything up to and including `ticket` is durable.
    ///
    /// # Panics
    /// When the driver completes a ticket that was never given out.
    pub(super) fn complete(&mut self, ticket: Ticket) {
        assert!(ticket <= self.last, "disk completed {ticket:?}, which was never given out");
        self.done = self.done.max(ticket);
        while let Some((_, operation)) = self.pending.pop_front_if(|(next, _)| *next <= ticket) {
            match operation {
                Operation::Append(zxid) => self.facts.zxid = zxid,
                Operation::Truncate(zxid) => self.facts.zxid = self.facts.zxid.min(zxid),
                Operation::Snapshot(zxid) => self.facts.zxid = zxid,
                Operation::AcceptedEpoch(epoch) => self.facts.accepted_epoch = epoch,
                Operation::CurrentEpoch(epoch) => self.facts.current_epoch = epoch,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    #[test]
    fn completion_covers_every_ticket_before_it() {
        let mut queue = DiskQueue::new(Zxid::ZERO, Epoch(0), Epoch(0));
        let first = queue.submit(Operation::Append(zxid(1, 1)));
        let second = queue.submit(Operation::CurrentEpoch(Epoch(1)));
        let third = queue.submit(Operation::Append(zxid(1, 2)));
        queue.complete(second);
        assert!(queue.is_done(first) && queue.is_done(second) && !queue.is_done(third));
        assert_eq!(queue.facts().zxid(), zxid(1, 1));
        assert_eq!(queue.facts().current_epoch(), Epoch(1));
    }

    #[test]
    fn append_before_a_truncation_does_not_vouch_for_what_comes_after() {
        let mut queue = DiskQueue::new(zxid(1, 3), Epoch(1), Epoch(1));
        let old = queue.submit(Operation::Append(zxid(1, 5)));
        let cut = queue.submit(Operation::Truncate(zxid(1, 3)));
        queue.submit(Operation::Append(zxid(2, 1)));
        queue.complete(old);
        assert_eq!(queue.facts().zxid(), zxid(1, 5), "still what the disk holds");
        queue.complete(cut);
        assert_eq!(queue.facts().zxid(), zxid(1, 3));
    }
}
