//! Tells the events of changes that were made through this mount (echoes) from those of others. A
//! plain state machine without I/O: writes submitted, events and replies in, in the order of the
//! wire; events with a decision out, in their own order.
//!
//! An event comes before the reply to the write that caused it, so one that could be the echo of a
//! write under way is held until that write is answered. With the transaction in the event's
//! header it is the echo when the reply has the same; a server that does not tell (ZooKeeper before
//! 3.9) leaves this rule: the last matching event before our own success is the echo.

use std::collections::VecDeque;

use znodefs::wire::request::CreateRequest;
use znodefs::wire::{CreateMode, EventType, Request};
use znodefs::{Zxid, path};

/// What happened to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// It was created.
    Created,
    /// It was deleted.
    Deleted,
    /// Its data were set.
    Changed,
}

impl Happening {
    /// What an event of a persistent recursive watch says; `None` for events that tell of no znode.
    pub fn of(event_type: EventType) -> Option<Happening> {
        match event_type {
            EventType::NodeCreated => Some(Happening::Created),
            EventType::NodeDeleted => Some(Happening::Deleted),
            EventType::NodeDataChanged => Some(Happening::Changed),
            EventType::None | EventType::NodeChildrenChanged | EventType::Unknown(_) => None,
        }
    }
}

/// A change of a znode, as an event tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The znode.
    pub path: String,
    /// What happened to it.
    pub happening: Happening,
    /// The transaction, where the server tells it.
    pub zxid: Option<Zxid>,
    /// A transaction before it, up to which every change was told of earlier.
    pub after: Zxid,
}

impl Change {
    /// Whether a name comes or goes by it.
    pub fn is_of_names(&self) -> bool {
        self.happening != Happening::Changed
    }
}

/// A change that it was decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The change.
    pub change: Change,
    /// Whether it was made through this mount.
    pub is_own: bool,
    /// Whether that was unknown when the event came.
    pub was_uncertain: bool,
}

/// One thing that a write of ours does if it succeeds.
#[derive(Debug)]
struct Effect {
    path: String,
    happening: Happening,
    /// The service appends a counter to the path.
    is_sequential: bool,
}

impl Effect {
    fn causes(&self, change: &Change) -> bool {
        /// Digits of the counter; more once it has run over.
        const COUNTER_DIGITS_MIN: usize = 10;
        self.happening == change.happening
            && match change.path.strip_prefix(&self.path) {
                Some("") => !self.is_sequential,
                Some(counter) => {
                    self.is_sequential
                        && counter.len() >= COUNTER_DIGITS_MIN
                        && counter.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
                }
                None => false,
            }
    }
}

/// A write without its answer.
#[derive(Debug)]
struct Write {
    request_id: u64,
    effects: Vec<Effect>,
}

/// An event without its decision, or behind one.
#[derive(Debug)]
struct Held {
    change: Change,
    decision: Option<bool>,
    was_uncertain: bool,
}

/// Decides about events.
#[derive(Debug, Default)]
pub struct EchoFilter {
    writes: VecDeque<Write>,
    held: VecDeque<Held>,
}

impl EchoFilter {
    /// Whether a request can cause events.
    pub fn is_write(request: &Request<'_>) -> bool {
        match request {
            Request::Create(_) | Request::Delete { .. } | Request::SetData { .. } => true,
            Request::Multi(operations) => operations.iter().any(EchoFilter::is_write),
            _ => false,
        }
    }

    /// A request was submitted. Call it before its reply can be delivered.
    pub fn submitted(&mut self, request_id: u64, request: &Request<'_>) {
        let mut effects = Vec::new();
        add_effects(request, &mut effects);
        if !effects.is_empty() {
            self.writes.push_back(Write { request_id, effects });
        }
    }

