//! Watches: each is told of the first change behind the reply that left it, before any reply that
//! shows the change, and once; also when the connection was lost meanwhile and the watches were set
//! again. No I/O.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use znodefs::path::{is_within, parent};
use znodefs::wire::{EventType, WatchedEvent};
use znodefs::{ErrorCode, Zxid};

use super::report::Subject;
use super::search::{Change, Changes};
use super::{Call, ClientId, History, Operation, Outcome, Report, Step};

const MISSED: &str = "a watch tells before a reply shows the change";
const ONCE: &str = "a watch fires once, and for a reason";
const ORDER: &str = "events come in the order of changes, before later replies";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Table {
    Data,
    Children,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    since: Zxid,
    /// Left by `exists` of a znode that was not there: one that came and went while there was no
    /// connection is not told of.
    on_absent: bool,
    /// The first change behind it.
    due: Option<Zxid>,
}

/// What one client watches.
#[derive(Default)]
struct Watcher {
    armed: HashMap<(Table, String), Armed>,
    due: BinaryHeap<Reverse<(Zxid, Table, String)>>,
    persistent: Vec<(String, bool)>,
    last_reply: Zxid,
    last_event: Zxid,
    /// Since its watches were set again it has got no reply.
    is_returning: bool,
    /// Deletions told of since then: each list of watches that are set again tells for itself.
    told_at_return: HashSet<String>,
}

/// The certain changes behind each table.
struct Sources<'a> {
    of_znodes: &'a HashMap<String, Changes>,
    of_children: HashMap<String, Vec<Zxid>>,
}

impl<'a> Sources<'a> {
    fn new(of_znodes: &'a HashMap<String, Changes>) -> Sources<'a> {
        let mut below: BTreeMap<&str, Vec<Zxid>> = BTreeMap::new();
        for (path, changes) in of_znodes {
            let zxids = below.entry(parent(path).unwrap_or("/")).or_default();
            let comes_or_goes = |(_, change): &&(Zxid, Change)| *change != Change::Set;
            zxids.extend(changes.changes.iter().filter(comes_or_goes).map(|(zxid, _)| *zxid));
        }
        let mut of_children = HashMap::new();
        for (path, mut zxids) in below {
            zxids.sort();
            of_children.insert(path.to_string(), zxids);
        }
        Sources { of_znodes, of_children }
    }

    /// The first change that a watch of this kind is told of, behind a zxid.
    fn first_after(&self, table: Table, path: &str, since: Zxid) -> Option<Zxid> {
        let own = self.of_znodes.get(path).and_then(|changes| {
            let counts = |change: Change| table == Table::Data || change == Change::Deleted;
            let start = changes.changes.partition_point(|(zxid, _)| *zxid <= since);
            let later = changes.changes[start..].iter();
            later.filter(|(_, change)| counts(*change)).map(|(zxid, _)| *zxid).next()
        });
        let children = self.of_children.get(path).filter(|_| table == Table::Children);
        let child = children
            .and_then(|zxids| zxids.get(zxids.partition_point(|zxid| *zxid <= since)).copied());
        own.into_iter().chain(child).min()
    }

    /// Whether a znode is surely there behind a zxid.
    fn is_present(&self, path: &str, at: Zxid) -> bool {
        self.of_znodes.get(path).is_some_and(|changes| {
            let count = changes.changes.partition_point(|(zxid, _)| *zxid <= at);
            let last = changes.changes[..count].last();
            !changes.is_uncertain && last.is_some_and(|(_, change)| *change != Change::Deleted)
        })
    }

    fn is_uncertain(&self, table: Table, path: &str) -> bool {
        // Of children not every znode is looked at: what is not certain there is let pass.
        table == Table::Children
            || self.of_znodes.get(path).is_none_or(|changes| changes.is_uncertain)
    }
}

pub(super) fn check(history: &History, changes: &HashMap<String, Changes>, report: &mut Report) {
    let sources = Sources::new(changes);
    let mut watchers: Vec<Watcher> = Vec::new();
    watchers.resize_with(history.sessions.len(), Watcher::default);
    for (place, noted) in history.noted.iter().enumerate() {
        let watcher = &mut watchers[noted.client.0];
        let findings = match &noted.step {
            Step::Completed(id) => watcher.answered(&sources, &history.operations[id.0]),
            Step::Event(event) => watcher.told(&sources, event),
            Step::Reconnected { watches_kept } => watcher.returned(*watches_kept),
            Step::Over { .. } => {
                *watcher = Watcher::default();
                Vec::new()
            }
            Step::Opened(_) | Step::Invoked(_) | Step::Disconnected => Vec::new(),
        };
        for finding in findings {
            // Each costs a look at the whole history.
            if !report.is_full() {
                finding.report(history, noted.client, place, report);
            }
        }
    }
}

/// Something wrong, and the znode and zxid that it is about where there are such.
struct Finding {
    rule: &'static str,
    description: String,
    about: Option<(String, Zxid)>,
}

impl Finding {
    fn report(self, history: &History, client: ClientId, place: usize, report: &mut Report) {
        let seen = Subject::Client(client, place);
        let Finding { rule, mut description, about } = self;
        if let Some((path, zxid)) = &about {
            let subject = Subject::Znode(path, *zxid);
            description =
                format!("client {}: {description}\n{}", client.0, history.excerpt(subject));
        }
        report.add(history, rule, description, seen);
    }
}

impl Watcher {
    fn arm(&mut self, sources: &Sources<'_>, table: Table, path: &str, since: Zxid, absent: bool) {
        let due = sources.first_after(table, path, since);
        if let Some(due) = due {
            self.due.push(Reverse((due, table, path.to_string())));
        }
        self.armed.insert((table, path.to_string()), Armed { since, on_absent: absent, due });
    }

