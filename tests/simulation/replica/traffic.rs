//! Connections and links: between members, and between clients and members.

use bytes::Bytes;
use znodefs_server::clock::Clock;
use znodefs_server::ensemble::MemberEvent;
use znodefs_server::link::LinkEvent;
use znodefs_server::link::quorum_port::PortEvent;
use znodefs_server::net::client_connection::{self, ClientConnection, Wait};

use super::node::Served;
use super::plan::Plan;
use super::world::{Happening, Phase, World};
use crate::agenda::Agenda;
use crate::network::{End, Network, Wire};
use crate::networked::{Extremes, Networked};
use crate::random::Random;

impl World {
    /// Sends a notification, which may be lost.
    pub fn notify(&mut self, from: usize, to: usize, payload: Vec<u8>) {
        let lost = self.random.percent(self.network.loss_percent);
        let linked = self.nodes[from].process.as_ref().is_some_and(|process| process.links[to]);
        if lost || !linked || self.network.is_blocked(from, to) || self.nodes[to].process.is_none()
        {
            return;
        }
        let delay = self.network.delay(&mut self.random);
        self.agenda.schedule_in(delay, Happening::Notification { from, to, payload });
    }

    /// A notification arrives.
    pub fn notified(&mut self, from: usize, to: usize, payload: Vec<u8>) {
        self.tell_of_link(to, LinkEvent::Message { peer: Plan::id(from), payload });
    }

    fn client_number(&self, participant: usize) -> Option<usize> {
        participant.checked_sub(self.nodes.len())
    }

    fn node_hears(&mut self, node: usize, connection: usize, payload: Vec<u8>) {
        let life = self.nodes[node].incarnation;
        let Some(process) = self.process(node, life) else { return };
        if let Some(served) = process.clients.get_mut(&connection) {
            served.client.input().extend_from_slice(&payload);
            let session_id = served.client.connection().outbox().session_id;
            let serving = process.serving;
            if serving {
                self.invariants.sessions.touched(session_id, self.agenda.now());
            }
            return self.serve(node, life, connection);
        }
        let connection = connection as u64;
        self.tell(node, MemberEvent::Port(PortEvent::Message { connection, payload }));
    }

    /// A member's connection to another's quorum port.
    pub fn connect(&mut self, from: usize, life: u32, to: usize) {
        let delay = self.network.delay(&mut self.random);
        let Some(process) = self.process(from, life) else { return };
        let own = process.outside.ensemble_id();
        let other = self.nodes[to].process.as_ref().map(|process| process.outside.ensemble_id());
        let unknown = !self.knows(from, to);
        let strangers = matches!((own, other), (Some(own), Some(Some(other))) if own != other);
        if other.is_none() || unknown || strangers || !self.network.is_connected(from, to) {
            let delay = delay + if other.is_none() { 0 } else { 100_000 };
            self.agenda.schedule_in(delay, Happening::ConnectFailed { from, life, to });
            return;
        }
        let leader = (to, self.nodes[to].incarnation);
        let connection = self.network.connect((from, life), leader);
        let (number, peer) = (connection as u64, Plan::id(from));
        // Before anything can arrive on it.
        let event = PortEvent::Connected { connection: number, peer, outgoing: false };
        self.tell(to, MemberEvent::Port(event));
        let (connection, peer) = (number, Plan::id(to));
        self.tell(
            from,
            MemberEvent::Port(PortEvent::Connected { connection, peer, outgoing: true }),
        );
    }

    /// It cannot be made.
    pub fn connect_failed(&mut self, from: usize, life: u32, to: usize) {
        if self.process(from, life).is_some() {
            let (peer, reason) = (Plan::id(to), "not reached".into());
            self.tell(from, MemberEvent::Port(PortEvent::ConnectFailed { peer, reason }));
        }
    }

    /// A client connects to a node; the connection's number, or `None` when nobody answers.
    pub fn dial(&mut self, client: usize, node: usize) -> Option<usize> {
        let participant = self.nodes.len() + client;
        let life = self.nodes[node].incarnation;
        if self.nodes[node].process.is_none() || !self.network.is_connected(participant, node) {
            return None;
        }
        let connection = self.network.connect((participant, 0), (node, life));
        let (wall_ms, now_ms) = {
            let clock = &self.nodes[node].clock;
            (clock.wall_ms(), clock.monotonic_ms())
        };
        let process = self.process(node, life)?;
        let peer = ([127, 0, 0, 1], 40_000 + client as u16).into();
        let admitted = process.service.connections.admit(peer, wall_ms, now_ms).ok()?;
        let client = ClientConnection::new(process.service.clone(), admitted);
        process.clients.insert(connection, Served { client, is_new: true, planned: false });
        Some(connection)
    }

