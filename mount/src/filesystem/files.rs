//! Open files: `OPEN`, `READ`, `WRITE`, `FLUSH`, `FSYNC`, `RELEASE`. What can be answered from
//! memory is answered at once; only what has to ask the servers waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fuser::Errno;
use parking_lot::Mutex;
use znodefs::{ErrorCode, Stat};

use super::create::{Opened, open_mode, told};
use super::lifetime::Ending;
use super::{Filesystem, status, value_length_max, want};
use crate::caller::Caller;
use crate::changes::Changes;
use crate::commit::{CommitError, Committed};
use crate::errno;
use crate::handle_table::{FileHandle, Handle, LockMark, Releasing};
use crate::inode_table::{Inode, Presence, Znode};
use crate::open_file::{Commit, OpenFile, OpenMode, ReadStep, Value};
use crate::service::ServiceError;
use crate::value_cache::CachedValue;

/// How often an operation is tried again in a new session.
const EXPIRIES_MAX: u32 = 3;

/// A read that either was answered or has to wait for the value.
pub enum ReadNow {
    /// The bytes.
    Data(Bytes),
    /// Go on with [`Filesystem::read`].
    MustWait(Arc<FileHandle>),
}

/// A write that either was taken or has to be committed at once.
pub enum WrittenNow {
    /// Taken; it will be committed later.
    Taken,
    /// Go on with [`Filesystem::commit`] before the write returns.
    MustCommit(Arc<FileHandle>),
}

/// What a release leaves to be done.
pub enum Closed {
    /// Nothing.
    Done,
    /// Go on with [`Filesystem::commit_released`].
    MustCommit(Arc<FileHandle>, Releasing),
    /// Go on with [`Filesystem::end_closed`].
    MustEnd(Ending),
}

impl Filesystem {
    /// `OPEN`. Session, permission and znode are checked here, so that errors come at open.
    pub async fn open(&self, caller: Caller, number: u64, flags: i32) -> Result<Opened, Errno> {
        let mode = open_mode(flags);
        if mode.write {
            self.check_writable()?;
        }
        if status::is_status(number) {
            return self.open_status(number, mode);
        }
        // The thread's process is asked for while the thread is sure to be there.
        let opener = if mode.write { caller.process() } else { 0 };
        self.handles.settled(number).await;
        self.commit_of_same_process(caller, number).await?;
        let inode = self.inode(number)?;
        if inode.presence != Presence::Live {
            // The kernel then looks the name up again.
            return Err(Errno::ESTALE);
        }
        if !mode.write
            && !mode.synchronous
            && let Some(CachedValue { data, stat }) = self.known_value(&inode)
        {
            self.check(caller, &inode.znode, false, want::READ)?;
            let file = OpenFile::new(mode, opener, Some(value_of(data, &stat)));
            return Ok(self.add_file(number, file, &stat));
        }
        let synced = mode.synchronous.then(|| self.znodes.sync(&inode.path));
        let (znode, value) = self.value_to_open(&inode, mode).await?;
        if let Some(synced) = synced {
            synced.await.map_err(|error| errno::from_service(&error))?;
        }
        let znode = match self.inodes.lock().update(number, znode) {
            Some(inode) if inode.presence == Presence::Live => inode.znode.clone(),
            _ => return Err(Errno::ESTALE),
        };
        let read = if mode.read { want::READ } else { 0 };
        let write = if mode.write { want::WRITE } else { 0 };
        self.check(caller, &znode, false, read | write)?;
        Ok(self.add_file(number, OpenFile::new(mode, opener, value), &znode.stat))
    }

    /// Commits what the caller's own process has written to the file through other descriptors: it
    /// knows that it is there (git reads back a pack that it is still writing).
    pub(super) async fn commit_of_same_process(
        &self,
        caller: Caller,
        number: u64,
    ) -> Result<(), Errno> {
        let files = self.handles.files_of(number);
        if files.iter().all(|file| !file.file.lock().is_changed()) {
            return Ok(());
        }
        let process = caller.process();
        for file in files {
            let is_own = file.file.lock().is_written_by(process);
            if is_own {
                self.commit(&file).await?;
            }
        }
        Ok(())
    }

