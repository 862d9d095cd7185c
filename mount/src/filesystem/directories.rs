//! Reading directories (`OPENDIR`, `READDIR`, `FSYNCDIR`) and the size of the whole tree (`STATFS`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{Errno, FileType};
use znodefs::{ErrorCode, path};

use super::listing::{Item, Kind, Listing};
use super::{Directory, Filesystem, status, want};
use crate::caller::Caller;
use crate::errno;
use crate::handle_table::{DirectoryHandle, Handle};
use crate::inode_table::{Presence, View, Znode};
use crate::lock_queue::OWN_ZNODE;
use crate::service::ServiceError;

/// An entry as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The inode's number.
    pub inode: u64,
    /// Where the entry behind this one is found.
    pub next_offset: u64,
    /// Directory or file.
    pub kind: FileType,
    /// The file name.
    pub name: String,
}

/// The file system's numbers as statfs(2) has them, in blocks of [`Space::BLOCK_SIZE`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Blocks altogether.
    pub blocks: u64,
    /// Blocks not in use.
    pub blocks_free: u64,
    /// Znodes there could be.
    pub files: u64,
    /// Znodes there could still be.
    pub files_free: u64,
}

impl Space {
    /// Bytes in a block. A znode counts as one block: the protocol has no way to ask for the size
    /// of a tree's data.
    pub const BLOCK_SIZE: u32 = 4096;
    /// One tebibyte: the service has no limit of its own, and programs refuse to write where there
    /// is no room.
    const BLOCKS: u64 = (1 << 40) / Space::BLOCK_SIZE as u64;
}

/// Whether the number of znodes can be asked for.
#[derive(Default)]
pub struct TreeSize {
    unknown: AtomicBool,
}

/// What the kernel may do with listings of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingValidity {
    /// Keep none.
    None,
    /// Keep a new one: what it has may have been given to it after it was told to forget it.
    New,
    /// Use what it has.
    Kept,
}

impl Filesystem {
    /// `OPENDIR`: the handle, and what the kernel may do with listings.
    pub async fn opendir(
        &self,
        caller: Caller,
        number: u64,
    ) -> Result<(u64, ListingValidity), Errno> {
        let listing = if status::is_status(number) {
            Some(self.status_listing(number)?)
        } else {
            let inode = self.inode(number)?;
            if !inode.view.is_directory() {
                return Err(Errno::ENOTDIR);
            }
            self.check(caller, &inode.znode, true, want::READ)?;
            None
        };
        let validity = self.listing_validity(number);
        let handle = DirectoryHandle::new(number, listing, validity != ListingValidity::None);
        Ok((self.handles.insert(Handle::Directory(Arc::new(handle))), validity))
    }

    /// `READDIR`: entries from an offset on, given to `add` until it says that there is no room.
    /// Offset 0 takes the names anew. At the end it is said if the listing is out of date already: then
    /// `Filesystem::forget_listing` of the directory is due once the kernel has the answer.
    pub async fn readdir(
        &self,
        handle: u64,
        offset: u64,
        mut add: impl FnMut(&DirectoryEntry) -> bool,
    ) -> Result<Option<u64>, Errno> {
        let Some(Handle::Directory(handle)) = self.handles.get(handle) else {
            return Err(Errno::EBADF);
        };
        let mut listing = handle.listing.lock().await;
        if status::is_status(handle.inode) {
            self.read_status_directory(offset, add);
            return Ok(None);
        }
        let inode = self.inode(handle.inode)?;
        let names = [(".", inode.number), ("..", inode.parent)];
        for (index, (name, number)) in names.into_iter().enumerate().skip(offset as usize) {
            let entry = directory_entry(number, index, FileType::Directory, name);
            if add(&entry) {
                return Ok(None);
            }
        }
        if inode.presence != Presence::Live {
            return Ok(None);
        }
        let directory = self.directory(handle.inode)?;
        if offset == 0 || listing.is_none() {
            let taken = Some(self.asking());
            *listing = Some(Listing { taken, ..self.take_names(&directory).await? });
            if let Some(taken) = taken {
                handle.give(taken);
                self.inodes.lock().listed(directory.number, Some(taken));
            }
        }
        let Some(listing) = listing.as_mut() else { return Ok(None) };
        let mut index = usize::try_from(offset).unwrap_or(usize::MAX).saturating_sub(2);
        while index < listing.items.len() {
            let unknown = listing.unknown_from(index);
            if !unknown.is_empty() {
                self.find_kinds(&directory, &mut listing.items[unknown]).await?;
            }
            let item = &listing.items[index];
            if let Kind::Known(view, number) = item.kind {
                let directory = view.is_directory();
                let kind = if directory { FileType::Directory } else { FileType::RegularFile };
                if add(&directory_entry(number, index + 2, kind, &item.name)) {
                    return Ok(None);
                }
            }
            index += 1;
        }
        let is_stale =
            listing.taken.is_some_and(|taken| self.is_listing_stale(taken, &directory.path));
        Ok(is_stale.then_some(directory.number))
    }

