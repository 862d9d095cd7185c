//! What znodes will be like once everything prepared so far is applied (`ChangeRecord`,
//! `outstandingChanges`). No I/O.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use znodefs::{Acl, Zxid};

use crate::tree::{DataTree, NodeRef, OwnerKind, ephemeral_length};

/// What the checks look at of a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeState {
    pub kind: OwnerKind,
    pub acl: Arc<[Acl]>,
    pub version: i32,
    pub aversion: i32,
    pub child_counter: i32,
    pub num_children: i32,
    pub data_length: i32,
    pub mtime: i64,
}

impl NodeState {
    fn of(node: NodeRef<'_>) -> NodeState {
        let stat = node.stat();
        NodeState {
            kind: node.kind(),
            acl: node.acl().clone(),
            version: stat.version,
            aversion: stat.aversion,
            child_counter: node.child_counter(),
            num_children: stat.num_children,
            data_length: stat.data_length,
            mtime: stat.mtime,
        }
    }
}

/// A path that prepared transactions change.
#[derive(Debug)]
struct Record {
    path: Box<str>,
    /// The newest transaction that changes it.
    zxid: Zxid,
    /// What it will be; `None` when it will not be there.
    state: Option<NodeState>,
}

/// What a failed multi has to put back.
#[derive(Debug)]
struct Undo {
    number: u32,
    /// What the record was; `None` when there was none.
    before: Option<(Zxid, Option<NodeState>)>,
}

/// All paths that prepared transactions change.
#[derive(Debug)]
pub(super) struct OutstandingChanges {
    records: Vec<Option<Record>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hash_state: FixedState,
    /// Every change in order of its transaction, to know when a record is done with.
    order: VecDeque<(Zxid, u32)>,
    /// Records of ephemeral znodes, and what their paths take in the list of a closing session.
    ephemerals: usize,
    ephemerals_length: usize,
    undo: Vec<Undo>,
    in_multi: bool,
}

fn is_ephemeral(state: &Option<NodeState>) -> bool {
    state.as_ref().is_some_and(|state| state.kind.is_ephemeral())
}

impl OutstandingChanges {
    pub fn new(hash_seed: u64) -> OutstandingChanges {
        OutstandingChanges {
            records: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hash_state: FixedState::with_seed(hash_seed),
            order: VecDeque::new(),
            ephemerals: 0,
            ephemerals_length: 0,
            undo: Vec::new(),
            in_multi: false,
        }
    }

    /// Counts a state in, or out.
    fn count(&mut self, path: &str, state: &Option<NodeState>, is_in: bool) {
        if !is_ephemeral(state) {
            return;
        }
        let length = ephemeral_length(path.len());
        if is_in {
            self.ephemerals += 1;
            self.ephemerals_length += length;
        } else {
            self.ephemerals -= 1;
            self.ephemerals_length -= length;
        }
    }

    /// What the paths of all ephemeral znodes that are changed take in the list of a closing
    /// session.
    pub fn ephemerals_length(&self) -> usize {
        self.ephemerals_length
    }

