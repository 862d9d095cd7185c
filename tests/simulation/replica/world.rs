//! The event loop of a run with whole replicas: what happens when, to whom. Time moves from event to
//! event; events of the same microsecond come in the order in which they were planned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use znodefs_server::ensemble::log_read::LogReading;
use znodefs_server::replica::Event;

use super::client::Client;
use super::clock::NodeClock;
use super::invariants::Invariants;
use super::log::Log;
use super::node::{Node, Process};
use super::plan::Plan;
use super::report::Counts;
use crate::agenda::Agenda;
use crate::invariants::{Check, Violation, violation};
use crate::network::Network;
use crate::networked::{NetworkEvent, Networked};
use crate::random::Random;

/// No run that makes progress has so many events.
const EVENTS_MAX: u64 = 20_000_000;

/// Something that will happen. Where a life of a process is named, another one is not concerned.
pub enum Happening {
    /// A member's core looks at what has come, and at the clock.
    Turn {
        node: usize,
        life: u32,
        at: u64,
    },
    /// A log works.
    Log {
        node: usize,
        life: u32,
    },
    /// A snapshot takes a step.
    Snapshot {
        node: usize,
        life: u32,
    },
    /// A snapshot to a learner takes a step.
    Stream {
        node: usize,
        life: u32,
        connection: u64,
    },
    /// The log is read for a learner.
    ReadLog {
        node: usize,
        life: u32,
        reading: Box<LogReading>,
    },
    /// A client's connection is looked at by the replica.
    Serve {
        node: usize,
        life: u32,
        connection: usize,
    },
    /// A notification arrives.
    Notification {
        from: usize,
        to: usize,
        payload: Vec<u8>,
    },
    /// A connection between members is asked for, or refused.
    Connect {
        from: usize,
        life: u32,
        to: usize,
    },
    ConnectFailed {
        from: usize,
        life: u32,
        to: usize,
    },
    /// A client does something of its own accord.
    Client {
        client: usize,
    },
    /// A client looks at its clock.
    Watchdog {
        client: usize,
    },
    /// A node's process starts.
    Start {
        node: usize,
    },
    /// Something on the network.
    Network(NetworkEvent),
    /// Something fails, or is repaired.
    Fault,
    /// A disk has room again.
    Room {
        node: usize,
    },
    /// The end of all faults.
    Heal,
    /// After it: is all well?
    Inspect,
}

/// Where a run stands after its faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults come.
    Faults,
    /// No more; clients go on, all must become well.
    Healed { at: u64 },
    /// All is well; clients leave, and nothing of them may stay.
    Leaving { at: u64 },
    /// The end.
    Done,
}

impl From<NetworkEvent> for Happening {
    fn from(event: NetworkEvent) -> Happening {
        Happening::Network(event)
    }
}

/// A run.
pub struct World {
    pub plan: Plan,
    /// Of the network, the disks and everything else that is no fault and no client.
    pub random: Random,
    pub fault_random: Random,
    pub client_random: Random,
    pub agenda: Agenda<Happening>,
    pub shared_now: Arc<AtomicU64>,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    /// Between nodes and clients; these come behind the nodes.
    pub network: Network<Vec<u8>>,
    pub invariants: Invariants,
    pub counts: Counts,
    pub log: Log,
    pub phase: Phase,
    /// When last something was not as it should be, for checks that are only fair in quiet times.
    pub disturbed_us: u64,
    /// Until when no quorum is left, where that was a fault of its own.
    pub quorum_lost_until: u64,
    pub violation: Option<Violation>,
    events: Vec<Event>,
}

