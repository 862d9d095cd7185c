//! Removing: `UNLINK` and `RMDIR`.

use std::ffi::OsStr;

use fuser::Errno;
use znodefs::{ErrorCode, path};

use super::{Directory, Filesystem};
use crate::caller::Caller;
use crate::errno;
use crate::naming::{self, FileName, NameError};
use crate::service::ServiceError;

impl Filesystem {
    /// `UNLINK`: deletes a file's znode; of a directory's `@data`, sets the data to null.
    pub async fn unlink(&self, caller: Caller, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let directory = self.directory_to_change(caller, parent)?;
        let shown = name.to_string_lossy();
        match existing_name(&directory, name)? {
            FileName::Znode(znode_name) => {
                self.settled_znode(parent, &shown).await;
                let path = path::join(&directory.path, &znode_name);
                match self.delete(&path, -1).await {
                    Ok(()) => {}
                    // It got children since it was looked up.
                    Err(ServiceError::Code(ErrorCode::NotEmpty)) => return Err(Errno::EISDIR),
                    Err(error) => return Err(refusal(&error)),
                }
            }
            FileName::Data => {
                self.settled_znode(parent, naming::DATA).await;
                let stat = loop {
                    match self.znodes.set_data(&directory.path, None, -1).await {
                        Ok(stat) => break stat,
                        // Twice does no harm.
                        Err(ServiceError::OutcomeUnknown) => {}
                        Err(error) => return Err(refusal(&error)),
                    }
                };
                let inode = self.inode(parent)?;
                self.note_stat(&inode, stat, Some(true));
            }
            FileName::AsDirectory(_) => return Err(Errno::EISDIR),
            FileName::Status => return Err(Errno::EISDIR),
            FileName::Creation(..) => return Err(Errno::ENOENT),
        }
        self.forget_name(parent, &shown);
        Ok(())
    }

    /// `RMDIR`: deletes a znode that has neither children nor data.
    pub async fn rmdir(&self, caller: Caller, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let directory = self.directory_to_change(caller, parent)?;
        let shown = name.to_string_lossy();
        let znode_name = match existing_name(&directory, name)? {
            FileName::Znode(znode_name) | FileName::AsDirectory(znode_name) => znode_name,
            FileName::Data => return Err(Errno::ENOTDIR),
            FileName::Status => return Err(Errno::EPERM),
            FileName::Creation(..) => return Err(Errno::ENOENT),
        };
        let path = path::join(&directory.path, &znode_name);
        // The kernel has just looked it up: what that has shown is tried first.
        let known = self.settled_znode(parent, &shown).await.map(|znode| znode.stat);
        let mut stat = known.filter(|stat| stat.data_length == 0 && stat.num_children == 0);
        loop {
            let expected = match stat.take() {
                Some(stat) => stat,
                None => self.znodes.exists(&path).await.map_err(|error| refusal(&error))?,
            };
            // A directory's data are an entry of it.
            if expected.num_children > 0 || expected.data_length > 0 {
                return Err(Errno::ENOTEMPTY);
            }
            match self.delete(&path, expected.version).await {
                Ok(()) => break,
                Err(ServiceError::Code(ErrorCode::BadVersion)) => {}
                Err(error) => return Err(refusal(&error)),
            }
        }
        self.forget_name(parent, &shown);
        Ok(())
    }

    /// Deletes a znode, finding out what became of it when an answer is lost: another of that name may
    /// have been made meanwhile, as of a lock that was waited for, and is not deleted in its place.
    async fn delete(&self, path: &str, version: i32) -> Result<(), ServiceError> {
        let before = self.znodes.service().last_zxid();
        loop {
            match self.znodes.delete(path, version).await {
                Err(ServiceError::OutcomeUnknown) => {}
                result => return result,
            }
            // The next server may be one that has not heard of it yet.
            let synced = self.znodes.sync(path);
            let found = self.znodes.exists(path);
            synced.await?;
            match found.await {
                Ok(found) if found.czxid <= before => {}
                Ok(_) | Err(ServiceError::Code(ErrorCode::NoNode)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// A name is gone from its directory: files that are open go on without it.
    pub(super) fn forget_name(&self, parent: u64, name: &str) {
        let unlinked = self.inodes.lock().unlink(parent, name);
        self.detach_files(unlinked);
    }

    pub(super) fn detach_files(&self, inode: Option<u64>) {
        for file in inode.into_iter().flat_map(|inode| self.handles.files_of(inode)) {
            file.file.lock().detach();
        }
    }
}

/// What an existing file name stands for.
pub(super) fn existing_name(directory: &Directory, name: &OsStr) -> Result<FileName, Errno> {
    naming::parse(name, directory.is_root()).map_err(|error| match error {
        NameError::TooLong => Errno::ENAMETOOLONG,
        NameError::Invalid | NameError::Suffix(_) => Errno::ENOENT,
    })
}

/// The errno of a refused removal. The service's own znodes cannot be removed by anyone.
fn refusal(error: &ServiceError) -> Errno {
    match error {
        ServiceError::Code(ErrorCode::BadArguments) => Errno::EPERM,
        error => errno::from_service(error),
    }
}