    fn hash(&self, path: &str) -> u64 {
        self.hash_state.hash_one(path)
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)?.as_ref()
    }

    fn find(&self, path: &str) -> Option<u32> {
        if self.index.is_empty() {
            return None;
        }
        let matches = |&number: &u32| self.record(number).is_some_and(|one| *one.path == *path);
        self.index.find(self.hash(path), matches).copied()
    }

    /// The znode as it will be; `None` when it will not be there.
    pub fn node(&self, tree: &DataTree, path: &str) -> Option<NodeState> {
        // The root is "" for who takes the parent of "/a" by cutting at the slash.
        let path = if path.is_empty() { "/" } else { path };
        match self.find(path).and_then(|number| self.record(number)) {
            Some(record) => record.state.clone(),
            None => tree.node(path).map(NodeState::of),
        }
    }

    /// Whether the znode will be there.
    pub fn exists(&self, tree: &DataTree, path: &str) -> bool {
        match self.find(path).and_then(|number| self.record(number)) {
            Some(record) => record.state.is_some(),
            None => tree.node(path).is_some(),
        }
    }

    /// Says what a transaction makes of a znode.
    pub fn set(&mut self, zxid: Zxid, path: &str, state: Option<NodeState>) {
        let path = if path.is_empty() { "/" } else { path };
        self.count(path, &state, true);
        let number = match self.find(path) {
            Some(number) => {
                if let Some(Some(record)) = self.records.get_mut(number as usize) {
                    let old_zxid = std::mem::replace(&mut record.zxid, zxid);
                    let old = std::mem::replace(&mut record.state, state);
                    self.count(path, &old, false);
                    if self.in_multi {
                        self.undo.push(Undo { number, before: Some((old_zxid, old)) });
                    }
                }
                number
            }
            None => {
                let number = self.insert(Record { path: path.into(), zxid, state });
                if self.in_multi {
                    self.undo.push(Undo { number, before: None });
                }
                number
            }
        };
        self.order.push_back((zxid, number));
    }

    fn insert(&mut self, record: Record) -> u32 {
        let hash = self.hash(&record.path);
        let number = match self.free.pop() {
            Some(number) => {
                self.records[number as usize] = Some(record);
                number
            }
            None => {
                self.records.push(Some(record));
                self.records.len() as u32 - 1
            }
        };
        let (records, state) = (&self.records, &self.hash_state);
        self.index.insert_unique(hash, number, |&other| {
            // The index holds numbers of records only.
            records[other as usize].as_ref().map_or(0, |one| state.hash_one(&*one.path))
        });
        number
    }

    fn remove(&mut self, number: u32) {
        let Some(record) = self.records[number as usize].take() else { return };
        self.count(&record.path, &record.state, false);
        if let Ok(entry) =
            self.index.find_entry(self.hash_state.hash_one(&*record.path), |&other| other == number)
        {
            entry.remove();
        }
        self.free.push(number);
    }

    /// Forgets what transactions up to `zxid` changed: the tree shows it by now.
    pub fn applied(&mut self, zxid: Zxid) {
        while let Some(&(changed, number)) = self.order.front() {
            if changed > zxid {
                return;
            }
            self.order.pop_front();
            if self.record(number).is_some_and(|record| record.zxid <= zxid) {
                self.remove(number);
            }
        }
    }

    /// From now on every change can be undone, until [`OutstandingChanges::commit`].
    pub fn begin(&mut self) {
        self.undo.clear();
        self.in_multi = true;
    }

    /// Keeps what changed since [`OutstandingChanges::begin`].
    pub fn commit(&mut self) {
        self.undo.clear();
        self.in_multi = false;
    }

    /// Undoes what changed since [`OutstandingChanges::begin`], counters of parents included
    /// (ZOOKEEPER-1624).
    pub fn roll_back(&mut self) {
        self.in_multi = false;
        while let Some(Undo { number, before }) = self.undo.pop() {
            self.order.pop_back();
            match before {
                None => self.remove(number),
                Some((zxid, state)) => {
                    let Some(Some(mut record)) =
                        self.records.get_mut(number as usize).map(Option::take)
                    else {
                        continue;
                    };
                    self.count(&record.path, &state, true);
                    self.count(&record.path, &record.state, false);
                    (record.zxid, record.state) = (zxid, state);
                    self.records[number as usize] = Some(record);
                }
            }
        }
    }

    /// The ephemeral znodes that a session is going to have which the tree does not show.
    pub fn pending_ephemerals(&self, kind: OwnerKind) -> Vec<String> {
        if self.ephemerals == 0 {
            return Vec::new();
        }
        let records = self.records.iter().flatten();
        let owned = records.filter(|one| one.state.as_ref().is_some_and(|now| now.kind == kind));
        owned.map(|record| record.path.to_string()).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.records.clear();
        self.free.clear();
        self.index.clear();
        self.order.clear();
        self.undo.clear();
        self.ephemerals = 0;
        self.ephemerals_length = 0;
        self.in_multi = false;
    }
}
