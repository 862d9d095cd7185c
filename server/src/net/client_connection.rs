//! What becomes of the bytes that a client's socket brings, and where those for it come from: takes
//! whatever requests have come in one go, answers what can be answered at once, hands the rest to
//! the core. No socket lives here: a task reads and writes for it, or a simulation.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use znodefs::OpCode;
use znodefs::wire::{ConnectRequest, RequestHeader, WireError, take_frame};

use crate::connection::{
    Connection, Identities, OUTBOX_HARD_LIMIT, Outbox, Pending, Phase, RawRequest,
};
use crate::local_request::{self, may_touch_watches, needs_core};
use crate::mutation::{Mutation, mutated};
use crate::replica::{Event, WriteRequest};
use crate::service::Service;

/// Requests taken off the input under one lock.
const BATCH_MAX: usize = 256;
/// What an idle connection may keep of its input buffer.
const IDLE_INPUT_MAX: usize = 128 << 10;
/// What an idle connection may keep of its output buffer.
const IDLE_OUTPUT_MAX: usize = 16 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// The client closed it.
    #[error("closed by the client")]
    ByClient,
    /// It was closed on purpose, and everything has been sent.
    #[error("closed by the replica")]
    ByReplica,
    /// The socket failed.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The client announced a frame that is not allowed.
    #[error("it announced a frame of {length} bytes, allowed are 0 to {limit} (jute.maxbuffer)")]
    FrameLength {
        /// What it announced.
        length: i32,
        /// What is allowed.
        limit: usize,
    },
    /// The client sent what is not a request.
    #[error("it sent what is not a request: {0}")]
    NotARequest(WireError),
    /// The client sent no ConnectRequest in time.
    #[error("it sent no ConnectRequest within {} ms", .0.as_millis())]
    NoConnectRequest(Duration),
    /// The client does not read what it asked for.
    #[error("it does not read: {0} bytes were waiting for it")]
    DoesNotRead(usize),
}

impl From<WireError> for Ending {
    fn from(error: WireError) -> Ending {
        match error {
            WireError::FrameLength { length, limit } => Ending::FrameLength { length, limit },
            other => Ending::NotARequest(other),
        }
    }
}

/// One connection without its socket.
pub struct ClientConnection {
    pub(super) service: Arc<Service>,
    pub(super) connection: Arc<Connection>,
    pub(super) input: BytesMut,
    output: BytesMut,
    identities: Identities,
    /// Requests taken off the input and not handled yet: header and record.
    batch: VecDeque<(RequestHeader, Bytes)>,
    /// When they came, milliseconds of the monotonic clock.
    received_ms: u64,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its last bytes are to be sent, then it is over.
    ToFinish,
    /// To be woken, and for the socket.
    For {
        /// Whether more input is wanted.
        input: bool,
        /// Whether there is output that the socket did not take.
        output: bool,
    },
}

impl ClientConnection {
    /// A connection that was just accepted.
    pub fn new(service: Arc<Service>, connection: Arc<Connection>) -> ClientConnection {
        let identities = local_request::first_identities(&service.config, &connection);
        connection.outbox().identities = Arc::clone(&identities);
        ClientConnection {
            service,
            connection,
            input: BytesMut::new(),
            output: BytesMut::new(),
            identities,
            batch: VecDeque::new(),
            received_ms: 0,
        }
    }

    /// The connection as the replica knows it.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// What has come from the client goes to the end of this.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Takes the ConnectRequest off the input and hands it to the core; `false` while it is not
    /// whole.
    pub fn take_connect_request(&mut self) -> Result<bool, Ending> {
        let limit = self.service.config.frame_length_max;
        let Some(frame) = take_frame(&mut self.input, limit)? else { return Ok(false) };
        let request = ConnectRequest::decode(&mut znodefs::wire::Decoder::new(&frame))?;
        let connection = Arc::clone(&self.connection);
        self.service.mailbox.push(Event::Connect { connection, request });
        Ok(true)
    }

