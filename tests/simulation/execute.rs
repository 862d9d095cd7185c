//! The driver's part in a simulated run: executes a replica's effects, and checks them.

use znodefs::{Epoch, Zxid};
use znodefs_server::zab::{
    ConnectionId, Effect, Entry, Event, Packet, QuorumVerifier, RoleKind, Ticket,
};

use crate::database::{Write, configuration};
use crate::disk::Operation;
use crate::invariants::{Check, check_ack, check_new_leader_ack, check_quorum, violation};
use crate::network::Wire;
use crate::networked::Networked;
use crate::plan::Plan;
use crate::world::{Happening, Message, Work, World};

impl World {
    /// Does what a replica wants done.
    pub fn execute(&mut self, node: usize, effect: Effect) {
        self.counts.effects += 1;
        self.trace.effect(self.agenda.now(), node, &effect);
        match effect {
            Effect::Notify { to, notification } => {
                for peer in to {
                    self.notify(node, Plan::node(peer), &notification);
                }
            }
            Effect::Connect { peer } => {
                let (to, incarnation) = (Plan::node(peer), self.nodes[node].incarnation);
                let delay = self.network.delay(&mut self.random);
                self.agenda.schedule_in(delay, Happening::Connect { from: node, incarnation, to });
            }
            Effect::Disconnect(connection) => self.close(node, connection.0 as usize),
            Effect::Send { to, packet } => self.send(node, &to, packet),
            Effect::SendSnapshot { connection, zxid, configuration } => {
                self.counts.snapshots_sent += 1;
                let mut database = self.nodes[node].database.clone();
                let stale = self.plan.mutation.is_some() && database.zxid != zxid;
                assert!(stale || database.zxid == zxid, "snapshot of what is not applied");
                database.zxid = zxid;
                self.transmit(
                    node,
                    connection.0 as usize,
                    Wire::Message(Message::Snapshot(database, configuration)),
                );
            }
            Effect::StartServing { leader, epoch } => {
                let state = &mut self.nodes[node];
                state.serving = true;
                state.term += 1;
                if Plan::node(leader) == node {
                    let instance = (node, state.incarnation);
                    let order = &self.invariants.total_order;
                    let leadership = &mut self.invariants.leadership;
                    let check = leadership.establish(instance, epoch, &state.disk, order);
                    self.check(check);
                }
                let check = self.check_configuration(node);
                self.check(check);
            }
            Effect::StopServing => {
                self.nodes[node].serving = false;
                self.nodes[node].term += 1;
            }
            Effect::Request { payload, .. } => self.work.push_back((node, Work::Submit(payload))),
            Effect::SyncDone { token } => {
                let (term, applied) = (self.nodes[node].term, self.nodes[node].database.zxid);
                let check = self.invariants.clients.synced(node, term, applied, token);
                self.check(check);
            }
            Effect::ChangeRole { role, .. } => {
                self.counts.elections += u64::from(role == RoleKind::Leading);
            }
            Effect::Retired => self.retire(node),
            Effect::Halt { reason } => {
                self.check(violation("no replica contradicts its leader", reason));
            }
            Effect::SessionsTouched { .. }
            | Effect::RevalidateSession { .. }
            | Effect::SessionRevalidated { .. } => {}
            disk => self.execute_on_disk(node, disk),
        }
    }

