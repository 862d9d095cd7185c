//! A replica as a member of an ensemble: what it does with its clients' writes as leader and as
//! learner, and what it takes over from, and hands to, the protocol between the replicas.
//!
//! Every client's write is queued under its connection and sent to the leader's request processor,
//! which may be this replica's own; when its transaction is delivered it is answered here. Only the
//! leader makes transactions, tracks sessions and lets them expire. What a lost leadership had under
//! way is forgotten as a whole.

use std::sync::Arc;

use hashbrown::HashMap;
use tracing::{debug, info, warn};
use znodefs::wire::{ConnectRequest, Decoder, Request};
use znodefs::{Epoch, ErrorCode, OpCode, SessionId, Zxid};

use super::broadcast::Broadcast;
use super::forwarded_request::ForwardedRequest;
use super::outstanding::{Origin, Waiting};
use super::submitted::{Submission, SubmittedRequests, Turn};
use super::{Effects, Replica, WriteRequest};
use crate::codec;
use crate::connection::{Connection, ConnectionId, Phase};
use crate::mutation::{Mutation, mutated};
use crate::request_processor::{EnsembleView, PendingRequest, SessionOwner};
use crate::session_id::PasswordKey;
use crate::session_tracker::{LastHeard, SessionTracker};
use crate::tree::DataTree;
use crate::txn::{Txn, TxnBody, TxnOrigin};
use crate::zab;

/// What a member does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It looks for a leader, or is brought up to date: no client is served.
    NotServing,
    /// It makes the transactions.
    Leading,
    /// It forwards writes to the leader.
    Learning,
    /// It has no leader, and serves reads of what it has.
    ReadOnly,
}

/// A client that wants to go on with its session here, while the leader is asked.
#[derive(Debug)]
struct Reattaching {
    connection: Arc<Connection>,
    timeout_ms: u64,
    read_only: Option<bool>,
}

/// What a member of an ensemble knows beyond what every replica does.
#[derive(Debug)]
pub(super) struct Member {
    pub role: Role,
    pub submitted: SubmittedRequests,
    reattaching: HashMap<SessionId, Vec<Reattaching>>,
    /// Clients whose session the leader does not know, until it is sure that it still leads; by the
    /// token of a `sync`.
    refusing: HashMap<u64, Refusing>,
    /// Connections whose `sync` was answered: what waits behind it can go on.
    released: Vec<Arc<Connection>>,
    /// Sessions heard since then are told to the leader.
    touches_told_ms: u64,
}

/// A client that is about to be told that its session is none.
#[derive(Debug)]
struct Refusing {
    connection: Arc<Connection>,
    session_id: SessionId,
    read_only: Option<bool>,
}

/// Why a session is refused that the password is right for.
const NO_SESSION: &str = "has expired or never was";

impl Member {
    pub fn new() -> Member {
        Member {
            role: Role::NotServing,
            submitted: SubmittedRequests::default(),
            reattaching: HashMap::new(),
            refusing: HashMap::new(),
            released: Vec::new(),
            touches_told_ms: 0,
        }
    }
}

impl Replica {
    /// What this member does; `None` for a replica alone.
    pub(super) fn role(&self) -> Option<Role> {
        self.member.as_ref().map(|member| member.role)
    }

    /// Whether this replica makes transactions: it stands alone, or leads.
    pub(super) fn makes_transactions(&self) -> bool {
        self.role().is_none_or(|role| role == Role::Leading)
    }

    /// Through whom a connection's session is attached: replicas of an ensemble count as a whole,
    /// since each has one connection of a session at most.
    pub(super) fn owner(&self, connection: &Connection) -> SessionOwner {
        match self.member {
            None => connection.owner(),
            Some(_) => SessionOwner(u64::from(self.config.server_id.0)),
        }
    }

