//! The thread of a member: takes everything out of the mailbox at once, lets the protocol and the
//! replica work, and carries out what they want done (`effects`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};
use znodefs::Zxid;

use super::MemberEvent;
use super::disk::{MemberDisk, Reported};
use super::full_disk::FullDisk;
use super::message::{self, Message, ReceivedMessage, SharedIdentity};
use super::outside::Outside;
use super::read_only::ReadOnlyMode;
use super::snapshot_transfer::{ArrivedSnapshot, ArrivingSnapshot};
use crate::codec;
use crate::config::ensemble::{Member, ServerId};
use crate::link::LinkEvent;
use crate::link::quorum_port::PortEvent;
use crate::mutation::{Mutation, mutated};
use crate::replica::core_thread::{Backend, CoreResult};
use crate::replica::{Effects, Event, Now, Replica};
use crate::request_processor::EnsembleView;
use crate::server::Surroundings;
use crate::service::Service;
use crate::status::{ReplicaRole, ReplicaStatus};
use crate::zab::{self, ConnectionId, RoleKind, Zab};

/// How long a member that shuts down waits for the end of its leadership, and for the last messages
/// to leave.
const RETIRE_LIMIT_MS: u64 = 1_000;
const DRAIN_LIMIT: Duration = Duration::from_millis(300);

/// The longest wait for an event.
const WAIT_MS_MAX: u64 = 3_600_000;

/// Messages from a learner or the leader that are not yet understood are dropped when their
/// connection is.
pub(super) struct QuorumConnection {
    pub peer: zab::ServerId,
    pub outgoing: bool,
}

/// A member of an ensemble.
pub struct Driver {
    pub(super) service: Arc<Service>,
    pub(super) surroundings: Surroundings,
    pub(super) replica: Replica,
    pub(super) zab: Zab,
    pub(super) disk: MemberDisk,
    pub(super) outside: Arc<dyn Outside>,
    /// The connections that the protocol knows; in order, for they are sent to in this order.
    pub(super) connections: BTreeMap<u64, QuorumConnection>,
    pub(super) arriving: Option<ArrivingSnapshot>,
    pub(super) arrived: Option<ArrivedSnapshot>,
    pub(super) read_only: ReadOnlyMode,
    pub(super) full_disk: FullDisk,
    /// What the replica wants done.
    pub(super) effects: Effects,
    pub(super) now: Now,
    pub(super) retired: bool,
    /// The version of the committed configuration, and whether this replica is in it.
    pub(super) configured: Zxid,
    pub(super) is_member: bool,
    /// Where this replica listens, `HOST:PORT`.
    pub(super) listening: HashSet<String>,
    /// Its line in the committed configuration.
    pub(super) own_line: Option<Member>,
    /// What the request processor knows of the ensemble.
    pub(super) shown: EnsembleView,
    status: ReplicaStatus,
    zab_effects: Vec<zab::Effect>,
    stop_by_ms: Option<u64>,
}

/// What a driver is made of.
pub(super) struct DriverParts {
    pub service: Arc<Service>,
    pub surroundings: Surroundings,
    pub replica: Replica,
    pub zab: Zab,
    pub disk: MemberDisk,
    pub outside: Arc<dyn Outside>,
    pub read_only: ReadOnlyMode,
    pub configured: Zxid,
    pub is_member: bool,
    pub listening: HashSet<String>,
}

impl Driver {
    pub(super) fn new(parts: DriverParts) -> Driver {
        #[cfg(any(test, feature = "mutations"))]
        let zab = parts.zab.with_mutation(crate::mutation::protocol_mutation_of_process());
        #[cfg(not(any(test, feature = "mutations")))]
        let zab = parts.zab;
        Driver {
            service: parts.service,
            surroundings: parts.surroundings,
            replica: parts.replica,
            zab,
            disk: parts.disk,
            outside: parts.outside,
            connections: BTreeMap::new(),
            arriving: None,
            arrived: None,
            read_only: parts.read_only,
            full_disk: FullDisk::new(),
            effects: Effects::default(),
            now: Now::default(),
            retired: false,
            configured: parts.configured,
            is_member: parts.is_member,
            listening: parts.listening,
            own_line: None,
            shown: EnsembleView::default(),
            status: ReplicaStatus::default(),
            zab_effects: Vec::new(),
            stop_by_ms: None,
        }
    }

