//! The task that owns a client's connection: it finds servers, reads and writes the socket, and
//! keeps the time for the session core. It decides nothing about requests, replies and watches.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::connect_string::format_address;
use super::delivery::{Delivery, SessionState, Sink};
use super::error::Error;
use super::host_list::HostList;
use super::outbox::{Completion, Reply};
use super::quorum_search;
use super::session::{Config, Outlet, Session};
use super::{ClientOptions, ConnectString, Shared};
use crate::zxid::SessionId;

/// Space that a read finds at least.
const READ_LENGTH: usize = 64 * 1024;
/// The shortest time a server is given to take a connection and answer its first frame.
const ATTEMPT_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// A connection that lasts this long proves its server good.
const PROVEN_AFTER: Duration = Duration::from_secs(1);
/// Stands in for "no deadline".
const FAR_FUTURE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Stands for the reason while the first attempt at an address goes on.
const NO_ANSWER: &str = "no answer yet";

/// Every address tried, with the reason why it failed last.
type Attempts = Arc<Mutex<Vec<(String, String)>>>;

/// Starts the task; returns once the first session is established, or cannot be.
pub(super) async fn start(
    servers: &ConnectString,
    options: ClientOptions,
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
) -> Result<(), Error> {
    if servers.servers.is_empty() {
        let (text, reason) = (servers.to_string(), "it names no server".to_string());
        return Err(Error::InvalidConnectString { text, reason });
    }
    let seed = options.random_seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    // The protocol counts it in 31 bits.
    let session_timeout = options.session_timeout.min(Duration::from_millis(i32::MAX as u64));
    let server_count = u32::try_from(servers.servers.len()).unwrap_or(u32::MAX);
    let attempt_timeout = (session_timeout / server_count).max(ATTEMPT_TIMEOUT_MIN);
    let config = Config {
        session_timeout,
        handshake_timeout: attempt_timeout,
        read_only: options.read_only,
        retry_reads: options.retry_reads,
        renew_session: options.renew_session,
        reply_length_max: options.reply_length_max,
        chroot: servers.chroot.clone().unwrap_or_default(),
    };
    let attempts = Attempts::default();
    let (established, establishment) = oneshot::channel();
    let driver = Driver {
        session: Session::new(config, options.auth),
        hosts: HostList::new(servers.servers.clone(), seed),
        name: String::new(),
        attempt_timeout,
        attempts: attempts.clone(),
        established: Some(established),
        receiver: Receiver { shared: shared.clone(), sink, server: None },
        shared,
        start: Instant::now(),
    };
    tokio::spawn(driver.run());
    let wait = options.connect_timeout.unwrap_or(FAR_FUTURE);
    match tokio::time::timeout(wait, establishment).await {
        Ok(result) => result.unwrap_or(Err(Error::Closed)),
        Err(_) => {
            let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Err(Error::NoServer { waited: wait, attempts })
        }
    }
}

struct Driver {
    session: Session<Completion>,
    hosts: HostList,
    /// The server in use, as the connect string names it.
    name: String,
    /// How long a server may take to accept, and again to answer the first frame.
    attempt_timeout: Duration,
    attempts: Attempts,
    /// Whom to tell of the first session.
    established: Option<oneshot::Sender<Result<(), Error>>>,
    receiver: Receiver,
    shared: Arc<Shared>,
    start: Instant,
}

/// Where the session core's deliveries go.
struct Receiver {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
    /// The connection's other end.
    server: Option<SocketAddr>,
}

impl Outlet<Completion> for Receiver {
    fn attached(&mut self, session_id: SessionId, timeout: Duration) {
        let status = &self.shared.status;
        status.session_id.store(session_id.0, Ordering::Relaxed);
        status.timeout_ms.store(timeout.as_millis() as u64, Ordering::Relaxed);
    }

    fn deliver(&mut self, delivery: Delivery<'_>) {
        let status = &self.shared.status;
        match delivery {
            Delivery::Reply { zxid, .. } => {
                status.last_zxid.fetch_max(zxid.0, Ordering::Relaxed);
            }
            Delivery::State(state) => {
                let server = self.server.filter(|_| state == SessionState::Connected);
                *status.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
                status.state.send_replace(state);
            }
            Delivery::Event(_) | Delivery::OutsideEvent(_) => {}
        }
        self.sink.deliver(delivery);
    }

    fn complete(&mut self, completion: Completion, result: Result<Reply, Error>) {
        // The caller may not care any more.
        let _ = completion.send(result);
    }
}

impl Drop for Driver {
    /// However the task ends, torn down with its runtime or by a sink's panic: nobody waits on.
    fn drop(&mut self) {
        if self.session.over().is_none() {
            self.shared.status.state.send_replace(SessionState::Closed);
        }
        self.shared.outbox.refuse(Error::Closed);
        while self.shared.outbox.take().is_some() {}
    }
}

