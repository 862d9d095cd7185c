//! The core of a replica: orders writes, has them logged, applies what is durable, answers it, and
//! keeps the sessions. One [`Replica`] is driven by one thread ([`core_thread`]).
//!
//! Events go in, effects come out; time is passed in with each event, randomness as a seed, and
//! the disk is only ever reached through effects. So a simulator can drive it as the thread does.
//!
//! The way of a write: request processor (a [`Txn`] with absolute results), broadcast
//! (its place in the order), log (durable), tree (applied), and only then watchers and the client
//! hear of it.

mod broadcast;
pub mod core_thread;
mod delivery;
mod forwarded_request;
mod member;
mod outstanding;
mod read_only;
mod requests;
mod sessions;
pub mod snapshot_task;
mod submitted;

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::sync::oneshot;
use tracing::{error, info, warn};
use znodefs::wire::ConnectRequest;
use znodefs::{Epoch, OpCode, SessionId, Zxid};

use crate::config::ServerConfig;
use crate::connection::{Connection, ConnectionId, RawRequest};
use crate::ensemble::MemberEvent;
use crate::metrics::Metrics;
use crate::request_processor::{RequestProcessor, RequestProcessorOptions};
use crate::service::Database;
use crate::session_id::{PasswordKey, SessionIdAllocator};
use crate::session_tracker::SessionTracker;
use crate::txn::Txn;
use crate::zab;

use broadcast::Broadcast;
use member::Member;
use outstanding::OutstandingQueue;

/// The sessions that come due, by the milliseconds until then.
pub type SessionBuckets = Vec<(u64, Vec<SessionId>)>;

/// What the core is told.
pub enum Event {
    /// A client wants a session.
    Connect {
        /// Its connection.
        connection: Arc<Connection>,
        /// What it asks for.
        request: ConnectRequest,
    },
    /// A client asks for what only the core can answer. The connection's outbox has a
    /// [`Pending::Core`](crate::connection::Pending::Core) for each, in the same order.
    Requests {
        /// Its connection.
        connection: Arc<Connection>,
        /// The requests, in order.
        writes: Vec<WriteRequest>,
    },
    /// A connection is gone.
    Disconnected {
        /// Which.
        connection: Arc<Connection>,
    },
    /// The log is durable up to here.
    TxnsDurable(Zxid),
    /// The disk is full: nothing after `durable` is in the log, nor will be.
    LogFull {
        /// The newest transaction that is in the log.
        durable: Zxid,
        /// What to tell the administrator.
        reason: String,
    },
    /// The log failed: what of it is durable is unknown.
    LogFailed {
        /// What to tell the administrator.
        reason: String,
    },
    /// A snapshot is done, or failed with this reason.
    SnapshotDone(Result<Zxid, String>),
    /// The words want to know when sessions expire.
    DumpSessions(oneshot::Sender<SessionBuckets>),
    /// Something for the driver of a member of an ensemble.
    Member(MemberEvent),
    /// Only time has passed.
    Tick,
    /// The replica is to stop.
    Stop,
}

/// A request that only the core can answer.
#[derive(Debug)]
pub struct WriteRequest {
    /// Its opcode.
    pub op_code: OpCode,
    /// The request.
    pub request: RawRequest,
}

/// What the core wants done.
#[derive(Default)]
pub struct Effects {
    /// Transactions to be logged, in order.
    pub append: LogBatch,
    /// Connections whose outboxes have something new.
    pub wake: Vec<Arc<Connection>>,
    /// The log may take transactions again after it was full.
    pub resume_log: bool,
    /// What a member of an ensemble has for the protocol between the replicas, in order.
    pub zab: Vec<zab::Event>,
    /// A snapshot is to be taken.
    pub take_snapshot: bool,
    /// A new epoch is to be made durable before anything else is proposed.
    pub new_epoch: Option<Epoch>,
    /// The replica cannot go on.
    pub fatal: Option<String>,
}

/// Encoded transactions, one behind the other.
#[derive(Debug, Default)]
pub struct LogBatch {
    /// All of them.
    pub bytes: Vec<u8>,
    /// Each with where it ends.
    pub ends: Vec<(Zxid, usize)>,
}

