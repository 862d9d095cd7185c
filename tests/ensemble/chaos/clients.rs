//! Clients at work during chaos: each does a little of everything and records what it saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use znodefs::acl::Acl;
use znodefs::client::{Client, ClientOptions, Delivery, Error, Reply, SessionState};
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{Request, Response};
use znodefs::{CreateMode, ErrorCode};
use znodefs_tests::Random;
use znodefs_tests::history::{ClientId, History, OperationId};

/// Everything is done below it.
pub const ROOT: &str = "/chaos";

/// Directories below the root.
const DIRECTORIES: u64 = 4;

/// Names in each.
const NAMES: u64 = 5;

/// The longest pause between two requests of one client.
const PAUSE_MS_MAX: u64 = 30;

/// The history that all clients write.
#[derive(Clone)]
pub struct Record {
    history: Arc<Mutex<History>>,
    start: Instant,
}

impl Record {
    #[allow(clippy::disallowed_methods, reason = "records in real time")]
    pub fn new() -> Record {
        Record { history: Arc::default(), start: Instant::now() }
    }

    /// What happened so far.
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// How many requests there were.
    pub fn len(&self) -> usize {
        self.history.lock().len()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The session of a client that has not been used for so long must be over.
    pub fn must_be_over(&self, client: ClientId) {
        self.history.lock().must_be_over(client, self.now());
    }
}

/// One session that records what it does and sees.
pub struct Recorder {
    pub id: ClientId,
    client: Client,
    record: Record,
    /// Requests without a reply, by the client library's number.
    waiting: Arc<Mutex<HashMap<u64, OperationId>>>,
}

impl Recorder {
    /// Opens a session; an error if nobody gives it one.
    pub async fn open(record: &Record, servers: &str, timeout: Duration) -> Result<Self, Error> {
        let servers = servers.parse()?;
        let options = ClientOptions { session_timeout: timeout, ..Default::default() };
        let id = record.history.lock().client();
        let waiting: Arc<Mutex<HashMap<u64, OperationId>>> = Arc::default();
        let (told, open) = (record.clone(), Arc::clone(&waiting));
        let mut is_first = true;
        let sink = move |delivery: Delivery<'_>| {
            let mut history = told.history.lock();
            let now = told.now();
            match delivery {
                Delivery::Reply { request_id, zxid, result, .. } => {
                    if let Some(operation) = open.lock().remove(&request_id) {
                        history.complete(operation, now, zxid, result);
                    }
                }
                Delivery::Event(event) => history.event(id, now, event),
                Delivery::State(SessionState::Suspended) => history.disconnected(id, now),
                Delivery::State(SessionState::Connected) if std::mem::take(&mut is_first) => {}
                Delivery::State(SessionState::Connected) => history.reconnected(id, now, true),
                Delivery::State(SessionState::Expired) => history.expired(id, now),
                _ => {}
            }
        };
        let client = Client::connect_with_sink(&servers, options, sink).await?;
        let now = record.now();
        record.history.lock().opened(id, now, client.session_id());
        Ok(Recorder { id, client, record: record.clone(), waiting })
    }

    /// Asks for something and waits for the reply.
    pub async fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        self.submit(request).await
    }

    /// Sends a request; it is in the history before it is on its way.
    fn submit(&self, request: &Request<'_>) -> impl Future<Output = Result<Reply, Error>> + use<> {
        let (pending, operation) = {
            let mut history = self.record.history.lock();
            let operation = history.invoke(self.id, self.record.now(), request);
            let pending = self.client.submit(request);
            self.waiting.lock().insert(pending.request_id(), operation);
            (pending, operation)
        };
        let (record, waiting) = (self.record.clone(), Arc::clone(&self.waiting));
        let request_id = pending.request_id();
        async move {
            let result = pending.await;
            // Whatever was answered is there already.
            if waiting.lock().remove(&request_id).is_some() {
                let (mut history, now) = (record.history.lock(), record.now());
                match &result {
                    Err(error) if !error.is_outcome_unknown() => history.not_sent(operation, now),
                    _ => history.lose(operation, now),
                }
            }
            result
        }
    }
}

/// One client: sessions, one after the other, until it is told to stop. Gives the sessions that it
/// lost without a goodbye.
pub async fn work(
    record: Record,
    servers: String,
    mut random: Random,
    number: u64,
    stops: Arc<AtomicBool>,
) -> Vec<ClientId> {
    let mut lost = Vec::new();
    let mut values = 0;
    // Some give up their session soon, others hardly ever.
    let timeout = Duration::from_millis(if number.is_multiple_of(2) { 3000 } else { 8000 });
    while !stops.load(Ordering::Relaxed) {
        let Ok(session) = Recorder::open(&record, &servers, timeout).await else { continue };
        loop {
            if stops.load(Ordering::Relaxed) || random.between(0, 400) == 0 {
                let _ = session.ask(&Request::CloseSession).await;
                break;
            }
            values += 1;
            let value = format!("{number}-{values}");
            if let Err(error) = step(&session, &mut random, &value).await
                && matches!(error, Error::SessionExpired | Error::Closed)
            {
                lost.push(session.id);
                break;
            }
            let pause = Duration::from_millis(random.between(0, PAUSE_MS_MAX));
            tokio::time::sleep(pause).await;
        }
    }
    lost
}

