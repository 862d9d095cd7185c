//! What a run does about connections and links, at either level of the simulator: messages come,
//! connections end, each side notices at its own time; and what goes wrong with them. Whoever takes
//! part has a number, and a life of its process; nodes come first, and there may be others behind them.

use crate::agenda::Agenda;
use crate::network::{Arrival, End, Network, Side, Wire};
use crate::random::Random;

/// Something that happens on the network.
#[derive(Debug)]
pub enum NetworkEvent {
    /// Something arrives on a connection.
    Arrival { connection: usize, to: Side },
    /// One side notices that a connection is broken.
    Reset { connection: usize, side: Side },
    /// One side is told by the other's machine that the process there is gone.
    PeerDied { connection: usize, side: Side },
    /// A node finds out whether another is reachable.
    Link { node: usize, peer: usize },
    /// A way between two participants changes.
    Way { from: usize, to: usize, blocked: bool },
}

/// How far faults of the network go, in microseconds where nothing else is said.
pub struct Extremes {
    /// Until the end of a process is noticed by those connected to it.
    pub death_us: u64,
    /// Until it is noticed whether a node is reachable.
    pub link_us: u64,
    /// Until a side notices that its connection is broken.
    pub break_us: u64,
    /// How often a node that flaps is cut off, a number.
    pub flaps: u64,
}

/// A run as its network sees it.
pub trait Networked {
    /// What travels on a connection.
    type Message;
    /// Anything that can be planned.
    type Happening: From<NetworkEvent>;

    /// How far this level goes.
    const EXTREMES: Extremes;

    /// What happens when.
    fn agenda(&mut self) -> &mut Agenda<Self::Happening>;
    /// The network.
    fn network(&self) -> &Network<Self::Message>;
    /// The same, and what its delays are drawn from.
    fn network_and_random(&mut self) -> (&mut Network<Self::Message>, &mut Random);
    /// What faults are drawn from.
    fn fault_random(&mut self) -> &mut Random;
    /// How many nodes there are.
    fn node_count(&self) -> usize;
    /// The life of a participant's process.
    fn life_of(&self, participant: usize) -> u32;
    /// A message has come to an end that is open.
    fn hear(&mut self, end: End, connection: usize, message: Self::Message);
    /// The process at this end sees the connection go.
    fn connection_lost(&mut self, end: End, connection: usize);
    /// A node finds out whether another is reachable.
    fn check_link(&mut self, node: usize, peer: usize);
    /// How many take part, nodes and others.
    fn participants(&self) -> usize;
    /// Whether no more faults come.
    fn is_healed(&self) -> bool;
    /// How long a fault lasts, in microseconds.
    fn fault_time(&mut self) -> u64;
    /// A way is about to change.
    fn way_changes(&mut self, _from: usize, _to: usize, _blocked: bool) {}
    /// A connection is about to break.
    fn connection_breaks(&mut self, _connection: usize) {}
    /// Something is not as it should be until then.
    fn disturb(&mut self, _until: u64) {}

