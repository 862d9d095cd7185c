//! The operations on znodes behind every system call, without the kernel: they take inode numbers,
//! names and handles and return attributes, bytes or an errno. The adapter in `fuse` calls them;
//! tests call them as well, with a tree in memory behind [`Znodes`].
//!
//! Here: names and attributes. In the modules below: creating, removing, renaming, open files,
//! listings, extended attributes, status files. No table's lock is ever held while waiting.

mod attributes;
mod compare;
mod create;
mod creator;
mod directories;
mod files;
mod lifetime;
pub mod listing;
mod locking;
pub mod remote;
mod remove;
mod rename;
mod rename_plan;
pub mod replay;
mod status;
#[cfg(test)]
mod test_tree;
#[cfg(test)]
mod tests;
mod validity;
mod xattr;

use std::ffi::OsStr;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use parking_lot::Mutex;
use znodefs::wire::FRAME_LENGTH_MAX_DEFAULT;
use znodefs::{Acl, ErrorCode, SessionId, Stat, path};

use crate::caller::Caller;
use crate::errno;
use crate::handle_table::HandleTable;
use crate::inode_table::{Inode, InodeTable, Presence, ROOT, View, Znode};
use crate::locks::Locks;
use crate::mounted::MountOptions;
use crate::naming::{self, FileName, NameError};
use crate::permission::Identities;
use crate::service::{Service, ServiceError, Znodes};

use lifetime::SharedLifetimes;

pub use attributes::AttributeChange;
pub use create::Opened;
pub use directories::{DirectoryEntry, ListingValidity, Space};
pub use files::{Closed, ReadNow, WrittenNow};
pub use lifetime::Ending;
pub use locking::Closing;
pub use rename::RenameKind;
pub use status::Statistics;
pub use validity::Validity;

/// What a program should read or write at once, in bytes.
const BLOCK_SIZE: u32 = 128 * 1024;

/// The wants of an access check.
pub mod want {
    /// Read, or list.
    pub const READ: u16 = 4;
    /// Write, or create and delete.
    pub const WRITE: u16 = 2;
    /// Search.
    pub const SEARCH: u16 = 1;
}

/// How the tree is shown.
struct Settings {
    uid: u32,
    gid: u32,
    umask: u16,
    read_only: bool,
    strict_chmod: bool,
    identities: Identities,
}

/// A name as the kernel is told of it: attributes and generation. It counts as one lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The attributes; their `ino` is the inode's number.
    pub attributes: FileAttr,
    /// Tells two inodes of one number apart.
    pub generation: u64,
}

/// A tree as files.
pub struct Filesystem {
    znodes: Znodes,
    settings: Settings,
    inodes: Mutex<InodeTable>,
    handles: Arc<HandleTable>,
    locks: Locks,
    lifetimes: SharedLifetimes,
    statistics: Statistics,
    size: directories::TreeSize,
    remote: remote::RemoteState,
    caching: validity::Caching,
    /// Whether it was said that some names cannot be shown.
    unshown_told: AtomicBool,
}

/// A directory that something is done in: its znode's path.
struct Directory {
    number: u64,
    path: Arc<str>,
    znode: Znode,
}

impl Directory {
    fn is_root(&self) -> bool {
        self.number == ROOT
    }
}

impl Filesystem {
    /// The tree of a session.
    pub fn new(service: Arc<dyn Service>, options: &MountOptions) -> Filesystem {
        let settings = Settings {
            uid: options.uid.unwrap_or_else(|| nix::unistd::geteuid().as_raw()),
            gid: options.gid.unwrap_or_else(|| nix::unistd::getegid().as_raw()),
            umask: options.umask.unwrap_or(0),
            read_only: options.read_only,
            strict_chmod: options.strict_chmod,
            identities: Identities::new(options.identities.clone()),
        };
        // Nobody sees this root before it has been looked at.
        let root = Znode { stat: Stat::default(), acl: Acl::open().into(), null_data: None };
        let znodes = Znodes::new(service);
        let handles = Arc::new(HandleTable::default());
        let of_locks = handles.clone();
        let locks = Locks::new(&znodes, move |lost| {
            lost.iter().filter_map(|handle| of_locks.file(*handle)).for_each(|f| f.lock.lose());
        });
        Filesystem {
            znodes,
            settings,
            inodes: Mutex::new(InodeTable::new(root)),
            handles,
            locks,
            lifetimes: SharedLifetimes::default(),
            statistics: Statistics::default(),
            size: directories::TreeSize::default(),
            remote: remote::RemoteState::default(),
            caching: validity::Caching::new(options.cached_bytes_max),
            unshown_told: AtomicBool::new(false),
        }
    }

