//! What a member wants done, and the doing of it: messages, connections, disk work, snapshots; with a
//! crash in between where one is due.

use std::sync::atomic::Ordering;

use znodefs::Zxid;
use znodefs_server::ensemble::MemberEvent;
use znodefs_server::ensemble::log_read::LogReading;
use znodefs_server::ensemble::snapshot_transfer::NextPiece;
use znodefs_server::link::LinkEvent;
use znodefs_server::link::quorum_port::PortEvent;
use znodefs_server::replica::Event;
use znodefs_server::zab::Entry;

use super::node::Stream;
use super::outside::{Action, Seen};
use super::plan::Plan;
use super::world::{Happening, World};
use crate::invariants::violation;
use crate::network::Wire;
use crate::networked::Networked;

impl World {
    /// A core has had its turn, or its start: what it wants is done.
    pub fn after_turn(&mut self, node: usize, result: Result<(), String>) {
        let Some(process) = &self.nodes[node].process else { return };
        let (outside, retired) = (process.outside.clone(), process.driver.is_retired());
        for seen in outside.take_seen() {
            self.see(node, seen);
        }
        for action in outside.take_actions() {
            if self.nodes[node].crash_point.is_reached() {
                return self.crash(node, true);
            }
            self.act(node, action);
        }
        if self.nodes[node].power_is_off() {
            return self.crash(node, true);
        }
        if let Err(reason) = result {
            return self.stops(node, &reason);
        }
        if let Some(process) = &self.nodes[node].process {
            self.nodes[node].configured = process.driver.zab().quorum().committed().version;
        }
        if retired {
            return self.retire(node);
        }
        self.compare_state(node);
        self.look_at_read_only_service(node);
        self.plan_work(node);
    }

    fn act(&mut self, node: usize, action: Action) {
        self.counts.effects += 1;
        let life = self.nodes[node].incarnation;
        match action {
            Action::Notify { to, payload } => self.notify(node, Plan::node(to), payload),
            Action::BreakLink(peer) => {
                let detail = format!("node {node} did not understand {peer}");
                self.check(violation("members understand each other", detail));
            }
            Action::SetPeers(peers) => {
                self.set_peers(node, peers.into_iter().map(Plan::node).collect());
            }
            Action::Connect(peer) => {
                let delay = self.network.delay(&mut self.random);
                let to = Plan::node(peer);
                self.agenda.schedule_in(delay, Happening::Connect { from: node, life, to });
            }
            Action::Send { connection, payload } => self.send(node, connection, payload),
            Action::Disconnect(connection) => self.close(node, connection as usize),
            Action::SendSnapshot(transfer) => {
                self.counts.snapshots_sent += 1;
                let connection = transfer.connection().0;
                let transfer = transfer.with_block_length(self.plan.block_length);
                if let Some(process) = self.process(node, life) {
                    process.streams.insert(connection, Stream { transfer, behind: Vec::new() });
                }
                self.agenda.schedule_in(10, Happening::Stream { node, life, connection });
            }
            Action::ReadLog(reading) => {
                self.counts.log_reads += 1;
                let delay = self.random.between(100, 5_000);
                let reading = Box::new(reading);
                self.agenda.schedule_in(delay, Happening::ReadLog { node, life, reading });
            }
            Action::StartLog(worker) => {
                if let Some(process) = self.process(node, life)
                    && let Some(mut former) = process.log.replace(worker)
                {
                    // Of the ensemble that was left: a thread would have been ended in order.
                    former.work_off();
                    former.close();
                }
            }
            Action::StartSnapshot(task) => {
                let length = self.plan.block_length;
                if let Some(process) = self.process(node, life) {
                    process.snapshot = Some(task.with_block_length(length));
                }
                let delay = self.random.between(10, 5_000);
                self.agenda.schedule_in(delay, Happening::Snapshot { node, life });
            }
        }
    }

