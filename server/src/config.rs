//! What a replica is told before it starts: the values of a zoo.cfg, their defaults, and what of
//! them makes no sense. The file's syntax is in `properties`, the keys are in `keys`, members of an
//! ensemble in `ensemble`.
//!
//! Reads the configuration file and `myid`; opens nothing else.

pub mod ensemble;
mod keys;
pub mod properties;
pub mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use znodefs::wire::FRAME_LENGTH_MAX_DEFAULT;

use ensemble::{Member, MemberRole, ServerId};
use tls::QuorumTlsConfig;

/// Everything a replica is told before it starts.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Snapshots, epochs and, unless `data_log_dir` says otherwise, the log (`dataDir`).
    pub data_dir: PathBuf,
    /// The log, when it has a disk of its own (`dataLogDir`).
    pub data_log_dir: Option<PathBuf>,
    /// Where clients connect (`clientPortAddress`, `clientPort`); port 0 takes a free one.
    pub client_address: SocketAddr,
    /// This replica's number (`myid`); 0 for a replica without an ensemble.
    pub server_id: ServerId,
    /// The ensemble (`server.N`); empty for a replica alone.
    pub members: Vec<Member>,
    /// Whether the only member of its ensemble stands alone (`standaloneEnabled`).
    pub standalone_enabled: bool,
    /// Whether an empty data directory may take part in forming an ensemble (`--initialize`).
    pub initialize: bool,
    /// The unit of the other times (`tickTime`).
    pub tick: Duration,
    /// Ticks a follower may take to connect and synchronize (`initLimit`).
    pub init_limit: u32,
    /// Ticks a follower may lag (`syncLimit`).
    pub sync_limit: u32,
    /// The shortest session timeout granted (`minSessionTimeout`); by default 2 ticks.
    pub session_timeout_min: Duration,
    /// The longest session timeout granted (`maxSessionTimeout`); by default 20 ticks.
    pub session_timeout_max: Duration,
    /// What a connection may take before its first request is whole
    /// (`nio.sessionlessCnxnTimeout`).
    pub handshake_timeout: Duration,
    /// How many client connections are held ready to be accepted (`clientPortListenBacklog`).
    pub listen_backlog: u32,
    /// Connections of one address; 0 for any number (`maxClientCnxns`).
    pub connections_per_address_max: usize,
    /// Connections altogether; 0 for any number (`maxCnxns`).
    pub connections_max: usize,
    /// The longest frame taken from a client, bytes (`jute.maxbuffer`).
    pub frame_length_max: usize,
    /// Writes under way before connections that have some are no longer read
    /// (`globalOutstandingLimit`).
    pub outstanding_max: usize,
    /// Transactions between two snapshots, before randomization (`snapCount`).
    pub snapshot_txns: u64,
    /// Bytes of log between two snapshots, before randomization (`snapSizeLimitInKb`); 0 for any.
    pub snapshot_log_bytes: u64,
    /// Bytes by which log files are preallocated (`preAllocSize`).
    pub log_preallocation: u64,
    /// Whether a transaction counts as durable only once it is synced (`forceSync`).
    pub force_sync: bool,
    /// Removal of old snapshots and logs (`autopurge.*`).
    pub purge: Option<PurgePolicy>,
    /// Which four-letter words are answered (`4lw.commands.whitelist`).
    pub four_letter_words: FourLetterWords,
    /// Whether access control lists are ignored (`skipACL`).
    pub skip_acl: bool,
    /// Whether znodes with a time to live may be created (`extendedTypesEnabled`).
    pub extended_types: bool,
    /// Whether hard quotas are enforced (`enforceQuota`).
    pub enforce_quota: bool,
    /// Whether the ensemble may be changed at run time (`reconfigEnabled`).
    pub reconfig_enabled: bool,
    /// Whether reads are served while there is no quorum (`readonlymode.enabled`).
    pub read_only_mode: bool,
    /// The superuser's digest identity, `user:base64(sha1(user:password))`
    /// (`DigestAuthenticationProvider.superDigest`).
    pub super_digest: Option<String>,
    /// TLS between replicas; `None` without it (`sslQuorum`, `ssl.quorum.*`).
    pub quorum_tls: Option<QuorumTlsConfig>,
    /// Where the admin server listens; `None` without one (`admin.enableServer`,
    /// `admin.serverAddress`, `admin.serverPort`).
    pub admin_address: Option<SocketAddr>,
    /// How often containers and times to live are looked at (`znode.container.checkIntervalMs`).
    pub container_check_interval: Duration,
}

