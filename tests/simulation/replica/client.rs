//! A simulated client: its session, connection, requests and watches; when it connects, pings, gives
//! up, leaves. What it does where there is no quorum is in [`read_only`](super::read_only).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use znodefs::wire::{ConnectRequest, Encode, put_frame, xid};
use znodefs::{SessionId, Zxid};

use super::ask::{Ask, Asked};
use super::invariants::watches::Watches;
use super::read_only::{Alone, Offer};
use super::world::{Happening, Phase, World};
use crate::network::{Side, Wire};
use crate::networked::Networked;

/// How long a client waits for the answer to its ConnectRequest, in microseconds.
const CONNECT_US: u64 = 1_500_000;

/// A client's session as the client knows it.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: SessionId,
    pub password: Bytes,
    pub timeout_us: u64,
    /// The newest zxid that it has seen in this session.
    pub seen: Zxid,
}

/// A client's connection.
#[derive(Debug)]
pub struct Link {
    pub number: usize,
    pub node: usize,
    /// What its ConnectRequest said: which session, whether reads are enough, what it has seen.
    pub offer: Offer,
    pub read_only: Option<bool>,
    pub seen: Zxid,
    /// Whether the member has no quorum and serves reads alone.
    pub alone: Option<Alone>,
    pub input: BytesMut,
    /// Whether its ConnectRequest was answered.
    pub established: bool,
    pub since: u64,
    /// The newest state that anyone had seen then.
    pub floor: Zxid,
    /// When something was last heard, and sent.
    pub heard: u64,
    pub sent: u64,
    pub asked: VecDeque<Asked>,
}

/// A client.
pub struct Client {
    pub session: Option<Session>,
    pub link: Option<Link>,
    /// A connection that the session had before, and that was not closed.
    pub former: Option<Link>,
    pub watches: Watches,
    /// Whether it watches the whole tree and nothing else.
    pub watches_all: bool,
    pub next_xid: i32,
    /// Whether it is content with reads where there is no quorum.
    pub may_be_read_only: bool,
    /// Its session with one member that has no quorum.
    pub local: Option<Session>,
    /// The newest zxid that it has seen there.
    pub seen_alone: Zxid,
    /// When last it could have written.
    pub could_write_us: u64,
    /// It does nothing before this time.
    pub silent_until: u64,
    /// It is gone, one way or another.
    pub gone: bool,
}

impl Client {
    /// A client that has done nothing.
    pub fn new(number: usize, may_be_read_only: bool) -> Client {
        Client {
            session: None,
            link: None,
            former: None,
            watches: Watches::default(),
            watches_all: number % 4 == 3,
            next_xid: 1,
            may_be_read_only,
            local: None,
            seen_alone: Zxid::ZERO,
            could_write_us: 0,
            silent_until: 0,
            gone: false,
        }
    }

    /// The session that it offers.
    pub fn offered(&self, offer: Offer) -> Option<&Session> {
        match offer {
            Offer::Nothing => None,
            Offer::Session => self.session.as_ref(),
            Offer::Local => self.local.as_ref(),
        }
    }

    /// Whether it has a session on a connection.
    pub fn is_established(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.established)
    }
}

impl World {
    pub fn participant(&self, client: usize) -> usize {
        self.nodes.len() + client
    }

    /// Sends a request on a client's connection.
    pub fn ask(&mut self, client: usize, ask: Ask) {
        let participant = self.participant(client);
        let (now, floor) = (self.agenda.now(), self.invariants.requests.observed);
        let state = &mut self.clients[client];
        let Some(link) = &mut state.link else { return };
        let number = match ask {
            Ask::Ping => xid::PING,
            _ => {
                state.next_xid += 1;
                state.next_xid
            }
        };
        let (bytes, connection) = (ask.encode(number), link.number);
        self.log.asked(now, client, number, &ask);
        if let Some(alone) = &link.alone
            && ask.is_write()
        {
            let reason = "what is asked for without a quorum has no effect";
            self.invariants.requests.forbid(alone.session_id, number, reason);
        }
        link.asked.push_back(Asked { xid: number, ask, floor });
        link.sent = now;
        self.counts.requests += 1;
        self.transmit(participant, connection, Wire::Message(bytes));
    }

    /// A client does something of its own accord.
    pub fn client_acts(&mut self, client: usize) {
        let delay = self.client_random.around(self.plan.client_mean_us);
        self.agenda.schedule_in(delay, Happening::Client { client });
        let leaves = matches!(self.phase, Phase::Leaving { .. } | Phase::Done);
        let state = &self.clients[client];
        if leaves || state.gone || state.silent_until > self.agenda.now() || !state.is_established()
        {
            return;
        }
        if self.is_alone(client) {
            return self.acts_alone(client);
        }
        match self.client_random.below(400) {
            0..=3 => return self.drop_link(client),
            4..=9 => return self.move_on(client),
            10..=11 if !self.is_healed() => {
                // A process that hangs; its session may end.
                let time = self.client_random.between(100_000, 2 * self.plan.session_us_max());
                self.clients[client].silent_until = self.agenda.now() + time;
                return;
            }
            12..=13 => {
                self.ask(
                    client,
                    Ask::Create {
                        path: "/r0/e0".to_owned(),
                        data: "last".to_owned(),
                        mode: znodefs::CreateMode::Ephemeral,
                    },
                );
                self.ask(client, Ask::Close);
                // Behind its end nothing of a session takes effect.
                let ask = self.some_ask(client);
                return self.ask(client, ask);
            }
            _ => {}
        }
        let count = if self.client_random.one_in(4) { self.client_random.between(2, 5) } else { 1 };
        for _ in 0..count {
            let ask = self.some_ask(client);
            let read = (ask == Ask::Sync).then(|| Ask::Get { path: "/r0".into(), watch: false });
            self.ask(client, ask);
            if let Some(read) = read {
                self.ask(client, read);
            }
        }
    }

