//! Looks at the place a mount is to go before anything is touched, so that each mistake gets one
//! clear line.
//!
//! Nothing here mounts. An automount point (systemd's `x-systemd.automount`) is never opened:
//! opening it would wait for the very mount that is being made.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, geteuid};

use crate::kernel_mount;
use crate::kernel_mount::find_fusermount;
use crate::options::{Access, Options};

/// The device that FUSE file systems are served through.
pub const FUSE_DEVICE: &str = "/dev/fuse";
/// What fusermount3 reads; `user_allow_other` in it lets users share their mounts.
const FUSE_CONFIGURATION: &str = "/etc/fuse.conf";

/// Why a mount cannot be made here. Each says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    /// The empty text.
    #[error("the mountpoint is empty: name an empty directory")]
    Empty,
    /// ENOENT.
    #[error("mountpoint {path} does not exist: create it with mkdir -p {path}", path = .0.display())]
    Missing(PathBuf),
    /// A file, a device, a socket.
    #[error("mountpoint {} is not a directory: name an empty directory", .0.display())]
    NotADirectory(PathBuf),
    /// Entries would be hidden below the mount.
    #[error(
        "mountpoint {} is not empty (it has {entry:?}): name an empty directory, or hide what is there with -o nonempty",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The first of its entries.
        entry: OsString,
    },
    /// ENOTCONN: a FUSE mount whose process is gone.
    #[error(
        "mountpoint {path} is a stale mount whose process is gone: remove it with fusermount3 -u {path} \
         (as root: umount -l {path})",
        path = .0.display()
    )]
    Stale(PathBuf),
    /// A znodefs mount is there already.
    #[error(
        "{place} is already a znodefs mount (of {source_name}): unmount it first with fusermount3 -u {place}",
        place = path.display()
    )]
    AlreadyMounted {
        /// The directory.
        path: PathBuf,
        /// What /proc/self/mountinfo shows as its source.
        source_name: String,
    },
    /// A user may only mount over what is theirs.
    #[error("mountpoint {} is not writable for you: name a directory of your own", .0.display())]
    NotWritable(PathBuf),
    /// Any other error of looking at it.
    #[error("mountpoint {}: {error}", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The kernel has no FUSE, or the container was not given it.
    #[error(
        "{} does not exist: load the kernel module with modprobe fuse (in a container: start it with \
         --device /dev/fuse --cap-add SYS_ADMIN)",
        .0.display()
    )]
    NoDevice(PathBuf),
    /// Something else has that name.
    #[error("{path} is not the FUSE device: restore it with mknod -m 666 {path} c 10 229", path = .0.display())]
    NotADevice(PathBuf),
    /// fusermount3 opens it with the user's own rights.
    #[error(
        "{path} is closed to you: mount as root, or let root open it to all users with \
         chmod 666 {path}, as udev does",
        path = .0.display()
    )]
    DeviceClosed(PathBuf),
    /// Users mount through a set-user-id helper.
    #[error(
        "fusermount3 was not found, and only root mounts without it: install the package fuse3"
    )]
    NoFusermount,
    /// fusermount3 would refuse.
    #[error(
        "-o {option} is refused to users: ask root to put the line user_allow_other into \
         {FUSE_CONFIGURATION}, or mount as root"
    )]
    SharingNotAllowed {
        /// `allow_other` or `allow_root`.
        option: &'static str,
    },
}

/// One line of /proc/self/mountinfo, as far as we need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Its type, such as `fuse.znodefs`.
    pub kind: String,
    /// Its source, such as the server list.
    pub source_name: String,
}

/// Reads the text of /proc/self/mountinfo (proc_pid_mountinfo(5)); lines that make no sense are
/// passed over.
pub fn parse_mountinfo(text: &str) -> Vec<MountEntry> {
    text.lines().filter_map(parse_mountinfo_line).collect()
}

