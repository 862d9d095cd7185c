//! What can be wrong with the transaction log. Messages name the file, the place and the way out.

use std::path::PathBuf;

use znodefs::Zxid;

use super::disk::DiskError;
use super::file_header::WrongFile;

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed. What a failed write or sync covered is unknown, so the log takes nothing
    /// more ([`LogError::Poisoned`]).
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No room for more; nothing of the batch is in the log, and it can be tried again.
    #[error("the disk of {} is full, {needed} bytes more are needed: make room there and write again", path.display())]
    DiskFull {
        /// The log's directory.
        path: PathBuf,
        /// What the batch needs in bytes.
        needed: u64,
    },
    /// Records that were once durable are no longer there. Serving without them would break what
    /// was promised to clients.
    #[error(
        "{} is damaged at byte {offset}: {reason}; look with `znoded inspect`, then run `znoded repair`, or \
         empty the dataDir to have it brought up to date by the other replicas, or restore a backup",
        file.display()
    )]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Of another version or another ensemble.
    #[error(transparent)]
    WrongFile(#[from] WrongFile),
    /// The log begins later than what was asked for.
    #[error("the log begins behind {base}, it does not reach back to {asked}")]
    NotReachingBack {
        /// The last transaction that is no longer in the log.
        base: Zxid,
        /// From where it was to be read, or to where cut.
        asked: Zxid,
    },
    /// A transaction that cannot come here; the caller is wrong, the log is as it was.
    #[error("transaction {zxid} cannot follow {last} in the log")]
    OutOfOrder {
        /// The newest transaction.
        last: Zxid,
        /// The one that was to be appended.
        zxid: Zxid,
    },
    /// A transaction longer than any record; the log is as it was.
    #[error("transaction {zxid} has {length} bytes, more than a log record may have")]
    TooLong {
        /// The transaction.
        zxid: Zxid,
        /// Its length in bytes.
        length: usize,
    },
    /// An earlier failure left it unknown what is on the disk; only a new start can tell.
    #[error("the log takes nothing more after an earlier failure ({0}): restart the replica")]
    Poisoned(String),
}

impl LogError {
    /// Whether the log goes on working, once there is room or the caller does better.
    pub fn is_recoverable(&self) -> bool {
        matches!(
            self,
            LogError::DiskFull { .. }
                | LogError::OutOfOrder { .. }
                | LogError::TooLong { .. }
                | LogError::NotReachingBack { .. }
        )
    }
}
