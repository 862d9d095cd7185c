//! One simulated node: its disks and clocks, which stay, and the process on it, which comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use znodefs::{Epoch, Zxid};
use znodefs_server::clock::Clock;
use znodefs_server::config::ensemble::Member;
use znodefs_server::ensemble::snapshot_transfer::SnapshotTransfer;
use znodefs_server::ensemble::{self, Driver};
use znodefs_server::net::client_connection::ClientConnection;
use znodefs_server::persistence::log_thread::LogWorker;
use znodefs_server::persistence::{Disk, MemoryDisk};
use znodefs_server::replica::snapshot_task::SnapshotTask;
use znodefs_server::server::{Disks, Surroundings};
use znodefs_server::service::Service;
use znodefs_server::status::ReplicaStatus;

use super::clock::NodeClock;
use super::invariants::recovered::{Found, look_at};
use super::outside::SimulatedOutside;
use super::plan::{Mistake, Plan};
use crate::crash_point::CrashPoint;
use crate::random::Random;

/// A client's connection on the replica's side.
pub struct Served {
    pub client: ClientConnection,
    /// Whether its ConnectRequest is still awaited.
    pub is_new: bool,
    /// Whether a look at it is planned.
    pub planned: bool,
}

/// A snapshot on its way to a learner, and what was sent behind it.
pub struct Stream {
    pub transfer: SnapshotTransfer,
    pub behind: Vec<Vec<u8>>,
}

/// A running member.
pub struct Process {
    pub service: Arc<Service>,
    pub driver: Driver,
    pub outside: Arc<SimulatedOutside>,
    pub log: Option<LogWorker>,
    /// Whether work of the log is planned.
    pub log_planned: bool,
    pub snapshot: Option<SnapshotTask>,
    pub streams: BTreeMap<u64, Stream>,
    pub clients: BTreeMap<usize, Served>,
    /// When the next turn of the driver is planned.
    pub turn_at: u64,
    pub serving: bool,
    pub leads: bool,
    /// The state that it shows while it serves reads without a quorum.
    pub shows_alone: Option<Zxid>,
    /// From here on equal zxid means equal state: before, a fuzzy snapshot may show through.
    pub exact_from: Zxid,
    /// What was compared last.
    pub compared: Zxid,
    /// How often its tree was replaced, as last seen.
    pub replacements: u64,
    pub links: Vec<bool>,
    /// The nodes whose addresses it knows.
    pub peers: BTreeSet<usize>,
}

/// What a node has told others, and its disk must know after any crash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub acknowledged: Zxid,
    pub promised: Epoch,
    pub adopted: Epoch,
}

impl Told {
    /// Nobody may count on its history any more, only on its promises.
    pub fn forget_history(&mut self) {
        *self = Told { promised: self.promised, ..Told::default() };
    }

    /// Its log is cut behind this transaction, or begins anew there.
    pub fn cut(&mut self, zxid: Zxid) {
        self.acknowledged = self.acknowledged.min(zxid);
    }

    /// It acknowledges a transaction, or, by its number 0, an epoch.
    pub fn acknowledge(&mut self, zxid: Zxid) {
        match zxid.counter() {
            0 => self.adopted = self.adopted.max(zxid.epoch()),
            _ => self.acknowledged = self.acknowledged.max(zxid),
        }
    }
}

/// A node.
pub struct Node {
    pub data: MemoryDisk,
    /// The log's disk, where it has one of its own.
    pub log_disk: MemoryDisk,
    pub clock: Arc<NodeClock>,
    pub process: Option<Process>,
    /// The members that its configuration file names.
    pub lines: Vec<Member>,
    /// Which life of the process this is.
    pub incarnation: u32,
    pub told: Told,
    /// The newest transaction durable here, now or before a disk was taken away.
    pub durable: Zxid,
    /// The newest configuration that it knows to be committed, and keeps.
    pub configured: Zxid,
    /// currentEpoch as last seen; 0 for a node without data.
    pub adopted: Epoch,
    pub paused_until: u64,
    /// A crash in the middle of something.
    pub crash_point: CrashPoint,
    /// Extra delay of every sync, in microseconds.
    pub slowness_us: u64,
    /// Whether what is on its disk was tampered with.
    pub damaged: bool,
    /// Whether its disk was made to fail, so that the process may stop.
    pub disk_fails: bool,
    random: Arc<Mutex<Random>>,
}

