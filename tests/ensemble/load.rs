//! Clients that write without pause to an ensemble and remember what was acknowledged, and when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use znodefs::acl::Acl;
use znodefs::client::{Client, ClientOptions, Error};
use znodefs::{CreateMode, ErrorCode};
use znodefs_tests::Ensemble;

/// The znode below which the load is written.
pub const ROOT: &str = "/load";

/// How long a writer waits that has no server.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A client of all members.
pub async fn client(ensemble: &Ensemble) -> Client {
    client_of(&ensemble.connect_string()).await
}

/// A client of the servers in a connect string.
pub async fn client_of(servers: &str) -> Client {
    let servers = servers.parse().expect("a connect string");
    let options = ClientOptions { session_timeout: Duration::from_secs(20), ..Default::default() };
    Client::connect(&servers, options).await.expect("a session")
}

/// Creates a persistent znode.
pub async fn create(client: &Client, path: &str, data: &'static [u8]) -> Result<(), Error> {
    let created =
        client.create(path, Some(Bytes::from_static(data)), Acl::open(), CreateMode::Persistent);
    created.await.map(|_| ())
}

/// What a writer saw.
#[derive(Debug, Default)]
struct Written {
    acknowledged: Vec<(Instant, String)>,
    unknown: usize,
}

/// Writers at work.
pub struct Load {
    stops: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Written>>,
}

/// What all writers saw.
pub struct LoadReport {
    /// When writes were acknowledged, ascending.
    pub times: Vec<Instant>,
    /// Names below [`ROOT`] whose creation was acknowledged.
    pub acknowledged: BTreeSet<String>,
    /// Writes with an unknown outcome.
    pub unknown: usize,
}

impl Load {
    /// Starts `writers` clients.
    pub fn start(runtime: &Runtime, ensemble: &Ensemble, writers: usize) -> Load {
        let stops = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        runtime.block_on(async {
            let first = client(ensemble).await;
            match create(&first, ROOT, b"").await {
                Err(error) if error.code() != Some(ErrorCode::NodeExists) => panic!("{error}"),
                _ => {}
            }
        });
        let start = |number: usize| {
            let servers = ensemble.connect_string();
            let (stops, count) = (Arc::clone(&stops), Arc::clone(&count));
            runtime.spawn(async move { write(number, &servers, &stops, &count).await })
        };
        let writers = (0..writers).map(start).collect();
        Load { stops, count, writers }
    }

    /// How many writes were acknowledged so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Lets the writers end and returns what they saw.
    pub fn stop(self, runtime: &Runtime) -> LoadReport {
        self.stops.store(true, Ordering::Relaxed);
        let mut report =
            LoadReport { times: Vec::new(), acknowledged: BTreeSet::new(), unknown: 0 };
        for writer in self.writers {
            let written = runtime.block_on(writer).expect("a writer that does not panic");
            for (time, name) in written.acknowledged {
                report.times.push(time);
                report.acknowledged.insert(name);
            }
            report.unknown += written.unknown;
        }
        report.times.sort();
        report
    }
}

impl LoadReport {
    /// The longest time without an acknowledgement that began at most a moment after `event`.
    pub fn gap_at(&self, event: Instant) -> Duration {
        let began =
            |pair: &&[Instant]| pair[1] > event && pair[0] < event + Duration::from_millis(100);
        let gaps = self.times.windows(2).filter(began).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }
}

#[allow(clippy::disallowed_methods, reason = "measures the service in real time")]
async fn write(number: usize, servers: &str, stops: &AtomicBool, count: &AtomicUsize) -> Written {
    let client = client_of(servers).await;
    let mut written = Written::default();
    let mut round = 0;
    while !stops.load(Ordering::Relaxed) {
        round += 1;
        let name = format!("{number}-{round}");
        match create(&client, &format!("{ROOT}/{name}"), b"value").await {
            Ok(()) => {
                written.acknowledged.push((Instant::now(), name));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::SessionExpired) => panic!("writer {number}: its session expired"),
            Err(Error::Service { code, .. }) => panic!("writer {number}: {name}: {code}"),
            // Never sent: there was no server for as long as a session lasts.
            Err(Error::TimedOut { .. }) => tokio::time::sleep(RETRY_PAUSE).await,
            Err(_) => written.unknown += 1,
        }
    }
    written
}

/// The names that a member shows below [`ROOT`], after a `sync`.
pub async fn names_at(address: &str) -> BTreeSet<String> {
    let client = client_of(address).await;
    client.sync(ROOT).await.expect("a sync");
    let (names, _) = client.get_children(ROOT, false).await.expect("the children");
    names.into_iter().collect()
}

/// Every acknowledged write is at every member, and every member shows the same.
pub fn assert_nothing_is_lost(runtime: &Runtime, ensemble: &Ensemble, report: &LoadReport) {
    let mut shown = None;
    for id in ensemble.ids() {
        ensemble.wait_until_serving(id);
        let names = runtime.block_on(names_at(&ensemble.address(id)));
        let lost: Vec<_> = report.acknowledged.difference(&names).collect();
        assert!(lost.is_empty(), "member {id} lost {lost:?}");
        let more = names.len() - report.acknowledged.len();
        assert!(more <= report.unknown, "{more} more than asked for at member {id}");
        assert_eq!(shown.get_or_insert_with(|| names.clone()), &names, "member {id}");
    }
}
