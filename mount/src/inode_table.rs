//! The inodes that the kernel holds: their numbers, names, znodes and lookup counts. A plain state
//! machine without I/O; whoever asks the servers tells it what they said.
//!
//! An inode's identity is the name under which it is shown (its parent's inode and its file name),
//! what of the znode it shows, and the transaction that created the znode: a znode that was deleted
//! and created again is another inode. Its number is derived from that identity, so it is the same
//! after a forget and in every mount. Only a rename keeps a number although the identity changes,
//! because the kernel goes on using its inode, and then only as long as the kernel holds it.

use std::collections::HashMap;
use std::sync::Arc;

use znodefs::path::is_within;
use znodefs::{Acl, Stat, Zxid};

use crate::journal::Moment;

/// The number of the mount's root.
pub const ROOT: u64 = 1;

/// Numbers below this one are not derived from znodes: the root and the status files.
pub const NUMBER_MIN: u64 = 1 << 10;

/// What of a znode an inode shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// The data, as a regular file under the znode's own name.
    File,
    /// The children, as a directory under the znode's own name.
    Directory,
    /// The children, as a directory under `NAME@dir`.
    AsDirectory,
    /// The data, as the file `@data` of the directory.
    Data,
}

impl View {
    /// Whether it is a directory.
    pub fn is_directory(self) -> bool {
        matches!(self, View::Directory | View::AsDirectory)
    }

    /// Whether it is shown under the znode's own name.
    pub fn is_name(&self) -> bool {
        matches!(self, View::File | View::Directory)
    }
}

/// What the servers last said about a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    /// Its stat.
    pub stat: Stat,
    /// Its access control list.
    pub acl: Arc<[Acl]>,
    /// Whether it has no data at all, which differs from data of no bytes; `None` where nobody
    /// asked.
    pub null_data: Option<bool>,
}

impl Znode {
    /// Whether the stat alone leaves open what kind of file it is: data of no bytes, or none.
    pub fn is_ambiguous(&self) -> bool {
        self.stat.num_children == 0 && self.stat.data_length == 0 && self.null_data.is_none()
    }

    /// How a znode is shown under its own name: a directory when it has children or no data, else a
    /// file. A directory stays one for as long as the kernel holds its inode (`held`), so that it
    /// does not turn into a file in the middle of `rm -rf`.
    pub fn view(&self, held: Option<&Inode>) -> View {
        let stays = held.is_some_and(|inode| {
            inode.view == View::Directory && inode.znode.stat.czxid == self.stat.czxid
        });
        if stays || self.stat.num_children > 0 || self.null_data == Some(true) {
            View::Directory
        } else {
            View::File
        }
    }
}

/// What became of an inode's znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It exists, as far as is known.
    Live,
    /// It was removed, or replaced, through this mount: open files live on without it.
    Unlinked,
    /// It was removed elsewhere: what open files would commit has no place to go.
    Gone,
}

/// An inode that the kernel holds.
#[derive(Clone, Debug)]
pub struct Inode {
    /// The inode's number.
    pub number: u64,
    /// The number of the directory it is shown in; the root's own for the root.
    pub parent: u64,
    /// Its file name there.
    pub name: Arc<str>,
    /// What it shows of the znode.
    pub view: View,
    /// The znode's path.
    pub path: Arc<str>,
    /// The znode as last seen.
    pub znode: Znode,
    /// Whether the znode still exists; the kernel may have the inode open when it does not.
    pub presence: Presence,
    /// Tells two inodes of one number apart: the kernel takes an inode whose generation changes for
    /// another. It is the transaction that created the first znode the inode stood for.
    pub generation: u64,
    /// When the listing was taken that the kernel may have kept of this directory.
    pub listed: Option<Moment>,
    /// How often the kernel was told of it and has not forgotten it.
    lookups: u64,
}

impl Inode {
    /// The znode's creation, which tells it from an earlier one at the same path.
    pub fn czxid(&self) -> Zxid {
        self.znode.stat.czxid
    }

