//! Members come, go, and change their role, in the middle of everything else; and whose data may be
//! lost then.

use std::collections::BTreeSet;

use znodefs::Zxid;
use znodefs_server::config::ensemble::{Member, MemberRole, ServerId, member_lines};
use znodefs_server::link::LinkEvent;

use super::ask::Ask;
use super::invariants::membership::Configuration;
use super::plan::Plan;
use super::world::World;
use crate::networked::Networked;

impl World {
    /// Some client asks for a change of the ensemble: one to three nodes come, go, or change their
    /// role. Whether the leader does it, it says itself.
    pub fn reconfigure(&mut self) {
        let count = self.fault_random.between(1, 3);
        let chosen: Vec<(usize, usize)> = (0..count)
            .map(|_| (self.fault_random.below(self.nodes.len()), self.fault_random.below(4)))
            .collect();
        let at_once = self.fault_random.one_in(3);
        let asking: Vec<usize> =
            (0..self.clients.len()).filter(|one| self.clients[*one].is_established()).collect();
        let current = self.invariants.membership.newest();
        if asking.is_empty() || current.version == Zxid::ZERO {
            // The first leader has not written down yet who the founders are.
            return;
        }
        let mut members = current.members.clone();
        for (node, role) in &chosen {
            let id = Plan::member(*node, MemberRole::Observer).server_id;
            members.retain(|member| member.server_id != id);
            match role {
                0 => {}
                1 => members.push(Plan::member(*node, MemberRole::Observer)),
                _ => members.push(Plan::member(*node, MemberRole::Participant)),
            }
        }
        members.sort_by_key(|member| member.server_id);
        let new = Configuration { version: current.version, members };
        // A minority of the voters may be damaged, whoever votes.
        if !new.has_quorum(|node| self.is_whole(node)) {
            return;
        }
        let version = current.version;
        let ask = self.ask_for(&new.members, at_once, version);
        self.invariants.membership.wants(new.members);
        let client = asking[self.fault_random.below(asking.len())];
        self.log.fault(self.agenda.now(), || format!("client {client} asks for other members"));
        self.ask(client, ask);
    }

    /// The request that makes these the members.
    fn ask_for(&self, new: &[Member], at_once: bool, version: Zxid) -> Ask {
        let current = &self.invariants.membership.newest().members;
        let differ = |one: &[Member], other: &[Member]| -> Vec<Member> {
            one.iter().filter(|member| !other.contains(member)).cloned().collect()
        };
        let stays = |id: ServerId| new.iter().any(|member| member.server_id == id);
        let leaving = current.iter().map(|member| member.server_id).filter(|id| !stays(*id));
        let leaving: Vec<String> = leaving.map(|id| id.to_string()).collect();
        Ask::Reconfigure {
            joining: member_lines(&differ(new, current)).trim_end().replace('\n', ","),
            leaving: leaving.join(","),
            members: member_lines(new),
            at_once,
            version,
        }
    }

    /// Whether a node has its data, undamaged.
    fn is_whole(&self, node: usize) -> bool {
        self.nodes[node].adopted.0 > 0 && !self.nodes[node].damaged
    }

    /// Whether a node's data may be lost: a quorum needs its own, whole, and somebody has to know
    /// which configuration is in force, or those that have it in their logs still need the one before.
    pub fn may_lose(&self, node: usize) -> bool {
        let newest = self.invariants.membership.newest().version;
        let knows = |other: usize| self.is_whole(other) && self.nodes[other].configured >= newest;
        if newest > Zxid::ZERO && !(0..self.nodes.len()).any(|other| other != node && knows(other))
        {
            return false;
        }
        self.invariants.membership.possible().all(|configuration| {
            let others_are_enough =
                configuration.has_quorum(|other| other != node && self.is_whole(other));
            !configuration.is_voter(node) || others_are_enough
        })
    }

    /// Whether a node votes, or may soon.
    pub fn may_vote(&self, node: usize) -> bool {
        self.invariants.membership.possible().any(|configuration| configuration.is_voter(node))
    }

    /// Whoever replaces a disk brings the configuration file up to date: it alone says then who the
    /// others are.
    pub fn bring_lines_up_to_date(&mut self, node: usize) {
        self.nodes[node].lines = self.invariants.membership.newest().members.clone();
        self.name_others(node);
    }

    /// A founder's file names nobody but itself. Once there are others it has to name some of them, or
    /// a start on the data of their ensemble is refused.
    pub fn name_others(&mut self, node: usize) {
        let names_others = self.nodes[node].lines.iter().any(|one| Plan::node_of(one) != node);
        if names_others || self.invariants.membership.changes() == 0 {
            return;
        }
        self.nodes[node].lines = self.invariants.membership.newest().members.clone();
        for other in 0..self.nodes.len() {
            let lines = &mut self.nodes[node].lines;
            if lines.iter().all(|one| Plan::node_of(one) != other) {
                lines.push(Plan::member(other, MemberRole::Observer));
            }
        }
    }

    /// A member knows these others from now on. Links to those that it knows no more are closed; who
    /// still knows this member makes them anew.
    pub fn set_peers(&mut self, node: usize, peers: BTreeSet<usize>) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let before = std::mem::replace(&mut process.peers, peers.clone());
        if before == peers {
            return;
        }
        for gone in before.difference(&peers) {
            for (one, other) in [(node, *gone), (*gone, node)] {
                let Some(process) = &mut self.nodes[one].process else { continue };
                if std::mem::take(&mut process.links[other]) {
                    let (peer, reason) = (Plan::id(other), "no member anymore".into());
                    self.tell_of_link(one, LinkEvent::Lost { peer, reason });
                }
            }
        }
        self.look_at_links(node);
    }

    /// Whether a link between two members is made: one has to know where the other listens.
    pub fn are_acquainted(&self, one: usize, other: usize) -> bool {
        self.knows(one, other) || self.knows(other, one)
    }

    /// Whether a member knows where another listens.
    pub fn knows(&self, node: usize, other: usize) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| process.peers.contains(&other))
    }
}
