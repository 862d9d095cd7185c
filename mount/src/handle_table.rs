//! Open files and directory streams by the number that the kernel knows them by, and the commits
//! that are still under way for files that were closed. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use znodefs::SessionId;

use crate::filesystem::listing::Listing;
use crate::journal::Moment;
use crate::open_file::OpenFile;

/// An open file of a znode.
pub struct FileHandle {
    /// The inode that was opened.
    pub inode: u64,
    /// What it reads and has changed. Never held while waiting.
    pub file: Mutex<OpenFile>,
    /// Held by the commit under way: one at a time, in order.
    pub committing: tokio::sync::Mutex<()>,
    /// The session that owned the znode when it was opened, if it is ephemeral.
    pub owner: Option<SessionId>,
    /// The lock that was taken through it.
    pub lock: LockMark,
    /// Whether reads, too, are to be in step with the leader (`O_SYNC`).
    pub synchronous: bool,
    /// Whether it was said that the value would become too large.
    pub is_limit_told: AtomicBool,
}

/// What an open file knows of the lock that was taken through it.
#[derive(Debug, Default)]
pub struct LockMark {
    /// The session that holds it; 0 for none.
    session: AtomicI64,
    is_lost: AtomicBool,
}

impl LockMark {
    /// A lock was taken in this session.
    pub fn locked(&self, session: SessionId) {
        self.session.store(session.0, Ordering::Relaxed);
    }

    /// The lock is lost.
    pub fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// Whether a lock was lost, which stays so. `session` is the one that there is now.
    pub fn is_lost(&self, session: SessionId) -> bool {
        let locked = self.session.load(Ordering::Relaxed);
        if locked != 0 && locked != session.0 {
            self.lose();
        }
        self.is_lost.load(Ordering::Relaxed)
    }

    /// The lock was given back, unless it had been lost.
    pub fn unlocked(&self, session: SessionId) {
        if !self.is_lost(session) {
            self.session.store(0, Ordering::Relaxed);
        }
    }
}

/// An open directory.
pub struct DirectoryHandle {
    /// The inode that was opened.
    pub inode: u64,
    /// What is listed; taken when a reader starts at the beginning.
    pub listing: tokio::sync::Mutex<Option<Listing>>,
    /// Whether the kernel keeps what it is given through this.
    pub is_kept: bool,
    /// When that was taken.
    given: Mutex<Option<Moment>>,
}

impl DirectoryHandle {
    /// A directory that was opened.
    pub fn new(inode: u64, listing: Option<Listing>, is_kept: bool) -> DirectoryHandle {
        let listing = tokio::sync::Mutex::new(listing);
        DirectoryHandle { inode, listing, is_kept, given: Mutex::default() }
    }

    /// The kernel is given a listing that was taken at a moment.
    pub fn give(&self, taken: Moment) {
        *self.given.lock() = Some(taken);
    }

    /// When the listing was taken that the kernel may be keeping right now, as long as this is open.
    pub fn given(&self) -> Option<Moment> {
        self.given.lock().filter(|_| self.is_kept)
    }
}

/// Something open.
#[derive(Clone)]
pub enum Handle {
    /// A file of a znode.
    File(Arc<FileHandle>),
    /// A directory.
    Directory(Arc<DirectoryHandle>),
    /// A status file: its text as of the open.
    Status(Bytes),
}

#[derive(Default)]
struct Tables {
    last: u64,
    handles: HashMap<u64, Handle>,
    /// The open files of each inode.
    files: HashMap<u64, Vec<Arc<FileHandle>>>,
    /// Each directory as often as it is open.
    directories: HashMap<u64, Vec<Arc<DirectoryHandle>>>,
    /// Commits of closed files: each channel is closed when its commit has ended.
    releasing: HashMap<u64, Vec<watch::Receiver<()>>>,
}

/// Everything open.
#[derive(Default)]
pub struct HandleTable {
    tables: Mutex<Tables>,
    is_releasing: AtomicBool,
}

