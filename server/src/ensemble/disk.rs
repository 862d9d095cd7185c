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
use crate::persistence::disk::{Operation, remove_if_there};
use crate::persistence::{
    self, Committed, CommittedFile, Disk, EnsembleId, LogEvent, LogHandle, ReplicaIdentity,
    Storage, StorageError, StorageParts,
};
use crate::replica::Event;
use crate::replica::core_thread::Backend;
use crate::server::backend::{LogReporter, StorageBackend, Workers};
use crate::server::{Disks, StartError, backend, recovery};
use crate::service::Service;
use crate::session_id::PasswordKey;
use crate::zab::{Ensemble, Entry, OnDisk, Ticket};

/// The file with which it is tried whether there is room. Left over, it is removed at a start.
const ROOM_NAME: &str = "room.tmp";

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

impl DiskError {
    /// Whether there was no room, and nothing has changed.
    pub fn is_full(&self) -> bool {
        match self {
            DiskError::Start(StartError::Storage(StorageError::Disk(error))) => {
                error.is_full_before_change()
            }
            DiskError::Start(StartError::Storage(StorageError::Epoch(error))) => error.is_full(),
            _ => false,
        }
    }
}

/// What a report of the log means for the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reported {
    /// Nothing.
    Nothing,
    /// Everything up to this ticket is done.
    Done(Ticket),
    /// The log, which was full, takes more behind this transaction.
    Resumed(Zxid),
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
    /// The disk is full, and nothing is given to it.
    blocked: bool,
    /// Why, until the driver has heard of it.
    newly_full: Option<String>,
    /// The committed configuration for which there was no room.
    unkept: Option<Ensemble>,
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
            blocked: false,
            newly_full: None,
            unkept: None,
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
            if !self.is_blank() {
                let (own, leader) = (own.to_string(), ensemble_id.to_string());
                return Err(DiskError::OtherEnsemble { own, leader });
            }
            info!("ensemble {own} was never formed: this replica leaves it for {ensemble_id}");
            self.change_over(own, ensemble_id)?;
        }
        recovery::write_password_key(&self.disks, ensemble_id, &identity.key())?;
        if let Some(mut storage) = self.unjoined.take() {
            if let Err(error) = storage.join(ensemble_id) {
                self.unjoined = Some(storage);
                return Err(error.into());
            }
            info!("this replica is now a member of ensemble {ensemble_id}");
            self.join(storage.into_parts()?)?;
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Keeps the committed configuration, durably, or as soon as there is room. Before the member
    /// belongs to an ensemble there is nothing that it could be lost with.
    ///
    /// Until it is kept, a start finds it in the log as one that may not be committed: then a quorum
    /// of both decides, and nothing is lost but time.
    pub fn keep_configuration(&mut self, ensemble: &Ensemble) -> Result<(), DiskError> {
        self.unkept = None;
        if let Some(reason) = self.write_configuration(ensemble)? {
            self.unkept = Some(ensemble.clone());
            self.block(reason);
        }
        Ok(())
    }

    /// Keeps the members of server lines. It is no loss if there is no room.
    pub fn keep_first_configuration(&self, ensemble: &Ensemble) -> Result<(), DiskError> {
        self.write_configuration(ensemble).map(drop)
    }

    /// Writes a configuration, if this is a member; without room the reason, and nothing has changed.
    fn write_configuration(&self, ensemble: &Ensemble) -> Result<Option<String>, DiskError> {
        let Some(backend) = &self.joined else { return Ok(None) };
        let kept = membership::keep(&self.disks, backend.ensemble_id(), ensemble);
        match kept.map_err(DiskError::from) {
            Ok(()) => Ok(None),
            Err(error) if error.is_full() => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Keeps what there was no room for; whether nothing is left of that.
    pub fn keep_what_is_left(&mut self) -> Result<bool, DiskError> {
        if let Some(ensemble) = self.unkept.take() {
            self.keep_configuration(&ensemble)?;
        }
        Ok(self.unkept.is_none())
    }

    /// Whether nothing is here but a promise: the leader that named the ensemble was lost before it
    /// became one for this member.
    fn is_blank(&mut self) -> bool {
        let idle = self.pending.is_empty();
        self.joined.as_ref().is_some_and(|backend| {
            let epochs = backend.epochs();
            let epochs = epochs.lock();
            let adopted = epochs.current().max(epochs.distrusted()) > Epoch(0);
            let log = backend.reader();
            idle && !adopted && log.has_no_segments() && log.last_zxid() == Zxid::ZERO
        })
    }

    /// Becomes a member of another ensemble instead of one that was never formed, in one step on disk.
    /// A promise made there binds nobody: who leaves has not acknowledged that ensemble's leader, and
    /// never will. Without room for that step nothing has changed.
    fn change_over(&mut self, left: EnsembleId, to: EnsembleId) -> Result<(), DiskError> {
        let replica_id = u64::from(self.service.config.server_id.0);
        let identity = ReplicaIdentity { ensemble_id: to, replica_id };
        identity.write_over(left, &*self.disks.data).map_err(StorageError::from)?;
        // Until its key is written as well the leader is asked again.
        self.identity = None;
        if let Some(mut backend) = self.joined.take() {
            backend.close();
        }
        let storage = Storage::open(
            Arc::clone(&self.disks.data),
            Arc::clone(&self.disks.log),
            recovery::member_storage_options(&self.service.config),
        )?;
        self.join(storage.into_parts()?)
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

    /// The log, unless it is full or there is none yet.
    fn log(&self) -> Option<&LogHandle> {
        self.joined.as_ref().filter(|_| !self.blocked).map(StorageBackend::log)
    }

    /// The disk is full: it is given nothing more, and what is on its way is forgotten.
    pub fn block(&mut self, reason: String) {
        self.pending.clear();
        if !std::mem::replace(&mut self.blocked, true) {
            self.newly_full = Some(reason);
        }
    }

    /// Why the disk has become full, once.
    pub fn take_newly_full(&mut self) -> Option<String> {
        self.newly_full.take()
    }

    /// Whether this much can be written.
    pub fn has_room(&self, bytes: u64) -> bool {
        let mut disks = vec![&*self.disks.data];
        if self.disks.log.path() != self.disks.data.path() {
            disks.push(&*self.disks.log);
        }
        disks.into_iter().all(|disk| match try_room(disk, bytes) {
            Ok(()) => true,
            Err(error) => {
                debug!("still no room: {error}");
                false
            }
        })
    }

    /// There is room again. The log is asked to go on, which it reports; `true` where there is none.
    pub fn resume(&mut self) -> bool {
        if let Some(backend) = &self.joined {
            backend.log().resume();
        }
        self.joined.is_none()
    }

    /// What the disk holds, now that the log goes on behind `last`.
    pub fn unblock(&mut self, last: Zxid) -> OnDisk {
        self.blocked = false;
        self.newly_full = None;
        let (accepted_epoch, current_epoch) = match &self.joined {
            Some(backend) => {
                let epochs = backend.epochs();
                let epochs = epochs.lock();
                (epochs.accepted(), epochs.current())
            }
            None => (Epoch(0), Epoch(0)),
        };
        let delivered = self.service.database.tree.read().last_applied();
        OnDisk { accepted_epoch, current_epoch, last_logged: last, delivered }
    }

    /// Appends to the log.
    pub fn append(&mut self, ticket: Ticket, entries: &[Entry]) {
        let (Some(log), Some(last)) = (self.log(), entries.last()) else { return };
        let txns = entries.iter().map(|entry| (entry.zxid, entry.payload.clone())).collect();
        log.append(txns);
        self.pending.push_back((ticket, Work::Append(last.zxid)));
    }

    /// Cuts the log.
    pub fn truncate(&mut self, ticket: Ticket, zxid: Zxid) {
        let Some(log) = self.log() else { return };
        log.truncate(zxid);
        self.pending.push_back((ticket, Work::Truncate));
    }

    /// Empties the log for the history that an installed snapshot begins.
    pub fn reset(&mut self, ticket: Ticket, generation: u64, base: Zxid) {
        let Some(log) = self.log() else { return };
        log.reset(generation, base);
        self.pending.push_back((ticket, Work::Install));
    }

    /// Replaces an epoch, behind everything queued before.
    pub fn persist_epoch(&mut self, ticket: Ticket, kind: EpochKind, epoch: Epoch) {
        let Some(backend) = self.joined.as_ref().filter(|_| !self.blocked) else { return };
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
        let (Some(backend), Some(file)) = (&self.joined, &self.committed) else { return };
        let generation = backend.snapshots().generation();
        let committed = Committed { zxid, generation, synced: self.service.config.force_sync };
        let file = Arc::clone(file);
        // On the log's thread: a disk may let a write wait.
        backend.log().barrier(Box::new(move || {
            if let Err(error) = file.lock().write(committed) {
                debug!("how far the log is committed is not written down: {error}");
            }
            Ok(())
        }));
    }

    /// An epoch is durable: the newest ticket that is done.
    pub fn epoch_durable(&mut self) -> Option<Ticket> {
        if self.blocked { None } else { self.done(Work::Epoch) }
    }

    /// What a report of the log means, or why the member cannot go on.
    pub fn reported(&mut self, event: LogEvent) -> Result<Reported, String> {
        let done = |ticket: Option<Ticket>| ticket.map_or(Reported::Nothing, Reported::Done);
        match event {
            LogEvent::Full { error, .. } => {
                self.block(error.to_string());
                Ok(Reported::Nothing)
            }
            LogEvent::Resumed { last } => Ok(Reported::Resumed(last)),
            // Of what was given to it before it was full.
            LogEvent::Durable(_) | LogEvent::Truncated { .. } | LogEvent::Reset { .. }
                if self.blocked =>
            {
                Ok(Reported::Nothing)
            }
            LogEvent::Durable(durable) => {
                let mut newest = None;
                while let Some((ticket, _)) = self.pending.pop_front_if(
                    |(_, work)| matches!(work, Work::Append(zxid) if *zxid <= durable),
                ) {
                    newest = Some(ticket);
                }
                Ok(done(newest))
            }
            LogEvent::Truncated { .. } => Ok(done(self.done(Work::Truncate))),
            LogEvent::Reset { .. } => Ok(done(self.done(Work::Install))),
            LogEvent::NotTruncated(error) => {
                Err(format!("the log could not be cut as the leader asked: {error}"))
            }
            LogEvent::Failed(error) => Err(format!("the transaction log failed: {error}")),
            LogEvent::Rolled { .. } | LogEvent::Closed => Ok(Reported::Nothing),
        }
    }

    fn done(&mut self, expected: Work) -> Option<Ticket> {
        let (ticket, work) = self.pending.pop_front()?;
        // The log works in the order of what it was given.
        assert_eq!(work, expected, "the disk reports out of order");
        Some(ticket)
    }
}

/// Writes and removes a file, as large as what must be possible now.
fn try_room(disk: &dyn Disk, bytes: u64) -> Result<(), persistence::DiskError> {
    let free = disk.free_space()?;
    if free < bytes {
        let reason = format!("{free} bytes are free, {bytes} are needed");
        let source = std::io::Error::new(std::io::ErrorKind::StorageFull, reason);
        return Err(persistence::DiskError::new(Operation::FreeSpace, disk.path(), source));
    }
    remove_if_there(disk, ROOM_NAME)?;
    let written = disk.create_new(ROOM_NAME).and_then(|mut file| {
        file.preallocate(bytes)?;
        file.write_at(0, &[1; 4096])
    });
    remove_if_there(disk, ROOM_NAME)?;
    written
}
