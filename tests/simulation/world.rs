//! The event loop of a simulated run: what happens when, to whom. Time moves from event to event;
//! events of the same microsecond come in the order in which they were scheduled.

use std::collections::VecDeque;

use bytes::Bytes;
use znodefs_server::zab::{
    ConnectionId, Effect, Ensemble, Entry, Event, LogRead, Notification, Packet, ReadId,
};

use crate::agenda::Agenda;
use crate::database::Database;
use crate::invariants::{Check, Invariants, Violation, check_adopted, check_epochs, violation};
use crate::network::{End, Network};
use crate::networked::{Extremes, NetworkEvent, Networked};
use crate::node::Node;
use crate::plan::{DURATION_US, Plan};
use crate::random::Random;
use crate::report::Counts;
use crate::trace::Trace;

/// No run of a protocol that makes progress does so much.
const EFFECTS_MAX: u64 = 5_000_000;

/// What travels on a connection.
#[derive(Debug)]
pub enum Message {
    /// A packet of the protocol.
    Packet(Packet),
    /// A whole snapshot, and the configuration that comes with it.
    Snapshot(Database, Ensemble),
}

/// Something that will happen.
#[derive(Debug)]
pub enum Happening {
    /// A node's timer.
    Timer {
        node: usize,
        incarnation: u32,
    },
    /// A notification arrives.
    Notification {
        from: usize,
        to: usize,
        notification: Box<Notification>,
    },
    /// A connection is asked for, answered, or refused.
    Connect {
        from: usize,
        incarnation: u32,
        to: usize,
    },
    Connected {
        from: usize,
        incarnation: u32,
        to: usize,
        connection: usize,
    },
    ConnectFailed {
        from: usize,
        incarnation: u32,
        to: usize,
    },
    /// A sync of the disk ends.
    Synced {
        node: usize,
        incarnation: u32,
    },
    /// The log was read.
    Read {
        node: usize,
        incarnation: u32,
        read: ReadId,
        answer: Box<LogRead>,
    },
    /// A client does something.
    Client {
        client: usize,
    },
    /// A client's request comes to a node: a write, or a sync with its number.
    Request {
        node: usize,
        sync: Option<u64>,
    },
    /// A node keeps a snapshot.
    Snapshot {
        node: usize,
    },
    /// A node's process starts.
    Start {
        node: usize,
    },
    /// Something on the network.
    Network(NetworkEvent),
    /// Something fails, or is repaired.
    Fault,
    /// The end of all faults.
    Heal,
    /// After it: is all well?
    Inspect,
}

/// Work for a node's process at this instant.
#[derive(Debug)]
pub enum Work {
    /// An event for the protocol.
    Event(Event),
    /// A request for the leader's request processor.
    Submit(Bytes),
}

impl From<NetworkEvent> for Happening {
    fn from(event: NetworkEvent) -> Happening {
        Happening::Network(event)
    }
}

/// A run.
pub struct World {
    pub plan: Plan,
    pub random: Random,
    pub agenda: Agenda<Happening>,
    pub nodes: Vec<Node>,
    pub network: Network<Message>,
    pub invariants: Invariants,
    pub counts: Counts,
    pub trace: Trace,
    /// The node each client is attached to.
    pub clients: Vec<usize>,
    pub healed: bool,
    pub done: bool,
    /// The number of final writes submitted.
    pub final_writes: usize,
    pub violation: Option<Violation>,
    pub work: VecDeque<(usize, Work)>,
    effects: Vec<Effect>,
}

impl World {
    /// Everything is set up and nothing has happened.
    pub fn new(plan: Plan, trace: Trace) -> World {
        let mut random = Random::new(plan.seed ^ 0xabcd_ef01_2345_6789);
        let nodes = (0..plan.nodes()).map(|_| Node::new(&plan, &mut random)).collect();
        let mut network = Network::new(plan.nodes(), plan.latency);
        network.loss_percent = plan.loss_percent;
        let mut world = World {
            random,
            agenda: Agenda::new(),
            nodes,
            network,
            invariants: Invariants::new(),
            counts: Counts::default(),
            trace,
            clients: vec![0; plan.clients],
            healed: false,
            done: false,
            final_writes: 0,
            violation: None,
            work: VecDeque::new(),
            effects: Vec::new(),
            plan,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.random.between(0, 2_000_000);
            self.agenda.schedule(at, Happening::Start { node });
            let at = self.random.around(self.plan.snapshot_mean_us);
            self.agenda.schedule(at, Happening::Snapshot { node });
        }
        for client in 0..self.plan.clients {
            self.clients[client] = self.random.below(self.nodes.len());
            self.agenda.schedule(500_000, Happening::Client { client });
        }
        let first = 2_000_000 + self.random.around(self.plan.fault_mean_us);
        self.agenda.schedule(first, Happening::Fault);
        self.agenda.schedule(DURATION_US, Happening::Heal);
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) {
        self.run_until(u64::MAX);
    }

