//! The keys of a zoo.cfg: what each sets, which values it takes, which ones are known but do nothing
//! here. No I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::ensemble::{Member, ServerId};
use super::properties::Property;
use super::tls::{QuorumTlsConfig, TlsDraft};
use super::{ConfigError, FourLetterWords, LoadedConfig, PurgePolicy, ServerConfig};

/// Keys that ZooKeeper knows and that do nothing here; a trailing `*` stands for any ending.
const WITHOUT_EFFECT: &[&str] = &[
    "secureClientPort*",
    "ssl.*",
    "client.certReload",
    "client.portUnification",
    "admin.*",
    "audit.*",
    "metricsProvider.*",
    "localSessions*",
    "electionAlg",
    "electionPortBindRetry",
    "peerType",
    "group.*",
    "weight.*",
    "quorumListenOnAllIPs",
    "cnxTimeout",
    "leaderServes",
    "leader.*",
    "learner.*",
    "observer.*",
    "observerMasterPort",
    "follower.*",
    "fastleader.*",
    "connectToLearnerMasterLimit",
    "syncEnabled",
    "authProvider.*",
    "quorum.*",
    "quorumCnxnTimeoutMs",
    "requireClientAuthScheme",
    "sessionRequireClientSASLAuth",
    "enforce.auth.*",
    "allowSaslFailedClients",
    "kerberos.*",
    "jaasLoginRenew",
    "DigestAuthenticationProvider.digestAlg",
    "X509AuthenticationProvider.superUser",
    "multiAddress.*",
    "digest.enabled",
    "snapshot.*",
    "serializeLastProcessedZxid.enabled",
    "serverCnxnFactory",
    "nio.*",
    "netty.*",
    "traceFile",
    "commitLogCount",
    "txnLogSizeLimitInKb",
    "snapRetain*",
    "maxResponseCacheSize",
    "maxGetChildrenResponseCacheSize",
    "maxBatchSize",
    "maxWriteQueuePollTime",
    "flushDelay",
    "fsync.warningthresholdms",
    "request*",
    "throttled*",
    "connection*",
    "client.tickTime",
    "warningThresholdMs",
    "largeRequest*",
    "outstandingHandshake.*",
    "watchManagerName",
    "watcherCleanThreadsNum",
    "watcherCleanThreshold",
    "watcherCleanIntervalInSeconds",
    "maxInProcessingDeadWatchers",
    "bitHashCacheSize",
    "jvm.*",
    "jmx.*",
    "jute.maxbuffer.extrasize",
    "pathStats.*",
    "zookeeper_*",
    "enableEagerACLCheck",
    "closeSessionTxn.enabled",
    "db.autocreate",
    "initialize*",
    "znode.container.*",
    "tcpKeepAlive",
    "tcpNoDelay",
    "minSessionTimeoutMs",
    "ttl.*",
    "dynamicConfigFile",
    "reconfig.*",
    "skipNullData",
];

/// What the keys say beside what stands in [`ServerConfig`] directly.
struct Draft {
    config: ServerConfig,
    client_ip: IpAddr,
    client_port: Option<u16>,
    session_timeout_min: Option<Duration>,
    session_timeout_max: Option<Duration>,
    snapshots_kept: usize,
    purge_interval_hours: u64,
    /// `zoo.cfg:7` of the line that is being read.
    place: String,
    admin_enabled: bool,
    admin_address: SocketAddr,
    quorum_tls: TlsDraft,
    ssl_quorum: bool,
    port_unification: bool,
    reload_quorum_files: bool,
}

/// Makes a configuration of a file's properties.
pub(super) fn interpret(file: &str, properties: &[Property]) -> Result<LoadedConfig, ConfigError> {
    let mut draft = Draft {
        config: ServerConfig::zookeeper_defaults(),
        client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        client_port: None,
        session_timeout_min: None,
        session_timeout_max: None,
        snapshots_kept: 3,
        purge_interval_hours: 0,
        place: String::new(),
        admin_enabled: false,
        // ZooKeeper listens everywhere; what this server tells is not for everybody.
        admin_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
        quorum_tls: TlsDraft::new("ssl.quorum."),
        ssl_quorum: false,
        port_unification: false,
        reload_quorum_files: false,
    };
    let mut warnings = Vec::new();
    for property in properties {
        let Property { line, key, value } = property;
        draft.place = format!("{file}:{line}");
        match draft.set(key, value) {
            Ok(true) => {}
            Ok(false) => warnings.extend(warning(file, *line, key)),
            Err(expected) => {
                return Err(ConfigError::BadValue {
                    file: file.into(),
                    line: *line,
                    key: key.clone(),
                    value: value.clone(),
                    expected,
                });
            }
        }
    }
    Ok(LoadedConfig { config: draft.finish(file)?, warnings })
}

