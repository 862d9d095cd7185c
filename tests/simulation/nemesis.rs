//! What goes wrong: crashes, partitions, pauses, slow disks, wiped disks, broken connections; then the
//! end of it, after which everything must become well.

use znodefs::Zxid;
use znodefs_server::zab::{Ensemble, Event, Packet, RoleKind, ServerId, Zab};

use crate::crash_point::CrashPoint;
use crate::database::{Database, configuration, reconfiguration};
use crate::disk::Disk;
use crate::invariants::{Check, check_adopted, check_recovery, violation};
use crate::network::Wire;
use crate::networked::Networked;
use crate::plan::{DURATION_US, Plan};
use crate::world::{Happening, Message, Work, World};

impl World {
    /// One fault, and the plan of the next.
    pub fn fault(&mut self) {
        if self.healed {
            return;
        }
        self.counts.faults += 1;
        let delay = self.random.around(self.plan.fault_mean_us);
        self.agenda.schedule_in(delay, Happening::Fault);
        if self.plan.reconfiguration_percent > 0
            && self.random.percent(self.plan.reconfiguration_percent)
        {
            return self.reconfigure();
        }
        let node = self.random.below(self.nodes.len());
        match self.random.below(100) {
            0..=17 => self.crash(node),
            18..=31 => {
                // In the middle of something.
                let effects = self.random.between(0, 200);
                self.nodes[node].crash_point = CrashPoint::after(effects);
            }
            32..=39 => self.crash_leader(),
            40..=42 => self.crash_all(),
            43..=48 => self.isolate(node),
            49..=52 => self.isolate_leader(),
            53..=57 => self.split(),
            58..=63 => self.block_one_way(),
            64..=66 => self.flap(node),
            67..=73 => self.break_connection(),
            74..=76 => self.appoint(node),
            77..=80 => self.pause(node),
            81..=83 => self.pause_leader(),
            84..=88 => self.slow_down_disk(node),
            89..=92 => self.shut_down(node),
            93..=94 => self.wipe(node),
            95..=96 => self.bounce(node),
            _ => self.free_all_ways(),
        }
    }

    /// Some members come, go, or change their role, as far as the leader would let them.
    fn reconfigure(&mut self) {
        let changes = self.random.between(1, 3);
        let made: Vec<(ServerId, usize)> = (0..changes)
            .map(|_| (Plan::id(self.random.below(self.nodes.len())), self.random.below(4)))
            .collect();
        let Some(leader) = self.leader() else { return };
        let Some(zab) = &self.nodes[leader].zab else { return };
        if zab.next_zxid().is_none() || zab.quorum().is_joint() {
            return;
        }
        let current = zab.quorum().committed();
        let (mut voters, mut observers) = (current.voters().to_vec(), current.observers().to_vec());
        for (id, role) in made {
            voters.retain(|other| *other != id);
            observers.retain(|other| *other != id);
            match role {
                0 => {}
                1 => observers.push(id),
                _ => voters.push(id),
            }
        }
        let new = Ensemble::new(Zxid::ZERO, voters, observers);
        let synced = zab.synced();
        // The leader may not have noticed yet that somebody's disk was replaced. No administrator
        // gives a vote to a new disk where that decides.
        let has_data = |id: ServerId| self.nodes[Plan::node(id)].disk.current_epoch.0 > 0;
        let is_ready = |id: &&ServerId| synced.contains(id) && has_data(**id);
        let ready = new.voters().iter().filter(is_ready).count();
        if new.voters().is_empty() || ready <= new.voters().len() / 2 || new == *current {
            return;
        }
        self.counts.reconfigurations += 1;
        self.work.push_back((leader, Work::Submit(reconfiguration(&new))));
    }

    /// How long something lasts, in microseconds.
    pub fn some_time(&mut self) -> u64 {
        match self.random.below(10) {
            0 => self.random.between(5_000_000, 15_000_000),
            1..=4 => self.random.between(500_000, 5_000_000),
            _ => self.random.between(1_000, 500_000),
        }
    }

    /// A power failure of one node; it starts again later.
    pub fn crash(&mut self, node: usize) {
        if self.nodes[node].zab.is_none() {
            return;
        }
        self.counts.crashes += 1;
        self.trace.note(self.agenda.now(), node, "crash");
        self.end_process(node);
        let delay = self.some_time();
        self.agenda.schedule_in(delay, Happening::Start { node });
    }

