//! A simulated network: links for notifications that lose and delay, connections that keep order,
//! stall behind partitions, and break, on each side at its own time. Knows nothing of the messages.

use std::collections::VecDeque;

use crate::random::Random;

/// The side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who connected.
    Learner,
    /// Who was connected to.
    Leader,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Learner => Side::Leader,
            Side::Leader => Side::Learner,
        }
    }
}

/// What travels one way.
#[derive(Debug)]
pub enum Wire<T> {
    /// A message.
    Message(T),
    /// The sender has closed the connection.
    Close,
}

#[derive(Debug)]
struct Channel<T> {
    /// Sent, with the time of arrival.
    queue: VecDeque<(u64, Wire<T>)>,
    /// Whether an arrival is scheduled for the head.
    scheduled: bool,
}

/// One end: which process, and whether it still holds the connection.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The node.
    pub node: usize,
    /// Its life, so that a restarted node does not get what was meant for the one before.
    pub incarnation: u32,
    /// Whether the process still knows the connection.
    pub open: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Connection<T> {
    learner: End,
    leader: End,
    to_leader: Channel<T>,
    to_learner: Channel<T>,
}

impl<T> Connection<T> {
    /// One of its ends.
    pub fn end(&self, side: Side) -> End {
        match side {
            Side::Learner => self.learner,
            Side::Leader => self.leader,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Learner => &mut self.learner,
            Side::Leader => &mut self.leader,
        }
    }

    fn channel(&mut self, to: Side) -> &mut Channel<T> {
        match to {
            Side::Learner => &mut self.to_learner,
            Side::Leader => &mut self.to_leader,
        }
    }
}

/// How long messages take.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The least, in microseconds.
    pub min_us: u64,
    /// The usual most.
    pub max_us: u64,
    /// One message in so many takes up to fifty times as long; 0 for none.
    pub spike_one_in: u64,
}

/// All links and connections.
pub struct Network<T> {
    nodes: usize,
    /// One way, from row to column.
    blocked: Vec<bool>,
    connections: Vec<Option<Connection<T>>>,
    /// How long messages take.
    pub latency: Latency,
    /// Percentage of notifications that are lost.
    pub loss_percent: u64,
    /// How often something was put on a connection.
    pub sent: u64,
}

/// What comes out of an arrival.
#[derive(Debug)]
pub enum Arrival<T> {
    /// Nothing: the way is blocked or there is nothing.
    Nothing,
    /// A message for the end's process.
    Message(T),
    /// The other end has closed: the process sees the connection go.
    Closed,
    /// The receiver is gone: the sender will see the connection go.
    Refused,
}

impl<T> Network<T> {
    /// A network without faults.
    pub fn new(nodes: usize, latency: Latency) -> Network<T> {
        Network {
            nodes,
            blocked: vec![false; nodes * nodes],
            connections: Vec::new(),
            latency,
            loss_percent: 0,
            sent: 0,
        }
    }

    /// Blocks or frees one direction between two nodes.
    pub fn set_blocked(&mut self, from: usize, to: usize, blocked: bool) {
        self.blocked[from * self.nodes + to] = blocked;
    }

