//! Snapshot files: `snapshot.<zxid in hexadecimal>`, written beside under `.tmp` and renamed when
//! durable. What the blocks mean is the tree's business.
//!
//! After the header (`file_header`: its zxid is the last transaction that is certainly contained;
//! flag 1 means installed, see [`SnapshotFiles::create_installed`]) come blocks, then the trailer;
//! numbers little-endian:
//!
//! | block | | trailer | |
//! |---|---|---|---|
//! | 0..4 | payload length, not 0 | 0..4 | zero |
//! | 4..8 | CRC32C of ensemble id, index, length, payload | 4..8 | CRC32C of ensemble id and 8.. |
//! | 8.. | payload | 8..16 | number of blocks |
//! | | | 16..24 | sum of payload lengths |
//! | | | 24..32 | newest zxid that may be contained |
//! | | | 32..36 | CRC32C of the blocks' checksums |
//! | | | 36..40 | `END.` |
//!
//! A snapshot is fuzzy: transactions between the two zxids may or may not be in it. Replay starts
//! behind the first; a log that ends before the second no longer fits.

use std::path::PathBuf;
use std::sync::Arc;

use znodefs::Zxid;

use super::disk::{Disk, DiskError, DiskFile, remove_if_there};
use super::file_header::{
    BLOCK_HEADER_LENGTH, EnsembleId, FileHeader, FileKind, HEADER_LENGTH, WrongFile, u32_at, u64_at,
};
use super::snapshot_files::SnapshotFiles;

/// The longest block.
pub const BLOCK_LENGTH_MAX: usize = 64 << 20;

const TRAILER_LENGTH: usize = 40;
const TRAILER_END: &[u8; 4] = b"END.";
const FLAG_INSTALLED: u32 = 1;

/// Bytes gathered for one write, and read at once.
const CHUNK_LENGTH: usize = 1 << 20;

/// After so many bytes a snapshot is synced in passing, so that the end does not stall the log with
/// one large flush.
const SYNC_INTERVAL_LENGTH: u64 = 32 << 20;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed; [`DiskError::is_full`] tells whether room would help. No snapshot that was
    /// there before is touched.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not what was written.
    #[error("{} is damaged at byte {offset}: {reason}", file.display())]
    Damaged {
        /// The snapshot.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Of another version or another ensemble.
    #[error(transparent)]
    WrongFile(#[from] WrongFile),
    /// The log was cut or replaced while the snapshot was being written: it may hold what no longer
    /// counts, and was dropped.
    #[error("the snapshot of {zxid} was overtaken by a change of history and dropped")]
    Overtaken {
        /// The snapshot's zxid.
        zxid: Zxid,
    },
    /// A block longer than [`BLOCK_LENGTH_MAX`].
    #[error("a snapshot block of {0} bytes is longer than {BLOCK_LENGTH_MAX}")]
    TooLong(usize),
}

/// What a snapshot file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The file's name.
    pub name: String,
    /// Every transaction up to this one is contained; replay starts behind it.
    pub zxid: Zxid,
    /// No transaction later than this one is contained.
    pub newest: Zxid,
    /// The history it belongs to (see `storage`).
    pub generation: u64,
    /// Whether it began its generation, so that no log need lead up to it.
    pub installed: bool,
    /// How many blocks it has.
    pub blocks: u64,
    /// The file's length in bytes.
    pub length: u64,
}

/// The name of a whole snapshot.
pub fn snapshot_name(zxid: Zxid) -> String {
    format!("snapshot.{:x}", zxid.0)
}

/// The zxid by a snapshot's name; `None` for any other file.
pub fn parse_snapshot_name(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix("snapshot.")?;
    Some(Zxid(u64::from_str_radix(digits, 16).ok()? as i64))
}