    /// Service begins: this replica leads in `epoch`, or learns from who does.
    pub fn start_serving(&mut self, leads: bool, epoch: Epoch) {
        let tick_ms = self.config.tick.as_millis() as u64;
        let Some(member) = &mut self.member else { return };
        member.role = if leads { Role::Leading } else { Role::Learning };
        member.touches_told_ms = self.now.monotonic_ms;
        self.epoch = epoch;
        self.sessions = SessionTracker::new(tick_ms);
        if !leads {
            return;
        }
        let now_ms = self.now.monotonic_ms;
        // As long as each had: nobody was listening for a while.
        for session in self.database.tree.read().sessions() {
            if mutated(Mutation::NewLeaderForgetsSessions) {
                break;
            }
            let timeout_ms = session.timeout_ms.max(0) as u64;
            self.sessions.add(session.session_id, timeout_ms, now_ms);
        }
        if !mutated(Mutation::StepDownKeepsRequests) {
            self.processor.reset();
        }
        self.processor.set_last_zxid(Zxid::new(epoch, 0));
        self.broadcast = Broadcast::standalone(Zxid::new(epoch, 0));
        let interval_ms = self.config.container_check_interval.as_millis() as u64;
        self.next_container_check_ms = now_ms + interval_ms;
    }

    /// What this replica, should it lead, has to know of the ensemble to change it.
    pub fn set_ensemble(&mut self, view: EnsembleView) {
        self.processor.set_ensemble(view);
    }

    /// Leader: makes the ensemble's configuration, so far that of the files, a part of the
    /// replicated state.
    pub fn propose_configuration(&mut self, lines: &str, effects: &mut Effects) {
        let wall_ms = self.now.wall_ms;
        let prepared =
            self.prepare(effects, |processor| processor.prepare_configuration(lines, wall_ms));
        if let Some(txn) = prepared {
            self.propose(txn, effects);
        }
    }

    /// Service ends. The outcome of everything under way is unknown; none of it is answered, and
    /// nothing of it is sent anymore. The caller closes the connections.
    pub fn stop_serving(&mut self, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        member.role = Role::NotServing;
        if mutated(Mutation::StepDownKeepsRequests) {
            return;
        }
        let dropped = member.submitted.clear();
        member.reattaching.clear();
        member.refusing.clear();
        member.released.clear();
        self.metrics.add_outstanding(-(dropped as i64));
        self.by_session.clear();
        self.by_connection.clear();
        self.sessions = SessionTracker::new(self.config.tick.as_millis() as u64);
        self.processor.reset();
        self.broadcast = Broadcast::standalone(Zxid::ZERO);
        effects.append.clear();
        effects.zab.clear();
    }

    /// What session passwords are made with, as the ensemble's first leader chose it.
    pub fn set_password_key(&mut self, key: PasswordKey) {
        self.password_key = key;
    }

    /// Everything that is committed goes to the tree, in order.
    pub fn deliver_entries(&mut self, entries: &[zab::Entry], effects: &mut Effects) {
        let mut delivered = std::mem::take(&mut self.delivered);
        for entry in entries {
            self.snapshots.txns += 1;
            self.snapshots.bytes += entry.payload.len() as u64;
            let txn = match self.broadcast.take(entry.zxid) {
                Some(txn) => txn,
                None => match codec::decode::<Txn>(&entry.payload) {
                    Ok(txn) if txn.zxid == entry.zxid => txn,
                    Ok(txn) => {
                        let (zxid, found) = (entry.zxid, txn.zxid);
                        effects.fatal = Some(format!("the log has transaction {found} as {zxid}"));
                        return;
                    }
                    Err(error) => {
                        let zxid = entry.zxid;
                        effects.fatal =
                            Some(format!("transaction {zxid} cannot be understood: {error}"));
                        return;
                    }
                },
            };
            delivered.push(txn);
        }
        self.apply_delivered(delivered, effects);
        self.let_go(effects);
    }

    /// Requests that waited behind a `sync` go on now that it is answered.
    pub(super) fn let_go(&mut self, effects: &mut Effects) {
        while let Some(connection) = self.member.as_mut().and_then(|member| member.released.pop()) {
            let Some(member) = &mut self.member else { return };
            let held = member.submitted.take_held(connection.id);
            if !held.is_empty() {
                self.member_requests(&connection, held, effects);
            }
        }
    }

