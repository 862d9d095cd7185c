//! A file may be created without the permission to write it, and is yet written by the open that created
//! it: `cp` of a read-only file, tar, git. Where the service has the ACL at the creation and checks it at
//! the commit, the commit opens it for a moment.

use znodefs::{Acl, ErrorCode, Permissions};

use super::Filesystem;
use crate::commit::{CommitError, Committed, commit};
use crate::handle_table::FileHandle;
use crate::inode_table::Inode;
use crate::open_file::Commit;
use crate::service::ServiceError;

const REFUSED: CommitError = CommitError::Service(ServiceError::Code(ErrorCode::NoAuth));

impl Filesystem {
    /// Sets a file's data. What the ACL refuses to the open that created the file, it allows meanwhile.
    pub(super) async fn commit_as_creator(
        &self,
        handle: &FileHandle,
        inode: &Inode,
        pending: &Commit,
    ) -> Result<Committed, CommitError> {
        let committing = || commit(&self.znodes, &inode.path, pending, self.limit_of(inode));
        let result = committing().await;
        let may_open = handle.file.lock().is_creator() && !self.settings.identities.is_empty();
        if result != Err(REFUSED) || !may_open {
            return result;
        }
        let (acl, stat) = self.znodes.get_acl(&inode.path).await?;
        let Some(wider) = self.settings.identities.with_own(&acl, Permissions::WRITE) else {
            return result;
        };
        let Some(aversion) = self.open_acl(&inode.path, &wider, stat.aversion).await? else {
            return result;
        };
        let result = committing().await;
        self.close_acl(&inode.path, acl, aversion).await;
        result
    }

    /// Gives a znode a wider ACL; its version, or `None` when somebody else has changed it meanwhile.
    async fn open_acl(
        &self,
        path: &str,
        wider: &[Acl],
        aversion: i32,
    ) -> Result<Option<i32>, ServiceError> {
        let mut maybe_done = false;
        loop {
            match self.znodes.set_acl(path, wider.to_vec(), aversion).await {
                Ok(stat) => return Ok(Some(stat.aversion)),
                Err(ServiceError::OutcomeUnknown) => maybe_done = true,
                Err(ServiceError::Code(ErrorCode::BadVersion)) if maybe_done => {
                    let (acl, stat) = self.znodes.get_acl(path).await?;
                    return Ok((acl == wider).then_some(stat.aversion));
                }
                Err(ServiceError::Code(ErrorCode::BadVersion)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives a znode the ACL back that it had, unless somebody has given it another.
    async fn close_acl(&self, path: &str, acl: Vec<Acl>, aversion: i32) {
        loop {
            match self.znodes.set_acl(path, acl.clone(), aversion).await {
                Ok(_) | Err(ServiceError::Code(ErrorCode::BadVersion | ErrorCode::NoNode)) => {
                    return;
                }
                Err(ServiceError::OutcomeUnknown) => {}
                Err(error) => {
                    tracing::error!(
                        "{path}: stays writable for this mount's own identity: {error}; chmod it again"
                    );
                    return;
                }
            }
        }
    }
}
