//! What others changed and what has not been replayed yet: merged per znode, queued per directory,
//! so that a directory in which a request hangs holds up no other. A plain state machine without
//! I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use znodefs::{Zxid, path};

use crate::echo::Happening;

/// How many znodes are remembered at most; beyond that everything is compared instead.
pub const ZNODES_MAX: usize = 1 << 16;

/// What happened to a znode since it was last replayed. Bursts are merged: what counts is where they
/// began and where they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// Whether the first creation or deletion was a deletion: the znode was there before.
    pub was_there: bool,
    /// The last creation or deletion.
    pub last: Option<Happening>,
    /// Whether the data were set after it.
    pub is_changed: bool,
    /// The newest transaction among them, where the server tells it.
    pub zxid: Option<Zxid>,
    /// Whether the name has to appear although this mount has made it: a program asked for another.
    pub is_announced: bool,
    /// Whether a comparison has found it: then what matters is the difference between what was
    /// announced and what there is. Everything up to this transaction was announced.
    pub compared: Option<Zxid>,
    /// Everything up to this transaction was announced, or is noted elsewhere.
    pub after: Zxid,
    /// How often it was tried before.
    pub attempts: u32,
}

impl Remote {
    fn add(&mut self, happening: Happening, zxid: Option<Zxid>) {
        match happening {
            Happening::Changed => self.is_changed = true,
            Happening::Created | Happening::Deleted => {
                if self.last.is_none() {
                    self.was_there = happening == Happening::Deleted;
                }
                self.last = Some(happening);
                self.is_changed = false;
            }
        }
        self.zxid = self.zxid.max(zxid);
    }

    /// What came later is in `newer`.
    fn merge(&mut self, newer: Remote) {
        if let Some(last) = newer.last {
            if self.last.is_none() {
                self.was_there = newer.was_there;
            }
            self.last = Some(last);
            self.is_changed = newer.is_changed;
        } else {
            self.is_changed |= newer.is_changed;
        }
        self.zxid = self.zxid.max(newer.zxid);
        self.is_announced |= newer.is_announced;
        self.compared = self.compared.or(newer.compared);
        self.after = self.after.min(newer.after);
        self.attempts = self.attempts.max(newer.attempts);
    }
}

/// Changes of one directory that are to be replayed in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The directory; give it back to [`RemoteChanges::done`].
    pub directory: Arc<str>,
    /// Paths of znodes and what happened to them.
    pub changes: Vec<(Arc<str>, Remote)>,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<Arc<str>>,
    changes: HashMap<Arc<str>, Remote>,
    /// Those being replayed.
    in_progress: HashSet<Arc<str>>,
}

/// Everything that is to be replayed.
#[derive(Debug, Default)]
pub struct RemoteChanges {
    directories: HashMap<Arc<str>, Queue>,
    /// Directories with changes of which nothing is in progress.
    ready: VecDeque<Arc<str>>,
    count: usize,
}

fn directory_of(znode: &str) -> &str {
    path::parent(znode).unwrap_or(znode)
}

impl RemoteChanges {
    /// Notes something that happened to a znode after the transaction `after`; false when there is
    /// no room.
    pub fn note(
        &mut self,
        znode: &str,
        happening: Happening,
        zxid: Option<Zxid>,
        after: Zxid,
    ) -> bool {
        let mut remote = Remote { after, ..Remote::default() };
        remote.add(happening, zxid);
        self.put(znode, remote)
    }

    /// Notes that what a znode is shown as has to be looked at again.
    pub fn note_shape(&mut self, znode: &str, after: Zxid) -> bool {
        self.put(znode, Remote { after, ..Remote::default() })
    }

    /// Notes that a znode made here under another name is to be announced under its own.
    pub fn note_announcement(&mut self, znode: &str, after: Zxid) -> bool {
        self.put(znode, Remote { is_announced: true, after, ..Remote::default() })
    }

