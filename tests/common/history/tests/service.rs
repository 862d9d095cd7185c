//! A coordination service in memory, small enough to be seen to be right, and with faults that can be
//! switched on. It lets clients record what they see of it. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use znodefs::path::parent;
use znodefs::wire::{EventType, KeeperState, WatchedEvent};
use znodefs::{ErrorCode, SessionId, Stat, Zxid};

use crate::history::{Call, ClientId, History, OperationId, Outcome, Reply, Value, Write, Written};

/// A promise that the service breaks, once in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    LosesAcknowledged,
    DoesTwice,
    DoesWhatItRefuses,
    GoesBackInTime,
    SkipsOnOneReplica,
    MissesEvent,
    TellsTwice,
    TellsAfterReply,
    KeepsEphemerals,
    DropsEphemerals,
    SyncsWithoutCatchingUp,
    TearsMulti,
    DoesLateAfterOthers,
    InventsData,
    RefusesWithoutReason,
    ForgetsWatchesAtReturn,
    LosesPzxid,
}

impl Fault {
    pub const ALL: [Fault; 17] = [
        Fault::LosesAcknowledged,
        Fault::DoesTwice,
        Fault::DoesWhatItRefuses,
        Fault::GoesBackInTime,
        Fault::SkipsOnOneReplica,
        Fault::MissesEvent,
        Fault::TellsTwice,
        Fault::TellsAfterReply,
        Fault::KeepsEphemerals,
        Fault::DropsEphemerals,
        Fault::SyncsWithoutCatchingUp,
        Fault::TearsMulti,
        Fault::DoesLateAfterOthers,
        Fault::InventsData,
        Fault::RefusesWithoutReason,
        Fault::ForgetsWatchesAtReturn,
        Fault::LosesPzxid,
    ];
}

#[derive(Clone, Debug)]
enum Change {
    Create { path: String, data: Value, owner: SessionId },
    Set { path: String, data: Value },
    Delete { path: String },
}

#[derive(Clone, Debug, Default)]
struct Tree {
    nodes: BTreeMap<String, (Stat, Value)>,
    counters: BTreeMap<String, u32>,
    applied: usize,
}

impl Tree {
    fn change(&mut self, change: &Change, zxid: Zxid, loses_pzxid: bool) -> Option<Stat> {
        let (path, step) = match change {
            Change::Create { path, data, owner } => {
                let data_length = data.as_ref().map_or(0, |data| data.len() as i32);
                let stat = Stat {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ephemeral_owner: *owner,
                    data_length,
                    ..Stat::default()
                };
                self.nodes.insert(path.clone(), (stat, data.clone()));
                (path, 1)
            }
            Change::Set { path, data } => {
                let (stat, value) = self.nodes.get_mut(path)?;
                stat.mzxid = zxid;
                stat.version += 1;
                stat.data_length = data.as_ref().map_or(0, |data| data.len() as i32);
                *value = data.clone();
                return Some(*stat);
            }
            Change::Delete { path } => {
                self.nodes.remove(path)?;
                (path, -1)
            }
        };
        let above = parent(path).unwrap_or("/").to_string();
        if let Some((stat, _)) = self.nodes.get_mut(&above) {
            stat.num_children += step;
            stat.cversion += 1;
            if !loses_pzxid {
                stat.pzxid = zxid;
            }
        }
        if step == 1 {
            *self.counters.entry(above).or_default() += 1;
        }
        self.nodes.get(path).map(|(stat, _)| *stat)
    }

    fn children(&self, path: &str) -> Vec<String> {
        let below = self.nodes.keys().filter(|other| parent(other) == Some(path));
        below.map(|child| znodefs::path::name(child).to_string()).collect()
    }
}

/// Watches of a client, by table (data, children) and path.
type Watches = BTreeSet<(bool, String)>;

#[derive(Debug)]
struct Attached {
    session: SessionId,
    replica: usize,
    watches: Watches,
    late: Vec<WatchedEvent>,
    last_zxid: Zxid,
}

/// The service, its clients, and what they saw.
pub struct Service {
    pub history: History,
    leader: Tree,
    log: Vec<(Zxid, Vec<Change>)>,
    /// When each znode came and went.
    presence: BTreeMap<String, Vec<(Zxid, bool)>>,
    replicas: Vec<Tree>,
    clients: BTreeMap<ClientId, Attached>,
    fault: Option<Fault>,
    next_session: i64,
    now: Duration,
}

impl Service {
    pub fn new(replicas: usize) -> Service {
        Service {
            history: History::new(),
            leader: Tree::default(),
            log: Vec::new(),
            presence: BTreeMap::new(),
            replicas: vec![Tree::default(); replicas],
            clients: BTreeMap::new(),
            fault: None,
            next_session: 1,
            now: Duration::ZERO,
        }
    }