    /// The servers have said this of its znode. Requests under way at the same time may bring their
    /// answers in another order than they were given in: what is older changes nothing.
    fn see(&mut self, znode: Znode) {
        let (held, seen) = (&self.znode.stat, &znode.stat);
        let is_older = held.czxid == seen.czxid
            && (seen.mzxid < held.mzxid
                || seen.pzxid < held.pzxid
                || seen.aversion < held.aversion);
        if !is_older {
            self.znode = znode;
        }
    }
}

/// The inodes that the kernel holds.
pub struct InodeTable {
    inodes: HashMap<u64, Inode>,
    /// By directory, the inode last told to the kernel for each name in it.
    names: HashMap<u64, HashMap<Arc<str>, u64>>,
    /// By path, the inodes that show something of the znode there.
    paths: HashMap<Arc<str>, Vec<u64>>,
}

impl InodeTable {
    /// A table that holds the root alone, shown for the znode `/`.
    pub fn new(root: Znode) -> InodeTable {
        let root = Inode {
            number: ROOT,
            parent: ROOT,
            name: "".into(),
            view: View::Directory,
            path: "/".into(),
            znode: root,
            presence: Presence::Live,
            generation: 0,
            listed: None,
            lookups: 1,
        };
        let paths = HashMap::from([(root.path.clone(), vec![ROOT])]);
        InodeTable { inodes: HashMap::from([(ROOT, root)]), names: HashMap::new(), paths }
    }

    /// The inode with this number, if the kernel holds it.
    pub fn get(&self, number: u64) -> Option<&Inode> {
        self.inodes.get(&number)
    }

    /// The inode last told to the kernel for a name in a directory.
    pub fn find(&self, parent: u64, name: &str) -> Option<&Inode> {
        self.inodes.get(self.names.get(&parent)?.get(name)?)
    }

    /// The inodes that show something of the znode at a path and have not lost it.
    pub fn at_path(&self, path: &str) -> impl Iterator<Item = &Inode> {
        let numbers = self.paths.get(path).into_iter().flatten();
        let inodes = numbers.filter_map(|number| self.inodes.get(number));
        inodes.filter(|inode| inode.presence == Presence::Live)
    }

    /// Every inode that the kernel holds.
    pub fn iter(&self) -> impl Iterator<Item = &Inode> {
        self.inodes.values()
    }

