//! Clients that know nothing but the protocol: one connection at a time, no watches set again, no
//! waiting for a server that may come back. What the project's library would do for its caller they leave
//! undone, and so does what might hide a fault. Requests left behind on a connection are in nobody's
//! hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use znodefs::wire::{ConnectRequest, Request, Response};
use znodefs::{CreateMode, SessionId};
use znodefs_tests::deadline::pause;
use znodefs_tests::history::{ClientId, OperationId};
use znodefs_tests::wire_client::{Answer, Limits};
use znodefs_tests::{Random, WireClient};

use crate::record::Record;
use crate::requests::{Step, choose, create, data, path};

/// The longest pause between two requests of one client.
const PAUSE_MS_MAX: u64 = 30;

const SESSION_TIMEOUT_MS: i32 = 4000;

/// Shorter than the session.
const LIMITS: Limits =
    Limits { connect: Duration::from_millis(300), answer: Duration::from_millis(1500) };

/// The connection is of no more use.
struct Broken;

struct RawClient {
    record: Record,
    id: ClientId,
    wire: WireClient,
}

impl RawClient {
    /// A new session at one server.
    fn open(record: &Record, address: &str) -> Option<RawClient> {
        let request = ConnectRequest { timeout_ms: SESSION_TIMEOUT_MS, ..Default::default() };
        let wire = WireClient::connect_within(address, &request, LIMITS).ok()?;
        let mut history = record.lock();
        let id = history.client();
        history.opened(id, record.now(), wire.session_id);
        drop(history);
        Some(RawClient { record: record.clone(), id, wire })
    }

    /// The same session at another server; `Ok(false)` if the session is over.
    fn move_to(&mut self, address: &str) -> Result<bool, Broken> {
        let request = ConnectRequest {
            timeout_ms: SESSION_TIMEOUT_MS,
            session_id: self.wire.session_id,
            password: Some(self.wire.password.clone()),
            last_zxid_seen: self.wire.last_zxid,
            ..Default::default()
        };
        let wire = WireClient::connect_within(address, &request, LIMITS).map_err(|_| Broken)?;
        let mut history = self.record.lock();
        if wire.session_id == SessionId(0) {
            history.expired(self.id, self.record.now());
            return Ok(false);
        }
        history.reconnected(self.id, self.record.now(), false);
        drop(history);
        let last_zxid = self.wire.last_zxid;
        std::mem::replace(&mut self.wire, wire).abandon();
        self.wire.last_zxid = last_zxid;
        Ok(true)
    }

