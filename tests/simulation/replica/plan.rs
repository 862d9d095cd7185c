//! What a seed means for whole replicas: the ensemble, its settings, the weather, the clients. Nothing
//! here depends on anything but the seed, and on what is left away to make a failure smaller.

use std::time::Duration;

use znodefs_server::config::ServerConfig;
use znodefs_server::config::ensemble::{Member, MemberRole, ServerId};
pub use znodefs_server::mutation::Mistake;
use znodefs_server::zab;

use crate::network::Latency;
use crate::plan::{DURATION_US, recovery_us};
use crate::random::Random;

/// What of a run is left away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time with faults, in microseconds.
    pub duration_us: u64,
    /// The most faults.
    pub faults: u64,
    /// The most clients.
    pub clients: usize,
}

impl Limits {
    /// Nothing.
    pub const NONE: Limits = Limits { duration_us: DURATION_US, faults: u64::MAX, clients: 64 };

    /// The arguments that say the same, with a space in front of each.
    pub fn arguments(&self) -> String {
        let mut arguments = String::new();
        if self.duration_us != Limits::NONE.duration_us {
            arguments += &format!(" --seconds {}", self.duration_us / 1_000_000);
        }
        if self.faults != Limits::NONE.faults {
            arguments += &format!(" --faults {}", self.faults);
        }
        if self.clients != Limits::NONE.clients {
            arguments += &format!(" --clients {}", self.clients);
        }
        arguments
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it follows from.
    pub seed: u64,
    /// Replicas that vote; they come first.
    pub voters: usize,
    /// Replicas that only learn.
    pub observers: usize,
    /// Replicas that are no members at first; they start later.
    pub joiners: usize,
    /// Percentage of faults that are a reconfiguration.
    pub reconfiguration_percent: u64,
    /// The nodes that serve reads without a quorum, one bit each; none where nobody does.
    pub read_only_nodes: u64,
    /// The clients that are content with that, one bit each.
    pub read_only_clients: u64,
    /// tickTime, initLimit, syncLimit.
    pub tick_ms: u64,
    pub init_limit: u32,
    pub sync_limit: u32,
    /// The network without faults.
    pub latency: Latency,
    /// Percentage of notifications lost.
    pub loss_percent: u64,
    /// Mean time between faults, in microseconds.
    pub fault_mean_us: u64,
    /// How many clients there are.
    pub clients: usize,
    /// Mean time between a client's requests, in microseconds.
    pub client_mean_us: u64,
    /// Transactions between snapshots.
    pub snapshot_txns: u64,
    /// Bytes of a snapshot in one step.
    pub block_length: usize,
    /// Bytes by which log files are preallocated.
    pub log_preallocation: u64,
    /// Whether the log has a disk of its own.
    pub log_apart: bool,
    /// A deliberate mistake.
    pub mistake: Option<Mistake>,
    /// What is left away.
    pub limits: Limits,
}

impl Plan {
    /// The run that a seed stands for.
    pub fn new(seed: u64, mistake: Option<Mistake>, limits: Limits) -> Plan {
        let mut random = Random::new(seed ^ 0x7265_706c_6963_6173);
        let latency = random.pick(&[
            Latency { min_us: 50, max_us: 500, spike_one_in: 0 },
            Latency { min_us: 50, max_us: 500, spike_one_in: 200 },
            Latency { min_us: 200, max_us: 3_000, spike_one_in: 200 },
            Latency { min_us: 2_000, max_us: 15_000, spike_one_in: 0 },
        ]);
        // From numbers of its own: what else a seed means does not depend on it.
        let mut changes = Random::new(!seed);
        let reconfiguration_percent = changes.pick(&[0, 0, 10, 30]);
        let joiners = if reconfiguration_percent > 0 { changes.pick(&[0, 1, 1, 2]) } else { 0 };
        let mut alone = Random::new(seed ^ 0x7265_6164_6f6e_6c79);
        let (read_only_nodes, read_only_clients) = match alone.one_in(3) {
            true => (alone.pick(&[u64::MAX, u64::MAX, 0b1_0110_1101]), alone.next() | 1),
            false => (0, 0),
        };
        Plan {
            seed,
            voters: random.pick(&[3, 3, 3, 3, 5, 5, 2, 1]),
            observers: random.pick(&[0, 0, 1, 2]),
            joiners,
            reconfiguration_percent,
            read_only_nodes,
            read_only_clients,
            tick_ms: random.pick(&[100, 200, 300, 500]),
            init_limit: random.between(5, 10) as u32,
            sync_limit: random.between(3, 5) as u32,
            latency,
            loss_percent: random.pick(&[0, 0, 1, 10]),
            fault_mean_us: random.pick(&[500_000, 1_000_000, 2_000_000, 5_000_000]),
            clients: (random.between(2, 7) as usize).min(limits.clients),
            client_mean_us: random.pick(&[50_000, 100_000, 200_000]),
            snapshot_txns: random.pick(&[10, 30, 100, 1_000]),
            block_length: random.pick(&[100, 400, 2_000, 64 << 10]),
            log_preallocation: random.pick(&[2 << 10, 8 << 10, 32 << 10]),
            log_apart: random.one_in(4),
            mistake,
            limits,
        }
    }

