//! What programs here have been told of: for every directory that the kernel holds, the znodes in
//! it, with the transactions that made and last set them. A comparison with the service then finds
//! what nobody was told of, and a deleted znode is announced as what it was. A plain state machine
//! without I/O, bounded in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use znodefs::{Stat, Zxid, path};

use crate::inode_table::View;

/// How many znodes are remembered at most, in all directories together.
pub const NAMES_MAX: usize = 1 << 18;

/// What a znode was announced as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

impl Kind {
    /// The kind that a view has.
    pub fn of(is_directory: bool) -> Kind {
        if is_directory { Kind::Directory } else { Kind::File }
    }

    /// How such a znode was shown: as a file, where nobody asked.
    pub fn view(self) -> View {
        if self == Kind::Directory { View::Directory } else { View::File }
    }
}

/// A znode as programs know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Child {
    /// The transaction that created it; 0 is unknown.
    pub czxid: Zxid,
    /// The transaction that last set its data; 0 is unknown.
    pub mzxid: Zxid,
    /// File or directory.
    pub kind: Kind,
}

impl Child {
    /// A znode with this stat.
    pub fn new(stat: &Stat, kind: Kind) -> Child {
        Child { czxid: stat.czxid, mzxid: stat.mzxid, kind }
    }

    /// Whether it is another znode now. What was not known counts as told of up to `told_up_to`.
    pub fn was_replaced(&self, now: &Stat, told_up_to: Zxid) -> bool {
        match self.czxid {
            Zxid::ZERO => now.czxid > told_up_to,
            known => known != now.czxid,
        }
    }

    /// Whether its data were set since.
    pub fn was_set(&self, now: &Stat, told_up_to: Zxid) -> bool {
        match self.mzxid {
            Zxid::ZERO => now.mzxid > told_up_to,
            known => known != now.mzxid,
        }
    }
}

#[derive(Debug, Default)]
struct Directory {
    children: HashMap<Box<str>, Child>,
    /// Whether every child is among them.
    is_complete: bool,
    /// How often its children were asked for in vain.
    attempts: u32,
}

/// How often the children of a directory are asked for when they keep changing meanwhile.
const ATTEMPTS_MAX: u32 = 5;

/// Everything that was announced.
#[derive(Debug)]
pub struct Announced {
    directories: HashMap<Arc<str>, Directory>,
    names: usize,
    names_max: usize,
    /// Directories whose children are to be asked for.
    unsurveyed: VecDeque<Arc<str>>,
    /// When some changes were not announced: those up to this transaction all were.
    told_up_to: Option<Zxid>,
    /// How often changes were missed.
    misses: u64,
    /// Znodes that a comparison has found other than announced and that are still to be announced:
    /// that a program or a survey comes across one first does not count. With each the transaction up
    /// to which everything was announced.
    due: HashMap<Box<str>, Zxid>,
}

/// That changes were missed, as of some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Everything up to this transaction was announced.
    pub told_up_to: Zxid,
    misses: u64,
}

impl Default for Announced {
    fn default() -> Announced {
        Announced::new(NAMES_MAX)
    }
}

impl Announced {
    /// Nothing yet; at most `names_max` znodes are going to be remembered.
    pub fn new(names_max: usize) -> Announced {
        Announced {
            directories: HashMap::new(),
            names: 0,
            names_max,
            unsurveyed: VecDeque::new(),
            told_up_to: None,
            misses: 0,
            due: HashMap::new(),
        }
    }

    /// The kernel holds a directory; whether that is new.
    pub fn hold(&mut self, directory: &Arc<str>) -> bool {
        if self.directories.contains_key(directory) {
            return false;
        }
        self.directories.insert(directory.clone(), Directory::default());
        self.unsurveyed.push_back(directory.clone());
        true
    }

    /// The kernel does not hold a directory any more, or it is gone.
    pub fn release(&mut self, directory: &str) {
        if let Some(released) = self.directories.remove(directory) {
            self.names -= released.children.len();
        }
    }

