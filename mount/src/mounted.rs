//! A mount from its start to its end: options, the kernel session and its thread, unmounting.
//!
//! What the file system does lives in `filesystem`; the command line, the background start and the
//! guard process live in the binary's modules.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::MntFlags;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::events::EventStream;
use crate::filesystem::Filesystem;
use crate::fuse::Adapter;
use crate::kernel_notify::KernelNotifier;
use crate::replay::ReplayHelper;
use crate::replayer;
use crate::service::Service;

/// How many bytes of values a mount keeps in its process when nobody says otherwise.
pub const CACHED_BYTES_MAX_DEFAULT: usize = 64 << 20;

/// How a tree is shown and who may use it.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Owner of every file; the mounting user when `None`.
    pub uid: Option<u32>,
    /// Group of every file; the mounting user's group when `None`.
    pub gid: Option<u32>,
    /// Permission bits never shown, as in `umask=022`; none when `None`.
    pub umask: Option<u16>,
    /// Refuse every change with EROFS. Never passed to the kernel.
    pub read_only: bool,
    /// Refuse a chmod or chown that cannot be stored with EPERM instead of ignoring it.
    pub strict_chmod: bool,
    /// Every user may use the mount.
    pub allow_other: bool,
    /// Root may use the mount beside its owner.
    pub allow_root: bool,
    /// The identities that the session proved, as (scheme, id) of an ACL entry: for the digest
    /// scheme `("digest", znodefs::acl::digest_id("user:password"))`. Not empty means that the
    /// mount has credentials: chmod then edits the ACL.
    pub identities: Vec<(String, String)>,
    /// Let the kernel and this process keep what servers have answered, as long as they tell of
    /// changes.
    pub cache: bool,
    /// How many bytes of values are kept in this process at most.
    pub cached_bytes_max: usize,
    /// The source shown by mount(8) and df(1): the host list.
    pub fs_name: String,
    /// Flags for the kernel (`nosuid`, `nodev`, `noexec`, `noatime`, `auto_unmount`, …). Neither
    /// `ro` nor `default_permissions` may be among them: the handlers enforce both.
    pub kernel_options: Vec<fuser::MountOption>,
}

impl MountOptions {
    /// The defaults: the mounting user's own files, read-write, for that user alone.
    pub fn new(fs_name: impl Into<String>) -> MountOptions {
        MountOptions {
            uid: None,
            gid: None,
            umask: None,
            read_only: false,
            strict_chmod: false,
            allow_other: false,
            allow_root: false,
            identities: Vec::new(),
            cache: true,
            cached_bytes_max: CACHED_BYTES_MAX_DEFAULT,
            fs_name: fs_name.into(),
            kernel_options: Vec::new(),
        }
    }

    fn config(&self) -> fuser::Config {
        let mut config = fuser::Config::default();
        config.mount_options = vec![
            fuser::MountOption::FSName(self.fs_name.clone()),
            fuser::MountOption::Subtype("znodefs".into()),
        ];
        config.mount_options.extend(self.kernel_options.iter().cloned());
        config.acl = match (self.allow_other, self.allow_root) {
            (true, _) => fuser::SessionACL::All,
            (false, true) => fuser::SessionACL::RootAndOwner,
            (false, false) => fuser::SessionACL::Owner,
        };
        // One thread keeps the kernel's order (a release before the open behind it); every handler
        // that would wait goes to a task.
        config.n_threads = Some(1);
        config
    }
}

/// Why a tree could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel, or fusermount3, refused the mount.
    #[error("cannot mount on {}: {source}", mountpoint.display())]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel, or fusermount3, refused the unmount.
    #[error("cannot unmount {}: {source}", mountpoint.display())]
    Unmount {
        /// Where.
        mountpoint: PathBuf,
        /// Why; `ResourceBusy` while files are open or a process works in it.
        source: io::Error,
    },
}

/// What a mount needs to tell programs here of changes made elsewhere.
pub struct Watching {
    /// What the session's sink delivers to, and its service is observed by.
    pub events: Arc<EventStream>,
    /// The helper, which was started before the mount was made.
    pub helper: ReplayHelper,
}

/// A mounted tree. Dropping it unmounts, detaching when it is in use.
pub struct Mounted {
    mountpoint: PathBuf,
    served: Served,
}

/// A tree that is served to the kernel until it is unmounted; whoever mounted it unmounts it.
pub struct Served {
    finished: watch::Receiver<bool>,
    filesystem: Arc<Filesystem>,
}

