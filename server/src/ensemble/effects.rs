//! Carries out what the protocol wants done, in its order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{error, info, warn};
use znodefs::Zxid;

use super::MemberEvent;
use super::disk::EpochKind;
use super::driver::Driver;
use super::log_read::{LogReading, LogRequest};
use super::message::{self, ENTRY_BYTES_MAX, Message, SharedIdentity};
use super::snapshot_transfer::SnapshotTransfer;
use crate::codec;
use crate::persistence::{EnsembleId, SnapshotError};
use crate::replica::Event;
use crate::replica::core_thread::CoreResult;
use crate::tree::SnapshotCursor;
use crate::zab::{ConnectionId, Effect, Ensemble, Entry, LogRead, Packet, RoleKind, Ticket};

/// Transactions read from the log and applied at once.
const DELIVERED_AT_ONCE: usize = 1024;

impl Driver {
    pub(super) fn execute(&mut self, effect: Effect) -> CoreResult {
        match effect {
            Effect::Notify { to, notification } => {
                let mut payload = Vec::new();
                codec::encode_into(&notification, &mut payload)
                    .map_err(|error| format!("a notification cannot be encoded: {error}"))?;
                for peer in to {
                    // It may be lost; it is told again.
                    self.outside.notify(peer, &payload);
                }
                Ok(())
            }
            Effect::Connect { peer } => {
                self.outside.connect(peer);
                Ok(())
            }
            Effect::Disconnect(ConnectionId(connection)) => {
                self.connections.remove(&connection);
                self.forget_snapshot(connection);
                self.outside.disconnect(connection);
                Ok(())
            }
            Effect::Send { to, packet } => self.send(&to, packet),
            Effect::SendSnapshot { connection, zxid, configuration } => {
                self.send_snapshot(connection, zxid, configuration)
            }
            Effect::Configure(quorum) => self.configure(&quorum),
            Effect::AppendTxns { .. }
            | Effect::TruncateLog { .. }
            | Effect::InstallSnapshot { .. }
            | Effect::PersistAcceptedEpoch { .. }
            | Effect::PersistCurrentEpoch { .. }
            | Effect::ReadLog { .. }
            | Effect::Deliver(_)
            | Effect::DeliverFromLog { .. } => self.execute_on_data(effect),
            _ => self.execute_on_service(effect),
        }
    }

    fn execute_on_data(&mut self, effect: Effect) -> CoreResult {
        match effect {
            Effect::AppendTxns { ticket, entries } => {
                self.disk.append(ticket, &entries);
                Ok(())
            }
            Effect::TruncateLog { ticket, zxid } => {
                info!("the log is cut behind {zxid}: the rest was never committed");
                self.disk.truncate(ticket, zxid);
                Ok(())
            }
            Effect::InstallSnapshot { ticket, connection, zxid } => {
                self.install_snapshot(ticket, connection, zxid)
            }
            Effect::PersistAcceptedEpoch { ticket, epoch } => {
                self.ensure_identity()?;
                self.disk.persist_epoch(ticket, EpochKind::Accepted, epoch);
                Ok(())
            }
            Effect::PersistCurrentEpoch { ticket, epoch } => {
                self.disk.persist_epoch(ticket, EpochKind::Current, epoch);
                Ok(())
            }
            // Who has nothing is served sooner with the tree than with all that ever happened to it.
            Effect::ReadLog { read, from: Zxid::ZERO, required: false, .. } => {
                let (service, answer) = (&self.service, LogRead::Unavailable);
                service.mailbox.push(Event::Member(MemberEvent::LogRead(read, answer)));
                Ok(())
            }
            Effect::ReadLog { read, connection, from, through, required: _ } => {
                let Some(backend) = self.disk.backend() else { return Ok(()) };
                let request = LogRequest { read, connection, from, through };
                let (service, reader) = (Arc::clone(&self.service), backend.reader().clone());
                self.outside.read_log(LogReading { service, reader, request });
                Ok(())
            }
            Effect::Deliver(entries) => {
                self.end_read_only_service();
                self.replica.deliver_entries(&entries, &mut self.effects);
                Ok(())
            }
            Effect::DeliverFromLog { after, through } => self.deliver_from_log(after, through),
            _ => Ok(()),
        }
    }

    fn execute_on_service(&mut self, effect: Effect) -> CoreResult {
        let effects = &mut self.effects;
        match effect {
            Effect::ChangeRole { role, reason } => {
                info!("{}: {reason}", describe(role));
                self.read_only.role_changed(role, self.now.monotonic_ms);
            }
            Effect::StartServing { leader, epoch } => {
                let leads = leader.0 == u32::from(self.service.config.server_id.0);
                info!("clients are served; replica {leader} leads in epoch {epoch}");
                self.end_read_only_service();
                self.replica.set_now(self.now);
                self.replica.start_serving(leads, epoch);
                self.read_only.service_begins();
                self.keep_first_configuration()?;
                if leads {
                    self.propose_first_configuration();
                }
            }
            Effect::StopServing => {
                warn!("clients are served no longer: their connections are closed");
                self.stop_serving();
                self.read_only.note_now();
            }
            Effect::Request { from, payload } => self.replica.forwarded(from, &payload, effects),
            Effect::SessionsTouched { touched, .. } => self.replica.sessions_touched(&touched),
            Effect::RevalidateSession { connection, from, session_id, timeout_ms } => {
                self.replica.revalidate(connection, from, session_id, timeout_ms, effects);
            }
            Effect::SessionRevalidated { session_id, valid, .. } => {
                self.replica.session_revalidated(session_id, valid, effects);
            }
            Effect::SyncDone { token } => self.replica.sync_done(token, effects),
            Effect::Retired => self.retired = true,
            Effect::Halt { reason } => return Err(reason),
            _ => {}
        }
        Ok(())
    }