    fn answered(&mut self, sources: &Sources<'_>, operation: &Operation) -> Vec<Finding> {
        let Some(zxid) = operation.outcome.zxid() else { return Vec::new() };
        if std::mem::take(&mut self.is_returning) {
            self.forget_what_came_and_went(sources, zxid);
        }
        let findings = self.find_missed(zxid);
        self.last_reply = self.last_reply.max(zxid);
        let is_done = matches!(operation.outcome, Outcome::Done { .. });
        let is_absent =
            matches!(operation.outcome, Outcome::Failed { error: ErrorCode::NoNode, .. });
        match &operation.call {
            Call::GetData { path, watch: true } if is_done => {
                self.arm(sources, Table::Data, path, zxid, false);
            }
            Call::Exists { path, watch: true } if is_done || is_absent => {
                self.arm(sources, Table::Data, path, zxid, is_absent);
            }
            Call::GetChildren { path, watch: true } if is_done => {
                self.arm(sources, Table::Children, path, zxid, false);
            }
            Call::AddWatch { path, recursive } if is_done => {
                self.persistent.push((path.clone(), *recursive));
            }
            _ => {}
        }
        findings
    }

    /// A reply shows everything up to its zxid: whatever was due by then has to have been told.
    fn find_missed(&mut self, zxid: Zxid) -> Vec<Finding> {
        let mut findings = Vec::new();
        while self.due.peek().is_some_and(|next| next.0.0 <= zxid) {
            let Some(Reverse((due, table, path))) = self.due.pop() else { break };
            let key = (table, path);
            // It may have been told of, or left again later.
            if self.armed.get(&key).is_none_or(|armed| armed.due != Some(due)) {
                continue;
            }
            let Some(armed) = self.armed.remove(&key) else { continue };
            let path = key.1;
            let description = format!(
                "no event for {path} by the reply at {zxid}, although it changed at {due} and the \
                 {table:?} watch was left at {}",
                armed.since
            );
            let about = Some((path, due));
            findings.push(Finding { rule: MISSED, description, about });
        }
        findings
    }

    /// Watches on absent znodes that were set again tell of nothing that is no longer there.
    fn forget_what_came_and_went(&mut self, sources: &Sources<'_>, zxid: Zxid) {
        let gone: Vec<String> = self
            .armed
            .iter()
            .filter(|(_, armed)| armed.on_absent && armed.due.is_some_and(|due| due <= zxid))
            .filter(|((_, path), _)| !sources.is_present(path, zxid))
            .map(|((_, path), _)| path.clone())
            .collect();
        for path in gone {
            self.arm(sources, Table::Data, &path, zxid, true);
        }
    }

    fn told(&mut self, sources: &Sources<'_>, event: &WatchedEvent) -> Vec<Finding> {
        let tables: &[Table] = match event.event_type {
            EventType::NodeCreated | EventType::NodeDataChanged => &[Table::Data],
            EventType::NodeDeleted => &[Table::Data, Table::Children],
            EventType::NodeChildrenChanged => &[Table::Children],
            EventType::None | EventType::Unknown(_) => return Vec::new(),
        };
        let mut findings = Vec::new();
        let mut find = |rule, description: String| {
            let about = event.zxid.map(|zxid| (event.path.clone(), zxid));
            findings.push(Finding { rule, description, about });
        };
        let used: Vec<(Table, Armed)> = tables
            .iter()
            .filter_map(|table| Some((*table, self.armed.remove(&(*table, event.path.clone()))?)))
            .collect();
        let is_persistent = self.persistent.iter().any(|(path, recursive)| {
            *path == event.path || *recursive && is_within(&event.path, path)
        });
        let is_told_twice = event.zxid.is_none()
            && self.is_returning
            && event.event_type == EventType::NodeDeleted
            && !self.told_at_return.insert(event.path.clone());
        if used.is_empty() && !is_persistent && !is_told_twice {
            find(ONCE, format!("{:?} {} without a watch", event.event_type, event.path));
        }
        match event.zxid {
            Some(zxid) => {
                if zxid <= self.last_reply || zxid < self.last_event {
                    let (reply, last) = (self.last_reply, self.last_event);
                    find(
                        ORDER,
                        format!("an event of {zxid} after a reply at {reply}, event at {last}"),
                    );
                }
                self.last_event = self.last_event.max(zxid);
                for (_, armed) in &used {
                    let skips = armed.due.is_some_and(|due| due < zxid);
                    if skips && !(armed.on_absent && self.is_returning) {
                        let due = armed.due.unwrap_or_default();
                        find(MISSED, format!("{} is told at {zxid}, not at {due}", event.path));
                    }
                }
            }
            None => {
                for (table, armed) in &used {
                    if armed.due.is_none() && !sources.is_uncertain(*table, &event.path) {
                        find(ONCE, format!("{} is told, and has not changed", event.path));
                    }
                }
            }
        }
        findings
    }

    fn returned(&mut self, watches_kept: bool) -> Vec<Finding> {
        if !watches_kept {
            self.armed.clear();
            self.persistent.clear();
        }
        self.is_returning = watches_kept;
        self.told_at_return.clear();
        self.last_event = Zxid::ZERO;
        Vec::new()
    }
}