impl LogBatch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The transactions one by one, sharing the bytes.
    pub fn into_entries(self) -> Vec<zab::Entry> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let entry = |(zxid, end): (Zxid, usize)| {
            let payload = bytes.slice(start..end);
            start = end;
            zab::Entry { zxid, payload }
        };
        self.ends.into_iter().map(entry).collect()
    }
}

/// What time it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds of the monotonic clock.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
}

/// What a core is made of.
pub struct ReplicaParts {
    /// The state that was recovered.
    pub database: Arc<Database>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What the replica was told.
    pub config: ServerConfig,
    /// The epoch of this start; it is durable.
    pub epoch: Epoch,
    /// The newest transaction in the log.
    pub last_logged: Zxid,
    /// Transactions that had to be replayed from the log: the next snapshot comes that much sooner.
    pub replayed_txns: u64,
    /// What session passwords are made with.
    pub password_key: PasswordKey,
    /// Where randomness starts.
    pub seed: u64,
    /// Whether it is a member of an ensemble; then it serves nobody until it is told to.
    pub is_member: bool,
}

/// The core of a replica.
pub struct Replica {
    database: Arc<Database>,
    metrics: Arc<Metrics>,
    config: ServerConfig,
    processor: RequestProcessor,
    epoch: Epoch,
    broadcast: Broadcast,
    outstanding: OutstandingQueue,
    sessions: SessionTracker,
    session_ids: SessionIdAllocator,
    password_key: PasswordKey,
    by_session: HashMap<SessionId, Arc<Connection>>,
    by_connection: HashMap<ConnectionId, Arc<Connection>>,
    delivered: Vec<Txn>,
    snapshots: SnapshotPace,
    next_container_check_ms: u64,
    log_is_full: bool,
    member: Option<Member>,
    now: Now,
}

/// When the next snapshot is due.
struct SnapshotPace {
    txns: u64,
    bytes: u64,
    txns_due: u64,
    bytes_due: u64,
    running: bool,
    random: u64,
}

impl Replica {
    /// A core that takes up the recovered state; every session has its full timeout from `now` on.
    pub fn new(parts: ReplicaParts, now: Now) -> Replica {
        let tick_ms = parts.config.tick.as_millis() as u64;
        let mut sessions = SessionTracker::new(tick_ms);
        for session in parts.database.tree.read().sessions() {
            sessions.add(session.session_id, session.timeout_ms.max(0) as u64, now.monotonic_ms);
        }
        let options = RequestProcessorOptions {
            extended_types_enabled: parts.config.extended_types,
            enforce_quota: parts.config.enforce_quota,
            reconfig_enabled: parts.config.reconfig_enabled,
        };
        let mut processor = RequestProcessor::new(options, parts.seed);
        processor.set_last_zxid(Zxid::new(parts.epoch, 0));
        let container_check_ms = parts.config.container_check_interval.as_millis() as u64;
        let mut snapshots = SnapshotPace {
            txns: 0,
            bytes: 0,
            txns_due: 0,
            bytes_due: 0,
            running: false,
            random: parts.seed | 1,
        };
        snapshots.begin(&parts.config);
        snapshots.txns = parts.replayed_txns;
        Replica {
            processor,
            epoch: parts.epoch,
            broadcast: Broadcast::standalone(parts.last_logged),
            outstanding: OutstandingQueue::default(),
            sessions,
            session_ids: SessionIdAllocator::new(parts.config.server_id, now.wall_ms),
            by_session: HashMap::new(),
            by_connection: HashMap::new(),
            delivered: Vec::new(),
            snapshots,
            next_container_check_ms: now.monotonic_ms + container_check_ms,
            log_is_full: false,
            member: parts.is_member.then(Member::new),
            database: parts.database,
            metrics: parts.metrics,
            config: parts.config,
            password_key: parts.password_key,
            now,
        }
    }

