//! A backup into the tree of a running ensemble, as its client: every znode is created anew in
//! transactions of many, so that all replicas come to the same. What the protocol cannot set begins
//! anew: transaction numbers, times and versions.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use znodefs::client::{Client, ClientOptions, ConnectString, Error};
use znodefs::wire::MultiOp;
use znodefs::wire::request::CreateRequest;
use znodefs::{Acl, CreateMode, ErrorCode, path};

use super::error::ToolError;
use super::progress::Progress;
use super::refill_plan::{self, Batch, Node, Plan};
use crate::tree::DataTree;

/// Transactions on their way at once.
const WINDOW: usize = 8;
/// How often a broken connection, or a tree that changes while it is removed, is tried again.
const TRIES: usize = 8;
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Deletions in one transaction.
const DELETIONS_MAX: usize = 500;

/// Where a backup goes.
pub struct Target {
    /// The servers of the ensemble.
    pub servers: String,
    /// Who asks.
    pub auth: Vec<(String, Bytes)>,
    /// Whether what is there is removed first.
    pub replaces: bool,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refilled {
    /// Znodes created.
    pub znodes: usize,
    /// Ephemeral znodes of the backup, which were left out.
    pub ephemerals: usize,
    /// Znodes whose counter of children was too far to go.
    pub uncounted: Vec<String>,
    /// Znodes removed before.
    pub removed: usize,
}

/// Makes the ensemble's tree that of the backup.
pub fn refill(tree: &DataTree, target: &Target) -> Result<Refilled, ToolError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| ToolError::Failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let servers: ConnectString = target
            .servers
            .parse()
            .map_err(|error| ToolError::Usage(format!("--servers {}: {error}", target.servers)))?;
        let options = ClientOptions {
            session_timeout: SESSION_TIMEOUT,
            auth: target.auth.clone(),
            ..ClientOptions::default()
        };
        let client = Client::connect(&servers, options).await.map_err(|error| failed(&error))?;
        let refill = Refill { client: &client, tree, target };
        let refilled = refill.run().await;
        let closed = client.close().await;
        let refilled = refilled?;
        closed.map_err(|error| failed(&error))?;
        Ok(refilled)
    })
}

fn failed(error: &Error) -> ToolError {
    ToolError::Failed(error.to_string())
}

fn is_interruption(error: &Error) -> bool {
    matches!(error, Error::ConnectionLoss { .. } | Error::TimedOut { .. })
}

struct Refill<'a> {
    client: &'a Client,
    tree: &'a DataTree,
    target: &'a Target,
}