    /// A client looks at its clock.
    pub fn client_looks_at_clock(&mut self, client: usize) {
        let delay = self.client_random.between(10_000, 40_000);
        self.agenda.schedule_in(delay, Happening::Watchdog { client });
        let now = self.agenda.now();
        let state = &self.clients[client];
        if state.gone || state.silent_until > now {
            return;
        }
        let Some(link) = &state.link else {
            if self.client_random.percent(30) {
                self.connect_client(client);
            }
            return;
        };
        let session_us = state.session.as_ref().map_or(CONNECT_US, |session| session.timeout_us);
        let timeout_us = link.alone.as_ref().map_or(session_us, |alone| alone.timeout_us);
        if !link.established {
            if now - link.since > CONNECT_US {
                self.drop_link(client);
            }
        } else if now - link.heard > timeout_us * 2 / 3 {
            self.drop_link(client);
        } else if now - link.sent > timeout_us / 4 {
            self.ask(client, Ask::Ping);
        }
        if self.is_alone(client) {
            self.looks_for_quorum(client);
        } else if self.clients[client].is_established() {
            self.clients[client].could_write_us = now;
        }
    }

    /// Lets go of a connection. What is under way on it has an unknown outcome.
    pub fn drop_link(&mut self, client: usize) {
        let participant = self.participant(client);
        let links = [self.clients[client].link.take(), self.clients[client].former.take()];
        for link in links.into_iter().flatten() {
            self.close(participant, link.number);
        }
    }

    /// Goes on with the session on another connection, without closing this one.
    fn move_on(&mut self, client: usize) {
        let participant = self.participant(client);
        if let Some(former) = self.clients[client].former.take() {
            self.close(participant, former.number);
        }
        self.clients[client].former = self.clients[client].link.take();
        self.connect_client(client);
    }

    fn connect_client(&mut self, client: usize) {
        let node = self.client_random.below(self.nodes.len());
        self.connect_client_to(client, node);
    }

    /// Connects to this node, if anybody is there.
    pub fn connect_client_to(&mut self, client: usize, node: usize) {
        let Some(number) = self.dial(client, node) else { return };
        let (now, floor) = (self.agenda.now(), self.invariants.requests.observed);
        let timeout_ms = self.client_random.between(2, 22) * self.plan.tick_ms;
        let (offer, read_only) = self.some_offer(client);
        let state = &mut self.clients[client];
        state.watches.reconnected();
        let zeros = Bytes::from_static(&[0; 16]);
        let (session_id, password) = match state.offered(offer) {
            Some(session) => (session.id, session.password.clone()),
            None => (SessionId(0), zeros),
        };
        let seen_in_session = state.session.as_ref().map_or(Zxid::ZERO, |session| session.seen);
        let seen = match offer {
            Offer::Session => seen_in_session,
            Offer::Nothing | Offer::Local => seen_in_session.max(state.seen_alone),
        };
        state.link = Some(Link {
            number,
            node,
            offer,
            read_only,
            seen,
            alone: None,
            input: BytesMut::new(),
            established: false,
            since: now,
            floor,
            heard: now,
            sent: now,
            asked: VecDeque::new(),
        });
        if offer == Offer::Session {
            self.invariants.sessions.asked(session_id, timeout_ms);
        }
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: seen,
            timeout_ms: timeout_ms as i32,
            session_id,
            password: Some(password),
            read_only,
        };
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| request.encode(out));
        self.log.note(now, || format!("client {client} connects to node {node}"));
        let participant = self.participant(client);
        self.transmit(participant, number, Wire::Message(out.to_vec()));
    }

    /// A client's connection is gone.
    pub fn client_loses(&mut self, client: usize, connection: usize) {
        let state = &mut self.clients[client];
        let lost = state.link.take_if(|link| link.number == connection);
        if let Some(link) = lost
            && !link.established
            && self.reads_alone(link.node)
        {
            self.counts.read_only_turned_away += 1;
        }
        let state = &mut self.clients[client];
        state.former.take_if(|link| link.number == connection);
    }

    /// The connection that the session had before is used once more, though the session has moved.
    pub fn use_former_link(&mut self, client: usize) {
        let participant = self.participant(client);
        let state = &mut self.clients[client];
        let (Some(former), Some(session)) = (&state.former, &state.session) else { return };
        if !former.established {
            return;
        }
        let (connection, session_id) = (former.number, session.id);
        // A leader that does not know yet that there is another moves nothing.
        let newest = self.nodes.iter().map(|node| node.adopted).max();
        let link = state.link.as_ref().and_then(|link| self.network.connection(link.number));
        let server = link.map(|link| link.end(Side::Leader).node);
        let moved = server.is_some_and(|node| Some(self.nodes[node].adopted) == newest);
        state.next_xid += 1;
        let number = state.next_xid;
        let ask = Ask::Set { path: "/r0".to_owned(), data: "moved".to_owned(), version: -1 };
        if moved {
            let reason = "nothing takes effect through a connection that lost its session";
            self.invariants.requests.forbid(session_id, number, reason);
        }
        self.log.asked(self.agenda.now(), client, number, &ask);
        self.counts.moved_writes += 1;
        self.transmit(participant, connection, Wire::Message(ask.encode(number)));
    }

    /// All clients leave: one half in order, the other without a word.
    pub fn clients_leave(&mut self) {
        for client in 0..self.clients.len() {
            if client % 2 == 0 && self.clients[client].is_established() {
                self.ask(client, Ask::Close);
            } else {
                self.drop_link(client);
            }
            self.clients[client].gone = true;
        }
    }
}
