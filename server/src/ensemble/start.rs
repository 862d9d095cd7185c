//! From configuration and disk to a running member: what was recovered, the two ports, the thread.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::info;
use znodefs::{Epoch, Zxid};

use super::MemberEvent;
use super::disk::{DiskError, MemberDisk};
use super::driver::{Driver, DriverParts};
use super::membership::{self, RecoveredMembership};
use super::message::FRAME_LENGTH_MAX;
use super::outside::{Outside, SystemOutside};
use super::read_only::ReadOnlyMode;
use crate::codec;
use crate::config::ServerConfig;
use crate::config::ensemble::Member;
use crate::link::quorum_port::QuorumPort;
use crate::link::{LinkOptions, LinkSet, Plane};
use crate::mutation::{Mutation, mutated};
use crate::persistence::{EnsembleId, Storage, StorageError};
use crate::replica::core_thread::CoreResult;
use crate::replica::{Event, Now, Replica, ReplicaParts};
use crate::server::backend::Workers;
use crate::server::{Disks, StartError, Surroundings, recovery};
use crate::service::{Database, Service};
use crate::session_id::PasswordKey;
use crate::tls::QuorumTls;
use crate::tree::DataTree;
use crate::txn::{Txn, TxnBody, TxnOrigin};
use crate::zab::{Ensemble, Identity, QuorumVerifier, Recovered, ServerId, Settings, Zab};

/// Bytes that may wait for one other member before its connection is given up.
const WAITING_BYTES_MAX: usize = 128 << 20;
const WAITING_NOTIFICATION_BYTES_MAX: usize = 1 << 20;

/// What a start found on the disk of a member.
pub struct MemberRecovered {
    /// The newest snapshot's state: what follows in the log is applied once it is known to be
    /// committed.
    pub database: Arc<Database>,
    storage: Storage,
    key: Option<PasswordKey>,
    zab: Recovered,
    membership: RecoveredMembership,
    disks: Disks,
    /// Whether the database is as of one transaction.
    tree_is_whole: bool,
}

impl MemberRecovered {
    /// The ensemble that others must be of. One that has adopted no epoch yet may still become a
    /// member of whichever ensemble forms.
    pub fn ensemble_id(&self) -> Option<EnsembleId> {
        let has_adopted = self.zab.current_epoch > Epoch(0) || self.zab.incomplete;
        let adopted = self.storage.identity().filter(|_| has_adopted);
        adopted.map(|identity| identity.ensemble_id)
    }

    /// The ensemble whose name is on its disk.
    pub fn joined(&self) -> Option<EnsembleId> {
        self.storage.identity().map(|identity| identity.ensemble_id)
    }

    /// Hands every transaction of the log behind the snapshot to `each`.
    pub fn replay(&self, mut each: impl FnMut(Zxid, &[u8])) -> Result<Zxid, StorageError> {
        self.storage.replay_after(self.zab.delivered, |zxid, payload| {
            each(zxid, payload);
            Ok(())
        })
    }

    /// What the protocol is told of it.
    pub fn history(&self) -> &Recovered {
        &self.zab
    }
}

/// Reads the newest snapshot and the epochs.
pub fn recover(
    config: &ServerConfig,
    disks: Disks,
    surroundings: &Surroundings,
) -> Result<MemberRecovered, StartError> {
    let options = recovery::member_storage_options(config);
    let mut storage = Storage::open(Arc::clone(&disks.data), Arc::clone(&disks.log), options)?;
    let incomplete = storage.distrust_if_incomplete()?;
    let hash_seed = surroundings.random_number()?;
    let (delivered, mut tree) = match recovery::restore_tree(&storage, hash_seed)? {
        Some(restored) => restored,
        None => (Zxid::ZERO, DataTree::new(hash_seed)),
    };
    let (delivered, tree_is_whole) = match config.read_only_mode {
        _ if mutated(Mutation::DeliverLogOnRestart) => {
            let last = storage.last_zxid();
            (apply_between(&storage, delivered, last, &mut tree)?, false)
        }
        true if !incomplete => apply_committed(&storage, delivered, &mut tree)?,
        _ => (delivered, false),
    };
    // What was just applied may have changed the members: it is not delivered once more.
    let membership = membership::recover(config, &disks, &storage, &tree, delivered)?;
    show_membership(&membership.committed, &mut tree);
    let (mut key, mut epochs) = (None, (Epoch(0), Epoch(0)));
    if let Some(identity) = storage.identity() {
        key = recovery::read_password_key(&disks, identity.ensemble_id)?;
    }
    if let Some((accepted, current)) = storage.epochs() {
        epochs = (accepted, current);
    }
    storage.check_epochs()?;
    let last_logged = storage.last_zxid();
    info!(
        "{} znodes and {} sessions as of {delivered}, the log ends at {last_logged}",
        tree.node_count(),
        tree.session_count()
    );
    let zab = Recovered {
        accepted_epoch: epochs.0,
        current_epoch: epochs.1,
        last_logged,
        delivered,
        incomplete,
        initialize: config.initialize,
    };
    let database = Arc::new(Database::new(tree, surroundings.random_number()?));
    Ok(MemberRecovered { database, storage, key, zab, membership, disks, tree_is_whole })
}

