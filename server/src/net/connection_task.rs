//! The task that owns a client's socket: reads whatever is there in one go, answers what can be
//! answered at once, hands the rest to the core, and writes everything the outbox holds in one go.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tracing::{debug, info, warn};
use znodefs::OpCode;
use znodefs::wire::{RequestHeader, WireError, take_frame};

use super::handshake::{self, Handshake};
use crate::connection::{
    Connection, Identities, OUTBOX_HARD_LIMIT, Outbox, Pending, Phase, RawRequest,
};
use crate::local_request::{self, may_touch_watches};
use crate::replica::{Event, WriteRequest};
use crate::service::Service;

/// Requests taken off the input under one lock.
const BATCH_MAX: usize = 256;
/// Bytes asked of the socket at once: grows while reads come back full, shrinks when they do not.
const READ_LENGTH_MIN: usize = 2 << 10;
const READ_LENGTH_MAX: usize = 128 << 10;
/// What an idle connection may keep of its output buffer.
const IDLE_OUTPUT_MAX: usize = 16 << 10;
/// How long a closed connection waits for its last bytes to be taken.
const LINGER: Duration = Duration::from_secs(2);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ending {
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

/// One connection's side of the socket.
pub(super) struct ConnectionTask {
    pub(super) service: Arc<Service>,
    pub(super) connection: Arc<Connection>,
    pub(super) stream: TcpStream,
    pub(super) input: BytesMut,
    output: BytesMut,
    read_length: usize,
    identities: Identities,
    /// Requests taken off the input and not handled yet: header and record.
    batch: VecDeque<(RequestHeader, Bytes)>,
    /// When they came, milliseconds of the monotonic clock.
    received_ms: u64,
}

/// Serves a client until one side closes the connection.
pub(super) async fn serve(service: Arc<Service>, connection: Arc<Connection>, stream: TcpStream) {
    let identities = local_request::first_identities(&service.config, &connection);
    connection.outbox().identities = Arc::clone(&identities);
    let mut task = ConnectionTask {
        service,
        connection,
        stream,
        input: BytesMut::new(),
        output: BytesMut::new(),
        read_length: READ_LENGTH_MIN,
        identities,
        batch: VecDeque::new(),
        received_ms: 0,
    };
    let registered =
        Registered { service: task.service.clone(), connection: task.connection.clone() };
    let ending = task.run().await;
    drop(registered);
    log_ending(task.connection.peer, &ending);
    if matches!(ending, Ok(()) | Err(Ending::ByReplica)) {
        linger(task.stream).await;
    }
}

fn log_ending(peer: SocketAddr, ending: &Result<(), Ending>) {
    match ending {
        Ok(()) | Err(Ending::ByClient | Ending::ByReplica) => debug!("client {peer} is gone"),
        Err(Ending::Socket(error)) => debug!("client {peer} is gone: {error}"),
        Err(ending @ Ending::NoConnectRequest(_)) => info!("client {peer} closed: {ending}"),
        Err(ending) => warn!("client {peer} closed: {ending}"),
    }
}

/// Lets the client take the last bytes: closing a socket with unread input would reset it and throw
/// them away.
async fn linger(mut stream: TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let drain = async {
        stream.shutdown().await?;
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the client hangs up in time makes no difference: the socket is closed now.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

impl ConnectionTask {
    async fn run(&mut self) -> Result<(), Ending> {
        let limit = self.service.config.handshake_timeout;
        let handshake = tokio::time::timeout(limit, handshake::receive(self)).await;
        match handshake.map_err(|_| Ending::NoConnectRequest(limit))?? {
            Handshake::Words(answer) => {
                use tokio::io::AsyncWriteExt;
                let write = self.stream.write_all(answer.as_bytes());
                // Whoever asks and does not listen has had its time.
                return Ok(tokio::time::timeout(LINGER, write).await.unwrap_or(Ok(()))?);
            }
            Handshake::Connect(request) => {
                let connection = Arc::clone(&self.connection);
                self.service.mailbox.push(Event::Connect { connection, request });
            }
        }
        loop {
            self.work()?;
            self.wait().await?;
        }
    }

    /// Does everything that can be done without waiting.
    fn work(&mut self) -> Result<(), Ending> {
        loop {
            self.answer_deferred();
            let more_input = self.take_requests()?;
            if !self.batch.is_empty() {
                self.process_batch();
            }
            let written = self.write_output()?;
            if !written || !(self.has_deferred() || self.can_take(more_input)) {
                return Ok(());
            }
        }
    }

    /// Waits for the socket or for the core.
    async fn wait(&mut self) -> Result<(), Ending> {
        let (phase, reads) = {
            let outbox = self.connection.outbox();
            if outbox.overflowed {
                return Err(Ending::DoesNotRead(OUTBOX_HARD_LIMIT));
            }
            let throttled = !outbox.pending.is_empty()
                && self.service.metrics.outstanding() > self.service.config.outstanding_max as u64;
            (outbox.phase, outbox.takes_requests() && !throttled)
        };
        if phase == Phase::Closing {
            return self.finish_output().await;
        }
        let interest = match (reads, !self.output.is_empty()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => {
                self.connection.woken().await;
                return Ok(());
            }
        };
        tokio::select! {
            ready = self.stream.ready(interest) => {
                if ready?.is_readable() && reads {
                    self.read_input()?;
                }
            }
            () = self.connection.woken() => {}
        }
        Ok(())
    }

    fn read_input(&mut self) -> Result<(), Ending> {
        self.input.reserve(self.read_length);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(Ending::ByClient),
            Ok(count) if count >= self.read_length => {
                self.read_length = (self.read_length * 2).min(READ_LENGTH_MAX);
                Ok(())
            }
            Ok(count) => {
                if count * 4 < self.read_length {
                    self.read_length = (self.read_length / 2).max(READ_LENGTH_MIN);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
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
        if self.input.is_empty() && self.input.capacity() > READ_LENGTH_MAX {
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
                } else if let Some(op_code) = local_request::needs_core(request.op_code) {
                    outbox.push_pending(Pending::Core {
                        xid: request.xid,
                        op_code: request.op_code,
                        body_length: request.body.len(),
                    });
                    writes.push(WriteRequest { op_code, request });
                } else if outbox.pending.is_empty() {
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

    /// Writes until there is nothing left or the socket takes no more; `true` for the former.
    fn write_output(&mut self) -> Result<bool, Ending> {
        loop {
            if self.output.is_empty() {
                self.refill_output()?;
                if self.output.is_empty() {
                    return Ok(true);
                }
            }
            match self.stream.try_write(&self.output) {
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

    /// Sends the last bytes of a connection that is being closed.
    async fn finish_output(&mut self) -> Result<(), Ending> {
        let deadline = async {
            loop {
                if self.write_output()? {
                    return Err(Ending::ByReplica);
                }
                self.stream.writable().await?;
            }
        };
        match tokio::time::timeout(LINGER, deadline).await {
            Ok(ended) => ended,
            Err(_) => Err(Ending::ByReplica),
        }
    }
}

/// A connection's place in the replica; nothing is left of it when this goes, be it by a panic.
struct Registered {
    service: Arc<Service>,
    connection: Arc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        {
            let mut watches = self.service.database.watches.lock();
            let mut outbox = self.connection.outbox();
            outbox.close();
            outbox.phase = Phase::Closed;
            outbox.buffer = BytesMut::new();
            watches.remove_watcher(local_request::watcher(&self.connection));
        }
        self.service.connections.remove(&self.connection);
        let connection = Arc::clone(&self.connection);
        self.service.mailbox.push(Event::Disconnected { connection });
    }
}
