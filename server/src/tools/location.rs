//! Where a replica's data are: from what the user names, a directory or a configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ToolError;
use super::holder::holder;
use crate::config::ServerConfig;
use crate::persistence::file_disk::{DIRECTORY_NAME, apache_directory};
use crate::persistence::{Disk, FileDisk};

/// A replica's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Its dataDir.
    pub data_dir: PathBuf,
    /// Its dataLogDir, where the log has a directory of its own.
    pub log_dir: Option<PathBuf>,
    /// The replica's number, where a configuration says it.
    pub replica_id: Option<u64>,
}

/// The disks of a location.
#[derive(Clone)]
pub struct LocationDisks {
    /// Identity, epochs, snapshots.
    pub data: Arc<dyn Disk>,
    /// The log; may be the same.
    pub log: Arc<dyn Disk>,
}

impl Location {
    /// What `path` names: a dataDir, the directory inside it, or a zoo.cfg. It must hold data.
    pub fn find(path: &Path, log_dir: Option<&Path>) -> Result<Location, ToolError> {
        let mut location = Location::named(path)?;
        if let Some(log_dir) = log_dir {
            location.log_dir = Some(log_dir.to_owned());
        }
        let is_same = |log_dir: &PathBuf| {
            matches!(
                (log_dir.canonicalize(), location.data_dir.canonicalize()),
                (Ok(log), Ok(data)) if log == data
            )
        };
        if location.log_dir.as_ref().is_some_and(is_same) {
            location.log_dir = None;
        }
        for directory in [Some(&location.data_dir), location.log_dir.as_ref()].into_iter().flatten()
        {
            let ours = directory.join(DIRECTORY_NAME);
            if let Err(error) = std::fs::read_dir(&ours) {
                return Err(unreadable(directory, &ours, &error));
            }
        }
        Ok(location)
    }

    /// What `path` names, whether there are data or not.
    pub fn named(path: &Path) -> Result<Location, ToolError> {
        let alone = |data_dir: &Path| Location {
            data_dir: data_dir.to_owned(),
            log_dir: None,
            replica_id: None,
        };
        match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                let config = ServerConfig::load(path)
                    .map_err(|error| ToolError::Usage(error.to_string()))?
                    .config;
                Ok(Location {
                    data_dir: config.data_dir,
                    log_dir: config.data_log_dir,
                    replica_id: Some(u64::from(config.server_id.0)),
                })
            }
            Ok(_) => {
                let is_inner = path.file_name().is_some_and(|name| name == DIRECTORY_NAME);
                Ok(alone(path.parent().filter(|_| is_inner).unwrap_or(path)))
            }
            Err(error) => {
                let path = path.display();
                let message = format!("{path}: {error}; name a dataDir or a configuration file");
                Err(ToolError::DataDirectory(message))
            }
        }
    }

    /// Where identity, epochs and snapshots are.
    pub fn data_path(&self) -> PathBuf {
        self.data_dir.join(DIRECTORY_NAME)
    }

    /// Where the log is.
    pub fn log_path(&self) -> PathBuf {
        self.log_dir.as_ref().unwrap_or(&self.data_dir).join(DIRECTORY_NAME)
    }

    /// The disks, for looking only.
    pub fn read_only(&self) -> LocationDisks {
        LocationDisks {
            data: Arc::new(FileDisk::look_at(self.data_path())),
            log: Arc::new(FileDisk::look_at(self.log_path())),
        }
    }

    /// The disks, locked against every other process for as long as they live.
    pub fn locked(&self) -> Result<LocationDisks, ToolError> {
        let data: Arc<dyn Disk> = Arc::new(FileDisk::open(&self.data_dir)?);
        let log = match &self.log_dir {
            Some(log_dir) => Arc::new(FileDisk::open(log_dir)?),
            None => Arc::clone(&data),
        };
        Ok(LocationDisks { data, log })
    }

    /// The process that uses the data now.
    pub fn holder(&self) -> Option<String> {
        holder(&self.data_path()).or_else(|| holder(&self.log_path()))
    }

    /// The location as arguments of a command.
    pub fn as_arguments(&self) -> String {
        let data_dir = self.data_dir.display();
        match &self.log_dir {
            Some(log_dir) => format!("--log-dir {} {data_dir}", log_dir.display()),
            None => data_dir.to_string(),
        }
    }
}

fn unreadable(directory: &Path, ours: &Path, error: &std::io::Error) -> ToolError {
    let shown = directory.display();
    let message = match apache_directory(directory) {
        _ if error.kind() != std::io::ErrorKind::NotFound => {
            format!("{}: {error}; run this as a user that may read it", ours.display())
        }
        Some(apache) => format!(
            "{shown} holds no data of znodefs, but those of Apache ZooKeeper in {}; its own tools \
             read them",
            apache.display()
        ),
        None => format!("{shown} holds no data of znodefs: there is no {DIRECTORY_NAME} in it"),
    };
    ToolError::DataDirectory(message)
}