    /// The protocol's state.
    pub fn zab(&self) -> &Zab {
        &self.zab
    }

    /// Makes a deliberate mistake in the protocol from now on.
    #[cfg(any(test, feature = "mutations"))]
    pub fn set_mutation(&mut self, mutation: Option<zab::Mutation>) {
        self.zab.set_mutation(mutation);
    }

    /// The bytes of a packet, for a simulation that speaks in a member's place.
    #[cfg(any(test, feature = "mutations"))]
    pub fn encode_packet(packet: &zab::Packet) -> Result<Vec<u8>, codec::CodecError> {
        message::encode(&Message::Packet(packet))
    }

    /// The replica's.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Whether the member has shut down.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Works until the end.
    pub(super) fn run(&mut self) -> CoreResult {
        let mut events = Vec::new();
        self.begin()?;
        while !self.retired {
            let wait_ms = self.next_due_ms().saturating_sub(self.now.monotonic_ms);
            let wait = Duration::from_millis(wait_ms.min(WAIT_MS_MAX));
            self.service.mailbox.take(&mut events, wait);
            self.turn(&mut events)?;
        }
        self.finish();
        Ok(())
    }

    /// The member begins to look for a leader.
    pub fn begin(&mut self) -> CoreResult {
        self.look_at_the_clock();
        let quorum = self.zab.quorum().clone();
        self.configure(&quorum)?;
        self.step(zab::Event::Start)?;
        self.carry_out()?;
        self.publish_status();
        Ok(())
    }

    /// Takes in what has happened meanwhile, time included.
    pub fn turn(&mut self, events: &mut Vec<Event>) -> CoreResult {
        self.look_at_the_clock();
        for event in events.drain(..) {
            self.on_event(event)?;
        }
        if self.zab.deadline().is_some_and(|due| due <= self.now.monotonic_ms) {
            self.step(zab::Event::Tick)?;
        }
        self.replica.tick(self.now, &mut self.effects);
        self.retired |= self.stop_by_ms.is_some_and(|by| by <= self.now.monotonic_ms);
        self.look_at_full_disk()?;
        self.carry_out()?;
        self.look_at_read_only_mode();
        self.publish_status();
        Ok(())
    }

    fn look_at_the_clock(&mut self) {
        let clock = &self.service.clock;
        self.now = Now { monotonic_ms: clock.monotonic_ms(), wall_ms: clock.wall_ms() };
    }

    /// When the next [`turn`](Self::turn) is due, even if nothing happens; milliseconds of the
    /// monotonic clock.
    pub fn next_due_ms(&self) -> u64 {
        let stop = self.stop_by_ms.unwrap_or(u64::MAX);
        let read_only = self.read_only.next_due_ms(self.delivered());
        let zab = self.zab.deadline().unwrap_or(u64::MAX);
        let room = self.full_disk.next_due_ms();
        self.replica.next_due_ms().min(zab).min(read_only).min(room).min(stop)
    }

    /// Lets the last messages leave, then closes the log.
    fn finish(&mut self) {
        let (pause, mut left) = (Duration::from_millis(2), DRAIN_LIMIT);
        while !self.outside.is_drained() && !left.is_zero() {
            std::thread::sleep(pause);
            left = left.saturating_sub(pause);
        }
        self.read_only.note_now();
        self.note_committed();
        if let Some(backend) = self.disk.backend() {
            backend.close();
        }
    }

    /// Begins to serve reads without a quorum when it is time for that.
    fn look_at_read_only_mode(&mut self) {
        if self.read_only.begins(self.zab.role(), self.now.monotonic_ms) {
            warn!("there is no quorum: clients that ask for it are served reads only");
            self.replica.start_serving_read_only();
        }
        self.note_committed();
    }