    /// A znode as it is, with its value where that is going to be read or appended to.
    async fn value_to_open(
        &self,
        inode: &Inode,
        mode: OpenMode,
    ) -> Result<(Option<Znode>, Option<Value>), Errno> {
        if mode.truncate {
            return Ok((self.fetch(&inode.path, Some(&inode.znode)).await?, None));
        }
        let asked = self.asking();
        match self.znodes.get_data(&inode.path).await {
            Ok((data, stat)) => {
                self.keep_value(asked, inode, CachedValue { data: data.clone(), stat });
                let (null_data, known) = (Some(data.is_none()), Some(&inode.znode));
                let no_acl = None::<std::future::Ready<_>>;
                let znode = self.complete(&inode.path, stat, null_data, known, no_acl).await?;
                Ok((znode, Some(value_of(data, &stat))))
            }
            Err(ServiceError::Code(ErrorCode::NoNode)) => Ok((None, None)),
            // What may be written but not read is applied to whatever is there.
            Err(ServiceError::Code(ErrorCode::NoAuth)) if !mode.read => {
                Ok((self.fetch(&inode.path, Some(&inode.znode)).await?, None))
            }
            Err(error) => Err(errno::from_service(&error)),
        }
    }

    /// Adds an open file of an inode whose znode has this stat.
    pub(super) fn add_file(&self, inode: u64, file: OpenFile, stat: &Stat) -> Opened {
        let is_stream = file.has_cursor();
        let synchronous = file.mode().synchronous;
        let handle = FileHandle {
            inode,
            file: Mutex::new(file),
            committing: tokio::sync::Mutex::default(),
            owner: self.own_session(stat),
            lock: LockMark::default(),
            synchronous,
            is_limit_told: AtomicBool::new(false),
        };
        let handle = self.handles.insert(Handle::File(Arc::new(handle)));
        Opened { handle, is_stream }
    }