impl Driver {
    async fn run(mut self) {
        while self.session.over().is_none() {
            if let Some(stream) = self.connect().await {
                self.receiver.server = stream.peer_addr().ok();
                let since = Instant::now();
                self.session.connection_opened(self.now());
                let reason = self.serve(stream).await;
                self.note_attempt(&reason);
                match since.elapsed() >= PROVEN_AFTER {
                    true => self.hosts.succeeded(),
                    false => self.hosts.failed(),
                }
                self.lost(&reason);
            }
        }
        let error = self.session.over().cloned().unwrap_or(Error::Closed);
        self.shared.outbox.refuse(error.clone());
        self.take_submitted();
        if let Some(established) = self.established.take() {
            let _ = established.send(Err(error));
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The connection is gone, or could not be made.
    fn lost(&mut self, reason: &str) {
        let reason = format!("{}: {reason}", self.name);
        if self.session.over().is_none() {
            tracing::debug!("no connection: {reason}");
        }
        self.session.connection_lost(&reason, self.now(), &mut self.receiver);
    }

    /// Remembers why an address failed, for the case that none can be reached.
    fn note_attempt(&self, reason: &str) {
        if self.established.is_none() {
            return;
        }
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        match attempts.iter_mut().find(|(name, _)| *name == self.name) {
            Some(_) if reason == NO_ANSWER => {}
            Some((_, known)) => *known = reason.to_string(),
            None => attempts.push((self.name.clone(), reason.to_string())),
        }
    }

    /// Hands what was submitted to the session core.
    fn take_submitted(&mut self) {
        while let Some(batch) = self.shared.outbox.take() {
            self.session.submit(batch, self.start.elapsed(), &mut self.receiver);
        }
    }

    /// Tries the next server; `None` if it cannot be connected, or the session is over meanwhile.
    async fn connect(&mut self) -> Option<TcpStream> {
        let (host, port, pause) = self.hosts.next()?;
        if !pause.is_zero() {
            self.meanwhile(tokio::time::sleep(pause)).await?;
        }
        self.receiver.server = None;
        self.name = format_address(&host, port);
        let limit = self.attempt_timeout;
        self.note_attempt(NO_ANSWER);
        let lookup = async { tokio::net::lookup_host((host.as_str(), port)).await };
        let mut addresses: Vec<SocketAddr> =
            match self.meanwhile(tokio::time::timeout(limit, lookup)).await? {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => {
                    self.failed(&format!("its address is not known: {error}"));
                    return None;
                }
                Err(_) => {
                    self.failed("its address could not be found out in time");
                    return None;
                }
            };
        self.hosts.shuffle(&mut addresses);
        let mut reason = "it has no address".to_string();
        for address in addresses {
            let attempt = tokio::time::timeout(limit, TcpStream::connect(address));
            reason = match self.meanwhile(attempt).await? {
                Ok(Ok(stream)) => {
                    // Requests are already gathered; waiting for more would only delay them.
                    let _ = stream.set_nodelay(true);
                    return Some(stream);
                }
                Ok(Err(error)) => describe(&error),
                Err(_) => format!("it did not accept within {:.1} s", limit.as_secs_f64()),
            };
        }
        self.failed(&reason);
        None
    }

    fn failed(&mut self, reason: &str) {
        self.hosts.failed();
        self.note_attempt(reason);
        self.lost(reason);
    }

    /// Waits for something that has nothing to do with the session, and serves the session's
    /// callers and deadlines meanwhile; `None` once the session is over.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Option<F::Output> {
        tokio::pin!(future);
        loop {
            self.take_submitted();
            if self.session.over().is_some() {
                return None;
            }
            let deadline = self.start + self.session.deadline().unwrap_or(FAR_FUTURE);
            tokio::select! {
                output = &mut future => return Some(output),
                () = self.shared.outbox.submitted() => {}
                () = tokio::time::sleep_until(deadline) => {
                    // Without a connection there is none to be dropped.
                    let _ = self.session.tick(self.start.elapsed(), &mut self.receiver);
                }
            }
        }
    }

    /// Serves a connection until it has to be given up; returns why.
    async fn serve(&mut self, mut stream: TcpStream) -> String {
        let (mut reader, writer) = stream.split();
        let mut input = BytesMut::with_capacity(READ_LENGTH);
        let shared = self.shared.clone();
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let quorum = quorum_search::find(self.hosts.servers().to_vec());
        tokio::pin!(quorum);
        loop {
            self.take_submitted();
            if let Err(error) = self.write(&writer) {
                return describe(&error);
            }
            if self.session.over().is_some() {
                return "the session is over".into();
            }
            self.report_established();
            self.set_timer(timer.as_mut());
            if input.capacity() - input.len() < READ_LENGTH / 4 {
                input.reserve(READ_LENGTH);
            }
            let result = tokio::select! {
                biased;
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => Err("the server closed the connection".into()),
                    Ok(_) => self.session.receive(&mut input, self.start.elapsed(), &mut self.receiver),
                    Err(error) => Err(describe(&error)),
                },
                ready = writer.writable(), if !self.session.outgoing.is_empty() => {
                    ready.map_err(|error| describe(&error))
                }
                () = shared.outbox.submitted() => Ok(()),
                place = &mut quorum, if self.session.is_read_only() => {
                    self.hosts.prefer(place);
                    return "another server has a quorum".into();
                }
                () = &mut timer => {
                    self.session.tick(self.start.elapsed(), &mut self.receiver)
                }
            };
            if let Err(reason) = result {
                return reason;
            }
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self, writer: &WriteHalf<'_>) -> std::io::Result<()> {
        while let Some(chunk) = self.session.outgoing.front_mut() {
            match writer.try_write(chunk) {
                Ok(written) => chunk.advance(written),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if chunk.is_empty() {
                self.session.outgoing.pop_front();
            }
        }
        Ok(())
    }

    fn report_established(&mut self) {
        if self.session.is_ready()
            && let Some(established) = self.established.take()
        {
            let _ = established.send(Ok(()));
        }
    }

    /// Deadlines mostly move later: an alarm that rings early is cheaper than setting it each time.
    fn set_timer(&self, timer: Pin<&mut Sleep>) {
        let deadline = self.start + self.session.deadline().unwrap_or(FAR_FUTURE);
        if timer.is_elapsed() || deadline < timer.deadline() {
            timer.reset(deadline);
        }
    }
}

/// An I/O error in the words of the protocol's users.
fn describe(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => {
            "the server closed the connection".into()
        }
        _ => error.to_string(),
    }
}