    fn execute_on_disk(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Configure(quorum) => {
                let disk = &mut self.nodes[node].disk;
                // Before it belongs to an ensemble there is nothing that it could be lost with.
                if disk.accepted_epoch > Epoch(0) {
                    disk.configuration = quorum.committed().clone();
                }
            }
            Effect::Deliver(entries) => self.deliver(node, &entries),
            Effect::DeliverFromLog { after, through } => {
                self.deliver_from_log(node, after, through)
            }
            Effect::AppendTxns { ticket, entries } => {
                for entry in &*entries {
                    let before = std::mem::replace(&mut self.nodes[node].log_end, entry.zxid);
                    let check = self.invariants.history.append(node, before, entry);
                    self.check(check);
                }
                self.submit(node, ticket, Operation::Append(entries));
            }
            Effect::TruncateLog { ticket, zxid } => {
                self.counts.truncations += 1;
                let check = self.check_truncation(node, zxid);
                self.check(check);
                self.nodes[node].log_end = zxid;
                self.submit(node, ticket, Operation::Truncate(zxid));
            }
            Effect::InstallSnapshot { ticket, connection, zxid } => {
                let Some(database) = self.nodes[node].staged.remove(&connection) else {
                    let missing = format!("node {node} installs a snapshot it has not received");
                    self.check(violation("a snapshot is whole", missing));
                    return;
                };
                self.counts.snapshots_installed += 1;
                let order = &self.invariants.total_order;
                let check = order.check_state(node, &database, "a snapshot from its leader");
                self.check(check);
                self.nodes[node].log_end = zxid;
                self.nodes[node].database = database.clone();
                self.submit(node, ticket, Operation::Install(database));
            }
            Effect::PersistAcceptedEpoch { ticket, epoch } => {
                self.submit(node, ticket, Operation::AcceptedEpoch(epoch));
            }
            Effect::PersistCurrentEpoch { ticket, epoch } => {
                self.submit(node, ticket, Operation::CurrentEpoch(epoch));
            }
            Effect::ReadLog { read, from, through, required, .. } => {
                self.counts.log_reads += 1;
                let worth_max = if required { usize::MAX } else { self.plan.log_sync_max };
                let part_max = self.random.between(1, 1_000) as usize;
                let state = &self.nodes[node];
                let answer = state.disk.read(from, through, worth_max, part_max);
                let (incarnation, answer) = (state.incarnation, Box::new(answer));
                let delay = self.random.between(100, 5_000);
                self.agenda.schedule_in(delay, Happening::Read { node, incarnation, read, answer });
            }
            _ => {}
        }
    }

    fn submit(&mut self, node: usize, ticket: Ticket, operation: Operation) {
        let state = &mut self.nodes[node];
        if let Some(delay) = state.disk.submit(ticket, operation, &mut self.random) {
            let incarnation = state.incarnation;
            self.agenda.schedule_in(delay, Happening::Synced { node, incarnation });
        }
    }

    fn notify(&mut self, from: usize, to: usize, what: &znodefs_server::zab::Notification) {
        let lost = self.random.percent(self.network.loss_percent);
        if lost || self.network.is_blocked(from, to) || self.nodes[to].zab.is_none() {
            return;
        }
        let delay = self.network.delay(&mut self.random);
        let notification = Box::new(what.clone());
        self.agenda.schedule_in(delay, Happening::Notification { from, to, notification });
    }

    fn send(&mut self, node: usize, to: &[ConnectionId], packet: Packet) {
        let voter = self.nodes[node].zab.as_ref().is_some_and(|zab| {
            // In whatever configuration it knows of.
            zab.quorum().is_voter(Plan::id(node))
        });
        match &packet {
            Packet::Ack(ack) if voter => {
                let disk = &self.nodes[node].disk;
                let check = match ack.zxid().counter() {
                    0 => check_new_leader_ack(node, disk, ack.zxid().epoch())
                        .and_then(|()| check_ack(node, disk, self.nodes[node].new_leader_end)),
                    _ => check_ack(node, disk, ack.zxid()),
                };
                self.check(check);
            }
            Packet::AckEpoch(ack) if voter && ack.is_promise() => {
                let state = &self.nodes[node];
                let promised = state.zab.as_ref().map(|zab| zab.accepted_epoch());
                if promised != Some(state.disk.accepted_epoch) {
                    let synced = state.disk.accepted_epoch;
                    self.check(violation(
                        "a promise is backed by synced bytes",
                        format!("node {node} promises {promised:?}; on its disk is {synced}"),
                    ));
                }
            }
            _ => {}
        }
        for connection in to {
            let message = Message::Packet(packet.clone());
            self.transmit(node, connection.0 as usize, Wire::Message(message));
        }
    }

    /// Whoever serves goes by the configuration that its database shows, or by a newer one.
    fn check_configuration(&self, node: usize) -> Check {
        let state = &self.nodes[node];
        let shown = state.database.configuration.version;
        let known = state.zab.as_ref().map(|zab| zab.quorum().committed().version);
        if known.is_none_or(|known| known >= shown) {
            return Ok(());
        }
        violation(
            "a member goes by the configuration it has delivered",
            format!("node {node} goes by {known:?} and has delivered {shown}"),
        )
    }

    fn check_truncation(&self, node: usize, zxid: Zxid) -> Check {
        let order = &self.invariants.total_order;
        let state = &self.nodes[node];
        // Whoever has lost its vote may hold what was committed without it, after its leader decided
        // how to synchronize it; it is sent that again.
        let votes = state.zab.as_ref().is_some_and(|zab| zab.quorum().is_voter(Plan::id(node)));
        let is_lost = |entry: &&Entry| {
            order.is_committed(entry.zxid) && (votes || entry.zxid <= state.database.zxid)
        };
        let mut cut = state.disk.log.iter().rev().take_while(|entry| entry.zxid > zxid);
        let lost = cut.find(is_lost);
        match lost {
            None => Ok(()),
            Some(entry) => violation(
                "no committed transaction is ever truncated",
                format!("node {node} truncates to {zxid} and loses {}", entry.zxid),
            ),
        }
    }

    fn deliver_from_log(&mut self, node: usize, after: Zxid, through: Zxid) {
        let disk = &self.nodes[node].disk;
        let entries: Vec<Entry> = disk
            .log
            .iter()
            .filter(|entry| entry.zxid > after && entry.zxid <= through)
            .cloned()
            .collect();
        if entries.last().is_none_or(|entry| entry.zxid != through) || after < disk.base {
            let detail = format!("node {node} has not all of ({after}, {through}] in its log");
            self.check(violation("what is delivered is in the log", detail));
            return;
        }
        self.deliver(node, &entries);
    }

    fn deliver(&mut self, node: usize, entries: &[Entry]) {
        let mut first = None;
        let epoch = self.nodes[node].zab.as_ref().map_or(Epoch(0), |zab| zab.current_epoch());
        for entry in entries {
            let state = &mut self.nodes[node];
            let order = &mut self.invariants.total_order;
            let new = match order.deliver(node, epoch, &state.database, entry) {
                Ok(new) => new,
                Err(violation) => return self.check(Err(violation)),
            };
            let write = Write::decode(&entry.payload);
            state.database.apply(entry.zxid, &entry.payload);
            if let (true, Some(new)) = (new, configuration(entry)) {
                let old = self.invariants.configuration.replace(new.clone());
                let old = old.unwrap_or_else(|| self.plan.ensemble());
                self.check_committed(&QuorumVerifier::Joint { old, new }, entry.zxid);
            }
            let clients = &mut self.invariants.clients;
            if let (true, Some(write)) = (new, write) {
                first = Some(entry.zxid);
                let effect = clients.effect(entry.zxid, write.operation);
                self.check(effect);
            }
            let state = &self.nodes[node];
            if let (true, Some(write)) = (state.serving, write) {
                let clients = &mut self.invariants.clients;
                if clients.applied(node, state.term, entry.zxid, write.operation) {
                    self.tell_another_client();
                }
            }
        }
        if let Some(zxid) = first {
            let ensemble = self.invariants.configuration.clone();
            let ensemble = ensemble.unwrap_or_else(|| self.plan.ensemble());
            self.check_committed(&QuorumVerifier::Majority(ensemble), zxid);
        }
        let Some(last) = entries.last() else { return };
        let state = &self.nodes[node];
        let order = check_ack(node, &state.disk, last.zxid).and_then(|()| {
            self.invariants.total_order.check_state(node, &state.database, "a delivery")
        });
        self.check(order);
    }

    fn check_committed(&mut self, quorum: &QuorumVerifier, zxid: Zxid) {
        let check = check_quorum(quorum, zxid, |id| {
            let node = &self.nodes[Plan::node(id)];
            std::iter::once(&node.disk).chain(&node.wiped)
        });
        self.check(check);
    }

    /// A client writes, or asks for a sync, or goes to another node.
    pub fn client(&mut self, client: usize) {
        if self.healed {
            return;
        }
        let delay = self.random.around(self.plan.client_mean_us);
        self.agenda.schedule_in(delay, Happening::Client { client });
        if !self.nodes[self.clients[client]].serving || self.random.one_in(30) {
            self.clients[client] = self.random.below(self.nodes.len());
        }
        let node = self.clients[client];
        // Every other client mostly reads.
        let percent = if client % 2 == 1 { 98 } else { self.plan.sync_percent };
        let sync = match self.random.percent(percent) {
            true => Some(self.invariants.clients.sync(node)),
            false => None,
        };
        let delay = self.network.delay(&mut self.random);
        self.agenda.schedule_in(delay, Happening::Request { node, sync });
    }

    /// Whose write is done may tell someone else, who syncs, elsewhere, to see it.
    fn tell_another_client(&mut self) {
        if self.random.one_in(10) && !self.healed {
            let node = self.random.below(self.nodes.len());
            let sync = Some(self.invariants.clients.sync(node));
            let delay = self.network.delay(&mut self.random);
            self.agenda.schedule_in(delay, Happening::Request { node, sync });
        }
    }

    /// A client's request has come to a node.
    pub fn request(&mut self, node: usize, sync: Option<u64>) {
        if !self.nodes[node].serving {
            return;
        }
        match sync {
            None => self.write(node),
            Some(token) => {
                self.invariants.clients.accept_sync(token, self.nodes[node].term);
                self.feed(node, Event::Sync { token });
            }
        }
    }

    /// A client's write through a node that serves.
    pub fn write(&mut self, node: usize) {
        let state = &self.nodes[node];
        let leads = state.zab.as_ref().is_some_and(|zab| zab.role() == RoleKind::Leading);
        let operation = self.invariants.clients.write(node, state.term);
        let payload = Write { operation }.encode();
        match leads {
            true => self.work.push_back((node, Work::Submit(payload))),
            false => self.feed(node, Event::Forward(payload)),
        }
    }
}