    /// What the kernel may do with listings of this directory, from its `OPENDIR` on.
    fn listing_validity(&self, number: u64) -> ListingValidity {
        if !self.is_caching() || status::is_status(number) {
            return ListingValidity::None;
        }
        let (listed, path) = {
            let inodes = self.inodes.lock();
            match inodes.get(number) {
                Some(inode) if self.is_told_of(inode) => (inode.listed, inode.path.clone()),
                _ => return ListingValidity::None,
            }
        };
        // What another reader is just being given, the kernel may keep at any moment from now on.
        let mut open = self.handles.directories_of(number).into_iter();
        if open.any(|other| self.gives_old_listing(&other, &path)) {
            return ListingValidity::None;
        }
        match listed {
            Some(taken) if !self.is_listing_stale(taken, &path) => ListingValidity::Kept,
            _ => ListingValidity::New,
        }
    }

    fn gives_old_listing(&self, open: &DirectoryHandle, path: &str) -> bool {
        open.given().is_some_and(|taken| self.is_listing_stale(taken, path))
    }

    /// Whether a name is neither listed nor announced: it is for the mounts themselves.
    pub(super) fn is_hidden(&self, directory: &str, name: &str) -> bool {
        name == OWN_ZNODE && directory == "/" && self.znodes.service().chroot().is_empty()
    }

