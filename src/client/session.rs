//! The session core: what is sent on a connection and in which order, which reply belongs to which
//! request, what outlives a connection and what does not. A plain state machine: bytes, requests and
//! times in; bytes, replies and events out. No socket, no clock, no chance.
//!
//! Times are durations since the client was made.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::delivery::{Delivery, SessionState};
use super::entry::{Batch, Entry};
use super::error::Error;
use super::outbox::Reply;
use super::watch::WatchRegistry;
use crate::wire::request::put_request;
use crate::wire::{
    ConnectRequest, ConnectResponse, Decoder, Encode, OpCode, ReplyHeader, Request, Response,
    put_frame, take_frame, xid,
};
use crate::zxid::{SessionId, Zxid};

/// How long a closing client waits for the service's confirmation.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Greatest length of a `ConnectResponse`; a longer first frame is another protocol's.
const CONNECT_RESPONSE_LENGTH_MAX: usize = 1024;
/// How many connections a request may outlive before it is taken for their cause.
const RESENDS_MAX: u8 = 3;

/// Where the core puts what it has for the outside.
pub(super) trait Outlet<T> {
    /// A session is attached to the server at the connection's other end.
    fn attached(&mut self, session_id: SessionId, timeout: Duration);
    /// The next step of the ordered stream.
    fn deliver(&mut self, delivery: Delivery<'_>);
    /// The result of a request.
    fn complete(&mut self, completion: T, result: Result<Reply, Error>);
}

/// What the core needs to know of the client's options.
#[derive(Debug)]
pub(super) struct Config {
    pub session_timeout: Duration,
    /// How long a server may take to answer the first frame.
    pub handshake_timeout: Duration,
    pub read_only: bool,
    pub retry_reads: bool,
    pub renew_session: bool,
    pub reply_length_max: usize,
    /// The znode that the client sees as `/`; empty for the real root.
    pub chroot: String,
}

#[derive(Debug)]
enum Phase {
    Disconnected,
    Handshaking {
        deadline: Duration,
    },
    Attached,
    /// Nothing can be done any more.
    Over(Error),
}

#[derive(Debug)]
pub(super) struct Session<T> {
    pub(super) config: Config,
    phase: Phase,
    session_id: SessionId,
    password: Option<Bytes>,
    /// The timeout that holds.
    timeout: Duration,
    /// Whether the session is one of the whole ensemble, not of a read-only server alone.
    is_global: bool,
    /// Whether the server at the other end has no quorum.
    is_read_only: bool,
    last_zxid: Zxid,
    /// The newest transaction that an event has told of; of several events of one, the last may be missing.
    told_zxid: Zxid,
    pub(super) auth: Vec<(String, Bytes)>,
    pub(super) watches: WatchRegistry,
    /// Waiting for a connection, in order.
    unsent: VecDeque<Entry<T>>,
    /// Sent, in the order in which replies must come.
    pub(super) in_flight: VecDeque<Entry<T>>,
    /// Credentials sent; servers answer them out of turn. `None` is one presented anew.
    pub(super) auth_in_flight: VecDeque<Option<Entry<T>>>,
    /// What is to be written to the connection, in order.
    pub outgoing: VecDeque<Bytes>,
    last_sent: Duration,
    last_received: Duration,
    /// Since when there is no connection.
    disconnected_since: Duration,
    last_failure: String,
    closing_deadline: Option<Duration>,
    /// Bytes of an oversized reply still to be thrown away.
    pub(super) skipping: usize,
}

impl<T> Session<T> {
    pub fn new(config: Config, auth: Vec<(String, Bytes)>) -> Session<T> {
        Session {
            timeout: config.session_timeout,
            config,
            phase: Phase::Disconnected,
            session_id: SessionId(0),
            password: None,
            is_global: false,
            is_read_only: false,
            last_zxid: Zxid::ZERO,
            told_zxid: Zxid::ZERO,
            auth,
            watches: WatchRegistry::default(),
            unsent: VecDeque::new(),
            in_flight: VecDeque::new(),
            auth_in_flight: VecDeque::new(),
            outgoing: VecDeque::new(),
            last_sent: Duration::ZERO,
            last_received: Duration::ZERO,
            disconnected_since: Duration::ZERO,
            last_failure: "no attempt has ended yet".into(),
            closing_deadline: None,
            skipping: 0,
        }
    }

    /// Why nothing can be done any more, once that is so.
    pub fn over(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Over(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the session is attached and every credential presented anew was accepted.
    pub fn is_ready(&self) -> bool {
        self.is_attached() && !self.auth_in_flight.iter().any(Option::is_none)
    }

    /// Whether the session is attached to a server that serves only reads.
    pub fn is_read_only(&self) -> bool {
        self.is_attached() && self.is_read_only
    }

    pub fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attached)
    }