    /// A connection's requests, in order.
    pub(super) fn member_requests(
        &mut self,
        connection: &Arc<Connection>,
        requests: Vec<WriteRequest>,
        effects: &mut Effects,
    ) {
        if !self.by_connection.contains_key(&connection.id) {
            // It is closed: its session has moved, or service has ended.
            self.metrics.add_outstanding(-(requests.len() as i64));
            return;
        }
        let session_id = connection.outbox().session_id;
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        for request in requests {
            let Some(member) = &mut self.member else { return };
            if member.submitted.is_held(connection.id) {
                member.submitted.push(connection.id, Submission::Held(request));
            } else if request.op_code == OpCode::Sync {
                self.member_sync(connection, request, effects);
            } else {
                self.member_write(&tree, connection, session_id, &request, effects);
            }
        }
        drop(tree);
        self.answer_turns(connection.id, effects);
    }

    fn member_sync(
        &mut self,
        connection: &Arc<Connection>,
        request: WriteRequest,
        effects: &mut Effects,
    ) {
        let origin = Origin::of(connection, &request);
        let Some(member) = &mut self.member else { return };
        let submitted = &mut member.submitted;
        let record = request.request.body;
        if Request::decode(OpCode::Sync, &mut Decoder::new(&record)).is_err() {
            let refused = Submission::Refused(origin, ErrorCode::MarshallingError);
            submitted.push(connection.id, refused);
            return;
        }
        let token = submitted.push_sync(connection.id, origin, record);
        effects.zab.push(zab::Event::Sync { token });
    }

    fn member_write(
        &mut self,
        tree: &DataTree,
        connection: &Arc<Connection>,
        session_id: SessionId,
        request: &WriteRequest,
        effects: &mut Effects,
    ) {
        let waiting = Waiting::ForTxn(Origin::of(connection, request));
        let Some(member) = &mut self.member else { return };
        member.submitted.push(connection.id, Submission::Write(waiting));
        let request = ForwardedRequest {
            session_id,
            xid: request.request.xid,
            op_code: request.op_code as i32,
            connection: connection.id.0,
            identities: Arc::clone(&request.request.identities),
            body: request.request.body.clone(),
        };
        self.submit(tree, &request, effects);
    }

    /// A request of this replica's client goes to the leader.
    fn submit(&mut self, tree: &DataTree, request: &ForwardedRequest, effects: &mut Effects) {
        if self.makes_transactions() {
            self.make_transaction(tree, self.config.server_id.0, request, effects);
            return;
        }
        match request.encode() {
            Ok(payload) => effects.zab.push(zab::Event::Forward(payload)),
            Err(error) => {
                effects.fatal = Some(format!("a request cannot be forwarded: {error}"));
            }
        }
    }

    /// Leader: a learner forwarded a request.
    pub fn forwarded(&mut self, from: zab::ServerId, payload: &[u8], effects: &mut Effects) {
        if self.role() != Some(Role::Leading) {
            return;
        }
        let server = u8::try_from(from.0).unwrap_or(0);
        match ForwardedRequest::decode(payload) {
            Ok(request) => {
                let database = Arc::clone(&self.database);
                let tree = database.tree.read();
                self.make_transaction(&tree, server, &request, effects);
            }
            Err(error) => {
                warn!("replica {from} forwarded what is no request, it is ignored: {error}");
            }
        }
    }

    /// Leader: has the request processor make a transaction of a request, and proposes it.
    fn make_transaction(
        &mut self,
        tree: &DataTree,
        server: u8,
        request: &ForwardedRequest,
        effects: &mut Effects,
    ) {
        let Some(op_code) = OpCode::from_code(request.op_code) else {
            warn!("replica {server} forwarded unknown operation {}", request.op_code);
            return;
        };
        let pending = PendingRequest {
            session_id: request.session_id,
            xid: request.xid,
            op_code,
            body: &request.body,
            identities: &request.identities,
            owner: SessionOwner(u64::from(server)),
        };
        let wall_ms = self.now.wall_ms;
        let prepared =
            self.prepare(effects, |processor| processor.prepare(tree, &pending, wall_ms));
        let Some(mut txn) = prepared else { return };
        if op_code == OpCode::CloseSession {
            self.sessions.set_closing(request.session_id);
        }
        if let TxnBody::CreateSession { timeout_ms } = txn.body {
            // Now, not when it is applied: a quorum may have it, and its client come back through
            // another member, before this replica's own disk does.
            let timeout_ms = timeout_ms.max(0) as u64;
            self.sessions.add(request.session_id, timeout_ms, self.now.monotonic_ms);
        }
        txn.origin = TxnOrigin { server, connection: request.connection };
        self.propose(txn, effects);
    }

