//! Access control lists, each kept once however many znodes have it. No I/O.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use znodefs::Acl;

/// A list's place in the table. Numbers of lists that are gone are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct AclId(pub u32);

impl AclId {
    /// Everybody may do everything; this list is always there.
    pub const OPEN: AclId = AclId(0);
}

#[derive(Debug)]
struct Entry {
    list: Arc<[Acl]>,
    users: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct AclTable {
    entries: Vec<Entry>,
    free: Vec<AclId>,
    index: HashTable<AclId>,
    hash_state: FixedState,
    /// The list asked for last: most creations in a row use the same one.
    last: AclId,
}

fn hash_of(state: &FixedState, list: &[Acl]) -> u64 {
    state.hash_one(list)
}

impl AclTable {
    /// A table that holds the open list only.
    pub fn new(hash_seed: u64) -> AclTable {
        let mut table = AclTable {
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hash_state: FixedState::with_seed(hash_seed),
            last: AclId::OPEN,
        };
        table.insert(Acl::open().into());
        table
    }

    /// The list with this number.
    pub fn list(&self, id: AclId) -> &Arc<[Acl]> {
        &self.entries[id.0 as usize].list
    }

    /// Number of different lists.
    pub fn count(&self) -> usize {
        self.index.len()
    }

    /// Number of znodes that have a list.
    #[cfg(test)]
    pub fn users(&self, id: AclId) -> u32 {
        self.entries[id.0 as usize].users
    }

    /// The number for a list, which gets one user more.
    pub fn acquire(&mut self, list: &Arc<[Acl]>) -> AclId {
        let last = &self.entries[self.last.0 as usize];
        let is_last = Arc::ptr_eq(&last.list, list) || *last.list == **list;
        let id = if is_last { self.last } else { self.find_or_insert(list) };
        self.entries[id.0 as usize].users += 1;
        self.last = id;
        id
    }

    fn find_or_insert(&mut self, list: &Arc<[Acl]>) -> AclId {
        let hash = hash_of(&self.hash_state, list);
        let entries = &self.entries;
        let found = self.index.find(hash, |id| *entries[id.0 as usize].list == **list);
        match found {
            Some(&id) => id,
            None => self.insert(list.clone()),
        }
    }

    fn insert(&mut self, list: Arc<[Acl]>) -> AclId {
        let hash = hash_of(&self.hash_state, &list);
        let entry = Entry { list, users: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.0 as usize] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                AclId(self.entries.len() as u32 - 1)
            }
        };
        let (entries, state) = (&self.entries, &self.hash_state);
        self.index.insert_unique(hash, id, |id| hash_of(state, &entries[id.0 as usize].list));
        id
    }

    /// Takes one user away; a list without users goes.
    pub fn release(&mut self, id: AclId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.users -= 1;
        if entry.users > 0 || id == AclId::OPEN {
            return;
        }
        let hash = hash_of(&self.hash_state, &entry.list);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        self.entries[id.0 as usize].list = Arc::new([]);
        self.free.push(id);
        if self.last == id {
            self.last = AclId::OPEN;
        }
    }
}

#[cfg(test)]
mod tests {
    use znodefs::Permissions;

    use super::*;

    #[test]
    fn equal_lists_share_a_number_until_the_last_user_is_gone() {
        let mut table = AclTable::new(7);
        let read: Arc<[Acl]> = Arc::new([Acl::world(Permissions::READ)]);
        let first = table.acquire(&read);
        let second = table.acquire(&Arc::from(read.to_vec()));
        assert_eq!(first, second);
        assert_eq!(table.acquire(&Acl::open().into()), AclId::OPEN);
        table.release(first);
        assert_eq!(**table.list(second), *read);
        table.release(second);
        assert_eq!(table.count(), 1);
        let write: Arc<[Acl]> = Arc::new([Acl::world(Permissions::WRITE)]);
        assert_eq!(table.acquire(&write), first);
    }
}
