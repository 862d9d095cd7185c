//! Who holds a replica's directory, as those see it who only look.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::persistence::file_disk::LOCK_NAME;

/// The pid of the process that holds a replica's directory, as far as this user can see. Asking
/// changes nothing: a lock taken for the question could keep a replica from starting.
pub fn holder(directory: &Path) -> Option<String> {
    let lock = directory.join(LOCK_NAME);
    let inode = fs::metadata(&lock).ok()?.ino().to_string();
    let pid = fs::read_to_string(&lock).ok()?;
    let pid = pid.trim();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holds = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_flock = fields.next() == Some("FLOCK");
        let mut fields = fields.skip(2);
        let has_pid = fields.next() == Some(pid);
        // The device may be shown by another number than stat(2) has (btrfs, overlayfs).
        let has_inode =
            fields.next().and_then(|file| file.rsplit(':').next()) == Some(inode.as_str());
        is_flock && has_pid && has_inode
    };
    locks.lines().any(holds).then(|| pid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::FileDisk;
    use crate::persistence::file_disk::DIRECTORY_NAME;

    #[test]
    fn the_holder_is_seen_without_asking_for_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRECTORY_NAME);
        assert_eq!(holder(&path), None);
        let disk = FileDisk::open(directory.path()).unwrap();
        assert_eq!(holder(&path), Some(std::process::id().to_string()));
        drop(disk);
        assert_eq!(holder(&path), None);
    }
}