impl Node {
    /// A node that has never run.
    pub fn new(plan: &Plan, clock: NodeClock, random: &mut Random) -> Node {
        let data = MemoryDisk::new(random.next());
        let log_disk = if plan.log_apart { MemoryDisk::new(random.next()) } else { data.clone() };
        Node {
            data,
            log_disk,
            clock: Arc::new(clock),
            process: None,
            lines: plan.founders(),
            incarnation: 0,
            told: Told::default(),
            durable: Zxid::ZERO,
            configured: Zxid::ZERO,
            adopted: Epoch(0),
            paused_until: 0,
            crash_point: CrashPoint::default(),
            slowness_us: 0,
            damaged: false,
            disk_fails: false,
            random: Arc::new(Mutex::new(Random::new(random.next()))),
        }
    }

    /// Whether the power of either disk is off.
    pub fn power_is_off(&self) -> bool {
        self.data.is_off() || self.log_disk.is_off()
    }

    /// Starts the process on what is on the disk, and says what that was.
    pub fn start(&mut self, plan: &Plan, node: usize) -> Result<Found, String> {
        let random = Arc::clone(&self.random);
        let clock: Arc<dyn Clock> = self.clock.clone();
        let surroundings = Surroundings {
            clock: Arc::clone(&clock),
            random: Arc::new(move |bytes: &mut [u8]| {
                for piece in bytes.chunks_mut(8) {
                    let number = random.lock().next().to_le_bytes();
                    piece.copy_from_slice(&number[..piece.len()]);
                }
                Ok(())
            }),
        };
        let data: Arc<dyn Disk> = Arc::new(self.data.clone());
        let log: Arc<dyn Disk> = match plan.log_apart {
            true => Arc::new(self.log_disk.clone()),
            false => Arc::clone(&data),
        };
        let config = plan.config(node, self.lines.clone());
        let recovered = ensemble::recover(&config, Disks { data, log }, &surroundings)
            .map_err(|error| error.to_string())?;
        let found = look_at(&recovered)?;
        let database = Arc::clone(&recovered.database);
        let service = Service::new(config, database, ReplicaStatus::default(), clock);
        let service = Arc::new(service);
        let outside = Arc::new(SimulatedOutside::default());
        outside.found_ensemble_id(recovered.ensemble_id(), recovered.joined());
        let mut driver = ensemble::assemble(&service, recovered, &surroundings, outside.clone())
            .map_err(|error| error.to_string())?;
        if let Some(Mistake::Protocol(mutation)) = plan.mistake {
            driver.set_mutation(Some(mutation));
        }
        self.adopted = found.current_epoch;
        self.process = Some(Process {
            service,
            driver,
            outside,
            log: None,
            log_planned: false,
            snapshot: None,
            streams: BTreeMap::new(),
            clients: BTreeMap::new(),
            turn_at: u64::MAX,
            serving: false,
            leads: false,
            shows_alone: None,
            exact_from: Zxid(i64::MAX),
            compared: Zxid::ZERO,
            replacements: 0,
            links: vec![false; plan.nodes()],
            peers: BTreeSet::new(),
        });
        Ok(found)
    }

    /// Ends the process; with the machine's power, if `power` says so.
    pub fn stop(&mut self, power: bool) {
        if let Some(process) = &self.process
            && let Some(log) = &process.log
        {
            self.durable = self.durable.max(log.durable_zxid());
        }
        if power {
            // Before the process, whose last acts must not reach the disk.
            self.data.crash();
            self.log_disk.crash();
        }
        self.process = None;
        self.incarnation += 1;
        self.paused_until = 0;
        self.crash_point = CrashPoint::default();
    }
}
