//! The durable numbers of a replica that are neither log nor snapshot: `acceptedEpoch` (the highest
//! epoch promised), `currentEpoch` (of the last leader whose history was adopted), `identity`
//! (which ensemble, which replica). The disk is always written before memory (ZOOKEEPER-2307).
//!
//! currentEpoch stands for a history. Where some of that turned out to be lost it is *distrusted*: it
//! counts as 0, and the replica as one that has adopted nothing, until a leader has brought it up to
//! date.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;
use znodefs::{Epoch, Zxid};

use super::disk::{Disk, DiskError};
use super::file_header::{EnsembleId, FileHeader, FileKind};
use super::small_file::{self, SmallFileError};
use crate::codec::{self, CodecError};

const ACCEPTED_EPOCH_NAME: &str = "acceptedEpoch";
const CURRENT_EPOCH_NAME: &str = "currentEpoch";
const IDENTITY_NAME: &str = "identity";

/// In the header of currentEpoch.
const DISTRUSTED: u32 = 1;
/// In the header of the identity: it also says which ensemble was left for this one.
const LEFT_ANOTHER: u32 = 1;

/// Why epochs or identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// One of the files.
    #[error(transparent)]
    File(#[from] SmallFileError),
    /// A whole file with contents that make no sense.
    #[error("{file} cannot be understood: {source}")]
    Contents {
        /// The file's path.
        file: String,
        /// Why.
        source: CodecError,
    },
    /// An epoch never goes back.
    #[error("{name} is {current} and cannot become {asked}")]
    Backwards {
        /// Which epoch.
        name: &'static str,
        /// What it is.
        current: Epoch,
        /// What it was to become.
        asked: Epoch,
    },
    /// The files and the log contradict one another.
    #[error(
        "acceptedEpoch {accepted}, currentEpoch {current} and the newest transaction {last} contradict one \
         another: restore the dataDir as a whole, or empty it to have it brought up to date"
    )]
    Inconsistent {
        /// The highest epoch promised.
        accepted: Epoch,
        /// The epoch of the last leader.
        current: Epoch,
        /// The newest transaction.
        last: Zxid,
    },
}

impl EpochError {
    /// Whether there was no room to write it. Nothing has changed then.
    pub fn is_full(&self) -> bool {
        matches!(self, EpochError::File(SmallFileError::Disk(error)) if error.is_full_before_change())
    }
}

impl From<DiskError> for EpochError {
    fn from(error: DiskError) -> EpochError {
        EpochError::File(error.into())
    }
}

/// The two epochs of a replica.
pub struct EpochFiles {
    disk: Arc<dyn Disk>,
    ensemble_id: EnsembleId,
    accepted: Epoch,
    current: Epoch,
    /// What currentEpoch was before it was distrusted; 0 if it is not.
    distrusted: Epoch,
}

impl EpochFiles {
    /// Reads both; one that was never written is 0.
    pub fn open(disk: Arc<dyn Disk>, ensemble_id: EnsembleId) -> Result<EpochFiles, EpochError> {
        let read = |name: &str| -> Result<(u32, Epoch), EpochError> {
            match small_file::read(&*disk, name, FileKind::Epoch, Some(ensemble_id))? {
                None => Ok((0, Epoch(0))),
                Some((header, payload)) => Ok((header.flags, decode(&*disk, name, &payload)?)),
            }
        };
        let (_, accepted) = read(ACCEPTED_EPOCH_NAME)?;
        let (current, distrusted) = match read(CURRENT_EPOCH_NAME)? {
            (flags, epoch) if flags & DISTRUSTED != 0 => (Epoch(0), epoch),
            (_, epoch) => (epoch, Epoch(0)),
        };
        Ok(EpochFiles { disk, ensemble_id, accepted, current, distrusted })
    }

    /// Whose epochs they are.
    pub fn ensemble_id(&self) -> EnsembleId {
        self.ensemble_id
    }

    /// The highest epoch promised.
    pub fn accepted(&self) -> Epoch {
        self.accepted
    }

    /// The epoch of the last leader whose history was adopted; 0 if that is distrusted.
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// What currentEpoch was before it was distrusted; 0 if it is not.
    pub fn distrusted(&self) -> Epoch {
        self.distrusted
    }

    /// The history that currentEpoch stands for is not all there; durable when it returns. After an
    /// error what is on disk is unknown and the replica must stop.
    pub fn distrust(&mut self) -> Result<(), EpochError> {
        if self.current > Epoch(0) {
            self.replace(CURRENT_EPOCH_NAME, DISTRUSTED, self.current)?;
            self.distrusted = std::mem::take(&mut self.current);
        }
        Ok(())
    }

    /// What is there of the history is to count as all of it; durable when it returns. For `repair`.
    pub fn trust(&mut self) -> Result<(), EpochError> {
        if self.distrusted > Epoch(0) {
            self.replace(CURRENT_EPOCH_NAME, 0, self.distrusted)?;
            self.current = std::mem::take(&mut self.distrusted);
        }
        Ok(())
    }

    /// Promises an epoch; durable when it returns. After an error what is on disk is unknown and the
    /// replica must stop.
    pub fn set_accepted(&mut self, epoch: Epoch) -> Result<(), EpochError> {
        self.write(ACCEPTED_EPOCH_NAME, self.accepted, epoch)?;
        self.accepted = epoch;
        Ok(())
    }

