//! How long the kernel, and the mount's own process, may keep what was answered. As long as events
//! tell of every change, names, absent names and listings are kept without limit; an answer that was
//! asked for before a change and is given after it is not kept at all, nor is anything while there
//! is no connection.
//!
//! What an event makes invalid is said to the kernel at once where that waits for nobody. Names wait
//! for the requests under way in their directory: they are told of by threads that may wait, and
//! whoever is given an answer meanwhile has all names looked up again, so that nobody sees one change
//! and then the state before an earlier one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use znodefs::{Permissions, path};

use super::{Filesystem, status};
use crate::echo::{Change, Happening};
use crate::inode_table::{Inode, InodeTable, Presence, ROOT, View};
use crate::journal::Moment;
use crate::naming::{self, FileName};
use crate::value_cache::{CachedValue, ValueCache};

/// As good as without limit: 34 years.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Nobody tells of a changed ACL, which permission bits show.
const MODE_VALIDITY: Duration = Duration::from_secs(1);

/// How long the kernel may keep an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// A name, or that there is none.
    pub name: Duration,
    /// Attributes.
    pub attributes: Duration,
}

/// What may be kept, and what has to be said about it to the kernel.
pub struct Caching {
    is_on: AtomicBool,
    /// Whether all names can be made invalid at once.
    has_epochs: AtomicBool,
    /// Names that an event made invalid and that the kernel has not yet been told of, by directory.
    expiring: Mutex<Expiring>,
    /// How many of them there were, how many the kernel was told of, and how many of them a new
    /// epoch has covered.
    noted: AtomicU64,
    told: AtomicU64,
    covered: AtomicU64,
    /// Never locked before the journal, only while it is.
    pub(super) values: Mutex<ValueCache>,
}

#[derive(Default)]
struct Expiring {
    names: HashMap<u64, Vec<String>>,
    /// Directories of which a thread is telling the kernel.
    busy: std::collections::HashSet<u64>,
}

