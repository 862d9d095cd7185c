//! What a disk in memory holds, live and durable, and what a crash makes of it. Chosen by a seeded
//! generator, so that one seed gives one behaviour.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::{Fault, SECTOR_LENGTH};
use crate::persistence::disk::Operation;

pub(super) struct State {
    pub(super) files: HashMap<u64, File>,
    pub(super) live_names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) unsynced_names: Vec<NameChange>,
    pub(super) next_id: u64,
    /// Rises with every crash; files opened before it are dead.
    pub(super) incarnation: u64,
    pub(super) random: u64,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) changes: u64,
    /// Changes until the power goes.
    pub(super) power: Option<u64>,
}

#[derive(Default)]
pub(super) struct File {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
    pub(super) handles: u64,
}

pub(super) enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename { from: String, to: String, id: u64 },
}

pub(super) enum Change {
    Write(u64, Vec<u8>),
    Lengthen(u64),
    SetLength(u64),
}

/// Which unsynced changes a crash leaves.
#[derive(Clone, Copy)]
pub(super) enum Survival {
    Nothing,
    Everything,
    Prefix,
    Subset,
}

pub(super) enum Permit {
    Yes,
    No(io::Error),
    LastOne,
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

pub(super) fn not_found() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

pub(super) fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            files: HashMap::new(),
            live_names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            next_id: 1,
            incarnation: 0,
            random: seed ^ 0x6a09_e667_f3bc_c908,
            capacity: None,
            faults: Vec::new(),
            changes: 0,
            power: None,
        }
    }

    /// splitmix64: enough for choosing what survives.
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound.max(1) as u64) as usize
    }

    pub(super) fn survival(&mut self) -> Survival {
        match self.below(4) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::Prefix,
            _ => Survival::Subset,
        }
    }

    pub(super) fn permit(&mut self, operation: Operation, name: &str) -> Permit {
        if self.power == Some(0) && !operation.changes_disk() {
            // Reads still work until the change at which the power goes.
            return self.fault(operation, name).map_or(Permit::Yes, Permit::No);
        }
        if self.power == Some(u64::MAX) {
            return Permit::No(power_is_off());
        }
        if operation.changes_disk() {
            self.changes += 1;
            match &mut self.power {
                Some(0) => {
                    self.power = Some(u64::MAX);
                    return Permit::LastOne;
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        self.fault(operation, name).map_or(Permit::Yes, Permit::No)
    }

    pub(super) fn fault(&mut self, operation: Operation, name: &str) -> Option<io::Error> {
        let mut failed = None;
        self.faults.retain_mut(|fault| {
            let hit = fault.operation == operation && name.starts_with(&fault.name);
            if !hit || failed.is_some() {
                return true;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                return true;
            }
            failed = Some(io::Error::from_raw_os_error(fault.errno));
            fault.times -= 1;
            fault.times > 0
        });
        failed
    }

    pub(super) fn new_file(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn linked(&self, name: &str) -> io::Result<u64> {
        self.live_names.get(name).copied().ok_or_else(not_found)
    }

    pub(super) fn used(&self) -> u64 {
        self.files.values().map(|file| file.live.len() as u64).sum()
    }

    /// Whether a file may become `length` bytes long.
    pub(super) fn room_for(&self, id: u64, length: u64) -> bool {
        let current = self.files.get(&id).map_or(0, |file| file.live.len() as u64);
        let growth = length.saturating_sub(current);
        self.capacity.is_none_or(|capacity| growth == 0 || self.used() + growth <= capacity)
    }

    pub(super) fn change(&mut self, id: u64, change: Change) {
        if let Some(file) = self.files.get_mut(&id) {
            change.apply(&mut file.live, &mut |_| true);
            file.unsynced.push(change);
        }
    }

    pub(super) fn sync_bytes(&mut self, id: u64) {
        if let Some(file) = self.files.get_mut(&id) {
            for change in file.unsynced.drain(..) {
                change.apply(&mut file.durable, &mut |_| true);
            }
        }
    }

    /// Applies to the durable bytes what survives of the unsynced changes.
    pub(super) fn settle_bytes(&mut self, id: u64) {
        let Some(mut file) = self.files.remove(&id) else { return };
        let changes = std::mem::take(&mut file.unsynced);
        let survival = self.survival();
        let prefix = self.below(changes.len() + 1);
        for (index, change) in changes.into_iter().enumerate() {
            match survival {
                Survival::Nothing => {}
                Survival::Everything => change.apply(&mut file.durable, &mut |_| true),
                Survival::Prefix if index < prefix => {
                    change.apply(&mut file.durable, &mut |_| true)
                }
                // The write at which the prefix ends is itself torn.
                Survival::Prefix if index > prefix => {}
                Survival::Prefix | Survival::Subset => {
                    change.apply(&mut file.durable, &mut |_| self.random().is_multiple_of(2));
                }
            }
        }
        self.files.insert(id, file);
    }

    pub(super) fn forget_bytes(&mut self, id: u64) {
        self.settle_bytes(id);
        if let Some(file) = self.files.get_mut(&id) {
            file.live.clone_from(&file.durable);
        }
    }

    pub(super) fn forget_names(&mut self) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let survival = self.survival();
        let prefix = self.below(changes.len() + 1);
        for (index, change) in changes.into_iter().enumerate() {
            let survives = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Prefix => index < prefix,
                Survival::Subset => self.random().is_multiple_of(2),
            };
            if survives {
                change.apply(&mut self.durable_names);
            }
        }
        self.live_names.clone_from(&self.durable_names);
    }

    pub(super) fn collect_garbage(&mut self) {
        let State { files, live_names, durable_names, .. } = self;
        files.retain(|id, file| {
            file.handles > 0
                || live_names.values().any(|linked| linked == id)
                || durable_names.values().any(|linked| linked == id)
        });
    }
}

impl NameChange {
    pub(super) fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Link(name, id) => {
                names.insert(name, id);
            }
            NameChange::Unlink(name) => {
                names.remove(&name);
            }
            NameChange::Rename { from, to, id } => {
                names.remove(&from);
                names.insert(to, id);
            }
        }
    }
}

impl Change {
    /// Applies the change, of writes only the sectors that `survives` chooses.
    pub(super) fn apply(&self, bytes: &mut Vec<u8>, survives: &mut dyn FnMut(usize) -> bool) {
        match self {
            Change::Write(offset, written) => {
                let (mut from, end) = (*offset as usize, *offset as usize + written.len());
                while from < end {
                    let to = end.min((from / SECTOR_LENGTH + 1) * SECTOR_LENGTH);
                    if survives(from) {
                        if bytes.len() < to {
                            bytes.resize(to, 0);
                        }
                        let start = *offset as usize;
                        bytes[from..to].copy_from_slice(&written[from - start..to - start]);
                    }
                    from = to;
                }
            }
            Change::Lengthen(length) => {
                if survives(0) && bytes.len() < *length as usize {
                    bytes.resize(*length as usize, 0);
                }
            }
            Change::SetLength(length) => {
                if survives(0) {
                    bytes.resize(*length as usize, 0);
                }
            }
        }
    }
}