impl World {
    /// Everything is set up and nothing has happened.
    pub fn new(plan: Plan, log: Log) -> World {
        let mut random = Random::new(plan.seed ^ 0x6e65_7477_6f72_6b73);
        let shared_now = Arc::new(AtomicU64::new(0));
        let nodes = (0..plan.nodes()).map(|_| {
            let clock = NodeClock::new(Arc::clone(&shared_now), &mut random);
            Node::new(&plan, clock, &mut random)
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut network = Network::new(plan.nodes() + plan.clients, plan.latency);
        network.loss_percent = plan.loss_percent;
        let mut world = World {
            random,
            fault_random: Random::new(plan.seed ^ 0x6661_756c_7473),
            client_random: Random::new(plan.seed ^ 0x0063_6c69_656e_7473),
            agenda: Agenda::new(),
            shared_now,
            nodes,
            clients: (0..plan.clients)
                .map(|client| Client::new(client, plan.read_only_clients >> client & 1 == 1))
                .collect(),
            network,
            invariants: Invariants::new(plan.founders()),
            counts: Counts::default(),
            log,
            phase: Phase::Faults,
            disturbed_us: 0,
            quorum_lost_until: 0,
            violation: None,
            events: Vec::new(),
            plan,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let config = self.plan.config(0, self.plan.founders());
        self.invariants.states.begin(&config);
        self.invariants.sessions.tick_us = self.plan.tick_ms * 1_000;
        for node in 0..self.nodes.len() {
            let at = match node < self.plan.voters + self.plan.observers {
                true => self.random.between(0, 1_000_000),
                false => self.random.between(2_000_000, 20_000_000),
            };
            self.agenda.schedule(at, Happening::Start { node });
        }
        for client in 0..self.plan.clients {
            let at = self.client_random.between(500_000, 2_000_000);
            self.agenda.schedule(at, Happening::Client { client });
            self.agenda.schedule(at, Happening::Watchdog { client });
        }
        let first = 2_000_000 + self.fault_random.around(self.plan.fault_mean_us);
        self.agenda.schedule(first, Happening::Fault);
        self.agenda.schedule(self.plan.limits.duration_us, Happening::Heal);
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) {
        self.run_until(u64::MAX);
    }

    /// Runs no further than to this time.
    pub fn run_until(&mut self, end: u64) {
        while self.violation.is_none() && self.phase != Phase::Done {
            if self.agenda.next_at().is_none_or(|at| at > end) {
                return;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        let Some(happening) = self.agenda.pop() else { return };
        let at = self.agenda.now();
        self.shared_now.store(at, Ordering::Relaxed);
        self.counts.events += 1;
        if let Some(node) = self.process_of(&happening)
            && self.nodes[node].paused_until > at
        {
            let until = self.nodes[node].paused_until;
            return self.agenda.schedule(until, happening);
        }
        self.happen(happening);
        if self.counts.events > EVENTS_MAX {
            self.check(violation("a run ends", format!("more than {EVENTS_MAX} events")));
        }
    }

    /// Whose process must be awake for this to be noticed.
    fn process_of(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Turn { node, .. }
            | Happening::Log { node, .. }
            | Happening::Snapshot { node, .. }
            | Happening::Stream { node, .. }
            | Happening::ReadLog { node, .. }
            | Happening::Serve { node, .. } => Some(*node),
            Happening::Notification { to, .. } | Happening::Connect { to, .. } => Some(*to),
            Happening::ConnectFailed { from, .. } => Some(*from),
            Happening::Network(event) => self.noticed_by(event),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Turn { node, life, at } => {
                if self.process(node, life).is_some_and(|process| process.turn_at == at) {
                    self.turn(node);
                }
            }
            Happening::Log { node, life } => self.log_works(node, life),
            Happening::Snapshot { node, life } => self.snapshot_steps(node, life),
            Happening::Stream { node, life, connection } => {
                self.stream_steps(node, life, connection);
            }
            Happening::ReadLog { node, life, reading } => self.read_log(node, life, *reading),
            Happening::Serve { node, life, connection } => self.serve(node, life, connection),
            Happening::Network(event) => self.happen_on_network(event),
            Happening::Notification { from, to, payload } => self.notified(from, to, payload),
            Happening::Connect { from, life, to } => self.connect(from, life, to),
            Happening::ConnectFailed { from, life, to } => self.connect_failed(from, life, to),
            Happening::Client { client } => self.client_acts(client),
            Happening::Watchdog { client } => self.client_looks_at_clock(client),
            Happening::Start { node } => self.start(node),
            Happening::Fault => self.fault(),
            Happening::Room { node } => self.make_room(node),
            Happening::Heal => self.heal(),
            Happening::Inspect => self.inspect(),
        }
    }

    /// The process of a node in this life.
    pub fn process(&mut self, node: usize, life: u32) -> Option<&mut Process> {
        let node = &mut self.nodes[node];
        node.process.as_mut().filter(|_| node.incarnation == life)
    }

    /// Notes the first violation.
    pub fn check(&mut self, check: Check) {
        if let (Err(violation), None) = (check, &self.violation) {
            self.violation = Some(violation);
        }
    }

    /// One turn of a member's core.
    fn turn(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        process.turn_at = u64::MAX;
        let mut events = std::mem::take(&mut self.events);
        process.service.mailbox.take(&mut events, std::time::Duration::ZERO);
        let result = process.driver.turn(&mut events);
        events.clear();
        self.events = events;
        self.counts.turns += 1;
        self.after_turn(node, result);
    }

    /// Plans a turn if something waits for one.
    pub fn poke(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        if !process.service.mailbox.is_empty() {
            let delay = self.random.between(1, 60);
            self.plan_turn(node, self.agenda.now() + delay);
        }
    }

    /// Plans a turn, unless an earlier one is planned.
    pub fn plan_turn(&mut self, node: usize, at: u64) {
        let life = self.nodes[node].incarnation;
        let at = at.max(self.agenda.now() + 1);
        let Some(process) = &mut self.nodes[node].process else { return };
        if at < process.turn_at {
            process.turn_at = at;
            self.agenda.schedule(at, Happening::Turn { node, life, at });
        }
    }
}
