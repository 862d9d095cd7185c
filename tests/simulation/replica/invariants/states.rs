//! The history of every znode, by a tree that applies each committed transaction once, in order: what
//! reads must show, what watches must tell, and whether transactions carry what they must.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use znodefs::wire::EventType;
use znodefs::{Stat, Zxid, path};
use znodefs_server::config::ServerConfig;
use znodefs_server::config::ensemble::parse_version;
use znodefs_server::ensemble;
use znodefs_server::tree::{CONFIG_PATH, DataTree};
use znodefs_server::txn::{Change, Txn, TxnBody};

use crate::invariants::{Check, violation};

/// A znode at some point of its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    pub stat: Stat,
    pub data: Option<Bytes>,
    pub children: BTreeSet<String>,
}

/// Every znode's history, and that of its events.
pub struct States {
    tree: DataTree,
    znodes: HashMap<String, Vec<(Zxid, Option<Znode>)>>,
    data_events: HashMap<String, Vec<(Zxid, EventType)>>,
    child_events: HashMap<String, Vec<(Zxid, EventType)>>,
    /// What recursive watches of the root are told.
    all_events: Vec<(Zxid, EventType, String)>,
}

impl States {
    /// The beginning, once [`begin`](Self::begin) was called.
    pub fn new() -> States {
        States {
            tree: DataTree::new(1),
            znodes: HashMap::new(),
            data_events: HashMap::new(),
            child_events: HashMap::new(),
            all_events: Vec::new(),
        }
    }

    /// What is there before the first transaction.
    pub fn begin(&mut self, config: &ServerConfig) {
        ensemble::show_server_lines(config, &mut self.tree);
    }

    /// A number over everything.
    pub fn digest(&self) -> u64 {
        self.tree.digest()
    }

    /// A znode as it was at `zxid`.
    pub fn at(&self, path: &str, zxid: Zxid) -> Option<&Znode> {
        let history = self.znodes.get(path)?;
        let place = history.partition_point(|(changed, _)| *changed <= zxid);
        history.get(place.checked_sub(1)?)?.1.as_ref()
    }

    /// The version of the configuration as of `zxid`; 0 before the first was written down.
    pub fn configuration_at(&self, zxid: Zxid) -> Zxid {
        let data = self.at(CONFIG_PATH, zxid).and_then(|znode| znode.data.as_deref());
        let text = data.and_then(|data| std::str::from_utf8(data).ok());
        text.and_then(parse_version).unwrap_or(Zxid::ZERO)
    }

    /// The first event behind `after` that a watch of the data table, or of the child table, is told.
    pub fn first_event(&self, child: bool, path: &str, after: Zxid) -> Option<(Zxid, EventType)> {
        let events = if child { &self.child_events } else { &self.data_events };
        let events = events.get(path)?;
        events.get(events.partition_point(|(zxid, _)| *zxid <= after)).copied()
    }

    /// The events that a recursive watch of the root is told, from a place in the list on.
    pub fn all_events(&self) -> &[(Zxid, EventType, String)] {
        &self.all_events
    }

    /// Applies a committed transaction, which must fit.
    pub fn apply(&mut self, txn: &Txn) -> Check {
        match &txn.body {
            TxnBody::Change(change) => self.check_change(txn, change)?,
            TxnBody::Multi(_) | TxnBody::Error(_) | TxnBody::MultiError(_) => {}
            TxnBody::CreateSession { .. } | TxnBody::Reconfig { .. } => {}
            TxnBody::CloseSession { ephemerals } => {
                let listed: BTreeSet<&str> = ephemerals.iter().map(String::as_str).collect();
                let owned: Vec<String> = self.tree.ephemerals(txn.session_id).collect();
                if let Some(left) = owned.iter().find(|path| !listed.contains(path.as_str())) {
                    let detail = format!("{} ends at {} without {left}", txn.session_id, txn.zxid);
                    return violation("a session takes its ephemerals along", detail);
                }
            }
        }
        self.tree.apply(txn, &mut |_| {});
        let mut touched = BTreeSet::new();
        match &txn.body {
            TxnBody::Change(change) => self.note(txn.zxid, change, &mut touched),
            TxnBody::Multi(changes) => {
                changes.iter().for_each(|change| self.note(txn.zxid, change, &mut touched));
            }
            TxnBody::Reconfig { .. } => {
                self.raise(txn.zxid, EventType::NodeDataChanged, CONFIG_PATH);
                touched.insert(CONFIG_PATH.to_owned());
            }
            TxnBody::CloseSession { ephemerals } => {
                for path in ephemerals {
                    self.note(txn.zxid, &Change::Delete { path: path.clone() }, &mut touched);
                }
            }
            _ => {}
        }
        for path in touched {
            let znode = self.tree.node(&path).map(|node| Znode {
                stat: node.stat(),
                data: node.data().map(Bytes::copy_from_slice),
                children: node.children().map(str::to_owned).collect(),
            });
            self.znodes.entry(path).or_default().push((txn.zxid, znode));
        }
        Ok(())
    }

    /// A change is made for the state that it meets.
    fn check_change(&self, txn: &Txn, change: &Change) -> Check {
        let zxid = txn.zxid;
        let fits = match change {
            Change::Create { path, ephemeral_owner, .. } => {
                let parent = path::parent(path).and_then(|parent| self.tree.node(parent));
                let open = self.tree.session_timeout_ms(txn.session_id).is_some();
                self.tree.node(path).is_none()
                    && parent.is_some_and(|parent| !parent.is_ephemeral())
                    && (*ephemeral_owner != txn.session_id.0 || open)
            }
            Change::Delete { path } => {
                self.tree.node(path).is_some_and(|node| node.num_children() == 0)
            }
            Change::SetData { path, version, .. } => {
                self.tree.node(path).is_some_and(|node| node.stat().version + 1 == *version)
            }
            Change::SetAcl { path, .. } => self.tree.node(path).is_some(),
            Change::Check => true,
        };
        // The replica's own changes have no session.
        let open = txn.session_id.0 == 0 || self.tree.session_timeout_ms(txn.session_id).is_some();
        match (fits, open) {
            (true, true) => Ok(()),
            (true, false) => violation(
                "nothing of a session takes effect after its end",
                format!("{zxid}: {change:?} of {}", txn.session_id),
            ),
            _ => violation("a change fits the state it meets", format!("{zxid}: {change:?}")),
        }
    }

    fn note(&mut self, zxid: Zxid, change: &Change, touched: &mut BTreeSet<String>) {
        match change {
            Change::Create { path, .. } | Change::Delete { path } => {
                let created = matches!(change, Change::Create { .. });
                let event = if created { EventType::NodeCreated } else { EventType::NodeDeleted };
                self.raise(zxid, event, path);
                if !created {
                    self.child_events.entry(path.clone()).or_default().push((zxid, event));
                }
                if let Some(parent) = path::parent(path) {
                    let changed = (zxid, EventType::NodeChildrenChanged);
                    self.child_events.entry(parent.to_owned()).or_default().push(changed);
                    touched.insert(parent.to_owned());
                }
                touched.insert(path.clone());
            }
            Change::SetData { path, .. } => {
                self.raise(zxid, EventType::NodeDataChanged, path);
                touched.insert(path.clone());
            }
            Change::SetAcl { path, .. } => {
                touched.insert(path.clone());
            }
            Change::Check => {}
        }
    }

    fn raise(&mut self, zxid: Zxid, event: EventType, path: &str) {
        self.data_events.entry(path.to_owned()).or_default().push((zxid, event));
        self.all_events.push((zxid, event, path.to_owned()));
    }
}
