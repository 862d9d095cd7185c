//! A replica as a whole: recovers the database, starts the log, the core and the client port, and
//! stops them. For `znoded`, for the mount's embedded replica, and for tests.

pub mod backend;
pub(crate) mod recovery;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use crate::admin;
use crate::clock::{Clock, SystemClock};
use crate::config::ServerConfig;
use crate::config::ensemble::ServerId;
use crate::connection::Phase;
use crate::ensemble;
use crate::net;
use crate::persistence::file_disk::{FileDiskError, apache_directory};
use crate::persistence::{Disk, FileDisk, StorageError};
use crate::replica::{Event, Now, Replica, ReplicaParts, core_thread};
use crate::service::Service;
use crate::status::ReplicaStatus;
use crate::tls::{QuorumTls, TlsError};

use backend::{LogReporter, StorageBackend, Threads};
pub use recovery::Recovered;

/// How long a stopping replica waits for its connections to take their last bytes.
const CONNECTIONS_STOP_LIMIT: Duration = Duration::from_secs(2);

/// Why a replica cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A data directory cannot be used.
    #[error(transparent)]
    DataDirectory(FileDiskError),
    /// A data directory is closed to this user.
    #[error(
        "{0}: let the user that runs this replica read and write the directory, or choose another \
         dataDir"
    )]
    Denied(FileDiskError),
    /// What is in the data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The data is that of an ensemble with other voters.
    #[error(
        "{} holds the data of an ensemble of {voters}, and this configuration names no other replica: alone it \
         would begin a history of its own; add their server lines, or, if they are lost for good, see `znoded \
         recover`; a running ensemble shrinks by `znode reconfig --remove`",
        path.display()
    )]
    NotAlone {
        /// The directory.
        path: PathBuf,
        /// Who decided there.
        voters: String,
    },
    /// The client port cannot be opened.
    #[error(
        "{address} is in use by another process: stop it, or choose another port (clientPort in the \
         configuration, --listen on the command line)"
    )]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The client port cannot be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A port for the other replicas cannot be opened.
    #[error(
        "cannot listen on {address} of the line server.{server_id}: {source}; is that this machine, \
         is its number in myid right, and does no other replica with the same number run?"
    )]
    QuorumListen {
        /// The address.
        address: SocketAddr,
        /// This replica's number.
        server_id: ServerId,
        /// Why.
        source: io::Error,
    },
    /// The admin server's port cannot be opened.
    #[error(
        "the admin server cannot listen on {address}: {source}; choose another port \
         (admin.serverPort) or address (admin.serverAddress)"
    )]
    AdminListen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system refused a thread, or randomness.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl From<FileDiskError> for StartError {
    fn from(error: FileDiskError) -> StartError {
        match &error {
            FileDiskError::Disk(disk) if disk.source.kind() == io::ErrorKind::PermissionDenied => {
                StartError::Denied(error)
            }
            _ => StartError::DataDirectory(error),
        }
    }
}

/// The disks of a replica; both may be the same.
#[derive(Clone)]
pub struct Disks {
    /// Snapshots, epochs, identity.
    pub data: Arc<dyn Disk>,
    /// The transaction log.
    pub log: Arc<dyn Disk>,
}

/// Fills a buffer with random bytes.
pub type RandomSource = dyn Fn(&mut [u8]) -> io::Result<()> + Send + Sync;

/// What a replica gets from the world beside its disks.
#[derive(Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<RandomSource>,
}

impl Surroundings {
    /// The machine's own clock and randomness.
    pub fn system() -> Surroundings {
        let random = |buffer: &mut [u8]| {
            io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, buffer)
        };
        Surroundings { clock: Arc::new(SystemClock::new()), random: Arc::new(random) }
    }

    pub(crate) fn random_bytes<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        (self.random)(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn random_number(&self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.random_bytes()?))
    }
}

/// A running replica. Dropping it stops it without waiting.
pub struct Server {
    address: SocketAddr,
    service: Arc<Service>,
    tasks: Vec<JoinHandle<()>>,
    core: Mutex<Option<std::thread::JoinHandle<()>>>,
    runtime: tokio::runtime::Handle,
    ended: watch::Receiver<Option<core_thread::CoreResult>>,
}