    /// From now on this goes wrong at the next occasion.
    pub fn break_next(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    pub fn breaks(&mut self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.fault.take().is_some()
    }

    fn tick(&mut self) -> Duration {
        self.now += Duration::from_millis(1);
        self.now
    }

    pub fn clients(&self) -> Vec<ClientId> {
        self.clients.keys().copied().collect()
    }

    pub fn open(&mut self, replica: usize) -> ClientId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        // A session's beginning is a transaction too.
        self.append(Zxid(self.log.len() as i64 + 1), Vec::new());
        self.catch_up(replica, usize::MAX);
        let client = self.history.client();
        let (watches, late, last_zxid) = Default::default();
        self.clients.insert(client, Attached { session, replica, watches, late, last_zxid });
        let at = self.tick();
        self.history.opened(client, at, session);
        client
    }

    /// A replica applies up to `count` entries.
    pub fn catch_up(&mut self, replica: usize, count: usize) {
        for _ in 0..count {
            let Some((zxid, changes)) = self.log.get(self.replicas[replica].applied).cloned()
            else {
                return;
            };
            self.replicas[replica].applied += 1;
            if !changes.is_empty() && self.breaks(Fault::SkipsOnOneReplica) {
                continue;
            }
            for change in &changes {
                self.replicas[replica].change(change, zxid, false);
            }
            self.notify(replica, zxid, &changes);
        }
    }

    fn notify(&mut self, replica: usize, zxid: Zxid, changes: &[Change]) {
        let clients: Vec<ClientId> = self.clients().into_iter().collect();
        for change in changes {
            let (path, event_type) = match change {
                Change::Create { path, .. } => (path, EventType::NodeCreated),
                Change::Set { path, .. } => (path, EventType::NodeDataChanged),
                Change::Delete { path } => (path, EventType::NodeDeleted),
            };
            for client in &clients {
                if self.clients[client].replica != replica {
                    continue;
                }
                let mut tables = vec![(false, path.clone())];
                if event_type == EventType::NodeDeleted {
                    tables.push((true, path.clone()));
                }
                self.fire(*client, &tables, event_type, path, Some(zxid));
                if event_type != EventType::NodeDataChanged {
                    let above = parent(path).unwrap_or("/").to_string();
                    let tables = [(true, above.clone())];
                    let event_type = EventType::NodeChildrenChanged;
                    self.fire(*client, &tables, event_type, &above, Some(zxid));
                }
            }
        }
    }

    fn fire(
        &mut self,
        client: ClientId,
        tables: &[(bool, String)],
        event_type: EventType,
        path: &str,
        zxid: Option<Zxid>,
    ) {
        let attached = self.clients.get_mut(&client).expect("a client");
        let mut fired = false;
        for table in tables {
            fired |= attached.watches.remove(table);
        }
        if !fired || self.breaks(Fault::MissesEvent) {
            return;
        }
        let state = KeeperState::SYNC_CONNECTED;
        let event = WatchedEvent { zxid, event_type, state, path: path.to_string() };
        let at = self.tick();
        if self.breaks(Fault::TellsAfterReply) {
            self.clients.get_mut(&client).expect("a client").late.push(event);
            return;
        }
        self.history.event(client, at, &event);
        if self.breaks(Fault::TellsTwice) {
            self.history.event(client, at, &event);
        }
    }

    pub fn invoke(&mut self, client: ClientId, call: Call) -> OperationId {
        let at = self.tick();
        self.history.invoke_call(client, at, call)
    }