    /// Sends some requests at once.
    fn send(&mut self, requests: &[&Request<'_>]) -> (Vec<OperationId>, bool) {
        let operations: Vec<OperationId> = {
            let mut history = self.record.lock();
            let mut invoke = |request| history.invoke(self.id, self.record.now(), request);
            requests.iter().map(|request| invoke(request)).collect()
        };
        let is_sent = self.wire.send(requests).is_ok();
        (operations, is_sent)
    }

    /// Sends some requests at once; the answers that came. What was not answered has an unknown outcome.
    fn try_ask(&mut self, requests: &[&Request<'_>]) -> Vec<Answer> {
        let (operations, mut is_there) = self.send(requests);
        let mut answers = Vec::new();
        for (request, operation) in requests.iter().zip(operations) {
            let answer = match is_there {
                true => self.wire.receive(request).ok(),
                false => None,
            };
            let mut history = self.record.lock();
            let now = self.record.now();
            // They came in front of the answer.
            for event in self.wire.take_events() {
                history.event(self.id, now, &event);
            }
            match answer {
                Some(answer) => {
                    let told = answer.as_ref().map_err(|error| *error);
                    history.complete(operation, now, self.wire.last_zxid, told);
                    answers.push(answer);
                }
                None => {
                    is_there = false;
                    history.lose(operation, now);
                }
            }
        }
        answers
    }

    /// The same where each answer counts.
    fn ask(&mut self, requests: &[&Request<'_>]) -> Result<Vec<Answer>, Broken> {
        let answers = self.try_ask(requests);
        if answers.len() < requests.len() { Err(Broken) } else { Ok(answers) }
    }

    /// Sends some writes and does not wait: the session goes on elsewhere meanwhile, and they must not
    /// overtake what it does there.
    fn leave_behind(&mut self, random: &mut Random, value: &str) {
        let (one, other) = (path(&self.record, random), path(&self.record, random));
        let set = |path, more| {
            let data = data(&format!("{value}{more}"));
            Request::SetData { path, data, version: -1 }
        };
        let (operations, _) = self.send(&[&set(&one, "a"), &set(&other, "b")]);
        let mut history = self.record.lock();
        let now = self.record.now();
        operations.into_iter().for_each(|operation| history.lose(operation, now));
    }

    /// Ends the session with an ephemeral znode just created, and with something behind the end that must
    /// not be done; whether the end was answered.
    fn say_goodbye(&mut self, random: &mut Random, value: &str) -> bool {
        let path = path(&self.record, random);
        let ephemeral = create(&path, value, CreateMode::Ephemeral);
        let late = Request::SetData { path: &path, data: data(value), version: -1 };
        self.try_ask(&[&ephemeral, &Request::CloseSession, &late]).len() > 1
    }

    /// One of the things that clients do.
    fn step(&mut self, random: &mut Random, value: &str) -> Result<(), Broken> {
        let (path, other) = (path(&self.record, random), path(&self.record, random));
        let prefix = format!("{path}-");
        match choose(random, (&path, &other, &prefix), value) {
            Step::One(request) => drop(self.ask(&[&request])?),
            Step::Behind(first, second) => {
                self.ask(&[&first])?;
                self.ask(&[&second])?;
            }
            Step::Pipelined(requests) => drop(self.ask(&requests.iter().collect::<Vec<_>>())?),
            Step::CompareAndSet(path) => {
                let read = self.ask(&[&Request::GetData { path, watch: false }])?;
                if let Some(Ok(Response::Data { stat, .. })) = read.first() {
                    let (data, version) = (data(value), stat.version);
                    self.ask(&[&Request::SetData { path, data, version }])?;
                }
            }
        }
        Ok(())
    }
}

/// One client: sessions, one after the other, until it is told to stop. Gives the sessions that it
/// lost without a goodbye. It blocks.
pub fn work(
    record: &Record,
    servers: &str,
    mut random: Random,
    number: u64,
    stops: &Arc<AtomicBool>,
) -> Vec<ClientId> {
    let servers: Vec<&str> = servers.split(',').collect();
    let stopped = || stops.load(Ordering::Relaxed);
    let mut lost = Vec::new();
    let mut values = 0;
    while !stopped() {
        let server = servers[random.between(0, servers.len() as u64) as usize];
        let Some(mut client) = RawClient::open(record, server) else {
            pause(Duration::from_millis(random.between(0, PAUSE_MS_MAX)));
            continue;
        };
        let said_goodbye = loop {
            values += 1;
            let value = format!("{number}-{values}");
            if stopped() || random.between(0, 300) == 0 {
                break client.say_goodbye(&mut random, &value);
            }
            // A healthy connection is left as well, now and then.
            let leaves = random.between(0, 60) == 0;
            if leaves && random.between(0, 2) == 0 {
                client.leave_behind(&mut random, &value);
            }
            if (leaves || client.step(&mut random, &value).is_err())
                && !find_another(&mut client, &servers, &mut random, &stopped)
            {
                break false;
            }
            pause(Duration::from_millis(random.between(0, PAUSE_MS_MAX)));
        };
        if !said_goodbye {
            lost.push(client.id);
        }
        client.wire.abandon();
    }
    lost
}

/// Takes the session to any server that has it; `false` if it is over, or nobody is asked any more.
fn find_another(
    client: &mut RawClient,
    servers: &[&str],
    random: &mut Random,
    stopped: &impl Fn() -> bool,
) -> bool {
    client.record.lock().disconnected(client.id, client.record.now());
    while !stopped() {
        let server = servers[random.between(0, servers.len() as u64) as usize];
        match client.move_to(server) {
            Ok(is_there) => return is_there,
            Err(Broken) => pause(Duration::from_millis(random.between(0, PAUSE_MS_MAX))),
        }
    }
    false
}