    /// Waits until everything that closed files left behind is committed.
    pub async fn settle(&self) {
        self.handles.all_settled().await;
    }

    /// `LOOKUP`: the inode of a name in a directory.
    pub async fn lookup(&self, caller: Caller, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        if status::is_status(parent) {
            return self.look_up_status(parent, name);
        }
        let directory = self.directory(parent)?;
        self.check_other(caller, &directory.znode, want::SEARCH)?;
        let shown = name.to_string_lossy();
        match naming::parse(name, directory.is_root()) {
            Ok(FileName::Znode(znode_name)) => {
                let path = path::join(&directory.path, &znode_name);
                let known = self.settled_znode(parent, &shown).await;
                let znode = self.fetch(&path, known.as_ref()).await?.ok_or(Errno::ENOENT)?;
                let mut inodes = self.inodes.lock();
                let view = znode.view(inodes.find(parent, &shown));
                Ok(self.entry(inodes.look_up(parent, &shown, view, &path, znode)))
            }
            Ok(FileName::AsDirectory(znode_name)) => {
                let path = path::join(&directory.path, &znode_name);
                let known = self.settled_znode(parent, &shown).await;
                let znode = self.fetch(&path, known.as_ref()).await?.ok_or(Errno::ENOENT)?;
                let mut inodes = self.inodes.lock();
                let view = View::AsDirectory;
                Ok(self.entry(inodes.look_up(parent, &shown, view, &path, znode)))
            }
            Ok(FileName::Data) => {
                self.settled_znode(parent, naming::DATA).await;
                let znode = self.fetch_data_file(&directory).await?.ok_or(Errno::ENOENT)?;
                let mut inodes = self.inodes.lock();
                let path = &directory.path;
                Ok(self.entry(inodes.look_up(parent, naming::DATA, View::Data, path, znode)))
            }
            Ok(FileName::Status) => Ok(self.status_directory()),
            Ok(FileName::Creation(..)) => Err(Errno::ENOENT),
            Err(NameError::TooLong) => Err(Errno::ENAMETOOLONG),
            Err(NameError::Invalid | NameError::Suffix(_)) => Err(Errno::ENOENT),
        }
    }

    /// What is known of the znode under a name that the kernel holds, once nothing that a closed
    /// file left behind is still on its way there.
    async fn settled_znode(&self, parent: u64, name: &str) -> Option<Znode> {
        let (number, znode) = {
            let inodes = self.inodes.lock();
            let inode = inodes.find(parent, name)?;
            (inode.number, inode.znode.clone())
        };
        self.handles.settled(number).await;
        Some(znode)
    }

    /// The znode behind a directory's `@data`; `None` when it has no data.
    async fn fetch_data_file(&self, directory: &Directory) -> Result<Option<Znode>, Errno> {
        let Some(mut znode) = self.fetch(&directory.path, Some(&directory.znode)).await? else {
            return Ok(None);
        };
        if znode.stat.data_length == 0 && znode.null_data.is_none() {
            znode.null_data = Some(self.is_null(&directory.path).await?);
        }
        Ok((znode.null_data != Some(true)).then_some(znode))
    }

    /// `FORGET`.
    pub fn forget(&self, inode: u64, lookups: u64) {
        let mut inodes = self.inodes.lock();
        let Some(forgotten) = inodes.forget(inode, lookups) else { return };
        if forgotten.view.is_directory()
            && !inodes.at_path(&forgotten.path).any(|inode| inode.view.is_directory())
        {
            self.remote.announced.lock().release(&forgotten.path);
        }
    }

    /// `GETATTR`. An inode whose znode is gone shows what was last known of it, without a link.
    pub async fn getattr(&self, number: u64) -> Result<FileAttr, Errno> {
        if status::is_status(number) {
            return self.status_attributes(number);
        }
        self.handles.settled(number).await;
        let inode = self.inode(number)?;
        if inode.presence != Presence::Live {
            return Ok(self.attributes(&inode));
        }
        let znode = match self.fetch(&inode.path, Some(&inode.znode)).await {
            // A directory whose mount's root is missing has nothing to be shown.
            Ok(None) if number == ROOT => return Err(Errno::ENOENT),
            Ok(znode) => znode,
            Err(error) => return Err(error),
        };
        let mut inodes = self.inodes.lock();
        match inodes.update(number, znode) {
            Some(inode) => Ok(self.attributes(inode)),
            None => Err(Errno::ESTALE),
        }
    }

