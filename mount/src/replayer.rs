//! The task that has changes made elsewhere replayed: it asks for the state of what changed, gives
//! the helper its commands, and sees to what could not be replayed. Handlers never wait for it; it
//! waits for them.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::filesystem::Filesystem;
use crate::filesystem::remote::{Room, Task};
use crate::filesystem::replay::Step;
use crate::inode_table::Znode;
use crate::remote_changes::{Batch, Remote};
use crate::replay::process::ReplayError;
use crate::replay::{Action, WORKERS};

/// How many changes of one directory are asked for at once.
const BATCH_MAX: usize = 32;

/// How many directories' children are asked for at once.
const SURVEYS_MAX: usize = 4;

/// How long to wait before trying again what could not be done.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How often a change is tried again that the kernel keeps refusing.
const ATTEMPTS_MAX: u32 = 20;

/// Replays until it is dropped.
pub async fn run(filesystem: Arc<Filesystem>) {
    let slots = Arc::new(Semaphore::new(WORKERS));
    let surveys = Arc::new(Semaphore::new(SURVEYS_MAX));
    let comparing = Arc::new(tokio::sync::Mutex::new(()));
    loop {
        let (slot, survey_slot) =
            (slots.clone().try_acquire_owned().ok(), surveys.clone().try_acquire_owned().ok());
        let room = Room { replays: slot.is_some(), surveys: survey_slot.is_some() };
        let Some(task) = filesystem.next_task(BATCH_MAX, room) else {
            filesystem.task_noted().await;
            continue;
        };
        let filesystem = filesystem.clone();
        match task {
            Task::Replay(batch) => {
                tokio::spawn(async move { replay(&filesystem, batch, slot).await });
            }
            // Nothing that waits for a server may hold this up.
            Task::Status => {
                tokio::spawn(async move { replay_status(&filesystem).await });
            }
            Task::Compare => {
                let turn = comparing.clone();
                tokio::spawn(async move {
                    let _turn = turn.lock().await;
                    compare(&filesystem).await;
                });
            }
            // The kernel waits for requests in a directory: on threads that may wait.
            Task::ExpireNames(directory) => {
                tokio::task::spawn_blocking(move || filesystem.expire_names(directory));
            }
            Task::DropCaches => {
                tokio::task::spawn_blocking(move || filesystem.drop_cached_names());
            }
            Task::Survey(directory) => {
                tokio::spawn(async move {
                    filesystem.survey(&directory).await;
                    drop(survey_slot);
                    filesystem.wake_replayer();
                });
            }
        }
    }
}

/// Finds what was missed. Without a connection the next one begins it anew.
async fn compare(filesystem: &Arc<Filesystem>) {
    match filesystem.compare().await {
        Ok(true) => {}
        Ok(false) => filesystem.compare_again(),
        Err(error) => {
            tracing::debug!("what was missed could not be found out yet: {error:?}");
            tokio::time::sleep(RETRY_PAUSE).await;
            filesystem.compare_again();
        }
    }
}

async fn replay_status(filesystem: &Filesystem) {
    if let Some(step) = filesystem.status_step()
        && let Err(error) = perform(filesystem, &step).await
    {
        tracing::debug!("the change of a status file was not replayed: {error}");
    }
}

async fn replay(filesystem: &Arc<Filesystem>, batch: Batch, slot: Option<OwnedSemaphorePermit>) {
    // All states are asked for before the first is waited for.
    let mut asked = Vec::with_capacity(batch.changes.len());
    for (znode, remote) in batch.changes {
        let (asking, path) = (filesystem.clone(), znode.clone());
        let state = tokio::spawn(async move { asking.state_to_replay(&path).await });
        asked.push((znode, remote, state));
    }
    let mut failed = false;
    for (znode, remote, state) in asked {
        match state.await {
            Ok(Ok(state)) => failed |= !replay_one(filesystem, &znode, remote, state).await,
            // Without a connection: it is asked for again until there is one.
            Ok(Err(_)) => {
                filesystem.replay_again(&znode, remote);
                failed = true;
            }
            Err(_) => return,
        }
    }
    if failed {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    drop(slot);
    filesystem.batch_done(&batch.directory);
}

/// Replays one change; false when it has to be tried again.
async fn replay_one(
    filesystem: &Arc<Filesystem>,
    znode: &str,
    remote: Remote,
    now: Option<Znode>,
) -> bool {
    for step in filesystem.plan(znode, &remote, now.as_ref()) {
        let error = match perform(filesystem, &step).await {
            Ok(()) => continue,
            Err(ReplayError::Stopped) => return true,
            Err(error) => error,
        };
        let again = Remote { attempts: remote.attempts + 1, ..remote };
        let creates =
            matches!(step.command.action, Action::CreateFile(_) | Action::CreateDirectory);
        match error {
            ReplayError::Lost => {
                filesystem.replay_again(znode, again);
                return false;
            }
            // Too late: the kernel knows of something newer, or has nothing to be removed.
            ReplayError::Refused(Errno::EBUSY | Errno::ENOENT) if !creates => {}
            ReplayError::Refused(error) => {
                tracing::debug!("{znode}: {:?} was not replayed: {error}", step.command);
                forget(filesystem, &step).await;
                if creates && again.attempts < ATTEMPTS_MAX {
                    filesystem.replay_again(znode, again);
                    return false;
                }
            }
            ReplayError::Stopped => return true,
        }
    }
    filesystem.note_announced(znode, now.as_ref());
    true
}

async fn perform(filesystem: &Filesystem, step: &Step) -> Result<(), ReplayError> {
    let Some(helper) = filesystem.replay_helper() else { return Err(ReplayError::Stopped) };
    filesystem.begin_step(step);
    let result = helper.perform(step.command.clone()).await;
    filesystem.end_step(step);
    result
}

/// Has the kernel forget what it knows under a name.
async fn forget(filesystem: &Arc<Filesystem>, step: &Step) {
    let (filesystem, parent) = (filesystem.clone(), step.parent);
    let name = step.command.name.clone();
    // The kernel waits for requests in this directory: on a thread that may wait.
    let forgotten = tokio::task::spawn_blocking(move || {
        let Some(kernel) = filesystem.kernel() else { return };
        // Where it knows nothing there is nothing to forget.
        let _ = kernel.invalidate_entry(parent, &name);
        let _ = kernel.invalidate_listing(parent);
    });
    // It fails only when the runtime ends.
    let _ = forgotten.await;
}
