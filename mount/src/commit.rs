//! Commits: the changes of an open file become one setData, repeated against newer values where the
//! changes do not depend on what was read. Nothing here knows of inodes or handles.

use bytes::Bytes;
use znodefs::{ErrorCode, Stat};

use crate::changes::Changes;
use crate::open_file::{Commit, Value};
use crate::service::{ServiceError, Znodes};

/// Why a commit came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The value that was read is not there any more.
    #[error("the value was changed since it was read")]
    Stale,
    /// The changes make the value longer than a znode takes.
    #[error("the value would be larger than a znode takes")]
    TooLarge,
    /// The service refused it.
    #[error("{0}")]
    Service(#[from] ServiceError),
}

/// A value and stat as committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The value and its version.
    pub value: Value,
    /// The znode's stat with it.
    pub stat: Stat,
}

/// Sets the data of a znode as a commit says. A connection lost on the way is no error as long as
/// it can be found out, or does not matter, whether the write took effect.
pub async fn commit(
    znodes: &Znodes,
    path: &str,
    commit: &Commit,
    length_max: usize,
) -> Result<Committed, CommitError> {
    match commit {
        Commit::Replace(data) => replace(znodes, path, data).await,
        Commit::Modify { changes, base } => {
            modify(znodes, path, changes, base.clone(), length_max).await
        }
        Commit::ReadModify { changes, base } => {
            let mut attempt = Attempt::new(changes, base.clone(), length_max)?;
            loop {
                match attempt.make(znodes, path).await? {
                    Made::Done(committed) => return Ok(committed),
                    Made::Overtaken => return Err(CommitError::Stale),
                    Made::Unknown => {}
                }
            }
        }
    }
}

async fn replace(znodes: &Znodes, path: &str, data: &Bytes) -> Result<Committed, CommitError> {
    loop {
        match znodes.set_data(path, Some(data.clone()), -1).await {
            Ok(stat) => {
                let value = Value { data: data.clone(), version: stat.version };
                return Ok(Committed { value, stat });
            }
            // Setting the same value twice does no harm.
            Err(ServiceError::OutcomeUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Applies changes to the newest value until no other writer comes between. `base` is tried first.
pub async fn modify(
    znodes: &Znodes,
    path: &str,
    changes: &Changes,
    base: Option<Value>,
    length_max: usize,
) -> Result<Committed, CommitError> {
    let mut base = base;
    loop {
        let newest = match base.take() {
            Some(base) => base,
            None => newest(znodes, path).await?,
        };
        let mut attempt = Attempt::new(changes, newest, length_max)?;
        loop {
            match attempt.make(znodes, path).await? {
                Made::Done(committed) => return Ok(committed),
                Made::Overtaken => break,
                Made::Unknown => {}
            }
        }
    }
}

async fn newest(znodes: &Znodes, path: &str) -> Result<Value, ServiceError> {
    let (data, stat) = znodes.get_data(path).await?;
    Ok(Value { data: data.unwrap_or_default(), version: stat.version })
}

/// One value to be set on condition that the one before it is still there.
struct Attempt {
    result: Bytes,
    version: i32,
    /// Whether an earlier try was lost with its connection and may have succeeded.
    maybe_done: bool,
}

enum Made {
    Done(Committed),
    /// Another writer came between.
    Overtaken,
    /// The connection was lost.
    Unknown,
}

impl Attempt {
    fn new(changes: &Changes, base: Value, length_max: usize) -> Result<Attempt, CommitError> {
        if changes.length(base.data.len()) > length_max {
            return Err(CommitError::TooLarge);
        }
        let result = changes.apply(&base.data).into();
        Ok(Attempt { result, version: base.version, maybe_done: false })
    }

    async fn make(&mut self, znodes: &Znodes, path: &str) -> Result<Made, ServiceError> {
        match znodes.set_data(path, Some(self.result.clone()), self.version).await {
            Ok(stat) => Ok(self.done(stat)),
            Err(ServiceError::OutcomeUnknown) => {
                self.maybe_done = true;
                Ok(Made::Unknown)
            }
            Err(ServiceError::Code(ErrorCode::BadVersion)) if self.maybe_done => {
                let (data, stat) = znodes.get_data(path).await?;
                let ours = stat.version == next_version(self.version)
                    && data.as_ref() == Some(&self.result);
                Ok(if ours { self.done(stat) } else { Made::Overtaken })
            }
            Err(ServiceError::Code(ErrorCode::BadVersion)) => Ok(Made::Overtaken),
            Err(error) => Err(error),
        }
    }

    fn done(&self, stat: Stat) -> Made {
        let value = Value { data: self.result.clone(), version: stat.version };
        Made::Done(Committed { value, stat })
    }
}

/// The version after a change; -1 would mean any (ZOOKEEPER-4743).
fn next_version(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}