    /// `READ`, as far as no server has to be asked.
    pub fn read_now(&self, handle: u64, offset: u64, length: usize) -> Result<ReadNow, Errno> {
        match self.handles.get(handle).ok_or(Errno::EBADF)? {
            Handle::Directory(_) => Err(Errno::EISDIR),
            Handle::Status(text) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
                let end = start.saturating_add(length).min(text.len());
                Ok(ReadNow::Data(text.slice(start..end)))
            }
            Handle::File(file) => {
                self.check_lock(&file)?;
                let step = file.file.lock().read(offset, length);
                Ok(match step {
                    ReadStep::Data(data) => ReadNow::Data(data),
                    ReadStep::NeedsValue => ReadNow::MustWait(file),
                })
            }
        }
    }

    /// `READ` with the newest value taken first.
    pub async fn read(
        &self,
        handle: &FileHandle,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, Errno> {
        let mut expiries = 0;
        loop {
            if let ReadStep::Data(data) = handle.file.lock().read(offset, length) {
                return Ok(data);
            }
            let inode = self.inode(handle.inode)?;
            if inode.presence != Presence::Live {
                handle.file.lock().detach();
                continue;
            }
            self.check_owner(handle)?;
            if !handle.synchronous
                && let Some(CachedValue { data, stat }) = self.known_value(&inode)
            {
                handle.file.lock().supply(value_of(data, &stat));
                continue;
            }
            let synced = handle.synchronous.then(|| self.znodes.sync(&inode.path));
            let asked = self.asking();
            let data = self.znodes.get_data(&inode.path);
            if let Some(synced) = synced {
                synced.await.map_err(|error| errno::from_service(&error))?;
            }
            match data.await {
                // Another znode of the same name is another file.
                Ok((data, stat)) if stat.czxid == inode.czxid() => {
                    self.keep_value(asked, &inode, CachedValue { data: data.clone(), stat });
                    handle.file.lock().supply(value_of(data, &stat));
                }
                Ok(_) | Err(ServiceError::Code(ErrorCode::NoNode)) => {
                    self.inodes.lock().update(handle.inode, None);
                }
                // A new session does as well.
                Err(ServiceError::SessionExpired) if expiries < EXPIRIES_MAX => expiries += 1,
                Err(error) => return Err(errno::from_service(&error)),
            }
        }
    }

    /// `WRITE`: takes the bytes. The only error is `EFBIG`, for the write that crosses the limit.
    pub fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<WrittenNow, Errno> {
        let file = self.handles.file(handle).ok_or(Errno::EBADF)?;
        self.check_lock(&file)?;
        let length_max = self.length_max(file.inode)?;
        let written = file.file.lock().write(offset, bytes, length_max);
        written.map_err(|_| self.too_large(&file))?;
        Ok(if file.synchronous { WrittenNow::MustCommit(file) } else { WrittenNow::Taken })
    }

    /// What a file is told that would become too large; the log is told once for each open file.
    pub(super) fn too_large(&self, file: &FileHandle) -> Errno {
        if !file.is_limit_told.swap(true, Ordering::Relaxed)
            && let Ok(inode) = self.inode(file.inode)
        {
            self.tell_limit(&inode);
        }
        Errno::EFBIG
    }

    pub(super) fn tell_limit(&self, inode: &Inode) {
        let limit = self.limit_of(inode);
        let reason = format!(
            "a value has at most {limit} bytes: keep what is larger elsewhere, and its place here"
        );
        told(&inode.path, &reason);
    }

    /// The longest value that an inode's znode can take.
    pub(super) fn length_max(&self, inode: u64) -> Result<usize, Errno> {
        let inodes = self.inodes.lock();
        Ok(value_length_max(&inodes.get(inode).ok_or(Errno::ESTALE)?.path))
    }

    /// `FLUSH`, as far as nothing has to be committed: the file that has to be, if any.
    pub fn flush_now(&self, caller: Caller, handle: u64) -> Option<Arc<FileHandle>> {
        let file = self.handles.file(handle)?;
        if !file.file.lock().is_changed() {
            return None;
        }
        let process = caller.process();
        let commits = file.file.lock().commits_at_flush(process);
        commits.then_some(file)
    }

    /// `FSYNC`: commits, and catches up with the leader.
    pub async fn fsync(&self, handle: u64) -> Result<(), Errno> {
        let Some(file) = self.handles.file(handle) else { return Ok(()) };
        self.commit(&file).await?;
        let inode = self.inode(file.inode)?;
        if inode.presence == Presence::Live {
            self.sync(&inode.path).await?;
            file.file.lock().synced();
        }
        Ok(())
    }

    pub(super) async fn sync(&self, path: &str) -> Result<(), Errno> {
        self.znodes.sync(path).await.map_err(|error| errno::from_service(&error))
    }

    /// `RELEASE`: the last descriptor is closed. Call it before the next request of the kernel is
    /// taken: an open that comes later then waits for what is still to be committed.
    pub fn release(&self, handle: u64) -> Closed {
        let Some(Handle::File(file)) = self.handles.remove(handle) else { return Closed::Done };
        if let Some(ending) = self.ending_of(handle, file.inode) {
            return Closed::MustEnd(ending);
        }
        if !file.file.lock().is_changed() {
            return Closed::Done;
        }
        let releasing = self.handles.begin_release(file.inode);
        Closed::MustCommit(file, releasing)
    }

    /// Commits what a closed file has left. Nobody waits for the outcome: it is logged.
    pub async fn commit_released(&self, handle: &FileHandle, releasing: Releasing) {
        if let Err(error) = self.commit_logged(handle).await {
            let path = self.inode(handle.inode).map(|inode| inode.path);
            let path = path.as_deref().unwrap_or("a forgotten file");
            tracing::error!(
                "{path}: what was written before the last close is lost: {error} (close sees \
                 such errors only in the process that opened the file; use fsync to see them)"
            );
        }
        drop(releasing);
    }

    /// Commits everything pending in an open file as one setData.
    pub async fn commit(&self, handle: &FileHandle) -> Result<(), Errno> {
        self.commit_logged(handle).await.map_err(|error| match error {
            CommitError::Stale => Errno::ESTALE,
            CommitError::TooLarge => Errno::EFBIG,
            // The file was there when it was opened.
            CommitError::Service(ServiceError::Code(ErrorCode::NoNode)) => Errno::ESTALE,
            CommitError::Service(error) => errno::from_service(&error),
        })
    }

    async fn commit_logged(&self, handle: &FileHandle) -> Result<(), CommitError> {
        let _turn = handle.committing.lock().await;
        let Some(pending) = handle.file.lock().begin_commit() else { return Ok(()) };
        let mut expiries = 0;
        loop {
            let inode = self.inodes.lock().get(handle.inode).cloned();
            let inode = match inode {
                Some(inode) if inode.presence == Presence::Live => inode,
                // Removed here, like any file that is still open: it lives on without a name.
                Some(inode) if inode.presence == Presence::Unlinked => {
                    handle.file.lock().end_commit_detached(pending);
                    return Ok(());
                }
                _ => {
                    handle.file.lock().fail_commit(None);
                    return Err(ServiceError::Code(ErrorCode::NoNode).into());
                }
            };
            let outcome = match self.check_owner(handle) {
                Ok(()) => self.commit_as_creator(handle, &inode, &pending).await,
                Err(_) => Err(ServiceError::SessionExpired.into()),
            };
            let error = match outcome {
                Ok(Committed { value, stat }) => {
                    handle.file.lock().end_commit(value);
                    self.statistics.commits.fetch_add(1, Ordering::Relaxed);
                    self.note_stat(&inode, stat, Some(false));
                    return Ok(());
                }
                Err(error) => error,
            };
            if error == CommitError::Service(ServiceError::SessionExpired)
                && self.check_owner(handle).is_ok()
                && expiries < EXPIRIES_MAX
            {
                // A new session does as well.
                expiries += 1;
                continue;
            }
            if error == CommitError::Service(ServiceError::Code(ErrorCode::NoNode)) {
                let mut inodes = self.inodes.lock();
                let now = inodes.get(handle.inode);
                let elsewhere =
                    now.is_some_and(|now| now.path != inode.path || now.presence != Presence::Live);
                if elsewhere {
                    // It was renamed or removed here while the commit was under way.
                    continue;
                }
                inodes.update(handle.inode, None);
            }
            let keep = is_passing(&error).then(|| changes_of(pending));
            handle.file.lock().fail_commit(keep);
            return Err(error);
        }
    }

    pub(super) fn limit_of(&self, inode: &Inode) -> usize {
        value_length_max(&inode.path)
    }

    /// A file of an ephemeral znode of ours is of no use once the session has ended, nor one whose lock
    /// has gone with it.
    fn check_owner(&self, handle: &FileHandle) -> Result<(), Errno> {
        self.check_lock(handle)?;
        match handle.owner {
            Some(owner) if owner != self.znodes.service().session_id() => Err(Errno::ESTALE),
            _ => Ok(()),
        }
    }

    /// Notes what a write of data has made of an inode's znode.
    pub(super) fn note_stat(&self, inode: &Inode, stat: Stat, null_data: Option<bool>) {
        let mut inodes = self.inodes.lock();
        if let Some(known) = inodes.get(inode.number) {
            let mut znode = known.znode.clone();
            znode.null_data = null_data;
            znode.stat = stat;
            inodes.update(inode.number, Some(znode));
        }
    }
}

fn value_of(data: Option<Bytes>, stat: &Stat) -> Value {
    /// Smaller values are copied, so that a file open for long does not keep the whole buffer that
    /// the value came in.
    const COPIED_MAX: usize = 16 * 1024;
    let data = match data {
        Some(data) if data.len() <= COPIED_MAX => Bytes::copy_from_slice(&data),
        data => data.unwrap_or_default(),
    };
    Value { data, version: stat.version }
}

/// Whether a later try may succeed.
fn is_passing(error: &CommitError) -> bool {
    matches!(error, CommitError::Service(ServiceError::TimedOut | ServiceError::OutcomeUnknown))
}

fn changes_of(commit: Commit) -> Changes {
    match commit {
        Commit::Replace(data) => {
            let mut changes = Changes::truncation(0);
            changes.write(0, &data);
            changes
        }
        Commit::Modify { changes, .. } | Commit::ReadModify { changes, .. } => changes,
    }
}
