//! Locks: the paper's recipe "simple locks without herd effect", shared locks and counted ones. Each
//! contender watches only whom it waits for.

use std::future::Future;

use bytes::Bytes;

use super::contender::{self, LockMode};
use super::event_hub::EventHub;
use crate::client::{Client, Error};
use crate::wire::{CreateMode, ErrorCode};
use crate::zxid::Zxid;
use crate::{Acl, path};

/// What is asked of a lock.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// The lock's znode; contenders are its children. It is created if need be.
    pub path: String,
    /// Alone or together with others.
    pub mode: LockMode,
    /// How many exclusive holders there may be at once; 1 for a lock.
    pub limit: usize,
    /// The contender's data, for people who look: who it is.
    pub identifier: String,
    /// Tells this contender from all others; fresh for every request.
    pub unique: u128,
}

/// Why a lock was not acquired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// It is held by another, and waiting was not asked for.
    #[error("{path}: the lock is held by {holder}")]
    Held {
        /// The lock's znode.
        path: String,
        /// Who holds it, as its contender says of itself.
        holder: String,
    },
    /// The contender vanished while it waited: somebody deleted it.
    #[error("{path}: our contender was deleted by somebody else while it waited")]
    ContenderDeleted {
        /// The lock's znode.
        path: String,
    },
    /// The service failed us.
    #[error(transparent)]
    Client(#[from] Error),
}

/// A lock that is held as long as the session lives and [`release`](HeldLock::release) has not been
/// called.
#[derive(Debug)]
#[must_use = "the lock stays held until it is released or the session ends"]
pub struct HeldLock {
    contender_path: String,
    fencing_zxid: Zxid,
}

impl HeldLock {
    /// The contender's znode.
    pub fn contender_path(&self) -> &str {
        &self.contender_path
    }

    /// Grows from holder to holder: a resource that remembers the greatest one it has seen can
    /// refuse a holder that does not know yet that it lost the lock.
    pub fn fencing_zxid(&self) -> Zxid {
        self.fencing_zxid
    }

    /// Gives the lock back.
    pub async fn release(self, client: &Client) -> Result<(), Error> {
        delete_contender(client, &self.contender_path).await
    }
}

async fn delete_contender(client: &Client, contender_path: &str) -> Result<(), Error> {
    loop {
        match client.delete(contender_path, None).await {
            // A delete whose reply was lost is safe to repeat: the name is never used twice.
            Err(error) if error.is_outcome_unknown() => {}
            Err(error) if error.code() == Some(ErrorCode::NoNode) => return Ok(()),
            result => return result,
        }
    }
}

/// Waits in the queue until the lock is held. When `cancelled` resolves first, the contender is taken
/// out of the queue and `Held` is the error; a `cancelled` that is ready at once makes one attempt
/// without waiting.
pub async fn acquire(
    client: &Client,
    hub: &EventHub,
    request: &LockRequest,
    cancelled: impl Future<Output = ()>,
) -> Result<HeldLock, LockError> {
    let contender_path = enter_queue(client, request).await?;
    let result = tokio::select! {
        // First of all, so that an attempt without waiting still looks whether the lock is free.
        biased;
        result = wait_in_queue(client, hub, request, &contender_path) => result,
        () = cancelled => holder(client, request, &contender_path).await,
    };
    match result {
        Ok(Some(held)) => Ok(held),
        Ok(None) => {
            delete_contender(client, &contender_path).await?;
            Err(LockError::ContenderDeleted { path: request.path.clone() })
        }
        Err(error) => {
            if !matches!(error, LockError::Client(Error::SessionExpired | Error::Closed)) {
                delete_contender(client, &contender_path).await?;
            }
            Err(error)
        }
    }
}

/// One look at the queue, for an attempt that does not wait any longer.
async fn holder(
    client: &Client,
    request: &LockRequest,
    contender_path: &str,
) -> Result<Option<HeldLock>, LockError> {
    let own = path::name(contender_path);
    let (children, _) = client.get_children(&request.path, false).await?;
    let queue = contender::queue(children.iter().map(String::as_str));
    let Some(blockers) = contender::blockers(&queue, own, request.limit) else { return Ok(None) };
    if blockers.is_empty() {
        return held(client, contender_path).await;
    }
    // Whoever is first holds the lock; those behind may be waiting as we are.
    let holder = identifier(client, &request.path, &queue[0]).await;
    Err(LockError::Held { path: request.path.clone(), holder })
}