    /// What is known of an inode, without asking anyone; `None` while a commit of a closed file is
    /// under way, which is about to change it.
    pub fn known_attributes(&self, number: u64) -> Option<FileAttr> {
        if !self.handles.is_settled(number) {
            return None;
        }
        self.inodes.lock().get(number).map(|inode| self.attributes(inode))
    }

    /// `ACCESS`: whether the caller may do what `wanted` asks, by the bits of access(2).
    pub async fn access(&self, caller: Caller, number: u64, wanted: u16) -> Result<(), Errno> {
        if status::is_status(number) {
            return if wanted & want::WRITE == 0 { Ok(()) } else { Err(Errno::EACCES) };
        }
        if wanted & want::WRITE != 0 {
            self.check_writable()?;
        }
        // Who only goes through a directory (cd) is not made to wait for a server.
        if wanted != want::SEARCH {
            self.getattr(number).await?;
        }
        let inode = self.inode(number)?;
        self.check(caller, &inode.znode, inode.view.is_directory(), wanted)
    }

    /// What the servers say of a znode: `None` when there is none. What is `known` of the same
    /// state of it is not asked for again. ZooKeeper announces no ACL change, but counts them.
    async fn fetch(&self, path: &str, known: Option<&Znode>) -> Result<Option<Znode>, Errno> {
        let stat = self.znodes.exists(path);
        // Both are on their way at once when nothing is known.
        let acl = known.is_none().then(|| self.znodes.get_acl(path));
        match stat.await {
            Ok(stat) => self.complete(path, stat, None, known, acl).await,
            Err(ServiceError::Code(ErrorCode::NoNode)) => Ok(None),
            // ZooKeeper since 3.9 shows a stat to readers alone. Who may change the ACL has it with that,
            // and could not take back a chmod of 0 otherwise.
            Err(ServiceError::Code(ErrorCode::NoAuth)) => match self.znodes.get_acl(path).await {
                Ok((acl, stat)) => {
                    let acl = std::future::ready(Ok((acl, stat)));
                    self.complete(path, stat, None, known, Some(acl)).await
                }
                Err(ServiceError::Code(ErrorCode::NoNode)) => Ok(None),
                Err(error) => Err(errno::from_service(&error)),
            },
            Err(error) => Err(errno::from_service(&error)),
        }
    }

