//! What a watcher knows of the znodes it watches, so that after an outage it can tell what has changed
//! meanwhile: servers replay nothing for persistent watches. No I/O: events and replies go in, in the
//! order in which they came over the wire, and changes come out, each once.
//!
//! That order is what makes it right: an event stands before every reply that shows its change. So a
//! znode that a reply shows, and no event has told of, was created without a connection.

use std::collections::{BTreeMap, HashSet};

use crate::path;
use crate::stat::Stat;
use crate::wire::{EventType, WatchedEvent};
use crate::zxid::Zxid;

/// What has happened to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was there when the watching began.
    Present,
    /// It was created.
    Created,
    /// Its data was set.
    Changed,
    /// A child of it was created or deleted.
    Children,
    /// It was deleted.
    Deleted,
}

/// Stands for a transaction that nobody has told of.
const UNKNOWN: Zxid = Zxid(-1);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What has happened.
    pub kind: ChangeKind,
    /// To which znode.
    pub path: String,
    /// The transaction; `None` where nobody says, as for what was deleted during an outage.
    pub zxid: Option<Zxid>,
}

/// The newest transactions of a znode that are known of: its creation, its data, its children.
#[derive(Clone, Copy, Debug)]
struct Known {
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
}

impl Known {
    fn of(stat: &Stat) -> Known {
        Known { czxid: stat.czxid, mzxid: stat.mzxid, pzxid: stat.pzxid }
    }
}

/// The znodes watched: one, or a whole subtree.
#[derive(Debug)]
pub struct WatchedTree {
    /// Whether it is a whole subtree, whose watch tells nothing of lists of children.
    is_recursive: bool,
    /// The last transaction before the watch was set.
    watched_since: Zxid,
    /// By [`key`].
    nodes: BTreeMap<String, Known>,
}

impl WatchedTree {
    /// Nothing is known yet; the watch was set when `watched_since` was the last transaction.
    pub fn new(is_recursive: bool, watched_since: Zxid) -> WatchedTree {
        WatchedTree { is_recursive, watched_since, nodes: BTreeMap::new() }
    }

    /// Takes an event. `seen` is the newest transaction that any reply before it has shown.
    pub fn event(&mut self, event: &WatchedEvent, seen: Zxid) -> Option<Change> {
        // Older servers do not say which transaction it was. It is newer than all that was seen; what
        // it was, `confirm` learns from a reply. Until then, too low a number makes a change be told
        // once more after an outage; too high a one would hide one.
        let zxid = event.zxid.unwrap_or(Zxid(seen.0 + 1));
        let kind = match event.event_type {
            EventType::NodeCreated => {
                let known = Known { czxid: zxid, mzxid: zxid, pzxid: zxid };
                self.nodes.insert(key(&event.path), known);
                ChangeKind::Created
            }
            EventType::NodeDeleted => {
                self.nodes.remove(&key(&event.path));
                ChangeKind::Deleted
            }
            EventType::NodeDataChanged => {
                self.known(&event.path).mzxid = zxid;
                ChangeKind::Changed
            }
            EventType::NodeChildrenChanged => {
                self.known(&event.path).pzxid = zxid;
                ChangeKind::Children
            }
            EventType::None | EventType::Unknown(_) => return None,
        };
        Some(Change { kind, path: event.path.clone(), zxid: event.zxid })
    }

    /// Takes a reply about a znode of which an event told without naming its transaction. Everything
    /// that the reply shows has been told.
    pub fn confirm(&mut self, path: &str, stat: &Stat) {
        *self.known(path) = Known::of(stat);
    }

    /// What is known of a znode that is there.
    fn known(&mut self, path: &str) -> &mut Known {
        let unknown = Known { czxid: UNKNOWN, mzxid: UNKNOWN, pzxid: UNKNOWN };
        self.nodes.entry(key(path)).or_insert(unknown)
    }

