//! The four-letter words: what monitoring asks a replica on a fresh connection, answered in
//! ZooKeeper's own text (section "The Four Letter Words" of its administrator's guide). Only reads
//! state; no sockets.

use std::fmt::Write;
use std::sync::Arc;

use tokio::sync::oneshot;
use znodefs::{OpCode, SessionId};

use crate::connection::{Connection, Outbox, Phase};
use crate::replica::Event;
use crate::service::Service;
use crate::status::{ReplicaRole, ReplicaStatus};
use crate::tree::CONFIG_PATH;

/// The words that are understood.
pub const WORDS: [&str; 15] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "isro", "mntr", "ruok", "srst", "srvr", "stat",
    "wchc", "wchp", "wchs",
];

/// What a replica without a leader says to whoever asks for more than whether it is there.
pub const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

/// What a member adds that takes no part in its ensemble.
pub const DISK_FULL: &str = "Disk: full, this replica takes part again when there is room\n";

/// What a replica says its version is. Clients and monitoring parse the number.
pub fn version() -> String {
    format!("3.9.0-znodefs-{}, built on Rust", env!("CARGO_PKG_VERSION"))
}

/// Answers a word that came on `asking`.
pub async fn answer(word: &str, service: &Service, asking: &Connection) -> String {
    if !service.config.four_letter_words.allows(word) {
        return format!("{word} is not executed because it is not in the whitelist.\n");
    }
    let status = *service.status.lock();
    match word {
        "ruok" => "imok".into(),
        "isro" if status.read_only => "ro".into(),
        "isro" => if status.serving { "rw" } else { "null" }.into(),
        "srvr" | "stat" | "cons" | "crst" | "srst" | "mntr" | "dump" | "wchs" | "wchp" | "wchc"
            if !status.serves_anybody() =>
        {
            let full = if status.disk_full { DISK_FULL } else { "" };
            format!("{NOT_SERVING}{full}")
        }
        "srvr" => server_state(service, None),
        "stat" => server_state(service, Some(asking)),
        "cons" => connections(service, asking),
        "crst" => reset_connections(service),
        "srst" => {
            service.metrics.reset();
            "Server stats reset.\n".into()
        }
        "mntr" => monitor(service),
        "conf" => configuration(service),
        "envi" => environment(),
        "dirs" => directories(service),
        "dump" => dump(service).await,
        "wchs" => watch_summary(service),
        "wchp" => watches_by_path(service),
        "wchc" => watches_by_session(service),
        _ => String::new(),
    }
}

/// Writes a formatted line; writing to a string cannot fail.
macro_rules! line {
    ($out:expr, $($argument:tt)*) => {{
        let _ = writeln!($out, $($argument)*);
    }};
}

pub(crate) fn server_state(service: &Service, with_clients: Option<&Connection>) -> String {
    let mut out = String::new();
    line!(out, "Zookeeper version: {}", version());
    let status = *service.status.lock();
    if status.read_only {
        line!(out, "READ-ONLY mode; serving only read-only clients");
    }
    if let Some(asking) = with_clients {
        line!(out, "Clients:");
        for connection in &service.connections.all() {
            line!(out, "{}", short_line(connection, asking));
        }
        line!(out, "");
    }
    let latency = service.metrics.latency();
    let (node_count, zxid) = {
        let tree = service.database.tree.read();
        (tree.node_count(), tree.last_applied())
    };
    let (min, average, max) = (latency.min_ms, latency.average_ms, latency.max_ms);
    line!(out, "Latency min/avg/max: {min}/{average}/{max}");
    line!(out, "Received: {}", service.metrics.packets_received());
    line!(out, "Sent: {}", service.metrics.packets_sent());
    line!(out, "Connections: {}", service.connections.len());
    line!(out, "Outstanding: {}", service.metrics.outstanding());
    line!(out, "Zxid: {zxid}");
    line!(out, "Mode: {}", status.name());
    if status.disk_full {
        out.push_str(DISK_FULL);
    }
    line!(out, "Node count: {node_count}");
    out
}

