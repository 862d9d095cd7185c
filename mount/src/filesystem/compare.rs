//! Finding what changed while nobody told: what was announced to programs here is compared with what
//! there is, directory by directory, and each difference is handed to replay. ZooKeeper repeats no
//! event of a persistent watch after a reconnection.
//!
//! Requests are pipelined in windows, so that neither the servers nor this process have to keep an
//! answer for every znode at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use tokio::task::JoinSet;
use znodefs::{ErrorCode, Stat, Zxid, path};

use super::Filesystem;
use crate::announced::{Child, Kind, Missed};
use crate::errno;
use crate::inode_table::Znode;
use crate::service::ServiceError;

/// How many directories are compared at the same time.
const DIRECTORIES_AT_ONCE: usize = 8;

/// How many znodes of one directory are asked for at once.
const WINDOW: usize = 128;

/// The largest directory whose children are asked for only in order to know their names.
const SURVEY_NAMES_MAX: usize = 1 << 16;

/// The largest directory of whose children it is also asked what kind they are.
const SURVEY_KINDS_MAX: usize = 1 << 12;

/// How long to wait for room when everything that is to be replayed has to be remembered.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

impl Filesystem {
    /// Compares everything that was announced with the service. False when more was missed
    /// meanwhile.
    pub(crate) async fn compare(self: &Arc<Self>) -> Result<bool, Errno> {
        let Some(missed) = self.remote.announced.lock().missed() else { return Ok(true) };
        self.compare_root(missed.told_up_to).await?;
        let directories = self.remote.announced.lock().directories();
        let count = directories.len();
        let mut comparing = JoinSet::new();
        for directory in directories {
            if comparing.len() >= DIRECTORIES_AT_ONCE {
                finished(comparing.join_next().await)?;
            }
            let filesystem = self.clone();
            comparing.spawn(async move { filesystem.compare_directory(&directory, missed).await });
        }
        while !comparing.is_empty() {
            finished(comparing.join_next().await)?;
        }
        tracing::info!("compared {count} directories with the service after changes were missed");
        Ok(self.remote.announced.lock().caught_up(missed))
    }

    /// The root's data are no entry of any directory but of its own.
    async fn compare_root(&self, told_up_to: Zxid) -> Result<(), Errno> {
        match self.stat_if_any("/").await? {
            Some(stat) if stat.mzxid > told_up_to => {
                self.hand_to_replay("/", told_up_to).await;
            }
            _ => {}
        }
        Ok(())
    }

    async fn compare_directory(&self, directory: &str, missed: Missed) -> Result<(), Errno> {
        let told_up_to = missed.told_up_to;
        // One that is gone is told of in the directory that it was in.
        let Some(stat) = self.stat_if_any(directory).await? else { return Ok(()) };
        let Some((known, is_complete)) = self.remote.announced.lock().names(directory) else {
            return Ok(());
        };
        let names: Vec<Box<str>> = if stat.pzxid > told_up_to {
            let listed = match self.znodes.children(directory).await {
                Ok((names, _)) => names,
                Err(ServiceError::Code(ErrorCode::NoNode)) => return Ok(()),
                // What may not be listed is not: nobody here has seen its names.
                Err(ServiceError::Code(ErrorCode::NoAuth)) => Vec::new(),
                Err(error) => return Err(errno::from_service(&error)),
            };
            let listed: HashSet<Box<str>> = listed.into_iter().map(Box::from).collect();
            for name in known.iter().filter(|name| !listed.contains(*name)) {
                self.hand_to_replay(&path::join(directory, name), told_up_to).await;
            }
            listed.into_iter().collect()
        } else {
            known
        };
        for window in names.chunks(WINDOW) {
            let asked: Vec<_> = window
                .iter()
                .map(|name| {
                    let znode = path::join(directory, name);
                    let stat = self.znodes.exists(&znode);
                    (znode, stat)
                })
                .collect();
            for (znode, stat) in asked {
                let stat = if_any(stat.await)?;
                let told = self.remote.announced.lock().child(&znode);
                if differs(told, stat.as_ref(), told_up_to, is_complete) {
                    self.hand_to_replay(&znode, told_up_to).await;
                }
            }
        }
        Ok(())
    }

    async fn stat_if_any(&self, znode: &str) -> Result<Option<Stat>, Errno> {
        if_any(self.znodes.exists(znode).await)
    }