    /// How many replicas there are.
    pub fn nodes(&self) -> usize {
        self.voters + self.observers + self.joiners
    }

    /// Whether the ensemble may change.
    pub fn may_change(&self) -> bool {
        self.reconfiguration_percent > 0
    }

    /// Whether any member serves reads without a quorum.
    pub fn reads_without_quorum(&self) -> bool {
        self.read_only_nodes != 0
    }

    /// Whether this one does.
    pub fn reads_without_quorum_at(&self, node: usize) -> bool {
        self.read_only_nodes >> node & 1 == 1
    }

    /// The line of a node in a configuration.
    pub fn member(node: usize, role: MemberRole) -> Member {
        let role = match role {
            MemberRole::Participant => "participant",
            MemberRole::Observer => "observer",
        };
        let line = format!("replica{}:2888:3888:{role};2181", node + 1);
        Member::parse(ServerId(node as u8 + 1), &line).expect("a line of zoo.cfg")
    }

    /// The members with which the ensemble begins.
    pub fn founders(&self) -> Vec<Member> {
        let role = |node| match node < self.voters {
            true => MemberRole::Participant,
            false => MemberRole::Observer,
        };
        (0..self.voters + self.observers).map(|node| Plan::member(node, role(node))).collect()
    }

    /// The replica's number of a node.
    pub fn id(node: usize) -> zab::ServerId {
        zab::ServerId(node as u32 + 1)
    }

    /// The node with a replica's number.
    pub fn node(id: zab::ServerId) -> usize {
        id.0 as usize - 1
    }

    /// The node of a member.
    pub fn node_of(member: &Member) -> usize {
        usize::from(member.server_id.0) - 1
    }

    /// The configuration of a node whose file names these members, and itself in any case.
    pub fn config(&self, node: usize, mut members: Vec<Member>) -> ServerConfig {
        if members.iter().all(|member| Plan::node_of(member) != node) {
            members.push(Plan::member(node, MemberRole::Participant));
        }
        let tick = Duration::from_millis(self.tick_ms);
        let address = "127.0.0.1:2181".parse().expect("an address");
        let mut config = ServerConfig::standalone("/memory", address);
        config.server_id = ServerId(node as u8 + 1);
        config.members = members;
        config.reconfig_enabled = self.may_change();
        config.standalone_enabled = !self.may_change();
        // Whoever asks for a reconfiguration may.
        config.skip_acl = self.may_change();
        config.read_only_mode = self.reads_without_quorum_at(node);
        config.tick = tick;
        config.init_limit = self.init_limit;
        config.sync_limit = self.sync_limit;
        config.session_timeout_min = tick * 2;
        config.session_timeout_max = tick * 20;
        config.snapshot_txns = self.snapshot_txns;
        config.log_preallocation = self.log_preallocation;
        config.connections_per_address_max = 0;
        config.container_check_interval = Duration::from_secs(2);
        config
    }

    /// After the last fault, everything must be well within this time, in microseconds.
    pub fn recovery_us(&self) -> u64 {
        recovery_us(self.tick_ms, self.init_limit)
    }

    /// The longest session timeout, in microseconds.
    pub fn session_us_max(&self) -> u64 {
        20 * self.tick_ms * 1_000
    }
}