/// ` /127.0.0.1:4711[1](queued=0,recved=1,sent=0)`; the number in brackets is the interest in
/// the socket in ZooKeeper: 0 for the asking connection, 1 for one that is read.
fn short_line(connection: &Connection, asking: &Connection) -> String {
    let outbox = connection.outbox();
    let interest = if connection.id == asking.id { 0 } else { 1 };
    let (queued, stats) = (outbox.pending.len(), &outbox.stats);
    let (received, sent) = (stats.received, stats.sent);
    format!(" /{}[{interest}](queued={queued},recved={received},sent={sent})", connection.peer)
}

fn connections(service: &Service, asking: &Connection) -> String {
    let mut out = String::new();
    for connection in &service.connections.all() {
        let short = short_line(connection, asking);
        let outbox = connection.outbox();
        if outbox.phase != Phase::Established {
            line!(out, "{short}");
            continue;
        }
        line!(out, "{},{})", short.trim_end_matches(')'), long_part(connection, &outbox));
    }
    line!(out, "");
    out
}

fn long_part(connection: &Connection, outbox: &Outbox) -> String {
    let stats = &outbox.stats;
    let mut out = format!("sid={}", outbox.session_id);
    if let Some(code) = stats.last_op_code {
        let _ = write!(out, ",lop={}", operation_word(code));
    }
    let _ = write!(out, ",est={},to={}", connection.established_ms, outbox.timeout_ms);
    if stats.last_op_code.is_some() {
        if stats.last_xid >= 0 {
            let _ = write!(out, ",lcxid=0x{:x}", stats.last_xid);
        }
        let latency = stats.latency.summary();
        let _ = write!(
            out,
            ",lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={}",
            stats.last_zxid,
            stats.last_reply_ms,
            stats.last_latency_ms,
            latency.min_ms,
            latency.average_ms as u64,
            latency.max_ms
        );
    }
    out
}

/// ZooKeeper's short names of operations in `cons`.
fn operation_word(code: i32) -> &'static str {
    match OpCode::from_code(code) {
        Some(OpCode::Create | OpCode::Create2) => "CREA",
        Some(OpCode::Delete) => "DELE",
        Some(OpCode::Exists) => "EXIS",
        Some(OpCode::GetData) => "GETD",
        Some(OpCode::SetData) => "SETD",
        Some(OpCode::GetAcl) => "GETA",
        Some(OpCode::SetAcl) => "SETA",
        Some(OpCode::GetChildren | OpCode::GetChildren2) => "GETC",
        Some(OpCode::Sync) => "SYNC",
        Some(OpCode::Ping) => "PING",
        Some(OpCode::Multi) => "MULT",
        Some(OpCode::MultiRead) => "MLTR",
        Some(OpCode::SetWatches | OpCode::SetWatches2) => "SETW",
        Some(OpCode::CreateSession) => "SESS",
        Some(OpCode::CloseSession) => "CLOS",
        _ => "NA",
    }
}

fn reset_connections(service: &Service) -> String {
    for connection in service.connections.all() {
        connection.outbox().stats = Default::default();
    }
    "Connection stats reset.\n".into()
}

pub(crate) fn monitor(service: &Service) -> String {
    let mut out = String::new();
    let latency = service.metrics.latency();
    line!(out, "zk_version\t{}", version());
    let status = *service.status.lock();
    line!(out, "zk_server_state\t{}", status.name());
    line!(out, "zk_avg_latency\t{:.4}", latency.average_ms);
    line!(out, "zk_max_latency\t{}", latency.max_ms);
    line!(out, "zk_min_latency\t{}", latency.min_ms);
    line!(out, "zk_packets_received\t{}", service.metrics.packets_received());
    line!(out, "zk_packets_sent\t{}", service.metrics.packets_sent());
    line!(out, "zk_num_alive_connections\t{}", service.connections.len());
    line!(out, "zk_outstanding_requests\t{}", service.metrics.outstanding());
    let watch_count = service.database.watches.lock().watch_count();
    {
        let tree = service.database.tree.read();
        line!(out, "zk_znode_count\t{}", tree.node_count());
        line!(out, "zk_watch_count\t{watch_count}");
        line!(out, "zk_ephemerals_count\t{}", tree.ephemerals_count());
        line!(out, "zk_approximate_data_size\t{}", tree.approximate_data_size());
        line!(out, "zk_global_sessions\t{}", tree.session_count());
    }
    line!(out, "zk_local_sessions\t{}", local_sessions(service));
    let (open, most) = file_descriptors();
    line!(out, "zk_open_file_descriptor_count\t{open}");
    line!(out, "zk_max_file_descriptor_count\t{most}");
    line!(out, "zk_uptime\t{}", service.clock.monotonic_ms() - service.started_ms);
    monitor_ensemble(service, &status, &mut out);
    out
}

