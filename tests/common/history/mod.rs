//! What clients asked for and were told, and the judgement whether a coordination service that keeps
//! its promises could have told them so. Nothing here does I/O or reads a clock: real processes
//! (`tests/ensemble`) and simulated ones (`tests/simulation`) record into the same [`History`].
//!
//! The judgement ([`History::check`]) rests on what ZooKeeper shows its clients: every reply carries
//! a zxid, and zxids are the one order of all writes. A write that was answered is placed by it, and
//! so is what a read shows; what remains is a search for places of the writes whose outcome is
//! unknown, znode by znode. Checked are:
//!
//! - writes are linearizable, and so is a read behind a sync (`order`);
//! - a session's requests take effect in their order, its zxids never go back, also on the next
//!   server (`order`);
//! - every read shows what the writes up to its zxid have made, whichever replica answered; what was
//!   refused had a reason and no effect, what is unknown had no effect or one, what was acknowledged
//!   stays (`resolve`, `timeline`, `search`); stats of one znode fit together (`stats`);
//! - an ephemeral znode stays while its session does, and goes with it (the same);
//! - a watch tells before a reply shows the change, once, and also after a reconnection (`watches`).
//!
//! Values should differ from write to write: an unknown write is then recognised by its value.

mod call;
mod order;
mod report;
mod resolve;
mod search;
mod stats;
#[cfg(test)]
mod tests;
mod timeline;
mod watches;

use std::time::Duration;

use znodefs::wire::{Request, Response, WatchedEvent};
use znodefs::{ErrorCode, SessionId, Zxid};

pub use call::{Call, Outcome, Reply, Value, Write, Written};
pub use report::{Report, Violation};

/// One client with one session; whoever opens another session is another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub usize);

/// A request and its fate.
#[derive(Clone, Debug)]
struct Operation {
    client: ClientId,
    call: Call,
    outcome: Outcome,
    /// The newest zxid that anybody had been told when it was sent.
    frontier: Zxid,
    /// Who had been told so.
    frontier_at: Option<OperationId>,
}

#[derive(Clone, Debug, Default)]
struct Session {
    id: Option<SessionId>,
    /// The least zxid told to somebody who asked for a write or a sync after the session was known to
    /// be over.
    over_by: Option<Zxid>,
}

/// What happened, in the order in which it was noted.
#[derive(Clone, Debug)]
enum Step {
    Opened(SessionId),
    Invoked(OperationId),
    Completed(OperationId),
    Event(WatchedEvent),
    Disconnected,
    Reconnected { watches_kept: bool },
    Over { certain: bool },
}

#[derive(Clone, Debug)]
struct Noted {
    client: ClientId,
    /// Since the beginning; shown, and never compared.
    at: Duration,
    step: Step,
}

/// Everything that clients saw.
///
/// The order of the calls is the order of events in time: note an invocation before the request is
/// sent, and a completion after its reply has come. Replies and events of one client are noted in the
/// order of the wire.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    sessions: Vec<Session>,
    noted: Vec<Noted>,
    frontier: Zxid,
    frontier_at: Option<OperationId>,
}

impl History {
    /// Nothing has happened.
    pub fn new() -> History {
        History::default()
    }

    fn note(&mut self, client: ClientId, at: Duration, step: Step) {
        self.noted.push(Noted { client, at, step });
    }

    /// Another client.
    pub fn client(&mut self) -> ClientId {
        self.sessions.push(Session::default());
        ClientId(self.sessions.len() - 1)
    }

    /// Its session is there.
    pub fn opened(&mut self, client: ClientId, at: Duration, session: SessionId) {
        self.sessions[client.0].id = Some(session);
        self.note(client, at, Step::Opened(session));
    }

    /// It is about to send a request. What never completes has an unknown outcome.
    pub fn invoke(&mut self, client: ClientId, at: Duration, request: &Request<'_>) -> OperationId {
        self.invoke_call(client, at, Call::of(request))
    }

    /// The same.
    pub fn invoke_call(&mut self, client: ClientId, at: Duration, call: Call) -> OperationId {
        let operation = OperationId(self.operations.len());
        let (frontier, frontier_at) = (self.frontier, self.frontier_at);
        let outcome = Outcome::Unknown;
        self.operations.push(Operation { client, call, outcome, frontier, frontier_at });
        self.note(client, at, Step::Invoked(operation));
        operation
    }