    fn end_process(&mut self, node: usize) {
        self.leave_connections(node);
        self.nodes[node].crash(&mut self.random);
        self.look_at_links(node);
    }

    /// The node that leads, if any does.
    pub fn leader(&self) -> Option<usize> {
        let leads = |node: &crate::node::Node| {
            node.zab.as_ref().is_some_and(|zab| zab.role() == RoleKind::Leading)
        };
        self.nodes.iter().position(leads)
    }

    fn crash_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.crash(leader);
        }
    }

    /// Half the time it stands still as well, and does not know for how long it was alone.
    fn isolate_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.isolate(leader);
            if self.random.percent(50) {
                self.pause(leader);
            }
        }
    }

    /// One that stands still for long does not know that others have elected another.
    fn pause_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.pause(leader);
        }
    }

    /// An election, or a leader that hands over, may name the wrong one: it is only a hint, and
    /// nothing may depend on it but time.
    fn appoint(&mut self, node: usize) {
        let Some(leader) = self.leader() else { return };
        // Half the time the worst one.
        let voters = self.ensembles().swap_remove(0);
        let voters = voters.voters().iter().map(|id| Plan::node(*id));
        let worst = voters.min_by_key(|voter| self.nodes[*voter].disk.last()).unwrap_or(node);
        let node = if self.random.percent(50) { node } else { worst };
        let incarnation = self.nodes[leader].incarnation;
        let successor = Plan::id(node);
        let votes = |zab: &Zab| zab.quorum().is_voter(successor);
        if !self.nodes[leader].zab.as_ref().is_some_and(votes) {
            return;
        }
        self.trace.note(self.agenda.now(), node, "named as successor");
        for (connection, _) in self.network.connections_of(leader, incarnation) {
            let packet = Message::Packet(Packet::Handover { successor });
            self.transmit(leader, connection, Wire::Message(packet));
        }
    }

    fn crash_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.crash(node);
        }
    }

    /// Crash and immediate restart.
    fn bounce(&mut self, node: usize) {
        if self.nodes[node].zab.is_some() {
            self.counts.crashes += 1;
            self.end_process(node);
            self.start(node);
        }
    }

    /// A node's process starts.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].zab.is_some() {
            return;
        }
        self.trace.note(self.agenda.now(), node, "start");
        let seed = self.random.next();
        let event = self.nodes[node].start(&self.plan, node, seed);
        let check = self.check_start(node);
        self.check(check);
        self.feed(node, event);
        self.look_at_links(node);
    }

    fn check_start(&self, node: usize) -> Check {
        let state = &self.nodes[node];
        let mut before = state.disk.base;
        for entry in &state.disk.log {
            self.invariants.history.append(node, before, entry)?;
            before = entry.zxid;
        }
        let order = &self.invariants.total_order;
        check_adopted(node, &state.disk, order)?;
        check_recovery(node, &state.disk, &state.database, order)
    }

    fn isolate(&mut self, node: usize) {
        self.trace.note(self.agenda.now(), node, "isolated");
        let time = self.some_time();
        self.cut_off(node, self.nodes.len(), time);
    }

    fn pause(&mut self, node: usize) {
        let time = self.some_time();
        self.nodes[node].paused_until = self.agenda.now() + time;
        self.trace.note(self.agenda.now(), node, "pause");
    }

    fn slow_down_disk(&mut self, node: usize) {
        self.nodes[node].disk.slowness_us = match self.random.percent(30) {
            true => 0,
            false => self.random.between(1_000, 1_000_000),
        };
    }

    /// A clean shutdown; the process starts again later.
    pub fn shut_down(&mut self, node: usize) {
        if self.nodes[node].zab.is_some() {
            self.feed(node, Event::Shutdown);
        }
    }

    /// The process has ended cleanly. What it sent before is on its way.
    pub fn retire(&mut self, node: usize) {
        self.counts.handovers += 1;
        self.trace.note(self.agenda.now(), node, "retired");
        self.end_process(node);
        let delay = self.some_time();
        self.agenda.schedule_in(delay, Happening::Start { node });
    }

    /// A crashed node comes back with an empty disk. It must be a minority that does: a quorum needs
    /// its data.
    fn wipe(&mut self, node: usize) {
        if self.ensembles().iter().any(|ensemble| {
            let has_data = |id: &&ServerId| {
                let other = Plan::node(**id);
                other != node && self.nodes[other].disk.current_epoch.0 > 0
            };
            let with_data = ensemble.voters().iter().filter(has_data).count();
            ensemble.is_voter(Plan::id(node)) && with_data <= ensemble.voters().len() / 2
        }) || !self.others_know_configuration(node)
        {
            return;
        }
        self.counts.wipes += 1;
        if self.nodes[node].zab.is_some() {
            self.end_process(node);
            let delay = self.some_time();
            self.agenda.schedule_in(delay, Happening::Start { node });
        }
        self.trace.note(self.agenda.now(), node, "wiped");
        let lost = std::mem::replace(&mut self.nodes[node].disk, Disk::new());
        self.nodes[node].wiped.push(lost);
        // Whoever replaces a disk brings the file up to date: it alone says then who the others are.
        let ensemble = self.ensembles().swap_remove(0);
        let (voters, observers) = (ensemble.voters().to_vec(), ensemble.observers().to_vec());
        self.nodes[node].lines = Some(Ensemble::new(Zxid::ZERO, voters, observers));
        self.nodes[node].database = Database::new();
    }

    /// Whether somebody but this node knows which configuration is in force: those that only have it in
    /// their logs still need a quorum of the one before.
    fn others_know_configuration(&self, node: usize) -> bool {
        let Some(newest) = &self.invariants.configuration else { return true };
        let knows = |other: &crate::node::Node| {
            let kept = other.disk.configuration.version;
            other.disk.current_epoch.0 > 0 && kept >= newest.version
        };
        let mut others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        others.any(|(_, other)| knows(other))
    }

    /// The configuration in force, and all that are under way.
    fn ensembles(&self) -> Vec<Ensemble> {
        let committed = self.invariants.configuration.clone();
        let mut ensembles = vec![committed.unwrap_or_else(|| self.plan.ensemble())];
        for node in &self.nodes {
            ensembles.extend(node.disk.log.iter().rev().find_map(configuration));
            ensembles.extend(node.zab.as_ref().map(|zab| zab.quorum().last_seen().clone()));
        }
        ensembles
    }

    /// The end of all faults.
    pub fn heal(&mut self) {
        self.healed = true;
        self.trace.note(self.agenda.now(), 0, "heal");
        self.free_all_ways();
        self.network.loss_percent = 0;
        for node in 0..self.nodes.len() {
            let state = &mut self.nodes[node];
            state.crash_point = CrashPoint::default();
            state.disk.slowness_us = 0;
            state.paused_until = state.paused_until.min(self.agenda.now() + 1);
            self.agenda.schedule_in(1_000, Happening::Start { node });
            self.look_at_links(node);
        }
        self.agenda.schedule_in(100_000, Happening::Inspect);
    }

    /// Liveness after heal: one leader within a bound, everybody serves, all are equal, and a write
    /// through each takes effect everywhere.
    pub fn inspect(&mut self) {
        let well = self.ailment();
        match well {
            None if self.final_writes > 0 => {
                self.done = true;
                self.counts.recovery_us = self.agenda.now() - DURATION_US;
                return;
            }
            None => {
                self.final_writes = self.nodes.len();
                for node in 0..self.nodes.len() {
                    self.write(node);
                }
            }
            Some(ailment) => {
                if self.agenda.now() > DURATION_US + self.plan.recovery_us() {
                    self.check(violation("everything becomes well after the last fault", ailment));
                    return;
                }
            }
        }
        self.agenda.schedule_in(50_000, Happening::Inspect);
    }

    fn ailment(&self) -> Option<String> {
        let mut leaders = 0;
        let mut ends: Vec<Zxid> = Vec::new();
        for (node, state) in self.nodes.iter().enumerate() {
            let Some(zab) = &state.zab else { return Some(format!("node {node} is down")) };
            if !state.serving {
                return Some(format!("node {node} does not serve: {:?}", zab.role()));
            }
            leaders += usize::from(zab.role() == RoleKind::Leading);
            ends.push(state.database.zxid);
            ends.push(zab.last_logged());
        }
        if leaders != 1 {
            return Some(format!("{leaders} replicas lead"));
        }
        if ends.iter().any(|end| *end != ends[0]) {
            return Some(format!("the replicas differ: {ends:?}"));
        }
        None
    }
}