fn warning(file: &str, line: usize, key: &str) -> Option<String> {
    let bare = key.strip_prefix("zookeeper.").unwrap_or(key);
    if bare == "dynamicConfigFile" {
        return None;
    }
    let without_effect = WITHOUT_EFFECT.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => bare.starts_with(start),
        None => bare == *known,
    });
    Some(match without_effect {
        true => format!("{file}:{line}: {key} has no effect in this version"),
        false => format!("{file}:{line}: {key} is not a key znoded knows; it is ignored"),
    })
}

impl Draft {
    /// Takes one property; `false` for a key that sets nothing, an error saying what is expected.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let key = key.strip_prefix("zookeeper.").unwrap_or(key);
        Ok(self.set_place(key, value)?
            || self.set_time(key, value)?
            || self.set_limit(key, value)?
            || self.set_storage(key, value)?
            || self.set_behaviour(key, value)?
            || self.set_admin(key, value)?
            || self.set_tls(key, value)?)
    }

    fn set_admin(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "admin.enableServer" => self.admin_enabled = boolean(value)?,
            "admin.serverAddress" => self.admin_address.set_ip(address(value)?),
            "admin.serverPort" => self.admin_address.set_port(port(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_tls(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "sslQuorum" => self.ssl_quorum = boolean(value)?,
            "portUnification" => self.port_unification = boolean(value)?,
            "sslQuorumReloadCertFiles" => self.reload_quorum_files = boolean(value)?,
            _ => return self.quorum_tls.set(key, value, &self.place),
        }
        Ok(true)
    }

    fn set_place(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "dataDir" => self.config.data_dir = directory(value)?,
            "dataLogDir" => self.config.data_log_dir = Some(directory(value)?),
            "clientPort" => self.client_port = Some(port(value)?),
            "clientPortAddress" => {
                self.client_ip = address(value)?;
            }
            "clientPortListenBacklog" => match value {
                "-1" => {}
                _ => self.config.listen_backlog = number(value, 1, 65_535)? as u32,
            },
            _ => match key.strip_prefix("server.") {
                None => return Ok(false),
                Some(server_id) => self.add_member(server_id, value)?,
            },
        }
        Ok(true)
    }

    fn add_member(&mut self, server_id: &str, value: &str) -> Result<(), String> {
        let server_id = match server_id.parse::<u8>() {
            Ok(number) if number != 0 => ServerId(number),
            _ => return Err(format!("'{server_id}' is no replica's number: expected 1 to 255")),
        };
        if self.config.members.iter().any(|member| member.server_id == server_id) {
            return Err(format!("server.{server_id} is there twice: expected one line a replica"));
        }
        self.config.members.push(Member::parse(server_id, value)?);
        Ok(())
    }

    fn set_time(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "tickTime" => self.config.tick = milliseconds(value, 1)?,
            "initLimit" => self.config.init_limit = number(value, 1, 1 << 20)? as u32,
            "syncLimit" => self.config.sync_limit = number(value, 1, 1 << 20)? as u32,
            "minSessionTimeout" if value != "-1" => {
                self.session_timeout_min = Some(milliseconds(value, 1)?);
            }
            "maxSessionTimeout" if value != "-1" => {
                self.session_timeout_max = Some(milliseconds(value, 1)?);
            }
            "minSessionTimeout" | "maxSessionTimeout" => {}
            "nio.sessionlessCnxnTimeout" => self.config.handshake_timeout = milliseconds(value, 1)?,
            "znode.container.checkIntervalMs" => {
                self.config.container_check_interval = milliseconds(value, 1)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_limit(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "maxClientCnxns" => {
                self.config.connections_per_address_max = number(value, 0, 1 << 30)? as usize;
            }
            "maxCnxns" => self.config.connections_max = number(value, 0, 1 << 30)? as usize,
            // A frame must at least hold a ConnectRequest; what is logged must stay decodable.
            "jute.maxbuffer" => {
                self.config.frame_length_max = number(value, 1024, 32 << 20)? as usize;
            }
            "globalOutstandingLimit" => {
                self.config.outstanding_max = number(value, 1, 1 << 30)? as usize;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_storage(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "snapCount" => self.config.snapshot_txns = number(value, 2, 1 << 40)?,
            "snapSizeLimitInKb" => {
                let kibibytes = if value.starts_with('-') { 0 } else { number(value, 0, 1 << 40)? };
                self.config.snapshot_log_bytes = kibibytes << 10;
            }
            "preAllocSize" => self.config.log_preallocation = number(value, 1, 1 << 30)? << 10,
            "forceSync" => self.config.force_sync = boolean(value)?,
            "autopurge.snapRetainCount" => {
                self.snapshots_kept = number(value, 1, 1 << 30)?.max(3) as usize;
            }
            "autopurge.purgeInterval" => {
                self.purge_interval_hours =
                    if value.starts_with('-') { 0 } else { number(value, 0, 1 << 20)? };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_behaviour(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "4lw.commands.whitelist" => self.config.four_letter_words = four_letter_words(value),
            "skipACL" => self.config.skip_acl = boolean(value)?,
            "extendedTypesEnabled" => self.config.extended_types = boolean(value)?,
            "enforceQuota" => self.config.enforce_quota = boolean(value)?,
            "standaloneEnabled" => self.config.standalone_enabled = boolean(value)?,
            "reconfigEnabled" => self.config.reconfig_enabled = boolean(value)?,
            "readonlymode.enabled" => self.config.read_only_mode = boolean(value)?,
            "superDigest" | "DigestAuthenticationProvider.superDigest" => {
                if !value.contains(':') {
                    return Err("expected USER:BASE64(SHA1(USER:PASSWORD))".into());
                }
                self.config.super_digest = Some(value.into());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self, file: &str) -> Result<ServerConfig, ConfigError> {
        let mut config = self.config;
        let missing = |key: &str, hint: &str| ConfigError::Missing {
            file: file.to_string(),
            key: key.to_string(),
            hint: hint.to_string(),
        };
        if self.ssl_quorum || self.port_unification {
            let files = self.quorum_tls.finish(self.reload_quorum_files);
            let files = files.map_err(|(key, hint)| missing(&key, &hint))?;
            config.quorum_tls = Some(QuorumTlsConfig {
                files,
                dials: self.ssl_quorum,
                takes_plain: self.port_unification,
            });
        }
        if config.data_dir.as_os_str().is_empty() {
            return Err(missing("dataDir", "add dataDir=DIRECTORY, where the data is kept"));
        }
        let in_members = config.members.iter().any(|member| member.client_address.is_some());
        match self.client_port {
            Some(port) => config.client_address = SocketAddr::new(self.client_ip, port),
            None if in_members => {}
            None => return Err(missing("clientPort", "add clientPort=2181")),
        }
        // Clients of a read-only replica look for a better one with it.
        if config.read_only_mode
            && let FourLetterWords::Listed(words) = &mut config.four_letter_words
            && !words.iter().any(|word| word == "isro")
        {
            words.push("isro".into());
        }
        config.admin_address = self.admin_enabled.then_some(self.admin_address);
        config.session_timeout_min = self.session_timeout_min.unwrap_or(config.tick * 2);
        config.session_timeout_max = self.session_timeout_max.unwrap_or(config.tick * 20);
        if config.session_timeout_min > config.session_timeout_max {
            let reason = format!(
                "minSessionTimeout is {} ms and maxSessionTimeout {} ms: expected the first not \
                 to be greater",
                config.session_timeout_min.as_millis(),
                config.session_timeout_max.as_millis()
            );
            return Err(ConfigError::Contradiction { file: file.into(), reason });
        }
        config.purge = (self.purge_interval_hours > 0).then(|| PurgePolicy {
            snapshots_kept: self.snapshots_kept,
            interval: Duration::from_secs(self.purge_interval_hours * 3600),
        });
        Ok(config)
    }
}

fn directory(value: &str) -> Result<PathBuf, String> {
    if value.is_empty() { Err("expected a directory".into()) } else { Ok(PathBuf::from(value)) }
}

fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| "expected a port number from 0 to 65535".into())
}

fn address(value: &str) -> Result<IpAddr, String> {
    let parsed = value.trim_matches(['[', ']']).parse();
    parsed
        .or_else(|_| resolve(value))
        .map_err(|_| "expected an IP address of this machine, such as 127.0.0.1".into())
}

fn resolve(host: &str) -> Result<IpAddr, std::io::Error> {
    use std::net::ToSocketAddrs;
    let mut addresses = (host, 0).to_socket_addrs()?;
    addresses.next().map(|address| address.ip()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

/// Reads a whole number in decimal or, after `0x`, in hexadecimal.
fn number(value: &str, least: u64, most: u64) -> Result<u64, String> {
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    };
    let expected = || format!("expected a whole number from {least} to {most}");
    parsed.filter(|number| (least..=most).contains(number)).ok_or_else(expected)
}

fn milliseconds(value: &str, least: u64) -> Result<Duration, String> {
    let most = i32::MAX as u64;
    let parsed = number(value, least, most);
    parsed
        .map(Duration::from_millis)
        .map_err(|_| format!("expected a whole number of milliseconds from {least} to {most}"))
}

pub(super) fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" => Ok(true),
        "false" | "no" => Ok(false),
        _ => Err("expected true, false, yes or no".into()),
    }
}

fn four_letter_words(value: &str) -> FourLetterWords {
    let words: Vec<String> =
        value.split(',').map(|word| word.trim().to_string()).filter(|w| !w.is_empty()).collect();
    if words.iter().any(|word| word == "*") {
        FourLetterWords::All
    } else {
        FourLetterWords::Listed(words)
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::parse;
    use super::*;

    const LEAST: &str = "dataDir=/d\nclientPort=2181\n";

    fn load(more: &str) -> Result<LoadedConfig, ConfigError> {
        interpret("zoo.cfg", &parse(&format!("{LEAST}{more}")))
    }

    #[test]
    fn the_usual_keys_are_taken() {
        let more = "tickTime=1000\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\nsnapCount=500\n\
                    minSessionTimeout=-1\nmaxSessionTimeout=90000\njute.maxbuffer=0xfffff\n\
                    4lw.commands.whitelist=stat, ruok\nforceSync=no\nskipACL=yes\n\
                    autopurge.snapRetainCount=1\nautopurge.purgeInterval=24\n\
                    zookeeper.DigestAuthenticationProvider.superDigest=super:x=\n";
        let LoadedConfig { config, warnings } = load(more).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.client_address, "127.0.0.1:2181".parse().unwrap());
        assert_eq!(config.session_timeout_min, Duration::from_secs(2));
        assert_eq!(config.session_timeout_max, Duration::from_secs(90));
        assert_eq!(config.frame_length_max, 0xf_ffff);
        assert!(config.four_letter_words.allows("ruok"));
        assert!(!config.four_letter_words.allows("srvr"));
        assert!(!config.force_sync && config.skip_acl);
        let interval = Duration::from_secs(86_400);
        assert_eq!(config.purge, Some(PurgePolicy { snapshots_kept: 3, interval }));
        assert_eq!(config.super_digest.as_deref(), Some("super:x="));
    }

    #[test]
    fn read_only_mode_lets_clients_ask_for_it() {
        let config = load("readonlymode.enabled=true\n").unwrap().config;
        assert!(config.read_only_mode && config.four_letter_words.allows("isro"));
        assert!(!load("").unwrap().config.four_letter_words.allows("isro"));
    }

    #[test]
    fn unknown_and_unbuilt_keys_are_warned_of_by_name_and_line() {
        let warnings = load("tickTim=5\nadmin.idleTimeout=5\n").unwrap().warnings;
        assert_eq!(
            warnings,
            [
                "zoo.cfg:3: tickTim is not a key znoded knows; it is ignored",
                "zoo.cfg:4: admin.idleTimeout has no effect in this version",
            ]
        );
    }

    #[test]
    fn wrong_values_name_file_line_key_value_and_what_is_expected() {
        for (line, expected) in [
            ("tickTime=abc", "expected a whole number of milliseconds"),
            ("tickTime=0", "expected a whole number of milliseconds"),
            ("maxClientCnxns=-1", "expected a whole number"),
            ("clientPort=70000", "expected a port number"),
            ("clientPortAddress=not an address", "expected an IP address"),
            ("forceSync=maybe", "expected true, false, yes or no"),
            ("server.0=h:1:2", "expected 1 to 255"),
            ("server.1=h", "expected HOST:QUORUM_PORT"),
            ("jute.maxbuffer=10", "expected a whole number from 1024"),
            ("superDigest=x", "expected USER:"),
        ] {
            let message = load(line).unwrap_err().to_string();
            let place = format!("zoo.cfg:3: {line}: ");
            assert!(message.starts_with(&place) && message.contains(expected), "{message}");
        }
        assert!(
            load("server.1=h:1:2\nserver.1=h:1:2\n").unwrap_err().to_string().contains("twice")
        );
    }

    #[test]
    fn what_is_missing_or_contradictory_is_named() {
        let missing = interpret("zoo.cfg", &parse("clientPort=1")).unwrap_err().to_string();
        assert!(missing.starts_with("zoo.cfg: dataDir is missing"), "{missing}");
        let missing = interpret("zoo.cfg", &parse("dataDir=/d")).unwrap_err().to_string();
        assert!(missing.starts_with("zoo.cfg: clientPort is missing"), "{missing}");
        let message = load("minSessionTimeout=50000\nmaxSessionTimeout=4000\n").unwrap_err();
        assert!(message.to_string().contains("minSessionTimeout is 50000 ms"), "{message}");
    }
}