/// What a contender says of itself; its name where it says nothing.
pub async fn identifier(
    client: &Client,
    lock_path: &str,
    contender: &contender::Contender<'_>,
) -> String {
    match client.get_data(&path::join(lock_path, contender.name), false).await {
        Ok((Some(data), _)) if !data.is_empty() => String::from_utf8_lossy(&data).into_owned(),
        _ => contender.name.to_string(),
    }
}

/// Whether the session lives, as the leader knows it, and its ephemeral znode is there; `false` when
/// somebody has deleted it. Sets a watch that tells of its deletion. What the answer is worth, and from
/// when on: [`Lease`](super::Lease).
pub async fn confirm(client: &Client, ephemeral: &str) -> Result<bool, Error> {
    // Both are on their way at once; the second is answered behind the first.
    let synced = client.sync(ephemeral);
    let stat = client.exists(ephemeral, true);
    synced.await?;
    Ok(stat.await?.is_some_and(|stat| stat.ephemeral_owner == client.session_id()))
}

async fn held(client: &Client, contender_path: &str) -> Result<Option<HeldLock>, LockError> {
    let stat = client.exists(contender_path, false).await?;
    Ok(stat.map(|stat| HeldLock {
        contender_path: contender_path.to_string(),
        fencing_zxid: stat.czxid,
    }))
}

/// Creates the contender, and the lock's znode where it is missing.
async fn enter_queue(client: &Client, request: &LockRequest) -> Result<String, LockError> {
    let prefix = request.mode.name_prefix(request.unique);
    let prefix_path = path::join(&request.path, &prefix);
    let data = Bytes::copy_from_slice(request.identifier.as_bytes());
    loop {
        let mode = CreateMode::EphemeralSequential;
        match client.create(&prefix_path, Some(data.clone()), Acl::open(), mode).await {
            Ok((created, _)) => return Ok(created),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => {
                create_parents(client, &request.path).await?;
            }
            Err(error) if error.is_outcome_unknown() => {
                if let Some(name) = find_own(client, request, &prefix).await? {
                    return Ok(path::join(&request.path, &name));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Looks for a contender whose creation was not confirmed.
async fn find_own(
    client: &Client,
    request: &LockRequest,
    prefix: &str,
) -> Result<Option<String>, LockError> {
    match client.get_children(&request.path, false).await {
        Ok((children, _)) => Ok(children.into_iter().find(|name| name.starts_with(prefix))),
        Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Creates a znode without data and every missing one above it.
pub async fn create_parents(client: &Client, znode: &str) -> Result<(), Error> {
    for (slash, _) in znode.match_indices('/').skip(1).chain([(znode.len(), "")]) {
        let ancestor = &znode[..slash];
        loop {
            let created = client.create(ancestor, None, Acl::open(), CreateMode::Persistent).await;
            match created {
                Err(error) if error.is_outcome_unknown() => continue,
                Err(error) if error.code() == Some(ErrorCode::NodeExists) => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            break;
        }
    }
    Ok(())
}

/// Looks at the queue, waits for whoever is in the way, and looks again.
async fn wait_in_queue(
    client: &Client,
    hub: &EventHub,
    request: &LockRequest,
    contender_path: &str,
) -> Result<Option<HeldLock>, LockError> {
    let own = path::name(contender_path);
    loop {
        let (children, _) = client.get_children(&request.path, false).await?;
        let queue = contender::queue(children.iter().map(String::as_str));
        let Some(blockers) = contender::blockers(&queue, own, request.limit) else {
            return Ok(None);
        };
        if blockers.is_empty() {
            return held(client, contender_path).await;
        }
        wait_for_any(client, hub, &request.path, &blockers).await?;
    }
}

/// Resolves when one of the contenders is gone, or may be.
async fn wait_for_any(
    client: &Client,
    hub: &EventHub,
    lock_path: &str,
    blockers: &[contender::Contender<'_>],
) -> Result<(), LockError> {
    let mut events = tokio::task::JoinSet::new();
    for blocker in blockers {
        let blocker_path = path::join(lock_path, blocker.name);
        events.spawn(hub.next_event(&blocker_path));
        if client.exists(&blocker_path, true).await?.is_none() {
            return Ok(());
        }
    }
    match events.join_next().await {
        // Its sender is dropped when the session ends.
        Some(Ok(Err(_))) => Err(Error::SessionExpired.into()),
        _ => Ok(()),
    }
}