/// Clients with a session of this replica alone.
fn local_sessions(service: &Service) -> usize {
    let connections = service.connections.all();
    connections.iter().filter(|connection| connection.outbox().read_only).count()
}

/// What only a member of an ensemble has to say.
fn monitor_ensemble(service: &Service, status: &ReplicaStatus, out: &mut String) {
    let state = match status.role {
        ReplicaRole::Standalone => return,
        ReplicaRole::Looking => "looking",
        ReplicaRole::Leader => "leading - broadcast",
        ReplicaRole::Follower => "following - broadcast",
        ReplicaRole::Observer => "observing - broadcast",
    };
    line!(out, "zk_server_id\t{}", service.config.server_id);
    line!(out, "zk_peer_state\t{state}");
    line!(out, "zk_disk_full\t{}", u8::from(status.disk_full));
    line!(out, "zk_quorum_size\t{}", status.voters);
    line!(out, "zk_current_epoch\t{}", status.epoch.0);
    if let Some(leader) = status.leader {
        line!(out, "zk_leader_id\t{leader}");
    }
    line!(out, "zk_last_zxid\t{}", service.database.tree.read().last_applied());
    if status.role == ReplicaRole::Leader {
        let followers = status.learners.saturating_sub(status.synced_observers);
        line!(out, "zk_learners\t{}", status.learners);
        line!(out, "zk_followers\t{followers}");
        line!(out, "zk_synced_followers\t{}", status.synced_followers);
        line!(out, "zk_synced_observers\t{}", status.synced_observers);
    }
}

/// How many descriptors the process has open, and may have; 0 where the system does not say.
fn file_descriptors() -> (usize, u64) {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limits = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    (open, limits.map_or(0, |(soft, _)| soft))
}

pub(crate) fn configuration(service: &Service) -> String {
    let config = &service.config;
    let log_dir = config.data_log_dir.as_ref().unwrap_or(&config.data_dir);
    let mut out = String::new();
    line!(out, "clientPort={}", config.client_address.port());
    line!(out, "secureClientPort=-1");
    line!(out, "dataDir={}", config.data_dir.display());
    line!(out, "dataDirSize={}", directory_size(&config.data_dir));
    line!(out, "dataLogDir={}", log_dir.display());
    line!(out, "dataLogSize={}", directory_size(log_dir));
    line!(out, "tickTime={}", config.tick.as_millis());
    line!(out, "maxClientCnxns={}", config.connections_per_address_max);
    line!(out, "minSessionTimeout={}", config.session_timeout_min.as_millis());
    line!(out, "maxSessionTimeout={}", config.session_timeout_max.as_millis());
    line!(out, "clientPortListenBacklog={}", config.listen_backlog);
    line!(out, "serverId={}", config.server_id);
    if !config.members.is_empty() {
        line!(out, "initLimit={}", config.init_limit);
        line!(out, "syncLimit={}", config.sync_limit);
        line!(out, "electionAlg=3");
        if let Some(own) = config.members.iter().find(|m| m.server_id == config.server_id)
            && let Some((_, quorum, election)) = own.addresses.first()
        {
            line!(out, "electionPort={election}");
            line!(out, "quorumPort={quorum}");
        }
        line!(out, "peerType=0");
        line!(out, "membership: ");
        out.push_str(&membership(service));
    }
    out
}

/// The members: those that `/zookeeper/config` shows.
pub(crate) fn membership(service: &Service) -> String {
    let tree = service.database.tree.read();
    let data = tree.node(CONFIG_PATH).and_then(|node| node.data()).unwrap_or_default();
    let text = String::from_utf8_lossy(data);
    let members = text.lines().filter(|line| line.starts_with("server."));
    members.flat_map(|line| [line, "\n"]).collect()
}