    /// Whether nothing passes in this direction.
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[from * self.nodes + to]
    }

    /// Whether both directions pass.
    pub fn is_connected(&self, a: usize, b: usize) -> bool {
        !self.is_blocked(a, b) && !self.is_blocked(b, a)
    }

    /// How long the next message takes, in microseconds.
    pub fn delay(&mut self, random: &mut Random) -> u64 {
        let Latency { min_us, max_us, spike_one_in } = self.latency;
        let usual = random.between(min_us, max_us);
        if spike_one_in > 0 && random.one_in(spike_one_in) {
            usual * random.between(2, 50)
        } else {
            usual
        }
    }

    /// A new connection; its number is its place in the list.
    pub fn connect(&mut self, learner: (usize, u32), leader: (usize, u32)) -> usize {
        let end = |(node, incarnation)| End { node, incarnation, open: true };
        let channel = || Channel { queue: VecDeque::new(), scheduled: false };
        self.connections.push(Some(Connection {
            learner: end(learner),
            leader: end(leader),
            to_leader: channel(),
            to_learner: channel(),
        }));
        self.connections.len() - 1
    }

    /// The connection, unless it is long gone.
    pub fn connection(&self, number: usize) -> Option<&Connection<T>> {
        self.connections.get(number)?.as_ref()
    }

    /// The side of a connection that this process holds.
    pub fn side_of(&self, number: usize, node: usize, incarnation: u32) -> Option<Side> {
        let connection = self.connection(number)?;
        [Side::Learner, Side::Leader].into_iter().find(|side| {
            let end = connection.end(*side);
            end.node == node && end.incarnation == incarnation && end.open
        })
    }

    /// Sends from one side; the result is when an arrival must be looked at, if none is scheduled.
    pub fn send(
        &mut self,
        number: usize,
        from: Side,
        wire: Wire<T>,
        now: u64,
        random: &mut Random,
    ) -> Option<u64> {
        self.sent += 1;
        let delay = self.delay(random);
        let connection = self.connections.get_mut(number)?.as_mut()?;
        let channel = connection.channel(from.other());
        let after = channel.queue.back().map_or(0, |(at, _)| *at);
        let at = (now + delay).max(after);
        channel.queue.push_back((at, wire));
        self.schedule(number, from.other())
    }

    /// When the head of a channel arrives, if nobody waits for that yet.
    fn schedule(&mut self, number: usize, to: Side) -> Option<u64> {
        let connection = self.connections.get_mut(number)?.as_mut()?;
        let (from_node, to_node) = (connection.end(to.other()).node, connection.end(to).node);
        if self.blocked[from_node * self.nodes + to_node] {
            return None;
        }
        let channel = connection.channel(to);
        if channel.scheduled {
            return None;
        }
        let (at, _) = channel.queue.front()?;
        channel.scheduled = true;
        Some(*at)
    }

    /// Something is due at one side. The time is that of the next arrival there.
    pub fn arrive(&mut self, number: usize, to: Side) -> (Arrival<T>, Option<u64>) {
        let Some(connection) = self.connections.get_mut(number).and_then(Option::as_mut) else {
            return (Arrival::Nothing, None);
        };
        connection.channel(to).scheduled = false;
        let (from_node, to_node) = (connection.end(to.other()).node, connection.end(to).node);
        if self.blocked[from_node * self.nodes + to_node] {
            return (Arrival::Nothing, None);
        }
        let open = connection.end(to).open;
        let Some((_, wire)) = connection.channel(to).queue.pop_front() else {
            return (Arrival::Nothing, None);
        };
        let arrival = match (open, wire) {
            (true, Wire::Message(message)) => Arrival::Message(message),
            (true, Wire::Close) => Arrival::Closed,
            (false, Wire::Message(_)) => Arrival::Refused,
            (false, Wire::Close) => Arrival::Nothing,
        };
        let next = self.schedule(number, to);
        (arrival, next)
    }

    /// A process lets go of its end.
    pub fn release(&mut self, number: usize, side: Side) {
        let Some(slot) = self.connections.get_mut(number) else { return };
        if let Some(connection) = slot {
            connection.end_mut(side).open = false;
            if !connection.learner.open && !connection.leader.open {
                *slot = None;
            }
        }
    }

    /// Connections that have an end open at this node's life, with that side.
    pub fn connections_of(&self, node: usize, incarnation: u32) -> Vec<(usize, Side)> {
        (0..self.connections.len())
            .filter_map(|number| Some((number, self.side_of(number, node, incarnation)?)))
            .collect()
    }

    /// Every connection with both ends open.
    pub fn open_connections(&self) -> Vec<usize> {
        let whole = |connection: &Connection<T>| connection.learner.open && connection.leader.open;
        (0..self.connections.len())
            .filter(|number| self.connection(*number).is_some_and(whole))
            .collect()
    }

    /// Arrivals to look at now that ways may be free again: connection, side, time.
    pub fn resume(&mut self) -> Vec<(usize, Side, u64)> {
        let mut due = Vec::new();
        for number in 0..self.connections.len() {
            for side in [Side::Learner, Side::Leader] {
                if let Some(at) = self.schedule(number, side) {
                    due.push((number, side, at));
                }
            }
        }
        due
    }
}
