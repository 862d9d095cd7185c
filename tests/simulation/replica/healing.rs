//! The end of all faults, and what must follow: one leader within a bound, all replicas equal, nothing
//! left of clients that are gone.

use super::world::{Happening, Phase, World};
use crate::crash_point::CrashPoint;
use crate::invariants::violation;
use crate::networked::Networked;

/// How long clients go on after the last fault before they leave, in microseconds.
const GOING_ON_US: u64 = 5_000_000;

impl World {
    /// The end of all faults.
    pub fn heal(&mut self) {
        self.log.fault(self.agenda.now(), || "no more faults".to_owned());
        self.free_all_ways();
        self.phase = Phase::Healed { at: self.agenda.now() };
        self.network.loss_percent = 0;
        self.disturb(self.agenda.now());
        for node in 0..self.nodes.len() {
            self.make_room(node);
            let state = &mut self.nodes[node];
            state.crash_point = CrashPoint::default();
            state.slowness_us = 0;
            state.paused_until = state.paused_until.min(self.agenda.now() + 1);
            for disk in [&state.data, &state.log_disk] {
                disk.clear_faults();
                if !disk.is_off() {
                    disk.cut_power_after(u64::MAX - 1);
                }
            }
            // What was broken is looked after: a damaged node is found out by its next start.
            if state.damaged && state.process.is_some() {
                self.end_process(node, true);
            }
            self.agenda.schedule_in(1_000, Happening::Start { node });
            self.look_at_links(node);
        }
        for client in &mut self.clients {
            client.silent_until = client.silent_until.min(self.agenda.now());
        }
        self.agenda.schedule_in(100_000, Happening::Inspect);
    }

    /// Liveness after healing.
    pub fn inspect(&mut self) {
        self.agenda.schedule_in(50_000, Happening::Inspect);
        match self.phase {
            Phase::Healed { at } => {
                let ailment = self.ailment();
                match ailment {
                    None if self.agenda.now() >= at + GOING_ON_US => {
                        self.counts.recovery_us = self.agenda.now() - at - GOING_ON_US;
                        self.phase = Phase::Leaving { at: self.agenda.now() };
                        self.clients_leave();
                    }
                    None => {}
                    Some(ailment)
                        if self.agenda.now() > at + GOING_ON_US + self.plan.recovery_us() =>
                    {
                        self.check(violation(
                            "everything becomes well after the last fault",
                            ailment,
                        ));
                    }
                    Some(_) => {}
                }
            }
            Phase::Leaving { at } => match self.ailment().or_else(|| self.leftover()) {
                None => self.phase = Phase::Done,
                Some(what) => {
                    let patience = 2 * self.plan.session_us_max() + 5_000_000;
                    if self.agenda.now() > at + patience {
                        self.check(violation("nothing is left of clients that are gone", what));
                    }
                }
            },
            Phase::Faults | Phase::Done => {}
        }
    }

    fn ailment(&self) -> Option<String> {
        let (mut leaders, mut ends) = (0, Vec::new());
        for (node, state) in self.nodes.iter().enumerate() {
            let Some(process) = &state.process else { return Some(format!("node {node} is down")) };
            let zab = process.driver.zab();
            if !process.serving {
                return Some(format!("node {node} does not serve: {:?}", zab.role()));
            }
            leaders += usize::from(process.leads);
            ends.push(process.service.database.tree.read().last_applied());
            ends.push(zab.last_logged());
        }
        if leaders != 1 {
            return Some(format!("{leaders} replicas lead"));
        }
        // While clients go on, replicas differ by what is on its way.
        if !matches!(self.phase, Phase::Healed { .. }) && ends.iter().any(|end| *end != ends[0]) {
            return Some(format!("the replicas differ: {ends:?}"));
        }
        None
    }

    fn leftover(&self) -> Option<String> {
        for (node, state) in self.nodes.iter().enumerate() {
            let Some(process) = &state.process else { continue };
            let service = &process.service;
            let tree = service.database.tree.read();
            let left = [
                ("sessions", tree.session_count()),
                ("ephemerals", tree.ephemerals_count()),
                ("watches", service.database.watches.lock().watch_count()),
                ("connections", service.connections.len()),
                ("requests under way", service.metrics.outstanding() as usize),
            ];
            if let Some((what, count)) = left.iter().find(|(_, count)| *count > 0) {
                return Some(format!("node {node} has {count} {what}"));
            }
        }
        None
    }
}