    async fn take_names(&self, directory: &Directory) -> Result<Listing, Errno> {
        let (children, stat) = match self.znodes.children(&directory.path).await {
            Ok((mut children, stat)) => {
                children.retain(|name| !self.is_hidden(&directory.path, name));
                (children, stat)
            }
            Err(ServiceError::Code(ErrorCode::NoNode)) => return Ok(Listing::default()),
            Err(error) => return Err(errno::from_service(&error)),
        };
        let has_data = stat.data_length > 0;
        let (listing, unshown) = Listing::new(children, has_data, directory.is_root());
        if let Some(first) = unshown.first()
            && !self.unshown_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "{}: {} znodes are not listed because their names are longer than a file name \
                 can be; one of them starts with {:.40} (this is said once)",
                directory.path,
                unshown.len(),
                first
            );
        }
        Ok(listing)
    }

    /// Finds out what entries are shown as: all requests are on their way before the first answer.
    async fn find_kinds(&self, directory: &Directory, items: &mut [Item]) -> Result<(), Errno> {
        let stats: Vec<_> = items
            .iter()
            .map(|item| {
                let path = item_path(directory, item);
                let stat = self.znodes.exists(&path);
                (path, stat)
            })
            .collect();
        let mut ambiguous = Vec::new();
        for (index, (path, stat)) in stats.into_iter().enumerate() {
            let item = &mut items[index];
            let stat = match stat.await {
                Ok(stat) => stat,
                Err(ServiceError::Code(ErrorCode::NoNode)) => {
                    item.kind = Kind::Gone;
                    continue;
                }
                // It is there, but nothing may be known of it.
                Err(ServiceError::Code(ErrorCode::NoAuth)) => Default::default(),
                Err(error) => return Err(errno::from_service(&error)),
            };
            let known = self.known(directory, item);
            let null_data = known.filter(|known| known.stat.mzxid == stat.mzxid);
            let null_data = null_data.and_then(|known| known.null_data);
            let znode = Znode { stat, acl: Arc::default(), null_data };
            if item.znode_name.is_some() && znode.is_ambiguous() {
                ambiguous.push((index, znode, self.znodes.get_data(&path)));
            } else {
                self.set_kind(directory, item, &znode);
            }
        }
        for (index, mut znode, data) in ambiguous {
            let item = &mut items[index];
            match data.await {
                Ok((data, _)) => znode.null_data = Some(data.is_none()),
                Err(ServiceError::Code(ErrorCode::NoAuth)) => {}
                Err(ServiceError::Code(ErrorCode::NoNode)) => {
                    item.kind = Kind::Gone;
                    continue;
                }
                Err(error) => return Err(errno::from_service(&error)),
            }
            self.set_kind(directory, item, &znode);
        }
        Ok(())
    }

    /// What is known of an entry that the kernel holds.
    fn known(&self, directory: &Directory, item: &Item) -> Option<Znode> {
        let inodes = self.inodes.lock();
        inodes.find(directory.number, &item.name).map(|inode| inode.znode.clone())
    }

    fn set_kind(&self, directory: &Directory, item: &mut Item, znode: &Znode) {
        let inodes = self.inodes.lock();
        let view = match item.znode_name {
            None => View::Data,
            Some(_) => znode.view(inodes.find(directory.number, &item.name)),
        };
        let number = inodes.number(directory.number, &item.name, view, znode.stat.czxid);
        item.kind = Kind::Known(view, number);
    }

    /// `RELEASEDIR`.
    pub fn releasedir(&self, handle: u64) {
        let Some(Handle::Directory(closed)) = self.handles.remove(handle) else { return };
        let path = self.inodes.lock().get(closed.inode).map(|inode| inode.path.clone());
        if path.is_some_and(|path| self.gives_old_listing(&closed, &path)) {
            // The kernel may have kept it, on top of a newer one.
            self.inodes.lock().listed(closed.inode, None);
        }
    }

    /// `FSYNCDIR`: catches up with the leader. Every change of a directory is durable when it
    /// returns.
    pub async fn fsyncdir(&self, number: u64) -> Result<(), Errno> {
        if status::is_status(number) {
            return Ok(());
        }
        let path = self.inode(number)?.path;
        self.sync(&path).await
    }

    /// `STATFS`.
    pub async fn statfs(&self) -> Space {
        let used = if self.size.unknown.load(Ordering::Relaxed) {
            0
        } else {
            match self.znodes.all_children_number("/").await {
                Ok(number) => u64::try_from(number).unwrap_or(0) + 1,
                Err(error) => {
                    // Servers before 3.6 close the connection on being asked.
                    if matches!(error, ServiceError::Code(_) | ServiceError::OutcomeUnknown) {
                        self.size.unknown.store(true, Ordering::Relaxed);
                    }
                    0
                }
            }
        };
        Space {
            blocks: Space::BLOCKS,
            blocks_free: Space::BLOCKS.saturating_sub(used),
            files: Space::BLOCKS,
            files_free: Space::BLOCKS.saturating_sub(used),
        }
    }
}

fn item_path(directory: &Directory, item: &Item) -> String {
    match &item.znode_name {
        Some(name) => path::join(&directory.path, name),
        None => directory.path.to_string(),
    }
}

fn directory_entry(inode: u64, index: usize, kind: FileType, name: &str) -> DirectoryEntry {
    DirectoryEntry { inode, next_offset: index as u64 + 1, kind, name: name.to_string() }
}
