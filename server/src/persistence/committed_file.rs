//! The file `committed`: up to where this replica knew its log to be committed, when it last looked.
//! A member that starts without a quorum may show that much of its log (read-only mode).
//!
//! It is never synced and may be stale, torn or absent after a crash: it only says less then. The
//! header's own zxid is the value, its checksum tells a torn one.

use std::sync::Arc;

use znodefs::Zxid;

use super::disk::{Disk, DiskError, DiskFile};
use super::file_header::{EnsembleId, FileHeader, FileKind, HEADER_LENGTH};

/// The file's name.
pub const COMMITTED_NAME: &str = "committed";

/// Writes the file.
pub struct CommittedFile {
    disk: Arc<dyn Disk>,
    ensemble_id: EnsembleId,
    file: Option<Box<dyn DiskFile>>,
}

impl CommittedFile {
    /// The file of a member of `ensemble_id`; nothing is touched before it is written.
    pub fn new(disk: Arc<dyn Disk>, ensemble_id: EnsembleId) -> CommittedFile {
        CommittedFile { disk, ensemble_id, file: None }
    }

    /// What was last written; 0 when there is nothing that can be believed.
    pub fn read(disk: &dyn Disk, ensemble_id: EnsembleId) -> Zxid {
        let Ok(bytes) = disk.read_whole(COMMITTED_NAME, HEADER_LENGTH as u64) else {
            return Zxid::ZERO;
        };
        let header = FileHeader::decode(FileKind::Committed, Some(ensemble_id), &bytes);
        header.map_or(Zxid::ZERO, |header| header.zxid)
    }

    /// Writes that everything up to `zxid` is committed. Where it stood before it may be torn.
    pub fn write(&mut self, zxid: Zxid) -> Result<(), DiskError> {
        let (kind, ensemble_id) = (FileKind::Committed, self.ensemble_id);
        let header = FileHeader { kind, flags: 0, ensemble_id, generation: 0, zxid };
        if self.file.is_none() {
            self.file = Some(match self.disk.exists(COMMITTED_NAME)? {
                true => self.disk.open(COMMITTED_NAME)?,
                false => self.disk.create_new(COMMITTED_NAME)?,
            });
        }
        match &mut self.file {
            Some(file) => file.write_at(0, &header.encode()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use znodefs::Epoch;

    use super::super::MemoryDisk;
    use super::*;

    const ENSEMBLE: EnsembleId = EnsembleId([7; 16]);

    #[test]
    fn what_cannot_be_believed_says_nothing() {
        let disk = Arc::new(MemoryDisk::new(1));
        let read = |ensemble_id| CommittedFile::read(&*disk, ensemble_id);
        assert_eq!(read(ENSEMBLE), Zxid::ZERO, "there is none");
        let mut file = CommittedFile::new(disk.clone(), ENSEMBLE);
        for counter in [3, 9] {
            let zxid = Zxid::new(Epoch(2), counter);
            file.write(zxid).unwrap();
            assert_eq!(read(ENSEMBLE), zxid);
        }
        assert_eq!(read(EnsembleId([8; 16])), Zxid::ZERO, "another ensemble's");
        disk.open(COMMITTED_NAME).unwrap().write_at(43, b"torn").unwrap();
        assert_eq!(read(ENSEMBLE), Zxid::ZERO);
        CommittedFile::new(disk.clone(), ENSEMBLE).write(Zxid::new(Epoch(3), 1)).unwrap();
        assert_eq!(read(ENSEMBLE), Zxid::new(Epoch(3), 1), "written over");
    }
}