    /// Its reply has come: the header's zxid, and the record or the service's error.
    pub fn complete(
        &mut self,
        operation: OperationId,
        at: Duration,
        zxid: Zxid,
        answer: Result<&Response, ErrorCode>,
    ) {
        self.complete_with(operation, at, Outcome::of(zxid, answer));
    }

    /// The same.
    pub fn complete_with(&mut self, operation: OperationId, at: Duration, outcome: Outcome) {
        let client = self.operations[operation.0].client;
        if let Some(zxid) = outcome.zxid()
            && zxid > self.frontier
        {
            (self.frontier, self.frontier_at) = (zxid, Some(operation));
        }
        self.operations[operation.0].outcome = outcome;
        self.note(client, at, Step::Completed(operation));
    }

    /// The connection was lost before its reply.
    pub fn lose(&mut self, operation: OperationId, at: Duration) {
        self.complete_with(operation, at, Outcome::Unknown);
    }

    /// It failed before it was sent.
    pub fn not_sent(&mut self, operation: OperationId, at: Duration) {
        self.complete_with(operation, at, Outcome::NotSent);
    }

    /// A watch event has come.
    pub fn event(&mut self, client: ClientId, at: Duration, event: &WatchedEvent) {
        self.note(client, at, Step::Event(event.clone()));
    }

    /// The connection is gone; the session may still be there.
    pub fn disconnected(&mut self, client: ClientId, at: Duration) {
        self.note(client, at, Step::Disconnected);
    }

    /// It has its session on another connection; `watches_kept` where its watches were set again
    /// (`setWatches`) before anything else was asked for.
    pub fn reconnected(&mut self, client: ClientId, at: Duration, watches_kept: bool) {
        self.note(client, at, Step::Reconnected { watches_kept });
    }

    /// The service said that the session has expired. What it says so late in a leader's reign may
    /// come true only under the next one, so nothing follows for what others see at once.
    pub fn expired(&mut self, client: ClientId, at: Duration) {
        self.note(client, at, Step::Over { certain: false });
    }

    /// The session must be over by now, since it was left alone for much longer than it may be: who
    /// asks from now on sees none of its ephemeral znodes.
    pub fn must_be_over(&mut self, client: ClientId, at: Duration) {
        self.note(client, at, Step::Over { certain: true });
    }

    /// How many requests there were.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// How many sessions were opened.
    pub fn sessions(&self) -> usize {
        self.sessions.iter().filter(|session| session.id.is_some()).count()
    }

    /// What became of a request.
    pub fn outcome(&self, operation: OperationId) -> &Outcome {
        &self.operations[operation.0].outcome
    }

    /// Judges it.
    pub fn check(&self) -> Report {
        let mut report = Report::new(self);
        order::check(self, &mut report);
        let sessions = self.sessions_over();
        let resolved = resolve::resolve(self, &sessions, &mut report);
        let timelines = timeline::build(self, &sessions, &resolved, &mut report);
        stats::check(self, &timelines, &mut report);
        let changes = search::check(self, &timelines, &mut report);
        watches::check(self, &changes, &mut report);
        report
    }

    /// The sessions, with the zxid by which those that must be over are.
    fn sessions_over(&self) -> Vec<Session> {
        let mut sessions = self.sessions.clone();
        let mut over = Vec::new();
        // Of those that are over, where to look for the ones that have no bound yet.
        let mut unbound = 0;
        // How many were over when an operation was sent.
        let mut over_when_sent = vec![0; self.operations.len()];
        for noted in &self.noted {
            match &noted.step {
                Step::Over { certain: true } => over.push(noted.client),
                Step::Invoked(operation) => over_when_sent[operation.0] = over.len(),
                Step::Completed(operation) => {
                    let Operation { call, outcome, .. } = &self.operations[operation.0];
                    let asks_the_leader = call.is_write() || *call == Call::Sync;
                    let Outcome::Done { zxid, .. } = outcome else { continue };
                    while asks_the_leader && unbound < over_when_sent[operation.0] {
                        let client: ClientId = over[unbound];
                        sessions[client.0].over_by = Some(*zxid);
                        unbound += 1;
                    }
                }
                _ => {}
            }
        }
        sessions
    }
}