    /// The same, no further than this time.
    pub fn run_until(&mut self, time: u64) {
        self.settle();
        while let Some(at) = self.agenda.next_at() {
            if at > time {
                return self.agenda.wait_until(time);
            }
            let Some(happening) = self.agenda.pop() else { return };
            self.counts.events += 1;
            if let Some(node) = self.process_of(&happening)
                && self.nodes[node].paused_until > at
            {
                let until = self.nodes[node].paused_until;
                self.agenda.schedule(until, happening);
                continue;
            }
            self.happen(happening);
            self.settle();
            if self.counts.effects > EFFECTS_MAX {
                self.check(violation("a run ends", format!("more than {EFFECTS_MAX} effects")));
            }
            if self.violation.is_some() || self.done {
                return;
            }
        }
    }

    /// Whose process must be awake for this to be noticed.
    fn process_of(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Timer { node, .. }
            | Happening::Synced { node, .. }
            | Happening::Snapshot { node }
            | Happening::Request { node, .. }
            | Happening::Read { node, .. } => Some(*node),
            Happening::Notification { to, .. } | Happening::Connect { to, .. } => Some(*to),
            Happening::Connected { from, .. } | Happening::ConnectFailed { from, .. } => {
                Some(*from)
            }
            Happening::Network(event) => self.noticed_by(event),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Timer { node, incarnation } => {
                if self.nodes[node].incarnation == incarnation {
                    self.nodes[node].timer_at = u64::MAX;
                    self.feed(node, Event::Tick);
                }
            }
            Happening::Network(event) => self.happen_on_network(event),
            Happening::Notification { from, to, notification } => {
                let from = Plan::id(from);
                let notification = *notification;
                self.feed(to, Event::Notification { from, notification });
            }
            Happening::Connect { from, incarnation, to } => self.connect(from, incarnation, to),
            Happening::Connected { from, incarnation, to, connection } => {
                if self.network.side_of(connection, from, incarnation).is_some() {
                    let (peer, connection) = (Plan::id(to), ConnectionId(connection as u64));
                    self.feed(from, Event::Connected { connection, peer, outgoing: true });
                }
            }
            Happening::ConnectFailed { from, incarnation, to } => {
                if self.nodes[from].incarnation == incarnation {
                    self.feed(from, Event::ConnectFailed { peer: Plan::id(to) });
                }
            }
            Happening::Synced { node, incarnation } => self.synced(node, incarnation),
            Happening::Read { node, incarnation, read, answer } => {
                if self.nodes[node].incarnation == incarnation {
                    self.feed(node, Event::LogRead { read, answer: *answer });
                }
            }
            Happening::Client { client } => self.client(client),
            Happening::Request { node, sync } => self.request(node, sync),
            Happening::Snapshot { node } => self.keep_snapshot(node),
            Happening::Start { node } => self.start(node),
            Happening::Fault => self.fault(),
            Happening::Heal => self.heal(),
            Happening::Inspect => self.inspect(),
        }
    }

    /// Gives an event to a node's process, if it runs.
    pub fn feed(&mut self, node: usize, event: Event) {
        self.work.push_back((node, Work::Event(event)));
    }

    /// Runs everything that is due at this instant.
    fn settle(&mut self) {
        while let Some((node, work)) = self.work.pop_front() {
            self.step(node, work);
            if self.violation.is_some() || self.counts.effects > EFFECTS_MAX {
                return;
            }
        }
    }

    fn step(&mut self, node: usize, work: Work) {
        let now_ms = self.nodes[node].local_ms(self.agenda.now());
        let Some(zab) = &mut self.nodes[node].zab else { return };
        let event = match work {
            Work::Event(event) => event,
            Work::Submit(payload) => {
                let Some(zxid) = zab.next_zxid() else { return };
                let entry = Entry { zxid, payload };
                let before = zab.last_logged();
                let proposed = self.invariants.history.propose(node, before, &entry);
                self.counts.proposals += 1;
                self.check(proposed);
                Event::Propose(vec![entry])
            }
        };
        if let Event::Packet { packet: Packet::NewLeader { .. }, .. } = event {
            self.nodes[node].new_leader_end = self.nodes[node].log_end;
        }
        self.trace.event(self.agenda.now(), node, &event);
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(zab) = &mut self.nodes[node].zab {
            zab.step(now_ms, event, &mut effects);
        }
        for effect in effects.drain(..) {
            if self.nodes[node].crash_point.is_reached() {
                self.crash(node);
                break;
            }
            self.execute(node, effect);
            if self.violation.is_some() || self.nodes[node].zab.is_none() {
                break;
            }
        }
        self.effects = effects;
        self.set_timer(node);
    }

    fn set_timer(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let Some(deadline) = state.zab.as_ref().and_then(|zab| zab.deadline()) else { return };
        if deadline == u64::MAX {
            return;
        }
        let at = state.global_us(deadline).max(self.agenda.now() + 1);
        if at < state.timer_at {
            state.timer_at = at;
            let incarnation = state.incarnation;
            self.agenda.schedule(at, Happening::Timer { node, incarnation });
        }
    }

    /// Notes the first violation.
    pub fn check(&mut self, check: Check) {
        if let (Err(violation), None) = (check, &self.violation) {
            self.violation = Some(violation);
        }
    }

    fn connect(&mut self, from: usize, incarnation: u32, to: usize) {
        let delay = self.network.delay(&mut self.random);
        if self.nodes[from].incarnation != incarnation {
            return;
        }
        if self.nodes[to].zab.is_none() || !self.network.is_connected(from, to) {
            let delay = delay + if self.nodes[to].zab.is_none() { 0 } else { 100_000 };
            self.agenda.schedule_in(delay, Happening::ConnectFailed { from, incarnation, to });
            return;
        }
        let leader = (to, self.nodes[to].incarnation);
        let connection = self.network.connect((from, incarnation), leader);
        let id = ConnectionId(connection as u64);
        self.feed(to, Event::Connected { connection: id, peer: Plan::id(from), outgoing: false });
        self.agenda.schedule_in(delay, Happening::Connected { from, incarnation, to, connection });
    }

    fn synced(&mut self, node: usize, incarnation: u32) {
        if self.nodes[node].incarnation != incarnation {
            return;
        }
        let disk = &mut self.nodes[node].disk;
        let before = (disk.accepted_epoch.0, disk.current_epoch.0);
        let (synced, next) = disk.complete(&mut self.random);
        let epochs = check_epochs(node, before, disk)
            .and_then(|()| check_adopted(node, disk, &self.invariants.total_order));
        self.check(epochs);
        if let Some(delay) = next {
            self.agenda.schedule_in(delay, Happening::Synced { node, incarnation });
        }
        if let Some(synced) = synced {
            self.feed(node, Event::Durable(synced.ticket));
        }
    }

    fn keep_snapshot(&mut self, node: usize) {
        let purge = self.random.percent(70);
        let state = &mut self.nodes[node];
        if state.zab.is_some() {
            // Only what is on the disk: a snapshot never runs ahead of the log.
            if state.database.zxid <= state.disk.last() {
                state.disk.keep_snapshot(&state.database, purge);
            }
        }
        if !self.healed {
            let delay = self.random.around(self.plan.snapshot_mean_us);
            self.agenda.schedule_in(delay, Happening::Snapshot { node });
        }
    }
}

