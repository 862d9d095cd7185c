//! Changing attributes: `SETATTR`, which is truncate, touch, chmod and chown in one.

use std::sync::Arc;

use fuser::{Errno, FileAttr, TimeOrNow};
use znodefs::{Acl, ErrorCode};

use super::{Filesystem, status, want};
use crate::caller::Caller;
use crate::changes::Changes;
use crate::commit::{CommitError, modify};
use crate::errno;
use crate::inode_table::{Inode, Presence, Znode};
use crate::service::ServiceError;

/// What is to be changed; `None` leaves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttributeChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Time of the last access, which znodes have not.
    pub atime: Option<TimeOrNow>,
    /// Time of the last modification.
    pub mtime: Option<TimeOrNow>,
}

impl AttributeChange {
    /// Whether a time other than now is to be set.
    fn sets_a_time(&self) -> bool {
        let is_other = |time: Option<TimeOrNow>| time.is_some_and(|time| time != TimeOrNow::Now);
        is_other(self.atime) || is_other(self.mtime)
    }
}

impl Filesystem {
    /// `SETATTR`. `handle` is the open file when it came by one (ftruncate).
    pub async fn setattr(
        &self,
        caller: Caller,
        number: u64,
        handle: Option<u64>,
        change: AttributeChange,
    ) -> Result<FileAttr, Errno> {
        if status::is_status(number) {
            return Err(Errno::EPERM);
        }
        self.check_writable()?;
        if let Some(mode) = change.mode {
            self.chmod(caller, number, mode).await?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            self.chown(caller, change)?;
        }
        if change.sets_a_time() && !self.is_owner(caller) {
            return Err(Errno::EPERM);
        }
        if let Some(size) = change.size {
            match handle.and_then(|handle| self.handles.file(handle)) {
                Some(file) => self.truncate_open(&file, size).await?,
                None => self.truncate(caller, number, size).await?,
            }
        } else if change.mtime == Some(TimeOrNow::Now) {
            self.touch(caller, number).await?;
        }
        // Any other time is taken note of by nobody: a znode has its own.
        self.getattr(number).await
    }

    /// ftruncate: gathered with the writes of the open file.
    async fn truncate_open(
        &self,
        file: &Arc<crate::handle_table::FileHandle>,
        size: u64,
    ) -> Result<(), Errno> {
        let must_commit = file.file.lock().must_commit_before_truncation();
        if must_commit {
            self.commit(file).await?;
        }
        let length_max = self.length_max(file.inode)?;
        let truncated = file.file.lock().truncate(size, length_max);
        truncated.map_err(|_| self.too_large(file))?;
        if file.synchronous { self.commit(file).await } else { Ok(()) }
    }

    /// truncate: committed at once.
    async fn truncate(&self, caller: Caller, number: u64, size: u64) -> Result<(), Errno> {
        self.handles.settled(number).await;
        let inode = self.live_inode(number)?;
        if inode.view.is_directory() {
            return Err(Errno::EISDIR);
        }
        self.check(caller, &inode.znode, false, want::WRITE)?;
        let length_max = self.limit_of(&inode);
        let size = usize::try_from(size).ok().filter(|size| *size <= length_max);
        let Some(size) = size else {
            self.tell_limit(&inode);
            return Err(Errno::EFBIG);
        };
        let changes = Changes::truncation(size);
        match modify(&self.znodes, &inode.path, &changes, None, length_max).await {
            Ok(committed) => self.note_stat(&inode, committed.stat, Some(false)),
            Err(CommitError::Service(error)) => return Err(errno::from_service(&error)),
            Err(CommitError::TooLarge) => return Err(Errno::EFBIG),
            Err(CommitError::Stale) => return Err(Errno::ESTALE),
        }
        Ok(())
    }

