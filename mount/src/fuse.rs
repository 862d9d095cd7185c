//! The kernel's side: decodes a request, calls the file system, replies. Nothing is decided here,
//! and nothing ever waits: what has to wait becomes a task that replies.

mod answer;

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;
use znodefs::recipe::LockMode;

use crate::caller::Caller;
use crate::filesystem::{
    AttributeChange, Entry, Filesystem, ListingValidity, ReadNow, RenameKind, Space, WrittenNow,
};
use crate::lock_table::LockKey;
use crate::locks::{LockRequest, Obstacle};
use crate::naming::NAME_LENGTH_MAX;
use crate::recent_lookups::RecentLookups;
use crate::replay::HELPER_HANDLE;

use answer::{
    Looked, NOT_KEPT, creation_flags, lock_mode, open_flags, respond_attributes, respond_empty,
    respond_entry, respond_replayed, respond_xattr,
};

/// How long a lookup answers the getattr behind it.
const LOOKUP_AGE_MAX: Duration = Duration::from_millis(5);

/// How long an open answers the getattr behind it.
const OPEN_AGE_MAX: Duration = Duration::from_secs(1);

/// The largest write in one request: a whole value.
const WRITE_LENGTH_MAX: u32 = 1 << 20;

/// The kernel's view of a [`Filesystem`].
pub struct Adapter {
    filesystem: Arc<Filesystem>,
    lookups: Arc<RecentLookups>,
    opens: Arc<RecentLookups>,
    runtime: Handle,
}

impl Adapter {
    /// Serves a file system with the tasks of a runtime.
    pub fn new(filesystem: Arc<Filesystem>, runtime: Handle) -> Adapter {
        let lookups = Arc::new(RecentLookups::new(LOOKUP_AGE_MAX));
        let opens = Arc::new(RecentLookups::new(OPEN_AGE_MAX));
        Adapter { filesystem, lookups, opens, runtime }
    }

    /// Answers with what some work comes to: at once when nothing has to be waited for, else from a
    /// task. What the work asks the servers first is on its way before this returns.
    fn answer<R, T, F>(
        &self,
        reply: R,
        work: impl FnOnce(Arc<Filesystem>) -> F,
        respond: impl FnOnce(R, Result<T, Errno>) + Send + 'static,
    ) where
        R: Send + 'static,
        T: Send + 'static,
        F: Future<Output = Result<T, Errno>> + Send + 'static,
    {
        self.filesystem.statistics().requests.fetch_add(1, Ordering::Relaxed);
        let filesystem = self.filesystem.clone();
        let work = work(filesystem.clone());
        self.start(async move {
            let result = work.await;
            filesystem.before_answer();
            respond(reply, result);
        });
    }

    /// Whether a request is of the replay helper, which is answered from what is known.
    fn is_replay(&self, request: &Request) -> bool {
        self.filesystem.is_replay(request.pid())
    }

    fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work = Box::pin(work);
        let _runtime = self.runtime.enter();
        if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.runtime.spawn(work);
        }
    }

    /// Answers with the entry that some work in a directory comes to.
    fn answer_entry<F>(
        &self,
        caller: Caller,
        (parent, name): (u64, &OsStr),
        reply: ReplyEntry,
        work: impl FnOnce(Arc<Filesystem>, OsString) -> F,
    ) where
        F: Future<Output = Result<Entry, Errno>> + Send + 'static,
    {
        let (asked, lookups) = (self.filesystem.asking(), self.lookups.clone());
        let name = name.to_os_string();
        let work = |fs: Arc<Filesystem>| {
            let work = work(fs.clone(), name.clone());
            async move {
                match work.await {
                    Ok(entry) => {
                        let number = entry.attributes.ino.0;
                        lookups.note(caller.thread, number, asked);
                        let validity = fs.entry_validity(asked, parent, &name, number);
                        Ok(Looked::Found(entry, validity))
                    }
                    Err(Errno::ENOENT) => {
                        Ok(Looked::Absent(fs.absence_validity(asked, parent, &name)))
                    }
                    Err(error) => Err(error),
                }
            }
        };
        self.answer(reply, work, respond_entry);
    }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            // Truncation at open comes with the open, so that it is gathered with the writes.
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            // Operations in one directory do not wait for each other.
            InitFlags::FUSE_PARALLEL_DIROPS,
            // Whether a caller leaves its mode to the umask tells tar's O_NONBLOCK from ours.
            InitFlags::FUSE_DONT_MASK,
            // There are no set-user-id files here that a write would have to clear.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // Locks hold on all machines.
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
        ];
        for capability in wanted {
            if config.add_capabilities(capability).is_err() {
                tracing::warn!("the kernel's FUSE has no {capability:?}");
            }
        }
        // Whatever the kernel allows is fine.
        let _ = config.set_max_write(WRITE_LENGTH_MAX);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.is_replay(request) {
            return respond_replayed(reply, self.filesystem.replayed_lookup(parent.0, name));
        }
        let caller = Caller::of(request);
        self.answer_entry(caller, (parent.0, name), reply, move |fs, name| async move {
            fs.lookup(caller, parent.0, &name).await
        });
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        self.filesystem.forget(inode.0, lookups);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if self.is_replay(request) {
            let known = self.filesystem.replayed_attributes(inode.0);
            return respond_attributes(reply, known.map(|attributes| (attributes, NOT_KEPT)));
        }
        let thread = Caller::of(request).thread;
        let fs = &self.filesystem;
        let opened = self.opens.take(thread, inode.0);
        let is_known = self.lookups.take(thread, inode.0).is_some()
            || opened.is_some_and(|asked| !fs.attributes_validity(asked, inode.0).is_zero());
        if is_known && let Some(attributes) = fs.known_attributes(inode.0) {
            return reply.attr(&NOT_KEPT, &attributes);
        }
        let asked = fs.asking();
        let work = |fs: Arc<Filesystem>| async move {
            let attributes = fs.getattr(inode.0).await?;
            Ok((attributes, fs.attributes_validity(asked, inode.0)))
        };
        self.answer(reply, work, respond_attributes);
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.is_replay(request) {
            let known = self.filesystem.replayed_attributes(inode.0);
            return respond_attributes(reply, known.map(|attributes| (attributes, NOT_KEPT)));
        }
        let caller = Caller::of(request);
        let change = AttributeChange { mode, uid, gid, size, atime, mtime };
        let handle = handle.map(|handle| handle.0);
        let work = move |fs: Arc<Filesystem>| async move {
            Ok((fs.setattr(caller, inode.0, handle, change).await?, NOT_KEPT))
        };
        self.answer(reply, work, respond_attributes);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let mode = mode & !umask;
        let caller = Caller::of(request);
        self.answer_entry(caller, (parent.0, name), reply, move |fs, name| async move {
            fs.mknod(caller, parent.0, &name, mode).await
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        if self.is_replay(request) {
            let made = self.filesystem.replayed_creation(parent.0, name, true);
            return respond_replayed(reply, made);
        }
        let mode = mode & !umask;
        let caller = Caller::of(request);
        self.answer_entry(caller, (parent.0, name), reply, move |fs, name| async move {
            fs.mkdir(caller, parent.0, &name, mode).await
        });
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.is_replay(request) {
            return respond_empty(reply, self.filesystem.replayed_removal(parent.0, name));
        }
        let (caller, name) = (Caller::of(request), name.to_os_string());
        let work = |fs: Arc<Filesystem>| async move { fs.unlink(caller, parent.0, &name).await };
        self.answer(reply, work, respond_empty);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.is_replay(request) {
            return respond_empty(reply, self.filesystem.replayed_removal(parent.0, name));
        }
        let (caller, name) = (Caller::of(request), name.to_os_string());
        let work = |fs: Arc<Filesystem>| async move { fs.rmdir(caller, parent.0, &name).await };
        self.answer(reply, work, respond_empty);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let kind = match flags {
            flags if flags.is_empty() => RenameKind::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameKind::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameKind::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let caller = Caller::of(request);
        let (name, new_name) = (name.to_os_string(), new_name.to_os_string());
        let work = move |fs: Arc<Filesystem>| async move {
            fs.rename(caller, (parent.0, &name), (new_parent.0, &new_name), kind).await
        };
        self.answer(reply, work, respond_empty);
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.is_replay(request) {
            return reply.opened(FileHandle(HELPER_HANDLE), FopenFlags::FOPEN_DIRECT_IO);
        }
        let caller = Caller::of(request);
        // A later fstat has nothing to do with the lookup before this open.
        self.lookups.take(caller.thread, inode.0);
        let (opens, asked) = (self.opens.clone(), self.filesystem.asking());
        let work = move |fs: Arc<Filesystem>| async move {
            let opened = fs.open(caller, inode.0, flags.0).await?;
            opens.note(caller.thread, inode.0, asked);
            Ok(opened)
        };
        self.answer(reply, work, |reply: ReplyOpen, result| match result {
            Ok(opened) => reply.opened(FileHandle(opened.handle), open_flags(opened)),
            Err(error) => reply.error(error),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if self.is_replay(request) {
            return match self.filesystem.replayed_creation(parent.0, name, false) {
                Ok(Entry { attributes, generation }) => reply.created(
                    &NOT_KEPT,
                    &attributes,
                    Generation(generation),
                    FileHandle(HELPER_HANDLE),
                    FopenFlags::FOPEN_DIRECT_IO,
                ),
                Err(error) => reply.error(error),
            };
        }
        let flags = creation_flags(flags, mode, umask);
        let mode = mode & !umask;
        let (caller, name) = (Caller::of(request), name.to_os_string());
        let work = move |fs: Arc<Filesystem>| async move {
            fs.create(caller, parent.0, &name, mode, flags).await
        };
        self.answer(reply, work, |reply: ReplyCreate, result| match result {
            Ok((Entry { attributes, generation }, opened)) => reply.created(
                &NOT_KEPT,
                &attributes,
                Generation(generation),
                FileHandle(opened.handle),
                open_flags(opened),
            ),
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = size as usize;
        match self.filesystem.read_now(handle.0, offset, length) {
            Ok(ReadNow::Data(data)) => reply.data(&data),
            Ok(ReadNow::MustWait(file)) => {
                let work =
                    move |fs: Arc<Filesystem>| async move { fs.read(&file, offset, length).await };
                self.answer(reply, work, |reply: ReplyData, result| match result {
                    Ok(data) => reply.data(&data),
                    Err(error) => reply.error(error),
                });
            }
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = data.len() as u32;
        match self.filesystem.write(handle.0, offset, data) {
            Ok(WrittenNow::Taken) => reply.written(length),
            Ok(WrittenNow::MustCommit(file)) => {
                let work = |fs: Arc<Filesystem>| async move { fs.commit(&file).await };
                self.answer(reply, work, move |reply: ReplyWrite, result| match result {
                    Ok(()) => reply.written(length),
                    Err(error) => reply.error(error),
                });
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let pending = self.filesystem.flush_now(Caller::of(request), handle.0);
        let key = LockKey { inode: inode.0, owner: lock_owner.0 };
        let held = self.filesystem.locks_closed(key);
        if pending.is_none() && held.is_none() {
            return reply.ok();
        }
        let work = |fs: Arc<Filesystem>| async move {
            let committed = match pending {
                Some(file) => fs.commit(&file).await,
                None => Ok(()),
            };
            fs.end_lock(held).await;
            committed
        };
        self.answer(reply, work, respond_empty);
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let work = move |fs: Arc<Filesystem>| async move { fs.fsync(handle.0).await };
        self.answer(reply, work, respond_empty);
    }

    fn release(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let flock_owner = lock_owner.map(|owner| owner.0);
        match self.filesystem.close(inode.0, handle.0, flock_owner) {
            None => reply.ok(),
            Some(closing) => {
                let work = |fs: Arc<Filesystem>| async move {
                    fs.finish_close(closing).await;
                    Ok(())
                };
                self.answer(reply, work, respond_empty);
            }
        }
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let caller = Caller::of(request);
        self.lookups.take(caller.thread, inode.0);
        let (opens, asked) = (self.opens.clone(), self.filesystem.asking());
        let work = move |fs: Arc<Filesystem>| async move {
            let (handle, validity) = fs.opendir(caller, inode.0).await?;
            opens.note(caller.thread, inode.0, asked);
            let flags = match validity {
                ListingValidity::None => FopenFlags::empty(),
                ListingValidity::New => FopenFlags::FOPEN_CACHE_DIR,
                ListingValidity::Kept => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
            };
            Ok((handle, flags))
        };
        self.answer(reply, work, |reply: ReplyOpen, result| match result {
            Ok((handle, flags)) => reply.opened(FileHandle(handle), flags),
            Err(error) => reply.error(error),
        });
    }

    fn readdir(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let filesystem = self.filesystem.clone();
        self.start(async move {
            let result = filesystem
                .readdir(handle.0, offset, |entry| {
                    reply.add(INodeNo(entry.inode), entry.next_offset, entry.kind, &entry.name)
                })
                .await;
            filesystem.before_answer();
            match result {
                Ok(stale) => {
                    reply.ok();
                    if let Some(directory) = stale {
                        tokio::task::spawn_blocking(move || filesystem.forget_listing(directory));
                    }
                }
                Err(error) => reply.error(error),
            }
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.filesystem.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let work = move |fs: Arc<Filesystem>| async move { fs.fsyncdir(inode.0).await };
        self.answer(reply, work, respond_empty);
    }

    fn statfs(&self, _: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let work = |fs: Arc<Filesystem>| async move { Ok(fs.statfs().await) };
        self.answer(reply, work, |reply: ReplyStatfs, result| match result {
            Ok(space) => reply.statfs(
                space.blocks,
                space.blocks_free,
                space.blocks_free,
                space.files,
                space.files_free,
                Space::BLOCK_SIZE,
                NAME_LENGTH_MAX as u32,
                Space::BLOCK_SIZE,
            ),
            Err(error) => reply.error(error),
        });
    }

    fn access(&self, request: &Request, inode: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let (caller, wanted) = (Caller::of(request), mask.bits() as u16);
        let work =
            move |fs: Arc<Filesystem>| async move { fs.access(caller, inode.0, wanted).await };
        self.answer(reply, work, respond_empty);
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        // Every znode has every attribute.
        if flags & libc::XATTR_CREATE != 0 && Filesystem::may_have_xattr(inode.0, name) {
            return reply.error(Errno::EEXIST);
        }
        let (caller, name, value) = (Caller::of(request), name.to_os_string(), value.to_vec());
        let work = move |fs: Arc<Filesystem>| async move {
            fs.setxattr(caller, inode.0, &name, &value).await
        };
        self.answer(reply, work, respond_empty);
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !Filesystem::may_have_xattr(inode.0, name) {
            return reply.error(Errno::ENODATA);
        }
        let name = name.to_os_string();
        let work = move |fs: Arc<Filesystem>| async move { fs.getxattr(inode.0, &name).await };
        self.answer(reply, work, move |reply, result| {
            respond_xattr(reply, result.map(String::into_bytes), size);
        });
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        respond_xattr(reply, Ok(self.filesystem.listxattr(inode.0)), size);
    }

    fn removexattr(&self, _: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply.error(self.filesystem.removexattr(inode.0, name));
    }

    fn getlk(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let Some(mode) = lock_mode(kind) else { return reply.error(Errno::EINVAL) };
        let request = LockRequest {
            key: LockKey { inode: inode.0, owner: lock_owner.0 },
            handle: handle.0,
            range: (start, end),
            mode,
            process: pid,
            waiting: None,
        };
        let work = move |fs: Arc<Filesystem>| async move { fs.obstacle(request).await };
        self.answer(reply, work, move |reply: ReplyLock, result| match result {
            Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
            Ok(Some(Obstacle { mode, process })) => {
                let kind = match mode {
                    LockMode::Exclusive => libc::F_WRLCK,
                    LockMode::Shared => libc::F_RDLCK,
                };
                // Every lock is one of the whole file.
                reply.locked(0, i64::MAX as u64, kind, process);
            }
            Err(error) => reply.error(error),
        });
    }

    fn setlk(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let caller = Caller::of(request);
        let key = LockKey { inode: inode.0, owner: lock_owner.0 };
        let (handle, range) = (handle.0, (start, end));
        if kind == libc::F_UNLCK {
            let work = move |fs: Arc<Filesystem>| async move {
                fs.unlock(caller, key, handle, range).await
            };
            return self.answer(reply, work, respond_empty);
        }
        let Some(mode) = lock_mode(kind) else { return reply.error(Errno::EINVAL) };
        let waiting = sleep.then_some(caller.thread);
        let request = LockRequest { key, handle, range, mode, process: pid, waiting };
        let work = move |fs: Arc<Filesystem>| async move { fs.lock(request).await };
        self.answer(reply, work, respond_empty);
    }

    fn ioctl(
        &self,
        _: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: fuser::IoctlFlags,
        _command: u32,
        _data: &[u8],
        _size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn lseek(
        &self,
        _: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        // The kernel then does it by itself, for every seek to come.
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _inode_in: INodeNo,
        _handle_in: FileHandle,
        _offset_in: u64,
        _inode_out: INodeNo,
        _handle_out: FileHandle,
        _offset_out: u64,
        _length: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel then copies by reading and writing.
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _notifier: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        // The kernel then says that files are always ready, as for any other file system.
        reply.error(Errno::ENOSYS);
    }
}
