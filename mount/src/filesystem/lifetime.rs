//! Ending the znodes that live as long as an open file or a process. The table of them is in
//! [`crate::lifetimes`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use znodefs::{ErrorCode, SessionId, Stat, Zxid, path};

use super::Filesystem;
use super::create::COUNTER_DIGITS;
use crate::handle_table::Releasing;
use crate::lifetimes::{Doomed, LifetimeId, LifetimeTable};
use crate::process::Process;
use crate::service::{NewZnode, ServiceError, Znodes};

/// How long to wait before a server that could not be reached is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The table, shared with the tasks that wait for the end of processes.
pub(super) type SharedLifetimes = Arc<Mutex<LifetimeTable>>;

/// What the closing of an open file has to delete.
pub struct Ending {
    doomed: Doomed,
    inode: u64,
    releasing: Releasing,
}

impl Filesystem {
    /// A znode that was just made lives as long as a process at most.
    pub(super) fn follow_process(&self, id: LifetimeId, process: Process) {
        let (lifetimes, znodes) = (self.lifetimes.clone(), self.znodes.clone());
        tokio::spawn(async move {
            process.ended().await;
            let doomed = lifetimes.lock().end(id);
            if let Some(doomed) = doomed {
                delete(&znodes, &doomed).await;
            }
        });
    }

    /// What has to be deleted now that a file of this inode is closed everywhere.
    pub(super) fn ending_of(&self, handle: u64, inode: u64) -> Option<Ending> {
        let doomed = self.lifetimes.lock().closed(handle)?;
        Some(Ending { doomed, inode, releasing: self.handles.begin_release(inode) })
    }

    /// Deletes the znode that lived as long as an open file.
    pub async fn end_closed(&self, ending: Ending) {
        delete(&self.znodes, &ending.doomed).await;
        self.inodes.lock().update(ending.inode, None);
        drop(ending.releasing);
    }

    /// Finds an ephemeral znode whose creation was not confirmed: `session` asked for it when the last
    /// transaction seen was `before`. The kernel lets nobody else on this mount create anything in a
    /// directory at the same time, so what the session has made there since is what was asked for.
    pub(super) async fn find_unconfirmed(
        &self,
        new: &NewZnode<'_>,
        session: SessionId,
        before: Zxid,
    ) -> Result<Option<(String, Stat)>, ServiceError> {
        // The next server may be one that has not heard of it yet.
        let synced = self.znodes.sync(path::parent(new.path).unwrap_or("/"));
        let is_own = |stat: &Stat| stat.ephemeral_owner == session && stat.czxid > before;
        synced.await?;
        if !new.mode.is_sequential() {
            return match self.znodes.exists(new.path).await {
                Ok(stat) => Ok(is_own(&stat).then(|| (new.path.to_string(), stat))),
                Err(ServiceError::Code(ErrorCode::NoNode)) => Ok(None),
                Err(error) => Err(error),
            };
        }
        let (directory, prefix) = new.path.rsplit_once('/').unwrap_or_default();
        let directory = if directory.is_empty() { "/" } else { directory };
        let (mut names, _) = self.znodes.children(directory).await?;
        names.retain(|name| {
            let counter = name.strip_prefix(prefix).unwrap_or_default();
            counter.len() == COUNTER_DIGITS.len() && counter.bytes().all(|b| b.is_ascii_digit())
        });
        names.sort_unstable_by(|one, other| other.cmp(one));
        for name in names {
            let path = path::join(directory, &name);
            match self.znodes.exists(&path).await {
                Ok(stat) if is_own(&stat) => return Ok(Some((path, stat))),
                // Those with lower counters are older still.
                Ok(stat) if stat.czxid <= before => return Ok(None),
                Ok(_) | Err(ServiceError::Code(ErrorCode::NoNode)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Deletes a znode unless it is gone, or another by now. The service can only compare the version of
/// the data with the delete, so what is deleted by somebody and made anew by this very session between
/// our look and our delete goes with it.
async fn delete(znodes: &Znodes, doomed: &Doomed) {
    // Nobody has asked the kernel for it: its event is to be taken for one from elsewhere, of which
    // the programs here are told. Only what is sent below the chroot is known for our own.
    let path = &format!("{}{}", znodes.service().chroot(), doomed.path);
    let znodes = znodes.from_real_root();
    // With its session it has gone already.
    while znodes.service().session_id() == doomed.session {
        let result = match znodes.exists(path).await {
            Ok(found) if doomed.is(&found) => znodes.delete(path, found.version).await,
            Ok(_) => return,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) | Err(ServiceError::Code(ErrorCode::NoNode)) => return,
            Err(ServiceError::Code(ErrorCode::BadVersion)) => {}
            Err(ServiceError::OutcomeUnknown | ServiceError::TimedOut) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(ServiceError::SessionExpired | ServiceError::Closed) => return,
            Err(error) => {
                tracing::error!(
                    "{path}: cannot be deleted although its time is over: {error}; it stays until \
                     this mount ends"
                );
                return;
            }
        }
    }
}
