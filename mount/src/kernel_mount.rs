//! Makes and ends the kernel's side of a mount: opens /dev/fuse, mounts, tells which mount it is,
//! unmounts.
//!
//! `fuser` can mount too, but not for us: it shows no subtype when root mounts, gives up where a
//! user may not open /dev/fuse although fusermount3 may, opens the mountpoint (which never returns
//! on an automount point), and cannot try an unmount again after EBUSY. Serving the device is still
//! its work.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{getegid, geteuid};

use crate::mountpoint::FUSE_DEVICE;
use crate::options::Access;

/// What to mount.
#[derive(Debug, Clone)]
pub struct MountRequest {
    /// The directory, absolute and without symbolic links.
    pub mountpoint: PathBuf,
    /// The source shown in /proc/mounts.
    pub fsname: String,
    /// The type shown there is `fuse.` and this.
    pub subtype: String,
    /// Who may enter.
    pub access: Access,
    /// MS_NOEXEC.
    pub no_exec: bool,
}

/// Tells one mount from every other on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountIdentity {
    /// The mount's id: never used again since Linux 6.8, reused before.
    pub id: u64,
    /// The superblock's device number (major, minor), in use as long as anything holds the file
    /// system.
    pub device: (u32, u32),
}

/// Why a mount was not made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// /dev/fuse is there but cannot be opened.
    #[error("cannot open {FUSE_DEVICE}: {0} (is the kernel module loaded? try modprobe fuse)")]
    Device(io::Error),
    /// Neither mount(2) nor the helper is allowed.
    #[error("mounting on {} is not permitted, and fusermount3 was not found: install the package fuse3", .0.display())]
    NotPermitted(PathBuf),
    /// mount(2) said no.
    #[error("cannot mount on {}: {error}", mountpoint.display())]
    Refused {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// fusermount3 said no; its own words.
    #[error("{0}")]
    Helper(String),
    /// It was mounted, and could not be found again.
    #[error("the mount on {} vanished at once: {error}", mountpoint.display())]
    Vanished {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Why an unmount did not happen.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// EBUSY: open files, working directories, mounts below.
    #[error("it is busy: a process has files or its working directory there")]
    Busy,
    /// Not mounted, or not by us any more.
    #[error("it is not mounted any more")]
    NotMounted,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl MountIdentity {
    /// The identity of whatever is mounted on top at `path`, asking no file system: a dead or
    /// hanging one neither fails nor blocks this.
    ///
    /// # Errors
    /// What statx(2) says.
    pub fn at(path: &Path) -> io::Result<MountIdentity> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut found = MaybeUninit::<libc::statx>::zeroed();
        let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;
        // A kernel before 6.8 does not know the unique id and gives the short one without being
        // asked.
        let mask = libc::STATX_MNT_ID_UNIQUE;
        // SAFETY: `path` is a C string and `found` has room for one statx; both outlive the call.
        let result =
            unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: every bit pattern is a valid statx, and the call above filled it.
        let found = unsafe { found.assume_init() };
        Ok(MountIdentity {
            id: found.stx_mnt_id,
            device: (found.stx_dev_major, found.stx_dev_minor),
        })
    }
}

/// Asks the file system at `path` whether it answers: what the kernel has kept of it does not count.
///
/// # Errors
/// What statx(2) says: `ENOTCONN` for a FUSE mount whose process is gone.
pub fn look(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_STATX_FORCE_SYNC | libc::AT_NO_AUTOMOUNT;
    let mask = libc::STATX_BASIC_STATS;
    // SAFETY: `path` is a C string and `found` has room for one statx; both outlive the call.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl std::fmt::Display for MountIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.id, self.device.0, self.device.1)
    }
}

impl FromStr for MountIdentity {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().unwrap_or_default();
        Ok(MountIdentity { id: next().parse()?, device: (next().parse()?, next().parse()?) })
    }
}

/// Mounts, by mount(2) where that is permitted and through fusermount3 where it is not, and gives
/// the device that the file system is served through. Until it is served, whoever enters the mount
/// waits.
///
/// # Errors
/// Why it was not mounted. Nothing is left mounted then.
pub fn mount(request: &MountRequest) -> Result<OwnedFd, MountError> {
    match mount_directly(request) {
        Some(result) => result,
        None => mount_through_helper(request),
    }
}

/// `None` when this needs the privileges of fusermount3.
fn mount_directly(request: &MountRequest) -> Option<Result<OwnedFd, MountError>> {
    let device = match File::options().read(true).write(true).open(FUSE_DEVICE) {
        Ok(device) => OwnedFd::from(device),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(error) => return Some(Err(MountError::Device(error))),
    };
    let sharing = if request.access == Access::Owner { "" } else { ",allow_other" };
    let data = format!(
        "fd={},rootmode={:o},user_id={},group_id={}{sharing}",
        device.as_raw_fd(),
        libc::S_IFDIR,
        geteuid(),
        getegid()
    );
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_NOEXEC, request.no_exec);
    let kind = format!("fuse.{}", request.subtype);
    let result = nix::mount::mount(
        Some(request.fsname.as_str()),
        &request.mountpoint,
        Some(kind.as_str()),
        flags,
        Some(data.as_str()),
    );
    match result {
        Ok(()) => Some(Ok(device)),
        Err(Errno::EPERM) => None,
        Err(error) => {
            let mountpoint = request.mountpoint.clone();
            Some(Err(MountError::Refused { mountpoint, error: error.into() }))
        }
    }
}