impl Server {
    /// Starts a replica on the directories that its configuration names; a missing data directory is
    /// created for a replica without an ensemble. Returns once clients are served. Must be called
    /// inside a tokio runtime, whose workers then serve the clients.
    pub async fn start(config: ServerConfig) -> Result<Server, StartError> {
        let opening = config.clone();
        let disks = blocking(move || open_disks(&opening)).await??;
        Server::start_on(config, disks, Surroundings::system()).await
    }

    /// Starts a replica on given disks, with a given clock and randomness.
    pub async fn start_on(
        config: ServerConfig,
        disks: Disks,
        surroundings: Surroundings,
    ) -> Result<Server, StartError> {
        let quorum_tls = match config.quorum_tls.as_ref().filter(|_| config.is_member()) {
            Some(tls) => Some(QuorumTls::load(tls)?),
            None => None,
        };
        let wanted = config.client_address;
        let listen_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse { address: wanted },
            _ => StartError::Listen { address: wanted, source },
        };
        // Taken before the data is read, so that a port in use is told at once; opened afterwards.
        let socket = net::bind(wanted).map_err(listen_error)?;
        let admin = match config.admin_address {
            Some(address) => Some(
                admin::bind(address)
                    .await
                    .map_err(|(address, source)| StartError::AdminListen { address, source })?,
            ),
            None => None,
        };
        let recovering = (config.clone(), surroundings.clone());
        let recovered = blocking(move || {
            let (config, surroundings) = &recovering;
            if config.is_member() {
                ensemble::recover(config, disks, surroundings).map(AnyRecovered::Member)
            } else {
                recovery::recover(config, &disks, surroundings).map(AnyRecovered::Alone)
            }
        })
        .await??;
        let listener = socket.listen(config.listen_backlog).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let service = Arc::new(service(config, address, &recovered, &surroundings));
        let mut tasks = Vec::new();
        let (on_end, ended) = core_end(&service);
        let core = match recovered {
            AnyRecovered::Alone(recovered) => {
                let core = start_core(&service, recovered, &surroundings, on_end)?;
                tasks.extend(core.purge);
                core.thread
            }
            AnyRecovered::Member(recovered) => {
                ensemble::start(&service, recovered, &surroundings, quorum_tls, on_end).await?
            }
        };
        tasks.extend(admin.map(|listener| admin::start(listener, Arc::clone(&service))));
        net::take_clients(listener, &service).map_err(listen_error)?;
        let runtime = tokio::runtime::Handle::current();
        Ok(Server { address, service, tasks, core: Mutex::new(Some(core)), runtime, ended })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the parts of the replica share.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Waits until the replica cannot go on, and returns why; never, when it is stopped in order.
    pub async fn failed(&self) -> String {
        let mut ended = self.ended.clone();
        // The sender sends once, or is dropped by a panic.
        let _ = ended.changed().await;
        let result = ended.borrow().clone();
        match result {
            Some(Ok(())) => std::future::pending().await,
            Some(Err(reason)) => reason,
            None => "the core of the replica has died; its last words stand above".into(),
        }
    }

    /// Stops in order: no more clients, then the last bytes to those there are, then the log's end.
    pub async fn stop(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.service.listeners.end_all();
        for connection in self.service.connections.stop() {
            connection.close();
        }
        let drained = async {
            while !self.service.connections.is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(CONNECTIONS_STOP_LIMIT, drained).await.is_err() {
            warn!("some clients did not take their last bytes");
        }
        self.end_core().await;
    }

    /// Stops abruptly: nobody is answered anymore, nothing is flushed on purpose. For tests; what a
    /// crash of the machine leaves is the disk's affair.
    pub async fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.service.listeners.end_all();
        for connection in self.service.connections.stop() {
            connection.outbox().phase = Phase::Closed;
            connection.wake();
        }
        self.end_core().await;
    }

    /// [`stop`](Self::stop) for callers outside of the runtime.
    ///
    /// # Panics
    /// When called inside a tokio runtime.
    pub fn stop_blocking(&self) {
        self.runtime.block_on(self.stop());
    }