    /// Does everything that can be done without waiting. `write` takes bytes for the client, fewer
    /// than it is given where there is no room for all, or fails with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) where there is none.
    pub fn work(
        &mut self,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<(), Ending> {
        loop {
            self.answer_deferred();
            let more_input = self.take_requests()?;
            if !self.batch.is_empty() {
                self.process_batch();
            }
            let written = self.write_output(&mut write)?;
            if !written || !(self.has_deferred() || self.can_take(more_input)) {
                return Ok(());
            }
        }
    }

    /// What it waits for when [`work`](Self::work) is done.
    pub fn waits_for(&self) -> Result<Wait, Ending> {
        let outbox = self.connection.outbox();
        if outbox.overflowed {
            return Err(Ending::DoesNotRead(OUTBOX_HARD_LIMIT));
        }
        let throttled = !outbox.pending.is_empty()
            && self.service.metrics.outstanding() > self.service.config.outstanding_max as u64;
        if outbox.phase == Phase::Closing {
            return Ok(Wait::ToFinish);
        }
        let input = outbox.takes_requests() && !throttled;
        Ok(Wait::For { input, output: !self.output.is_empty() })
    }

    /// Whether requests that are here already can be taken now.
    fn can_take(&self, more_input: bool) -> bool {
        (more_input || !self.batch.is_empty()) && self.connection.outbox().takes_requests()
    }

    /// Fills the batch from the input; `true` when there may be more.
    fn take_requests(&mut self) -> Result<bool, Ending> {
        if self.input.len() < 4 || !self.batch.is_empty() {
            return Ok(self.input.len() >= 4);
        }
        if !self.connection.outbox().takes_requests() {
            return Ok(true);
        }
        let limit = self.service.config.frame_length_max;
        self.received_ms = self.service.clock.monotonic_ms();
        while self.batch.len() < BATCH_MAX {
            let Some(mut frame) = take_frame(&mut self.input, limit)? else { break };
            let header = RequestHeader::decode(&mut znodefs::wire::Decoder::new(&frame))?;
            frame.advance(8);
            self.batch.push_back((header, frame));
        }
        if !self.batch.is_empty() {
            self.connection.last_heard.set(self.received_ms);
            self.service.metrics.add_received(self.batch.len() as u64);
        }
        if self.input.is_empty() && self.input.capacity() > IDLE_INPUT_MAX {
            self.input = BytesMut::new();
        }
        Ok(self.batch.len() == BATCH_MAX)
    }

    /// Answers the batch's requests, or queues them behind what they must wait for, for as long as there
    /// is room for that.
    fn process_batch(&mut self) {
        let service = Arc::clone(&self.service);
        let connection = Arc::clone(&self.connection);
        let mut writes = Vec::new();
        let mut answered = 0;
        {
            let tree = service.database.tree.read();
            let watches_needed =
                self.batch.iter().any(|(header, body)| may_touch_watches(header.op_code, body));
            let mut watches = watches_needed.then(|| service.database.watches.lock());
            let mut outbox = connection.outbox();
            while outbox.takes_requests() {
                let Some((header, body)) = self.batch.pop_front() else { break };
                outbox.stats.received += 1;
                let request = RawRequest {
                    xid: header.xid,
                    op_code: header.op_code,
                    body,
                    // They count from the moment they are proved.
                    identities: Arc::clone(&self.identities),
                    received_ms: self.received_ms,
                };
                if request.op_code == OpCode::Auth as i32 {
                    let config = &service.config;
                    self.identities =
                        local_request::authenticate(config, &connection, &request, &mut outbox);
                } else if let Some(op_code) = needs_core(request.op_code, outbox.read_only) {
                    outbox.push_pending(Pending::Core {
                        xid: request.xid,
                        op_code: request.op_code,
                        body_length: request.body.len(),
                    });
                    writes.push(WriteRequest { op_code, request });
                } else if outbox.pending.is_empty() || mutated(Mutation::ReadOvertakesWrite) {
                    let watches = watches.as_deref_mut();
                    local_request::answer(&tree, watches, &connection, &request, &mut outbox);
                    let (xid, op_code) = (request.xid, request.op_code);
                    outbox.note_answered(xid, op_code, tree.last_applied(), 0, request.received_ms);
                    answered += 1;
                } else {
                    let reply_length = local_request::reply_length(&tree, &request);
                    outbox.push_pending(Pending::Local { request, reply_length });
                }
            }
            self.take_output(&mut outbox);
        }
        service.metrics.add_latency(0, answered);
        if !writes.is_empty() {
            service.metrics.add_outstanding(writes.len() as i64);
            service.mailbox.push(Event::Requests { connection, writes });
        }
    }

    fn has_deferred(&self) -> bool {
        let outbox = self.connection.outbox();
        outbox.front_is_local() && outbox.has_room()
    }

    /// Answers requests that had to wait for room in the outbox.
    fn answer_deferred(&mut self) {
        if !self.has_deferred() {
            return;
        }
        let service = Arc::clone(&self.service);
        let tree = service.database.tree.read();
        let mut watches = service.database.watches.lock();
        let connection = Arc::clone(&self.connection);
        let mut outbox = connection.outbox();
        let now_ms = service.clock.monotonic_ms();
        let pace = local_request::Pace::WhileThereIsRoom;
        local_request::answer_queued(&tree, &mut watches, &connection, &mut outbox, pace, now_ms);
        self.take_output(&mut outbox);
    }

    fn take_output(&mut self, outbox: &mut Outbox) {
        if self.output.is_empty() {
            outbox.take_output(&mut self.output);
        }
    }

    /// Writes until there is nothing left or `write` takes no more; `true` for the former.
    pub fn write_output(
        &mut self,
        write: &mut impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> Result<bool, Ending> {
        loop {
            if self.output.is_empty() {
                self.refill_output()?;
                if self.output.is_empty() {
                    return Ok(true);
                }
            }
            match write(&self.output) {
                Ok(count) => self.output.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn refill_output(&mut self) -> Result<(), Ending> {
        self.output.clear();
        if self.output.capacity() > IDLE_OUTPUT_MAX {
            self.output = BytesMut::new();
        }
        let connection = Arc::clone(&self.connection);
        let mut outbox = connection.outbox();
        match outbox.phase {
            Phase::Closed => Err(Ending::ByReplica),
            Phase::Closing if outbox.buffer.is_empty() => Err(Ending::ByReplica),
            _ => {
                self.take_output(&mut outbox);
                Ok(())
            }
        }
    }
}

/// Nothing is left of a connection whose client is gone.
pub fn forget(service: &Service, connection: &Arc<Connection>) {
    {
        let mut watches = service.database.watches.lock();
        let mut outbox = connection.outbox();
        outbox.close();
        outbox.phase = Phase::Closed;
        outbox.buffer = BytesMut::new();
        if !mutated(Mutation::WatchesOutliveConnection) {
            watches.remove_watcher(local_request::watcher(connection));
        }
    }
    service.connections.remove(connection);
    let connection = Arc::clone(connection);
    service.mailbox.push(Event::Disconnected { connection });
}
