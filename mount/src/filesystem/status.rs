//! `@status` at the root: read-only files that tell of the mount itself.

use std::ffi::OsStr;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType};
use znodefs::client::{SessionState, format_address};

use super::create::Opened;
use super::directories::DirectoryEntry;
use super::listing::Listing;
use super::{Entry, Filesystem};
use crate::handle_table::Handle;
use crate::inode_table::ROOT;
use crate::open_file::OpenMode;

/// The directory's inode; its files have the numbers behind it.
const DIRECTORY: u64 = ROOT + 1;

/// The files, in the order of their inode numbers.
const FILES: [&str; 4] = ["state", "session", "server", "stats"];

/// Whether an inode belongs to the status directory.
pub(super) fn is_status(number: u64) -> bool {
    (DIRECTORY..=DIRECTORY + FILES.len() as u64).contains(&number)
}

/// What was done through the mount.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Requests of the kernel.
    pub requests: AtomicU64,
    /// Values committed.
    pub commits: AtomicU64,
    /// Whether anybody has looked for the status files.
    status_seen: AtomicBool,
}

impl Filesystem {
    /// What was done so far.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    pub(super) fn status_directory(&self) -> Entry {
        self.statistics.status_seen.store(true, Ordering::Relaxed);
        Entry { attributes: self.status_attributes_of(DIRECTORY), generation: 0 }
    }

    /// The directory's inode, if the kernel may hold it.
    pub(super) fn seen_status_directory(&self) -> Option<u64> {
        self.statistics.status_seen.load(Ordering::Relaxed).then_some(DIRECTORY)
    }

    /// The length of a status file.
    pub(super) fn status_length(&self, name: &str) -> Option<u64> {
        let index = FILES.iter().position(|file| *file == name)?;
        Some(self.status_text(DIRECTORY + 1 + index as u64).len() as u64)
    }

    pub(super) fn look_up_status(&self, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        if parent != DIRECTORY {
            return Err(Errno::ENOTDIR);
        }
        let index = FILES.iter().position(|file| OsStr::new(file) == name).ok_or(Errno::ENOENT)?;
        let number = DIRECTORY + 1 + index as u64;
        Ok(Entry { attributes: self.status_attributes_of(number), generation: 0 })
    }

    pub(super) fn status_attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        Ok(self.status_attributes_of(number))
    }

    fn status_attributes_of(&self, number: u64) -> FileAttr {
        let time = SystemTime::UNIX_EPOCH;
        if number == DIRECTORY {
            return self.attributes_of(number, FileType::Directory, 0o555, time);
        }
        let size = self.status_text(number).len() as u64;
        FileAttr { size, ..self.attributes_of(number, FileType::RegularFile, 0o444, time) }
    }

    pub(super) fn open_status(&self, number: u64, mode: OpenMode) -> Result<Opened, Errno> {
        if number == DIRECTORY {
            return Err(Errno::EISDIR);
        }
        if mode.write {
            return Err(Errno::EACCES);
        }
        let text = Bytes::from(self.status_text(number));
        Ok(Opened { handle: self.handles.insert(Handle::Status(text)), is_stream: false })
    }

    fn status_text(&self, number: u64) -> String {
        let service = self.znodes.service();
        match FILES.get((number - DIRECTORY - 1) as usize).copied() {
            Some("state") => format!("{}\n", state_name(service.state())),
            Some("session") => format!(
                "id {}\ntimeout_ms {}\n",
                service.session_id(),
                service.session_timeout().as_millis()
            ),
            Some("server") => service.server().map_or_else(String::new, |server| {
                format!("{}\n", format_address(&server.ip().to_string(), server.port()))
            }),
            _ => self.stats_text(),
        }
    }

    fn stats_text(&self) -> String {
        let mut text = String::new();
        let counts = [
            ("requests", self.statistics.requests.load(Ordering::Relaxed)),
            ("requests_sent", self.znodes.sent()),
            ("commits", self.statistics.commits.load(Ordering::Relaxed)),
            ("inodes", self.inodes.lock().len() as u64),
            ("open_handles", self.handles.len() as u64),
            ("cached_value_bytes", self.caching.values.lock().size() as u64),
            ("announced_names", self.remote.announced.lock().len() as u64),
        ];
        for (name, count) in counts {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name} {count}");
        }
        let _ = writeln!(text, "last_zxid {}", self.znodes.service().last_zxid());
        text
    }

    pub(super) fn status_listing(&self, number: u64) -> Result<Listing, Errno> {
        if number == DIRECTORY { Ok(Listing::default()) } else { Err(Errno::ENOTDIR) }
    }

    pub(super) fn read_status_directory(
        &self,
        offset: u64,
        mut add: impl FnMut(&DirectoryEntry) -> bool,
    ) {
        let files = FILES
            .iter()
            .enumerate()
            .map(|(index, file)| (DIRECTORY + 1 + index as u64, FileType::RegularFile, *file));
        let dots = [(DIRECTORY, FileType::Directory, "."), (ROOT, FileType::Directory, "..")];
        let entries = dots.into_iter().chain(files).zip(1..).skip(offset as usize);
        for ((inode, kind, name), next_offset) in entries {
            if add(&DirectoryEntry { inode, next_offset, kind, name: name.to_string() }) {
                return;
            }
        }
    }
}

fn state_name(state: SessionState) -> &'static str {
    match state {
        SessionState::Connected => "connected",
        SessionState::Connecting | SessionState::Suspended => "suspended",
        SessionState::Expired | SessionState::AuthFailed | SessionState::Closed => "lost",
    }
}