impl Networked for World {
    type Message = Message;
    type Happening = Happening;

    const EXTREMES: Extremes =
        Extremes { death_us: 5_000_000, link_us: 2_000_000, break_us: 3_000_000, flaps: 10 };

    fn agenda(&mut self) -> &mut Agenda<Happening> {
        &mut self.agenda
    }

    fn network(&self) -> &Network<Message> {
        &self.network
    }

    fn network_and_random(&mut self) -> (&mut Network<Message>, &mut Random) {
        (&mut self.network, &mut self.random)
    }

    fn fault_random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn life_of(&self, node: usize) -> u32 {
        self.nodes[node].incarnation
    }

    fn hear(&mut self, end: End, connection: usize, message: Message) {
        let connection = ConnectionId(connection as u64);
        let packet = match message {
            Message::Packet(packet) => packet,
            Message::Snapshot(database, configuration) => {
                let zxid = database.zxid;
                self.nodes[end.node].staged.insert(connection, database);
                Packet::Snap { zxid, configuration }
            }
        };
        self.feed(end.node, Event::Packet { connection, packet });
    }

    fn connection_lost(&mut self, end: End, connection: usize) {
        if self.nodes[end.node].incarnation == end.incarnation {
            self.feed(end.node, Event::Disconnected(ConnectionId(connection as u64)));
        }
    }

    fn check_link(&mut self, node: usize, peer: usize) {
        let up = self.nodes[peer].zab.is_some() && self.network.is_connected(node, peer);
        if self.nodes[node].zab.is_some() && self.nodes[node].links[peer] != up {
            self.nodes[node].links[peer] = up;
            let peer = Plan::id(peer);
            self.feed(node, if up { Event::LinkUp(peer) } else { Event::LinkDown(peer) });
        }
    }

    fn participants(&self) -> usize {
        self.nodes.len()
    }

    fn is_healed(&self) -> bool {
        self.healed
    }

    fn fault_time(&mut self) -> u64 {
        self.some_time()
    }
}