    /// The next directory whose children are to be asked for; give the answer to
    /// [`Announced::surveyed`].
    pub fn next_unsurveyed(&mut self) -> Option<Arc<str>> {
        while let Some(directory) = self.unsurveyed.pop_front() {
            if self.directories.get(&directory).is_some_and(|known| !known.is_complete) {
                return Some(directory);
            }
        }
        None
    }

    /// The children of a directory are not known after all; they are asked for again a few times.
    pub fn survey_failed(&mut self, directory: &Arc<str>) {
        let Some(known) = self.directories.get_mut(directory) else { return };
        known.attempts += 1;
        if known.attempts < ATTEMPTS_MAX {
            self.unsurveyed.push_back(directory.clone());
        }
    }

    /// All children of a directory, if there is room for them. Those that were known before stay as
    /// they were announced.
    pub fn surveyed(&mut self, directory: &str, mut children: Vec<(String, Child)>) {
        let Some(known) = self.directories.get_mut(directory) else { return };
        if known.is_complete || self.told_up_to.is_some() {
            return;
        }
        let due = &self.due;
        children.retain(|(name, _)| {
            !known.children.contains_key(name.as_str())
                && (due.is_empty() || !due.contains_key(path::join(directory, name).as_str()))
        });
        let new = children.len();
        if self.names + new > self.names_max {
            return;
        }
        for (name, child) in children {
            known.children.insert(name.into(), child);
        }
        known.is_complete = true;
        self.names += new;
    }

    /// A program was shown a znode of which it may have known nothing. In a directory whose children
    /// are all known it is one that is still going to be announced.
    pub fn observe(&mut self, znode: &str, child: Child) {
        let is_announced =
            self.told_up_to.is_none_or(|told| child.czxid <= told) && !self.due.contains_key(znode);
        let Some((directory, name)) = self.place(znode) else { return };
        match directory.children.get_mut(name) {
            Some(known) if known.kind == Kind::Unknown && known.czxid == child.czxid => {
                known.kind = child.kind;
            }
            Some(_) => {}
            None if directory.is_complete || !is_announced => {}
            None => self.told(znode, child),
        }
    }

    /// A comparison has found a znode other than announced; it is going to be announced.
    pub fn found(&mut self, znode: &str, told_up_to: Zxid) {
        self.due.entry(znode.into()).or_insert(told_up_to);
    }

    /// Where changes of a znode may have been missed: the transaction up to which all were announced.
    pub fn missed_of(&self, znode: &str) -> Option<Zxid> {
        self.due.get(znode).copied().or(self.told_up_to)
    }

    /// A znode was announced as it is now.
    pub fn told(&mut self, znode: &str, child: Child) {
        self.due.remove(znode);
        let has_room = self.names < self.names_max;
        let Some((directory, name)) = self.place(znode) else { return };
        if let Some(known) = directory.children.get_mut(name) {
            let kind = if child.kind == Kind::Unknown { known.kind } else { child.kind };
            *known = Child { kind, ..child };
        } else if has_room {
            directory.children.insert(name.into(), child);
            self.names += 1;
        } else {
            directory.is_complete = false;
        }
    }

    /// A znode's data were set by a transaction, which was announced.
    pub fn told_set(&mut self, znode: &str, mzxid: Zxid) {
        if let Some((directory, name)) = self.place(znode)
            && let Some(child) = directory.children.get_mut(name)
        {
            child.mzxid = mzxid;
        }
    }

    /// A znode's end was announced.
    pub fn told_gone(&mut self, znode: &str) {
        self.due.remove(znode);
        if let Some((directory, name)) = self.place(znode)
            && directory.children.remove(name).is_some()
        {
            self.names -= 1;
        }
        self.release(znode);
    }

    /// A znode has got a child.
    pub fn is_parent(&mut self, znode: &str) {
        if let Some((directory, name)) = self.place(znode)
            && let Some(child) = directory.children.get_mut(name)
        {
            child.kind = Kind::Directory;
        }
    }

