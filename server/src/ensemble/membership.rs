//! Who belongs to the ensemble, as this replica knows it: found on disk at the start, kept on disk when
//! it changes, and turned into addresses to dial and to listen on. When a change is decided, and by
//! whom, is `zab::reconfiguration`.
//!
//! At a start the newest of these counts: the file `configuration`, which holds the last one known to
//! be committed and is replaced as a whole before the commit is delivered; the snapshot's
//! `/zookeeper/config`; the log. Whatever else the log ends with, its last reconfiguration may not be
//! committed: then both decide. The server lines of the configuration file count as version 0: until
//! there is any other, and for this replica's own ports while it is no member. They are kept as well, so
//! that a replica that is started alone later knows that it was not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{info, warn};
use znodefs::Zxid;

use super::driver::Driver;
use super::outside::Peers;
use super::start::{host_port, resolve};
use crate::config::ServerConfig;
use crate::config::ensemble::{
    self, HostPort, Member, MemberRole, member_lines, parse_members, parse_version,
};
use crate::link::Plane;
use crate::persistence::file_header::{FileHeader, FileKind};
use crate::persistence::{EnsembleId, EpochError, Storage, StorageError, small_file};
use crate::replica::core_thread::CoreResult;
use crate::request_processor::EnsembleView;
use crate::server::{Disks, StartError};
use crate::tree::{CONFIG_PATH, DataTree};
use crate::txn;
use crate::zab::{Ensemble, Entry, QuorumVerifier, RoleKind, ServerId};

/// The file that holds the committed configuration.
const CONFIGURATION_NAME: &str = "configuration";

/// The configuration that an entry of the log makes, if any.
pub(super) fn read_configuration(entry: &Entry) -> Option<Ensemble> {
    let (version, lines) = txn::reconfiguration(&entry.payload)?;
    Some(described(version, lines))
}

/// A configuration from its text.
fn described(version: Zxid, lines: String) -> Ensemble {
    let members = parse_members(&lines).unwrap_or_else(|error| {
        // The request processor wrote it.
        warn!("configuration {version} cannot be understood: {error}");
        Vec::new()
    });
    let of = |role: MemberRole| {
        let members = members.iter().filter(move |member| member.role == role);
        members.map(|member| ServerId(u32::from(member.server_id.0)))
    };
    Ensemble::new(version, of(MemberRole::Participant), of(MemberRole::Observer)).described(lines)
}

/// The members of a configuration, with their addresses.
pub(super) fn members_of(ensemble: &Ensemble) -> Vec<Member> {
    // It was understood when it was made.
    parse_members(ensemble.description()).unwrap_or_default()
}

/// The configuration of the server lines. This replica's own line names its client port as well, even
/// if only `clientPort` does.
pub(super) fn of_server_lines(config: &ServerConfig) -> Ensemble {
    let mut members = config.members.clone();
    members.sort_by_key(|member| member.server_id);
    let own = members.iter_mut().find(|member| member.server_id == config.server_id);
    if let Some(own) = own.filter(|own| own.client_address.is_none() && config.reconfig_enabled) {
        let address = config.client_address;
        own.client_address =
            Some(HostPort { host: address.ip().to_string(), port: address.port() });
    }
    described(Zxid::ZERO, member_lines(&members))
}

/// What a start found.
pub(super) struct RecoveredMembership {
    /// The newest configuration that is certainly committed.
    pub committed: Ensemble,
    /// The log's last one, if it is newer.
    pub proposed: Option<Ensemble>,
}

/// Finds the configuration on disk. `tree` is what was restored, `delivered` what it contains.
pub(super) fn recover(
    config: &ServerConfig,
    disks: &Disks,
    storage: &Storage,
    tree: &DataTree,
    delivered: Zxid,
) -> Result<RecoveredMembership, StartError> {
    let lines = of_server_lines(config);
    let mut found = vec![lines.clone()];
    if let Some(identity) = storage.identity() {
        // Of version 0 it tells what the server lines were; what they are counts.
        let kept = read(disks, identity.ensemble_id)?.filter(|kept| kept.version > Zxid::ZERO);
        let own = ServerId(u32::from(config.server_id.0));
        if kept.is_none() && lines.voters() == [own] {
            check_alone(config, disks, identity.ensemble_id)?;
        }
        found.extend(kept);
    }
    found.extend(shown_in(tree));
    let mut logged = Vec::new();
    storage.replay_after(delivered, |_, payload| {
        logged
            .extend(txn::reconfiguration(payload).map(|(version, text)| described(version, text)));
        Ok(())
    })?;
    let last = logged.pop();
    found.append(&mut logged);
    // Of equal ones the last: there are only equal ones of version 0.
    let committed = found.into_iter().max_by_key(|one| one.version).unwrap_or_default();
    let proposed = last.filter(|last| last.version > committed.version);
    if committed.version > Zxid::ZERO && committed.description() != lines.description() {
        info!(
            "the members are those of configuration {:x}, not those of the server lines: {}",
            committed.version.0,
            one_line(&committed)
        );
    }
    if let Some(proposed) = &proposed {
        info!(
            "the log ends with configuration {:x}, which may not be committed: {}",
            proposed.version.0,
            one_line(proposed)
        );
    }
    Ok(RecoveredMembership { committed, proposed })
}

