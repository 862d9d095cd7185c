//! The 64 bytes with which every file of ours begins: what it is, its format's version, whose it
//! is. Also the checksummed block that snapshots and small files are made of. No I/O.
//!
//! Header, all numbers little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | magic, by kind of file |
//! | 8..12 | format version |
//! | 12..16 | flags, by kind of file |
//! | 16..32 | id of the ensemble |
//! | 32..40 | generation of the history (see `storage`) |
//! | 40..48 | a zxid: of a snapshot, or the last one before a log segment |
//! | 48..60 | zero |
//! | 60..64 | CRC32C of the 60 bytes before; its place never changes with the version |

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use znodefs::Zxid;

/// Length of every header in bytes.
pub const HEADER_LENGTH: usize = 64;

/// The version that this program writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Length of what precedes a block's payload: length and CRC32C, 4 bytes each.
pub const BLOCK_HEADER_LENGTH: usize = 8;

/// Sixteen random bytes, made when an ensemble is born; every file of its replicas carries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnsembleId(pub [u8; 16]);

impl fmt::Display for EnsembleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment of the transaction log.
    Log,
    /// A snapshot.
    Snapshot,
    /// Who this replica is.
    Identity,
    /// An epoch.
    Epoch,
    /// How far the log is known to be committed.
    Committed,
    /// The members of the ensemble.
    Configuration,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        *match self {
            FileKind::Log => b"ZNODELOG",
            FileKind::Snapshot => b"ZNODSNAP",
            FileKind::Identity => b"ZNODEIDN",
            FileKind::Epoch => b"ZNODEEPO",
            FileKind::Committed => b"ZNODECOM",
            FileKind::Configuration => b"ZNODECFG",
        }
    }
}

/// A header's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// What the file is.
    pub kind: FileKind,
    /// Meaning by kind.
    pub flags: u32,
    /// Whose the file is.
    pub ensemble_id: EnsembleId,
    /// Which history it belongs to.
    pub generation: u64,
    /// Meaning by kind.
    pub zxid: Zxid,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Too short, another magic, or a wrong checksum.
    Damaged,
    /// A whole header of another version.
    Version(u32),
    /// A whole header of another ensemble.
    Foreign(EnsembleId),
}

/// Why a file with a whole header is not for this program or this replica.
#[derive(Debug, thiserror::Error)]
pub enum WrongFile {
    /// A file of a later or older program.
    #[error(
        "{} has format version {found}, this program reads version {FORMAT_VERSION}: use the program that wrote it",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file of another ensemble.
    #[error(
        "{} belongs to ensemble {found}, not to {expected}: correct dataDir or dataLogDir",
        file.display()
    )]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Whose it is.
        found: EnsembleId,
        /// Whose it should be.
        expected: EnsembleId,
    },
}

impl HeaderError {
    /// What that says of `file`, which should be of ensemble `expected`; `None` for a damaged one,
    /// whose way out depends on what it is.
    pub fn wrong_file(self, file: PathBuf, expected: Option<EnsembleId>) -> Option<WrongFile> {
        match self {
            HeaderError::Damaged => None,
            HeaderError::Version(found) => Some(WrongFile::Version { file, found }),
            HeaderError::Foreign(found) => {
                // Only a caller that knows its ensemble can be told that another was found.
                Some(WrongFile::Foreign { file, found, expected: expected.unwrap_or(found) })
            }
        }
    }
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(&self.kind.magic());
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.ensemble_id.0);
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.zxid.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Whose file it is that begins with `bytes`, of whatever kind; `None` when that cannot be read.
    pub fn owner(bytes: &[u8]) -> Option<EnsembleId> {
        let bytes = bytes.first_chunk::<HEADER_LENGTH>()?;
        let is_whole = crc32c::crc32c(&bytes[..60]) == u32_at(bytes, 60);
        let id = bytes[16..32].first_chunk()?;
        (is_whole && u32_at(bytes, 8) == FORMAT_VERSION).then_some(EnsembleId(*id))
    }

    /// Reads the header at the start of `bytes`; `ensemble_id` is whose it must be, if known.
    pub fn decode(
        kind: FileKind,
        ensemble_id: Option<EnsembleId>,
        bytes: &[u8],
    ) -> Result<FileHeader, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(HeaderError::Damaged);
        };
        if bytes[..8] != kind.magic() || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        let header = FileHeader {
            kind,
            flags: u32_at(bytes, 12),
            ensemble_id: EnsembleId(id),
            generation: u64_at(bytes, 32),
            zxid: Zxid(u64_at(bytes, 40) as i64),
        };
        match ensemble_id {
            Some(expected) if expected != header.ensemble_id => {
                Err(HeaderError::Foreign(header.ensemble_id))
            }
            _ => Ok(header),
        }
    }
}

/// The number at `at`; the caller knows that it is there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The number at `at`; the caller knows that it is there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            kind: FileKind::Log,
            flags: 3,
            ensemble_id: EnsembleId([7; 16]),
            generation: 2,
            zxid: Zxid(0x1_0000_0005),
        }
    }

    #[test]
    fn a_header_reads_back_and_every_flipped_bit_is_noticed() {
        let bytes = header().encode();
        let decode =
            |bytes: &[u8]| FileHeader::decode(FileKind::Log, Some(EnsembleId([7; 16])), bytes);
        assert_eq!(decode(&bytes), Ok(header()));
        for at in 0..HEADER_LENGTH * 8 {
            let mut flipped = bytes;
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&flipped), Err(HeaderError::Damaged));
        }
        assert_eq!(decode(&bytes[..63]), Err(HeaderError::Damaged));
    }

    #[test]
    fn another_version_kind_or_ensemble_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        let foreign = FileHeader::decode(FileKind::Log, Some(EnsembleId([8; 16])), &bytes);
        assert_eq!(foreign, Err(HeaderError::Foreign(EnsembleId([7; 16]))));
        let kind = FileHeader::decode(FileKind::Snapshot, None, &bytes);
        assert_eq!(kind, Err(HeaderError::Damaged));
        bytes[8] = 9;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        let version = FileHeader::decode(FileKind::Log, None, &bytes);
        assert_eq!(version, Err(HeaderError::Version(9)));
    }
}
