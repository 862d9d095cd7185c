//! What goes wrong with processes and the network: crashes, restarts, partitions, pauses, broken
//! connections, clocks that jump.

use znodefs::Zxid;
use znodefs_server::ensemble::Driver;
use znodefs_server::zab::Packet;

use super::node::Told;
use super::plan::Plan;
use super::world::{Happening, World};
use crate::crash_point::CrashPoint;
use crate::invariants::violation;
use crate::network::Side;
use crate::networked::Networked;
use crate::replica::invariants::recovered::{check_adopted, check_found, holds_acknowledged};

/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

impl World {
    /// One fault, and the plan of the next.
    pub fn fault(&mut self) {
        if self.is_healed() || self.counts.faults >= self.plan.limits.faults {
            return;
        }
        self.counts.faults += 1;
        let delay = self.fault_random.around(self.plan.fault_mean_us);
        self.agenda.schedule_in(delay, Happening::Fault);
        if self.plan.may_change() && self.fault_random.percent(self.plan.reconfiguration_percent) {
            return self.reconfigure();
        }
        if self.agenda.now() < self.quorum_lost_until && self.fault_random.percent(75) {
            // Where something fails all the time nobody looks for a leader for long.
            return;
        }
        if self.plan.reads_without_quorum() && self.fault_random.percent(20) {
            return self.lose_quorum();
        }
        let node = self.fault_random.below(self.nodes.len());
        self.disturb(self.agenda.now());
        match self.fault_random.below(100) {
            0..=9 => self.crash(node, true),
            10..=14 => self.crash(node, false),
            15..=24 => {
                // In the middle of something.
                let effects = self.fault_random.between(0, 200);
                self.nodes[node].crash_point = CrashPoint::after(effects);
            }
            25..=34 => self.cut_power(node),
            35..=39 => self.crash_leader(),
            40..=41 => self.crash_all(),
            42..=46 => self.isolate(node),
            47..=50 => self.isolate_leader(),
            51..=54 => self.split(),
            55..=58 => self.block_one_way(),
            59..=60 => self.flap(node),
            61..=65 => self.break_connection(),
            66..=67 => self.appoint(node),
            68..=70 => self.pause(node),
            71..=72 => self.pause_leader(),
            73..=75 => self.slow_down_disk(node),
            76..=79 => self.shut_down(node),
            80..=82 => self.jump(node),
            83..=84 => self.wipe(node),
            85..=87 => self.fail_sync(node),
            88..=90 => self.fill_disk(node),
            91..=93 => self.rot(node),
            94..=95 => self.misdirect(node),
            _ => self.free_all_ways(),
        }
    }

    /// How long something lasts, in microseconds.
    pub fn some_time(&mut self) -> u64 {
        match self.fault_random.below(10) {
            0 => self.fault_random.between(3_000_000, 10_000_000),
            1..=4 => self.fault_random.between(300_000, 3_000_000),
            _ => self.fault_random.between(1_000, 300_000),
        }
    }

    /// The same, and nothing is quiet meanwhile.
    pub fn disturbed_time(&mut self) -> u64 {
        let time = self.some_time();
        self.disturb(self.agenda.now() + time);
        time
    }