pub(crate) fn environment() -> String {
    let mut out = String::from("Environment:\n");
    let uname = nix::sys::utsname::uname();
    let text = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname.as_ref().map_or_else(|_| String::new(), |u| part(u).to_string_lossy().into_owned())
    };
    line!(out, "zookeeper.version={}", version());
    line!(out, "host.name={}", text(|u| u.nodename()));
    line!(out, "os.name={}", text(|u| u.sysname()));
    line!(out, "os.arch={}", std::env::consts::ARCH);
    line!(out, "os.version={}", text(|u| u.release()));
    let directory = std::env::current_dir().unwrap_or_default();
    line!(out, "user.name={}", std::env::var("USER").unwrap_or_default());
    line!(out, "user.home={}", std::env::var("HOME").unwrap_or_default());
    line!(out, "user.dir={}", directory.display());
    out
}

fn directories(service: &Service) -> String {
    let config = &service.config;
    let log_dir = config.data_log_dir.as_ref().unwrap_or(&config.data_dir);
    let (data, log) = (directory_size(&config.data_dir), directory_size(log_dir));
    format!("datadir_size: {data}\nlogdir_size: {log}\n")
}

/// Bytes of all files below a directory; 0 for what cannot be read.
fn directory_size(directory: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

async fn dump(service: &Service) -> String {
    let (sender, receiver) = oneshot::channel();
    service.mailbox.push(Event::DumpSessions(sender));
    let buckets = receiver.await.unwrap_or_default();
    let mut out = String::from("SessionTracker dump:\n");
    let count: usize = buckets.iter().map(|(_, sessions)| sessions.len()).sum();
    line!(out, "Session Sets ({})/({count}):", buckets.len());
    for (due_in_ms, sessions) in &buckets {
        line!(out, "{} expire in {due_in_ms} ms:", sessions.len());
        for session_id in sessions {
            line!(out, "\t{session_id}");
        }
    }
    line!(out, "ephemeral nodes dump:");
    {
        let tree = service.database.tree.read();
        let mut sessions: Vec<SessionId> = tree.sessions_with_ephemerals().collect();
        sessions.sort();
        line!(out, "Sessions with Ephemerals ({}):", sessions.len());
        for session_id in sessions {
            line!(out, "{session_id}:");
            for path in tree.ephemerals(session_id) {
                line!(out, "\t{path}");
            }
        }
    }
    let connections = service.connections.all();
    line!(out, "Connections dump:");
    line!(
        out,
        "Connections Sets ({})/({}):",
        usize::from(!connections.is_empty()),
        connections.len()
    );
    for connection in &connections {
        let session_id = connection.outbox().session_id;
        line!(out, "\tip: /{} sessionId: {session_id}", connection.peer);
    }
    out
}

fn watch_summary(service: &Service) -> String {
    let summary = service.database.watches.lock().summary();
    let (connections, paths, total) = (summary.connections, summary.paths, summary.watches);
    format!("{connections} connections watching {paths} paths\nTotal watches:{total}\n")
}

/// Connections by the number under which they watch, with their sessions.
fn sessions_of_watchers(service: &Service) -> hashbrown::HashMap<u64, SessionId> {
    let session = |connection: &Arc<Connection>| (connection.id.0, connection.outbox().session_id);
    service.connections.all().iter().map(session).collect()
}

fn watches_by_path(service: &Service) -> String {
    let sessions = sessions_of_watchers(service);
    let watches = service.database.watches.lock();
    let mut by_path: Vec<_> = watches.by_path().collect();
    by_path.sort_unstable();
    let mut out = String::new();
    for (path, watchers) in by_path {
        line!(out, "{path}");
        let watching = watchers.iter().filter_map(|watcher| sessions.get(&watcher.0));
        watching.for_each(|session_id| line!(out, "\t{session_id}"));
    }
    out
}

fn watches_by_session(service: &Service) -> String {
    let sessions = sessions_of_watchers(service);
    let watches = service.database.watches.lock();
    let mut out = String::new();
    for (watcher, paths) in watches.by_watcher() {
        let Some(session_id) = sessions.get(&watcher.0) else { continue };
        line!(out, "{session_id}");
        paths.iter().for_each(|path| line!(out, "\t{path}"));
    }
    out
}