    /// An event came. Whatever can be decided goes to `decided`.
    pub fn event(&mut self, change: Change, decided: &mut Vec<Decided>) {
        let was_uncertain = self.may_be_own(&change);
        if !was_uncertain && self.held.is_empty() {
            decided.push(Decided { change, is_own: false, was_uncertain });
        } else {
            let decision = (!was_uncertain).then_some(false);
            self.held.push_back(Held { change, decision, was_uncertain });
        }
    }

    /// A request was answered; `zxid` is the transaction of a write that succeeded.
    pub fn answered(&mut self, request_id: u64, zxid: Option<Zxid>, decided: &mut Vec<Decided>) {
        let Some(index) = self.writes.iter().position(|write| write.request_id == request_id)
        else {
            return;
        };
        let Some(write) = self.writes.remove(index) else { return };
        if let Some(zxid) = zxid {
            for effect in &write.effects {
                let caused = |held: &&mut Held| {
                    held.decision.is_none()
                        && held.change.zxid.is_none_or(|event| event == zxid)
                        && effect.causes(&held.change)
                };
                if let Some(held) = self.held.iter_mut().rfind(caused) {
                    held.decision = Some(true);
                    held.change.zxid = Some(zxid);
                }
            }
        }
        self.decide(decided);
    }

    /// A request came to nothing, or nobody knows: its connection was lost.
    pub fn failed(&mut self, request_id: u64, decided: &mut Vec<Decided>) {
        self.answered(request_id, None, decided);
    }

    /// Whether a write under way could be the cause of a change.
    pub fn may_be_own(&self, change: &Change) -> bool {
        let mut effects = self.writes.iter().flat_map(|write| &write.effects);
        effects.any(|effect| effect.causes(change))
    }

    fn decide(&mut self, decided: &mut Vec<Decided>) {
        let (writes, held) = (&self.writes, &mut self.held);
        let may_be_own = |change: &Change| {
            writes.iter().flat_map(|write| &write.effects).any(|effect| effect.causes(change))
        };
        for held in held.iter_mut() {
            if held.decision.is_none() && !may_be_own(&held.change) {
                held.decision = Some(false);
            }
        }
        while let Some(first) = self.held.pop_front_if(|first| first.decision.is_some()) {
            let Held { change, decision, was_uncertain } = first;
            decided.push(Decided { change, is_own: decision == Some(true), was_uncertain });
        }
    }
}

fn add_effects(request: &Request<'_>, effects: &mut Vec<Effect>) {
    let mut add = |path: &str, happening, is_sequential| {
        effects.push(Effect { path: path.to_string(), happening, is_sequential });
    };
    match request {
        Request::Create(CreateRequest { path, flags, .. }) => {
            let mode = CreateMode::from_flags(*flags);
            add(path, Happening::Created, mode.is_some_and(CreateMode::is_sequential));
        }
        Request::Delete { path, .. } => add(path, Happening::Deleted, false),
        Request::SetData { path, .. } => add(path, Happening::Changed, false),
        Request::Multi(operations) => {
            for operation in operations {
                add_effects(operation, effects);
            }
        }
        _ => {}
    }
}

