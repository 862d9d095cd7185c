//! The file `committed`: up to where this replica knew its log to be committed, when it last looked.
//! A member that starts without a quorum may show that much of its log (read-only mode), and one whose
//! log ends before it knows that a write to its disk was lost.
//!
//! It is never synced and may be stale, torn or absent after a crash: it only says less then. It never
//! says more, since it is written when everything that it speaks of was synced. The header's own zxid
//! is the value, its checksum tells a torn one.

use std::sync::Arc;

use znodefs::Zxid;

use super::disk::{Disk, DiskError, DiskFile};
use super::file_header::{EnsembleId, FileHeader, FileKind, HEADER_LENGTH};

/// The file's name.
pub const COMMITTED_NAME: &str = "committed";

/// The log was not synced before the file was written (`forceSync=no`).
const LOG_NOT_SYNCED: u32 = 1;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Everything up to here is committed.
    pub zxid: Zxid,
    /// The history that is meant (see `storage`).
    pub generation: u64,
    /// Whether all of it was synced.
    pub synced: bool,
}

impl Committed {
    /// What the file says; nothing, zxid 0, when there is none that can be believed.
    pub fn read(disk: &dyn Disk, ensemble_id: EnsembleId) -> Committed {
        let Ok(bytes) = disk.read_whole(COMMITTED_NAME, HEADER_LENGTH as u64) else {
            return Committed::default();
        };
        let header = FileHeader::decode(FileKind::Committed, Some(ensemble_id), &bytes);
        header.map_or(Committed::default(), |header| Committed {
            zxid: header.zxid,
            generation: header.generation,
            synced: header.flags & LOG_NOT_SYNCED == 0,
        })
    }

    /// Whether a log that ends at `last` lacks some of it.
    pub fn is_missing_behind(&self, last: Zxid) -> bool {
        self.synced && self.zxid > last
    }
}

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

    /// Writes what is committed. Where it stood before it may be torn.
    pub fn write(&mut self, committed: Committed) -> Result<(), DiskError> {
        let header = FileHeader {
            kind: FileKind::Committed,
            flags: if committed.synced { 0 } else { LOG_NOT_SYNCED },
            ensemble_id: self.ensemble_id,
            generation: committed.generation,
            zxid: committed.zxid,
        };
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

    fn up_to(epoch: u32, counter: u32) -> Committed {
        Committed { zxid: Zxid::new(Epoch(epoch), counter), generation: 3, synced: true }
    }

    #[test]
    fn what_cannot_be_believed_says_nothing() {
        let disk = Arc::new(MemoryDisk::new(1));
        let read = |ensemble_id| Committed::read(&*disk, ensemble_id);
        assert_eq!(read(ENSEMBLE), Committed::default(), "there is none");
        let mut file = CommittedFile::new(disk.clone(), ENSEMBLE);
        let unsynced = Committed { synced: false, ..up_to(2, 12) };
        for committed in [up_to(2, 3), up_to(2, 9), unsynced] {
            file.write(committed).unwrap();
            assert_eq!(read(ENSEMBLE), committed);
        }
        assert_eq!(read(EnsembleId([8; 16])), Committed::default(), "another ensemble's");
        disk.open(COMMITTED_NAME).unwrap().write_at(43, b"torn").unwrap();
        assert_eq!(read(ENSEMBLE), Committed::default());
        CommittedFile::new(disk.clone(), ENSEMBLE).write(up_to(3, 1)).unwrap();
        assert_eq!(read(ENSEMBLE), up_to(3, 1), "written over");
    }

    #[test]
    fn only_what_was_synced_can_be_missing() {
        let committed = up_to(2, 9);
        let zxid = |counter| Zxid::new(Epoch(2), counter);
        assert!(committed.is_missing_behind(zxid(8)));
        assert!(!committed.is_missing_behind(zxid(9)) && !committed.is_missing_behind(zxid(10)));
        let unsynced = Committed { synced: false, ..committed };
        assert!(!unsynced.is_missing_behind(zxid(8)), "a crash may take it");
        assert!(!Committed::default().is_missing_behind(Zxid::ZERO));
    }
}