    /// Notes that a comparison has found a znode other than it was announced; everything up to
    /// `told_up_to` was.
    pub fn note_compared(&mut self, znode: &str, told_up_to: Zxid) -> bool {
        let compared = Some(told_up_to);
        self.put(znode, Remote { compared, after: told_up_to, ..Remote::default() })
    }

    /// Takes back what could not be replayed; what came meanwhile is newer.
    pub fn put_back(&mut self, znode: &str, remote: Remote) -> bool {
        let newer = self.queue(znode).and_then(|queue| queue.changes.get(znode)).copied();
        let mut remote = remote;
        if let Some(newer) = newer {
            remote.merge(newer);
            if let Some(queue) = self.directories.get_mut(directory_of(znode)) {
                queue.changes.insert(znode.into(), remote);
            }
            return true;
        }
        self.put(znode, remote)
    }

    fn queue(&self, znode: &str) -> Option<&Queue> {
        self.directories.get(directory_of(znode))
    }

    fn put(&mut self, znode: &str, remote: Remote) -> bool {
        let directory = directory_of(znode);
        if !self.directories.contains_key(directory) {
            self.directories.insert(directory.into(), Queue::default());
        }
        let Some(queue) = self.directories.get_mut(directory) else { return false };
        if let Some(known) = queue.changes.get_mut(znode) {
            known.merge(remote);
            return true;
        }
        if self.count >= ZNODES_MAX {
            return false;
        }
        if queue.order.is_empty() && queue.in_progress.is_empty() {
            self.ready.push_back(directory.into());
        }
        let znode: Arc<str> = znode.into();
        queue.order.push_back(znode.clone());
        queue.changes.insert(znode, remote);
        self.count += 1;
        true
    }

    /// The next changes, at most `length_max` of one directory. Nothing else of it is given out
    /// until it is done. A directory's end comes after the ends of what was in it.
    pub fn take(&mut self, length_max: usize) -> Option<Batch> {
        for _ in 0..self.ready.len() {
            let directory = self.ready.pop_front()?;
            let count = self.ready_length(&directory, length_max);
            if count == 0 {
                self.ready.push_back(directory);
                continue;
            }
            let queue = self.directories.get_mut(&directory)?;
            let mut changes = Vec::with_capacity(count);
            for znode in queue.order.drain(..count) {
                let Some(remote) = queue.changes.remove(&znode) else { continue };
                queue.in_progress.insert(znode.clone());
                changes.push((znode, remote));
            }
            self.count -= changes.len();
            return Some(Batch { directory, changes });
        }
        None
    }

    /// How many changes of a directory come before the first that has to wait.
    fn ready_length(&self, directory: &str, length_max: usize) -> usize {
        let Some(queue) = self.directories.get(directory) else { return 0 };
        let may_be_told = |znode: &&Arc<str>| {
            let is_gone = queue
                .changes
                .get(*znode)
                .is_some_and(|remote| remote.last == Some(Happening::Deleted));
            // The root's own queue is that of its children too.
            !is_gone || &***znode == directory || !self.directories.contains_key(*znode)
        };
        queue.order.iter().take(length_max).take_while(may_be_told).count()
    }

    /// A batch of this directory has been replayed.
    pub fn done(&mut self, directory: &str) {
        let Some(queue) = self.directories.get_mut(directory) else { return };
        queue.in_progress.clear();
        if queue.order.is_empty() {
            self.directories.remove(directory);
        } else {
            self.ready.push_back(directory.into());
        }
    }

    /// Whether something of this znode is still to be replayed.
    pub fn is_pending(&self, znode: &str) -> bool {
        self.queue(znode).is_some_and(|queue| {
            queue.changes.contains_key(znode) || queue.in_progress.contains(znode)
        })
    }