/// The directory that a change is seen in; `None` for the root.
pub fn directory_of(change: &Change) -> Option<&str> {
    path::parent(&change.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, happening: Happening, zxid: Option<i64>) -> Change {
        Change { path: path.into(), happening, zxid: zxid.map(Zxid), after: Zxid::ZERO }
    }

    fn set(path: &str) -> Request<'_> {
        Request::SetData { path, data: None, version: -1 }
    }

    fn create(path: &str, mode: CreateMode) -> Request<'_> {
        Request::Create(CreateRequest::new(path, None, Vec::new(), mode, 0))
    }

    /// The decisions so far, as `path` and whether it is own.
    fn taken(decided: &mut Vec<Decided>) -> Vec<(String, bool)> {
        decided.drain(..).map(|decided| (decided.change.path, decided.is_own)).collect()
    }

    #[test]
    fn without_a_write_under_way_every_event_is_foreign_at_once() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        filter.event(change("/a", Happening::Created, Some(1)), &mut decided);
        assert_eq!(taken(&mut decided), [("/a".into(), false)]);
    }

    #[test]
    fn the_event_with_the_transaction_of_our_reply_is_the_echo() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        filter.submitted(1, &set("/a"));
        filter.event(change("/a", Happening::Changed, Some(7)), &mut decided);
        filter.event(change("/a", Happening::Changed, Some(8)), &mut decided);
        filter.event(change("/b", Happening::Changed, Some(9)), &mut decided);
        assert_eq!(taken(&mut decided), [], "order is kept behind what is undecided");
        filter.answered(1, Some(Zxid(8)), &mut decided);
        let expected = [("/a".into(), false), ("/a".into(), true), ("/b".into(), false)];
        assert_eq!(taken(&mut decided), expected);
    }

    #[test]
    fn without_transactions_the_last_matching_event_before_our_success_is_the_echo() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        filter.submitted(1, &set("/a"));
        filter.event(change("/a", Happening::Changed, None), &mut decided);
        filter.event(change("/a", Happening::Created, None), &mut decided);
        filter.event(change("/a", Happening::Changed, None), &mut decided);
        filter.answered(1, Some(Zxid(8)), &mut decided);
        let own: Vec<bool> = decided.iter().map(|decided| decided.is_own).collect();
        assert_eq!(own, [false, false, true]);
    }

    #[test]
    fn the_event_of_a_write_that_failed_is_foreign() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        filter.submitted(1, &create("/a", CreateMode::Persistent));
        filter.event(change("/a", Happening::Created, None), &mut decided);
        filter.failed(1, &mut decided);
        assert_eq!(taken(&mut decided), [("/a".into(), false)]);
        filter.failed(1, &mut decided);
        assert_eq!(taken(&mut decided), []);
    }

    #[test]
    fn an_event_waits_for_every_write_it_could_belong_to() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        filter.submitted(1, &set("/a"));
        filter.submitted(2, &set("/a"));
        filter.event(change("/a", Happening::Changed, Some(5)), &mut decided);
        filter.answered(1, Some(Zxid(5)), &mut decided);
        assert_eq!(taken(&mut decided), [("/a".into(), true)]);
        filter.event(change("/a", Happening::Changed, Some(6)), &mut decided);
        filter.answered(2, Some(Zxid(6)), &mut decided);
        assert_eq!(taken(&mut decided), [("/a".into(), true)]);
    }

    #[test]
    fn a_sequential_creation_is_known_by_its_prefix_and_counter() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        filter.submitted(1, &create("/q/n-", CreateMode::EphemeralSequential));
        filter.event(change("/q/n-other", Happening::Created, Some(4)), &mut decided);
        filter.event(change("/q/n-0000000007", Happening::Created, Some(5)), &mut decided);
        filter.answered(1, Some(Zxid(5)), &mut decided);
        let expected = [("/q/n-other".into(), false), ("/q/n-0000000007".into(), true)];
        assert_eq!(taken(&mut decided), expected);
    }

    #[test]
    fn every_operation_of_a_multi_has_its_echo() {
        let (mut filter, mut decided) = (EchoFilter::default(), Vec::new());
        let multi = Request::Multi(vec![
            create("/b", CreateMode::Persistent),
            Request::Delete { path: "/a", version: 3 },
        ]);
        assert!(EchoFilter::is_write(&multi) && !EchoFilter::is_write(&Request::Ping));
        filter.submitted(1, &multi);
        for (path, happening) in [("/b", Happening::Created), ("/a", Happening::Deleted)] {
            filter.event(change(path, happening, Some(5)), &mut decided);
        }
        filter.answered(1, Some(Zxid(5)), &mut decided);
        assert_eq!(taken(&mut decided), [("/b".into(), true), ("/a".into(), true)]);
    }
}