    /// Finds out what a stat does not tell: the ACL, and whether data of no bytes are data.
    async fn complete(
        &self,
        path: &str,
        stat: Stat,
        null_data: Option<bool>,
        known: Option<&Znode>,
        acl: Option<impl Future<Output = Result<(Vec<Acl>, Stat), ServiceError>>>,
    ) -> Result<Option<Znode>, Errno> {
        let known = known.filter(|known| known.stat.czxid == stat.czxid);
        let acl = match (acl, known.filter(|known| known.stat.aversion == stat.aversion)) {
            (_, Some(known)) => Ok(known.acl.clone()),
            (Some(acl), None) => acl.await.map(|(acl, _)| acl.into()),
            (None, None) => self.znodes.get_acl(path).await.map(|(acl, _)| acl.into()),
        };
        let acl = match acl {
            Ok(acl) => acl,
            // Who may not even see the ACL may do nothing.
            Err(ServiceError::Code(ErrorCode::NoAuth)) => Arc::default(),
            Err(ServiceError::Code(ErrorCode::NoNode)) => return Ok(None),
            Err(error) => return Err(errno::from_service(&error)),
        };
        let null_data = match known {
            _ if null_data.is_some() => null_data,
            _ if stat.data_length > 0 => Some(false),
            Some(known) if known.stat.mzxid == stat.mzxid => known.null_data,
            _ => None,
        };
        let mut znode = Znode { stat, acl, null_data };
        if znode.is_ambiguous() {
            match self.is_null(path).await {
                Ok(is_null) => znode.null_data = Some(is_null),
                Err(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(znode))
    }

    /// Whether a znode has no data at all. Who may not read it sees a file.
    async fn is_null(&self, path: &str) -> Result<bool, Errno> {
        match self.znodes.get_data(path).await {
            Ok((data, _)) => Ok(data.is_none()),
            Err(ServiceError::Code(ErrorCode::NoAuth)) => Ok(false),
            Err(error) => Err(errno::from_service(&error)),
        }
    }

    fn inode(&self, number: u64) -> Result<Inode, Errno> {
        self.inodes.lock().get(number).cloned().ok_or(Errno::ESTALE)
    }

    /// The directory behind an inode, in which names can be looked up.
    fn directory(&self, number: u64) -> Result<Directory, Errno> {
        let inodes = self.inodes.lock();
        let inode = inodes.get(number).ok_or(Errno::ESTALE)?;
        if !inode.view.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if inode.presence != Presence::Live {
            return Err(Errno::ENOENT);
        }
        Ok(Directory { number, path: inode.path.clone(), znode: inode.znode.clone() })
    }

    /// The directory behind an inode, in which something is to be changed by the caller.
    fn directory_to_change(&self, caller: Caller, number: u64) -> Result<Directory, Errno> {
        if status::is_status(number) {
            return Err(Errno::EACCES);
        }
        self.check_writable()?;
        let directory = self.directory(number)?;
        self.check_other(caller, &directory.znode, want::WRITE | want::SEARCH)?;
        Ok(directory)
    }

    fn check_writable(&self) -> Result<(), Errno> {
        if self.settings.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Whether the caller is the mount's owner, or root.
    fn is_owner(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == self.settings.uid
    }

    /// Checks a caller against the permission bits.
    fn check(
        &self,
        caller: Caller,
        znode: &Znode,
        directory: bool,
        wanted: u16,
    ) -> Result<(), Errno> {
        let mode = self.settings.identities.rights(&znode.acl).mode(directory);
        let shown = mode & !self.settings.umask;
        let granted = match caller {
            // Root is not bound by bits that only this mount takes away.
            Caller { uid: 0, .. } => mode >> 6,
            caller if caller.uid == self.settings.uid => shown >> 6,
            caller if caller.gid == self.settings.gid => shown >> 3,
            _ => shown,
        };
        if granted & wanted == wanted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Checks a caller who is not the mount's owner: for the owner the servers judge.
    fn check_other(&self, caller: Caller, znode: &Znode, wanted: u16) -> Result<(), Errno> {
        if self.is_owner(caller) { Ok(()) } else { self.check(caller, znode, true, wanted) }
    }

    /// The entry that tells the kernel of an inode.
    fn entry(&self, inode: &Inode) -> Entry {
        self.note_shown(inode);
        Entry { attributes: self.attributes(inode), generation: inode.generation }
    }

    /// What stat(2) shows of an inode.
    fn attributes(&self, inode: &Inode) -> FileAttr {
        let stat = &inode.znode.stat;
        let directory = inode.view.is_directory();
        let length = stat.data_length.max(0) as usize;
        let size = if directory {
            stat.num_children.max(0) as u64
        } else {
            self.handles.pending_length(inode.number, length).unwrap_or(length) as u64
        };
        let blocks = size.div_ceil(512);
        let nlink = u32::from(inode.presence == Presence::Live);
        let perm = self.settings.identities.rights(&inode.znode.acl).mode(directory);
        let kind = if directory { FileType::Directory } else { FileType::RegularFile };
        let time = time_of(stat.mtime);
        FileAttr { size, blocks, nlink, ..self.attributes_of(inode.number, kind, perm, time) }
    }

    /// Stand for a name under which there is nothing.
    pub fn no_attributes() -> FileAttr {
        let time = SystemTime::UNIX_EPOCH;
        let kind = FileType::RegularFile;
        let (size, blocks, rdev) = (0, 0, 0);
        FileAttr {
            ino: INodeNo(0),
            size,
            blocks,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: 0,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }

    fn attributes_of(&self, number: u64, kind: FileType, perm: u16, time: SystemTime) -> FileAttr {
        FileAttr {
            ino: INodeNo(number),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm: perm & !self.settings.umask,
            nlink: 1,
            uid: self.settings.uid,
            gid: self.settings.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }

    /// The session that owns a znode, if that is ours.
    fn own_session(&self, stat: &Stat) -> Option<SessionId> {
        let session = self.znodes.service().session_id();
        (stat.ephemeral_owner == session && session != SessionId(0)).then_some(session)
    }
}

/// The longest value that the znode of this path can take: one frame less what stands beside the
/// data in a request or reply.
pub fn value_length_max(path: &str) -> usize {
    /// Header, lengths, version, stat.
    const OVERHEAD: usize = 128;
    /// Room for the path in all but very deep trees, so that the limit is the same everywhere.
    const PATH_LENGTH: usize = 1024 - OVERHEAD;
    FRAME_LENGTH_MAX_DEFAULT - OVERHEAD - path.len().max(PATH_LENGTH)
}

fn time_of(time_ms: i64) -> SystemTime {
    let distance = Duration::from_millis(time_ms.unsigned_abs());
    let time = if time_ms >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
