//! One simulated replica: the protocol, a disk, the replicated state, a clock of its own. What a full
//! replica would replace is `zab` and `database`; the rest stays.

use std::collections::BTreeMap;

use znodefs::Zxid;
use znodefs_server::zab::{ConnectionId, Ensemble, Event, Identity, Zab};

use crate::crash_point::CrashPoint;
use crate::database::{Database, configuration};
use crate::disk::Disk;
use crate::plan::Plan;
use crate::random::Random;

/// A replica, running or not.
pub struct Node {
    /// The running process, if it runs.
    pub zab: Option<Zab>,
    /// Which life this is.
    pub incarnation: u32,
    /// What survives it.
    pub disk: Disk,
    /// What was on the disks that were replaced by empty ones: acknowledgements from before may
    /// still be on their way.
    pub wiped: Vec<Disk>,
    /// The applied state of the running process.
    pub database: Database,
    /// The end of the log as given to the disk.
    pub log_end: Zxid,
    /// The end of the history when NEWLEADER came.
    pub new_leader_end: Zxid,
    /// Whether clients are served.
    pub serving: bool,
    /// Counts the times that service began or ended.
    pub term: u64,
    /// Nothing happens in the process before this time, in microseconds.
    pub paused_until: u64,
    /// When the next timer is scheduled.
    pub timer_at: u64,
    /// A crash in the middle of something.
    pub crash_point: CrashPoint,
    /// Which other nodes it believes reachable.
    pub links: Vec<bool>,
    /// Snapshots received and not yet installed.
    pub staged: BTreeMap<ConnectionId, Database>,
    /// The members that its configuration file names, where they are not the plan's.
    pub lines: Option<Ensemble>,
    clock_ppm: i64,
    clock_offset_ms: u64,
}

impl Node {
    /// A replica that has never run.
    pub fn new(plan: &Plan, random: &mut Random) -> Node {
        Node {
            zab: None,
            incarnation: 0,
            disk: Disk::new(),
            wiped: Vec::new(),
            database: Database::new(),
            log_end: Zxid::ZERO,
            new_leader_end: Zxid::ZERO,
            serving: false,
            term: 0,
            paused_until: 0,
            timer_at: u64::MAX,
            crash_point: CrashPoint::default(),
            links: vec![false; plan.nodes()],
            staged: BTreeMap::new(),
            lines: None,
            clock_ppm: random.between(0, 40_000) as i64 - 20_000,
            clock_offset_ms: random.between(0, 1_000_000),
        }
    }

    /// What the node's own clock shows, in milliseconds.
    pub fn local_ms(&self, now_us: u64) -> u64 {
        let rate = (1_000_000 + self.clock_ppm) as u128;
        (u128::from(now_us) * rate / 1_000_000 / 1_000) as u64 + self.clock_offset_ms
    }

    /// When the node's own clock will show this, in microseconds.
    pub fn global_us(&self, local_ms: u64) -> u64 {
        let rate = (1_000_000 + self.clock_ppm) as u128;
        let elapsed = u128::from(local_ms.saturating_sub(self.clock_offset_ms));
        (elapsed * 1_000 * 1_000_000 / rate) as u64 + 1
    }

    /// Starts the process from what is on the disk.
    pub fn start(&mut self, plan: &Plan, node: usize, seed: u64) -> Event {
        let (mut recovered, mut database) = self.disk.recover();
        if plan.mutation == Some(znodefs_server::zab::Mutation::DeliverLogOnRestart) {
            for entry in self.disk.log.iter().filter(|entry| entry.zxid > recovered.delivered) {
                database.apply(entry.zxid, &entry.payload);
            }
            recovered.delivered = recovered.last_logged;
        }
        let (ensemble, proposed) = self.membership(plan, &database);
        let identity = Identity { id: Plan::id(node), ensemble, seed };
        let zab = Zab::new(identity, plan.settings.clone(), &recovered)
            .with_configurations(configuration, proposed);
        self.zab = Some(zab.with_mutation(plan.mutation));
        self.database = database;
        self.log_end = recovered.last_logged;
        self.links.fill(false);
        Event::Start
    }

    /// The newest configuration that is certainly committed, and the log's last one if it is newer:
    /// as `ensemble::membership` finds them.
    fn membership(&self, plan: &Plan, database: &Database) -> (Ensemble, Option<Ensemble>) {
        let lines = self.lines.clone().unwrap_or_else(|| plan.ensemble());
        let mut found = vec![lines, self.disk.configuration.clone()];
        found.push(database.configuration.clone());
        let mut logged: Vec<Ensemble> = self.disk.log.iter().filter_map(configuration).collect();
        let last = logged.pop();
        found.extend(logged);
        // Of equal ones the first: the file's, before there is any other.
        found.sort_by_key(|one| std::cmp::Reverse(one.version));
        let committed = found.swap_remove(0);
        let proposed = last.filter(|last| last.version > committed.version);
        (committed, proposed)
    }

    /// Ends the process, as a power failure does.
    pub fn crash(&mut self, random: &mut Random) {
        self.zab = None;
        self.incarnation += 1;
        self.disk.crash(random);
        self.database = Database::new();
        self.serving = false;
        self.term += 1;
        self.paused_until = 0;
        self.timer_at = u64::MAX;
        self.crash_point = CrashPoint::default();
        self.staged.clear();
        self.links.fill(false);
    }
}