fn parse_mountinfo_line(line: &str) -> Option<MountEntry> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind_words = kind.split(' ');
    Some(MountEntry {
        mountpoint: PathBuf::from(OsString::from_vec(unescape(place.split(' ').nth(4)?))),
        kind: kind_words.next()?.to_owned(),
        source_name: String::from_utf8_lossy(&unescape(kind_words.next()?)).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(word: &str) -> Vec<u8> {
    let bytes = word.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'\\')
            .then(|| word.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// What is mounted on top at exactly `path`, if anything is. `path` is absolute and without
/// symbolic links.
pub fn mounted_at(path: &Path) -> Option<MountEntry> {
    let text = fs::read("/proc/self/mountinfo").ok()?;
    let entries = parse_mountinfo(&String::from_utf8_lossy(&text));
    entries.into_iter().rfind(|entry| entry.mountpoint == path)
}

/// Checks that a mount can go to `path` and gives the path without symbolic links.
///
/// # Errors
/// The first thing that stands in the way.
pub fn check_mountpoint(path: &Path, options: &Options) -> Result<PathBuf, MountpointError> {
    if path.as_os_str().is_empty() {
        return Err(MountpointError::Empty);
    }
    // The statx(2) of fs::metadata would set off an automount point.
    kernel_mount::look(path).map_err(|error| not_there(path, error))?;
    let found = nix::sys::stat::stat(path).map_err(|error| not_there(path, error.into()))?;
    if found.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(MountpointError::NotADirectory(path.to_owned()));
    }
    let path = fs::canonicalize(path).map_err(|error| not_there(path, error))?;
    let mounted = mounted_at(&path);
    if let Some(entry) = &mounted
        && entry.kind == format!("fuse.{}", options.subtype)
    {
        let source_name = entry.source_name.clone();
        return Err(MountpointError::AlreadyMounted { path, source_name });
    }
    if mounted.is_some_and(|entry| entry.kind == "autofs") {
        return Ok(path);
    }
    if !geteuid().is_root() && access(&path, AccessFlags::W_OK).is_err() {
        return Err(MountpointError::NotWritable(path));
    }
    if !options.allow_nonempty {
        let unreadable = |error| MountpointError::Unreadable { path: path.clone(), error };
        if let Some(entry) = fs::read_dir(&path).map_err(unreadable)?.next() {
            let entry = entry.map_err(unreadable)?.file_name();
            return Err(MountpointError::NotEmpty { path, entry });
        }
    }
    Ok(path)
}

fn not_there(path: &Path, error: io::Error) -> MountpointError {
    let path = path.to_owned();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => MountpointError::Missing(path),
        Some(Errno::ENOTDIR) => MountpointError::NotADirectory(path),
        Some(Errno::ENOTCONN) => MountpointError::Stale(path),
        _ => MountpointError::Unreadable { path, error },
    }
}

/// Checks that this user can mount at all, with the sharing that is asked for.
///
/// # Errors
/// What is missing, and how to get it.
pub fn check_system(access: Access) -> Result<(), MountpointError> {
    check_device(Path::new(FUSE_DEVICE))?;
    if geteuid().is_root() {
        return Ok(());
    }
    if nix::unistd::access(FUSE_DEVICE, AccessFlags::R_OK | AccessFlags::W_OK).is_err() {
        return Err(MountpointError::DeviceClosed(PathBuf::from(FUSE_DEVICE)));
    }
    if find_fusermount().is_none() {
        return Err(MountpointError::NoFusermount);
    }
    let option = match access {
        Access::Owner => return Ok(()),
        Access::OwnerAndRoot => "allow_root",
        Access::Everyone => "allow_other",
    };
    // An unreadable file is fusermount3's to judge: it runs as root.
    match fs::read_to_string(FUSE_CONFIGURATION) {
        Ok(text) if !allows_sharing(&text) => Err(MountpointError::SharingNotAllowed { option }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(MountpointError::SharingNotAllowed { option })
        }
        _ => Ok(()),
    }
}

fn allows_sharing(configuration: &str) -> bool {
    configuration.lines().any(|line| line.trim() == "user_allow_other")
}

fn check_device(device: &Path) -> Result<(), MountpointError> {
    match fs::metadata(device) {
        Ok(metadata) if metadata.file_type().is_char_device() => Ok(()),
        Ok(_) => Err(MountpointError::NotADevice(device.to_owned())),
        Err(_) => Err(MountpointError::NoDevice(device.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &Path) -> Result<PathBuf, String> {
        check_mountpoint(path, &Options::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_directory_is_taken_without_its_symbolic_links() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, directory.path().join("link")).unwrap();
        assert_eq!(
            check(&directory.path().join("link")).unwrap(),
            fs::canonicalize(&real).unwrap()
        );
    }

    #[test]
    fn each_wrong_mountpoint_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert!(check(&missing).unwrap_err().contains("mkdir -p"));
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(check(&file).unwrap_err().contains("is not a directory"));
        assert!(check(&file.join("below")).unwrap_err().contains("is not a directory"));
        let message = check(directory.path()).unwrap_err();
        assert!(message.contains("is not empty (it has \"file\")"), "{message}");
        assert!(message.contains("-o nonempty"), "{message}");
        let options = Options { allow_nonempty: true, ..Options::default() };
        check_mountpoint(directory.path(), &options).unwrap();
    }

    #[test]
    fn a_missing_or_wrong_device_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("fuse");
        assert!(check_device(&device).unwrap_err().to_string().contains("modprobe fuse"));
        fs::write(&device, "").unwrap();
        assert!(check_device(&device).unwrap_err().to_string().contains("mknod"));
    }

    #[test]
    fn mountinfo_is_read_with_its_escapes_and_optional_fields() {
        let text = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 shared:7 - ext4 /dev/root rw\n\
                    nonsense\n\
                    41 36 0:52 / /tree rw,nosuid - fuse.znodefs a:1,b:2/x\\134y rw,user_id=0\n";
        let entries = parse_mountinfo(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].mountpoint, Path::new("/mnt two"));
        assert_eq!(entries[0].kind, "ext4");
        assert_eq!(entries[1].kind, "fuse.znodefs");
        assert_eq!(entries[1].source_name, "a:1,b:2/x\\y");
    }

    #[test]
    fn sharing_needs_its_own_line_in_fuse_conf() {
        assert!(allows_sharing("# comment\n user_allow_other \n"));
        assert!(!allows_sharing("#user_allow_other\nmount_max = 10\n"));
    }
}
