//! The locks that processes take through this mount: each waits as a task of its own in the queue of
//! [`crate::lock_queue`]; who holds what is in [`crate::lock_table`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::Errno;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use znodefs::ErrorCode;
use znodefs::recipe::LockMode;

use crate::errno;
use crate::interruption::interrupted;
use crate::lock_queue::{Entering, LockQueue, Standing, leave, lock_path};
use crate::lock_table::{Held, LockKey, LockTable, Plan, Range, Unlocked};
use crate::service::{ServiceError, Znodes};

/// What a process asks for.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    /// The file, and who asks.
    pub key: LockKey,
    /// The open file through which it asks.
    pub handle: u64,
    /// The bytes.
    pub range: Range,
    /// Exclusive or shared.
    pub mode: LockMode,
    /// The process, for people and programs that look; 0 when it is not known.
    pub process: u32,
    /// The thread that waits for the lock; `None` when the answer has to come at once.
    pub waiting: Option<u32>,
}

/// A lock in the way of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Exclusive or shared.
    pub mode: LockMode,
    /// The process that holds it; 0 for one that is not on this mount.
    pub process: u32,
}

/// Told of the open files whose lock is lost.
type OnLost = dyn Fn(&[u64]) + Send + Sync;

/// Every lock of the mount. Clones share them.
#[derive(Clone)]
pub struct Locks {
    znodes: Znodes,
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<LockTable>,
    host: String,
    on_lost: Box<OnLost>,
    /// Whether it was said that the service refuses locks.
    refusal_told: AtomicBool,
}

impl Locks {
    /// No locks yet. `on_lost` is told of the open files that held a lock which is gone.
    pub fn new(znodes: &Znodes, on_lost: impl Fn(&[u64]) + Send + Sync + 'static) -> Locks {
        let host = nix::sys::utsname::uname()
            .map_or_else(|_| "localhost".into(), |name| name.nodename().to_string_lossy().into());
        let shared = Shared {
            table: Mutex::default(),
            host,
            on_lost: Box::new(on_lost),
            refusal_told: AtomicBool::new(false),
        };
        Locks { znodes: znodes.clone(), shared: Arc::new(shared) }
    }

    /// How many owners hold a lock.
    pub fn len(&self) -> usize {
        self.shared.table.lock().len()
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.shared.table.lock().is_empty()
    }

    /// Whether an owner holds anything of a file.
    pub fn holds(&self, key: LockKey) -> bool {
        self.shared.table.lock().holds(key)
    }

    /// The open files through which an owner has locked what it holds of a file.
    pub fn handles_of(&self, key: LockKey) -> Vec<u64> {
        self.shared.table.lock().handles_of(key)
    }

    fn queue(&self, znode_path: &str, process: u32) -> LockQueue {
        let path = lock_path(self.znodes.service().chroot(), znode_path);
        let command = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let identifier = format!("{}:{process}:{}", self.shared.host, command.trim_end());
        LockQueue::new(&self.znodes, path, identifier)
    }

    /// Locks a file that is the znode of this path. The place in the queue is taken when the future is
    /// first polled.
    ///
    /// # Errors
    /// `EAGAIN` when it is held by another and the answer has to come at once; `EINTR` when a signal
    /// came for the thread that waits; whatever the service says.
    pub async fn lock(&self, znode_path: &str, request: LockRequest) -> Result<(), Errno> {
        let LockRequest { key, handle, range, mode, process, waiting } = request;
        let plan = self.shared.table.lock().plan(key, handle, range, mode);
        let shared_before = match plan {
            Plan::Covered => return Ok(()),
            Plan::Weaken(held) => {
                self.start_to_weaken(self.queue(znode_path, process), key, held);
                return Ok(());
            }
            Plan::Acquire => None,
            Plan::Upgrade(held) => Some(held),
        };
        let queue = self.queue(znode_path, process);
        let attempt = Attempt { locks: self.clone(), queue, request, shared_before };
        let (result, mut granted) = oneshot::channel();
        // Sent here, so that contenders of this mount stand in the order in which they came.
        let entering = attempt.queue.enter(mode);
        tokio::spawn(attempt.run(entering, result));
        let thread = waiting.unwrap_or(0);
        let granted = tokio::select! {
            biased;
            result = &mut granted => result.unwrap_or(Err(Errno::EIO)),
            () = interrupted(thread) => {
                granted.close();
                // It may have come in the very moment.
                granted.try_recv().unwrap_or(Err(Errno::EINTR))
            }
        }?;
        let asked = (range, mode);
        let contender = granted.clone();
        let replaced = self.shared.table.lock().granted(key, (handle, process), asked, granted);
        if replaced.as_ref() != Some(&contender) {
            self.start_to_guard(self.queue(znode_path, process), key, contender);
        }
        if let Some(replaced) = replaced {
            leave(&self.znodes, replaced).await;
        }
        Ok(())
    }

    /// Unlocks a range; others may have the lock when this returns.
    pub async fn unlock(&self, znode_path: &str, key: LockKey, range: Range) {
        let unlocked = self.shared.table.lock().unlock(key, range);
        match unlocked {
            Unlocked::Nothing => {}
            Unlocked::Release(held) => leave(&self.znodes, held).await,
            Unlocked::Weaken(held) => self.start_to_weaken(self.queue(znode_path, 0), key, held),
        }
    }

    /// Takes away everything that an owner holds of a file, with `handle` only if it was locked
    /// through that open file. Go on with [`Locks::release`].
    pub fn take(&self, key: LockKey, handle: Option<u64>) -> Option<Held> {
        self.shared.table.lock().unlock_all(key, handle)
    }

