//! What simulated clients hear, and whether it may be so.

use bytes::Bytes;
use znodefs::wire::{
    ConnectResponse, Decoder, ReplyHeader, Response, WatchedEvent, take_frame, xid,
};
use znodefs::{SessionId, Zxid};

use super::ask::{Ask, Asked};
use super::client::Session;
use super::invariants::requests::Answer;
use super::invariants::watches::Kind;
use super::read_only::Offer;
use super::world::World;
use crate::invariants::{Check, violation};

const FRAME_LENGTH_MAX: usize = 4 << 20;

impl World {
    /// Bytes come to a client.
    pub fn client_hears(&mut self, client: usize, connection: usize, bytes: &[u8]) {
        let now = self.agenda.now();
        let state = &mut self.clients[client];
        // What comes on a connection that the client has turned away from is not looked at.
        let Some(link) = state.link.as_mut().filter(|link| link.number == connection) else {
            return;
        };
        link.input.extend_from_slice(bytes);
        link.heard = now;
        loop {
            let Some(link) = &mut self.clients[client].link else { return };
            let frame = match take_frame(&mut link.input, FRAME_LENGTH_MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    let detail = format!("client {client}: {error}");
                    return self.check(violation("replicas send frames", detail));
                }
            };
            let check = match link.established {
                false => self.hear_of_session(client, &frame),
                true => self.hear_frame(client, &frame),
            };
            self.check(check);
            if self.violation.is_some() {
                return;
            }
        }
    }

    fn hear_of_session(&mut self, client: usize, frame: &Bytes) -> Check {
        let response = match ConnectResponse::decode(&mut Decoder::new(frame)) {
            Ok(response) => response,
            Err(error) => return violation("replicas send records", error.to_string()),
        };
        let state = &self.clients[client];
        let offer = state.link.as_ref().map_or(Offer::Nothing, |link| link.offer);
        let former = state.offered(offer).map(|session| session.id);
        self.log.note(self.agenda.now(), || {
            let had = former.map_or("none".to_owned(), |former| former.to_string());
            format!("client {client} hears of session {}, had {had}", response.session_id)
        });
        match (response.session_id, former, response.read_only) {
            (SessionId(0), Some(former), _) => self.is_refused(client, former, offer, &response),
            (SessionId(0), None, _) => {
                let detail = format!("client {client} asked for a new one");
                violation("a new session is not refused", detail)
            }
            (_, _, Some(true)) => self.begins_alone(client, &response),
            _ => self.has_session(client, offer, &response),
        }
    }

    /// The session that a client offered is none.
    fn is_refused(
        &mut self,
        client: usize,
        former: SessionId,
        offer: Offer,
        response: &ConnectResponse,
    ) -> Check {
        let state = &mut self.clients[client];
        if offer == Offer::Local {
            // It was another member's, has expired there, or is nothing to the ensemble.
            state.local = None;
            self.drop_link(client);
            return Ok(());
        }
        state.session = None;
        state.watches.forget();
        self.drop_link(client);
        self.counts.sessions_lost += 1;
        if response.read_only == Some(true) {
            let detail = format!("client {client} had {former}");
            return violation("who has no quorum does not judge sessions", detail);
        }
        let closed = self.invariants.sessions.life(former).is_none_or(|life| life.closed.is_some())
            || self.invariants.order.is_being_closed(former);
        match closed {
            true => Ok(()),
            false => violation("a session that lives is not refused", format!("{former}")),
        }
    }

    /// A client has the session that it offered, or a new one.
    fn has_session(&mut self, client: usize, offer: Offer, response: &ConnectResponse) -> Check {
        let state = &mut self.clients[client];
        if offer == Offer::Local {
            let detail = format!("client {client}: {}", response.session_id);
            return violation("a session of one member is none of the ensemble", detail);
        }
        let Some(link) = &mut state.link else { return Ok(()) };
        link.established = true;
        let (floor, seen) = (link.floor, link.seen);
        let was_alone = state.local.take().is_some();
        state.seen_alone = Zxid::ZERO;
        if offer == Offer::Nothing && state.session.take().is_some() {
            // The one that it had is left to expire.
            state.watches.forget();
        } else if was_alone {
            self.counts.read_only_returns += 1;
        }
        let timeout_ms = response.timeout_ms.max(0) as u64;
        let mut moved = false;
        match &mut state.session {
            Some(session) => {
                if session.id != response.session_id {
                    let (had, got) = (session.id, response.session_id);
                    return violation("a session goes on as itself", format!("{had} became {got}"));
                }
                session.timeout_us = timeout_ms * 1_000;
                moved = true;
            }
            None => {
                state.session = Some(Session {
                    id: response.session_id,
                    password: response.password.clone(),
                    timeout_us: timeout_ms * 1_000,
                    seen,
                });
            }
        }
        let Some(life) = self.invariants.sessions.life(response.session_id) else {
            let detail = format!("{} was never made", response.session_id);
            return violation("a session is answered once it is committed", detail);
        };
        if let Some(closed) = life.closed
            && closed <= floor
            && self.quiet_for(1_000_000)
        {
            let detail = format!("{} ended at {closed}", response.session_id);
            return violation("a session that ended does not go on", detail);
        }
        self.invariants.sessions.negotiated(response.session_id, timeout_ms);
        if moved {
            self.counts.sessions_moved += 1;
        }
        self.set_watches_again(client);
        self.use_former_link(client);
        Ok(())
    }

    /// Whether nothing was out of order for so long, in microseconds.
    pub fn quiet_for(&self, time: u64) -> bool {
        self.disturbed_us + time < self.agenda.now()
    }

    /// What was watched before is watched again, relative to what was seen then.
    pub fn set_watches_again(&mut self, client: usize) {
        let state = &self.clients[client];
        let seen = state.link.as_ref().map_or(Zxid::ZERO, |link| link.seen);
        if !state.watches.is_empty() {
            let recursive = state.watches.recursive.is_some();
            let watches = state.watches.list();
            self.ask(client, Ask::SetWatches { seen, watches, recursive });
        } else if state.watches_all {
            self.ask(client, Ask::WatchAll);
        }
    }

    fn hear_frame(&mut self, client: usize, frame: &Bytes) -> Check {
        let mut decoder = Decoder::new(frame);
        let header = match ReplyHeader::decode(&mut decoder) {
            Ok(header) => header,
            Err(error) => return violation("replicas send records", error.to_string()),
        };
        if header.xid == xid::NOTIFICATION {
            let event = WatchedEvent::decode(header.zxid, &mut decoder);
            let event = event.map_err(|error| crate::invariants::Violation {
                invariant: "replicas send records",
                detail: error.to_string(),
            })?;
            self.counts.events_heard += 1;
            self.log.heard_event(self.agenda.now(), client, &event);
            if self.is_alone(client) {
                return self.hears_event_alone(client, &event);
            }
            return self.clients[client].watches.event(&self.invariants.states, &event);
        }
        let Some(link) = &mut self.clients[client].link else { return Ok(()) };
        let asked = link.asked.pop_front().filter(|asked| asked.xid == header.xid);
        let Some(asked) = asked else {
            let detail = format!("client {client} is answered {}", header.xid);
            return violation("answers come in the order of requests", detail);
        };
        let answer: Answer = match header.error {
            0 => Response::decode(asked.ask.op_code(), &mut decoder).map_err(|_| i32::MIN),
            error => Err(error),
        };
        self.log.answered(self.agenda.now(), client, &asked, header.zxid, &answer);
        match self.is_alone(client) {
            true => self.answered_alone(client, &asked, header.zxid, &answer),
            false => self.answered(client, &asked, header.zxid, &answer),
        }
    }

    fn answered(&mut self, client: usize, asked: &Asked, zxid: Zxid, answer: &Answer) -> Check {
        self.counts.answers += 1;
        let state = &mut self.clients[client];
        let Some(session) = &mut state.session else { return Ok(()) };
        let session_id = session.id;
        if zxid < session.seen {
            let seen = session.seen;
            let detail = format!("client {client} had seen {seen}: {asked:?} answered at {zxid}");
            return violation("a session never goes back in time", detail);
        }
        session.seen = zxid;
        let invariants = &mut self.invariants;
        if zxid > invariants.order.last() {
            let detail = format!("client {client}: {asked:?} answered at {zxid}");
            return violation("what is answered is committed", detail);
        }
        state.watches.reply(&invariants.states, zxid)?;
        let requests = &mut invariants.requests;
        requests.observed = requests.observed.max(zxid);
        let (order, states) = (&invariants.order, &invariants.states);
        match &asked.ask {
            ask if ask.is_write() => {
                requests.check_write((order, states), session_id, asked, zxid, answer)?;
                if *ask == Ask::Close && answer.is_ok() {
                    state.session = None;
                    state.watches.forget();
                }
                Ok(())
            }
            Ask::Sync => {
                requests.syncs += 1;
                if answer.is_ok() && zxid < asked.floor {
                    let detail = format!("client {client}: {asked:?} answered at {zxid}");
                    return violation("a sync shows all that was seen before it", detail);
                }
                Ok(())
            }
            Ask::SetWatches { seen, watches, .. } => match answer {
                Ok(_) => state.watches.restored(states, (*seen, zxid), watches),
                Err(code) => violation("watches are set again", format!("error {code}")),
            },
            Ask::WatchAll => {
                state.watches.arm_recursive(states, zxid);
                Ok(())
            }
            Ask::Ping => Ok(()),
            read => {
                requests.check_read(states, asked, zxid, answer)?;
                if let Some((kind, path)) = watch_of(read, answer) {
                    state.watches.arm(kind, path, zxid);
                }
                Ok(())
            }
        }
    }
}

/// The watch that a read has set.
pub fn watch_of<'a>(read: &'a Ask, answer: &Answer) -> Option<(Kind, &'a str)> {
    match (read, answer) {
        (Ask::Exists { path, watch: true }, Ok(_)) => Some((Kind::Data, path)),
        (Ask::Exists { path, watch: true }, Err(_)) => Some((Kind::Exists, path)),
        (Ask::Get { path, watch: true }, Ok(_)) => Some((Kind::Data, path)),
        (Ask::Children { path, watch: true }, Ok(_)) => Some((Kind::Children, path)),
        _ => None,
    }
}
