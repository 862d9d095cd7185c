//! Files of one short value that are replaced as a whole: written beside, synced, renamed. A crash
//! leaves the old one or the new one.

use std::path::PathBuf;

use super::disk::{Disk, DiskError, remove_if_there};
use super::file_header::{
    BLOCK_HEADER_LENGTH, EnsembleId, FileHeader, FileKind, HEADER_LENGTH, WrongFile, u32_at,
};
use crate::mutation::{Mutation, mutated};

const FILE_LENGTH_MAX: u64 = 1 << 20;

/// Why a small file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SmallFileError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not what was written.
    #[error(
        "{} is damaged: restore it from a backup, or empty the dataDir to have it brought up to \
         date by the other replicas",
        .0.display()
    )]
    Damaged(PathBuf),
    /// Of another version or another ensemble.
    #[error(transparent)]
    WrongFile(#[from] WrongFile),
}

/// Replaces the file `name`; durable when it returns.
pub fn replace(
    disk: &dyn Disk,
    name: &str,
    header: &FileHeader,
    payload: &[u8],
) -> Result<(), DiskError> {
    let temporary = format!("{name}.tmp");
    remove_if_there(disk, &temporary)?;
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    let mut file = disk.create_new(&temporary)?;
    file.write_at(0, &bytes)?;
    if !mutated(Mutation::EpochNotSynced) {
        file.sync_data()?;
    }
    disk.rename(&temporary, name)?;
    disk.sync_dir()
}

/// Reads the file `name`; `None` when it is not there.
pub fn read(
    disk: &dyn Disk,
    name: &str,
    kind: FileKind,
    ensemble_id: Option<EnsembleId>,
) -> Result<Option<(FileHeader, Vec<u8>)>, SmallFileError> {
    let mut bytes = match disk.read_whole(name, FILE_LENGTH_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let file = disk.path_of(name);
    let header = match FileHeader::decode(kind, ensemble_id, &bytes) {
        Ok(header) => header,
        Err(error) => {
            return Err(match error.wrong_file(file.clone(), ensemble_id) {
                Some(wrong) => wrong.into(),
                None => SmallFileError::Damaged(file),
            });
        }
    };
    let start = HEADER_LENGTH + BLOCK_HEADER_LENGTH;
    if bytes.len() < start {
        return Err(SmallFileError::Damaged(file));
    }
    let length = u32_at(&bytes, HEADER_LENGTH) as usize;
    let checksum = u32_at(&bytes, HEADER_LENGTH + 4);
    let payload = bytes.split_off(start);
    if payload.len() != length || crc32c::crc32c(&payload) != checksum {
        return Err(SmallFileError::Damaged(file));
    }
    Ok(Some((header, payload)))
}