/// Applies what of the log was known to be committed. Returns how far the tree is then, and whether
/// it is as of one transaction: a snapshot may show some of what came after it.
fn apply_committed(
    storage: &Storage,
    restored: Zxid,
    tree: &mut DataTree,
) -> Result<(Zxid, bool), StartError> {
    let committed = storage.committed().zxid;
    let delivered = apply_between(storage, restored, committed, tree)?;
    let shown = storage.newest_shown(restored)?;
    let whole = committed >= shown || mutated(Mutation::ReadOnlyShowsFuzzySnapshot);
    Ok((delivered, committed > Zxid::ZERO && whole))
}

/// Applies what the log has behind `after` and up to `through`. Returns how far the tree is then.
fn apply_between(
    storage: &Storage,
    after: Zxid,
    through: Zxid,
    tree: &mut DataTree,
) -> Result<Zxid, StorageError> {
    storage.replay_between(after, through, |_, payload| {
        let txn: Txn = codec::decode(payload)?;
        tree.apply(&txn, &mut |_| {});
        Ok(())
    })
}

/// Shows the members of the configuration file's server lines in a new tree, as every member does.
pub fn show_server_lines(config: &ServerConfig, tree: &mut DataTree) {
    show_membership(&membership::of_server_lines(config), tree);
}

/// `/zookeeper/config` shows the configured members for as long as no reconfiguration was made.
fn show_membership(committed: &Ensemble, tree: &mut DataTree) {
    if committed.version > Zxid::ZERO {
        // The transaction that made it is in the tree, or is delivered before anybody is served.
        return;
    }
    let members = committed.description().to_string();
    let data = Bytes::from(format!("{members}version=0"));
    let shown = Txn {
        zxid: Zxid::ZERO,
        session_id: znodefs::SessionId(0),
        xid: 0,
        origin: TxnOrigin::default(),
        time_ms: 0,
        body: TxnBody::Reconfig { members, data },
    };
    tree.apply(&shown, &mut |_| {});
}

/// Opens the two ports and starts the thread.
pub(crate) async fn start(
    service: &Arc<Service>,
    recovered: MemberRecovered,
    surroundings: &Surroundings,
    tls: Option<Arc<QuorumTls>>,
    ended: impl FnOnce(CoreResult) + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let own = own_member(&service.config, &recovered.membership)?;
    let instance = surroundings.random_number()?;
    let ensemble_id = recovered.ensemble_id();
    let (links, port) = open_ports(service, &own, ensemble_id, instance, tls)?;
    let (port, runtime) = (Arc::new(port), Handle::current());
    let outside = Arc::new(SystemOutside { links, port, runtime });
    let mut driver = assemble(service, recovered, surroundings, outside)?;
    let run = move || {
        let result = driver.run();
        drop(driver);
        ended(result);
    };
    Ok(std::thread::Builder::new().name("znoded-core".into()).spawn(run)?)
}