    /// The names that lead from the root to an inode, as a path without slashes at its ends; `None`
    /// when no name leads there any more.
    pub fn shown_path(&self, number: u64) -> Option<String> {
        let mut names = Vec::new();
        let mut inode = self.get(number)?;
        while inode.number != ROOT {
            if self.names.get(&inode.parent)?.get(&inode.name) != Some(&inode.number) {
                return None;
            }
            names.push(&*inode.name);
            inode = self.get(inode.parent)?;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// An inode's name is gone although nobody removed it through this mount. With `lives_on` its
    /// znode is still there and only shown as something else.
    pub fn vanish(&mut self, number: u64, lives_on: bool) {
        self.detach(number, if lives_on { Presence::Live } else { Presence::Gone });
    }

    fn index(&mut self, number: u64, path: &Arc<str>) {
        match self.paths.get_mut(path) {
            Some(numbers) => numbers.push(number),
            None => {
                self.paths.insert(path.clone(), vec![number]);
            }
        }
    }

    fn unindex(&mut self, number: u64, path: &str) {
        if let Some(numbers) = self.paths.get_mut(path) {
            numbers.retain(|known| *known != number);
            if numbers.is_empty() {
                self.paths.remove(path);
            }
        }
    }

    /// How many inodes the kernel holds.
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Whether there is nothing in it; never, since it holds the root.
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// Tells what the kernel is about to be told: the inode of a name, which counts as one lookup.
    /// Another znode, or another view, under the same name is another inode.
    pub fn look_up(
        &mut self,
        parent: u64,
        name: &str,
        view: View,
        path: &str,
        znode: Znode,
    ) -> &Inode {
        let number = match self.find(parent, name) {
            Some(inode) if inode.view == view && inode.czxid() == znode.stat.czxid => inode.number,
            Some(replaced) => {
                let same = replaced.czxid() == znode.stat.czxid;
                let presence = if same { Presence::Live } else { Presence::Gone };
                self.detach(replaced.number, presence);
                self.insert(parent, name, view, path, znode.clone())
            }
            None => self.insert(parent, name, view, path, znode.clone()),
        };
        let inode = self.inodes.get_mut(&number).expect("found or inserted above");
        inode.see(znode);
        inode.lookups += 1;
        inode
    }

    fn insert(&mut self, parent: u64, name: &str, view: View, path: &str, znode: Znode) -> u64 {
        let number = self.free_number(derive_number(parent, name, view, znode.stat.czxid));
        let name: Arc<str> = name.into();
        self.names.entry(parent).or_default().insert(name.clone(), number);
        let path: Arc<str> = path.into();
        self.index(number, &path);
        let inode = Inode {
            number,
            parent,
            name,
            view,
            path,
            presence: Presence::Live,
            generation: znode.stat.czxid.0 as u64,
            listed: None,
            lookups: 0,
            znode,
        };
        self.inodes.insert(number, inode);
        number
    }

    /// The number that an entry of a listing has, whether or not the kernel holds it.
    pub fn number(&self, parent: u64, name: &str, view: View, czxid: Zxid) -> u64 {
        match self.find(parent, name) {
            Some(inode) if inode.view == view && inode.czxid() == czxid => inode.number,
            _ => self.free_number(derive_number(parent, name, view, czxid)),
        }
    }

    /// The first number from `wanted` on that is not taken.
    fn free_number(&self, wanted: u64) -> u64 {
        let mut number = wanted;
        while self.inodes.contains_key(&number) {
            number = number.wrapping_add(1).max(NUMBER_MIN);
        }
        number
    }

    /// The kernel forgets `lookups` of an inode; the last one removes it, and it is returned.
    pub fn forget(&mut self, number: u64, lookups: u64) -> Option<Inode> {
        if number == ROOT {
            return None;
        }
        let inode = self.inodes.get_mut(&number)?;
        inode.lookups = inode.lookups.saturating_sub(lookups);
        if inode.lookups > 0 {
            return None;
        }
        self.detach(number, Presence::Live);
        let forgotten = self.inodes.remove(&number)?;
        self.unindex(number, &forgotten.path);
        Some(forgotten)
    }

    /// Tells what the servers said of an inode's znode. `None`, or another creation, means that the
    /// znode is gone; the inode then keeps what was last known of it.
    pub fn update(&mut self, number: u64, seen: Option<Znode>) -> Option<&Inode> {
        let inode = self.inodes.get_mut(&number)?;
        match seen {
            _ if inode.presence != Presence::Live => {}
            Some(znode) if number == ROOT || znode.stat.czxid == inode.czxid() => inode.see(znode),
            _ => self.detach(number, Presence::Gone),
        }
        self.inodes.get(&number)
    }

    /// The kernel is given a listing of a directory that was taken at a moment; `None` where nobody
    /// knows which one it has kept.
    pub fn listed(&mut self, number: u64, taken: Option<Moment>) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.listed = taken;
        }
    }

    /// A name was removed from a directory through this mount; the number of its inode, if the
    /// kernel holds it.
    pub fn unlink(&mut self, parent: u64, name: &str) -> Option<u64> {
        let number = self.find(parent, name)?.number;
        self.detach(number, Presence::Unlinked);
        Some(number)
    }