    async fn hand_to_replay(&self, znode: &str, told_up_to: Zxid) {
        while !self.note_compared(znode, told_up_to) {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }

    /// Asks for the children of a directory that the kernel holds, so that later it can be said
    /// which of them are gone, and what they were.
    pub(crate) async fn survey(&self, directory: &Arc<str>) {
        let begun = self.remote.journal.lock().now();
        let Ok(Some(children)) = self.children_to_remember(directory).await else { return };
        if self.remote.journal.lock().has_changed(begun, directory) {
            return self.remote.announced.lock().survey_failed(directory);
        }
        self.remote.announced.lock().surveyed(directory, children);
    }

    /// `None` when they are not remembered.
    async fn children_to_remember(
        &self,
        directory: &str,
    ) -> Result<Option<Vec<(String, Child)>>, Errno> {
        let Some(stat) = self.stat_if_any(directory).await? else { return Ok(None) };
        if usize::try_from(stat.num_children).is_ok_and(|count| count > SURVEY_NAMES_MAX) {
            return Ok(None);
        }
        let listed = self.znodes.children(directory).await;
        let (names, _) = listed.map_err(|error| errno::from_service(&error))?;
        let asks_kinds = names.len() <= SURVEY_KINDS_MAX;
        let mut children: Vec<_> = names.into_iter().map(|name| (name, Child::default())).collect();
        if asks_kinds {
            for window in children.chunks_mut(WINDOW) {
                self.find_children(directory, window).await?;
            }
        }
        Ok(Some(children))
    }

    async fn find_children(
        &self,
        directory: &str,
        children: &mut [(String, Child)],
    ) -> Result<(), Errno> {
        let stats: Vec<_> = children
            .iter()
            .map(|(name, _)| {
                let znode = path::join(directory, name);
                let stat = self.znodes.exists(&znode);
                (znode, stat)
            })
            .collect();
        let mut ambiguous = Vec::new();
        for (index, (znode, stat)) in stats.into_iter().enumerate() {
            let Some(stat) = if_any(stat.await)? else { continue };
            let mut seen = Znode { stat, acl: [].into(), null_data: None };
            if stat.data_length > 0 {
                seen.null_data = Some(false);
            }
            if seen.is_ambiguous() {
                ambiguous.push((index, seen, self.znodes.get_data(&znode)));
            } else {
                let kind = Kind::of(seen.view(None).is_directory());
                children[index].1 = Child::new(&stat, kind);
            }
        }
        for (index, seen, data) in ambiguous {
            let kind = match data.await {
                Ok((data, _)) => Kind::of(data.is_none()),
                Err(ServiceError::Code(_)) => Kind::Unknown,
                Err(error) => return Err(errno::from_service(&error)),
            };
            children[index].1 = Child::new(&seen.stat, kind);
        }
        Ok(())
    }
}

/// Whether a znode is other than it was announced.
fn differs(told: Option<Child>, now: Option<&Stat>, told_up_to: Zxid, is_complete: bool) -> bool {
    match (told, now) {
        (Some(told), Some(now)) => {
            told.was_replaced(now, told_up_to)
                || told.was_set(now, told_up_to)
                || told.kind == Kind::File && now.num_children > 0
        }
        (Some(_), None) => true,
        (None, Some(now)) => is_complete || now.czxid > told_up_to || now.mzxid > told_up_to,
        (None, None) => false,
    }
}

fn if_any(stat: Result<Stat, ServiceError>) -> Result<Option<Stat>, Errno> {
    match stat {
        Ok(stat) => Ok(Some(stat)),
        Err(ServiceError::Code(ErrorCode::NoNode)) => Ok(None),
        // It is there, and nothing may be known of it.
        Err(ServiceError::Code(ErrorCode::NoAuth)) => Ok(Some(Stat::default())),
        Err(error) => Err(errno::from_service(&error)),
    }
}

/// What became of a task that compared a directory.
fn finished(
    joined: Option<Result<Result<(), Errno>, tokio::task::JoinError>>,
) -> Result<(), Errno> {
    match joined {
        Some(Ok(result)) => result,
        // It ends so only with the whole process.
        Some(Err(_)) => Err(Errno::EIO),
        None => Ok(()),
    }
}
