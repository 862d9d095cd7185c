//! Service without a quorum: which members give it and when it must end, and what clients do there
//! that are content with reads. As ZooKeeper's clients do, these go on looking for a quorum.

use znodefs::wire::{ConnectResponse, WatchedEvent};
use znodefs::{SessionId, Zxid};
use znodefs_server::connection::Phase;

use super::ask::{Ask, Asked};
use super::client::Session;
use super::hear::watch_of;
use super::invariants::read_only::{check_refused, check_state, needs_quorum};
use super::invariants::requests::Answer;
use super::world::World;
use crate::invariants::{Check, violation};
use crate::networked::Networked;

/// How long a client waits for its session before it is content with another one, in microseconds.
const PATIENCE_US: u64 = 2_000_000;

/// Which session a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// None: it wants a new one.
    Nothing,
    /// Its session with the ensemble.
    Session,
    /// Its session with one member that had no quorum.
    Local,
}

/// A connection to a member that has no quorum.
#[derive(Clone, Debug)]
pub struct Alone {
    pub session_id: SessionId,
    pub timeout_us: u64,
    /// The state that it shows, once an answer has told.
    pub at: Option<Zxid>,
    /// Whether its watches are the client's only ones, and taken along; those of a client that has a
    /// session besides are let go of.
    pub keeps_watches: bool,
}

impl World {
    /// Whether a member serves reads without a quorum.
    pub fn reads_alone(&self, node: usize) -> bool {
        let process = self.nodes[node].process.as_ref();
        process.is_some_and(|process| process.shows_alone.is_some())
    }

    /// Whether a client is served by such a member.
    pub fn is_alone(&self, client: usize) -> bool {
        self.clients[client].link.as_ref().is_some_and(|link| link.alone.is_some())
    }

    /// What a client's ConnectRequest says: which session it offers, and whether reads are enough.
    /// Without its session for long, it sometimes begins anew.
    pub fn some_offer(&mut self, client: usize) -> (Offer, Option<bool>) {
        let (now, random) = (self.agenda.now(), &mut self.client_random);
        let state = &mut self.clients[client];
        let own = if state.session.is_some() { Offer::Session } else { Offer::Nothing };
        if !state.may_be_read_only {
            let is_old = self.plan.reads_without_quorum() && random.percent(20);
            return (own, if is_old { None } else { Some(false) });
        }
        let waits = state.session.is_some() && now < state.could_write_us + PATIENCE_US;
        let offer = match random.below(10) {
            _ if waits => own,
            0..=1 if state.local.is_some() => Offer::Local,
            2..=4 => Offer::Nothing,
            _ => own,
        };
        if offer != Offer::Session
            && let Some(former) = state.former.take()
        {
            let participant = self.participant(client);
            self.close(participant, former.number);
        }
        (offer, Some(true))
    }

    /// A member without a quorum has answered a client's ConnectRequest.
    pub fn begins_alone(&mut self, client: usize, response: &ConnectResponse) -> Check {
        let state = &mut self.clients[client];
        let Some(link) = &mut state.link else { return Ok(()) };
        let session_id = response.session_id;
        let what = || format!("client {client} is given {session_id} by node {}", link.node);
        if link.read_only != Some(true) {
            return violation("who wants to write is not served without a quorum", what());
        }
        if !self.plan.reads_without_quorum_at(link.node) {
            return violation("only members that were told to serve without a quorum", what());
        }
        let is_known = self.invariants.sessions.life(session_id).is_some();
        if link.offer == Offer::Session || is_known {
            let invariant = "sessions of the ensemble are not taken up without a quorum";
            return violation(invariant, what());
        }
        if let Some(local) = state.local.as_ref().filter(|_| link.offer == Offer::Local)
            && local.id != session_id
        {
            let detail = format!("{}, it had {}", what(), local.id);
            return violation("a session goes on as itself", detail);
        }
        if link.offer == Offer::Local {
            self.counts.read_only_resumed += 1;
        }
        let timeout_us = response.timeout_ms.max(0) as u64 * 1_000;
        let keeps_watches = state.session.is_none();
        link.established = true;
        link.alone = Some(Alone { session_id, timeout_us, at: None, keeps_watches });
        state.local = Some(Session {
            id: session_id,
            password: response.password.clone(),
            timeout_us,
            seen: link.seen,
        });
        self.counts.read_only_sessions += 1;
        self.invariants.read_only.begins(session_id);
        if keeps_watches {
            self.set_watches_again(client);
        }
        Ok(())
    }

    /// A client does something where there is no quorum: mostly it reads.
    pub fn acts_alone(&mut self, client: usize) {
        match self.client_random.below(400) {
            0..=3 => return self.drop_link(client),
            4..=5 if !self.is_healed() => {
                let time = self.client_random.between(100_000, self.plan.session_us_max());
                self.clients[client].silent_until = self.agenda.now() + time;
                return;
            }
            6..=9 => return self.ask(client, Ask::Close),
            10..=19 => return self.ask(client, Ask::Check { path: "/r0".into(), version: -1 }),
            _ => {}
        }
        for _ in 0..self.client_random.between(1, 3) {
            let ask = match self.client_random.percent(30) {
                true => self.some_ask(client),
                false => self.some_read_of(client),
            };
            self.ask(client, ask);
        }
    }