fn block_checksum(ensemble_id: EnsembleId, index: u64, payload: &[u8]) -> u32 {
    let mut head = [0; 28];
    head[..16].copy_from_slice(&ensemble_id.0);
    head[16..24].copy_from_slice(&index.to_le_bytes());
    head[24..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

/// Where a snapshot comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// This replica's own state.
    Own {
        /// Whether there is no log that leads up to it.
        begins: bool,
    },
    /// Another replica's state, or a backup: a new generation.
    Elsewhere,
}

/// Writes one snapshot. Dropped without [`SnapshotWriter::finish`], it leaves nothing behind.
pub struct SnapshotWriter {
    files: SnapshotFiles,
    file: Option<Box<dyn DiskFile>>,
    header: FileHeader,
    /// The history's state when the writer was made; another one at the end overtakes it.
    era: u64,
    buffer: Vec<u8>,
    /// Bytes already written.
    written: u64,
    synced: u64,
    blocks: u64,
    bytes: u64,
    checksum: u32,
}

impl SnapshotWriter {
    pub(super) fn create(
        files: SnapshotFiles,
        zxid: Zxid,
        origin: Origin,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let (generation, era) = files.generation_and_era();
        let (generation, installed) = match origin {
            Origin::Own { begins } => (generation, begins),
            Origin::Elsewhere => (generation + 1, true),
        };
        let header = FileHeader {
            kind: FileKind::Snapshot,
            flags: if installed { FLAG_INSTALLED } else { 0 },
            ensemble_id: files.ensemble_id(),
            generation,
            zxid,
        };
        let name = temporary_name(zxid);
        remove_if_there(files.disk(), &name)?;
        let file = files.disk().create_new(&name)?;
        let mut buffer = Vec::with_capacity(CHUNK_LENGTH + (64 << 10));
        buffer.extend_from_slice(&header.encode());
        Ok(SnapshotWriter {
            files,
            file: Some(file),
            header,
            era,
            buffer,
            written: 0,
            synced: 0,
            blocks: 0,
            bytes: 0,
            checksum: 0,
        })
    }

    /// The snapshot's zxid.
    pub fn zxid(&self) -> Zxid {
        self.header.zxid
    }

    /// The generation that the snapshot's history has.
    pub fn generation(&self) -> u64 {
        self.header.generation
    }

    /// Adds a block; an empty one is left out.
    pub fn write_block(&mut self, payload: &[u8]) -> Result<(), SnapshotError> {
        if payload.len() > BLOCK_LENGTH_MAX {
            return Err(SnapshotError::TooLong(payload.len()));
        }
        if payload.is_empty() {
            return Ok(());
        }
        let checksum = block_checksum(self.header.ensemble_id, self.blocks, payload);
        self.buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&checksum.to_le_bytes());
        self.buffer.extend_from_slice(payload);
        self.checksum = crc32c::crc32c_append(self.checksum, &checksum.to_le_bytes());
        self.blocks += 1;
        self.bytes += payload.len() as u64;
        if self.buffer.len() >= CHUNK_LENGTH { self.flush() } else { Ok(()) }
    }

    /// Ends the snapshot, makes it durable and gives it its name. `newest` is the last transaction
    /// that had been applied when the last block was made.
    pub fn finish(mut self, newest: Zxid) -> Result<SnapshotInfo, SnapshotError> {
        let newest = newest.max(self.header.zxid);
        let mut trailer = [0; TRAILER_LENGTH];
        trailer[8..16].copy_from_slice(&self.blocks.to_le_bytes());
        trailer[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        trailer[24..32].copy_from_slice(&newest.0.to_le_bytes());
        trailer[32..36].copy_from_slice(&self.checksum.to_le_bytes());
        trailer[36..].copy_from_slice(TRAILER_END);
        let checksum = trailer_checksum(self.header.ensemble_id, &trailer);
        trailer[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.buffer.extend_from_slice(&trailer);
        self.flush()?;
        if let Some(file) = &mut self.file {
            file.sync_data()?;
        }
        let zxid = self.header.zxid;
        let info = SnapshotInfo {
            name: snapshot_name(zxid),
            zxid,
            newest,
            generation: self.header.generation,
            installed: self.header.flags & FLAG_INSTALLED != 0,
            blocks: self.blocks,
            length: self.written,
        };
        self.files.publish(&temporary_name(zxid), &info, self.era)?;
        self.file = None;
        Ok(info)
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.synced >= SYNC_INTERVAL_LENGTH {
            file.sync_data()?;
            self.synced = self.written;
        }
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What stays there is removed at the next start.
            let _ = self.files.disk().remove(&temporary_name(self.header.zxid));
        }
    }
}

fn temporary_name(zxid: Zxid) -> String {
    format!("{}.tmp", snapshot_name(zxid))
}

fn trailer_checksum(ensemble_id: EnsembleId, trailer: &[u8; TRAILER_LENGTH]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&ensemble_id.0), &trailer[8..])
}

/// Reads one snapshot, block by block.
pub struct SnapshotReader {
    info: SnapshotInfo,
    path: PathBuf,
    ensemble_id: EnsembleId,
    file: Box<dyn DiskFile>,
    /// Bytes of the file from `offset` on.
    buffer: Vec<u8>,
    /// Where in the buffer the next block begins.
    at: usize,
    /// Where in the file the buffer begins.
    offset: u64,
    blocks: u64,
    bytes: u64,
    checksum: u32,
    expected_bytes: u64,
    expected_checksum: u32,
}