/// When old files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgePolicy {
    /// Snapshots that stay, at least 3 (`autopurge.snapRetainCount`).
    pub snapshots_kept: usize,
    /// How often; zero for after every snapshot (`autopurge.purgeInterval`).
    pub interval: Duration,
}

/// The four-letter words that are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FourLetterWords {
    /// Every one.
    All,
    /// These.
    Listed(Vec<String>),
}

impl FourLetterWords {
    /// Whether a word is answered.
    pub fn allows(&self, word: &str) -> bool {
        match self {
            FourLetterWords::All => true,
            FourLetterWords::Listed(words) => words.iter().any(|listed| listed == word),
        }
    }
}

/// Why a replica cannot be configured this way.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: configuration cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key has a value that makes no sense.
    #[error("{file}:{line}: {key}={value}: {expected}")]
    BadValue {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is expected instead.
        expected: String,
    },
    /// A key that is needed is missing.
    #[error("{file}: {key} is missing: {hint}")]
    Missing {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What to write.
        hint: String,
    },
    /// The replica's own number is not to be had.
    #[error("{path}: {reason}; write this replica's number N of its server.N line there")]
    MyId {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The values contradict each other.
    #[error("{file}: {reason}")]
    Contradiction {
        /// The file.
        file: String,
        /// What contradicts what.
        reason: String,
    },
}

/// A configuration, and what is odd about it without stopping the start.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: ServerConfig,
    /// Lines for the log.
    pub warnings: Vec<String>,
}

impl ServerConfig {
    /// One replica without an ensemble, its data in `data_dir`, everything else by default. Old
    /// snapshots are removed by themselves, since nobody set a policy, and znodes may have a time to
    /// live, since nobody has to be compatible with older servers.
    pub fn standalone(data_dir: impl Into<PathBuf>, client_address: SocketAddr) -> ServerConfig {
        let tick = Duration::from_secs(2);
        ServerConfig {
            data_dir: data_dir.into(),
            client_address,
            session_timeout_min: tick * 2,
            session_timeout_max: tick * 20,
            tick,
            purge: Some(PurgePolicy { snapshots_kept: 3, interval: Duration::ZERO }),
            extended_types: true,
            ..ServerConfig::zookeeper_defaults()
        }
    }

    /// ZooKeeper's defaults for a configuration file that sets nothing.
    fn zookeeper_defaults() -> ServerConfig {
        let tick = Duration::from_secs(3);
        ServerConfig {
            data_dir: PathBuf::new(),
            data_log_dir: None,
            client_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            server_id: ServerId(0),
            members: Vec::new(),
            standalone_enabled: true,
            initialize: false,
            tick,
            init_limit: 10,
            sync_limit: 5,
            session_timeout_min: tick * 2,
            session_timeout_max: tick * 20,
            handshake_timeout: Duration::from_secs(10),
            listen_backlog: 1024,
            connections_per_address_max: 60,
            connections_max: 0,
            frame_length_max: FRAME_LENGTH_MAX_DEFAULT,
            outstanding_max: 1000,
            snapshot_txns: 100_000,
            snapshot_log_bytes: 4 << 30,
            log_preallocation: 64 << 20,
            force_sync: true,
            purge: None,
            four_letter_words: FourLetterWords::Listed(vec!["srvr".into()]),
            skip_acl: false,
            extended_types: false,
            enforce_quota: false,
            reconfig_enabled: false,
            read_only_mode: false,
            super_digest: None,
            quorum_tls: None,
            admin_address: None,
            container_check_interval: Duration::from_secs(60),
        }
    }

