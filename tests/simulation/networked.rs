//! What a run does about connections and links, at either level of the simulator: messages come,
//! connections end, each side notices at its own time. Whoever takes part has a number, and a life of
//! its process; nodes come first, and there may be others behind them.

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
    /// Blocks or frees a way, and lets what waited there go on.
    fn set_way(&mut self, from: usize, to: usize, blocked: bool);

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
}