    /// Whether nothing is to be replayed, nor being replayed.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(changes: &mut RemoteChanges, znode: &str, happening: Happening, zxid: i64) {
        assert!(changes.note(znode, happening, Some(Zxid(zxid)), Zxid(zxid - 1)));
    }

    #[test]
    fn a_burst_is_merged_into_its_beginning_and_end() {
        let mut changes = RemoteChanges::default();
        note(&mut changes, "/a", Happening::Changed, 1);
        note(&mut changes, "/a", Happening::Deleted, 2);
        note(&mut changes, "/a", Happening::Created, 3);
        note(&mut changes, "/a", Happening::Changed, 4);
        let batch = changes.take(10).unwrap();
        let expected = Remote {
            was_there: true,
            last: Some(Happening::Created),
            is_changed: true,
            zxid: Some(Zxid(4)),
            after: Zxid(0),
            ..Remote::default()
        };
        assert_eq!(batch.changes, [("/a".into(), expected)]);
        changes.done(&batch.directory);
        assert!(changes.is_empty());
    }

    #[test]
    fn each_directory_has_its_own_queue_in_order() {
        let mut changes = RemoteChanges::default();
        for znode in ["/a/1", "/b/1", "/a/2", "/a/3"] {
            note(&mut changes, znode, Happening::Created, 1);
        }
        let names = |batch: &Batch| -> Vec<String> {
            batch.changes.iter().map(|(znode, _)| znode.to_string()).collect()
        };
        let first = changes.take(2).unwrap();
        assert_eq!(names(&first), ["/a/1", "/a/2"]);
        let second = changes.take(2).unwrap();
        assert_eq!(names(&second), ["/b/1"]);
        assert_eq!(changes.take(2), None, "the rest waits for the first of its directory");
        assert!(changes.is_pending("/a/1") && changes.is_pending("/a/3"));
        changes.done(&first.directory);
        assert!(!changes.is_pending("/a/1"));
        assert_eq!(names(&changes.take(2).unwrap()), ["/a/3"]);
    }

    #[test]
    fn a_directory_ends_after_what_was_in_it() {
        let mut changes = RemoteChanges::default();
        note(&mut changes, "/d", Happening::Created, 1);
        note(&mut changes, "/e", Happening::Changed, 2);
        note(&mut changes, "/e/f", Happening::Deleted, 3);
        note(&mut changes, "/e", Happening::Deleted, 4);
        note(&mut changes, "/g", Happening::Created, 5);
        let top = changes.take(10).unwrap();
        assert_eq!(top.changes.len(), 1, "the end of /e waits, and what came after it");
        let inside = changes.take(10).unwrap();
        assert_eq!(&*inside.changes[0].0, "/e/f");
        changes.done(&top.directory);
        assert_eq!(changes.take(10), None);
        changes.done(&inside.directory);
        let rest = changes.take(10).unwrap();
        let names: Vec<_> = rest.changes.iter().map(|(znode, _)| &**znode).collect();
        assert_eq!(names, ["/e", "/g"]);
        changes.done(&rest.directory);
        assert!(changes.is_empty());
    }

    #[test]
    fn what_comes_while_a_znode_is_replayed_is_replayed_again() {
        let mut changes = RemoteChanges::default();
        note(&mut changes, "/a", Happening::Changed, 1);
        let batch = changes.take(10).unwrap();
        note(&mut changes, "/a", Happening::Deleted, 2);
        assert_eq!(changes.take(10), None);
        changes.put_back("/a", batch.changes[0].1);
        changes.done(&batch.directory);
        let again = changes.take(10).unwrap();
        assert_eq!(again.changes[0].1.last, Some(Happening::Deleted));
        assert!(again.changes[0].1.was_there && !again.changes[0].1.is_changed);
    }

    #[test]
    fn memory_is_bounded_and_known_znodes_are_still_merged() {
        let mut changes = RemoteChanges::default();
        for number in 0..ZNODES_MAX {
            note(&mut changes, &format!("/d/{number}"), Happening::Created, 1);
        }
        assert!(!changes.note("/d/one-more", Happening::Created, None, Zxid(1)));
        assert!(changes.note("/d/1", Happening::Changed, None, Zxid(1)));
    }
}