    /// A socket is connected: greet the server.
    pub fn connection_opened(&mut self, now: Duration) {
        self.phase = Phase::Handshaking { deadline: now + self.config.handshake_timeout };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid.max(self.told_zxid),
            timeout_ms: i32::try_from(self.config.session_timeout.as_millis()).unwrap_or(i32::MAX),
            session_id: self.session_id,
            password: Some(self.password.clone().unwrap_or(Bytes::from_static(&[0; 16]))),
            read_only: Some(self.config.read_only),
        };
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| request.encode(out));
        self.outgoing.push_back(out.freeze());
    }

    /// Takes requests, to be sent now or on the next connection.
    pub fn submit(&mut self, batch: Batch<T>, now: Duration, outlet: &mut impl Outlet<T>) {
        for entry in batch.entries {
            if entry.op_code == OpCode::CloseSession {
                self.closing_deadline.get_or_insert(now + CLOSE_WAIT);
            }
            match &self.phase {
                Phase::Over(error) => outlet.complete(entry.completion, Err(error.clone())),
                Phase::Attached => self.expect_reply(entry),
                Phase::Disconnected | Phase::Handshaking { .. } => self.unsent.push_back(entry),
            }
        }
        match self.phase {
            Phase::Over(_) => {}
            Phase::Attached => {
                self.outgoing.push_back(batch.bytes);
                self.last_sent = now;
            }
            Phase::Disconnected | Phase::Handshaking { .. } => {
                let never_opened = self.session_id.0 == 0;
                if self.closing_deadline.is_some() && never_opened {
                    self.end(Error::Closed, SessionState::Closed, outlet);
                } else {
                    self.fail_unsent_in_time(now, outlet);
                }
            }
        }
    }

    fn expect_reply(&mut self, entry: Entry<T>) {
        match entry.op_code {
            OpCode::Auth => self.auth_in_flight.push_back(Some(entry)),
            _ => self.in_flight.push_back(entry),
        }
    }

    /// Takes what was read from the connection. An error is a reason to drop the connection.
    pub fn receive(
        &mut self,
        input: &mut BytesMut,
        now: Duration,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        self.last_received = now;
        loop {
            if self.skipping > 0 {
                let skipped = self.skipping.min(input.len());
                input.advance(skipped);
                self.skipping -= skipped;
            }
            match self.phase {
                Phase::Handshaking { .. } => {
                    let Some(frame) = take_frame(input, CONNECT_RESPONSE_LENGTH_MAX)
                        .map_err(|_| "it does not speak the ZooKeeper protocol".to_string())?
                    else {
                        return Ok(());
                    };
                    self.handshake(&frame, now, outlet)?;
                }
                Phase::Attached => {
                    if self.skip_oversized(input, outlet)? {
                        continue;
                    }
                    let frame = take_frame(input, self.config.reply_length_max);
                    let Some(frame) = frame.map_err(|error| error.to_string())? else {
                        return Ok(());
                    };
                    self.take_packet(&frame, outlet)?;
                }
                Phase::Disconnected | Phase::Over(_) => return Ok(()),
            }
        }
    }

    fn handshake(
        &mut self,
        frame: &Bytes,
        now: Duration,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        let response = ConnectResponse::decode(&mut Decoder::new(frame))
            .map_err(|error| format!("its answer to the connect request is unreadable: {error}"))?;
        if response.timeout_ms <= 0 {
            return self.expired(outlet);
        }
        let read_only = response.read_only == Some(true);
        if read_only && !self.config.read_only {
            return Err("it is cut off from its quorum and serves only reads".into());
        }
        self.session_id = response.session_id;
        self.password = Some(response.password);
        self.is_global |= !read_only;
        self.is_read_only = read_only;
        self.timeout = Duration::from_millis(response.timeout_ms as u64);
        self.phase = Phase::Attached;
        self.last_sent = now;
        outlet.attached(self.session_id, self.timeout);
        outlet.deliver(Delivery::State(SessionState::Connected));
        self.send_backlog();
        Ok(())
    }

    /// Sends what a connection starts with: credentials, watches, then what has waited.
    fn send_backlog(&mut self) {
        let mut out = BytesMut::new();
        for (scheme, credential) in &self.auth {
            let credential = credential.clone();
            put_request(&mut out, xid::AUTH, &Request::Auth { scheme, credential });
            self.auth_in_flight.push_back(None);
        }
        self.watches.put_set_watches(&mut out, self.last_zxid);
        while let Some(entry) = self.unsent.pop_front() {
            out.extend_from_slice(&entry.frame);
            self.expect_reply(entry);
        }
        if !out.is_empty() {
            self.outgoing.push_back(out.freeze());
        }
    }

    /// The service does not know the session any more.
    fn expired(&mut self, outlet: &mut impl Outlet<T>) -> Result<(), String> {
        if self.closing_deadline.is_some() {
            self.confirm_close(outlet);
            self.end(Error::Closed, SessionState::Closed, outlet);
            return Err("the session is over already".into());
        }
        if !self.config.renew_session {
            self.end(Error::SessionExpired, SessionState::Expired, outlet);
            return Err("the session expired".into());
        }
        self.session_id = SessionId(0);
        self.password = None;
        self.is_global = false;
        self.watches.forget_one_shot();
        self.phase = Phase::Disconnected;
        outlet.deliver(Delivery::State(SessionState::Expired));
        // Writes were meant for the old session; reads are as good in the new one.
        for entry in std::mem::take(&mut self.unsent) {
            if entry.is_repeatable() {
                self.unsent.push_back(entry);
            } else {
                outlet.complete(entry.completion, Err(Error::SessionExpired));
            }
        }
        Err("the session expired".into())
    }

    /// The session that was to be closed is over.
    fn confirm_close(&mut self, outlet: &mut impl Outlet<T>) {
        // Nothing is submitted behind it.
        if self.unsent.back().is_some_and(|entry| entry.op_code == OpCode::CloseSession)
            && let Some(entry) = self.unsent.pop_back()
        {
            let reply = Reply { zxid: self.last_zxid, response: Response::Empty };
            outlet.complete(entry.completion, Ok(reply));
        }
    }

    /// Remembers a reply's zxid: the newest state this client has seen.
    pub(super) fn saw(&mut self, zxid: Zxid) {
        self.last_zxid = self.last_zxid.max(zxid);
    }

    /// Remembers what an event has told of: no server may show less. Watches are still set as of the last
    /// reply, since other events of the same transaction may have been lost with the connection.
    pub(super) fn was_told(&mut self, zxid: Zxid) {
        self.told_zxid = self.told_zxid.max(zxid);
    }

    /// No socket could be connected, or the connection is gone.
    pub fn connection_lost(&mut self, reason: &str, now: Duration, outlet: &mut impl Outlet<T>) {
        self.last_failure = reason.to_string();
        self.outgoing.clear();
        self.skipping = 0;
        if let Phase::Over(_) = self.phase {
            return;
        }
        let was_attached = self.is_attached();
        self.phase = Phase::Disconnected;
        if !self.is_global {
            self.session_id = SessionId(0);
            self.password = None;
        }
        if was_attached {
            self.disconnected_since = now;
            outlet.deliver(Delivery::State(SessionState::Suspended));
            self.give_up_in_flight(reason, outlet);
        }
        self.fail_unsent_in_time(now, outlet);
        self.renounce_in_time(now, outlet);
    }

    /// A server without a quorum takes only new sessions. Who is content with reads, and gets a new
    /// session anyway, does not wait any longer than the old one lives.
    fn renounce_in_time(&mut self, now: Duration, outlet: &mut impl Outlet<T>) {
        let over = now.saturating_sub(self.disconnected_since) >= self.timeout;
        let willing = self.config.read_only && self.config.renew_session;
        if !(over && willing && self.is_global) || self.over().is_some() {
            return;
        }
        self.session_id = SessionId(0);
        self.password = None;
        self.is_global = false;
        self.watches.forget_one_shot();
        outlet.deliver(Delivery::State(SessionState::Expired));
    }

    /// Takes back what can be sent again and fails the rest, whose outcome is unknown.
    fn give_up_in_flight(&mut self, reason: &str, outlet: &mut impl Outlet<T>) {
        let auth = std::mem::take(&mut self.auth_in_flight).into_iter().flatten();
        let in_flight = std::mem::take(&mut self.in_flight);
        let mut waiting = VecDeque::new();
        for mut entry in auth.chain(in_flight) {
            if entry.op_code == OpCode::RemoveWatches {
                // The server forgot every watch with the connection; so do we with this one.
                self.forget_watches(&entry);
                let reply = Reply { zxid: self.last_zxid, response: Response::Empty };
                outlet.complete(entry.completion, Ok(reply));
            } else if self.may_send_again(&entry) {
                entry.resends += 1;
                waiting.push_back(entry);
            } else {
                let error = self.connection_loss(&entry, reason);
                outlet.complete(entry.completion, Err(error));
            }
        }
        // Nothing is left unsent while a connection is there.
        self.unsent = waiting;
    }

    fn may_send_again(&self, entry: &Entry<T>) -> bool {
        // A session that was closed already is not taken by the next server, which is as good.
        let idempotent =
            matches!(entry.op_code, OpCode::Auth | OpCode::AddWatch | OpCode::CloseSession);
        let wanted = idempotent || self.config.retry_reads && entry.is_repeatable();
        wanted && entry.resends < RESENDS_MAX
    }

    fn connection_loss(&self, entry: &Entry<T>, reason: &str) -> Error {
        let path = entry.path(&self.config.chroot);
        Error::ConnectionLoss { operation: entry.op_code, path, reason: reason.to_string() }
    }

    /// Fails what has waited for a connection for as long as a session lives without one.
    fn fail_unsent_in_time(&mut self, now: Duration, outlet: &mut impl Outlet<T>) {
        if now.saturating_sub(self.disconnected_since) >= self.timeout {
            self.fail_unsent(now, outlet);
        }
    }

    fn fail_unsent(&mut self, now: Duration, outlet: &mut impl Outlet<T>) {
        let waited = now.saturating_sub(self.disconnected_since);
        while let Some(entry) = self.unsent.pop_front() {
            if entry.resends > 0 && entry.op_code == OpCode::CloseSession {
                let error = self.connection_loss(&entry, &self.last_failure);
                outlet.complete(entry.completion, Err(error));
                continue;
            }
            let error = Error::TimedOut {
                operation: entry.op_code,
                path: entry.path(&self.config.chroot),
                waited,
                reason: self.last_failure.clone(),
            };
            outlet.complete(entry.completion, Err(error));
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let deadline = match self.phase {
            Phase::Over(_) => return None,
            Phase::Handshaking { deadline } => Some(deadline),
            Phase::Attached => Some(self.ping_at().min(self.dead_at())),
            Phase::Disconnected => None,
        };
        let unsent_until = self.disconnected_since + self.timeout;
        let waiting = !self.is_attached() && !self.unsent.is_empty();
        let unsent_until = waiting.then_some(unsent_until);
        [deadline, unsent_until, self.closing_deadline].into_iter().flatten().min()
    }

    fn ping_at(&self) -> Duration {
        self.last_sent + self.timeout / 3
    }

    fn dead_at(&self) -> Duration {
        self.last_received + self.timeout * 2 / 3
    }

    /// Does what is due. An error is a reason to drop the connection.
    pub fn tick(&mut self, now: Duration, outlet: &mut impl Outlet<T>) -> Result<(), String> {
        if self.closing_deadline.is_some_and(|deadline| deadline <= now) {
            self.fail_unsent(now, outlet);
            self.end(Error::Closed, SessionState::Closed, outlet);
            return Err("the close was not confirmed in time".into());
        }
        match self.phase {
            Phase::Handshaking { deadline } if deadline <= now => {
                let seconds = self.config.handshake_timeout.as_secs_f64();
                return Err(format!("it did not answer the connect request within {seconds:.1} s"));
            }
            Phase::Attached if self.dead_at() <= now => {
                let seconds = now.saturating_sub(self.last_received).as_secs_f64();
                return Err(format!("nothing was heard for {seconds:.1} s"));
            }
            Phase::Attached => {
                if self.ping_at() <= now {
                    let mut out = BytesMut::new();
                    put_request(&mut out, xid::PING, &Request::Ping);
                    self.outgoing.push_back(out.freeze());
                    self.last_sent = now;
                }
            }
            _ => self.fail_unsent_in_time(now, outlet),
        }
        Ok(())
    }

    /// Ends everything: nothing is sent or taken any more.
    pub fn end(&mut self, error: Error, state: SessionState, outlet: &mut impl Outlet<T>) {
        let was_over = self.over().is_some();
        self.phase = Phase::Over(error.clone());
        if was_over {
            return;
        }
        outlet.deliver(Delivery::State(state));
        let sent = std::mem::take(&mut self.auth_in_flight).into_iter().flatten();
        for entry in sent.chain(std::mem::take(&mut self.in_flight)) {
            let error = match entry.is_repeatable() || entry.op_code == OpCode::Auth {
                true => error.clone(),
                false => self.connection_loss(&entry, &error.to_string()),
            };
            outlet.complete(entry.completion, Err(error));
        }
        for entry in std::mem::take(&mut self.unsent) {
            outlet.complete(entry.completion, Err(error.clone()));
        }
    }
}

/// The header of a packet, and the decoder behind it.
pub(super) fn take_header<'a>(frame: &'a Bytes) -> Result<(ReplyHeader, Decoder<'a>), String> {
    let mut decoder = Decoder::new(frame);
    let header = ReplyHeader::decode(&mut decoder)
        .map_err(|error| format!("a reply's header is unreadable: {error}"))?;
    Ok((header, decoder))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