fn path(random: &mut Random) -> String {
    let directory = random.between(0, DIRECTORIES);
    format!("{ROOT}/{directory}/{}", random.between(0, NAMES))
}

fn create<'a>(path: &'a str, value: &str, mode: CreateMode) -> Request<'a> {
    let data = Some(Bytes::copy_from_slice(value.as_bytes()));
    Request::Create(CreateRequest::new(path, data, Acl::open(), mode, 0))
}

/// One of the things that clients do.
async fn step(session: &Recorder, random: &mut Random, value: &str) -> Result<(), Error> {
    let path = path(random);
    let data = Some(Bytes::copy_from_slice(value.as_bytes()));
    let watch = random.between(0, 2) == 0;
    match random.between(0, 20) {
        0..3 => drop(session.ask(&create(&path, value, CreateMode::Persistent)).await?),
        3..5 => drop(session.ask(&create(&path, value, CreateMode::Ephemeral)).await?),
        5 => {
            let mode = CreateMode::EphemeralSequential;
            drop(session.ask(&create(&format!("{path}-"), value, mode)).await?);
        }
        6..9 => drop(session.ask(&Request::SetData { path: &path, data, version: -1 }).await?),
        9..11 => compare_and_set(session, &path, data).await?,
        11..13 => drop(session.ask(&Request::Delete { path: &path, version: -1 }).await?),
        13 => {
            let other = self::path(random);
            let multi = Request::Multi(vec![
                Request::SetData { path: &path, data, version: -1 },
                create(&other, value, CreateMode::Persistent),
            ]);
            drop(session.ask(&multi).await?);
        }
        14 => pipeline(session, &path, value).await?,
        15 => {
            session.ask(&Request::Sync { path: &path }).await?;
            drop(session.ask(&Request::GetData { path: &path, watch: false }).await?);
        }
        16 => drop(session.ask(&Request::GetData { path: &path, watch }).await?),
        17 => drop(session.ask(&Request::Exists { path: &path, watch }).await?),
        _ => {
            let parent = znodefs::path::parent(&path).unwrap_or(ROOT);
            drop(session.ask(&Request::GetChildren2 { path: parent, watch }).await?);
        }
    }
    Ok(())
}

/// Sets what it has read, if nobody else did meanwhile.
async fn compare_and_set(session: &Recorder, path: &str, data: Option<Bytes>) -> Result<(), Error> {
    let read = session.ask(&Request::GetData { path, watch: false }).await?;
    if let Response::Data { stat, .. } = read.response {
        session.ask(&Request::SetData { path, data, version: stat.version }).await?;
    }
    Ok(())
}

/// Several requests on their way at once.
async fn pipeline(session: &Recorder, path: &str, value: &str) -> Result<(), Error> {
    let set = |more: &str| {
        let data = Some(Bytes::from(format!("{value}{more}")));
        session.submit(&Request::SetData { path, data, version: -1 })
    };
    let get = || session.submit(&Request::GetData { path, watch: false });
    let (first, second, third, fourth) = (set("a"), get(), set("b"), get());
    for pending in [first.await, second.await, third.await, fourth.await] {
        match pending {
            Err(error) if error.code().is_none() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the directories.
pub async fn prepare(record: &Record, servers: &str) {
    let session = Recorder::open(record, servers, Duration::from_secs(20)).await;
    let session = session.expect("a session before the chaos");
    let directories = (0..DIRECTORIES).map(|directory| format!("{ROOT}/{directory}"));
    for path in [ROOT.to_string()].into_iter().chain(directories) {
        session.ask(&create(&path, "", CreateMode::Persistent)).await.expect("a create");
    }
    session.ask(&Request::CloseSession).await.expect("a close");
}

/// Everything that a member shows, after a sync: each znode's data and stat. It is recorded too.
pub async fn look_at_everything(record: &Record, server: &str) -> Vec<(String, String)> {
    let session = Recorder::open(record, server, Duration::from_secs(20)).await;
    let session = session.expect("a session behind the chaos");
    session.ask(&Request::Sync { path: ROOT }).await.expect("a sync");
    let mut shown = Vec::new();
    let mut open = vec![ROOT.to_string()];
    // What somebody may have made and nobody sees counts too.
    for directory in 0..DIRECTORIES {
        for name in 0..NAMES {
            open.push(format!("{ROOT}/{directory}/{name}"));
        }
    }
    while let Some(path) = open.pop() {
        let data = session.ask(&Request::GetData { path: &path, watch: false }).await;
        match data {
            Ok(reply) => shown.push((path.clone(), format!("{:?}", reply.response))),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => continue,
            Err(error) => panic!("{path}: {error}"),
        }
        let children = session.ask(&Request::GetChildren2 { path: &path, watch: false }).await;
        if let Response::Children { names, .. } = children.expect("the children").response {
            open.extend(names.iter().map(|name| znodefs::path::join(&path, name)));
        }
    }
    session.ask(&Request::CloseSession).await.expect("a close");
    shown.sort();
    shown.dedup();
    shown
}