    fn see(&mut self, node: usize, seen: Seen) {
        self.log.seen(self.agenda.now(), node, &seen);
        let check = match seen {
            Seen::Appended(entries) => self.appended(node, &entries),
            Seen::Truncated(zxid) => {
                self.counts.truncations += 1;
                self.nodes[node].told.cut(zxid);
                let votes = self.knows_that_it_votes(node);
                self.invariants.order.truncated(node, zxid, votes)
            }
            Seen::Installed(zxid) => {
                self.installed(node, zxid);
                Ok(())
            }
            Seen::Delivered(entries) => {
                let zxids: Vec<Zxid> = entries.iter().map(|entry| entry.zxid).collect();
                self.deliver(node, &zxids);
                Ok(())
            }
            Seen::DeliveredFromLog { after, through } => {
                let zxids = self.invariants.order.between(node, after, through);
                self.deliver(node, &zxids);
                Ok(())
            }
            Seen::Promised => {
                let epoch =
                    self.nodes[node].process.as_ref().map(|p| p.driver.zab().accepted_epoch());
                let told = &mut self.nodes[node].told;
                told.promised = told.promised.max(epoch.unwrap_or(told.promised));
                Ok(())
            }
            Seen::Acknowledged(zxid) => {
                let check = self.check_promise(node, zxid);
                self.nodes[node].told.acknowledge(zxid);
                check
            }
            Seen::ChangedOver => {
                // It held nothing, and the ensemble in which it promised is none.
                self.nodes[node].told.promised = znodefs::Epoch(0);
                Ok(())
            }
            Seen::Leads => {
                self.is_elected(node);
                Ok(())
            }
            Seen::Serves { leader, epoch } => self.begins_to_serve(node, Plan::node(leader), epoch),
            Seen::ServesNoMore => {
                self.disturb(self.agenda.now());
                if let Some(process) = &mut self.nodes[node].process {
                    (process.serving, process.leads) = (false, false);
                }
                Ok(())
            }
            Seen::Halts(reason) => match self.nodes[node].damaged {
                true => Ok(()),
                false => {
                    violation("no replica contradicts its leader", format!("{node}: {reason}"))
                }
            },
        };
        self.check(check);
    }

    /// A voter that acknowledges NEWLEADER, by the number 0, has promised no later epoch.
    fn check_promise(&self, node: usize, zxid: Zxid) -> crate::invariants::Check {
        let (promised, epoch) = (self.nodes[node].told.promised, zxid.epoch());
        // The promise of one without a vote counts for nothing.
        if zxid.counter() > 0 || promised <= epoch || !self.knows_that_it_votes(node) {
            return Ok(());
        }
        let detail = format!("node {node} acknowledges epoch {epoch} and has promised {promised}");
        violation("a promise is kept", detail)
    }

    /// Whether a member votes in any configuration that it goes by.
    fn knows_that_it_votes(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.is_some_and(|process| process.driver.zab().quorum().is_voter(Plan::id(node)))
    }

    /// A snapshot has come whole; where the disk has no room for it, it is given up.
    fn installed(&mut self, node: usize, zxid: Zxid) {
        let newest = self.invariants.order.last();
        let Some(process) = &mut self.nodes[node].process else { return };
        let replacements = process.service.database.replacements.load(Ordering::Acquire);
        if std::mem::replace(&mut process.replacements, replacements) == replacements {
            self.counts.snapshots_given_up += 1;
            return;
        }
        process.exact_from = newest.max(zxid);
        self.counts.snapshots_installed += 1;
        self.nodes[node].told.cut(zxid);
        self.invariants.order.installed(node, zxid);
    }

    fn is_elected(&mut self, node: usize) {
        self.counts.elections += 1;
        self.disturb(self.agenda.now());
        if let Some(process) = &self.nodes[node].process {
            self.invariants.order.elected(node, process.driver.zab().last_logged());
        }
    }