    /// A replica looks at a client's connection, as its task does.
    pub fn serve(&mut self, node: usize, life: u32, connection: usize) {
        let Some(process) = self.process(node, life) else { return };
        let Some(served) = process.clients.get_mut(&connection) else { return };
        served.planned = false;
        let mut output = Vec::new();
        let mut write = |bytes: &[u8]| {
            output.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        let client = &mut served.client;
        let mut over = false;
        if served.is_new {
            match client.take_connect_request() {
                Ok(true) => served.is_new = false,
                Ok(false) => {}
                Err(_) => over = true,
            }
        }
        over = over || client.work(&mut write).is_err();
        match client.waits_for() {
            Ok(Wait::ToFinish) => {
                while client.write_output(&mut write).is_ok_and(|all| !all) {}
                over = true;
            }
            Ok(Wait::For { .. }) => {}
            Err(_) => over = true,
        }
        if over && let Some(served) = process.clients.remove(&connection) {
            client_connection::forget(&process.service, served.client.connection());
        }
        if !output.is_empty() {
            self.transmit(node, connection, Wire::Message(Bytes::from(output).to_vec()));
        }
        if over {
            self.close(node, connection);
        }
        self.poke(node);
    }
}

impl Networked for World {
    type Message = Vec<u8>;
    type Happening = Happening;

    const EXTREMES: Extremes =
        Extremes { death_us: 3_000_000, link_us: 1_000_000, break_us: 2_000_000, flaps: 8 };

    fn agenda(&mut self) -> &mut Agenda<Happening> {
        &mut self.agenda
    }

    fn network(&self) -> &Network<Vec<u8>> {
        &self.network
    }

    fn network_and_random(&mut self) -> (&mut Network<Vec<u8>>, &mut Random) {
        (&mut self.network, &mut self.random)
    }

    fn fault_random(&mut self) -> &mut Random {
        &mut self.fault_random
    }

    fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Clients live once.
    fn life_of(&self, participant: usize) -> u32 {
        self.nodes.get(participant).map_or(0, |node| node.incarnation)
    }

    fn hear(&mut self, end: End, connection: usize, payload: Vec<u8>) {
        match self.client_number(end.node) {
            Some(client) => self.client_hears(client, connection, &payload),
            None => self.node_hears(end.node, connection, payload),
        }
    }

    fn connection_lost(&mut self, end: End, connection: usize) {
        if let Some(client) = self.client_number(end.node) {
            return self.client_loses(client, connection);
        }
        let Some(process) = self.process(end.node, end.incarnation) else { return };
        if let Some(served) = process.clients.remove(&connection) {
            client_connection::forget(&process.service, served.client.connection());
            return self.poke(end.node);
        }
        process.streams.remove(&(connection as u64));
        let (connection, reason) = (connection as u64, "lost".into());
        self.tell(end.node, MemberEvent::Port(PortEvent::Disconnected { connection, reason }));
    }

    fn check_link(&mut self, node: usize, peer: usize) {
        let up = self.nodes[peer].process.is_some()
            && self.network.is_connected(node, peer)
            && self.are_acquainted(node, peer);
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.links[peer] != up {
            process.links[peer] = up;
            let peer = Plan::id(peer);
            self.tell_of_link(
                node,
                match up {
                    true => LinkEvent::Connected { peer },
                    false => LinkEvent::Lost { peer, reason: "lost".into() },
                },
            );
        }
    }

    fn participants(&self) -> usize {
        self.nodes.len() + self.clients.len()
    }

    fn is_healed(&self) -> bool {
        self.phase != Phase::Faults
    }

    fn fault_time(&mut self) -> u64 {
        self.disturbed_time()
    }

    fn way_changes(&mut self, from: usize, to: usize, blocked: bool) {
        self.disturb(self.agenda.now());
        self.log.fault(self.agenda.now(), || {
            let what = if blocked { "is blocked" } else { "is free" };
            format!("the way from {from} to {to} {what}")
        });
    }

    fn connection_breaks(&mut self, connection: usize) {
        self.log.fault(self.agenda.now(), || format!("connection {connection} breaks"));
    }

    fn disturb(&mut self, until: u64) {
        self.disturbed_us = self.disturbed_us.max(until);
    }
}
