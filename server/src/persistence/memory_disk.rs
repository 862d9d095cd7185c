//! The forgetful twin of the real disk, for tests and the simulator: it keeps what the process
//! sees apart from what a crash would leave, directory entries included, and fails on request.
//! One seed gives one behaviour. It is never used in production.
//!
//! A disk may also do wrong and say nothing: bits rot where they lie, a write lands elsewhere.
//!
//! The crash model: a file's bytes and length are certain after `sync_data`, names after
//! `sync_dir`. Of everything since, a seeded choice survives: nothing, all, a prefix of the
//! operations, or any subset, where writes are torn at [`SECTOR_LENGTH`]. After a failed
//! `sync_data` what it covered may be lost for good although reads still show it, as on Linux.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskError, DiskFile, Operation};

/// Bytes that a disk writes as one, at offsets that are multiples of it.
pub const SECTOR_LENGTH: usize = 512;

/// A disk in memory; clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

/// A failure to come.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    name: String,
    skip: u64,
    times: u64,
    errno: i32,
}

impl Fault {
    /// The next `operation` on any file fails, once, with this errno (`libc::EIO`, …).
    pub fn new(operation: Operation, errno: i32) -> Fault {
        Fault { operation, name: String::new(), skip: 0, times: 1, errno }
    }

    /// Only on files whose name begins so.
    pub fn on(self, name: &str) -> Fault {
        Fault { name: name.to_owned(), ..self }
    }

    /// Lets so many matching operations pass first.
    pub fn after(self, skip: u64) -> Fault {
        Fault { skip, ..self }
    }

    /// Fails so many times in a row.
    pub fn times(self, times: u64) -> Fault {
        Fault { times, ..self }
    }
}

struct State {
    files: HashMap<u64, File>,
    live_names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    next_id: u64,
    /// Rises with every crash; files opened before it are dead.
    incarnation: u64,
    random: u64,
    capacity: Option<u64>,
    faults: Vec<Fault>,
    changes: u64,
    /// Changes until the power goes.
    power: Option<u64>,
    /// The next write to a file whose name begins so goes astray.
    misdirected: Option<String>,
    /// The write that went astray last.
    astray: Option<Astray>,
}

/// A write that went astray.
struct Astray {
    /// How the names of the files begin that it was one of.
    prefix: String,
    file: u64,
    /// Whether its own sync is over, or will never be.
    synced: bool,
    /// The files among these in which anything but zeros was synced after it.
    followed_in: BTreeSet<u64>,
}

#[derive(Default)]
struct File {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    handles: u64,
}

enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename { from: String, to: String, id: u64 },
}

enum Change {
    Write(u64, Vec<u8>),
    Lengthen(u64),
    SetLength(u64),
}

/// Which unsynced changes a crash leaves.
#[derive(Clone, Copy)]
enum Survival {
    Nothing,
    Everything,
    Prefix,
    Subset,
}

impl MemoryDisk {
    /// An empty disk whose crashes and torn writes follow from `seed`.
    pub fn new(seed: u64) -> MemoryDisk {
        MemoryDisk {
            path: PathBuf::from("/memory"),
            state: Arc::new(Mutex::new(State {
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
                misdirected: None,
                astray: None,
            })),
        }
    }