    /// A client that has no quorum asks others whether they have (`isro`), and moves there.
    pub fn looks_for_quorum(&mut self, client: usize) {
        if !self.client_random.one_in(10) {
            return;
        }
        let node = self.client_random.below(self.nodes.len());
        let has_quorum = self.nodes[node].process.as_ref().is_some_and(|process| process.serving);
        if has_quorum || self.client_random.one_in(20) {
            self.drop_link(client);
            self.connect_client_to(client, node);
        }
    }

    /// Nothing changes where there is no quorum; only what was missed before can be told.
    pub fn hears_event_alone(&mut self, client: usize, event: &WatchedEvent) -> Check {
        let state = &mut self.clients[client];
        let alone = state.link.as_ref().and_then(|link| link.alone.as_ref());
        let keeps_watches = alone.is_some_and(|alone| alone.keeps_watches);
        if event.zxid.is_some() || !keeps_watches {
            let detail = format!("client {client} hears {event:?}");
            return violation("nothing happens where there is no quorum", detail);
        }
        state.watches.event(&self.invariants.states, event)
    }

    /// A member without a quorum answers.
    pub fn answered_alone(
        &mut self,
        client: usize,
        asked: &Asked,
        zxid: Zxid,
        answer: &Answer,
    ) -> Check {
        self.counts.answers += 1;
        let state = &mut self.clients[client];
        let Some(link) = &mut state.link else { return Ok(()) };
        let Some(alone) = &mut link.alone else { return Ok(()) };
        let invariants = &mut self.invariants;
        let (states, requests) = (&invariants.states, &mut invariants.requests);
        check_state(&invariants.order, alone, link.seen, zxid)?;
        alone.at = Some(zxid);
        state.seen_alone = zxid;
        requests.observed = requests.observed.max(zxid);
        if alone.keeps_watches {
            state.watches.reply(states, zxid)?;
        }
        match &asked.ask {
            ask if needs_quorum(ask) => {
                self.counts.read_only_refusals += 1;
                check_refused(alone, asked, answer)
            }
            Ask::Ping | Ask::WatchAll | Ask::Close | Ask::SetWatches { .. } if answer.is_err() => {
                let detail = format!("{}: {asked:?} answered with {answer:?}", alone.session_id);
                violation("what needs no quorum is done without one", detail)
            }
            Ask::SetWatches { seen, watches, .. } => {
                state.watches.restored(states, (*seen, zxid), watches)
            }
            Ask::WatchAll => {
                state.watches.arm_recursive(states, zxid);
                Ok(())
            }
            Ask::Close => {
                state.local = None;
                self.drop_link(client);
                Ok(())
            }
            Ask::Ping => Ok(()),
            read => {
                self.counts.read_only_answers += 1;
                requests.check_read(states, asked, zxid, answer)?;
                if let Some((kind, path)) = watch_of(read, answer).filter(|_| alone.keeps_watches) {
                    state.watches.arm(kind, path, zxid);
                }
                Ok(())
            }
        }
    }

    /// After every turn: reads are served alone only where that is wanted and nobody leads, of one
    /// state, which is a committed one; and nobody is served so who should not be any more.
    pub fn look_at_read_only_service(&mut self, node: usize) {
        if !self.plan.reads_without_quorum() {
            return;
        }
        let is_wanted = self.plan.reads_without_quorum_at(node);
        let Some(process) = &mut self.nodes[node].process else { return };
        let serves = process.service.status.lock().read_only;
        let tree = process.service.database.tree.read();
        let (applied, digest) = (tree.last_applied(), tree.digest());
        drop(tree);
        let before = std::mem::replace(&mut process.shows_alone, serves.then_some(applied));
        let detail = || format!("node {node} at {applied}, before {before:?}");
        let check = match before {
            _ if serves && !is_wanted => {
                violation("only members that were told to serve without a quorum", detail())
            }
            Some(before) if serves && before != applied => {
                violation("reads without a quorum end before the tree changes", detail())
            }
            _ if serves && (process.serving || process.driver.zab().is_serving()) => {
                violation("reads without a quorum end where there is a leader", detail())
            }
            None if serves => {
                self.counts.read_only_services += 1;
                self.log.note(self.agenda.now(), || {
                    format!("node {node} serves reads without a quorum, as of {applied}")
                });
                self.invariants.order.compare(node, applied, digest)
            }
            _ => Ok(()),
        };
        self.check(check);
        let Some(process) = &self.nodes[node].process else { return };
        let still_served = process.clients.values().any(|served| {
            let outbox = served.client.connection().outbox();
            outbox.read_only && outbox.phase == Phase::Established
        });
        if still_served && !serves {
            let detail = format!("node {node} at {applied}");
            self.check(violation("whoever reads without a quorum comes again", detail));
        }
    }
}