    /// Lets the next in the queue have what was taken away from an owner.
    pub async fn release(&self, held: Held) {
        leave(&self.znodes, held).await;
    }

    /// What would keep an owner from locking a file in a mode now.
    pub async fn obstacle(
        &self,
        znode_path: &str,
        key: LockKey,
        mode: LockMode,
    ) -> Result<Option<Obstacle>, Errno> {
        let own = self.shared.table.lock().held(key).cloned();
        let queue = self.queue(znode_path, 0);
        let obstacle = queue.obstacle(mode, own.as_ref()).await;
        let obstacle = obstacle.map_err(|error| errno::from_service(&error))?;
        Ok(obstacle.map(|held| {
            let process = self.shared.table.lock().process_of(&held.contender).unwrap_or(0);
            Obstacle { mode: held.mode, process }
        }))
    }

    /// Watches over a contender that holds, in case that it goes without us.
    fn start_to_guard(&self, queue: LockQueue, key: LockKey, held: Held) {
        let locks = self.clone();
        tokio::spawn(async move {
            loop {
                let is_ours = locks.shared.table.lock().held(key) == Some(&held);
                if !is_ours {
                    return;
                }
                let has_ended = locks.znodes.service().session_id() != held.session;
                if has_ended || queue.is_gone(&held).await {
                    let handles = locks.shared.table.lock().lost(key, &held.contender);
                    if !handles.is_empty() {
                        tracing::error!(
                            "{}: a lock is lost: {}; its file can only be closed now",
                            held.contender,
                            if has_ended { "the session ended" } else { "somebody deleted it" },
                        );
                        (locks.shared.on_lost)(&handles);
                    }
                    return;
                }
            }
        });
    }

    /// Lets a shared contender take the place of an exclusive one, where that gives the lock to nobody
    /// who would exclude it. Otherwise the exclusive one stays: it excludes more than it must, which
    /// harms nobody but readers that could come in earlier.
    fn start_to_weaken(&self, queue: LockQueue, key: LockKey, old: Held) {
        let locks = self.clone();
        let entering = queue.enter(LockMode::Shared);
        tokio::spawn(async move {
            let Ok(new) = queue.entered(entering, || false).await else { return };
            let may = queue.may_replace(&new, &old).await.unwrap_or(false);
            let is_replaced =
                may && locks.shared.table.lock().weakened(key, &old.contender, new.clone());
            if is_replaced {
                locks.start_to_guard(queue, key, new);
                leave(&locks.znodes, old).await;
            } else {
                leave(&locks.znodes, new).await;
            }
        });
    }

    /// The errno of an attempt that failed; what an administrator has to know is logged once.
    fn refusal(&self, queue: &LockQueue, error: &ServiceError) -> Errno {
        let is_refusal = *error == ServiceError::Code(ErrorCode::NoAuth);
        if is_refusal && !self.shared.refusal_told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "{}: no permission to create or list the znodes of locks: let somebody who may give \
                 /znodefs/locks and all below it the ACL world:anyone:cdrwa (this is said once)",
                queue.path()
            );
        }
        errno::from_service(error)
    }
}

/// One attempt to get a lock.
struct Attempt {
    locks: Locks,
    queue: LockQueue,
    request: LockRequest,
    /// The contender that the owner holds already.
    shared_before: Option<Held>,
}

impl Attempt {
    /// Stands in the queue until the contender holds, or until nobody waits for the result any more.
    async fn run<F>(self, entering: Entering<F>, mut result: oneshot::Sender<Result<Held, Errno>>)
    where
        F: Future<Output = Result<Held, ServiceError>>,
    {
        let znodes = self.locks.znodes.clone();
        // Who waits for a lock also waits for the servers.
        let is_wanted = || self.request.waiting.is_some() && !result.is_closed();
        let mut own = match self.queue.entered(entering, is_wanted).await {
            Ok(own) => own,
            Err(error) => {
                let _ = result.send(Err(self.locks.refusal(&self.queue, &error)));
                return;
            }
        };
        let outcome = tokio::select! {
            biased;
            () = result.closed() => Err(Errno::EINTR),
            outcome = self.stand(&mut own) => outcome,
        };
        match outcome {
            // Who has stopped waiting in this very moment leaves the lock to the next.
            Ok(()) => {
                if let Err(Ok(own)) = result.send(Ok(own)) {
                    leave(&znodes, own).await;
                }
            }
            // First out of the queue: whoever hears of the refusal may try again at once.
            Err(error) => {
                leave(&znodes, own).await;
                let _ = result.send(Err(error));
            }
        }
    }

    async fn stand(&self, own: &mut Held) -> Result<(), Errno> {
        let standing = self.queue.standing(own, self.shared_before.as_ref()).await;
        let error = match standing {
            Ok(Standing::Holds) => return Ok(()),
            Ok(Standing::Behind(_) | Standing::Gone) if self.request.waiting.is_none() => {
                return Err(Errno::EAGAIN);
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = error.filter(|_| self.request.waiting.is_none()) {
            return Err(self.locks.refusal(&self.queue, &error));
        }
        // Two who hold it shared and want it exclusive would wait for each other: as flock(2) has it,
        // the lock is given up before another is waited for.
        if self.shared_before.is_some()
            && let Some(held) = self.locks.take(self.request.key, None)
        {
            self.locks.release(held).await;
        }
        self.queue.wait(own).await.map_err(|error| self.locks.refusal(&self.queue, &error))
    }
}
