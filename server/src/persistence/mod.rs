//! What survives: the transaction log, snapshots, epochs, identity, on a disk behind a trait. No
//! tree, no sessions, no network: transactions and snapshot blocks are bytes here.
//!
//! [`Storage`] opens everything at a start; [`LogThread`]
//! makes transactions durable afterwards.

pub mod committed_file;
pub mod disk;
pub mod epoch_file;
pub mod file_disk;
pub mod file_header;
pub mod log_error;
pub mod log_format;
pub mod log_index;
pub mod log_reader;
pub(crate) mod log_recovery;
pub mod log_thread;
pub mod memory_disk;
pub mod purge;
pub mod small_file;
pub mod snapshot;
pub mod snapshot_files;
pub mod storage;
pub mod txn_log;

pub use committed_file::{Committed, CommittedFile};
pub use disk::{Disk, DiskError, DiskFile};
pub use epoch_file::{EpochError, EpochFiles, ReplicaIdentity};
pub use file_disk::FileDisk;
pub use file_header::EnsembleId;
pub use log_error::LogError;
pub use log_reader::{LogCursor, LogReader};
pub use log_thread::{LogEvent, LogHandle, LogThread, LogThreadError, LogWorker};
pub use memory_disk::MemoryDisk;
pub use purge::purge;
pub use snapshot::{SnapshotError, SnapshotInfo, SnapshotReader, SnapshotWriter};
pub use snapshot_files::SnapshotFiles;
pub use storage::{Storage, StorageError, StorageOptions, StorageParts};
pub use txn_log::{LogOptions, TxnLog};

#[cfg(test)]
mod tests;
