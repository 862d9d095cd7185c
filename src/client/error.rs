//! Why an operation of the client failed. Messages say what, where and what to do; the words of the
//! service's own codes are in [`ErrorCode`].

use std::time::Duration;

use crate::path::PathError;
use crate::wire::{ErrorCode, OpCode};

/// Why a request, or the client as a whole, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service answered with an error; the operation had no effect.
    #[error("{}: {code}", operation_at(*.operation, path))]
    Service {
        /// The service's code.
        code: ErrorCode,
        /// What was asked for.
        operation: OpCode,
        /// The znode, as the caller named it; empty where the operation has none.
        path: String,
    },
    /// One operation of a multi failed; none of them had any effect.
    #[error(
        "operation {} of the multi, {}: {code} (nothing of it was done)",
        index + 1, operation_at(*.operation, path)
    )]
    MultiFailed {
        /// Place of the failed operation in the multi, from 0.
        index: usize,
        /// The service's code.
        code: ErrorCode,
        /// What the failed operation was.
        operation: OpCode,
        /// Its znode, as the caller named it.
        path: String,
    },
    /// The connection was lost while a write was on its way.
    #[error(
        "{}: the connection was lost before the reply ({reason}), so the outcome is unknown: \
         look at the znode before trying again", operation_at(*.operation, path)
    )]
    ConnectionLoss {
        /// What was asked for.
        operation: OpCode,
        /// The znode, as the caller named it.
        path: String,
        /// Why the connection was lost.
        reason: String,
    },
    /// No server could be reached for as long as the session timeout; the request was never sent.
    #[error(
        "{}: no server could be reached for {:.1} s (last: {reason}); nothing was done",
        operation_at(*.operation, path), waited.as_secs_f64()
    )]
    TimedOut {
        /// What was asked for.
        operation: OpCode,
        /// The znode, as the caller named it.
        path: String,
        /// How long the client has been without a connection.
        waited: Duration,
        /// Why the last attempt failed.
        reason: String,
    },
    /// The service ended the session: its ephemeral znodes and watches are gone.
    #[error("the session expired: its ephemeral znodes and watches are gone; open a new one")]
    SessionExpired,
    /// The service refused a credential; the session is of no use any more.
    #[error("authentication failed: the service refused a credential of scheme '{scheme}'")]
    AuthFailed {
        /// The scheme of the refused credential.
        scheme: String,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The request would be refused by every server with its usual limit.
    #[error(
        "{}: a request of {length} bytes is over the limit of {limit} \
         (the servers' jute.maxbuffer)", operation_at(*.operation, path)
    )]
    RequestTooLarge {
        /// What was asked for.
        operation: OpCode,
        /// The znode, as the caller named it.
        path: String,
        /// Length of the encoded request in bytes.
        length: usize,
        /// Greatest allowed length in bytes.
        limit: usize,
    },
    /// The reply is longer than the client takes.
    #[error(
        "{}: the reply has {length} bytes, over this client's limit of {limit}",
        operation_at(*.operation, path)
    )]
    ReplyTooLarge {
        /// What was asked for.
        operation: OpCode,
        /// The znode, as the caller named it.
        path: String,
        /// Announced length of the reply in bytes.
        length: usize,
        /// Greatest length taken, in bytes.
        limit: usize,
    },
    /// The path cannot name a znode.
    #[error(transparent)]
    InvalidPath(#[from] PathError),
    /// The reply is not what the operation is answered with.
    #[error("{}: the server's reply makes no sense: {reason}", operation_at(*.operation, path))]
    UnexpectedReply {
        /// What was asked for.
        operation: OpCode,
        /// The znode, as the caller named it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No session could be opened on any server.
    #[error(
        "no ZooKeeper server answered within {:.1} s: {}", waited.as_secs_f64(),
        format_attempts(attempts)
    )]
    NoServer {
        /// How long it was tried.
        waited: Duration,
        /// Every address that was tried, with the reason why it failed last.
        attempts: Vec<(String, String)>,
    },
    /// The text is not a list of servers.
    #[error(
        "'{text}' does not name the servers: {reason} \
         (expected HOST[:PORT],…[/CHROOT], such as 10.0.0.1:2181,10.0.0.2:2181/app)"
    )]
    InvalidConnectString {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The service's code where the service answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Service { code, .. } | Error::MultiFailed { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the operation may have taken effect although it failed.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::ConnectionLoss { .. })
            || matches!(self, Error::Service { code: ErrorCode::ConnectionLoss, .. })
    }
}

fn operation_at(operation: OpCode, path: &str) -> String {
    if path.is_empty() { operation.name().into() } else { format!("{} {path}", operation.name()) }
}

fn format_attempts(attempts: &[(String, String)]) -> String {
    let attempts: Vec<_> =
        attempts.iter().map(|(address, reason)| format!("{address}: {reason}")).collect();
    attempts.join("; ")
}