    /// How far the tree is for certain. A snapshot that found no room counts as delivered to the
    /// protocol until it is told what the disk holds.
    fn delivered(&self) -> Zxid {
        match self.full_disk.is_full() {
            true => Zxid::ZERO,
            false => self.zab.delivered(),
        }
    }

    fn note_committed(&mut self) {
        let committed = match mutated(Mutation::LoggedNotedAsCommitted) {
            true => self.zab.last_logged(),
            false => self.delivered(),
        };
        if let Some(zxid) = self.read_only.note(committed, self.now.monotonic_ms) {
            self.disk.note_committed(zxid);
        }
    }

    /// Ends read-only service, since the tree is about to change: its clients come again.
    pub fn end_read_only_service(&mut self) {
        if mutated(Mutation::ReadOnlyGoesOn) {
            return;
        }
        if self.read_only.ends() {
            info!("there is a quorum again: read-only service ends");
            self.stop_serving();
        }
    }

    /// Nobody is served anymore.
    pub fn stop_serving(&mut self) {
        self.replica.stop_serving(&mut self.effects);
        for connection in self.service.connections.all() {
            connection.close();
        }
    }

    fn on_event(&mut self, event: Event) -> CoreResult {
        match event {
            Event::Member(event) => self.on_member_event(event),
            Event::Stop => {
                self.stop_by_ms.get_or_insert(self.now.monotonic_ms + RETIRE_LIMIT_MS);
                self.step(zab::Event::Shutdown)
            }
            other => {
                if let Event::SnapshotDone(Ok(_)) = &other {
                    self.read_only.note_now();
                }
                self.replica.handle(other, self.now, &mut self.effects);
                Ok(())
            }
        }
    }

    fn on_member_event(&mut self, event: MemberEvent) -> CoreResult {
        match event {
            MemberEvent::Link(event) => self.on_link_event(event),
            MemberEvent::Port(event) => self.on_port_event(event),
            MemberEvent::Log(event) => match self.disk.reported(event)? {
                Reported::Done(ticket) => self.step(zab::Event::Durable(ticket)),
                Reported::Resumed(last) => self.come_back(last),
                Reported::Nothing => self.leave_if_disk_is_full(),
            },
            MemberEvent::EpochDurable => match self.disk.epoch_durable() {
                Some(ticket) => self.step(zab::Event::Durable(ticket)),
                None => Ok(()),
            },
            MemberEvent::LogRead(read, answer) => self.step(zab::Event::LogRead { read, answer }),
            MemberEvent::SnapshotProgress(connection) => {
                self.step(zab::Event::Progress(connection))
            }
        }
    }

    fn on_link_event(&mut self, event: LinkEvent) -> CoreResult {
        match event {
            LinkEvent::Connected { peer } => self.step(zab::Event::LinkUp(peer)),
            LinkEvent::Lost { peer, .. } => self.step(zab::Event::LinkDown(peer)),
            LinkEvent::Message { peer, payload } => match codec::decode(&payload) {
                Ok(notification) => {
                    self.step(zab::Event::Notification { from: peer, notification })
                }
                Err(error) => {
                    warn!("replica {peer} sent what is no notification: {error}");
                    self.outside.break_link(peer, "it sent what is no notification");
                    Ok(())
                }
            },
        }
    }