    /// A client wants a session of a member.
    pub(super) fn open_session_of_member(
        &mut self,
        connection: Arc<Connection>,
        timeout_ms: u64,
        read_only: Option<bool>,
        effects: &mut Effects,
    ) {
        let database = Arc::clone(&self.database);
        let tree = database.tree.read();
        let session_id = loop {
            let session_id = self.session_ids.allocate();
            if tree.session_timeout_ms(session_id).is_none() {
                break session_id;
            }
        };
        let request = ForwardedRequest {
            session_id,
            xid: 0,
            op_code: OpCode::CreateSession as i32,
            connection: connection.id.0,
            identities: Arc::new([]),
            body: (timeout_ms as i32).to_be_bytes().to_vec().into(),
        };
        let Some(member) = &mut self.member else { return };
        let id = connection.id;
        let waiting = Waiting::ForSession { connection, timeout_ms, read_only };
        member.submitted.push(id, Submission::Write(waiting));
        self.submit(&tree, &request, effects);
    }

    /// Learner: the leader is asked whether a session may go on here.
    pub(super) fn ask_to_reattach(
        &mut self,
        connection: Arc<Connection>,
        timeout_ms: u64,
        request: &ConnectRequest,
        effects: &mut Effects,
    ) {
        let session_id = request.session_id;
        // What is still to come through it would otherwise count as this replica's once the leader
        // has heard that the session is attached here.
        if let Some(former) = self.by_session.remove(&session_id) {
            info!("client {} closed: its session {session_id} has moved", former.peer);
            touch(session_id, &former, effects);
            self.by_connection.remove(&former.id);
            former.close();
        }
        let Some(member) = &mut self.member else { return };
        let asking = Reattaching { connection, timeout_ms, read_only: request.read_only };
        member.reattaching.entry(session_id).or_default().push(asking);
        let timeout_ms = timeout_ms as i32;
        effects.zab.push(zab::Event::Revalidate { session_id, timeout_ms });
    }

    /// Learner: the leader's answer; answers of one session come in the order of the questions.
    pub fn session_revalidated(
        &mut self,
        session_id: SessionId,
        valid: bool,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        let Some(asking) = member.reattaching.get_mut(&session_id) else { return };
        let Reattaching { connection, timeout_ms, read_only } = asking.remove(0);
        if asking.is_empty() {
            member.reattaching.remove(&session_id);
        }
        if valid {
            debug!("client {} takes up session {session_id}", connection.peer);
            connection.last_heard.set(self.now.monotonic_ms);
            self.establish(&connection, session_id, timeout_ms, read_only, effects);
        } else {
            self.refuse_when_sure(connection, session_id, read_only, effects);
        }
    }

    /// A client's session is not known to the leader. A leader that was deposed without having heard of
    /// it knows none of the sessions made since: the client is told when a quorum has confirmed that it
    /// leads.
    pub(super) fn refuse_when_sure(
        &mut self,
        connection: Arc<Connection>,
        session_id: SessionId,
        read_only: Option<bool>,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else {
            return self.refuse_session(connection, session_id, read_only, NO_SESSION, effects);
        };
        let token = member.submitted.next_token();
        member.refusing.insert(token, Refusing { connection, session_id, read_only });
        effects.zab.push(zab::Event::Sync { token });
    }