    /// Reads a configuration file, and `myid` when the file has members.
    pub fn load(path: &Path) -> Result<LoadedConfig, ConfigError> {
        let text = read(path)?;
        let file = path.display().to_string();
        let mut properties = properties::parse(&text);
        let dynamic = properties.iter().find(|property| property.key == "dynamicConfigFile");
        if let Some(dynamic) = dynamic {
            properties.extend(properties::parse(&read(Path::new(&dynamic.value))?));
        }
        let mut loaded = keys::interpret(&file, &properties)?;
        if !loaded.config.members.is_empty() {
            let server_id = read_my_id(&loaded.config.data_dir.join("myid"))?;
            loaded.config.adopt_server_id(&file, server_id, &properties)?;
        }
        Ok(loaded)
    }

    fn adopt_server_id(
        &mut self,
        file: &str,
        server_id: ServerId,
        properties: &[properties::Property],
    ) -> Result<(), ConfigError> {
        self.server_id = server_id;
        let Some(own) = self.members.iter().find(|member| member.server_id == server_id) else {
            let path = self.data_dir.join("myid");
            let reason = format!("it holds {server_id}, and {file} has no line server.{server_id}");
            return Err(ConfigError::MyId { path, reason });
        };
        let has_port = properties.iter().any(|property| property.key == "clientPort");
        if let (Some(client), false) = (&own.client_address, has_port) {
            let ip = client.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            self.client_address = SocketAddr::new(ip, client.port);
        }
        Ok(())
    }

    /// Whether this replica is one of an ensemble: there are several, or the only one is not to stand
    /// alone (`standaloneEnabled=false`).
    pub fn is_member(&self) -> bool {
        self.members.len() > 1 || (!self.members.is_empty() && !self.standalone_enabled)
    }

    /// How many members vote.
    pub fn voter_count(&self) -> usize {
        self.members.iter().filter(|member| member.role == MemberRole::Participant).count()
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })
}

fn read_my_id(path: &Path) -> Result<ServerId, ConfigError> {
    let error = |reason: String| ConfigError::MyId { path: path.to_path_buf(), reason };
    let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
    match text.trim().parse::<u8>() {
        Ok(number) if number != 0 => Ok(ServerId(number)),
        _ => Err(error(format!("'{}' is no number from 1 to 255", text.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(directory: &Path, text: &str) -> Result<LoadedConfig, ConfigError> {
        let path = directory.join("zoo.cfg");
        std::fs::write(&path, text).unwrap();
        ServerConfig::load(&path)
    }

    #[test]
    fn an_administrators_ensemble_file_is_read_with_its_myid() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("myid"), "2\n").unwrap();
        let data_dir = directory.path().display();
        let text = format!(
            "tickTime=2000\ndataDir={data_dir}\ninitLimit=5\nsyncLimit=2\n\
             server.1=zoo1:2888:3888;2181\nserver.2=zoo2:2888:3888;127.0.0.1:2182\n"
        );
        let config = load(directory.path(), &text).unwrap().config;
        assert_eq!(config.server_id, ServerId(2));
        assert_eq!(config.client_address, "127.0.0.1:2182".parse().unwrap());
        assert_eq!(config.voter_count(), 2);
        assert_eq!(config.session_timeout_max, Duration::from_secs(40));
    }

    #[test]
    fn a_missing_or_foreign_myid_names_the_file_and_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let text = format!("dataDir={}\nserver.1=h:1:2;2181\n", directory.path().display());
        let message = load(directory.path(), &text).unwrap_err().to_string();
        assert!(message.contains("myid: cannot be read"), "{message}");
        for (content, expected) in [("7", "no line server.7"), ("x", "'x' is no number")] {
            std::fs::write(directory.path().join("myid"), content).unwrap();
            let message = load(directory.path(), &text).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("write this"), "{message}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = ServerConfig::load(Path::new("/nonexistent/zoo.cfg")).unwrap_err();
        assert!(message.to_string().starts_with("/nonexistent/zoo.cfg: "), "{message}");
    }
}
