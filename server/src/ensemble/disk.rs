//! A member's disk as the protocol sees it: tickets in, completions out, in one order. Log, snapshots
//! and epochs exist once the member belongs to an ensemble.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tracing::{debug, info};
use znodefs::{Epoch, Zxid};

use super::MemberEvent;
use super::membership;
use super::message::SharedIdentity;
use crate::persistence::{CommittedFile, LogEvent, Storage, StorageError, StorageParts};
use crate::replica::Event;
use crate::server::backend::{LogReporter, StorageBackend, Workers};
use crate::server::{Disks, StartError, backend, recovery};
use crate::service::Service;
use crate::session_id::PasswordKey;
use crate::zab::{Ensemble, Entry, Ticket};

/// What a ticket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Append(Zxid),
    Truncate,
    Install,
    Epoch,
}

/// Which of the two epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpochKind {
    Accepted,
    Current,
}

/// Why the disk cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// The member has data of another ensemble.
    #[error("this replica belongs to ensemble {own}, its leader to ensemble {leader}")]
    OtherEnsemble {
        /// Its own.
        own: String,
        /// The leader's.
        leader: String,
    },
    /// The directory cannot be made a member's.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl From<StorageError> for DiskError {
    fn from(error: StorageError) -> DiskError {
        DiskError::Start(error.into())
    }
}

/// A member's disk.
pub(super) struct MemberDisk {
    service: Arc<Service>,
    workers: Arc<dyn Workers>,
    disks: Disks,
    /// Until the member belongs to an ensemble.
    unjoined: Option<Storage>,
    joined: Option<StorageBackend>,
    identity: Option<SharedIdentity>,
    committed: Option<Arc<Mutex<CommittedFile>>>,
    pending: VecDeque<(Ticket, Work)>,
    /// Where old files are removed; a member joins on its core's thread, which has none.
    runtime: Option<Handle>,
}

impl MemberDisk {
    /// The disk of a member as it was found.
    pub fn new(
        service: Arc<Service>,
        workers: Arc<dyn Workers>,
        disks: Disks,
        storage: Storage,
        key: Option<PasswordKey>,
    ) -> Result<MemberDisk, DiskError> {
        let mut disk = MemberDisk {
            service,
            workers,
            disks,
            unjoined: None,
            joined: None,
            identity: None,
            committed: None,
            pending: VecDeque::new(),
            runtime: Handle::try_current().ok(),
        };
        match storage.identity() {
            None => disk.unjoined = Some(storage),
            Some(identity) => {
                let ensemble_id = identity.ensemble_id;
                disk.identity = key.map(|key| SharedIdentity { ensemble_id, password_key: key.0 });
                disk.join(storage.into_parts()?)?;
            }
        }
        Ok(disk)
    }

    /// The ensemble's identity; `None` before it is known.
    pub fn identity(&self) -> Option<&SharedIdentity> {
        self.identity.as_ref()
    }

    /// Log, snapshots and epochs; `None` before the member belongs to an ensemble.
    pub fn backend(&mut self) -> Option<&mut StorageBackend> {
        self.joined.as_mut()
    }