    fn place<'a>(&mut self, znode: &'a str) -> Option<(&mut Directory, &'a str)> {
        let directory = self.directories.get_mut(path::parent(znode)?)?;
        Some((directory, path::name(znode)))
    }

    /// What was announced of a znode.
    pub fn child(&self, znode: &str) -> Option<Child> {
        let directory = self.directories.get(path::parent(znode)?)?;
        directory.children.get(path::name(znode)).copied()
    }

    /// The directories that the kernel holds.
    pub fn directories(&self) -> Vec<Arc<str>> {
        self.directories.keys().cloned().collect()
    }

    /// The names announced in a directory, and whether these are all.
    pub fn names(&self, directory: &str) -> Option<(Vec<Box<str>>, bool)> {
        let known = self.directories.get(directory)?;
        Some((known.children.keys().cloned().collect(), known.is_complete))
    }

    /// From now on changes are not announced; all up to this transaction were.
    pub fn miss(&mut self, told_up_to: Zxid) {
        self.told_up_to = Some(self.told_up_to.map_or(told_up_to, |known| known.min(told_up_to)));
        self.misses += 1;
    }

    /// What was missed so far, if anything was.
    pub fn missed(&self) -> Option<Missed> {
        let told_up_to = self.told_up_to?;
        Some(Missed { told_up_to, misses: self.misses })
    }

    /// Everything that was missed up to a time has been found; false when more was missed
    /// meanwhile, so that it has to be looked for again.
    pub fn caught_up(&mut self, missed: Missed) -> bool {
        if self.misses != missed.misses {
            return false;
        }
        self.told_up_to = None;
        let incomplete = self.directories.iter().filter(|(_, known)| !known.is_complete);
        self.unsurveyed.extend(incomplete.map(|(directory, _)| directory.clone()));
        true
    }

    /// How many znodes are remembered.
    pub fn len(&self) -> usize {
        self.names
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.names == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(zxid: i64, kind: Kind) -> Child {
        Child { czxid: Zxid(zxid), mzxid: Zxid(zxid), kind }
    }

    fn holding(directory: &str) -> Announced {
        let mut announced = Announced::default();
        assert!(announced.hold(&directory.into()) && !announced.hold(&directory.into()));
        announced
    }

    #[test]
    fn what_a_program_was_shown_first_counts_as_announced() {
        let mut announced = holding("/d");
        announced.observe("/d/a", child(5, Kind::File));
        announced.observe("/d/a", child(9, Kind::Directory));
        assert_eq!(announced.child("/d/a"), Some(child(5, Kind::File)), "the rest comes by replay");
        announced.observe("/elsewhere/a", child(5, Kind::File));
        assert_eq!(announced.len(), 1);
    }

    #[test]
    fn where_all_children_are_known_a_new_one_has_yet_to_be_announced() {
        let mut announced = holding("/d");
        assert_eq!(announced.next_unsurveyed().as_deref(), Some("/d"));
        announced.surveyed("/d", vec![("a".into(), child(5, Kind::File))]);
        announced.observe("/d/b", child(6, Kind::File));
        assert_eq!(announced.child("/d/b"), None);
        announced.told("/d/b", child(6, Kind::File));
        announced.told_gone("/d/a");
        let (names, is_complete) = announced.names("/d").unwrap();
        assert!(is_complete && names == [Box::from("b")]);
        announced.release("/d");
        assert!(announced.is_empty());
    }

    #[test]
    fn what_was_missed_is_not_taken_for_announced() {
        let mut announced = holding("/d");
        announced.miss(Zxid(10));
        announced.miss(Zxid(12));
        announced.observe("/d/old", child(9, Kind::File));
        announced.observe("/d/new", child(11, Kind::File));
        announced.surveyed("/d", vec![("other".into(), child(12, Kind::File))]);
        let names = announced.names("/d").unwrap();
        assert_eq!(names, (vec!["old".into()], false));
        let missed = announced.missed().unwrap();
        assert_eq!(missed.told_up_to, Zxid(10));
        announced.miss(Zxid(13));
        assert!(!announced.caught_up(missed), "more was missed");
        let missed = announced.missed().unwrap();
        assert_eq!(missed.told_up_to, Zxid(10));
        assert!(announced.caught_up(missed));
        assert_eq!(announced.missed(), None);
        assert_eq!(announced.next_unsurveyed().as_deref(), Some("/d"));
    }

    #[test]
    fn what_a_comparison_has_found_is_unknown_until_it_is_announced() {
        let mut announced = holding("/d");
        announced.miss(Zxid(10));
        announced.found("/d/a", Zxid(10));
        announced.found("/d/b", Zxid(10));
        assert!(announced.caught_up(announced.missed().unwrap()));
        announced.observe("/d/a", child(11, Kind::File));
        let listed = ["a", "b", "c"].map(|name| (name.into(), child(11, Kind::File)));
        announced.surveyed("/d", listed.to_vec());
        let (names, is_complete) = announced.names("/d").unwrap();
        assert!(is_complete && names == [Box::from("c")], "{names:?}");
        assert_eq!(announced.missed_of("/d/a"), Some(Zxid(10)));
        announced.told("/d/a", child(11, Kind::File));
        announced.told_gone("/d/b");
        assert_eq!(announced.missed_of("/d/a"), None);
        assert_eq!(announced.names("/d").unwrap().0.len(), 2);
        assert!(announced.due.is_empty() && announced.len() == 2);
    }

    #[test]
    fn changes_are_told_by_transactions_and_else_by_what_was_told_up_to() {
        let stat =
            |czxid, mzxid| Stat { czxid: Zxid(czxid), mzxid: Zxid(mzxid), ..Stat::default() };
        let known = Child { czxid: Zxid(5), mzxid: Zxid(7), kind: Kind::File };
        assert!(!known.was_replaced(&stat(5, 7), Zxid(1)) && !known.was_set(&stat(5, 7), Zxid(1)));
        assert!(known.was_replaced(&stat(9, 9), Zxid(20)));
        assert!(known.was_set(&stat(5, 8), Zxid(20)));
        let unknown = Child::default();
        assert!(!unknown.was_replaced(&stat(5, 7), Zxid(7)));
        assert!(unknown.was_replaced(&stat(8, 8), Zxid(7)));
        assert!(!unknown.was_set(&stat(5, 7), Zxid(7)) && unknown.was_set(&stat(5, 8), Zxid(7)));
    }

    #[test]
    fn a_kind_once_known_stays_known_and_a_child_makes_a_directory() {
        let mut announced = holding("/d");
        announced.told("/d/a", child(5, Kind::File));
        announced.told("/d/a", child(6, Kind::Unknown));
        assert_eq!(announced.child("/d/a").unwrap().kind, Kind::File);
        announced.is_parent("/d/a");
        announced.told_set("/d/a", Zxid(8));
        let expected = Child { czxid: Zxid(6), mzxid: Zxid(8), kind: Kind::Directory };
        assert_eq!(announced.child("/d/a"), Some(expected));
    }

    #[test]
    fn memory_is_bounded() {
        let mut announced = Announced::new(3);
        announced.hold(&"/d".into());
        announced.hold(&"/e".into());
        let many = |count: usize| (0..count).map(|n| (n.to_string(), Child::default())).collect();
        announced.surveyed("/d", many(4));
        assert_eq!(announced.names("/d").unwrap(), (vec![], false));
        announced.surveyed("/d", many(3));
        assert!(announced.names("/d").unwrap().1);
        announced.told("/d/3", Child::default());
        assert!(!announced.names("/d").unwrap().1, "one of them is not remembered");
        announced.told("/e/1", Child::default());
        assert_eq!(announced.len(), 3);
        announced.release("/d");
        announced.told("/e/1", Child::default());
        assert_eq!(announced.len(), 1);
    }

    #[test]
    fn a_directory_that_keeps_changing_is_surveyed_a_few_times() {
        let mut announced = holding("/d");
        let mut count = 0;
        while let Some(directory) = announced.next_unsurveyed() {
            announced.survey_failed(&directory);
            count += 1;
        }
        assert_eq!(count, ATTEMPTS_MAX);
    }
}