    /// A process ends at once, with the machine's power or without; it starts again later.
    pub fn crash(&mut self, node: usize, power: bool) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.counts.crashes += 1;
        let what = if power { "loses its power" } else { "is killed" };
        self.log.fault(self.agenda.now(), || format!("node {node} {what}"));
        self.end_process(node, power);
        let delay = self.disturbed_time();
        self.agenda.schedule_in(delay, Happening::Start { node });
    }

    /// Everything of a process that others see of its end.
    pub fn end_process(&mut self, node: usize, power: bool) {
        self.leave_connections(node);
        self.nodes[node].stop(power);
        self.look_at_links(node);
    }

    /// A process that cannot go on has ended itself.
    pub fn stops(&mut self, node: usize, reason: &str) {
        self.log.fault(self.agenda.now(), || format!("node {node} stops: {reason}"));
        self.counts.stops += 1;
        let state = &self.nodes[node];
        if !state.disk_fails && !state.damaged {
            let detail = format!("node {node}: {reason}");
            self.check(violation("no member stops without a reason", detail));
        }
        // Half of the administrators restart the machine.
        let power = self.fault_random.percent(50);
        self.end_process(node, power);
        let delay = self.disturbed_time();
        self.agenda.schedule_in(delay, Happening::Start { node });
    }

    /// The node that leads, if any does.
    pub fn leader(&self) -> Option<usize> {
        let leads = |process: &super::node::Process| process.leads && process.serving;
        self.nodes.iter().position(|node| node.process.as_ref().is_some_and(leads))
    }

    fn crash_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.crash(leader, true);
        }
    }

    fn isolate_leader(&mut self) {
        if let Some(leader) = self.leader() {
            self.isolate(leader);
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
        let shortest = |node: &usize| self.nodes[*node].durable;
        let voters = (0..self.nodes.len()).filter(|node| self.may_vote(*node));
        let last = voters.min_by_key(shortest).unwrap_or(node);
        let node = if self.fault_random.percent(50) { node } else { last };
        let Some(process) = &self.nodes[leader].process else { return };
        let (successor, life) = (Plan::id(node), self.nodes[leader].incarnation);
        if !process.driver.zab().quorum().is_voter(successor) {
            return;
        }
        let packet = Packet::Handover { successor };
        let bytes = Driver::encode_packet(&packet).expect("it is short");
        self.log
            .fault(self.agenda.now(), || format!("node {node} is named as successor of {leader}"));
        for (connection, side) in self.network.connections_of(leader, life) {
            let other = self.network.connection(connection).map(|one| one.end(side.other()).node);
            if side == Side::Leader && other.is_some_and(|other| other < self.nodes.len()) {
                self.send(leader, connection as u64, bytes.clone());
            }
        }
    }

    fn crash_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.crash(node, true);
        }
    }

    /// A node's process starts.
    pub fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        if self.nodes[node].power_is_off() {
            self.nodes[node].stop(true);
        }
        self.disturb(self.agenda.now());
        let newest = self.invariants.order.last();
        let went_astray = self.nodes[node].log_disk.last_write_went_astray();
        self.name_others(node);
        let started = self.nodes[node].start(&self.plan, node);
        self.counts.starts += 1;
        if self.nodes[node].power_is_off() {
            // The power went while it was starting.
            self.nodes[node].stop(true);
            return self.agenda.schedule_in(1_000, Happening::Start { node });
        }
        let found = match started {
            Ok(found) => found,
            Err(reason) => return self.cannot_start(node, &reason),
        };
        self.log.fault(self.agenda.now(), || {
            let (snapshot, last) = (found.snapshot, found.last_logged);
            format!("node {node} starts with a snapshot of {snapshot} and a log up to {last}")
        });
        if (went_astray || self.nodes[node].damaged) && found.incomplete {
            // It has noticed, and votes no more for what it has told.
            self.nodes[node].told.forget_history();
        }
        let told = self.nodes[node].told;
        let committed = self.invariants.order.last_before(found.current_epoch);
        let holds_all =
            holds_acknowledged(&found, &told) && check_adopted(node, &found, committed).is_ok();
        if went_astray && !holds_all {
            // No replica can tell it from a write that the power's end interrupted.
            return self.cannot_start(node, "its last write went astray");
        }
        let check = check_found(node, &found, &told)
            .and_then(|()| check_adopted(node, &found, committed))
            .and_then(|()| self.invariants.order.found(node, found.snapshot, &found.entries));
        self.check(check);
        if let Some(process) = &mut self.nodes[node].process {
            // What is left of a snapshot's making may show anything committed by then.
            process.exact_from = if found.snapshot.0 > 0 { newest } else { found.snapshot };
            let begun = process.driver.begin();
            self.after_turn(node, begun);
        }
        self.look_at_links(node);
    }

    fn cannot_start(&mut self, node: usize, reason: &str) {
        self.log.fault(self.agenda.now(), || format!("node {node} cannot start: {reason}"));
        let state = &mut self.nodes[node];
        state.process = None;
        if state.damaged {
            // What the message says: the administrator empties the directory.
            self.counts.refused_starts += 1;
            self.empty(node);
        } else if !state.disk_fails {
            let detail = format!("node {node}: {reason}");
            self.check(violation("a node starts on what its disk has kept", detail));
        }
        let delay = self.disturbed_time();
        self.agenda.schedule_in(delay, Happening::Start { node });
    }

    fn isolate(&mut self, node: usize) {
        let time = self.disturbed_time();
        // Its clients stay with it, or not.
        let others = match self.fault_random.percent(50) {
            true => self.nodes.len(),
            false => self.participants(),
        };
        self.cut_off(node, others, time);
    }

    /// No quorum is left for long enough that members serve reads alone.
    fn lose_quorum(&mut self) {
        self.counts.quorums_lost += 1;
        let time = self.fault_random.between(3_000_000, 15_000_000);
        self.quorum_lost_until = self.agenda.now() + time;
        self.disturb(self.quorum_lost_until);
        self.log.fault(self.agenda.now(), || format!("no quorum is left for {} ms", time / 1_000));
        let survivor = self.fault_random.below(self.nodes.len());
        let what = self.fault_random.below(3);
        for node in 0..self.nodes.len() {
            match what {
                // They are cut off from each other, and not from clients.
                0 => self.cut_off(node, self.nodes.len(), time),
                // They restart as well, and know only what their disks say.
                1 => {
                    self.cut_off(node, self.nodes.len(), time);
                    self.crash(node, true);
                }
                _ if node == survivor || self.nodes[node].process.is_none() => {}
                _ => {
                    self.counts.crashes += 1;
                    self.end_process(node, true);
                    self.agenda.schedule_in(time, Happening::Start { node });
                }
            }
        }
    }

    fn pause(&mut self, node: usize) {
        let time = self.disturbed_time();
        self.nodes[node].paused_until = self.agenda.now() + time;
        self.log.fault(self.agenda.now(), || {
            format!("node {node} stands still for {} ms", time / 1_000)
        });
    }

    fn slow_down_disk(&mut self, node: usize) {
        self.nodes[node].slowness_us = match self.fault_random.percent(30) {
            true => 0,
            false => self.fault_random.between(1_000, 500_000),
        };
        let slowness = self.nodes[node].slowness_us;
        self.log.fault(self.agenda.now(), || {
            format!("node {node}: its disk takes {slowness} us longer")
        });
    }

    fn shut_down(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        self.log.fault(self.agenda.now(), || format!("node {node} is asked to shut down"));
        process.service.mailbox.push(znodefs_server::replica::Event::Stop);
        let all = process.service.connections.stop();
        all.iter().for_each(|connection| connection.close());
        self.poke(node);
    }

    /// A process has ended in order; it starts again later.
    pub fn retire(&mut self, node: usize) {
        self.counts.handovers += 1;
        self.log.fault(self.agenda.now(), || format!("node {node} has shut down"));
        let state = &mut self.nodes[node];
        if let Some(mut log) = state.process.as_mut().and_then(|process| process.log.take()) {
            log.work_off();
            state.durable = state.durable.max(log.durable_zxid());
            log.close();
        }
        self.end_process(node, false);
        let delay = self.disturbed_time();
        self.agenda.schedule_in(delay, Happening::Start { node });
    }

    /// The wall clock jumps; nothing but what znodes say may depend on it.
    fn jump(&mut self, node: usize) {
        let by_ms = self.fault_random.between(0, 2 * DAY_MS as u64) as i64 - DAY_MS;
        self.log.fault(self.agenda.now(), || {
            format!("node {node}: its wall clock jumps by {by_ms} ms")
        });
        self.nodes[node].clock.jump(by_ms);
        self.counts.jumps += 1;
    }

    /// A node's disk is replaced by an empty one.
    pub fn empty(&mut self, node: usize) {
        self.log.fault(self.agenda.now(), || format!("node {node} is emptied"));
        self.counts.wipes += 1;
        let (data, log) = (self.random.next(), self.random.next());
        let plan: &Plan = &self.plan;
        let state = &mut self.nodes[node];
        state.data = znodefs_server::persistence::MemoryDisk::new(data);
        state.log_disk = match plan.log_apart {
            true => znodefs_server::persistence::MemoryDisk::new(log),
            false => state.data.clone(),
        };
        state.told = Told::default();
        state.configured = Zxid::ZERO;
        state.adopted = znodefs::Epoch(0);
        state.damaged = false;
        state.disk_fails = false;
        self.bring_lines_up_to_date(node);
    }

    fn wipe(&mut self, node: usize) {
        if !self.may_lose(node) {
            return;
        }
        if self.nodes[node].process.is_some() {
            self.end_process(node, true);
            let delay = self.disturbed_time();
            self.agenda.schedule_in(delay, Happening::Start { node });
        }
        self.empty(node);
    }
}