    /// Takes an inode's name away, and its znode where that does not exist any more.
    fn detach(&mut self, number: u64, presence: Presence) {
        let Some(inode) = self.inodes.get_mut(&number) else { return };
        if inode.presence == Presence::Live && number != ROOT {
            inode.presence = presence;
        }
        let (parent, name) = (inode.parent, inode.name.clone());
        let Some(names) = self.names.get_mut(&parent) else { return };
        if names.get(&name) == Some(&number) {
            names.remove(&name);
        }
        if names.is_empty() {
            self.names.remove(&parent);
        }
    }

    /// An inode was renamed, replacing whatever had the new name. `created` tells the new stat of
    /// every znode that now is where one of the inode's was: they were created anew, or, for a file
    /// that replaced another by its data, the target lives on and has its own `acl`. Returns the
    /// number of the inode that was replaced, if the kernel holds it.
    pub fn rename(
        &mut self,
        from: (u64, &str),
        to: (u64, &str),
        to_path: &str,
        created: &HashMap<String, Stat>,
        acl: Option<Arc<[Acl]>>,
    ) -> Option<u64> {
        let replaced = self.unlink(to.0, to.1);
        let Some(number) = self.find(from.0, from.1).map(|inode| inode.number) else {
            return replaced;
        };
        self.detach(number, Presence::Live);
        let Some(inode) = self.inodes.get_mut(&number) else { return replaced };
        let from_path = std::mem::replace(&mut inode.path, to_path.into());
        inode.parent = to.0;
        inode.name = to.1.into();
        if let Some(stat) = created.get(to_path) {
            inode.znode.stat = *stat;
        }
        if let Some(acl) = acl {
            inode.znode.acl = acl;
        }
        let to_path = inode.path.clone();
        self.names.entry(to.0).or_default().insert(inode.name.clone(), number);
        self.unindex(number, &from_path);
        self.index(number, &to_path);
        let below = self.inodes.values_mut().filter(|inode| {
            inode.number != number
                && inode.presence == Presence::Live
                && is_within(&inode.path, &from_path)
        });
        let mut moved = Vec::new();
        for inode in below {
            let path = format!("{to_path}{}", &inode.path[from_path.len()..]);
            if let Some(stat) = created.get(&path) {
                inode.znode.stat = *stat;
            }
            let from = std::mem::replace(&mut inode.path, path.into());
            moved.push((inode.number, from, inode.path.clone()));
        }
        for (number, from, to) in moved {
            self.unindex(number, &from);
            self.index(number, &to);
        }
        replaced
    }

    /// Two files exchanged their data: the kernel exchanges their names.
    pub fn exchange(&mut self, one: (u64, &str), other: (u64, &str)) {
        let numbers =
            [one, other].map(|(parent, name)| self.find(parent, name).map(|inode| inode.number));
        let [Some(first), Some(second)] = numbers else { return };
        let Some(mut first_inode) = self.inodes.remove(&first) else { return };
        if let Some(second_inode) = self.inodes.get_mut(&second) {
            // The znodes stay where they are: only the numbers change places.
            std::mem::swap(&mut first_inode.parent, &mut second_inode.parent);
            std::mem::swap(&mut first_inode.name, &mut second_inode.name);
            std::mem::swap(&mut first_inode.path, &mut second_inode.path);
            std::mem::swap(&mut first_inode.znode, &mut second_inode.znode);
            for inode in [&first_inode, &*second_inode] {
                let names = self.names.entry(inode.parent).or_default();
                names.insert(inode.name.clone(), inode.number);
            }
            let paths = [first_inode.path.clone(), second_inode.path.clone()];
            // Their paths were exchanged: each was indexed under the other's.
            for (number, from, to) in
                [(first, &paths[1], &paths[0]), (second, &paths[0], &paths[1])]
            {
                self.unindex(number, from);
                self.index(number, to);
            }
        }
        self.inodes.insert(first, first_inode);
    }
}