/// A member of what was found on its disk, which reaches the others through `outside`.
pub fn assemble(
    service: &Arc<Service>,
    recovered: MemberRecovered,
    surroundings: &Surroundings,
    outside: Arc<dyn Outside>,
) -> Result<Driver, StartError> {
    let config = &service.config;
    let MemberRecovered { database, storage, key, zab, membership, disks, tree_is_whole } =
        recovered;
    let own = own_member(config, &membership)?;
    let clock = &surroundings.clock;
    let now = Now { monotonic_ms: clock.monotonic_ms(), wall_ms: clock.wall_ms() };
    let parts = ReplicaParts {
        database,
        metrics: Arc::clone(&service.metrics),
        config: config.clone(),
        epoch: zab.current_epoch,
        last_logged: zab.last_logged,
        replayed_txns: 0,
        password_key: key.clone().unwrap_or(PasswordKey([0; 32])),
        seed: surroundings.random_number()?,
        is_member: true,
    };
    let workers: Arc<dyn Workers> = outside.clone();
    let disk = MemberDisk::new(Arc::clone(service), workers, disks, storage, key);
    let identity = Identity {
        id: ServerId(u32::from(config.server_id.0)),
        ensemble: membership.committed.clone(),
        seed: surroundings.random_number()?,
    };
    let driver_parts = DriverParts {
        service: Arc::clone(service),
        surroundings: surroundings.clone(),
        replica: Replica::new(parts, now),
        configured: membership.committed.version,
        is_member: membership.committed.contains(identity.id),
        listening: listening(config, &own),
        zab: Zab::new(identity, settings(config), &zab)
            .with_configurations(membership::read_configuration, membership.proposed),
        disk: disk.map_err(start_error)?,
        outside,
        read_only: ReadOnlyMode::new(
            config.read_only_mode,
            settings(config).tick_ms,
            tree_is_whole,
        ),
    };
    Ok(Driver::new(driver_parts))
}

fn start_error(error: DiskError) -> StartError {
    match error {
        DiskError::Start(error) => error,
        other => StartError::System(io::Error::other(other.to_string())),
    }
}

fn own_member(
    config: &ServerConfig,
    membership: &RecoveredMembership,
) -> Result<Member, StartError> {
    let committed = QuorumVerifier::Majority(membership.committed.clone());
    membership::own_member(config, &committed).ok_or_else(|| {
        let reason = format!("there is no line server.{}", config.server_id);
        StartError::System(io::Error::other(reason))
    })
}

fn settings(config: &ServerConfig) -> Settings {
    Settings {
        tick_ms: config.tick.as_millis().max(1) as u64,
        init_limit: config.init_limit,
        sync_limit: config.sync_limit,
        ..Settings::default()
    }
}

/// Where a replica listens from the start.
fn listening(config: &ServerConfig, own: &Member) -> HashSet<String> {
    let client = config.client_address;
    // A member's line says 0.0.0.0 for any address; the configuration may say it in other words.
    let mut names: HashSet<String> = own
        .client_address
        .iter()
        .filter(|own| own.port == client.port())
        .map(|own| host_port(&own.host, own.port))
        .collect();
    for (host, quorum, election) in own.addresses.iter().take(1) {
        names.extend([host_port(host, *quorum), host_port(host, *election)]);
    }
    names.insert(client.to_string());
    names
}

fn open_ports(
    service: &Arc<Service>,
    own: &Member,
    ensemble_id: Option<EnsembleId>,
    instance: u64,
    tls: Option<Arc<QuorumTls>>,
) -> Result<(LinkSet, QuorumPort), StartError> {
    let options = |plane, waiting_bytes_max| LinkOptions {
        own_id: ServerId(u32::from(own.server_id.0)),
        plane,
        waiting_bytes_max,
        frame_length_max: FRAME_LENGTH_MAX,
        instance,
        takes_strangers: service.config.reconfig_enabled,
        tls: tls.clone(),
    };
    let (host, quorum, election) = own.addresses.first().cloned().unwrap_or_default();
    let server_id = own.server_id;
    let listening = |address: SocketAddr| {
        move |source: io::Error| StartError::QuorumListen { address, server_id, source }
    };
    let sink_service = Arc::clone(service);
    let sink = Arc::new(move |event| {
        sink_service.mailbox.push(Event::Member(MemberEvent::Link(event)));
    });
    let address = resolve(&host, election)?;
    let election_options = options(Plane::Election, WAITING_NOTIFICATION_BYTES_MAX);
    let links =
        LinkSet::start(address, election_options, ensemble_id, sink).map_err(listening(address))?;
    let sink_service = Arc::clone(service);
    let sink = Arc::new(move |event| {
        sink_service.mailbox.push(Event::Member(MemberEvent::Port(event)));
    });
    let address = resolve(&host, quorum)?;
    let port =
        QuorumPort::start(address, options(Plane::Quorum, WAITING_BYTES_MAX), ensemble_id, sink)
            .map_err(listening(address))?;
    Ok((links, port))
}

/// An address as it is dialled.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The address of one of this replica's own ports.
pub(super) fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let unknown = |reason: String| {
        StartError::System(io::Error::other(format!(
            "{host}:{port} of this replica's server line cannot be listened on: {reason}"
        )))
    };
    let mut addresses =
        host_port(host, port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    addresses.next().ok_or_else(|| unknown("no such host".into()))
}