    /// Takes a write in: what the reply will be, once it is applied where the client is.
    pub fn take(&mut self, client: ClientId, call: &Call) -> Outcome {
        let session = self.clients.get(&client).map_or(SessionId(0), |attached| attached.session);
        let zxid = Zxid(self.log.len() as i64 + 1);
        if let Call::Close = call {
            let owned = self.leader.nodes.iter();
            let mut owned: Vec<Change> = owned
                .filter(|(_, (stat, _))| stat.ephemeral_owner == session)
                .map(|(path, _)| Change::Delete { path: path.clone() })
                .collect();
            if !owned.is_empty() && self.breaks(Fault::KeepsEphemerals) {
                owned.pop();
            }
            self.append(zxid, owned);
            return Outcome::Done { zxid, reply: Reply::Done };
        }
        let mut trial = self.leader.clone();
        let (mut changes, mut written) = (Vec::new(), Vec::new());
        let mut refusal = None;
        for (index, write) in call.writes().iter().enumerate() {
            match prepare(&trial, write, session) {
                Ok(change) => {
                    let stat = change.as_ref().and_then(|change| trial.change(change, zxid, false));
                    let path = match &change {
                        Some(Change::Create { path, .. }) => Some(path.clone()),
                        _ => None,
                    };
                    let stat = stat.filter(|_| !matches!(write, Write::Delete { .. }));
                    written.push(Written { path, stat });
                    changes.extend(change);
                }
                Err(error) => {
                    refusal = Some((error, index));
                    break;
                }
            }
        }
        if let Some((error, index)) = refusal {
            if let [Write::SetData { path, data, .. }] = call.writes()
                && self.leader.nodes.contains_key(path)
                && self.breaks(Fault::DoesWhatItRefuses)
            {
                let change = Change::Set { path: path.clone(), data: data.clone() };
                self.append(zxid, vec![change]);
            } else {
                self.append(zxid, Vec::new());
            }
            return Outcome::Failed { zxid, error, index };
        }
        if matches!(call.writes(), [Write::SetData { version: 0.., .. }])
            && self.breaks(Fault::RefusesWithoutReason)
        {
            self.append(zxid, Vec::new());
            return Outcome::Failed { zxid, error: ErrorCode::BadVersion, index: 0 };
        }
        if changes.len() > 1 && self.breaks(Fault::TearsMulti)
            || !changes.is_empty() && self.breaks(Fault::LosesAcknowledged)
        {
            changes.pop();
        }
        let again = changes.clone();
        self.append(zxid, changes);
        if matches!(again.as_slice(), [Change::Set { .. }]) && self.breaks(Fault::DoesTwice) {
            self.append(Zxid(zxid.0 + 1), again);
        }
        Outcome::Done { zxid, reply: Reply::Written(written) }
    }

    fn append(&mut self, zxid: Zxid, changes: Vec<Change>) {
        let loses_pzxid = !changes.is_empty() && self.breaks(Fault::LosesPzxid);
        for change in &changes {
            self.leader.change(change, zxid, loses_pzxid);
            let (path, there) = match change {
                Change::Create { path, .. } => (path, true),
                Change::Delete { path } => (path, false),
                Change::Set { .. } => continue,
            };
            self.presence.entry(path.clone()).or_default().push((zxid, there));
        }
        if loses_pzxid {
            // On every replica alike.
            let applied = self.log.len();
            let replicas: Vec<usize> = (0..self.replicas.len()).collect();
            for replica in replicas {
                self.catch_up(replica, usize::MAX);
                for change in &changes {
                    self.replicas[replica].change(change, zxid, true);
                }
                self.replicas[replica].applied = applied + 1;
                self.notify(replica, zxid, &changes);
            }
        }
        self.log.push((zxid, changes));
    }

    /// The session ends without its client's doing.
    pub fn expire(&mut self, client: ClientId) {
        self.take(client, &Call::Close);
        self.clients.remove(&client);
        let at = self.tick();
        self.history.expired(client, at);
    }

    /// Its client is gone, and so must be its session.
    pub fn must_be_over(&mut self, client: ClientId) {
        let at = self.tick();
        self.history.must_be_over(client, at);
    }

    /// An ephemeral znode goes although its session lives.
    pub fn drop_ephemeral(&mut self) {
        let mut nodes = self.leader.nodes.iter();
        let found = nodes.find(|(_, (stat, _))| stat.ephemeral_owner.0 != 0);
        if let Some(path) = found.map(|(path, _)| path.clone())
            && self.breaks(Fault::DropsEphemerals)
        {
            let zxid = Zxid(self.log.len() as i64 + 1);
            self.append(zxid, vec![Change::Delete { path }]);
        }
    }

    /// The reply reaches the client, once its replica is so far.
    pub fn reply(&mut self, operation: OperationId, outcome: Outcome) {
        let client = self.history.operations[operation.0].client;
        let Some(attached) = self.clients.get(&client) else { return };
        let replica = attached.replica;
        if let Some(zxid) = outcome.zxid() {
            let missing = (zxid.0 as usize).saturating_sub(self.replicas[replica].applied);
            self.catch_up(replica, missing);
        }
        let at = self.tick();
        let attached = self.clients.get_mut(&client).expect("it is attached");
        attached.last_zxid = attached.last_zxid.max(outcome.zxid().unwrap_or_default());
        let late = std::mem::take(&mut attached.late);
        let is_over = self.history.operations[operation.0].call == Call::Close;
        self.history.complete_with(operation, at, outcome);
        late.iter().for_each(|event| self.history.event(client, at, event));
        if is_over {
            self.clients.remove(&client);
        }
    }