    /// Leader: a learner asks whether a session may go on there; from now on it is that learner's.
    pub fn revalidate(
        &mut self,
        connection: zab::ConnectionId,
        from: zab::ServerId,
        session_id: SessionId,
        timeout_ms: i32,
        effects: &mut Effects,
    ) {
        let owner = SessionOwner(u64::from(from.0));
        let last_heard = LastHeard::at(self.now.monotonic_ms);
        let valid = {
            let tree = self.database.tree.read();
            self.processor.set_session_owner(&tree, session_id, owner)
                && self.sessions.attach(session_id, last_heard, timeout_ms.max(0) as u64)
        };
        if valid && let Some(former) = self.by_session.remove(&session_id) {
            info!("client {} closed: its session {session_id} has moved to {from}", former.peer);
            self.by_connection.remove(&former.id);
            former.close();
        }
        let answer = zab::Event::SessionRevalidated { connection, session_id, timeout_ms, valid };
        effects.zab.push(answer);
    }

    /// Leader: sessions were heard by a learner.
    pub fn sessions_touched(&mut self, touched: &[(SessionId, i32)]) {
        for (session_id, _) in touched {
            if mutated(Mutation::ExpiryIgnoresTouches) {
                break;
            }
            self.sessions.touch(*session_id, self.now.monotonic_ms);
        }
    }

    /// Learner: the sessions heard here since this was last asked, for the leader.
    pub fn take_touched(&mut self, effects: &mut Effects) {
        let now_ms = self.now.monotonic_ms;
        let Some(member) = &mut self.member else { return };
        let since_ms = std::mem::replace(&mut member.touches_told_ms, now_ms);
        let all = self.by_session.iter();
        let mut touched: Vec<_> =
            all.filter(|(_, connection)| connection.last_heard.get() >= since_ms).collect();
        // The same run tells the same in the same order, whatever a map's order.
        touched.sort_unstable_by_key(|(session_id, _)| **session_id);
        for (session_id, connection) in touched {
            touch(*session_id, connection, effects);
        }
    }

    /// A member's connection is gone: what it waits for is nobody's, and the leader hears that its
    /// session was used.
    pub(super) fn member_disconnected(
        &mut self,
        connection: &Connection,
        session_id: SessionId,
        effects: &mut Effects,
    ) {
        let Some(member) = &mut self.member else { return };
        let dropped = member.submitted.remove(connection.id);
        self.metrics.add_outstanding(-(dropped as i64));
        if member.role == Role::Learning && self.by_session.contains_key(&session_id) {
            touch(session_id, connection, effects);
        }
    }

    /// Everything committed before a client's `sync` is delivered.
    pub fn sync_done(&mut self, token: u64, effects: &mut Effects) {
        let Some(member) = &mut self.member else { return };
        if let Some(refusing) = member.refusing.remove(&token) {
            let Refusing { connection, session_id, read_only } = refusing;
            self.refuse_session(connection, session_id, read_only, NO_SESSION, effects);
        } else if let Some(connection) = member.submitted.confirm(token) {
            self.answer_turns(connection, effects);
            self.let_go(effects);
        }
    }

    /// Takes the next of a connection's requests that needs no transaction anymore.
    pub(super) fn take_turn(&mut self, connection: ConnectionId) -> Option<Waiting> {
        let member = self.member.as_mut()?;
        match member.submitted.take_turn(connection)? {
            Turn::Synced(origin, record) => {
                member.released.push(Arc::clone(&origin.connection));
                Some(Waiting::ForSync(origin, record))
            }
            Turn::Refused(origin, error) => Some(Waiting::Refused(origin, error)),
        }
    }

    /// Whether there is no quorum, and reads are served all the same.
    pub(super) fn is_read_only(&self) -> bool {
        self.role() == Some(Role::ReadOnly)
    }

    /// Whether a client may be served: its connection is open, and so is this replica.
    pub(super) fn may_serve(&self, connection: &Connection) -> bool {
        let serves = self.role().is_none_or(|role| role != Role::NotServing);
        serves && connection.outbox().phase == Phase::Connecting
    }
}

fn touch(session_id: SessionId, connection: &Connection, effects: &mut Effects) {
    let timeout_ms = connection.outbox().timeout_ms as i32;
    effects.zab.push(zab::Event::SessionTouched { session_id, timeout_ms });
}