    /// Takes a reply about a znode that is there, with its children where a subtree is watched. Gives
    /// what no event has told of.
    pub fn found(&mut self, path: &str, stat: &Stat, children: &[String]) -> Vec<Change> {
        let mut changes = Vec::new();
        match self.nodes.get(&key(path)).copied() {
            None => changes.push(self.appeared(path, stat)),
            Some(known) if known.czxid != UNKNOWN && known.czxid < stat.czxid => {
                self.remove_subtree(path, &mut changes);
                changes.push(self.appeared(path, stat));
            }
            Some(known) => {
                let newer = |kind, known: Zxid, now: Zxid| {
                    let change = || Change { kind, path: path.to_string(), zxid: Some(now) };
                    (known != UNKNOWN && known < now).then(change)
                };
                changes.extend(newer(ChangeKind::Changed, known.mzxid, stat.mzxid));
                if !self.is_recursive {
                    changes.extend(newer(ChangeKind::Children, known.pzxid, stat.pzxid));
                }
                self.nodes.insert(key(path), Known::of(stat));
            }
        }
        if self.is_recursive {
            for gone in self.missing_children(path, children) {
                self.remove_subtree(&gone, &mut changes);
            }
        }
        changes
    }

    /// Takes a reply that says that a znode is not there.
    pub fn absent(&mut self, path: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        self.remove_subtree(path, &mut changes);
        changes
    }

    /// How many znodes are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn appeared(&mut self, path: &str, stat: &Stat) -> Change {
        self.nodes.insert(key(path), Known::of(stat));
        let was_there = stat.czxid <= self.watched_since;
        let kind = if was_there { ChangeKind::Present } else { ChangeKind::Created };
        let zxid = if was_there { stat.mzxid } else { stat.czxid };
        Change { kind, path: path.to_string(), zxid: Some(zxid) }
    }

    /// The known children of a znode that are not among `children`.
    fn missing_children(&self, parent: &str, children: &[String]) -> Vec<String> {
        let children: HashSet<&str> = children.iter().map(String::as_str).collect();
        let prefix = format!("{}\0", key(parent));
        let (mut missing, mut from) = (Vec::new(), prefix.clone());
        while let Some((found, _)) = self.nodes.range(from..).next() {
            let Some(rest) = found.strip_prefix(&prefix) else { break };
            let name = rest.split('\0').next().unwrap_or_default();
            if !children.contains(name) {
                missing.push(path::join(parent, name));
            }
            from = format!("{prefix}{name}\x01");
        }
        missing
    }

    /// Forgets a znode and all below it, deepest first, as they must have been deleted.
    fn remove_subtree(&mut self, top: &str, changes: &mut Vec<Change>) {
        let key = key(top);
        let subtree = self.nodes.range(key.clone()..format!("{key}\x01"));
        // The znode itself comes first; its siblings with longer names are not in this range.
        let gone: Vec<String> = subtree.map(|(found, _)| found.clone()).collect();
        for gone in gone.into_iter().rev() {
            self.nodes.remove(&gone);
            let path = if gone.is_empty() { "/".into() } else { gone.replace('\0', "/") };
            changes.push(Change { kind: ChangeKind::Deleted, path, zxid: None });
        }
    }
}