    /// Takes one event in.
    pub fn handle(&mut self, event: Event, now: Now, effects: &mut Effects) {
        self.now = now;
        match event {
            Event::Connect { connection, request } => self.connect(connection, &request, effects),
            Event::Requests { connection, writes } if self.is_read_only() => {
                self.read_only_requests(&connection, &writes, effects);
            }
            Event::Requests { connection, writes } if self.member.is_some() => {
                self.member_requests(&connection, writes, effects);
                self.let_go(effects);
            }
            Event::Requests { connection, writes } => self.requests(&connection, writes, effects),
            Event::Disconnected { connection } => self.disconnected(&connection, effects),
            Event::TxnsDurable(zxid) => self.deliver(zxid, effects),
            Event::LogFull { durable, reason } => {
                self.refuse_outstanding(durable, &reason, effects)
            }
            Event::LogFailed { reason } => effects.fatal = Some(reason),
            Event::SnapshotDone(result) => self.snapshot_done(result),
            Event::DumpSessions(sender) => {
                let from_now = |due: u64| due.saturating_sub(now.monotonic_ms);
                let buckets = self.sessions.buckets();
                // Whoever asked may have gone.
                let _ = sender.send(buckets.map(|(due, ids)| (from_now(due), ids)).collect());
            }
            Event::Member(_) | Event::Tick | Event::Stop => {}
        }
    }

    /// Takes note of the time.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// Does what is due by the clock. To be called after every batch of events, and no later than
    /// [`next_due_ms`](Self::next_due_ms).
    pub fn tick(&mut self, now: Now, effects: &mut Effects) {
        self.now = now;
        if self.makes_transactions() {
            self.expire_sessions(effects);
        } else if self.is_read_only() {
            self.expire_local_sessions(effects);
        }
        if self.makes_transactions() && now.monotonic_ms >= self.next_container_check_ms {
            let interval = self.config.container_check_interval.as_millis() as u64;
            self.next_container_check_ms = now.monotonic_ms + interval;
            self.delete_expired_znodes(effects);
        }
        if !self.snapshots.running && self.snapshots.is_due() {
            self.snapshots.running = true;
            self.snapshots.begin(&self.config);
            effects.take_snapshot = true;
        }
    }

    /// When [`tick`](Self::tick) next has something to do, milliseconds of the monotonic clock.
    pub fn next_due_ms(&self) -> u64 {
        let session = self.sessions.next_due_ms().unwrap_or(u64::MAX);
        if self.is_read_only() {
            return session;
        }
        if !self.makes_transactions() {
            return u64::MAX;
        }
        session.min(self.next_container_check_ms)
    }

    fn snapshot_done(&mut self, result: Result<Zxid, String>) {
        self.snapshots.running = false;
        match result {
            Ok(zxid) => info!("snapshot of {zxid} written"),
            Err(reason) => {
                error!(
                    "no snapshot written, the log is kept and it is tried again later: {reason}"
                );
                // Not at once: the same would go wrong again.
                self.snapshots.txns = self.snapshots.txns_due / 2;
                self.snapshots.bytes = self.snapshots.bytes_due / 2;
            }
        }
    }

    /// The disk is full: whatever waited for it is answered with an error, and the next write tries
    /// again.
    fn refuse_outstanding(&mut self, durable: Zxid, reason: &str, effects: &mut Effects) {
        if !self.log_is_full {
            self.log_is_full = true;
            warn!("writes are refused until there is room: {reason}");
        }
        self.deliver(durable, effects);
        self.broadcast.forget_after(durable);
        self.processor.reset();
        self.processor.set_last_zxid(durable.max(Zxid::new(self.epoch, 0)));
        effects.append.clear();
        effects.resume_log = true;
        self.refuse_all(effects);
    }
}

impl SnapshotPace {
    fn is_due(&self) -> bool {
        self.txns >= self.txns_due || self.bytes >= self.bytes_due
    }

    /// Counts from zero again; the end is somewhere in the second half of what is configured, so that
    /// replicas do not all write their snapshots at once.
    fn begin(&mut self, config: &ServerConfig) {
        self.txns = 0;
        self.bytes = 0;
        self.txns_due = self.spread(config.snapshot_txns);
        self.bytes_due = match config.snapshot_log_bytes {
            0 => u64::MAX,
            bytes => self.spread(bytes),
        };
    }

    fn spread(&mut self, most: u64) -> u64 {
        // xorshift64: all it has to do is to differ between replicas.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let half = (most / 2).max(1);
        half + self.random % half
    }
}

#[cfg(test)]
mod tests;