    /// The machine stops and starts again: what was not synced is gone, or partly there; files
    /// opened before are dead; faults and a power cut that were set up are over.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        state.incarnation += 1;
        state.power = None;
        state.misdirected = None;
        if let Some(astray) = &mut state.astray {
            astray.synced = true;
        }
        state.faults.clear();
        state.forget_names();
        let mut ids: Vec<u64> = state.files.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            state.forget_bytes(id);
        }
        let State { files, live_names, .. } = &mut *state;
        files.retain(|id, _| live_names.values().any(|linked| linked == id));
        for file in files.values_mut() {
            file.handles = 0;
        }
    }

    /// Cuts the power at the `count`th change from now (0 is the next): it may or may not reach the
    /// disk, and every operation fails until [`MemoryDisk::crash`].
    pub fn cut_power_after(&self, count: u64) {
        self.state.lock().power = Some(count);
    }

    /// Whether the power is off: what a cut left is seen after [`MemoryDisk::crash`].
    pub fn is_off(&self) -> bool {
        self.state.lock().power == Some(u64::MAX)
    }

    /// The disk puts the next write to a file whose name begins so in the wrong place, somewhere
    /// before in the same file, and says nothing. Nobody sees it before the next crash.
    pub fn misdirect(&self, name: &str) {
        self.state.lock().misdirected = Some(name.to_owned());
    }

    /// Whether a write has gone astray and nothing that is still there was synced after it, in its file
    /// or another whose name begins so: then its absence cannot be told from that of a write that the
    /// power's end interrupted.
    pub fn last_write_went_astray(&self) -> bool {
        let state = self.state.lock();
        let is_there = |file: &u64| state.files.contains_key(file);
        state.astray.as_ref().is_some_and(|astray| !astray.followed_in.iter().any(is_there))
    }

    /// How many operations that change the disk there have been.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Sets up a failure.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Forgets failures that have not happened yet.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Limits the sum of all files' lengths; more is ENOSPC. `None`: no limit.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state.lock().capacity = capacity;
    }

    /// The sum of all files' lengths in bytes.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// Changes bits of one byte of a file where they lie, as bit rot does.
    ///
    /// # Panics
    /// When there is no such byte: a test that rots nothing tests nothing.
    pub fn flip(&self, name: &str, offset: u64, mask: u8) {
        let mut state = self.state.lock();
        let id = state.live_names[name];
        if let Some(file) = state.files.get_mut(&id) {
            file.live[offset as usize] ^= mask;
            if let Some(byte) = file.durable.get_mut(offset as usize) {
                *byte ^= mask;
            }
        }
    }

    /// The names of all files as the process sees them.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().live_names.keys().cloned().collect()
    }

    /// A file as the process sees it; `None` when it is not there.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = state.live_names.get(name)?;
        Some(state.files[id].live.clone())
    }

    /// Puts a whole, durable file there, as an administrator with a copy would.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.new_file();
        let file = File { live: bytes.to_vec(), durable: bytes.to_vec(), ..File::default() };
        state.files.insert(id, file);
        state.live_names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    fn error(&self, operation: Operation, name: &str, error: io::Error) -> DiskError {
        DiskError::new(operation, self.path.join(name), error)
    }

    /// Runs one operation, unless a fault or the power has something against it. `apply` is told
    /// whether its change is the last before the power goes.
    fn run<T>(
        &self,
        operation: Operation,
        name: &str,
        apply: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let mut state = self.state.lock();
        let result = match state.permit(operation, name) {
            Permit::Yes => apply(&mut state),
            Permit::No(error) => Err(error),
            Permit::LastOne => {
                if operation != Operation::Sync && operation != Operation::SyncDirectory {
                    // Whether it works or not, nobody will hear of it.
                    let _ = apply(&mut state);
                }
                Err(power_is_off())
            }
        };
        result.map_err(|error| self.error(operation, name, error))
    }

    fn open_handle(
        &self,
        operation: Operation,
        name: &str,
    ) -> Result<Box<dyn DiskFile>, DiskError> {
        let (id, incarnation) = self.run(operation, name, |state| {
            let id = state.linked(name)?;
            state.files.get_mut(&id).ok_or_else(not_found)?.handles += 1;
            Ok((id, state.incarnation))
        })?;
        Ok(Box::new(Handle { disk: self.clone(), name: name.to_owned(), id, incarnation }))
    }
}

enum Permit {
    Yes,
    No(io::Error),
    LastOne,
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl State {
    /// splitmix64: enough for choosing what survives.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random() % bound.max(1) as u64) as usize
    }