    fn appended(&mut self, node: usize, entries: &[Entry]) -> crate::invariants::Check {
        let log = self.nodes[node].process.as_ref().and_then(|process| process.log.as_ref());
        let durable = log.map_or(Zxid::ZERO, |log| log.durable_zxid());
        self.invariants.membership.appended(entries);
        self.invariants.order.appended(node, entries, durable, self.agenda.now())
    }

    fn begins_to_serve(
        &mut self,
        node: usize,
        leader: usize,
        epoch: znodefs::Epoch,
    ) -> crate::invariants::Check {
        self.disturb(self.agenda.now());
        self.nodes[node].adopted = epoch;
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        (process.serving, process.leads) = (true, leader == node);
        let exact_from = process.exact_from;
        let delivered = self.invariants.order.delivered_at(node);
        if exact_from > delivered && exact_from != Zxid(i64::MAX) {
            let detail =
                format!("node {node} serves at {delivered}, its tree may show {exact_from}");
            return violation("nobody is served before a fuzzy snapshot is whole", detail);
        }
        match leader == node {
            true => self.invariants.order.leads(node, epoch),
            false => Ok(()),
        }
    }

    fn deliver(&mut self, node: usize, zxids: &[Zxid]) {
        let before = self.invariants.order.last();
        let process = self.nodes[node].process.as_ref();
        let epoch = process.map_or(znodefs::Epoch(0), |one| one.driver.zab().current_epoch());
        let (now, disturbed_us) = (self.agenda.now(), self.disturbed_us);
        let delivered = self.invariants.deliver((node, epoch), zxids, now, disturbed_us);
        self.check(delivered);
        let last = self.invariants.order.last();
        if last > before {
            let durable = |node: usize| {
                let node = &self.nodes[node];
                let log = node.process.as_ref().and_then(|process| process.log.as_ref());
                log.map_or(Zxid::ZERO, |log| log.durable_zxid()).max(node.durable)
            };
            let check = self.invariants.membership.check_quorum(before, last, durable);
            self.check(check);
        }
    }

    /// Equal zxid means equal state.
    fn compare_state(&mut self, node: usize) {
        let delivered = self.invariants.order.delivered_at(node);
        let Some(process) = &mut self.nodes[node].process else { return };
        if delivered < process.exact_from || delivered == process.compared {
            return;
        }
        process.compared = delivered;
        let tree = process.service.database.tree.read();
        let (applied, digest) = (tree.last_applied(), tree.digest());
        drop(tree);
        let known = process.driver.zab().quorum().committed().version;
        let check = self.invariants.order.compare(node, applied, digest);
        self.check(check);
        let last = self.invariants.order.last();
        let check = self.invariants.membership.check_known(node, delivered, known, last);
        self.check(check);
    }

    /// Plans everything that a process now has to do.
    fn plan_work(&mut self, node: usize) {
        let life = self.nodes[node].incarnation;
        self.plan_log(node);
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut planned = Vec::new();
        for (connection, served) in &mut process.clients {
            let outbox = served.client.connection().outbox();
            let waits = outbox.buffer.is_empty() && outbox.takes_output();
            drop(outbox);
            if !waits && !served.planned {
                served.planned = true;
                planned.push(*connection);
            }
        }
        let due_ms = process.driver.next_due_ms();
        for connection in planned {
            let delay = self.random.between(1, 40);
            self.agenda.schedule_in(delay, Happening::Serve { node, life, connection });
        }
        if due_ms != u64::MAX {
            let at = self.nodes[node].clock.global_us(due_ms);
            self.plan_turn(node, at);
        }
        self.poke(node);
    }