/// Stands for the commit of a closed file; dropping it says that it has ended.
pub struct Releasing(#[allow(dead_code, reason = "its drop is the message")] watch::Sender<()>);

fn take_out<T>(open: &mut HashMap<u64, Vec<Arc<T>>>, inode: u64, closed: &Arc<T>) {
    if let Some(handles) = open.get_mut(&inode) {
        handles.retain(|handle| !Arc::ptr_eq(handle, closed));
        if handles.is_empty() {
            open.remove(&inode);
        }
    }
}

impl HandleTable {
    /// Adds something open; the number that the kernel is to know it by.
    pub fn insert(&self, handle: Handle) -> u64 {
        let mut tables = self.tables.lock();
        tables.last += 1;
        let number = tables.last;
        match &handle {
            Handle::File(file) => {
                tables.files.entry(file.inode).or_default().push(file.clone());
            }
            Handle::Directory(directory) => {
                tables.directories.entry(directory.inode).or_default().push(directory.clone());
            }
            Handle::Status(_) => {}
        }
        tables.handles.insert(number, handle);
        number
    }

    /// What is open under a number.
    pub fn get(&self, number: u64) -> Option<Handle> {
        self.tables.lock().handles.get(&number).cloned()
    }

    /// The open file under a number.
    pub fn file(&self, number: u64) -> Option<Arc<FileHandle>> {
        match self.tables.lock().handles.get(&number) {
            Some(Handle::File(file)) => Some(file.clone()),
            _ => None,
        }
    }

    /// Removes what was closed.
    pub fn remove(&self, number: u64) -> Option<Handle> {
        let mut tables = self.tables.lock();
        let handle = tables.handles.remove(&number)?;
        match &handle {
            Handle::File(closed) => take_out(&mut tables.files, closed.inode, closed),
            Handle::Directory(closed) => take_out(&mut tables.directories, closed.inode, closed),
            Handle::Status(_) => {}
        }
        Some(handle)
    }

    /// A directory, as often as it is open.
    pub fn directories_of(&self, inode: u64) -> Vec<Arc<DirectoryHandle>> {
        self.tables.lock().directories.get(&inode).cloned().unwrap_or_default()
    }

    /// How much is open.
    pub fn len(&self) -> usize {
        self.tables.lock().handles.len()
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The open files of an inode.
    pub fn files_of(&self, inode: u64) -> Vec<Arc<FileHandle>> {
        self.tables.lock().files.get(&inode).cloned().unwrap_or_default()
    }

    /// The length that an inode has for local eyes while an open file of it has changes that are
    /// not committed; `length` is that of the znode's value.
    pub fn pending_length(&self, inode: u64, length: usize) -> Option<usize> {
        let tables = self.tables.lock();
        let files = tables.files.get(&inode)?;
        files.iter().rev().find_map(|file| file.file.lock().pending_length(length))
    }

    /// Announces the commit of a closed file. Call it before the next request of the kernel is
    /// taken, so that no open can pass it.
    pub fn begin_release(&self, inode: u64) -> Releasing {
        let (sender, receiver) = watch::channel(());
        self.tables.lock().releasing.entry(inode).or_default().push(receiver);
        self.is_releasing.store(true, Ordering::Release);
        Releasing(sender)
    }

    /// Waits until no commit of a closed file of this inode is under way.
    pub async fn settled(&self, inode: u64) {
        for mut releasing in self.releases_of(inode) {
            // The only message is that the channel is closed.
            let _ = releasing.changed().await;
        }
    }

    /// Whether no commit of a closed file of this inode is under way.
    pub fn is_settled(&self, inode: u64) -> bool {
        self.releases_of(inode).is_empty()
    }

    fn releases_of(&self, inode: u64) -> Vec<watch::Receiver<()>> {
        if !self.is_releasing.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut tables = self.tables.lock();
        tables.releasing.retain(|_, releases| {
            releases.retain(|release| release.has_changed().is_ok());
            !releases.is_empty()
        });
        self.is_releasing.store(!tables.releasing.is_empty(), Ordering::Release);
        tables.releasing.get(&inode).cloned().unwrap_or_default()
    }

    /// Waits until no commit of any closed file is under way.
    pub async fn all_settled(&self) {
        let inodes: Vec<u64> = self.tables.lock().releasing.keys().copied().collect();
        for inode in inodes {
            self.settled(inode).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open_file::OpenMode;

    fn file(inode: u64) -> Arc<FileHandle> {
        Arc::new(FileHandle {
            inode,
            file: Mutex::new(OpenFile::created(OpenMode { write: true, ..OpenMode::default() }, 1)),
            committing: tokio::sync::Mutex::default(),
            owner: None,
            lock: LockMark::default(),
            synchronous: false,
            is_limit_told: AtomicBool::new(false),
        })
    }

    #[test]
    fn handles_are_found_by_number_and_by_inode() {
        let table = HandleTable::default();
        let one = table.insert(Handle::File(file(7)));
        let two = table.insert(Handle::File(file(7)));
        assert_ne!(one, two);
        assert_eq!(table.files_of(7).len(), 2);
        table.remove(one);
        assert_eq!(table.files_of(7).len(), 1);
        assert!(table.file(one).is_none() && table.file(two).is_some());
        table.remove(two);
        assert!(table.files_of(7).is_empty());
    }

    #[test]
    fn the_length_of_pending_changes_is_seen_through_the_inode() {
        let table = HandleTable::default();
        let handle = file(7);
        table.insert(Handle::File(handle.clone()));
        assert_eq!(table.pending_length(7, 3), None);
        handle.file.lock().write(0, b"12345", 100).unwrap();
        assert_eq!(table.pending_length(7, 3), Some(5));
        assert_eq!(table.pending_length(8, 3), None);
    }

    #[test]
    fn a_lock_that_was_lost_stays_lost() {
        let mark = LockMark::default();
        assert!(!mark.is_lost(SessionId(2)), "there was none");
        mark.locked(SessionId(1));
        mark.unlocked(SessionId(1));
        assert!(!mark.is_lost(SessionId(2)), "it was given back in time");
        mark.locked(SessionId(2));
        mark.unlocked(SessionId(3));
        assert!(mark.is_lost(SessionId(3)));
        mark.locked(SessionId(3));
        assert!(mark.is_lost(SessionId(3)));
    }

    #[tokio::test]
    async fn an_open_waits_for_the_commit_of_a_closed_file() {
        let table = HandleTable::default();
        table.settled(7).await;
        let releasing = table.begin_release(7);
        table.settled(8).await;
        let mut waiting = std::pin::pin!(table.settled(7));
        let no_wait = std::time::Duration::ZERO;
        assert!(tokio::time::timeout(no_wait, &mut waiting).await.is_err());
        assert!(table.is_settled(8) && !table.is_settled(7));
        drop(releasing);
        waiting.await;
        assert!(table.is_settled(7));
        table.all_settled().await;
    }
}