    fn on_port_event(&mut self, event: PortEvent) -> CoreResult {
        match event {
            PortEvent::Connected { connection, peer, outgoing } => {
                self.connections.insert(connection, QuorumConnection { peer, outgoing });
                if !outgoing && let Some(identity) = self.disk.identity().cloned() {
                    self.send_identity(connection, identity)?;
                }
                let connection = ConnectionId(connection);
                self.step(zab::Event::Connected { connection, peer, outgoing })
            }
            PortEvent::ConnectFailed { peer, reason } => {
                debug!("leader {peer} not reached: {reason}");
                self.step(zab::Event::ConnectFailed { peer })
            }
            PortEvent::Disconnected { connection, .. } => {
                if self.connections.remove(&connection).is_none() {
                    return Ok(());
                }
                self.forget_snapshot(connection);
                self.step(zab::Event::Disconnected(ConnectionId(connection)))
            }
            PortEvent::Message { connection, payload } => {
                if !self.connections.contains_key(&connection) {
                    return Ok(());
                }
                match codec::decode::<ReceivedMessage>(&payload) {
                    Ok(message) => self.on_message(connection, message),
                    Err(error) => {
                        self.give_up(connection, &format!("it sent what is no message: {error}"))
                    }
                }
            }
        }
    }

    fn on_message(&mut self, connection: u64, message: ReceivedMessage) -> CoreResult {
        match message {
            Message::Packet(packet) => self.on_packet(connection, packet),
            Message::Identity(identity) => self.on_identity(connection, identity),
            Message::SnapshotBegin { zxid } => {
                let seed = self.random_number()?;
                let Some(backend) = self.disk.backend() else {
                    return self.give_up(connection, "it sent a snapshot before its identity");
                };
                let id = ConnectionId(connection);
                match ArrivingSnapshot::begin(id, zxid, backend.snapshots(), seed) {
                    Ok(arriving) => self.arriving = Some(arriving),
                    Err(error) if error.is_full() => self.disk.block(error.to_string()),
                    Err(error) => return Err(format!("a snapshot cannot be written: {error}")),
                }
                self.leave_if_disk_is_full()
            }
            Message::SnapshotBlock(block) => {
                let id = ConnectionId(connection);
                let Some(arriving) = self.arriving.as_mut().filter(|one| one.connection == id)
                else {
                    return self.give_up(connection, "it sent part of no snapshot");
                };
                if let Err(error) = arriving.block(&block) {
                    if error.is_full() {
                        self.disk.block(error.to_string());
                        return self.leave_if_disk_is_full();
                    }
                    return self
                        .give_up(connection, &format!("its snapshot is of no use: {error}"));
                }
                self.step(zab::Event::Progress(id))
            }
        }
    }

    fn on_packet(&mut self, connection: u64, packet: zab::Packet) -> CoreResult {
        let id = ConnectionId(connection);
        match &packet {
            zab::Packet::Snap { .. } => {
                let arriving = self.arriving.take().filter(|one| one.connection == id);
                match arriving.map(ArrivingSnapshot::arrived) {
                    Some(Ok(arrived)) => self.arrived = Some(arrived),
                    Some(Err(error)) => {
                        let reason = format!("its snapshot is of no use: {error}");
                        return self.give_up(connection, &reason);
                    }
                    None => return self.give_up(connection, "it named a snapshot and sent none"),
                }
            }
            zab::Packet::Ping { .. } if self.connections[&connection].outgoing => {
                self.replica.take_touched(&mut self.effects);
                for event in std::mem::take(&mut self.effects.zab) {
                    self.step(event)?;
                }
            }
            _ => {}
        }
        let step = self.step(zab::Event::Packet { connection: id, packet });
        self.arrived = None;
        step
    }

    fn on_identity(&mut self, connection: u64, identity: SharedIdentity) -> CoreResult {
        if !self.connections[&connection].outgoing {
            return self.give_up(connection, "it is no leader and sent an identity");
        }
        if let Err(error) = self.disk.adopt(identity.clone()) {
            let refused = matches!(error, super::disk::DiskError::OtherEnsemble { .. });
            if refused {
                return self.give_up(connection, &error.to_string());
            }
            if error.is_full() {
                self.disk.block(error.to_string());
                return self.leave_if_disk_is_full();
            }
            return Err(error.to_string());
        }
        self.identity_is_known(&identity);
        Ok(())
    }