/// Mounts a session's tree on a directory and serves it from a thread of its own and the tasks of
/// `runtime`. When it returns, the mount works.
pub fn mount(
    service: Arc<dyn Service>,
    options: MountOptions,
    mountpoint: &Path,
    runtime: Handle,
) -> Result<Mounted, MountError> {
    let failed = |source| MountError::Mount { mountpoint: mountpoint.to_path_buf(), source };
    let config = options.config();
    let mountpoint = mountpoint.canonicalize().map_err(failed)?;
    let failed = |source| MountError::Mount { mountpoint: mountpoint.clone(), source };
    let filesystem = Arc::new(Filesystem::new(service, &options));
    let adapter = Adapter::new(filesystem.clone(), runtime.clone());
    let session = fuser::Session::new(adapter, &mountpoint, &config).map_err(failed)?;
    let served = Served::start(session, filesystem, runtime).map_err(failed)?;
    Ok(Mounted { mountpoint, served })
}

/// As [`mount()`], for a mount that was made already and that the caller unmounts: `device` is its
/// open `/dev/fuse`. Options that only concern the kernel have no effect here. Without `watching`,
/// programs here hear nothing of changes made elsewhere, and the kernel caches nothing.
///
/// # Errors
/// When the kernel does not shake hands over the device.
pub fn serve(
    service: Arc<dyn Service>,
    options: MountOptions,
    device: OwnedFd,
    runtime: Handle,
    watching: Option<Watching>,
) -> io::Result<Served> {
    let config = options.config();
    let filesystem = Arc::new(Filesystem::new(service, &options));
    let caches = options.cache && watching.is_some();
    if let Some(Watching { events, helper }) = watching {
        filesystem.start_replay(helper, KernelNotifier::new(device.try_clone()?));
        events.attach(&filesystem);
    }
    let adapter = Adapter::new(filesystem.clone(), runtime.clone());
    let session = fuser::Session::from_fd(adapter, device, config.acl, config)?;
    if caches {
        filesystem.start_caching();
    }
    Served::start(session, filesystem, runtime)
}

impl Served {
    fn start(
        session: fuser::Session<Adapter>,
        filesystem: Arc<Filesystem>,
        runtime: Handle,
    ) -> io::Result<Served> {
        let (finish, finished) = watch::channel(false);
        let served = Served { finished, filesystem: filesystem.clone() };
        let replaying = filesystem.replay_helper().is_some();
        let replaying = replaying.then(|| runtime.spawn(replayer::run(filesystem.clone())));
        std::thread::Builder::new().name("fuse".into()).spawn(move || {
            if let Err(error) = session.run() {
                tracing::error!(%error, "the kernel's connection ended with an error");
            }
            if let Some(replaying) = replaying {
                replaying.abort();
            }
            // What the last close of a file has left is committed before anyone may leave.
            runtime.block_on(filesystem.settle());
            finish.send_replace(true);
        })?;
        Ok(served)
    }

    /// Ends replay, so that nothing of this mount's keeps it from being unmounted.
    pub async fn stop_replay(&self) {
        if let Some(helper) = self.filesystem.replay_helper() {
            helper.stop().await;
        }
    }

    /// Waits until the mount has ended: it was unmounted and nothing uses it any more.
    pub async fn finished(&self) {
        let mut finished = self.finished.clone();
        // An error means that the thread is gone, which is the same answer.
        let _ = finished.wait_for(|finished| *finished).await;
    }

    /// Whether the mount has ended.
    pub fn is_finished(&self) -> bool {
        *self.finished.borrow() || self.finished.has_changed().is_err()
    }
}

impl Mounted {
    /// Where it is mounted: absolute, without symbolic links.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Waits until the mount has ended, by [`Mounted::unmount`] or by umount(8).
    pub async fn finished(&self) {
        self.served.finished().await;
    }

    /// Whether the mount has ended.
    pub fn is_finished(&self) -> bool {
        self.served.is_finished()
    }

    /// Unmounts. With `detach` a mount in use disappears at once and ends when its last user does;
    /// without, it stays and the error is `ResourceBusy`. Blocks for a moment.
    pub fn unmount(&self, detach: bool) -> Result<(), MountError> {
        if self.is_finished() {
            return Ok(());
        }
        let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        let result = match nix::mount::umount2(&self.mountpoint, flags) {
            Ok(()) => Ok(()),
            // Only root may call umount itself; everybody else asks the helper.
            Err(Errno::EPERM) => self.unmount_by_helper(detach),
            Err(errno) => Err(errno.into()),
        };
        result.map_err(|source| MountError::Unmount { mountpoint: self.mountpoint.clone(), source })
    }

    fn unmount_by_helper(&self, detach: bool) -> io::Result<()> {
        let mut command = std::process::Command::new("fusermount3");
        command.arg("-u");
        if detach {
            command.arg("-z");
        }
        let output = command.arg("--").arg(&self.mountpoint).output()?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
        let kind = if message.contains("busy") {
            io::ErrorKind::ResourceBusy
        } else {
            io::ErrorKind::Other
        };
        Err(io::Error::new(kind, message))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount(true) {
            tracing::warn!("{error}");
        }
    }
}
