//! The queue of one file's lock at the service: an ephemeral sequential znode for each contender, each
//! waiting only for the one before it (the paper's locks without herd effect), named as the Python
//! library kazoo names its own. Who holds what through this mount is in [`crate::lock_table`].

use std::fmt::Write;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use znodefs::recipe::LockMode;
use znodefs::recipe::contender::{self, Contender};
use znodefs::{Acl, CreateMode, ErrorCode, path};

use crate::lock_table::Held;
use crate::service::{NewZnode, ServiceError, Znodes};

/// The znode below the real root that is ours; the mount does not list it.
pub const OWN_ZNODE: &str = "znodefs";

/// Where the locks of files are: a znode for each file, whose children are the contenders.
pub const LOCKS: &str = "/znodefs/locks";

/// How long to wait before a server that could not be reached is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The znode of a file's lock. The file's path from the real root is percent-encoded into one name:
/// everything but ASCII letters, digits and `-._~` (`urllib.parse.quote(path, safe="")`).
pub fn lock_path(chroot: &str, znode_path: &str) -> String {
    let below_chroot = if znode_path == "/" && !chroot.is_empty() { "" } else { znode_path };
    let mut lock_path = format!("{LOCKS}/");
    for byte in chroot.bytes().chain(below_chroot.bytes()) {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                lock_path.push(byte.into());
            }
            // Writing to a string does not fail.
            byte => drop(write!(lock_path, "%{byte:02X}")),
        }
    }
    lock_path
}

/// What stands between a contender and its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: it holds.
    Holds,
    /// This contender, by its path.
    Behind(String),
    /// It is not in the queue any more.
    Gone,
}

/// A request to enter a queue, on its way.
pub struct Entering<F> {
    created: F,
    prefix: String,
    mode: LockMode,
}

/// The queue of one lock.
#[derive(Clone)]
pub struct LockQueue {
    /// From the real root.
    znodes: Znodes,
    path: String,
    /// What its contenders say of themselves.
    identifier: String,
}

impl LockQueue {
    /// The queue at the path that [`lock_path`] gives.
    pub fn new(znodes: &Znodes, path: String, identifier: String) -> LockQueue {
        LockQueue { znodes: znodes.from_real_root(), path, identifier }
    }