/// fusermount3 sends the device back over a socket that it finds in `_FUSE_COMMFD`; here its
/// standard input.
fn mount_through_helper(request: &MountRequest) -> Result<OwnedFd, MountError> {
    let program =
        find_fusermount().ok_or_else(|| MountError::NotPermitted(request.mountpoint.clone()))?;
    let failed = |error: io::Error| MountError::Helper(format!("{}: {error}", program.display()));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut options = format!(
        "fsname={},subtype={},nosuid,nodev",
        escape_option(&request.fsname),
        escape_option(&request.subtype)
    );
    if request.no_exec {
        options.push_str(",noexec");
    }
    if request.access != Access::Owner {
        options.push_str(",allow_other");
    }
    let mut command = helper_command(&program);
    command.arg("-o").arg(options).arg("--").arg(&request.mountpoint);
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    let child = command.spawn().map_err(failed)?;
    // The command holds the helper's end too; without this the wait below would never see it close.
    drop(command);
    let device = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    match device {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(MountError::Helper(helper_message(&program, &output))),
        Err(error) => Err(failed(error)),
    }
}

/// `None` when the other end was closed without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok(None)
}

/// Unmounts what is at `mountpoint` if it is still the mount `identity`. `lazily`: out of sight at
/// once, gone when the last process has left it.
///
/// # Errors
/// [`UnmountError::Busy`] only when not `lazily`.
pub fn unmount(
    mountpoint: &Path,
    identity: MountIdentity,
    lazily: bool,
) -> Result<(), UnmountError> {
    match MountIdentity::at(mountpoint) {
        Ok(found) if found == identity => {}
        Ok(_) => return Err(UnmountError::NotMounted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(UnmountError::NotMounted);
        }
        Err(error) => return Err(UnmountError::Other(error.to_string())),
    }
    let mut flags = MntFlags::UMOUNT_NOFOLLOW;
    flags.set(MntFlags::MNT_DETACH, lazily);
    match nix::mount::umount2(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(UnmountError::Busy),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(UnmountError::NotMounted),
        Err(Errno::EPERM) => unmount_through_helper(mountpoint, lazily),
        Err(error) => Err(UnmountError::Other(error.to_string())),
    }
}

fn unmount_through_helper(mountpoint: &Path, lazily: bool) -> Result<(), UnmountError> {
    let program = find_fusermount().ok_or_else(|| {
        UnmountError::Other(String::from("fusermount3 was not found: install the package fuse3"))
    })?;
    let mut command = helper_command(&program);
    command.arg("-u").args(lazily.then_some("-z")).arg("--").arg(mountpoint);
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output.map_err(|e| UnmountError::Other(format!("{}: {e}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let message = helper_message(&program, &output);
    if message.to_lowercase().contains("busy") {
        Err(UnmountError::Busy)
    } else {
        Err(UnmountError::Other(message))
    }
}

/// A set-user-id program gets an environment with nothing in it that could bend it, and messages we
/// can read.
fn helper_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", FALLBACK_PATH).env("LC_ALL", "C").stderr(Stdio::piped());
    command
}

fn helper_message(program: &Path, output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim().replace('\n', "; ");
    if text.is_empty() { format!("{} failed: {}", program.display(), output.status) } else { text }
}

const FALLBACK_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin";

/// fusermount3, or the fusermount of libfuse 2, from PATH or from where distributions put it.
pub fn find_fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(std::env::split_paths(OsStr::new(FALLBACK_PATH)))
        .filter(|directory| directory.is_absolute())
        .collect();
    ["fusermount3", "fusermount"].iter().find_map(|name| {
        directories.iter().map(|directory| directory.join(name)).find(|program| {
            program
                .metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
    })
}

/// fusermount separates options by commas and takes a backslash before one that is meant.
fn escape_option(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_way_to_the_guard() {
        let identity = MountIdentity { id: u64::MAX, device: (0, 61) };
        assert_eq!(identity.to_string().parse(), Ok(identity));
        assert!("1:2".parse::<MountIdentity>().is_err());
        assert!("".parse::<MountIdentity>().is_err());
    }

    #[test]
    fn a_place_has_one_identity_and_another_mount_has_another() {
        let root = MountIdentity::at(Path::new("/")).unwrap();
        assert_eq!(MountIdentity::at(Path::new("/")).unwrap(), root);
        assert_ne!(MountIdentity::at(Path::new("/proc")).unwrap(), root);
    }

    #[test]
    fn what_is_not_our_mount_is_never_unmounted() {
        let directory = tempfile::tempdir().unwrap();
        let stranger = MountIdentity { id: 0, device: (0, 0) };
        for path in [directory.path(), &directory.path().join("missing")] {
            let result = unmount(path, stranger, true);
            assert!(matches!(result, Err(UnmountError::NotMounted)), "{result:?}");
        }
    }

    #[test]
    fn commas_in_a_server_list_do_not_end_the_option() {
        assert_eq!(escape_option("a:1,b:2"), "a:1\\,b:2");
        assert_eq!(escape_option("a\\b"), "a\\\\b");
    }
}