    fn survival(&mut self) -> Survival {
        match self.below(4) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::Prefix,
            _ => Survival::Subset,
        }
    }

    fn permit(&mut self, operation: Operation, name: &str) -> Permit {
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

    fn fault(&mut self, operation: Operation, name: &str) -> Option<io::Error> {
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

    fn new_file(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn linked(&self, name: &str) -> io::Result<u64> {
        self.live_names.get(name).copied().ok_or_else(not_found)
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.live.len() as u64).sum()
    }

    /// Whether a file may become `length` bytes long.
    fn room_for(&self, id: u64, length: u64) -> bool {
        let current = self.files.get(&id).map_or(0, |file| file.live.len() as u64);
        let growth = length.saturating_sub(current);
        self.capacity.is_none_or(|capacity| growth == 0 || self.used() + growth <= capacity)
    }

    fn change(&mut self, id: u64, change: Change) {
        if let Some(file) = self.files.get_mut(&id) {
            change.apply(&mut file.live, &mut |_| true);
            file.unsynced.push(change);
        }
    }

    /// Sends the write just made elsewhere on the way to the disk, if that is to happen to it.
    fn misdirect(&mut self, name: &str, id: u64) {
        if !self.misdirected.as_ref().is_some_and(|prefix| name.starts_with(prefix)) {
            return;
        }
        let choice = self.random();
        let Some(file) = self.files.get_mut(&id) else { return };
        let Some(Change::Write(offset, bytes)) = file.unsynced.last_mut() else { return };
        if (bytes.len() as u64) < *offset {
            *offset = choice % (*offset - bytes.len() as u64);
            let prefix = self.misdirected.take().unwrap_or_default();
            self.astray =
                Some(Astray { prefix, file: id, synced: false, followed_in: BTreeSet::new() });
        }
    }

    fn sync_bytes(&mut self, id: u64, name: &str) {
        if let Some(file) = self.files.get_mut(&id) {
            if let Some(astray) = &mut self.astray
                && name.starts_with(&astray.prefix)
                && file.unsynced.iter().any(Change::is_more_than_zeros)
            {
                let own = astray.file == id && !std::mem::replace(&mut astray.synced, true);
                if !own {
                    astray.followed_in.insert(id);
                }
            }
            for change in file.unsynced.drain(..) {
                change.apply(&mut file.durable, &mut |_| true);
            }
        }
    }

    /// Applies to the durable bytes what survives of the unsynced changes.
    fn settle_bytes(&mut self, id: u64) {
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

    fn forget_bytes(&mut self, id: u64) {
        self.settle_bytes(id);
        if let Some(file) = self.files.get_mut(&id) {
            file.live.clone_from(&file.durable);
        }
    }

    fn forget_names(&mut self) {
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

    fn collect_garbage(&mut self) {
        let State { files, live_names, durable_names, .. } = self;
        files.retain(|id, file| {
            file.handles > 0
                || live_names.values().any(|linked| linked == id)
                || durable_names.values().any(|linked| linked == id)
        });
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
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
    fn is_more_than_zeros(&self) -> bool {
        matches!(self, Change::Write(_, bytes) if bytes.iter().any(|byte| *byte != 0))
    }

    /// Applies the change, of writes only the sectors that `survives` chooses.
    fn apply(&self, bytes: &mut Vec<u8>, survives: &mut dyn FnMut(usize) -> bool) {
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

impl Disk for MemoryDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.run(Operation::List, "", |state| Ok(state.live_names.keys().cloned().collect()))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.run(Operation::Stat, name, |state| Ok(state.live_names.contains_key(name)))
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        self.run(Operation::Stat, name, |state| {
            let id = state.linked(name)?;
            Ok(state.files[&id].live.len() as u64)
        })
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.open_handle(Operation::Open, name)
    }

    fn open_read(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.open_handle(Operation::Open, name)
    }

    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let (id, incarnation) = self.run(Operation::Create, name, |state| {
            if state.live_names.contains_key(name) {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            if state.capacity.is_some_and(|capacity| state.used() >= capacity) {
                return Err(no_space());
            }
            let id = state.new_file();
            state.files.insert(id, File { handles: 1, ..File::default() });
            state.live_names.insert(name.to_owned(), id);
            state.unsynced_names.push(NameChange::Link(name.to_owned(), id));
            Ok((id, state.incarnation))
        })?;
        Ok(Box::new(Handle { disk: self.clone(), name: name.to_owned(), id, incarnation }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.run(Operation::Rename, from, |state| {
            let id = state.linked(from)?;
            let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned(), id };
            state.live_names.remove(from);
            state.live_names.insert(to.to_owned(), id);
            state.unsynced_names.push(change);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.run(Operation::Remove, name, |state| {
            state.linked(name)?;
            state.live_names.remove(name);
            state.unsynced_names.push(NameChange::Unlink(name.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.run(Operation::SyncDirectory, "", |state| {
            state.unsynced_names.clear();
            state.durable_names.clone_from(&state.live_names);
            state.collect_garbage();
            Ok(())
        })
    }

    fn free_space(&self) -> Result<u64, DiskError> {
        self.run(Operation::FreeSpace, "", |state| {
            Ok(state.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(state.used())))
        })
    }
}

struct Handle {
    disk: MemoryDisk,
    name: String,
    id: u64,
    incarnation: u64,
}

impl Handle {
    fn run<T>(
        &self,
        operation: Operation,
        apply: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.disk.run(operation, &self.name, |state| {
            if state.incarnation != self.incarnation {
                return Err(power_is_off());
            }
            apply(state)
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.incarnation == self.incarnation
            && let Some(file) = state.files.get_mut(&self.id)
        {
            file.handles -= 1;
        }
    }
}

impl DiskFile for Handle {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.run(Operation::Read, |state| {
            let live = &state.files.get(&self.id).ok_or_else(not_found)?.live;
            let rest = live.get(offset as usize..).unwrap_or(&[]);
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let before = self.disk.state.lock().incarnation;
        let result = self.run(Operation::Write, |state| {
            if !state.room_for(self.id, offset + bytes.len() as u64) {
                return Err(no_space());
            }
            state.change(self.id, Change::Write(offset, bytes.to_vec()));
            state.misdirect(&self.name, self.id);
            Ok(())
        });
        if let Err(error) = &result
            && error.source.raw_os_error().is_some()
            && before == self.incarnation
        {
            // A write that fails may have written a part.
            let mut state = self.disk.state.lock();
            let count = state.below(bytes.len() + 1);
            if state.room_for(self.id, offset + count as u64) && count > 0 {
                state.change(self.id, Change::Write(offset, bytes[..count].to_vec()));
            }
        }
        result
    }

    fn preallocate(&mut self, length: u64) -> Result<(), DiskError> {
        self.run(Operation::Preallocate, |state| {
            if !state.room_for(self.id, length) {
                return Err(no_space());
            }
            state.change(self.id, Change::Lengthen(length));
            Ok(())
        })
    }

    fn set_length(&mut self, length: u64) -> Result<(), DiskError> {
        self.run(Operation::SetLength, |state| {
            if !state.room_for(self.id, length) {
                return Err(no_space());
            }
            state.change(self.id, Change::SetLength(length));
            Ok(())
        })
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        let result = self.run(Operation::Sync, |state| {
            state.sync_bytes(self.id, &self.name);
            Ok(())
        });
        if let Err(error) = &result
            && error.source.raw_os_error().is_some()
        {
            // The kernel reports a failure once and then takes the pages for clean: trying again
            // would succeed and save nothing.
            self.disk.state.lock().settle_bytes(self.id);
        }
        result
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.run(Operation::Stat, |state| {
            Ok(state.files.get(&self.id).ok_or_else(not_found)?.live.len() as u64)
        })
    }
}