impl Refill<'_> {
    async fn run(&self) -> Result<Refilled, ToolError> {
        let plan = refill_plan::plan(self.tree);
        self.check_rights(&plan).await?;
        let removed = self.make_room().await?;
        let batches = refill_plan::batches(&plan.nodes);
        let quotas = refill_plan::batches(&plan.quotas);
        let steps = batches.len() + plan.bumps.len() + quotas.len();
        let progress = Progress::new("restoring", steps);
        self.set_root().await?;
        self.create(&plan.nodes, &batches, &progress).await?;
        for bump in &plan.bumps {
            self.count_on(&bump.parent, bump.count).await?;
            progress.step();
        }
        self.create(&plan.quotas, &quotas, &progress).await?;
        self.set_root_acl().await?;
        self.client.sync("/").await.map_err(|error| failed(&error))?;
        Ok(Refilled {
            znodes: plan.nodes.len(),
            ephemerals: plan.ephemerals,
            uncounted: plan.uncounted,
            removed,
        })
    }

    /// Half a restore is worse than none: only the superuser may write below every znode.
    async fn check_rights(&self, plan: &Plan<'_>) -> Result<(), ToolError> {
        let who = self.client.who_am_i().await.map_err(|error| failed(&error))?;
        let is_super = who.iter().any(|identity| identity.scheme == "super");
        let is_open = |acl: &[Acl]| acl == Acl::open();
        let mut nodes = plan.nodes.iter().chain(&plan.quotas);
        let closed = nodes.find(|node| !is_open(node.acl));
        let root = self.tree.node("/").filter(|root| !is_open(root.acl()));
        match closed.map(|node| node.path.as_str()).or(root.map(|_| "/")) {
            Some(path) if !is_super => Err(ToolError::Failed(format!(
                "the backup has access control lists ({path}), which only the superuser can \
                 restore: add --credentials with the one of \
                 DigestAuthenticationProvider.superDigest; nothing was changed"
            ))),
            _ => Ok(()),
        }
    }

    /// Everything that a restore would replace, parents first.
    async fn present(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut looked_at = VecDeque::from(["/".to_string(), refill_plan::QUOTA.to_string()]);
        let mut asked = VecDeque::new();
        loop {
            while asked.len() < 64
                && let Some(parent) = looked_at.pop_front()
            {
                asked.push_back((self.client.get_children(&parent, false), parent));
            }
            let Some((answer, parent)) = asked.pop_front() else { return Ok(found) };
            let names = match answer.await {
                Ok((names, _)) => names,
                Err(error) if error.code() == Some(ErrorCode::NoNode) => continue,
                Err(error) => return Err(error),
            };
            for name in names {
                let child = path::join(&parent, &name);
                if child != "/zookeeper" {
                    found.push(child.clone());
                    looked_at.push_back(child);
                }
            }
        }
    }

    /// Removes what is there, if that was asked for.
    async fn make_room(&self) -> Result<usize, ToolError> {
        self.client.sync("/").await.map_err(|error| failed(&error))?;
        let mut removed = 0;
        let mut reason = String::new();
        for _ in 0..TRIES {
            let present = match self.present().await {
                Ok(present) => present,
                Err(error) if is_interruption(&error) => continue,
                Err(error) => return Err(failed(&error)),
            };
            if present.is_empty() {
                return Ok(removed);
            }
            if !self.target.replaces {
                return Err(ToolError::Failed(format!(
                    "{} holds {} znodes ({}), and nothing is overwritten: --replace removes all of \
                     them first",
                    self.target.servers,
                    present.len(),
                    present[0]
                )));
            }
            match self.delete(&present).await {
                Ok(()) => removed += present.len(),
                Err(error) if error.code() == Some(ErrorCode::NoAuth) => {
                    return Err(ToolError::Failed(format!(
                        "{error}; part of the tree was removed: try again with the superuser's \
                         credentials"
                    )));
                }
                // Somebody changes the tree meanwhile, or a leader is being elected.
                Err(error) => reason = error.to_string(),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Err(ToolError::Failed(format!(
            "the tree cannot be emptied, somebody goes on changing it ({reason}): stop the \
             applications and try again with --replace"
        )))
    }

    async fn delete(&self, present: &[String]) -> Result<(), Error> {
        let backwards: Vec<&str> = present.iter().rev().map(String::as_str).collect();
        let progress = Progress::new("removing", backwards.len().div_ceil(DELETIONS_MAX));
        let mut under_way = VecDeque::new();
        for paths in backwards.chunks(DELETIONS_MAX) {
            if under_way.len() == WINDOW
                && let Some(first) = under_way.pop_front()
            {
                answered(first).await?;
                progress.step();
            }
            let delete = paths.iter().map(|path| MultiOp::Delete { path, version: -1 });
            under_way.push_back(self.client.multi(delete.collect()));
        }
        for one in under_way {
            answered(one).await?;
            progress.step();
        }
        Ok(())
    }

    async fn set_root(&self) -> Result<(), ToolError> {
        let Some(data) = self.tree.node("/").and_then(|root| root.data()) else { return Ok(()) };
        let data = Bytes::copy_from_slice(data);
        self.client.set_data("/", Some(data), None).await.map(drop).map_err(|error| failed(&error))
    }

    /// Last of all: it could keep this client out.
    async fn set_root_acl(&self) -> Result<(), ToolError> {
        let Some(root) = self.tree.node("/") else { return Ok(()) };
        let (acl, _) = self.client.get_acl("/").await.map_err(|error| failed(&error))?;
        if acl[..] == root.acl()[..] {
            return Ok(());
        }
        let set = self.client.set_acl("/", root.acl().to_vec(), None).await;
        set.map(drop).map_err(|error| failed(&error))
    }

    /// Creates all, in order; what a lost connection left in doubt is looked up.
    async fn create(
        &self,
        nodes: &[Node<'_>],
        batches: &[Batch],
        progress: &Progress,
    ) -> Result<(), ToolError> {
        let mut left: VecDeque<&Batch> = batches.iter().collect();
        let mut tries = 0;
        while !left.is_empty() {
            let mut under_way = VecDeque::new();
            let mut failure = None;
            while failure.is_none() {
                while under_way.len() < WINDOW
                    && let Some(batch) = left.pop_front()
                {
                    let operations = nodes[batch.clone()].iter().map(creation).collect();
                    under_way.push_back((batch, self.client.multi(operations)));
                }
                let Some((batch, first)) = under_way.pop_front() else { break };
                match answered(first).await {
                    Ok(()) => {
                        tries = 0;
                        progress.step();
                    }
                    Err(error) => failure = Some((batch, error)),
                }
            }
            let Some((batch, error)) = failure else { continue };
            tries += 1;
            if !is_interruption(&error) || tries > TRIES {
                return Err(ToolError::Failed(format!(
                    "{error}; part of the backup was restored: try again with --replace{}",
                    hint(&error)
                )));
            }
            // Those behind it may have been done without it, on the next connection.
            let mut doubtful = vec![batch];
            for (batch, one) in under_way {
                let _ = one.await;
                doubtful.push(batch);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            for batch in doubtful.into_iter().rev() {
                match self.is_done(nodes, batch).await? {
                    true => progress.step(),
                    false => left.push_front(batch),
                }
            }
        }
        Ok(())
    }

    /// Whether a batch was done; it is as a whole or not at all.
    async fn is_done(&self, nodes: &[Node<'_>], batch: &Batch) -> Result<bool, ToolError> {
        let path = &nodes[batch.start].path;
        let mut tries = 0;
        loop {
            let found = async {
                self.client.sync(path).await?;
                self.client.exists(path, false).await
            };
            match found.await {
                Ok(found) => return Ok(found.is_some()),
                Err(error) if is_interruption(&error) && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// Lets a znode's counter of children go on by `count`, so that a sequential name does not come
    /// twice.
    async fn count_on(&self, parent: &str, count: usize) -> Result<(), ToolError> {
        let child = path::join(parent, refill_plan::COUNTING_NAME);
        let mut left = count;
        let mut tries = 0;
        while left > 0 {
            let times = left.min(DELETIONS_MAX / 2);
            let pair = || {
                let create =
                    CreateRequest::new(&child, None, Acl::open(), CreateMode::Persistent, 0);
                [MultiOp::Create(create), MultiOp::Delete { path: &child, version: -1 }]
            };
            let operations = (0..times).flat_map(|_| pair()).collect();
            match answered(self.client.multi(operations)).await {
                Ok(()) => (left, tries) = (left - times, 0),
                // Counting further than it was does no harm.
                Err(error) if is_interruption(&error) && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(())
    }
}

async fn answered<T>(pending: impl Future<Output = Result<T, Error>>) -> Result<(), Error> {
    pending.await.map(drop)
}

fn creation<'a>(node: &'a Node<'_>) -> MultiOp<'a> {
    let data = node.data.map(Bytes::copy_from_slice);
    MultiOp::Create(CreateRequest::new(&node.path, data, node.acl.to_vec(), node.mode, node.ttl_ms))
}

fn hint(error: &Error) -> &'static str {
    match error.code() {
        Some(ErrorCode::Unimplemented) => {
            "; znodes with a time to live need extendedTypesEnabled=true on every replica"
        }
        Some(ErrorCode::NodeExists | ErrorCode::NoNode) => {
            "; somebody else changes the tree: stop the applications meanwhile"
        }
        _ => "",
    }
}
