//! What everything in a running replica shares: the database in memory, the configuration, the
//! counters, and the core's mailbox.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::config::ServerConfig;
use crate::mailbox::Mailbox;
use crate::metrics::Metrics;
use crate::net::Listeners;
use crate::net::registry::ConnectionRegistry;
use crate::replica::Event;
use crate::status::ReplicaStatus;
use crate::tree::{DataTree, WatchManager};

/// The replicated state in memory and who watches it. Lock order: tree, watches, then one outbox.
#[derive(Debug)]
pub struct Database {
    /// The znodes. Written by the core thread alone; read by every connection's task.
    pub tree: RwLock<DataTree>,
    /// The watches of this replica's connections. Whoever sets one holds the tree as well, so that no
    /// change comes in between.
    pub watches: Mutex<WatchManager>,
    /// How often the whole tree was replaced by another: whoever reads it in parts looks here under
    /// the tree's lock.
    pub replacements: AtomicU64,
}

impl Database {
    /// A database of a tree that nobody watches yet. `hash_seed` is random, so that clients cannot
    /// choose paths that collide.
    pub fn new(tree: DataTree, hash_seed: u64) -> Database {
        Database {
            tree: RwLock::new(tree),
            watches: Mutex::new(WatchManager::new(hash_seed)),
            replacements: AtomicU64::new(0),
        }
    }
}

/// What the parts of a running replica share.
pub struct Service {
    /// What the replica was told.
    pub config: ServerConfig,
    /// The replicated state.
    pub database: Arc<Database>,
    /// The connections there are.
    pub connections: ConnectionRegistry,
    /// Where they are taken.
    pub listeners: Listeners,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The way to the core thread.
    pub mailbox: Mailbox<Event>,
    /// What the replica does at the moment.
    pub status: Mutex<ReplicaStatus>,
    /// When the replica started, milliseconds of the monotonic clock.
    pub started_ms: u64,
}

impl Service {
    /// What the parts of a replica share that starts now.
    pub fn new(
        config: ServerConfig,
        database: Arc<Database>,
        status: ReplicaStatus,
        clock: Arc<dyn Clock>,
    ) -> Service {
        let (per_address_max, total_max) =
            (config.connections_per_address_max, config.connections_max);
        Service {
            connections: ConnectionRegistry::new(per_address_max, total_max),
            listeners: Listeners::default(),
            database,
            status: Mutex::new(status),
            metrics: Arc::new(Metrics::default()),
            mailbox: Mailbox::default(),
            started_ms: clock.monotonic_ms(),
            clock,
            config,
        }
    }
}