impl SnapshotReader {
    /// Opens a snapshot and checks its header and trailer.
    pub fn open(
        disk: &Arc<dyn Disk>,
        ensemble_id: EnsembleId,
        name: &str,
    ) -> Result<SnapshotReader, SnapshotError> {
        let path = disk.path_of(name);
        let file = disk.open_read(name)?;
        let length = file.length()?;
        let damaged = |offset, reason: &str| SnapshotError::Damaged {
            file: path.clone(),
            offset,
            reason: reason.to_owned(),
        };
        let mut head = [0; HEADER_LENGTH];
        let mut trailer = [0; TRAILER_LENGTH];
        if length < (HEADER_LENGTH + TRAILER_LENGTH) as u64 {
            return Err(damaged(length, "it is too short"));
        }
        let trailer_offset = length - TRAILER_LENGTH as u64;
        if !read_exact(&*file, 0, &mut head)? || !read_exact(&*file, trailer_offset, &mut trailer)?
        {
            return Err(damaged(length, "it is too short"));
        }
        let header = match FileHeader::decode(FileKind::Snapshot, Some(ensemble_id), &head) {
            Ok(header) => header,
            Err(error) => {
                return Err(match error.wrong_file(path.clone(), Some(ensemble_id)) {
                    Some(wrong) => wrong.into(),
                    None => damaged(0, "its header is not whole"),
                });
            }
        };
        if trailer[36..] != *TRAILER_END
            || u32_at(&trailer, 0) != 0
            || u32_at(&trailer, 4) != trailer_checksum(ensemble_id, &trailer)
        {
            return Err(damaged(trailer_offset, "its trailer is not whole"));
        }
        Ok(SnapshotReader {
            info: SnapshotInfo {
                name: name.to_owned(),
                zxid: header.zxid,
                newest: Zxid(u64_at(&trailer, 24) as i64),
                generation: header.generation,
                installed: header.flags & FLAG_INSTALLED != 0,
                blocks: u64_at(&trailer, 8),
                length,
            },
            path,
            ensemble_id,
            file,
            buffer: Vec::new(),
            at: 0,
            offset: HEADER_LENGTH as u64,
            blocks: 0,
            bytes: 0,
            checksum: 0,
            expected_bytes: u64_at(&trailer, 16),
            expected_checksum: u32_at(&trailer, 32),
        })
    }

    /// What the snapshot says of itself.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// The next block; `None` once all have come and the whole has proved right.
    pub fn next_block(&mut self) -> Result<Option<&[u8]>, SnapshotError> {
        if self.blocks == self.info.blocks {
            return self.check_whole().map(|()| None);
        }
        if !self.fill(BLOCK_HEADER_LENGTH)? {
            return Err(self.damaged("a block is missing"));
        }
        let length = u32_at(&self.buffer[self.at..], 0) as usize;
        let checksum = u32_at(&self.buffer[self.at..], 4);
        if length == 0 || length > BLOCK_LENGTH_MAX || !self.fill(BLOCK_HEADER_LENGTH + length)? {
            return Err(self.damaged("a block has an impossible length"));
        }
        let start = self.at + BLOCK_HEADER_LENGTH;
        let payload = start..start + length;
        if checksum != block_checksum(self.ensemble_id, self.blocks, &self.buffer[payload.clone()])
        {
            return Err(self.damaged("a block's checksum is wrong"));
        }
        self.blocks += 1;
        self.bytes += length as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &checksum.to_le_bytes());
        self.at = payload.end;
        Ok(Some(&self.buffer[payload]))
    }

    fn check_whole(&self) -> Result<(), SnapshotError> {
        let position = self.offset + self.at as u64;
        if self.bytes != self.expected_bytes
            || self.checksum != self.expected_checksum
            || position + TRAILER_LENGTH as u64 != self.info.length
        {
            return Err(self.damaged("the blocks are not those that its trailer names"));
        }
        Ok(())
    }

    fn damaged(&self, reason: &str) -> SnapshotError {
        SnapshotError::Damaged {
            file: self.path.clone(),
            offset: self.offset + self.at as u64,
            reason: reason.to_owned(),
        }
    }

    /// Makes `length` bytes from the current place available; `false` when there are not so many.
    fn fill(&mut self, length: usize) -> Result<bool, DiskError> {
        if self.buffer.len() - self.at >= length {
            return Ok(true);
        }
        self.buffer.drain(..self.at);
        self.offset += self.at as u64;
        self.at = 0;
        let mut filled = self.buffer.len();
        let rest = (self.info.length - self.offset.min(self.info.length)) as usize;
        let room = length.max(CHUNK_LENGTH).min(rest).max(filled);
        self.buffer.resize(room, 0);
        while filled < room {
            match self.file.read_at(self.offset + filled as u64, &mut self.buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        self.buffer.truncate(filled);
        Ok(filled >= length)
    }
}

/// `false`: the file ends before.
pub(super) fn read_exact(
    file: &dyn DiskFile,
    offset: u64,
    buffer: &mut [u8],
) -> Result<bool, DiskError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset + filled as u64, &mut buffer[filled..])? {
            0 => return Ok(false),
            count => filled += count,
        }
    }
    Ok(true)
}
