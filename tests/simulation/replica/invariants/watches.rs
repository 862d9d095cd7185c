//! Watches: on each connection events come in the order of their transactions, each before any answer
//! at or beyond it; a watch that holds once fires at most once; after a reconnection everything that
//! was missed is told, and what was not missed is watched again.

use std::collections::BTreeMap;

use znodefs::Zxid;
use znodefs::wire::{EventType, WatchedEvent};

use super::states::States;
use crate::invariants::{Check, violation};

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Set by `getData`, or by `exists` on a znode that is there.
    Data,
    /// Set by `exists` on a znode that is not there.
    Exists,
    /// Set by `getChildren2`.
    Children,
}

impl Kind {
    fn is_child(self) -> bool {
        self == Kind::Children
    }
}

/// The watches of one client.
#[derive(Debug, Default)]
pub struct Watches {
    /// By table (child or data) and path.
    armed: BTreeMap<(bool, String), (Kind, Zxid)>,
    /// A recursive watch of the root: how much of the list of all events was told.
    pub recursive: Option<usize>,
    last_event: Zxid,
    last_reply: Zxid,
    /// Between a reconnection and the moment at which watches are set again.
    suspended: bool,
    /// Told while watches are being set again.
    told_again: Vec<(EventType, String)>,
    pub events: u64,
    pub restored: u64,
}

impl Watches {
    /// A new connection: nothing was said on it.
    pub fn reconnected(&mut self) {
        self.last_event = Zxid::ZERO;
        self.last_reply = Zxid::ZERO;
        self.told_again.clear();
        self.suspended = !self.is_empty();
    }

    /// The session is over, and all its watches.
    pub fn forget(&mut self) {
        let (events, restored) = (self.events, self.restored);
        *self = Watches { events, restored, ..Watches::default() };
    }

    /// Whether there is anything to be set again.
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty() && self.recursive.is_none()
    }

    /// All watches, to be set again.
    pub fn list(&self) -> Vec<(Kind, String)> {
        self.armed.iter().map(|((_, path), (kind, _))| (*kind, path.clone())).collect()
    }

    /// A watch was set by a read that was answered at `zxid`.
    pub fn arm(&mut self, kind: Kind, path: &str, zxid: Zxid) {
        self.armed.entry((kind.is_child(), path.to_owned())).or_insert((kind, zxid));
    }

    /// A recursive watch of the root was set.
    pub fn arm_recursive(&mut self, states: &States, zxid: Zxid) {
        let events = states.all_events();
        self.recursive = Some(events.partition_point(|(event, _, _)| *event <= zxid));
    }

    /// An event has come.
    pub fn event(&mut self, states: &States, event: &WatchedEvent) -> Check {
        self.events += 1;
        let (event_type, path) = (event.event_type, &event.path);
        let Some(zxid) = event.zxid else {
            self.told_again.push((event_type, path.clone()));
            return Ok(());
        };
        let what = || format!("{event_type:?} of {path} at {zxid}");
        if zxid < self.last_event {
            let detail = format!("{} comes behind one at {}", what(), self.last_event);
            return violation("events come in order", detail);
        }
        self.last_event = zxid;
        if zxid <= self.last_reply {
            let detail = format!("{} comes behind an answer at {}", what(), self.last_reply);
            return violation("an event comes before any answer beyond it", detail);
        }
        if let Some(told) =
            self.recursive.as_mut().filter(|_| event_type != EventType::NodeChildrenChanged)
        {
            let expected = states.all_events().get(*told);
            *told += 1;
            return match expected {
                Some((at, kind, where_)) if (*at, *kind, where_) == (zxid, event_type, path) => {
                    Ok(())
                }
                _ => violation(
                    "a recursive watch tells everything once",
                    format!("{}; it should be {expected:?}", what()),
                ),
            };
        }
        let tables: &[bool] = match event_type {
            EventType::NodeCreated | EventType::NodeDataChanged => &[false],
            EventType::NodeChildrenChanged => &[true],
            _ => &[false, true],
        };
        let mut matched = false;
        for child in tables {
            let key = (*child, path.clone());
            let Some((_, since)) = self.armed.get(&key) else { continue };
            let first = states.first_event(*child, path, *since);
            // A znode that goes is told once for both tables.
            if first.is_some_and(|(at, kind)| at == zxid && (kind == event_type || *child)) {
                matched = true;
                self.armed.remove(&key);
            }
        }
        match matched {
            true => Ok(()),
            false => violation("a watch fires once, for what it waits for", what()),
        }
    }

    /// An answer has come.
    pub fn reply(&mut self, states: &States, zxid: Zxid) -> Check {
        self.last_reply = self.last_reply.max(zxid);
        if self.suspended {
            return Ok(());
        }
        for ((child, path), (_, since)) in &self.armed {
            if let Some((at, event)) = states.first_event(*child, path, *since)
                && at <= zxid
            {
                return violation(
                    "an event comes before any answer beyond it",
                    format!("{event:?} of {path} at {at} has not come before an answer at {zxid}"),
                );
            }
        }
        if let Some(told) = self.recursive
            && let Some((at, event, path)) = states.all_events().get(told)
            && *at <= zxid
        {
            let detail = format!("{event:?} of {path} at {at} was not told before {zxid}");
            return violation("a recursive watch tells everything once", detail);
        }
        Ok(())
    }

    /// Watches were set again relative to `seen`, and that was answered at `zxid`.
    pub fn restored(
        &mut self,
        states: &States,
        (seen, zxid): (Zxid, Zxid),
        asked: &[(Kind, String)],
    ) -> Check {
        self.restored += 1;
        self.suspended = false;
        let mut expected = Vec::new();
        for (kind, path) in asked {
            let znode = states.at(path, zxid);
            let event = match (kind, znode) {
                (Kind::Data | Kind::Children, None) => Some(EventType::NodeDeleted),
                (Kind::Data, Some(znode)) if znode.stat.mzxid > seen => {
                    Some(EventType::NodeDataChanged)
                }
                (Kind::Exists, Some(_)) => Some(EventType::NodeCreated),
                (Kind::Children, Some(znode)) if znode.stat.pzxid > seen => {
                    Some(EventType::NodeChildrenChanged)
                }
                _ => None,
            };
            let key = (kind.is_child(), path.clone());
            match event {
                Some(event) => {
                    expected.push((event, path.clone()));
                    self.armed.remove(&key);
                }
                None => {
                    self.armed.insert(key, (*kind, zxid));
                }
            }
        }
        let sorted = |mut list: Vec<(EventType, String)>| {
            list.sort_by(|a, b| (a.0.code(), &a.1).cmp(&(b.0.code(), &b.1)));
            list
        };
        let (expected, told) = (sorted(expected), sorted(std::mem::take(&mut self.told_again)));
        if self.recursive.is_some() {
            self.arm_recursive(states, zxid);
        }
        match expected == told {
            true => Ok(()),
            false => violation(
                "after a reconnection what was missed is told",
                format!("seen {seen}, at {zxid}: expected {expected:?}, told {told:?}"),
            ),
        }
    }
}