    /// It happens now.
    fn happen_on_network(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Arrival { connection, to } => self.arrive(connection, to),
            NetworkEvent::Reset { connection, side } => self.lose(connection, side),
            NetworkEvent::PeerDied { connection, side } => self.peer_died(connection, side),
            NetworkEvent::Link { node, peer } => self.check_link(node, peer),
            NetworkEvent::Way { from, to, blocked } => self.set_way(from, to, blocked),
        }
    }

    /// The node whose process must be awake for this to be noticed.
    fn noticed_by(&self, event: &NetworkEvent) -> Option<usize> {
        let (connection, side) = match *event {
            NetworkEvent::Arrival { connection, to: side }
            | NetworkEvent::Reset { connection, side }
            | NetworkEvent::PeerDied { connection, side } => (connection, side),
            NetworkEvent::Link { node, .. } => return Some(node),
            NetworkEvent::Way { .. } => return None,
        };
        let participant = self.network().connection(connection)?.end(side).node;
        (participant < self.node_count()).then_some(participant)
    }

    /// Plans something on the network after a delay.
    fn plan_in(&mut self, delay: u64, event: NetworkEvent) {
        self.agenda().schedule_in(delay, event.into());
    }

    /// Puts something on a connection; `false` when the sender does not have it anymore.
    fn transmit(&mut self, from: usize, connection: usize, wire: Wire<Self::Message>) -> bool {
        let life = self.life_of(from);
        let Some(side) = self.network().side_of(connection, from, life) else { return false };
        let now = self.agenda().now();
        let (network, random) = self.network_and_random();
        if let Some(at) = network.send(connection, side, wire, now, random) {
            let to = side.other();
            self.agenda().schedule(at, NetworkEvent::Arrival { connection, to }.into());
        }
        true
    }

    /// A process closes a connection, behind what it sent on it.
    fn close(&mut self, participant: usize, connection: usize) {
        self.transmit(participant, connection, Wire::Close);
        let life = self.life_of(participant);
        if let Some(side) = self.network().side_of(connection, participant, life) {
            self.network_and_random().0.release(connection, side);
        }
    }

    /// Something arrives on a connection.
    fn arrive(&mut self, connection: usize, to: Side) {
        let Some(end) = self.network().connection(connection).map(|c| c.end(to)) else { return };
        let (arrival, next) = self.network_and_random().0.arrive(connection, to);
        if let Some(at) = next {
            self.agenda().schedule(at, NetworkEvent::Arrival { connection, to }.into());
        }
        match arrival {
            Arrival::Nothing => {}
            Arrival::Message(message) => self.hear(end, connection, message),
            Arrival::Closed => self.lose(connection, to),
            Arrival::Refused => {
                let (network, random) = self.network_and_random();
                let delay = network.delay(random);
                self.plan_in(delay, NetworkEvent::Reset { connection, side: to.other() });
            }
        }
    }

    /// One side's process sees the connection go, unless it has let go of it before.
    fn lose(&mut self, connection: usize, side: Side) {
        let Some(end) = self.network().connection(connection).map(|c| c.end(side)) else { return };
        if end.open {
            self.network_and_random().0.release(connection, side);
            self.connection_lost(end, connection);
        }
    }

    /// Behind a partition nobody is told.
    fn peer_died(&mut self, connection: usize, side: Side) {
        let Some(known) = self.network().connection(connection) else { return };
        let (node, peer) = (known.end(side).node, known.end(side.other()).node);
        if !self.network().is_blocked(peer, node) {
            self.lose(connection, side);
        }
    }

    /// The process of a node is gone; those connected to it are told, each at its own time.
    fn leave_connections(&mut self, node: usize) {
        let life = self.life_of(node);
        for (connection, side) in self.network().connections_of(node, life) {
            self.network_and_random().0.release(connection, side);
            let random = self.fault_random();
            let delay = match random.one_in(10) {
                true => random.between(100_000, Self::EXTREMES.death_us),
                false => random.between(50, 5_000),
            };
            self.plan_in(delay, NetworkEvent::PeerDied { connection, side: side.other() });
        }
    }

    /// Everyone finds out, in its own time, whether a node is reachable.
    fn look_at_links(&mut self, node: usize) {
        for peer in 0..self.node_count() {
            if peer != node {
                for (node, peer) in [(node, peer), (peer, node)] {
                    let random = self.network_and_random().1;
                    let delay = match random.one_in(10) {
                        true => random.between(10_000, Self::EXTREMES.link_us),
                        false => random.between(100, 10_000),
                    };
                    self.plan_in(delay, NetworkEvent::Link { node, peer });
                }
            }
        }
    }

    /// Blocks or frees a way, and lets what waited there go on.
    fn set_way(&mut self, from: usize, to: usize, blocked: bool) {
        if self.is_healed() && blocked || self.network().is_blocked(from, to) == blocked {
            return;
        }
        self.way_changes(from, to, blocked);
        self.network_and_random().0.set_blocked(from, to, blocked);
        if !blocked {
            for (connection, to, at) in self.network_and_random().0.resume() {
                self.agenda().schedule(at, NetworkEvent::Arrival { connection, to }.into());
            }
        }
        if from < self.node_count() {
            self.look_at_links(from);
        }
    }

    /// Blocks a way, and plans its end.
    fn block_for(&mut self, time: u64, from: usize, to: usize) {
        self.set_way(from, to, true);
        self.plan_in(time, NetworkEvent::Way { from, to, blocked: false });
    }

    /// Nothing passes between a node and the first so many participants.
    fn cut_off(&mut self, node: usize, others: usize, time: u64) {
        for peer in 0..others {
            if peer != node {
                self.block_for(time, node, peer);
                self.block_for(time, peer, node);
            }
        }
    }

    /// Nothing passes between two parts.
    fn split(&mut self) {
        let time = self.fault_time();
        let count = self.participants();
        let side: Vec<bool> = (0..count).map(|_| self.fault_random().percent(50)).collect();
        for from in 0..count {
            for to in 0..count {
                if side[from] != side[to] {
                    self.block_for(time, from, to);
                }
            }
        }
    }

    /// Nothing passes from one to another.
    fn block_one_way(&mut self) {
        let count = self.participants();
        let (from, to) = (self.fault_random().below(count), self.fault_random().below(count));
        if from != to {
            let time = self.fault_time();
            self.block_for(time, from, to);
        }
    }

    /// A node is cut off from the others and is not, in turn.
    fn flap(&mut self, node: usize) {
        let mut at = 0;
        for _ in 0..self.fault_random().between(3, Self::EXTREMES.flaps) {
            let down = self.fault_random().between(1, 300_000);
            let up = self.fault_random().between(1, 300_000);
            for peer in 0..self.node_count() {
                for (from, to) in [(node, peer), (peer, node)] {
                    if from != to {
                        self.plan_in(at, NetworkEvent::Way { from, to, blocked: true });
                        self.plan_in(at + down, NetworkEvent::Way { from, to, blocked: false });
                    }
                }
            }
            at += down + up;
        }
        let end = self.agenda().now() + at;
        self.disturb(end);
    }

    /// Every way is free again.
    fn free_all_ways(&mut self) {
        for from in 0..self.participants() {
            for to in 0..self.participants() {
                self.set_way(from, to, false);
            }
        }
    }

    /// The two sides notice at different times, so that a second connection may overlap the first.
    fn break_connection(&mut self) {
        let open = self.network().open_connections();
        if open.is_empty() {
            return;
        }
        let connection = open[self.fault_random().below(open.len())];
        self.connection_breaks(connection);
        for side in [Side::Learner, Side::Leader] {
            let random = self.fault_random();
            let delay = match random.percent(50) {
                true => random.between(0, 10_000),
                false => random.between(10_000, Self::EXTREMES.break_us),
            };
            let noticed = self.agenda().now() + delay;
            self.disturb(noticed);
            self.plan_in(delay, NetworkEvent::Reset { connection, side });
        }
    }
}