    /// The queue's znode.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether a contender of ours has gone, once something has happened to it; while no server can be
    /// reached nothing has.
    pub async fn is_gone(&self, held: &Held) -> bool {
        let event = self.znodes.service().events().next_event(&held.contender);
        match self.znodes.watch(&held.contender).await {
            Ok(_) => {
                // Whatever it was, the next look tells.
                let _ = event.await;
                false
            }
            Err(ServiceError::Code(ErrorCode::NoNode)) => true,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                false
            }
        }
    }

    /// Asks for a place in the queue. The request is sent when this is called: places are in the order
    /// of the calls.
    pub fn enter(
        &self,
        mode: LockMode,
    ) -> Entering<impl Future<Output = Result<Held, ServiceError>> + Send + use<>> {
        let prefix = mode.name_prefix(unique());
        let created = self.create(&prefix, mode);
        Entering { created, prefix, mode }
    }

    fn create(
        &self,
        prefix: &str,
        mode: LockMode,
    ) -> impl Future<Output = Result<Held, ServiceError>> + Send + use<> {
        let created = self.znodes.create(&NewZnode {
            path: &path::join(&self.path, prefix),
            data: Some(Bytes::copy_from_slice(self.identifier.as_bytes())),
            acl: Acl::open(),
            mode: CreateMode::EphemeralSequential,
            ttl_ms: 0,
        });
        let queue = self.path.clone();
        async move {
            let (created, stat) = created.await?;
            let contender = path::join(&queue, path::name(&created));
            Ok(Held { contender, mode, session: stat.ephemeral_owner })
        }
    }

    /// The contender that was asked for, once the service has it. Makes the queue where it is missing.
    /// As long as it is wanted, servers that cannot be reached are asked again.
    pub async fn entered<F>(
        &self,
        entering: Entering<F>,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Held, ServiceError>
    where
        F: Future<Output = Result<Held, ServiceError>>,
    {
        let Entering { created, prefix, mode } = entering;
        let mut created = created.await;
        loop {
            let session = self.znodes.service().session_id();
            match created {
                Err(ServiceError::Code(ErrorCode::NoNode)) => match self.create_queue().await {
                    Err(error) if is_passing(&error) && is_wanted() => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    result => result?,
                },
                Err(ServiceError::OutcomeUnknown) => match self.find(&prefix).await {
                    Ok(Some(name)) => {
                        let contender = path::join(&self.path, &name);
                        return Ok(Held { contender, mode, session });
                    }
                    Ok(None) => {}
                    Err(error) if is_passing(&error) && is_wanted() => {
                        tokio::time::sleep(PAUSE).await;
                        // It may stand in everybody's way, its own next one included.
                        if self.znodes.service().session_id() == session {
                            continue;
                        }
                    }
                    Err(error) => {
                        self.abandon(prefix, mode);
                        return Err(error);
                    }
                },
                Err(error) if is_passing(&error) && is_wanted() => {
                    tokio::time::sleep(PAUSE).await;
                }
                created => return created,
            }
            created = self.create(&prefix, mode).await;
        }
    }

    /// Takes the contender out of the queue, should there be one, whose creation was not confirmed and
    /// for which nobody waits any more.
    fn abandon(&self, prefix: String, mode: LockMode) {
        let queue = self.clone();
        let session = queue.znodes.service().session_id();
        tokio::spawn(async move {
            // With its session it goes by itself.
            while queue.znodes.service().session_id() == session {
                match queue.find(&prefix).await {
                    Ok(Some(name)) => {
                        let contender = path::join(&queue.path, &name);
                        return leave(&queue.znodes, Held { contender, mode, session }).await;
                    }
                    Err(error) if is_passing(&error) => tokio::time::sleep(PAUSE).await,
                    Ok(None) | Err(_) => return,
                }
            }
        });
    }

    /// Enters anew; if the caller is gone before that is done, so is the contender.
    async fn enter_again(&self, mode: LockMode) -> Result<Held, ServiceError> {
        let (entered, result) = oneshot::channel();
        let (queue, entering) = (self.clone(), self.enter(mode));
        tokio::spawn(async move {
            let held = queue.entered(entering, || !entered.is_closed()).await;
            if let Err(Ok(unwanted)) = entered.send(held) {
                leave(&queue.znodes, unwanted).await;
            }
        });
        // A task without an answer has ended with the whole process.
        result.await.unwrap_or(Err(ServiceError::Closed))
    }

    /// Looks for a contender whose creation was not confirmed.
    async fn find(&self, prefix: &str) -> Result<Option<String>, ServiceError> {
        // The next server may be one that has not heard of it yet.
        let synced = self.znodes.sync(&self.path);
        let names = self.names();
        synced.await?;
        Ok(names.await?.into_iter().find(|name| name.starts_with(prefix)))
    }

    /// The names in the queue; none where there is no queue.
    fn names(&self) -> impl Future<Output = Result<Vec<String>, ServiceError>> + Send + use<> {
        let children = self.znodes.children(&self.path);
        async move {
            match children.await {
                Ok((names, _)) => Ok(names),
                Err(ServiceError::Code(ErrorCode::NoNode)) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        }
    }

    async fn create_queue(&self) -> Result<(), ServiceError> {
        let own = format!("/{OWN_ZNODE}");
        for parent in [own.as_str(), LOCKS] {
            self.create_if_missing(parent, CreateMode::Persistent).await?;
        }
        // The service deletes it some time after the last contender.
        match self.create_if_missing(&self.path, CreateMode::Container).await {
            Err(ServiceError::Code(ErrorCode::Unimplemented)) => {
                self.create_if_missing(&self.path, CreateMode::Persistent).await
            }
            result => result,
        }
    }

    async fn create_if_missing(&self, path: &str, mode: CreateMode) -> Result<(), ServiceError> {
        let new = NewZnode { path, data: None, acl: Acl::open(), mode, ttl_ms: 0 };
        loop {
            match self.znodes.create(&new).await {
                Ok(_) | Err(ServiceError::Code(ErrorCode::NodeExists)) => return Ok(()),
                Err(ServiceError::OutcomeUnknown) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where a contender stands. `beside` is another one of the same owner, which does not count.
    pub async fn standing(
        &self,
        own: &Held,
        beside: Option<&Held>,
    ) -> Result<Standing, ServiceError> {
        let names = self.names().await?;
        let beside = beside.map(|held| path::name(&held.contender));
        let others = names.iter().map(String::as_str).filter(|name| Some(*name) != beside);
        let queue = contender::queue(others);
        Ok(match contender::blockers(&queue, path::name(&own.contender), 1) {
            None => Standing::Gone,
            Some(blockers) => match blockers.first() {
                None => Standing::Holds,
                Some(blocker) => Standing::Behind(path::join(&self.path, blocker.name)),
            },
        })
    }

    /// Resolves when a contender is gone, or may be.
    pub async fn departure(&self, contender: &str) -> Result<(), ServiceError> {
        let event = self.znodes.service().events().next_event(contender);
        match self.znodes.watch(contender).await {
            // An error says that the session has ended.
            Ok(_) => drop(event.await),
            Err(ServiceError::Code(ErrorCode::NoNode)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits until a contender holds; in a new session, or when somebody has deleted it, with another
    /// one. However long the servers are away, the wait goes on.
    pub async fn wait(&self, own: &mut Held) -> Result<(), ServiceError> {
        loop {
            let result = async {
                match self.standing(own, None).await? {
                    Standing::Holds => Ok(true),
                    Standing::Behind(blocker) => self.departure(&blocker).await.map(|()| false),
                    Standing::Gone => {
                        *own = self.enter_again(own.mode).await?;
                        Ok(false)
                    }
                }
            };
            match result.await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if is_passing(&error) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a shared contender may take the place of the exclusive one before it: no writer came
    /// between, who would have waited for the exclusive one and would not wait for the shared.
    pub async fn may_replace(&self, new: &Held, old: &Held) -> Result<bool, ServiceError> {
        let names = self.names().await?;
        let queue = contender::queue(names.iter().map(String::as_str));
        let place = |held: &Held| {
            let name = path::name(&held.contender);
            queue.iter().position(|contender| contender.name == name)
        };
        let (Some(old), Some(new)) = (place(old), place(new)) else { return Ok(false) };
        let between = queue.get(old + 1..new).unwrap_or_default();
        Ok(between.iter().all(|contender| contender.mode == LockMode::Shared))
    }

    /// The first contender, other than `own`, that keeps a lock of this mode from being given at once.
    pub async fn obstacle(
        &self,
        mode: LockMode,
        own: Option<&Held>,
    ) -> Result<Option<Held>, ServiceError> {
        let synced = self.znodes.sync(&self.path);
        let names = self.names();
        match synced.await {
            Ok(()) | Err(ServiceError::Code(ErrorCode::NoNode)) => {}
            Err(error) => return Err(error),
        }
        let names = names.await?;
        let own = own.map(|held| path::name(&held.contender));
        let queue = contender::queue(names.iter().map(String::as_str));
        let is_obstacle = |contender: &&Contender<'_>| {
            let excludes = mode == LockMode::Exclusive || contender.mode == LockMode::Exclusive;
            excludes && Some(contender.name) != own
        };
        Ok(queue.iter().find(is_obstacle).map(|contender| Held {
            contender: path::join(&self.path, contender.name),
            mode: contender.mode,
            session: Default::default(),
        }))
    }
}

/// Takes a contender out of its queue. When no server can be reached the attempts go on in the
/// background: nobody has to wait longer than for one.
pub async fn leave(znodes: &Znodes, held: Held) {
    let znodes = znodes.from_real_root();
    if !left(&znodes, &held).await {
        tokio::spawn(async move {
            while !left(&znodes, &held).await {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// Tries to delete a contender; whether it is gone now, or in any case as soon as its session.
async fn left(znodes: &Znodes, held: &Held) -> bool {
    if znodes.service().session_id() != held.session {
        return true;
    }
    match znodes.delete(&held.contender, -1).await {
        Ok(()) | Err(ServiceError::Code(ErrorCode::NoNode)) => true,
        Err(error) if is_passing(&error) => false,
        Err(ServiceError::SessionExpired | ServiceError::Closed) => true,
        Err(error) => {
            let contender = &held.contender;
            tracing::error!("{contender}: cannot be deleted, so others wait for it: {error}");
            true
        }
    }
}

/// Whether a later try may succeed.
fn is_passing(error: &ServiceError) -> bool {
    matches!(
        error,
        ServiceError::TimedOut | ServiceError::OutcomeUnknown | ServiceError::SessionExpired
    )
}

/// A number that no other contender has.
fn unique() -> u128 {
    // Keys from the system's randomness; different ones in each state.
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_file_is_one_name_below_the_locks() {
        assert_eq!(lock_path("", "/a/b-1.c_~"), "/znodefs/locks/%2Fa%2Fb-1.c_~");
        assert_eq!(lock_path("/app", "/a%2Fb"), "/znodefs/locks/%2Fapp%2Fa%252Fb");
        assert_eq!(lock_path("/app", "/"), "/znodefs/locks/%2Fapp");
        assert_eq!(lock_path("", "/"), "/znodefs/locks/%2F");
        assert_eq!(lock_path("", "/é @x"), "/znodefs/locks/%2F%C3%A9%20%40x");
    }
}