/// The configuration that `/zookeeper/config` shows, if a reconfiguration has made it.
fn shown_in(tree: &DataTree) -> Option<Ensemble> {
    let data = tree.node(CONFIG_PATH)?.data().map(<[u8]>::to_vec)?;
    let text = String::from_utf8(data).ok()?;
    let version = parse_version(&text).filter(|version| *version > Zxid::ZERO)?;
    let members = parse_members(&text).ok().filter(|members| !members.is_empty())?;
    Some(described(version, member_lines(&members)))
}

fn read(disks: &Disks, ensemble_id: EnsembleId) -> Result<Option<Ensemble>, StartError> {
    let kind = FileKind::Configuration;
    let found = small_file::read(&*disks.data, CONFIGURATION_NAME, kind, Some(ensemble_id))
        .map_err(|error| StartError::Storage(EpochError::File(error).into()))?;
    let Some((header, payload)) = found else { return Ok(None) };
    let lines = String::from_utf8(payload).unwrap_or_default();
    Ok(Some(described(header.zxid, lines)))
}

/// Keeps the committed configuration, if it is not kept already; durable when it returns.
pub(super) fn keep(
    disks: &Disks,
    ensemble_id: EnsembleId,
    ensemble: &Ensemble,
) -> Result<(), StorageError> {
    let (kind, zxid) = (FileKind::Configuration, ensemble.version);
    let header = FileHeader { kind, flags: 0, ensemble_id, generation: 0, zxid };
    let text = ensemble.description().as_bytes();
    let kept = small_file::read(&*disks.data, CONFIGURATION_NAME, kind, Some(ensemble_id));
    if matches!(kept, Ok(Some((found, payload))) if found == header && payload == text) {
        return Ok(());
    }
    Ok(small_file::replace(&*disks.data, CONFIGURATION_NAME, &header, text)?)
}

/// Refuses to let a replica decide alone on the data of an ensemble that had other voters when it was
/// last at work: two histories would come of one.
pub(crate) fn check_alone(
    config: &ServerConfig,
    disks: &Disks,
    ensemble_id: EnsembleId,
) -> Result<(), StartError> {
    let Some(kept) = read(disks, ensemble_id)? else { return Ok(()) };
    let own = ServerId(u32::from(config.server_id.0));
    if kept.voters().iter().all(|voter| *voter == own) {
        return Ok(());
    }
    let voters: Vec<String> = kept.voters().iter().map(|voter| format!("server.{voter}")).collect();
    let path = disks.data.path().to_owned();
    Err(StartError::NotAlone { path, voters: voters.join(" ") })
}

fn one_line(ensemble: &Ensemble) -> String {
    ensemble.description().trim_end().replace('\n', ", ")
}

/// The port of one of a member's addresses.
type PortOf = fn(&(String, u16, u16)) -> u16;

/// The other members of all configurations that count, each with where it listens: first where it
/// will, then where it did.
pub(super) fn peers(
    quorum: &QuorumVerifier,
    own: ServerId,
    port_of: PortOf,
) -> HashMap<ServerId, Vec<String>> {
    let mut peers: HashMap<ServerId, Vec<String>> = HashMap::new();
    for ensemble in [quorum.last_seen(), quorum.committed()] {
        for member in members_of(ensemble) {
            let id = ServerId(u32::from(member.server_id.0));
            if id == own {
                continue;
            }
            let known = peers.entry(id).or_default();
            for address in &member.addresses {
                let address = host_port(&address.0, port_of(address));
                if !known.contains(&address) {
                    known.push(address);
                }
            }
        }
    }
    peers
}

/// The ports that a member's line names; those for clients are of no plane.
fn ports(member: &Member) -> Vec<(Option<Plane>, u16)> {
    let of_peers = member.addresses.iter().flat_map(|(_, quorum, election)| {
        [(Some(Plane::Quorum), *quorum), (Some(Plane::Election), *election)]
    });
    of_peers.chain(member.client_address.iter().map(|address| (None, address.port))).collect()
}

/// This replica's own line: of the newest configuration that has one, or of the configuration file.
pub(super) fn own_member(config: &ServerConfig, quorum: &QuorumVerifier) -> Option<Member> {
    let is_own = |member: &Member| member.server_id == config.server_id;
    let mut known = members_of(quorum.last_seen());
    known.extend(members_of(quorum.committed()));
    known.extend(config.members.iter().cloned());
    known.into_iter().find(is_own)
}

impl Driver {
    fn own_id(&self) -> ServerId {
        ServerId(u32::from(self.service.config.server_id.0))
    }

