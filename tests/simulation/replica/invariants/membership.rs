//! Who belongs to the ensemble: a reconfiguration is committed by a quorum of the old members and one
//! of the new ones, what follows it by one of the new ones, and who has delivered it goes by it.

use std::collections::BTreeMap;

use znodefs::Zxid;
use znodefs_server::config::ensemble::{Member, MemberRole, parse_members};
use znodefs_server::txn::{self, Txn, TxnBody};
use znodefs_server::zab::Entry;

use crate::invariants::{Check, violation};
use crate::replica::plan::Plan;

/// A configuration of the ensemble.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// The zxid that made it; 0 for the founders.
    pub version: Zxid,
    pub members: Vec<Member>,
}

impl Configuration {
    /// The nodes that vote.
    pub fn voters(&self) -> impl Iterator<Item = usize> + '_ {
        let votes = |member: &&Member| member.role == MemberRole::Participant;
        self.members.iter().filter(votes).map(Plan::node_of)
    }

    /// Whether a node votes.
    pub fn is_voter(&self, node: usize) -> bool {
        self.voters().any(|voter| voter == node)
    }

    /// Whether the nodes for which this holds are a quorum.
    pub fn has_quorum(&self, holds: impl Fn(usize) -> bool) -> bool {
        self.voters().filter(|node| holds(*node)).count() > self.voters().count() / 2
    }
}

/// Every configuration there was, and those that may come.
pub struct Membership {
    /// Oldest first.
    committed: Vec<Configuration>,
    proposed: BTreeMap<Zxid, Configuration>,
    /// What somebody has asked for, with the version that it is to follow.
    wanted: Vec<(Zxid, Configuration)>,
}

impl Membership {
    /// The ensemble begins with its founders.
    pub fn new(founders: Vec<Member>) -> Membership {
        let first = Configuration { version: Zxid::ZERO, members: founders };
        Membership { committed: vec![first], proposed: BTreeMap::new(), wanted: Vec::new() }
    }

    /// How often the ensemble has changed; that the founders are written down is no change.
    pub fn changes(&self) -> u64 {
        self.committed.len().saturating_sub(2) as u64
    }

    /// The configuration in force.
    pub fn newest(&self) -> &Configuration {
        &self.committed[self.committed.len() - 1]
    }

    /// The configuration in force, and all that may follow it.
    pub fn possible(&self) -> impl Iterator<Item = &Configuration> {
        let newest = self.newest();
        let wanted = self.wanted.iter().map(|(_, configuration)| configuration);
        let proposed = self.proposed.values().filter(|one| one.version > newest.version);
        [newest].into_iter().chain(proposed).chain(wanted)
    }

    /// Somebody asks for this instead of the one in force.
    pub fn wants(&mut self, members: Vec<Member>) {
        let version = self.newest().version;
        self.wanted.push((version, Configuration { version, members }));
    }

    /// A member appends these to its log.
    pub fn appended(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some((version, lines)) = txn::reconfiguration(&entry.payload) {
                let members = parse_members(&lines).unwrap_or_default();
                self.proposed.insert(version, Configuration { version, members });
            }
        }
    }

    /// A transaction is committed.
    pub fn committed(&mut self, txn: &Txn) {
        if let TxnBody::Reconfig { members, .. } = &txn.body {
            let members = parse_members(members).unwrap_or_default();
            self.committed.push(Configuration { version: txn.zxid, members });
            // Each asks for what is to follow a certain version.
            self.wanted.retain(|(version, _)| *version >= txn.zxid);
            self.proposed = self.proposed.split_off(&txn.zxid);
        }
    }

    /// What was committed behind `before` and up to `last` is durable at the quorums that it needs,
    /// where `durable` says how much a node has on its disk.
    pub fn check_quorum(&self, before: Zxid, last: Zxid, durable: impl Fn(usize) -> Zxid) -> Check {
        let durable_at_quorum = |configuration: &Configuration, zxid: Zxid| {
            if configuration.has_quorum(|node| durable(node) >= zxid) {
                return Ok(());
            }
            let holders: Vec<usize> =
                configuration.voters().filter(|node| durable(*node) >= zxid).collect();
            let voters: Vec<usize> = configuration.voters().collect();
            let detail = format!("{zxid} is committed, and durable at {holders:?} of {voters:?}");
            violation("what is committed is durable at a quorum", detail)
        };
        let pairs = self.committed.windows(2).rev();
        for pair in pairs.take_while(|pair| pair[1].version > before) {
            durable_at_quorum(&pair[0], pair[1].version)?;
        }
        durable_at_quorum(self.newest(), last)
    }

    /// A member that has delivered `delivered` goes by the configuration of version `known`; somebody
    /// has delivered everything up to `last`, and what is behind that may be committed as well.
    pub fn check_known(&self, node: usize, delivered: Zxid, known: Zxid, last: Zxid) -> Check {
        let place = self.committed.partition_point(|one| one.version <= delivered);
        let due = self.committed[place - 1].version;
        if known < due {
            let detail = format!("node {node} at {delivered} goes by {known}, not {due}");
            return violation("a member goes by the configuration it has delivered", detail);
        }
        match self.committed.binary_search_by_key(&known, |one| one.version) {
            Ok(_) => Ok(()),
            Err(_) if known > last => Ok(()),
            Err(_) => {
                let detail = format!("node {node} takes configuration {known} for committed");
                violation("a configuration in force is committed", detail)
            }
        }
    }
}