/// A number for an identity: 64 bits of FNV-1a, mixed, since it must be the same in every process.
fn derive_number(parent: u64, name: &str, view: View, czxid: Zxid) -> u64 {
    let header = parent.to_le_bytes().into_iter().chain(czxid.0.to_le_bytes());
    let bytes = header.chain([view as u8]).chain(name.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The finalizer of splitmix64.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)).max(NUMBER_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn znode(czxid: i64) -> Znode {
        let stat = Stat { czxid: Zxid(czxid), data_length: 1, ..Stat::default() };
        Znode { stat, acl: Acl::open().into(), null_data: Some(false) }
    }

    fn directory(czxid: i64) -> Znode {
        let mut znode = znode(czxid);
        znode.stat.data_length = 0;
        znode.null_data = Some(true);
        znode
    }

    fn table() -> InodeTable {
        InodeTable::new(directory(0))
    }

    fn add(table: &mut InodeTable, parent: u64, path: &str, znode: Znode) -> u64 {
        let view = znode.view(None);
        table.look_up(parent, znodefs::path::name(path), view, path, znode).number
    }

    #[test]
    fn the_same_znode_is_the_same_inode_also_after_a_forget() {
        let mut table = table();
        let number = add(&mut table, ROOT, "/a", znode(5));
        assert_eq!(add(&mut table, ROOT, "/a", znode(5)), number);
        table.forget(number, 1);
        assert!(table.get(number).is_some(), "one lookup is left");
        table.forget(number, 1);
        assert!(table.get(number).is_none());
        assert_eq!(add(&mut table, ROOT, "/a", znode(5)), number);
        assert!(number >= NUMBER_MIN);
    }

    #[test]
    fn a_znode_created_again_is_another_inode_and_the_old_one_is_deleted() {
        let mut table = table();
        let old = add(&mut table, ROOT, "/a", znode(5));
        let new = add(&mut table, ROOT, "/a", znode(6));
        assert_ne!(old, new);
        assert_eq!(table.get(old).unwrap().presence, Presence::Gone);
        assert_eq!(table.find(ROOT, "a").unwrap().number, new);
        table.forget(old, 1);
        assert_eq!(table.find(ROOT, "a").unwrap().number, new);
    }

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let mut table = table();
        let at = |mzxid| {
            let mut znode = znode(5);
            znode.stat.mzxid = Zxid(mzxid);
            znode
        };
        let number = add(&mut table, ROOT, "/a", at(8));
        table.update(number, Some(at(7)));
        assert_eq!(table.get(number).unwrap().znode, at(8));
        assert_eq!(add(&mut table, ROOT, "/a", at(6)), number);
        assert_eq!(table.get(number).unwrap().znode, at(8));
        table.update(number, Some(at(9)));
        assert_eq!(table.get(number).unwrap().znode, at(9));
        let mut acl_set = at(9);
        acl_set.stat.aversion = 1;
        table.update(number, Some(acl_set.clone()));
        table.update(number, Some(at(9)));
        assert_eq!(table.get(number).unwrap().znode, acl_set);
    }

    #[test]
    fn a_directory_stays_one_while_the_kernel_holds_it() {
        let mut table = table();
        let number = add(&mut table, ROOT, "/a", directory(5));
        let with_data = znode(5);
        assert_eq!(with_data.view(table.find(ROOT, "a")), View::Directory);
        assert_eq!(znode(6).view(table.find(ROOT, "a")), View::File, "another znode");
        table.forget(number, 1);
        assert_eq!(with_data.view(table.find(ROOT, "a")), View::File);
    }

    #[test]
    fn a_file_that_gets_children_is_a_directory_with_an_inode_of_its_own() {
        let mut table = table();
        let file = add(&mut table, ROOT, "/a", znode(5));
        let mut parent = znode(5);
        parent.stat.num_children = 1;
        assert_eq!(parent.view(table.find(ROOT, "a")), View::Directory);
        let directory = add(&mut table, ROOT, "/a", parent);
        assert_ne!(file, directory);
        assert_eq!(table.get(file).unwrap().presence, Presence::Live, "its data is still there");
    }

    #[test]
    fn a_deleted_inode_keeps_what_was_known() {
        let mut table = table();
        let number = add(&mut table, ROOT, "/a", znode(5));
        table.unlink(ROOT, "a");
        assert!(table.find(ROOT, "a").is_none());
        let inode = table.update(number, None).unwrap();
        assert_eq!(inode.presence, Presence::Unlinked);
        assert_eq!(inode.czxid(), Zxid(5));
        assert_eq!(table.update(ROOT, None).unwrap().presence, Presence::Live);
    }

    #[test]
    fn a_znode_seen_to_be_another_is_gone() {
        let mut table = table();
        let number = add(&mut table, ROOT, "/a", znode(5));
        assert_eq!(table.update(number, Some(znode(5))).unwrap().presence, Presence::Live);
        assert_eq!(table.update(number, Some(znode(9))).unwrap().presence, Presence::Gone);
    }

    #[test]
    fn a_renamed_directory_takes_what_is_below_with_it() {
        let mut table = table();
        let a = add(&mut table, ROOT, "/a", directory(5));
        let b = add(&mut table, a, "/a/b", directory(6));
        let file = add(&mut table, b, "/a/b/f", znode(7));
        let beside = add(&mut table, ROOT, "/ab", znode(8));
        let created = ["/x", "/x/b", "/x/b/f"]
            .map(|path| (path.to_string(), Stat { czxid: Zxid(20), ..Stat::default() }));
        table.rename((ROOT, "a"), (ROOT, "x"), "/x", &HashMap::from(created), None);
        assert!(table.find(ROOT, "a").is_none());
        assert_eq!(table.find(ROOT, "x").unwrap().number, a);
        assert_eq!(&*table.get(file).unwrap().path, "/x/b/f");
        assert_eq!(&*table.get(beside).unwrap().path, "/ab");
        // The kernel goes on with the same inodes.
        assert_eq!(add(&mut table, b, "/x/b/f", znode(20)), file);
        assert_eq!(table.get(file).unwrap().generation, 7);
    }

    #[test]
    fn renaming_over_a_file_deletes_the_inode_that_was_there() {
        let mut table = table();
        let source = add(&mut table, ROOT, "/a", znode(5));
        let target = add(&mut table, ROOT, "/b", znode(6));
        let created = HashMap::from([("/b".to_string(), znode(6).stat)]);
        assert_eq!(table.rename((ROOT, "a"), (ROOT, "b"), "/b", &created, None), Some(target));
        assert_eq!(table.get(target).unwrap().presence, Presence::Unlinked);
        assert_eq!(table.find(ROOT, "b").unwrap().number, source);
        assert_eq!(add(&mut table, ROOT, "/b", znode(6)), source);
    }

    #[test]
    fn exchanged_files_keep_their_inodes_under_each_others_names() {
        let mut table = table();
        let a = add(&mut table, ROOT, "/a", znode(5));
        let b = add(&mut table, ROOT, "/b", znode(6));
        table.exchange((ROOT, "a"), (ROOT, "b"));
        assert_eq!(table.find(ROOT, "b").unwrap().number, a);
        assert_eq!(&*table.get(a).unwrap().path, "/b");
        assert_eq!(add(&mut table, ROOT, "/b", znode(6)), a);
        assert_eq!(add(&mut table, ROOT, "/a", znode(5)), b);
    }

    #[test]
    fn views_of_one_znode_are_different_inodes() {
        let mut table = table();
        let views = [View::File, View::Directory, View::AsDirectory, View::Data];
        let numbers = views.map(|view| table.number(ROOT, "a", view, Zxid(5)));
        for (index, number) in numbers.iter().enumerate() {
            assert!(!numbers[..index].contains(number));
        }
        let held = table.look_up(ROOT, "a", View::File, "/a", znode(5)).number;
        assert_eq!(held, numbers[0], "a listing and a lookup agree");
    }
}