    /// Other replicas decide from now on.
    pub(super) fn configure(&mut self, quorum: &QuorumVerifier) -> CoreResult {
        let own = self.own_id();
        self.outside.set_peers(Peers {
            quorum: peers(quorum, own, |address| address.1),
            election: peers(quorum, own, |address| address.2),
        });
        if let Some(own) = own_member(&self.service.config, quorum) {
            self.listen(&own);
        }
        let committed = quorum.committed();
        if !quorum.is_joint() {
            self.leave_former_ports(committed);
        }
        if committed.version == self.configured {
            return Ok(());
        }
        let is_member = committed.contains(self.own_id());
        let was_member = std::mem::replace(&mut self.is_member, is_member);
        let before = std::mem::replace(&mut self.configured, committed.version);
        self.disk
            .keep_configuration(committed)
            .map_err(|error| format!("the configuration cannot be kept: {error}"))?;
        info!("configuration {:x} is in force: {}", committed.version.0, one_line(committed));
        match (was_member, is_member) {
            (true, false) if before == Zxid::ZERO => info!(
                "this replica is no member yet: it learns without a vote until it is added with \
                 `znode reconfig --add`"
            ),
            (true, false) => warn!(
                "this replica is no member anymore: it has no vote and goes on learning; stop it, or \
                 add it again with `znode reconfig --add`"
            ),
            (false, true) => info!("this replica is a member from now on"),
            _ => {}
        }
        Ok(())
    }

    /// Takes no more connections on ports that its own line named before and does not name now: who has
    /// not heard of the new ones is told by the others. Connections that there are stay.
    fn leave_former_ports(&mut self, committed: &Ensemble) {
        let own = self.own_id();
        let is_own = |member: &Member| u32::from(member.server_id.0) == own.0;
        let Some(now) = members_of(committed).into_iter().find(is_own) else { return };
        let Some(before) = self.own_line.replace(now.clone()) else { return };
        for (plane, port) in ports(&before) {
            if ports(&now).iter().any(|(_, kept)| *kept == port) {
                continue;
            }
            let ended = match plane {
                Some(plane) => self.outside.end_listening(plane, port),
                None => self.outside.end_listening_for_clients(&self.service, port),
            };
            self.listening.retain(|name| !name.ends_with(&format!(":{port}")));
            if ended {
                info!("this replica does not listen on port {port} anymore");
            }
        }
    }

    /// Keeps the members that the server lines name, unless there are others.
    pub(super) fn keep_first_configuration(&mut self) -> CoreResult {
        let committed = self.zab.quorum().committed().clone();
        if committed.version > Zxid::ZERO {
            return Ok(());
        }
        let kept = self.disk.keep_first_configuration(&committed);
        kept.map_err(|error| format!("the members cannot be written down: {error}"))
    }

    /// Listens on addresses of this replica's own line that are new.
    fn listen(&mut self, own: &Member) {
        let Some((host, quorum, election)) = own.addresses.first() else { return };
        let outside = Arc::clone(&self.outside);
        self.listen_on(host, *quorum, |address| outside.listen(Plane::Quorum, address));
        self.listen_on(host, *election, |address| outside.listen(Plane::Election, address));
        if let Some(client) = &own.client_address {
            let service = Arc::clone(&self.service);
            self.listen_on(&client.host, client.port, |address| {
                outside.listen_for_clients(&service, address)
            });
        }
    }

    fn listen_on(
        &mut self,
        host: &str,
        port: u16,
        listen: impl FnOnce(SocketAddr) -> std::io::Result<()>,
    ) {
        let name = host_port(host, port);
        if !self.listening.insert(name.clone()) {
            return;
        }
        let address = resolve(host, port).map_err(|error| error.to_string());
        match address.and_then(|address| listen(address).map_err(|error| error.to_string())) {
            Ok(()) => info!("this replica listens on {name} as well"),
            Err(error) => {
                self.listening.remove(&name);
                warn!("this replica cannot listen on {name}: {error}");
            }
        }
    }

    /// Tells the request processor of a leader what it has to know to change the ensemble.
    pub(super) fn show_ensemble(&mut self) {
        if self.zab.role() != RoleKind::Leading {
            return;
        }
        let quorum = self.zab.quorum();
        let (version, changes) = (quorum.committed().version, quorum.is_joint());
        let synced = self.zab.synced();
        let same = self.shown.version == version
            && self.shown.changes == changes
            && self.shown.synced.iter().map(|id| u32::from(id.0)).eq(synced.iter().map(|id| id.0));
        if same && !self.shown.members.is_empty() {
            return;
        }
        // Ids are those of configuration files: 1 to 255.
        let id = |id: &ServerId| ensemble::ServerId(u8::try_from(id.0).unwrap_or_default());
        self.shown = EnsembleView {
            members: members_of(quorum.committed()),
            version,
            changes,
            synced: synced.iter().map(id).collect(),
            standalone_enabled: self.service.config.standalone_enabled,
        };
        self.replica.set_ensemble(self.shown.clone());
    }

    /// A leader of an ensemble that can change makes its configuration a transaction, once: the
    /// server lines of one that is to join must never count as much.
    pub(super) fn propose_first_configuration(&mut self) {
        let committed = self.zab.quorum().committed();
        if self.service.config.reconfig_enabled && committed.version == Zxid::ZERO {
            let lines = committed.description().to_string();
            self.replica.propose_configuration(&lines, &mut self.effects);
        }
    }
}
