//! From a command line to a plan: every check that can be made before anything is changed, every
//! path made absolute, every secret read. What passes here fails later only because the world
//! changed or a server is not there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};
use znodefs::{Credential, CredentialsError};

use crate::cli::{Invocation, Source};
use crate::kernel_mount::MountRequest;
use crate::logging::{LogTarget, open_log_file};
use crate::mountpoint::{self, MountpointError};

/// A mount that can be made, as far as this machine is concerned.
#[derive(Debug)]
pub struct Plan {
    /// The command line, its paths made absolute and the mountpoint without symbolic links.
    pub invocation: Invocation,
    /// What to present to the servers.
    pub credentials: Vec<Credential>,
    /// Where log lines go.
    pub log: LogTarget,
}

/// Why a mount is not even tried. Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The mountpoint or the system will not take a mount.
    #[error(transparent)]
    Mountpoint(#[from] MountpointError),
    /// The credentials file cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The log file or the pid file cannot be written.
    #[error("{what} {}: {error}", path.display())]
    Unwritable {
        /// `log file` or `pid file`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The mount would wait for itself.
    #[error(
        "{what} {} is inside the mountpoint: the mount would hide it and wait for itself; \
         choose another place",
        path.display()
    )]
    InsideMountpoint {
        /// What lies there.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// A data directory that is there and cannot be used.
    #[error("data directory {}: {reason}", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
}

impl Plan {
    /// Checks everything. Changes nothing but for creating an empty log file.
    ///
    /// # Errors
    /// The first thing that stands in the way.
    pub fn new(mut invocation: Invocation) -> Result<Plan, PlanError> {
        mountpoint::check_system(invocation.options.access)?;
        let written = &invocation.mountpoint;
        invocation.mountpoint = mountpoint::check_mountpoint(written, &invocation.options)?;
        let inside = |what: &'static str, path: &Path| match lies_in(path, &invocation.mountpoint) {
            true => Err(PlanError::InsideMountpoint { what, path: path.to_owned() }),
            false => Ok(()),
        };
        if let Source::Embedded { directory, .. } = &mut invocation.source {
            *directory = absolute(directory);
            inside("data directory", directory)?;
            check_data_directory(directory)?;
        }
        if let Some(path) = &mut invocation.pid_file {
            *path = absolute(path);
            inside("pid file", path)?;
            let parent = path.parent().unwrap_or(Path::new("/"));
            access(parent, AccessFlags::W_OK).map_err(|error| PlanError::Unwritable {
                what: "pid file",
                path: path.clone(),
                error: error.into(),
            })?;
        }
        let log = match &invocation.options.log_file {
            Some(path) => {
                let path = absolute(path);
                inside("log file", &path)?;
                let unwritable = |error| {
                    let path = path.clone();
                    PlanError::Unwritable { what: "log file", path, error }
                };
                drop(open_log_file(&path).map_err(unwritable)?);
                LogTarget::File(path)
            }
            None if invocation.foreground => LogTarget::StandardError,
            None => LogTarget::Syslog,
        };
        let credentials = match &invocation.options.credentials {
            Some(path) => read_credentials(path)?,
            None => Vec::new(),
        };
        Ok(Plan { invocation, credentials, log })
    }

    /// The kernel's part of it; `servers` is what /proc/mounts shows as the source unless
    /// `fsname=` says otherwise.
    pub fn mount_request(&self, servers: &str) -> MountRequest {
        let options = &self.invocation.options;
        MountRequest {
            mountpoint: self.invocation.mountpoint.clone(),
            fsname: options.fsname.clone().unwrap_or_else(|| servers.to_owned()),
            subtype: options.subtype.clone(),
            access: options.access,
            no_exec: options.no_exec,
        }
    }
}

/// The process will change its directory, and the mountpoint's files may be gone by then.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether `path`, which need not exist, lies in `directory` (without symbolic links).
fn lies_in(path: &Path, directory: &Path) -> bool {
    let existing = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(fs::canonicalize(ancestor).ok()?.join(rest))
    });
    existing.is_some_and(|path| path.starts_with(directory))
}

fn check_data_directory(path: &Path) -> Result<(), PlanError> {
    let refused = |reason: String| PlanError::DataDirectory { path: path.to_owned(), reason };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error.to_string())),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(refused(String::from("it is not a directory: name another")));
        }
        Ok(_) => {}
    }
    let wanted = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    access(path, wanted).map_err(|error| {
        refused(format!("{}: name a directory that you can read and write", error.desc()))
    })
}

/// Reads a file that nobody else may read: a mount outlives whoever looks at it.
fn read_credentials(path: &Path) -> Result<Vec<Credential>, CredentialsError> {
    let refused = |reason: String| CredentialsError::new(path, reason);
    // A fifo that nobody writes to must hold nobody up: it is refused below.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| refused(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refused(String::from("it is not a file")));
    }
    let shown = path.display();
    if metadata.permissions().mode() & 0o077 != 0 {
        let mode = metadata.permissions().mode() & 0o777;
        return Err(refused(format!(
            "others than its owner have access to it (mode {mode:03o}): run chmod 600 {shown}"
        )));
    }
    if metadata.uid() != geteuid().as_raw() && metadata.uid() != 0 {
        return Err(refused(format!("it belongs to another user: run chown $USER {shown}")));
    }
    Credential::read(path, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        fs::write(&path, "digest:alice:pw\n").unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = read_credentials(&path).unwrap_err().to_string();
            assert!(message.contains("chmod 600") && !message.contains("alice"), "{message}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let identity = read_credentials(&path).unwrap()[0].identity();
        assert_eq!(identity, ("digest".into(), znodefs::acl::digest_id("alice:pw")));
        let message = read_credentials(&directory.path().join("none")).unwrap_err().to_string();
        assert!(message.contains("none: No such file"), "{message}");
    }

    #[test]
    fn what_the_mount_would_hide_is_seen_through_links_and_missing_names() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("mnt")).unwrap();
        std::os::unix::fs::symlink(root.join("mnt"), root.join("link")).unwrap();
        assert!(lies_in(&root.join("mnt/data/new"), &root.join("mnt")));
        assert!(lies_in(&root.join("link/data"), &root.join("mnt")));
        assert!(!lies_in(&root.join("mnt2/data"), &root.join("mnt")));
    }
}
