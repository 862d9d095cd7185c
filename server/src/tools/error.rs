//! Why a tool refuses or fails, with the exit code that belongs to it. Messages name the thing, the
//! place and the way out.

use std::io;

use crate::persistence::file_disk::FileDiskError;
use crate::persistence::{DiskError, EpochError, SnapshotError, StorageError};

/// What ends a tool.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not do what it was asked for, or will not without another word from the user.
    #[error("{0}")]
    Failed(String),
    /// It was asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The data directory cannot be used.
    #[error("{0}")]
    DataDirectory(String),
    /// What came out could not be written; a reader that has gone is no failure.
    #[error("cannot write what was found: {0}")]
    Output(io::Error),
}

impl ToolError {
    /// The exit code of `znoded`.
    pub fn code(&self) -> u8 {
        match self {
            ToolError::Failed(_) => 1,
            ToolError::Usage(_) => 2,
            ToolError::DataDirectory(_) => 3,
            ToolError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            ToolError::Output(_) => 1,
        }
    }
}

impl From<DiskError> for ToolError {
    fn from(error: DiskError) -> ToolError {
        ToolError::DataDirectory(error.to_string())
    }
}

impl From<SnapshotError> for ToolError {
    fn from(error: SnapshotError) -> ToolError {
        ToolError::DataDirectory(error.to_string())
    }
}

impl From<EpochError> for ToolError {
    fn from(error: EpochError) -> ToolError {
        ToolError::DataDirectory(error.to_string())
    }
}

impl From<StorageError> for ToolError {
    fn from(error: StorageError) -> ToolError {
        ToolError::DataDirectory(error.to_string())
    }
}

impl From<FileDiskError> for ToolError {
    fn from(error: FileDiskError) -> ToolError {
        let message = match error {
            FileDiskError::Locked { path, holder } => {
                format!("{} is in use by process {holder}: stop it first", path.display())
            }
            other => other.to_string(),
        };
        ToolError::DataDirectory(message)
    }
}

impl From<io::Error> for ToolError {
    fn from(error: io::Error) -> ToolError {
        ToolError::Output(error)
    }
}
