//! Locks of files: `SETLK`, `GETLK`, and what a close does to them. What is written under a lock is
//! committed before the lock goes to the next, and what is read under it is read anew.

use std::sync::Arc;

use fuser::Errno;

use super::files::Closed;
use super::{Filesystem, status};
use crate::caller::Caller;
use crate::handle_table::FileHandle;
use crate::lock_table::{Held, LockKey, Range};
use crate::locks::{LockRequest, Obstacle};

/// What a close leaves to be done: what is to be committed, then the lock that goes with it.
pub struct Closing {
    closed: Closed,
    held: Option<Held>,
}

impl Filesystem {
    /// `SETLK` and `SETLKW` of a lock.
    pub async fn lock(&self, request: LockRequest) -> Result<(), Errno> {
        let number = request.key.inode;
        if status::is_status(number) {
            return Err(Errno::EOPNOTSUPP);
        }
        let path = self.inode(number)?.path;
        let file = self.handles.file(request.handle);
        if let Some(file) = &file {
            self.check_lock(file)?;
        }
        self.locks.lock(&path, request).await?;
        if let Some(file) = &file {
            file.lock.locked(self.znodes.service().session_id());
        }
        // What was taken at open may be older than what the last holder has left.
        for other in self.handles.files_of(number) {
            let is_same = file.as_ref().is_some_and(|file| Arc::ptr_eq(file, &other));
            let mut open_file = other.file.lock();
            match is_same || open_file.is_opened_by(request.process) {
                true => open_file.locked(),
                false => open_file.synced(),
            }
        }
        Ok(())
    }

    /// `SETLK` of an unlock.
    pub async fn unlock(
        &self,
        caller: Caller,
        key: LockKey,
        handle: u64,
        range: Range,
    ) -> Result<(), Errno> {
        if !self.locks.holds(key) {
            return Ok(());
        }
        let path = self.inode(key.inode)?.path;
        let committed = self.commit_before_unlock(caller, key.inode, handle).await;
        let handles = self.locks.handles_of(key);
        self.locks.unlock(&path, key, range).await;
        if !self.locks.holds(key) {
            self.note_unlocked(&handles);
        }
        committed
    }

    /// Commits what the caller has written, through this open file and through its others.
    async fn commit_before_unlock(
        &self,
        caller: Caller,
        inode: u64,
        handle: u64,
    ) -> Result<(), Errno> {
        let mut process = None;
        let mut result = Ok(());
        for file in self.handles.files_of(inode) {
            if !file.file.lock().is_changed() {
                continue;
            }
            let process = *process.get_or_insert_with(|| caller.process());
            let is_own = file.file.lock().is_written_by(process)
                || self.handles.file(handle).is_some_and(|own| Arc::ptr_eq(&own, &file));
            if is_own {
                result = result.and(self.commit(&file).await);
            }
        }
        result
    }

    /// `GETLK`: what would keep the caller from the lock.
    pub async fn obstacle(&self, request: LockRequest) -> Result<Option<Obstacle>, Errno> {
        if status::is_status(request.key.inode) {
            return Err(Errno::EOPNOTSUPP);
        }
        let path = self.inode(request.key.inode)?.path;
        self.locks.obstacle(&path, request.key, request.mode).await
    }

    /// A process closes a file, however often it has it open: its fcntl locks of it go, for which the
    /// kernel has no unlock.
    pub fn locks_closed(&self, key: LockKey) -> Option<Held> {
        if !self.locks.holds(key) {
            return None;
        }
        let handles = self.locks.handles_of(key);
        let held = self.locks.take(key, None);
        self.note_unlocked(&handles);
        held
    }

    fn note_unlocked(&self, handles: &[u64]) {
        let session = self.znodes.service().session_id();
        for file in handles.iter().filter_map(|handle| self.handles.file(*handle)) {
            file.lock.unlocked(session);
        }
    }

    /// `RELEASE`: the last descriptor is closed. `flock_owner` is there when the file was locked by
    /// flock. Call it before the next request of the kernel is taken: an open that comes later then
    /// waits for what is still to be committed. `None` when nothing is left to be done.
    pub fn close(&self, inode: u64, handle: u64, flock_owner: Option<u64>) -> Option<Closing> {
        let held =
            flock_owner.and_then(|owner| self.locks.take(LockKey { inode, owner }, Some(handle)));
        match (self.release(handle), held) {
            (Closed::Done, None) => None,
            (closed, held) => Some(Closing { closed, held }),
        }
    }

    /// Does what a close has left.
    pub async fn finish_close(&self, closing: Closing) {
        match closing.closed {
            Closed::Done => {}
            Closed::MustCommit(file, releasing) => self.commit_released(&file, releasing).await,
            Closed::MustEnd(ending) => self.end_closed(ending).await,
        }
        self.end_lock(closing.held).await;
    }

    /// Lets the next have the lock that a close ends.
    pub async fn end_lock(&self, held: Option<Held>) {
        if let Some(held) = held {
            self.locks.release(held).await;
        }
    }

    /// A file whose lock is lost can only be closed: what its program would do with it, another holder
    /// does meanwhile.
    pub(super) fn check_lock(&self, file: &FileHandle) -> Result<(), Errno> {
        match file.lock.is_lost(self.znodes.service().session_id()) {
            true => Err(Errno::ESTALE),
            false => Ok(()),
        }
    }
}
