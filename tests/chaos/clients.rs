//! Clients of the project's library at work: each does a little of everything and records what it saw.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use znodefs::client::{Client, ClientOptions, Delivery, Error, Reply, SessionState};
use znodefs::wire::{Request, Response};
use znodefs::{CreateMode, ErrorCode};
use znodefs_tests::Random;
use znodefs_tests::history::{ClientId, OperationId};

use crate::record::{DIRECTORIES, NAMES, Record};
use crate::requests::{Step, choose, create, data, path};

/// The longest pause between two requests of one client.
const PAUSE_MS_MAX: u64 = 30;

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
        let id = record.lock().client();
        let waiting: Arc<Mutex<HashMap<u64, OperationId>>> = Arc::default();
        let (told, open) = (record.clone(), Arc::clone(&waiting));
        let mut is_first = true;
        let sink = move |delivery: Delivery<'_>| {
            let mut history = told.lock();
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
        record.lock().opened(id, now, client.session_id());
        Ok(Recorder { id, client, record: record.clone(), waiting })
    }

    /// Asks for something and waits for the reply.
    pub async fn ask(&self, request: &Request<'_>) -> Result<Reply, Error> {
        self.submit(request).await
    }

    /// Sends a request; it is in the history before it is on its way.
    fn submit(&self, request: &Request<'_>) -> impl Future<Output = Result<Reply, Error>> + use<> {
        let (pending, operation) = {
            let mut history = self.record.lock();
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
                let (mut history, now) = (record.lock(), record.now());
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
    let timeout = Duration::from_millis(if number.is_multiple_of(2) { 2000 } else { 5000 });
    while !stops.load(Ordering::Relaxed) {
        let Ok(session) = Recorder::open(&record, &servers, timeout).await else { continue };
        loop {
            if stops.load(Ordering::Relaxed) || random.between(0, 400) == 0 {
                if session.ask(&Request::CloseSession).await.is_err() {
                    lost.push(session.id);
                }
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

/// One of the things that clients do.
async fn step(session: &Recorder, random: &mut Random, value: &str) -> Result<(), Error> {
    let (path, other) = (path(&session.record, random), path(&session.record, random));
    let prefix = format!("{path}-");
    match choose(random, (&path, &other, &prefix), value) {
        Step::One(request) => drop(session.ask(&request).await?),
        Step::Behind(first, second) => {
            session.ask(&first).await?;
            session.ask(&second).await?;
        }
        Step::CompareAndSet(path) => {
            let read = session.ask(&Request::GetData { path, watch: false }).await?;
            if let Response::Data { stat, .. } = read.response {
                let (data, version) = (data(value), stat.version);
                session.ask(&Request::SetData { path, data, version }).await?;
            }
        }
        Step::Pipelined(requests) => {
            let pending: Vec<_> = requests.iter().map(|request| session.submit(request)).collect();
            for one in pending {
                match one.await {
                    Err(error) if error.code().is_none() => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Makes the directories.
pub async fn prepare(record: &Record, servers: &str) -> Result<(), Error> {
    let session = Recorder::open(record, servers, Duration::from_secs(20)).await?;
    let directories = (0..DIRECTORIES).map(|directory| record.directory(directory));
    for path in [record.root().to_string()].into_iter().chain(directories) {
        session.ask(&create(&path, "", CreateMode::Persistent)).await?;
    }
    session.ask(&Request::CloseSession).await.map(drop)
}

/// Everything that a member shows, after a sync: each znode's data and stat. It is recorded too.
pub async fn look_at_everything(
    record: &Record,
    server: &str,
) -> Result<Vec<(String, String)>, Error> {
    let session = Recorder::open(record, server, Duration::from_secs(20)).await?;
    session.ask(&Request::Sync { path: record.root() }).await?;
    let mut shown = Vec::new();
    let mut open = vec![record.root().to_string()];
    // What somebody may have made and nobody sees counts too.
    for directory in 0..DIRECTORIES {
        for name in 0..NAMES {
            open.push(format!("{}/{name}", record.directory(directory)));
        }
    }
    while let Some(path) = open.pop() {
        match session.ask(&Request::GetData { path: &path, watch: false }).await {
            Ok(reply) => shown.push((path.clone(), format!("{:?}", reply.response))),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => continue,
            Err(error) => return Err(error),
        }
        let children = session.ask(&Request::GetChildren2 { path: &path, watch: false }).await?;
        if let Response::Children { names, .. } = children.response {
            open.extend(names.iter().map(|name| znodefs::path::join(&path, name)));
        }
    }
    session.ask(&Request::CloseSession).await?;
    shown.sort();
    shown.dedup();
    Ok(shown)
}