    /// Takes the ensemble's identity over, durably.
    pub fn adopt(&mut self, identity: SharedIdentity) -> Result<(), DiskError> {
        if self.identity.as_ref() == Some(&identity) {
            return Ok(());
        }
        let ensemble_id = identity.ensemble_id;
        if let Some(own) = self.joined.as_ref().map(StorageBackend::ensemble_id)
            && own != ensemble_id
        {
            let (own, leader) = (own.to_string(), ensemble_id.to_string());
            return Err(DiskError::OtherEnsemble { own, leader });
        }
        recovery::write_password_key(&self.disks, ensemble_id, &identity.key())?;
        if let Some(mut storage) = self.unjoined.take() {
            storage.join(ensemble_id)?;
            info!("this replica is now a member of ensemble {ensemble_id}");
            self.join(storage.into_parts()?)?;
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Keeps the committed configuration, durably. Before the member belongs to an ensemble there is
    /// nothing that it could be lost with.
    pub fn keep_configuration(&self, ensemble: &Ensemble) -> Result<(), StorageError> {
        match &self.joined {
            Some(backend) => membership::write(&self.disks, backend.ensemble_id(), ensemble),
            None => Ok(()),
        }
    }

    fn join(&mut self, parts: StorageParts) -> Result<(), DiskError> {
        let committed =
            CommittedFile::new(Arc::clone(&self.disks.data), parts.identity.ensemble_id);
        self.committed = Some(Arc::new(Mutex::new(committed)));
        if let Some(runtime) = &self.runtime {
            // Dropped tasks go on; this one ends with the runtime.
            drop(backend::purge_periodically(
                runtime,
                &self.service,
                &parts.snapshots,
                &parts.reader,
            ));
        }
        let reporter = LogReporter::for_member(Arc::clone(&self.service));
        let service = Arc::clone(&self.service);
        let backend = StorageBackend::start(service, self.workers.clone(), reporter, parts)
            .map_err(StartError::System)?;
        self.joined = Some(backend);
        Ok(())
    }

    /// Appends to the log.
    pub fn append(&mut self, ticket: Ticket, entries: &[Entry]) {
        let (Some(backend), Some(last)) = (&self.joined, entries.last()) else { return };
        let txns = entries.iter().map(|entry| (entry.zxid, entry.payload.clone())).collect();
        backend.log().append(txns);
        self.pending.push_back((ticket, Work::Append(last.zxid)));
    }

    /// Cuts the log.
    pub fn truncate(&mut self, ticket: Ticket, zxid: Zxid) {
        let Some(backend) = &self.joined else { return };
        backend.log().truncate(zxid);
        self.pending.push_back((ticket, Work::Truncate));
    }

    /// Empties the log for the history that an installed snapshot begins.
    pub fn reset(&mut self, ticket: Ticket, generation: u64, base: Zxid) {
        let Some(backend) = &self.joined else { return };
        backend.log().reset(generation, base);
        self.pending.push_back((ticket, Work::Install));
    }

    /// Replaces an epoch, behind everything queued before.
    pub fn persist_epoch(&mut self, ticket: Ticket, kind: EpochKind, epoch: Epoch) {
        let Some(backend) = &self.joined else { return };
        let (epochs, service) = (backend.epochs(), Arc::clone(&self.service));
        backend.log().barrier(Box::new(move || {
            match kind {
                EpochKind::Accepted => epochs.lock().set_accepted(epoch)?,
                EpochKind::Current => epochs.lock().set_current(epoch)?,
            }
            service.mailbox.push(Event::Member(MemberEvent::EpochDurable));
            Ok(())
        }));
        self.pending.push_back((ticket, Work::Epoch));
    }

    /// Writes down that everything up to `zxid` is committed; it is no loss if that fails.
    pub fn note_committed(&self, zxid: Zxid) {
        let (Some(backend), Some(committed)) = (&self.joined, &self.committed) else { return };
        let committed = Arc::clone(committed);
        // On the log's thread: a disk may let a write wait.
        backend.log().barrier(Box::new(move || {
            if let Err(error) = committed.lock().write(zxid) {
                debug!("how far the log is committed is not written down: {error}");
            }
            Ok(())
        }));
    }

    /// An epoch is durable: the newest ticket that is done.
    pub fn epoch_durable(&mut self) -> Option<Ticket> {
        self.done(Work::Epoch)
    }

    /// What a report of the log means: the newest ticket that is done, or why the member cannot go
    /// on.
    pub fn reported(&mut self, event: LogEvent) -> Result<Option<Ticket>, String> {
        match event {
            LogEvent::Durable(durable) => {
                let mut newest = None;
                while let Some((ticket, _)) = self.pending.pop_front_if(
                    |(_, work)| matches!(work, Work::Append(zxid) if *zxid <= durable),
                ) {
                    newest = Some(ticket);
                }
                Ok(newest)
            }
            LogEvent::Truncated { .. } => Ok(self.done(Work::Truncate)),
            LogEvent::Reset { .. } => Ok(self.done(Work::Install)),
            LogEvent::NotTruncated(error) => {
                Err(format!("the log could not be cut as the leader asked: {error}"))
            }
            LogEvent::Full { error, .. } => Err(format!(
                "{error}; this replica stops, and the others go on without it: make room and \
                 start it again"
            )),
            LogEvent::Failed(error) => Err(format!("the transaction log failed: {error}")),
            LogEvent::Rolled { .. } | LogEvent::Closed => Ok(None),
        }
    }

    fn done(&mut self, expected: Work) -> Option<Ticket> {
        let (ticket, work) = self.pending.pop_front()?;
        // The log works in the order of what it was given.
        assert_eq!(work, expected, "the disk reports out of order");
        Some(ticket)
    }
}