    /// Adopts an epoch, whose history must already be durable (ZOOKEEPER-4643); durable when it
    /// returns. After an error what is on disk is unknown and the replica must stop.
    pub fn set_current(&mut self, epoch: Epoch) -> Result<(), EpochError> {
        self.write(CURRENT_EPOCH_NAME, self.current, epoch)?;
        self.current = epoch;
        if std::mem::take(&mut self.distrusted) > Epoch(0) {
            info!("what was lost has been replaced: this replica votes again");
        }
        Ok(())
    }

    /// An error unless the highest epoch promised is also the highest of all: what a start checks. The
    /// newest transaction may be of a later epoch than currentEpoch, after a crash between the
    /// history of a leader and the adoption of its epoch. For members of an ensemble.
    pub fn check(&self, last: Zxid) -> Result<(), EpochError> {
        let (accepted, current) = (self.accepted, self.current);
        if accepted >= current && accepted >= last.epoch() {
            return Ok(());
        }
        Err(EpochError::Inconsistent { accepted, current, last })
    }

    fn write(&self, name: &'static str, current: Epoch, asked: Epoch) -> Result<(), EpochError> {
        if asked < current {
            return Err(EpochError::Backwards { name, current, asked });
        }
        self.replace(name, 0, asked)
    }

    fn replace(&self, name: &str, flags: u32, epoch: Epoch) -> Result<(), EpochError> {
        let header = FileHeader { flags, ..header(FileKind::Epoch, self.ensemble_id) };
        let payload = encode(&*self.disk, name, &epoch)?;
        Ok(small_file::replace(&*self.disk, name, &header, &payload)?)
    }
}

/// Who a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaIdentity {
    /// The ensemble it belongs to.
    pub ensemble_id: EnsembleId,
    /// Its number there (`myid`); 0 standing alone.
    pub replica_id: u64,
}

#[derive(Serialize, Deserialize)]
struct IdentityPayload {
    replica_id: u64,
}

/// What follows where another ensemble was left.
#[derive(Serialize, Deserialize)]
struct ChangedPayload {
    replica_id: u64,
    left: [u8; 16],
}

impl ReplicaIdentity {
    /// Reads the identity; `None` when there is none yet.
    pub fn read(disk: &dyn Disk) -> Result<Option<ReplicaIdentity>, EpochError> {
        Ok(Self::read_with_left(disk)?.map(|(identity, _)| identity))
    }

    /// Reads the identity, and which ensemble the replica left for this one, all of whose files are
    /// void.
    pub(super) fn read_with_left(
        disk: &dyn Disk,
    ) -> Result<Option<(ReplicaIdentity, Option<EnsembleId>)>, EpochError> {
        let Some((header, payload)) =
            small_file::read(disk, IDENTITY_NAME, FileKind::Identity, None)?
        else {
            return Ok(None);
        };
        let (replica_id, left) = match header.flags & LEFT_ANOTHER {
            0 => (decode::<IdentityPayload>(disk, IDENTITY_NAME, &payload)?.replica_id, None),
            _ => {
                let changed: ChangedPayload = decode(disk, IDENTITY_NAME, &payload)?;
                (changed.replica_id, Some(EnsembleId(changed.left)))
            }
        };
        Ok(Some((ReplicaIdentity { ensemble_id: header.ensemble_id, replica_id }, left)))
    }

    /// Writes the identity; durable when it returns.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), EpochError> {
        let payload =
            encode(disk, IDENTITY_NAME, &IdentityPayload { replica_id: self.replica_id })?;
        let header = header(FileKind::Identity, self.ensemble_id);
        Ok(small_file::replace(disk, IDENTITY_NAME, &header, &payload)?)
    }

    /// Writes the identity over that of the ensemble `left`, all of whose files are void with it, in
    /// one step; durable when it returns.
    pub fn write_over(&self, left: EnsembleId, disk: &dyn Disk) -> Result<(), EpochError> {
        let changed = ChangedPayload { replica_id: self.replica_id, left: left.0 };
        let payload = encode(disk, IDENTITY_NAME, &changed)?;
        let header =
            FileHeader { flags: LEFT_ANOTHER, ..header(FileKind::Identity, self.ensemble_id) };
        Ok(small_file::replace(disk, IDENTITY_NAME, &header, &payload)?)
    }
}

fn header(kind: FileKind, ensemble_id: EnsembleId) -> FileHeader {
    FileHeader { kind, flags: 0, ensemble_id, generation: 0, zxid: Zxid::ZERO }
}

fn encode<T: Serialize>(disk: &dyn Disk, name: &str, value: &T) -> Result<Vec<u8>, EpochError> {
    let mut payload = Vec::new();
    codec::encode_into(value, &mut payload)
        .map_err(|source| EpochError::Contents { file: path(disk, name), source })?;
    Ok(payload)
}

fn decode<T: serde::de::DeserializeOwned>(
    disk: &dyn Disk,
    name: &str,
    payload: &[u8],
) -> Result<T, EpochError> {
    codec::decode(payload).map_err(|source| EpochError::Contents { file: path(disk, name), source })
}

fn path(disk: &dyn Disk, name: &str) -> String {
    disk.path_of(name).display().to_string()
}