    /// Sets the same bytes again, which wakes watchers. What an open file here has just made, or is
    /// going to commit, needs no further wake-up.
    async fn touch(&self, caller: Caller, number: u64) -> Result<(), Errno> {
        let inode = self.inode(number)?;
        if inode.presence != Presence::Live {
            return Ok(());
        }
        let files = self.handles.files_of(number);
        let busy = |file: &crate::open_file::OpenFile| file.is_new() || file.is_changed();
        if files.iter().any(|file| busy(&file.file.lock())) {
            return Ok(());
        }
        if !self.is_owner(caller) {
            self.check(caller, &inode.znode, inode.view.is_directory(), want::WRITE)?;
        }
        let (data, stat) =
            self.znodes.get_data(&inode.path).await.map_err(|error| errno::from_service(&error))?;
        let null_data = Some(data.is_none());
        match self.znodes.set_data(&inode.path, data, stat.version).await {
            Ok(stat) => self.note_stat(&inode, stat, null_data),
            // Another writer has touched it in passing; or nobody knows, and nothing is lost.
            Err(ServiceError::Code(ErrorCode::BadVersion) | ServiceError::OutcomeUnknown) => {}
            Err(error) => return Err(errno::from_service(&error)),
        }
        Ok(())
    }

    /// Edits the ACL where the mount has credentials; otherwise there is nothing it could change,
    /// and programs that keep modes (tar, cp -p, git) are not to fail because of that.
    async fn chmod(&self, caller: Caller, number: u64, mode: u32) -> Result<(), Errno> {
        if !self.is_owner(caller) {
            return Err(Errno::EPERM);
        }
        if self.settings.identities.is_empty() {
            let refuse = self.settings.strict_chmod;
            return if refuse { Err(Errno::EPERM) } else { Ok(()) };
        }
        // What is written was allowed to be: it must not meet the new ACL (cp -p, install).
        self.commit_of_same_process(caller, number).await?;
        let inode = self.live_inode(number)?;
        loop {
            let known = self.fetch(&inode.path, None).await?.ok_or(Errno::ENOENT)?;
            let changed = self.settings.identities.with_mode(&known.acl, mode);
            let Some(acl) = changed else { return Ok(()) };
            if self.set_acl(&inode, acl, known.stat.aversion).await? {
                return Ok(());
            }
        }
    }

    /// Replaces an ACL on condition of its version; false when another came between, or when the
    /// answer was lost.
    pub(super) async fn set_acl(
        &self,
        inode: &Inode,
        acl: Vec<Acl>,
        aversion: i32,
    ) -> Result<bool, Errno> {
        match self.znodes.set_acl(&inode.path, acl.clone(), aversion).await {
            Ok(stat) => {
                let mut inodes = self.inodes.lock();
                let null_data = inodes.get(inode.number).and_then(|known| known.znode.null_data);
                // What the service made of an `auth` entry is not known.
                let expanded = acl.iter().any(|acl| acl.scheme == "auth");
                if !expanded {
                    let znode = Znode { stat, acl: acl.into(), null_data };
                    inodes.update(inode.number, Some(znode));
                }
                drop(inodes);
                self.forget_attributes(&inode.path);
                Ok(true)
            }
            Err(ServiceError::Code(ErrorCode::BadVersion) | ServiceError::OutcomeUnknown) => {
                Ok(false)
            }
            Err(error) => Err(errno::from_service(&error)),
        }
    }

    /// Znodes have no owner: only what changes nothing is kept, the rest is ignored likewise.
    fn chown(&self, caller: Caller, change: AttributeChange) -> Result<(), Errno> {
        let stays = change.uid.is_none_or(|uid| uid == self.settings.uid)
            && change.gid.is_none_or(|gid| gid == self.settings.gid);
        if !self.is_owner(caller) || (!stays && self.settings.strict_chmod) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    pub(super) fn live_inode(&self, number: u64) -> Result<Inode, Errno> {
        let inode = self.inode(number)?;
        if inode.presence == Presence::Live { Ok(inode) } else { Err(Errno::ESTALE) }
    }
}
