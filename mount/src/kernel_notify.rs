//! Notifications to the kernel, written to a mount's device: what it may no longer keep. They are
//! encoded here because `fuser` has neither the epoch nor a notification whose failure can be told
//! from success.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// `FUSE_NOTIFY_INVAL_INODE`.
const INVALIDATE_INODE: i32 = 2;
/// `FUSE_NOTIFY_INVAL_ENTRY`.
const INVALIDATE_ENTRY: i32 = 3;
/// `FUSE_EXPIRE_ONLY`, a flag of it.
const EXPIRE_ONLY: u32 = 1;
/// `FUSE_NOTIFY_INC_EPOCH`, since Linux 6.16.
const INCREMENT_EPOCH: i32 = 8;

/// Writes notifications.
#[derive(Debug)]
pub struct KernelNotifier {
    device: File,
}

impl KernelNotifier {
    /// Over a duplicate of the mount's open device.
    pub fn new(device: OwnedFd) -> KernelNotifier {
        KernelNotifier { device: device.into() }
    }

    /// Attributes of an inode are asked for again. Waits for nobody.
    ///
    /// # Errors
    /// `ENOENT` when the kernel does not hold the inode.
    pub fn invalidate_attributes(&self, inode: u64) -> io::Result<()> {
        self.invalidate_inode(inode, -1)
    }

    /// Attributes and the cached listing of a directory are asked for again. May wait for requests
    /// under way, so nobody who has to answer one may call it.
    ///
    /// # Errors
    /// `ENOENT` when the kernel does not hold the inode.
    pub fn invalidate_listing(&self, inode: u64) -> io::Result<()> {
        self.invalidate_inode(inode, 0)
    }

    fn invalidate_inode(&self, inode: u64, offset: i64) -> io::Result<()> {
        let parts = [inode.to_ne_bytes(), offset.to_ne_bytes(), 0_i64.to_ne_bytes()];
        self.send(INVALIDATE_INODE, &parts.concat())
    }

    /// A name, and everything that is known below it, is forgotten. Waits for the directory's lock,
    /// so nobody who has to answer a request may call it.
    ///
    /// # Errors
    /// `ENOENT` when the kernel has nothing under this name.
    pub fn invalidate_entry(&self, parent: u64, name: &str) -> io::Result<()> {
        self.send_entry(parent, name, 0)
    }

    /// A name is looked up again, which leaves alone what is known if that is still so. Waits as
    /// [`KernelNotifier::invalidate_entry`] does, which it is on Linux before 6.2.
    ///
    /// # Errors
    /// `ENOENT` when the kernel has nothing under this name.
    pub fn expire_entry(&self, parent: u64, name: &str) -> io::Result<()> {
        self.send_entry(parent, name, EXPIRE_ONLY)
    }

    fn send_entry(&self, parent: u64, name: &str, flags: u32) -> io::Result<()> {
        let mut payload = parent.to_ne_bytes().to_vec();
        let length = u32::try_from(name.len()).map_err(io::Error::other)?;
        payload.extend(length.to_ne_bytes());
        payload.extend(flags.to_ne_bytes());
        payload.extend(name.as_bytes());
        payload.push(0);
        self.send(INVALIDATE_ENTRY, &payload)
    }

    /// Every name is looked up again. Waits for nobody.
    ///
    /// # Errors
    /// `EINVAL` on a kernel before 6.16.
    pub fn increment_epoch(&self) -> io::Result<()> {
        self.send(INCREMENT_EPOCH, &[])
    }

    fn send(&self, code: i32, payload: &[u8]) -> io::Result<()> {
        const HEADER_LENGTH: usize = 16;
        let length = u32::try_from(HEADER_LENGTH + payload.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER_LENGTH + payload.len());
        message.extend(length.to_ne_bytes());
        message.extend(code.to_ne_bytes());
        message.extend(0_u64.to_ne_bytes());
        message.extend(payload);
        // One message is one write.
        (&self.device).write(&message).map(|_| ())
    }
}