    async fn end_core(&self) {
        self.service.mailbox.push(Event::Stop);
        let Some(core) = self.core.lock().take() else { return };
        if !matches!(blocking(move || core.join()).await, Ok(Ok(()))) {
            warn!("the core did not end in order");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.service.listeners.end_all();
        for connection in self.service.connections.stop() {
            connection.close();
        }
        self.service.mailbox.push(Event::Stop);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StartError::System(io::Error::other(error)))
}

fn open_disks(config: &ServerConfig) -> Result<Disks, FileDiskError> {
    let alone = config.members.is_empty();
    let open = |path: &PathBuf| -> Result<Arc<dyn Disk>, FileDiskError> {
        let creates = alone && !path.exists();
        Ok(Arc::new(if creates { FileDisk::create(path)? } else { FileDisk::open(path)? }))
    };
    let data = open(&config.data_dir)?;
    if let Some(found) = apache_directory(&config.data_dir) {
        warn!(
            "{} holds data of Apache ZooKeeper: it is left alone and not used; `znode import` can \
             read it",
            found.display()
        );
    }
    let same = |other: &PathBuf| matches!((other.canonicalize(), config.data_dir.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let log = match &config.data_log_dir {
        Some(log_dir) if !same(log_dir) => open(log_dir)?,
        _ => Arc::clone(&data),
    };
    Ok(Disks { data, log })
}

fn service(
    mut config: ServerConfig,
    address: SocketAddr,
    recovered: &AnyRecovered,
    surroundings: &Surroundings,
) -> Service {
    config.client_address = address;
    let (database, status) = match recovered {
        AnyRecovered::Alone(recovered) => (&recovered.database, ReplicaStatus::standalone()),
        AnyRecovered::Member(recovered) => (&recovered.database, ReplicaStatus::default()),
    };
    Service::new(config, Arc::clone(database), status, Arc::clone(&surroundings.clock))
}

/// Closes every connection when the core ends, also by a panic: without it nobody can be served, and
/// clients are to try elsewhere.
struct CloseConnections(Arc<Service>);

impl Drop for CloseConnections {
    fn drop(&mut self) {
        for connection in self.0.connections.stop() {
            connection.close();
        }
    }
}

/// What a start found, of a replica alone or of a member of an ensemble.
#[allow(clippy::large_enum_variant, reason = "there is one, for a moment")]
enum AnyRecovered {
    Alone(Recovered),
    Member(ensemble::MemberRecovered),
}

/// What is to be done when the core's thread ends, and where its end can be seen.
fn core_end(
    service: &Arc<Service>,
) -> (
    impl FnOnce(core_thread::CoreResult) + Send + use<>,
    watch::Receiver<Option<core_thread::CoreResult>>,
) {
    let (sender, ended) = watch::channel(None);
    let closing = CloseConnections(Arc::clone(service));
    let on_end = move |result: core_thread::CoreResult| {
        drop(closing);
        debug!("the core has ended");
        sender.send_replace(Some(result));
    };
    (on_end, ended)
}

struct Core {
    thread: std::thread::JoinHandle<()>,
    purge: Option<JoinHandle<()>>,
}

fn start_core(
    service: &Arc<Service>,
    recovered: Recovered,
    surroundings: &Surroundings,
    on_end: impl FnOnce(core_thread::CoreResult) + Send + 'static,
) -> Result<Core, StartError> {
    let clock = &surroundings.clock;
    let now = Now { monotonic_ms: clock.monotonic_ms(), wall_ms: clock.wall_ms() };
    let parts = ReplicaParts {
        is_member: false,
        database: recovered.database,
        metrics: Arc::clone(&service.metrics),
        config: service.config.clone(),
        epoch: recovered.storage.epochs.accepted(),
        last_logged: recovered.storage.log.last_zxid(),
        replayed_txns: recovered.replayed_txns,
        password_key: recovered.password_key,
        seed: surroundings.random_number()?,
    };
    let replica = Replica::new(parts, now);
    let storage = recovered.storage;
    let runtime = tokio::runtime::Handle::current();
    let purge = backend::purge_periodically(&runtime, service, &storage.snapshots, &storage.reader);
    let reporter = LogReporter::new(Arc::clone(service));
    let backend = StorageBackend::start(Arc::clone(service), Arc::new(Threads), reporter, storage)?;
    let thread = core_thread::spawn(Arc::clone(service), replica, backend, on_end)?;
    Ok(Core { thread, purge })
}

#[cfg(test)]
mod tests;