    /// From now on strangers are kept out.
    pub(super) fn identity_is_known(&mut self, identity: &SharedIdentity) {
        self.outside.set_ensemble_id(identity.ensemble_id);
        self.replica.set_password_key(identity.key());
    }

    pub(super) fn send_identity(
        &mut self,
        connection: u64,
        identity: SharedIdentity,
    ) -> CoreResult {
        let payload = message::encode(&Message::Identity(identity))
            .map_err(|error| format!("the identity cannot be sent: {error}"))?;
        self.outside.send(connection, &payload);
        Ok(())
    }

    /// Closes a connection whose other end makes no sense.
    fn give_up(&mut self, connection: u64, reason: &str) -> CoreResult {
        let Some(gone) = self.connections.remove(&connection) else { return Ok(()) };
        warn!("the connection with replica {} is closed: {reason}", gone.peer);
        self.outside.disconnect(connection);
        self.forget_snapshot(connection);
        self.step(zab::Event::Disconnected(ConnectionId(connection)))
    }

    pub(super) fn forget_snapshot(&mut self, connection: u64) {
        let connection = ConnectionId(connection);
        self.arriving.take_if(|arriving| arriving.connection == connection);
        self.arrived.take_if(|arrived| arrived.connection == connection);
    }

    pub(super) fn random_number(&self) -> Result<u64, String> {
        self.surroundings.random_number().map_err(|error| format!("no randomness: {error}"))
    }

    /// Tells the protocol one event and carries out what it wants.
    pub fn step(&mut self, event: zab::Event) -> CoreResult {
        let mut effects = std::mem::take(&mut self.zab_effects);
        self.zab.step(self.now.monotonic_ms, event, &mut effects);
        for effect in effects.drain(..) {
            self.outside.observe(&effect);
            self.execute(effect)?;
        }
        self.zab_effects = effects;
        self.leave_if_disk_is_full()
    }

    /// Carries out what the replica wants, until nothing is left.
    fn carry_out(&mut self) -> CoreResult {
        loop {
            if let Some(reason) = self.effects.fatal.take() {
                return Err(reason);
            }
            if !self.effects.append.ends.is_empty() {
                let batch = std::mem::take(&mut self.effects.append);
                self.step(zab::Event::Propose(batch.into_entries()))?;
                continue;
            }
            if self.effects.zab.is_empty() {
                break;
            }
            for event in std::mem::take(&mut self.effects.zab) {
                self.step(event)?;
            }
        }
        for connection in self.effects.wake.drain(..) {
            connection.wake();
        }
        if std::mem::take(&mut self.effects.take_snapshot)
            && let Some(backend) = self.disk.backend()
        {
            backend.take_snapshot();
        }
        Ok(())
    }

    fn publish_status(&mut self) {
        self.show_ensemble();
        let role = match self.zab.role() {
            RoleKind::Looking | RoleKind::Retired => ReplicaRole::Looking,
            RoleKind::Following(_) => ReplicaRole::Follower,
            RoleKind::Observing(_) => ReplicaRole::Observer,
            RoleKind::Leading => ReplicaRole::Leader,
        };
        let leader = match self.zab.role() {
            RoleKind::Following(leader) | RoleKind::Observing(leader) => Some(leader.0 as u8),
            RoleKind::Leading => Some(self.service.config.server_id.0),
            RoleKind::Looking | RoleKind::Retired => None,
        };
        let learners = self.zab.learners();
        let status = ReplicaStatus {
            role,
            serving: self.zab.is_serving(),
            read_only: self.read_only.serves(),
            disk_full: self.full_disk.is_full(),
            leader: leader.map(ServerId),
            epoch: self.zab.current_epoch(),
            voters: self.zab.quorum().voters().len(),
            synced_followers: learners.synced_followers,
            synced_observers: learners.synced_observers,
            learners: learners.connected,
        };
        if status != self.status {
            if status.role != self.status.role || status.leader != self.status.leader {
                info!("this replica is {}", role.name());
            }
            self.status = status;
            *self.service.status.lock() = status;
        }
    }
}