/// A path as a key that keeps each subtree together: `/a`, `/a/b`, `/a-b`. No path holds a zero
/// character, and none is smaller.
fn key(path: &str) -> String {
    if path == "/" { String::new() } else { path.replace('/', "\0") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::KeeperState;

    fn event(event_type: EventType, path: &str, zxid: i64) -> WatchedEvent {
        let zxid = (zxid > 0).then_some(Zxid(zxid));
        WatchedEvent { zxid, event_type, state: KeeperState::SYNC_CONNECTED, path: path.into() }
    }

    fn stat(czxid: i64, mzxid: i64, pzxid: i64) -> Stat {
        Stat { czxid: Zxid(czxid), mzxid: Zxid(mzxid), pzxid: Zxid(pzxid), ..Stat::default() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// Changes as words: kind, path, zxid.
    fn words(changes: Vec<Change>) -> Vec<String> {
        let zxid = |change: &Change| change.zxid.map_or("-".into(), |zxid| zxid.0.to_string());
        changes.iter().map(|c| format!("{:?} {} {}", c.kind, c.path, zxid(c))).collect()
    }

    /// A subtree watched since 10: /a (set at 3), /a/b, /a/b/c, /a-b.
    fn subtree() -> WatchedTree {
        let mut tree = WatchedTree::new(true, Zxid(10));
        for (path, stat, children) in [
            ("/", stat(0, 0, 4), &["a", "a-b"][..]),
            ("/a", stat(1, 3, 5), &["b"]),
            ("/a/b", stat(5, 5, 6), &["c"]),
            ("/a/b/c", stat(6, 6, 6), &[]),
            ("/a-b", stat(4, 4, 4), &[]),
        ] {
            let changes = tree.found(path, &stat, &names(children));
            assert!(matches!(changes[..], [Change { kind: ChangeKind::Present, .. }]));
        }
        tree
    }

    #[test]
    fn an_outage_without_changes_tells_nothing() {
        let mut tree = subtree();
        assert_eq!(tree.found("/a", &stat(1, 3, 5), &names(&["b"])), []);
        assert_eq!(tree.found("/", &stat(0, 0, 4), &names(&["a", "a-b"])), []);
    }

    #[test]
    fn what_was_created_set_and_deleted_in_an_outage_is_found() {
        let mut tree = subtree();
        assert_eq!(
            words(tree.found("/a", &stat(1, 12, 13), &names(&["d"]))),
            ["Changed /a 12", "Deleted /a/b/c -", "Deleted /a/b -",]
        );
        assert_eq!(words(tree.found("/a/d", &stat(13, 13, 13), &[])), ["Created /a/d 13"]);
        assert_eq!(words(tree.absent("/a-b")), ["Deleted /a-b -"]);
        assert_eq!(tree.absent("/a-b"), []);
    }

    #[test]
    fn a_znode_made_anew_in_an_outage_is_told_of_as_deleted_and_created() {
        let mut tree = subtree();
        assert_eq!(
            words(tree.found("/a", &stat(20, 21, 20), &[])),
            ["Deleted /a/b/c -", "Deleted /a/b -", "Deleted /a -", "Created /a 20",]
        );
        assert_eq!(tree.len(), 3);
    }

    #[test]
    fn what_events_have_told_is_not_told_again() {
        let mut tree = subtree();
        for (event_type, path, zxid) in [
            (EventType::NodeDataChanged, "/a", 12),
            (EventType::NodeCreated, "/a/d", 13),
            (EventType::NodeDeleted, "/a/b/c", 14),
            (EventType::NodeDeleted, "/a/b", 15),
        ] {
            assert!(tree.event(&event(event_type, path, zxid), Zxid(10)).is_some());
        }
        assert_eq!(tree.found("/a", &stat(1, 12, 15), &names(&["d"])), []);
        assert_eq!(tree.found("/a/d", &stat(13, 13, 13), &[]), []);
    }

    #[test]
    fn a_change_before_the_znode_was_looked_at_is_told_once() {
        let mut tree = WatchedTree::new(true, Zxid(10));
        let change = tree.event(&event(EventType::NodeDataChanged, "/a", 12), Zxid(10));
        assert_eq!(words(change.into_iter().collect()), ["Changed /a 12"]);
        assert_eq!(tree.found("/a", &stat(1, 12, 1), &[]), []);
        // Created after the watch was set, in an outage before the first look had ended.
        assert_eq!(words(tree.found("/b", &stat(14, 14, 14), &[])), ["Created /b 14"]);
    }

    #[test]
    fn one_znode_is_followed_with_its_list_of_children() {
        let mut tree = WatchedTree::new(false, Zxid(10));
        assert_eq!(tree.absent("/a"), []);
        assert!(tree.event(&event(EventType::NodeCreated, "/a", 11), Zxid(10)).is_some());
        assert_eq!(
            words(tree.found("/a", &stat(11, 12, 13), &[])),
            ["Changed /a 12", "Children /a 13",]
        );
        assert!(tree.event(&event(EventType::NodeChildrenChanged, "/a", 14), Zxid(13)).is_some());
        assert_eq!(tree.found("/a", &stat(11, 12, 14), &[]), []);
    }

    #[test]
    fn servers_that_name_no_transaction_make_a_change_be_told_twice_rather_than_never() {
        let mut tree = subtree();
        assert!(tree.event(&event(EventType::NodeDataChanged, "/a", 0), Zxid(11)).is_some());
        assert_eq!(tree.found("/a", &stat(1, 12, 5), &names(&["b"])), []);
        assert!(tree.event(&event(EventType::NodeDataChanged, "/a", 0), Zxid(12)).is_some());
        assert_eq!(words(tree.found("/a", &stat(1, 15, 5), &names(&["b"]))), ["Changed /a 15"]);
        assert!(tree.event(&event(EventType::NodeCreated, "/c", 0), Zxid(15)).is_some());
        tree.confirm("/c", &stat(20, 20, 20));
        assert_eq!(tree.found("/c", &stat(20, 20, 20), &[]), []);
    }
}