    fn send(&mut self, to: &[ConnectionId], packet: Packet) -> CoreResult {
        let pieces = match packet {
            Packet::Proposal { entries } if payload_bytes(&entries) > ENTRY_BYTES_MAX => {
                let packet = |entries| Packet::Proposal { entries };
                split(&entries).map(packet).collect()
            }
            Packet::Inform { entries } if payload_bytes(&entries) > ENTRY_BYTES_MAX => {
                let packet = |entries| Packet::Inform { entries };
                split(&entries).map(packet).collect()
            }
            other => vec![other],
        };
        for packet in &pieces {
            let payload = message::encode(&Message::Packet(packet))
                .map_err(|error| format!("a packet cannot be encoded: {error}"))?;
            for connection in to {
                self.outside.send(connection.0, &payload);
            }
        }
        Ok(())
    }

    fn send_snapshot(
        &mut self,
        connection: ConnectionId,
        zxid: Zxid,
        configuration: Ensemble,
    ) -> CoreResult {
        let cursor = SnapshotCursor::new(&self.service.database.tree.read());
        if cursor.zxid() != zxid {
            let found = cursor.zxid();
            return Err(format!("the tree is at {found}, a snapshot of {zxid} was asked for"));
        }
        info!("a snapshot of {zxid} goes to a learner");
        let service = Arc::clone(&self.service);
        let transfer = SnapshotTransfer::new(service, connection, cursor, configuration);
        self.outside.send_snapshot(transfer);
        Ok(())
    }

    fn install_snapshot(
        &mut self,
        ticket: Ticket,
        connection: ConnectionId,
        zxid: Zxid,
    ) -> CoreResult {
        let arrived = self.arrived.take().filter(|one| one.connection == connection);
        let Some(arrived) = arrived else {
            return Err(format!("a snapshot of {zxid} is to be installed and none has come"));
        };
        let (info, tree) = match arrived.install() {
            Ok(installed) => installed,
            Err(SnapshotError::Disk(error)) if error.is_full_before_change() => {
                self.disk.block(error.to_string());
                return Ok(());
            }
            Err(error) => {
                return Err(format!("the leader's snapshot cannot be installed: {error}"));
            }
        };
        self.end_read_only_service();
        self.read_only.tree_replaced();
        let database = &self.service.database;
        let old = {
            let mut current = database.tree.write();
            database.replacements.fetch_add(1, Ordering::AcqRel);
            std::mem::replace(&mut *current, tree)
        };
        self.outside.discard(old);
        info!("the leader's snapshot of {zxid} replaces this replica's history");
        self.disk.reset(ticket, info.generation, zxid);
        Ok(())
    }

    /// The first leader of a new ensemble makes its identity, before its first epoch is promised.
    fn ensure_identity(&mut self) -> CoreResult {
        if self.disk.identity().is_some() {
            return Ok(());
        }
        if self.zab.role() != RoleKind::Leading {
            return Err("the leader has not told which ensemble this is".into());
        }
        let no_randomness = |error| format!("no randomness: {error}");
        let ensemble_id = match self.disk.backend() {
            Some(backend) => backend.ensemble_id(),
            None => EnsembleId(self.surroundings.random_bytes().map_err(no_randomness)?),
        };
        let password_key = self.surroundings.random_bytes().map_err(no_randomness)?;
        let identity = SharedIdentity { ensemble_id, password_key };
        match self.disk.adopt(identity.clone()) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                self.disk.block(error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        }
        self.identity_is_known(&identity);
        let incoming = self.connections.iter().filter(|(_, one)| !one.outgoing);
        let incoming: Vec<u64> = incoming.map(|(connection, _)| *connection).collect();
        for connection in incoming {
            self.send_identity(connection, identity.clone())?;
        }
        Ok(())
    }

    fn deliver_from_log(&mut self, after: Zxid, through: Zxid) -> CoreResult {
        self.end_read_only_service();
        let Some(backend) = self.disk.backend() else { return Ok(()) };
        let failed = |error| format!("the log cannot be read: {error}");
        let mut cursor = backend.reader().read_after(after).map_err(failed)?;
        let mut entries = Vec::new();
        let mut last = after;
        loop {
            let next = cursor.next_record().map_err(failed)?;
            let next = next.filter(|(zxid, _)| *zxid <= through);
            if let Some((zxid, payload)) = next {
                last = zxid;
                entries.push(Entry { zxid, payload: payload.to_vec().into() });
            }
            if entries.len() >= DELIVERED_AT_ONCE || (next.is_none() && !entries.is_empty()) {
                self.replica.deliver_entries(&entries, &mut self.effects);
                entries.clear();
            }
            if next.is_none() {
                break;
            }
        }
        if last != through {
            error!("the log ends at {last}, {through} was to be applied");
            return Err(format!("transactions from {last} to {through} are missing in the log"));
        }
        Ok(())
    }
}

fn describe(role: RoleKind) -> String {
    match role {
        RoleKind::Looking => "looking for a leader".into(),
        RoleKind::Following(leader) => format!("following replica {leader}"),
        RoleKind::Observing(leader) => format!("observing, replica {leader} leads"),
        RoleKind::Leading => "leading".into(),
        RoleKind::Retired => "retired".into(),
    }
}

fn payload_bytes(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.payload.len()).sum()
}

/// The entries in pieces of bounded size, at least one entry each.
fn split(entries: &[Entry]) -> impl Iterator<Item = Arc<[Entry]>> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        while count < rest.len() && (count == 0 || bytes < ENTRY_BYTES_MAX) {
            bytes += rest[count].payload.len();
            count += 1;
        }
        let (piece, others) = rest.split_at(count);
        rest = others;
        Some(piece.into())
    })
}
