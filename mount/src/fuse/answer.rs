//! How the kernel is answered, and what some of its numbers mean: results become replies, and flags
//! what is asked for. Nothing is looked up or changed here.

use std::time::Duration;

use fuser::{Errno, FopenFlags, Generation, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr};
use znodefs::recipe::LockMode;

use crate::filesystem::{Entry, Filesystem, Opened, Validity};

/// For answers that the kernel may not keep.
pub(super) const NOT_KEPT: Duration = Duration::ZERO;

/// What a lookup came to.
pub(super) enum Looked {
    Found(Entry, Validity),
    /// There is nothing under the name, and for so long that may be kept.
    Absent(Duration),
}

pub(super) fn respond_entry(reply: ReplyEntry, looked: Result<Looked, Errno>) {
    match looked {
        Ok(Looked::Found(Entry { attributes, generation }, validity)) => {
            let Validity { name, attributes: kept } = validity;
            reply.entry_with_ttls(&kept, &name, &attributes, Generation(generation));
        }
        Ok(Looked::Absent(NOT_KEPT)) => reply.error(Errno::ENOENT),
        Ok(Looked::Absent(kept)) => {
            reply.entry_with_ttls(&NOT_KEPT, &kept, &Filesystem::no_attributes(), Generation(0));
        }
        Err(error) => reply.error(error),
    }
}

pub(super) fn respond_replayed(reply: ReplyEntry, result: Result<Entry, Errno>) {
    match result {
        Ok(Entry { attributes, generation }) => {
            reply.entry(&NOT_KEPT, &attributes, Generation(generation));
        }
        Err(error) => reply.error(error),
    }
}

pub(super) fn respond_attributes(
    reply: ReplyAttr,
    result: Result<(fuser::FileAttr, Duration), Errno>,
) {
    match result {
        Ok((attributes, kept)) => reply.attr(&kept, &attributes),
        Err(error) => reply.error(error),
    }
}

pub(super) fn respond_empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// Every file is read and written past the kernel's pages: two descriptors may have two values.
pub(super) fn open_flags(opened: Opened) -> FopenFlags {
    let stream = if opened.is_stream { FopenFlags::FOPEN_STREAM } else { FopenFlags::empty() };
    FopenFlags::FOPEN_DIRECT_IO | stream
}

/// A value that fits the caller's buffer, or its size when that is what the caller asks for.
pub(super) fn respond_xattr(reply: ReplyXattr, result: Result<Vec<u8>, Errno>, size: u32) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(error),
    }
}

/// The kind of lock that fcntl(2) names so.
pub(super) fn lock_mode(kind: i32) -> Option<LockMode> {
    match kind {
        libc::F_RDLCK => Some(LockMode::Shared),
        libc::F_WRLCK => Some(LockMode::Exclusive),
        _ => None,
    }
}

/// The flags of a creation without an O_NONBLOCK that is not meant for us: tar(1) opens every file
/// it unpacks with O_EXCL and O_NONBLOCK, for writing alone, with a mode from which it has taken its
/// umask itself. Whoever can read the name back, or leaves the mode to the umask as dd(1) and the
/// shells do, asks for a sequential znode.
pub(super) fn creation_flags(flags: i32, mode: u32, umask: u32) -> i32 {
    let reads = flags & libc::O_ACCMODE != libc::O_WRONLY;
    if reads || mode & umask & 0o777 != 0 { flags } else { flags & !libc::O_NONBLOCK }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dd_asks_for_a_sequential_znode_and_tar_does_not() {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NONBLOCK;
        assert_eq!(creation_flags(flags, 0o666, 0o022), flags, "dd conv=excl oflag=nonblock");
        let without = flags & !libc::O_NONBLOCK;
        assert_eq!(creation_flags(flags, 0o600, 0), without, "tar as root");
        assert_eq!(creation_flags(flags, 0o644, 0o022), without, "tar as a user");
        let readable = flags & !libc::O_ACCMODE | libc::O_RDWR;
        assert_eq!(creation_flags(readable, 0o600, 0), readable, "the name can be read back");
    }
}