    fn plan_log(&mut self, node: usize) {
        let (life, slowness_us) = (self.nodes[node].incarnation, self.nodes[node].slowness_us);
        let Some(process) = self.process(node, life) else { return };
        let has_work = process.log.as_ref().is_some_and(|log| log.has_work());
        if has_work && !process.log_planned {
            process.log_planned = true;
            let delay = match self.random.below(300) {
                0 => self.random.between(20_000, 200_000),
                1..=20 => self.random.between(2_000, 20_000),
                _ => self.random.between(100, 2_000),
            };
            self.agenda.schedule_in(delay + slowness_us, Happening::Log { node, life });
        }
    }

    /// A log does what is queued.
    pub fn log_works(&mut self, node: usize, life: u32) {
        let Some(process) = self.process(node, life) else { return };
        process.log_planned = false;
        let Some(log) = &mut process.log else { return };
        let works = log.work_off();
        let durable = log.durable_zxid();
        if !works {
            process.log = None;
        }
        self.nodes[node].durable = self.nodes[node].durable.max(durable);
        self.counts.log_works += 1;
        if self.nodes[node].power_is_off() {
            return self.crash(node, true);
        }
        self.plan_log(node);
        self.poke(node);
    }

    /// A snapshot takes a step.
    pub fn snapshot_steps(&mut self, node: usize, life: u32) {
        let Some(process) = self.process(node, life) else { return };
        let Some(snapshot) = &mut process.snapshot else { return };
        let more = snapshot.step();
        if !more {
            process.snapshot = None;
            self.counts.snapshots_taken += 1;
        }
        if self.nodes[node].power_is_off() {
            return self.crash(node, true);
        }
        if more {
            let delay = self.random.between(10, 3_000);
            self.agenda.schedule_in(delay, Happening::Snapshot { node, life });
        }
        self.poke(node);
    }

    /// The next piece of a snapshot goes to a learner.
    pub fn stream_steps(&mut self, node: usize, life: u32, connection: u64) {
        let Some(process) = self.process(node, life) else { return };
        let Some(stream) = process.streams.get_mut(&connection) else { return };
        let piece = stream.transfer.next_piece();
        let open = match piece {
            NextPiece::Message(payload) => {
                let delay = self.random.between(10, 3_000);
                self.agenda.schedule_in(delay, Happening::Stream { node, life, connection });
                self.transmit(node, connection as usize, Wire::Message(payload))
            }
            NextPiece::Complete => {
                let behind = process.streams.remove(&connection).map(|stream| stream.behind);
                for payload in behind.unwrap_or_default() {
                    self.transmit(node, connection as usize, Wire::Message(payload));
                }
                true
            }
            NextPiece::Failed => false,
        };
        if !open && let Some(process) = self.process(node, life) {
            process.streams.remove(&connection);
            self.close(node, connection as usize);
            let reason = "its snapshot could not be completed".into();
            self.tell(node, MemberEvent::Port(PortEvent::Disconnected { connection, reason }));
        }
        self.poke(node);
    }

    /// Part of the log is read for a learner.
    pub fn read_log(&mut self, node: usize, life: u32, reading: LogReading) {
        if self.process(node, life).is_some() {
            reading.read();
            self.poke(node);
        }
    }

    /// Puts something into a member's mailbox.
    pub fn tell(&mut self, node: usize, event: MemberEvent) {
        let Some(process) = &self.nodes[node].process else { return };
        process.service.mailbox.push(Event::Member(event));
        self.poke(node);
    }

    /// The same, of its links.
    pub fn tell_of_link(&mut self, node: usize, event: LinkEvent) {
        self.tell(node, MemberEvent::Link(event));
    }

    /// Sends a message between members, behind a snapshot that is under way.
    pub fn send(&mut self, node: usize, connection: u64, payload: Vec<u8>) {
        let life = self.nodes[node].incarnation;
        let Some(process) = self.process(node, life) else { return };
        match process.streams.get_mut(&connection) {
            Some(stream) => stream.behind.push(payload),
            None => {
                self.transmit(node, connection as usize, Wire::Message(payload));
            }
        }
    }
}