impl Caching {
    pub(super) fn new(value_bytes_max: usize) -> Caching {
        Caching {
            is_on: AtomicBool::new(false),
            has_epochs: AtomicBool::new(false),
            expiring: Mutex::default(),
            noted: AtomicU64::new(0),
            told: AtomicU64::new(0),
            covered: AtomicU64::new(0),
            values: Mutex::new(ValueCache::new(value_bytes_max)),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the age of a value is measured where it is kept")]
fn now() -> Instant {
    Instant::now()
}

impl Filesystem {
    /// From now on answers are kept. The kernel must be ready for notifications.
    pub(crate) fn start_caching(&self) {
        let Some(kernel) = self.kernel() else { return };
        match kernel.increment_epoch() {
            Ok(()) => self.caching.has_epochs.store(true, Ordering::Relaxed),
            Err(error) => tracing::info!(
                "this kernel cannot forget all names at once ({error}): absent names are not cached"
            ),
        }
        self.caching.is_on.store(true, Ordering::Release);
    }

    /// Whether anything is kept at all.
    pub fn is_caching(&self) -> bool {
        self.caching.is_on.load(Ordering::Acquire)
    }

    /// The moment before a question is asked, for the answer's validity.
    pub fn asking(&self) -> Moment {
        self.remote.journal.lock().now()
    }

    /// Whether an answer about a znode that was asked for then may be kept.
    fn may_be_kept(&self, asked: Moment, znode: &str) -> bool {
        self.is_caching() && !self.remote.journal.lock().has_changed(asked, znode)
    }

    /// How long an inode may be kept under a name that it was looked up by.
    pub fn entry_validity(
        &self,
        asked: Moment,
        parent: u64,
        name: &OsStr,
        number: u64,
    ) -> Validity {
        if !self.is_caching() || status::is_status(number) {
            return Validity::default();
        }
        let (znode, is_readable) = {
            let inodes = self.inodes.lock();
            let Some(inode) = inodes.get(number) else { return Validity::default() };
            // A creation by suffix has made another name.
            if inode.presence != Presence::Live
                || inode.parent != parent
                || name != OsStr::new(&*inode.name)
            {
                return Validity::default();
            }
            (inode.path.clone(), self.is_told_of(inode))
        };
        if !is_readable || self.is_to_be_replayed(&znode) || !self.may_be_kept(asked, &znode) {
            return Validity::default();
        }
        Validity { name: FOREVER, attributes: self.kept_attributes(number) }
    }

    /// Whether servers tell of changes of a znode, its children included: not of one that the mount
    /// may not read.
    pub(super) fn is_told_of(&self, inode: &Inode) -> bool {
        let rights = self.settings.identities.rights(&inode.znode.acl);
        inode.number == ROOT || rights.owner.0 & Permissions::READ.0 != 0
    }

    /// How long it may be kept that there is nothing under a name.
    pub fn absence_validity(&self, asked: Moment, parent: u64, name: &OsStr) -> Duration {
        if !self.caching.has_epochs.load(Ordering::Relaxed) || status::is_status(parent) {
            return Duration::ZERO;
        }
        let Ok(directory) = self.directory(parent) else { return Duration::ZERO };
        let znode = match naming::parse(name, directory.is_root()) {
            Ok(FileName::Znode(name)) => path::join(&directory.path, &name),
            Ok(FileName::Data) => directory.path.to_string(),
            // A view comes with its znode, of which the kernel only hears under its own name.
            _ => return Duration::ZERO,
        };
        let is_kept = !self.is_to_be_replayed(&znode) && self.may_be_kept(asked, &znode);
        if is_kept { FOREVER } else { Duration::ZERO }
    }

    /// How long attributes may be kept.
    pub fn attributes_validity(&self, asked: Moment, number: u64) -> Duration {
        if !self.is_caching() || status::is_status(number) {
            return Duration::ZERO;
        }
        let znode = {
            let inodes = self.inodes.lock();
            match inodes.get(number) {
                Some(inode) if inode.presence == Presence::Live && self.is_told_of(inode) => {
                    inode.path.clone()
                }
                _ => return Duration::ZERO,
            }
        };
        if self.may_be_kept(asked, &znode) { self.kept_attributes(number) } else { Duration::ZERO }
    }

    /// What somebody here is writing has a length that no event tells of.
    fn kept_attributes(&self, number: u64) -> Duration {
        let is_written = self.handles.pending_length(number, 0).is_some();
        if is_written { Duration::ZERO } else { MODE_VALIDITY }
    }

    /// Whether a listing that was taken then is out of date.
    pub(super) fn is_listing_stale(&self, taken: Moment, directory: &str) -> bool {
        self.is_caching() && !self.may_be_kept(taken, directory)
    }

    /// A listing is out of date and the kernel may have kept it. May wait, so nobody who has to
    /// answer a request may call it.
    pub(crate) fn forget_listing(&self, directory: u64) {
        if let Some(kernel) = self.kernel() {
            // The kernel may have forgotten the directory altogether.
            let _ = kernel.invalidate_listing(directory);
        }
    }

    /// A znode's attributes have changed in a way that no event tells of: the kernel asks again.
    pub(super) fn forget_attributes(&self, znode: &str) {
        let Some(kernel) = self.kernel() else { return };
        let inodes: Vec<u64> =
            self.inodes.lock().at_path(znode).map(|inode| inode.number).collect();
        for inode in inodes {
            // The kernel may have forgotten it meanwhile.
            let _ = kernel.invalidate_attributes(inode);
        }
    }

    /// Keeps a value that was asked for at a moment, unless it changed since.
    pub(super) fn keep_value(&self, asked: Moment, inode: &Inode, value: CachedValue) {
        if !self.is_caching() {
            return;
        }
        let journal = self.remote.journal.lock();
        if !journal.has_changed(asked, &inode.path) {
            self.caching.values.lock().insert(inode.path.clone(), value, now());
        }
    }

    /// The value of an inode's znode, if it is known without asking.
    pub(super) fn known_value(&self, inode: &Inode) -> Option<CachedValue> {
        if !self.is_caching() {
            return None;
        }
        let value = self.caching.values.lock().get(&inode.path, now())?;
        (value.stat.czxid == inode.czxid()).then_some(value)
    }

    /// A change is told of: nothing that was kept of the znode is given to anyone from now on.
    pub(super) fn invalidate(&self, change: &Change) {
        let Some(kernel) = self.kernel() else { return };
        {
            let mut journal = self.remote.journal.lock();
            journal.note(&change.path);
            self.caching.values.lock().remove(&change.path);
        }
        let touched: Vec<u64> = {
            let inodes = self.inodes.lock();
            let parent = path::parent(&change.path).filter(|_| change.is_of_names());
            let paths = [Some(change.path.as_str()), parent];
            let touched = paths.into_iter().flatten().flat_map(|path| inodes.at_path(path));
            touched.map(|inode| inode.number).collect()
        };
        for inode in touched {
            // The kernel may have forgotten it meanwhile.
            let _ = kernel.invalidate_attributes(inode);
        }
    }

    /// The kernel is told which listings and names a change makes invalid.
    pub(super) fn invalidate_names(&self, change: &Change) {
        if !self.is_caching() {
            return;
        }
        let (mut listings, mut names) = (Vec::new(), Vec::new());
        {
            let inodes = self.inodes.lock();
            let changed_directories = match path::parent(&change.path) {
                Some(parent) if change.is_of_names() => parent,
                _ => change.path.as_str(),
            };
            for directory in directories(&inodes, changed_directories) {
                listings.push(directory.number);
                if !change.is_of_names() {
                    names.push((directory.number, naming::DATA.to_string()));
                } else if let Some(shown) =
                    naming::file_name(path::name(&change.path), directory.number == ROOT)
                {
                    names.push((directory.number, format!("{shown}@dir")));
                    names.push((directory.number, shown));
                }
            }
            find_disproved_files(&inodes, change, &mut names);
        }
        // Nobody holds a page of a listing while a request is under way.
        listings.into_iter().for_each(|directory| self.forget_listing(directory));
        self.expire_later(names);
    }

    /// What was done here was done under one name: others of the same znode become invalid.
    pub(super) fn invalidate_other_names(&self, change: &Change) {
        if !self.is_caching() {
            return;
        }
        let mut names = Vec::new();
        {
            let inodes = self.inodes.lock();
            find_disproved_files(&inodes, change, &mut names);
            let of_directories = |inode: &Inode| (inode.number, naming::DATA.to_string());
            let of_itself = |inode: &Inode| (inode.parent, inode.name.to_string());
            let found: Vec<_> = match change.happening {
                Happening::Changed => {
                    directories(&inodes, &change.path).map(of_directories).collect()
                }
                Happening::Deleted => inodes.at_path(&change.path).map(of_itself).collect(),
                Happening::Created => Vec::new(),
            };
            if found.len() > 1 {
                names.extend(found);
            }
        }
        self.expire_later(names);
    }

    /// A znode was made here under another name than was asked for.
    pub(super) fn invalidate_made_name(&self, parent: u64, shown: &str) {
        if self.is_caching() {
            self.forget_listing(parent);
            self.expire_later(vec![(parent, shown.to_string())]);
        }
    }

    fn expire_later(&self, names: Vec<(u64, String)>) {
        if names.is_empty() {
            return;
        }
        self.caching.noted.fetch_add(names.len() as u64, Ordering::AcqRel);
        let mut expiring = self.caching.expiring.lock();
        for (directory, name) in names {
            expiring.names.entry(directory).or_default().push(name);
        }
        drop(expiring);
        self.wake_replayer();
    }

    /// A directory of which names are to be made invalid; give it to [`Filesystem::expire_names`].
    pub(super) fn next_to_expire(&self) -> Option<u64> {
        let mut expiring = self.caching.expiring.lock();
        let Expiring { names, busy } = &mut *expiring;
        let directory = *names.keys().find(|directory| !busy.contains(directory))?;
        busy.insert(directory);
        Some(directory)
    }

    /// Tells the kernel which names of a directory are to be looked up again. Waits for requests
    /// under way in it.
    pub(crate) fn expire_names(&self, directory: u64) {
        loop {
            let names = {
                let mut expiring = self.caching.expiring.lock();
                let Some(names) = expiring.names.remove(&directory) else {
                    expiring.busy.remove(&directory);
                    return;
                };
                names
            };
            let count = names.len() as u64;
            if let Some(kernel) = self.kernel() {
                for name in names {
                    // It may know nothing under this name.
                    let _ = kernel.expire_entry(directory, &name);
                }
            }
            self.caching.told.fetch_add(count, Ordering::AcqRel);
        }
    }

    /// Call it before an answer of the servers is given to the kernel: names that changes before it
    /// have made invalid are looked up again from now on.
    pub(crate) fn before_answer(&self) {
        let noted = self.caching.noted.load(Ordering::Acquire);
        if self.caching.told.load(Ordering::Acquire) >= noted
            || self.caching.covered.load(Ordering::Acquire) >= noted
        {
            return;
        }
        if let Some(kernel) = self.kernel()
            && self.caching.has_epochs.load(Ordering::Relaxed)
            && kernel.increment_epoch().is_ok()
        {
            self.caching.covered.fetch_max(noted, Ordering::AcqRel);
        }
    }

    /// Nobody tells of changes any more: what was kept is not used from now on.
    pub(super) fn drop_caches(&self) {
        {
            let mut journal = self.remote.journal.lock();
            journal.interrupt();
            self.caching.values.lock().clear();
        }
        let Some(kernel) = self.kernel() else { return };
        if self.is_caching() {
            // Older kernels are told name by name.
            let _ = kernel.increment_epoch();
        }
        let inodes: Vec<(u64, bool)> = {
            let inodes = self.inodes.lock();
            inodes.iter().map(|inode| (inode.number, inode.view.is_directory())).collect()
        };
        // At once, as for an event: the next server's first answers may show what these do not.
        for (inode, is_directory) in inodes {
            // The kernel may have forgotten it meanwhile.
            let _ = match is_directory {
                true => kernel.invalidate_listing(inode),
                false => kernel.invalidate_attributes(inode),
            };
        }
    }

    /// The rest of [`Filesystem::drop_caches`]: the names that an older kernel has to be told of one by
    /// one. May wait.
    pub(crate) fn drop_cached_names(&self) {
        let Some(kernel) = self.kernel() else { return };
        if self.caching.has_epochs.load(Ordering::Relaxed) {
            return;
        }
        let inodes: Vec<Inode> = self.inodes.lock().iter().cloned().collect();
        for inode in inodes {
            let _ = kernel.expire_entry(inode.parent, &inode.name);
        }
    }
}

/// With a child, what was shown as a file is a directory.
fn find_disproved_files(inodes: &InodeTable, change: &Change, names: &mut Vec<(u64, String)>) {
    let parent = path::parent(&change.path).filter(|_| change.happening == Happening::Created);
    let files = parent.into_iter().flat_map(|parent| inodes.at_path(parent));
    let files = files.filter(|inode| inode.view == View::File);
    names.extend(files.map(|file| (file.parent, file.name.to_string())));
}

fn directories<'a>(inodes: &'a InodeTable, znode: &str) -> impl Iterator<Item = &'a Inode> {
    inodes.at_path(znode).filter(|inode| inode.view.is_directory())
}