    /// Reads where the client is.
    pub fn read(&mut self, client: ClientId, call: &Call) -> Outcome {
        let mut replica = self.clients[&client].replica;
        if *call == Call::Sync && !self.breaks(Fault::SyncsWithoutCatchingUp) {
            self.catch_up(replica, usize::MAX);
        }
        let last = self.clients[&client].last_zxid;
        let behind =
            (0..self.replicas.len()).find(|other| (self.replicas[*other].applied as i64) < last.0);
        if let Some(behind) = behind
            && self.breaks(Fault::GoesBackInTime)
        {
            replica = behind;
        }
        let tree = &self.replicas[replica];
        let zxid = Zxid(tree.applied as i64);
        let no_node = Outcome::Failed { zxid, error: ErrorCode::NoNode, index: 0 };
        let (path, watch) = match call {
            Call::GetData { path, watch }
            | Call::Exists { path, watch }
            | Call::GetChildren { path, watch } => (path.as_str(), *watch),
            _ => return Outcome::Done { zxid, reply: Reply::Done },
        };
        let found = tree.nodes.get(path).cloned();
        let is_child_watch = matches!(call, Call::GetChildren { .. });
        let names = tree.children(path);
        if watch && (found.is_some() || matches!(call, Call::Exists { .. })) {
            let attached = self.clients.get_mut(&client).expect("a client");
            attached.watches.insert((is_child_watch, path.to_string()));
        }
        let Some((stat, mut data)) = found else { return no_node };
        let reply = match call {
            Call::GetData { .. } => {
                if self.breaks(Fault::InventsData) {
                    data = Some(Bytes::from_static(b"nobody's"));
                }
                Reply::Data(data, stat)
            }
            Call::Exists { .. } => Reply::Stat(stat),
            _ => Reply::Children(names, Some(stat)),
        };
        Outcome::Done { zxid, reply }
    }

    /// The connection breaks, and the client finds another replica.
    pub fn move_to(&mut self, client: ClientId, replica: usize) {
        let at = self.tick();
        self.history.disconnected(client, at);
        let rel = self.clients[&client].last_zxid;
        let missing = (rel.0 as usize).saturating_sub(self.replicas[replica].applied);
        self.catch_up(replica, missing);
        let at = self.tick();
        self.history.reconnected(client, at, true);
        let attached = self.clients.get_mut(&client).expect("a client");
        attached.replica = replica;
        attached.late.clear();
        let watches = std::mem::take(&mut attached.watches);
        if !watches.is_empty() && self.breaks(Fault::ForgetsWatchesAtReturn) {
            return;
        }
        for (is_child, path) in watches {
            let found = self.replicas[replica].nodes.get(&path).map(|(stat, _)| *stat);
            let event = match found {
                None if is_child => Some(EventType::NodeDeleted),
                Some(stat) if is_child && stat.pzxid > rel => Some(EventType::NodeChildrenChanged),
                Some(stat) if !is_child && stat.mzxid > rel => Some(EventType::NodeDataChanged),
                // Of an absent one it is not known here whether it was there when the watch was left.
                None if self.was_there(&path, rel) => Some(EventType::NodeDeleted),
                _ => None,
            };
            let key = (is_child, path.clone());
            self.clients.get_mut(&client).expect("a client").watches.insert(key.clone());
            if let Some(event) = event {
                self.fire(client, &[key], event, &path, None);
            }
        }
    }

    fn was_there(&self, path: &str, at: Zxid) -> bool {
        let changes = self.presence.get(path).map_or(&[][..], Vec::as_slice);
        let before = changes.partition_point(|(zxid, _)| *zxid <= at);
        changes[..before].last().is_some_and(|(_, there)| *there)
    }
}

fn prepare(tree: &Tree, write: &Write, session: SessionId) -> Result<Option<Change>, ErrorCode> {
    let has = |path: &str, version: i32| match tree.nodes.get(path) {
        None => Err(ErrorCode::NoNode),
        Some((stat, _)) if version != -1 && version != stat.version => Err(ErrorCode::BadVersion),
        Some(_) => Ok(()),
    };
    Ok(match write {
        Write::Create { path, data, ephemeral, sequential } => {
            let above = parent(path).unwrap_or("/");
            if above != "/" && !tree.nodes.contains_key(above) {
                return Err(ErrorCode::NoNode);
            }
            let counter = tree.counters.get(above).copied().unwrap_or_default();
            let path = if *sequential { format!("{path}{counter:010}") } else { path.clone() };
            if tree.nodes.contains_key(&path) {
                return Err(ErrorCode::NodeExists);
            }
            let owner = if *ephemeral { session } else { SessionId(0) };
            Some(Change::Create { path, data: data.clone(), owner })
        }
        Write::SetData { path, data, version } => {
            has(path, *version)?;
            Some(Change::Set { path: path.clone(), data: data.clone() })
        }
        Write::Delete { path, version } => {
            has(path, *version)?;
            if !tree.children(path).is_empty() {
                return Err(ErrorCode::NotEmpty);
            }
            Some(Change::Delete { path: path.clone() })
        }
        Write::Check { path, version } => {
            has(path, *version)?;
            None
        }
    })
}
