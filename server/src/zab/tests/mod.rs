//! The protocol's unit tests, one file a phase: set a state, one call, compare the effects. Here is
//! what they share: a replica with a script's hands around it.

mod broadcast;
mod discovery;
mod full_disk;
mod known_failures;
mod leader_election;
mod liveness;
mod reconfiguration;
mod sessions;
mod synchronization;

use bytes::Bytes;
use znodefs::{Epoch, Zxid};

use super::*;

pub(super) fn zxid(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

pub(super) fn entry(epoch: u32, counter: u32) -> Entry {
    let payload = Bytes::from(format!("{epoch}.{counter}"));
    Entry { zxid: zxid(epoch, counter), payload }
}

pub(super) fn server(id: u32) -> ServerId {
    ServerId(id)
}

pub(super) const INITIALIZED: Standing = Standing { initialized: true, has_data: true };
pub(super) const EMPTY: Standing = Standing { initialized: false, has_data: false };

/// A replica and the time it lives in.
pub(super) struct Replica {
    pub(super) zab: Zab,
    pub(super) now: u64,
}

/// What a disk held: epochs, end of the log, and what the tree contains.
pub(super) fn recovered(accepted: u32, current: u32, last: Zxid, delivered: Zxid) -> Recovered {
    Recovered {
        accepted_epoch: Epoch(accepted),
        current_epoch: Epoch(current),
        last_logged: last,
        delivered,
        incomplete: false,
        initialize: false,
    }
}

impl Replica {
    /// Replica `id` of `voters` (1 to n) and `observers` (after them), with this on its disk.
    pub(super) fn new(id: u32, voters: u32, observers: u32, recovered: &Recovered) -> Replica {
        let ensemble = Ensemble::new(
            Zxid::ZERO,
            (1..=voters).map(ServerId),
            (voters + 1..=voters + observers).map(ServerId),
        );
        let identity = Identity { id: ServerId(id), ensemble, seed: 7 };
        Replica { zab: Zab::new(identity, Settings::default(), recovered), now: 1_000 }
    }

    /// A replica whose history ends with 1.3, all of it delivered.
    pub(super) fn with_history(id: u32, voters: u32, observers: u32) -> Replica {
        Replica::new(id, voters, observers, &recovered(1, 1, zxid(1, 3), zxid(1, 3)))
    }

    pub(super) fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.zab.step(self.now, event, &mut effects);
        effects
    }

    /// Lets time pass to the next deadline, or this much.
    pub(super) fn pass(&mut self, milliseconds: u64) -> Vec<Effect> {
        self.now += milliseconds;
        self.step(Event::Tick)
    }

    /// A step, and the disk at once after it.
    pub(super) fn step_and_sync(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.step(event);
        let mut synced = 0;
        while let Some(ticket) = last_ticket(&effects[synced..]) {
            synced = effects.len();
            effects.extend(self.step(Event::Durable(ticket)));
        }
        effects
    }

    pub(super) fn packet(&mut self, connection: u64, packet: Packet) -> Vec<Effect> {
        self.step(Event::Packet { connection: ConnectionId(connection), packet })
    }

    pub(super) fn packet_and_sync(&mut self, connection: u64, packet: Packet) -> Vec<Effect> {
        self.step_and_sync(Event::Packet { connection: ConnectionId(connection), packet })
    }

    pub(super) fn hear(&mut self, from: u32, notification: Notification) -> Vec<Effect> {
        self.step(Event::Notification { from: ServerId(from), notification })
    }

    /// A learner connects; its connection has its number.
    pub(super) fn learner_connects(&mut self, id: u32) {
        let connected = Event::Connected {
            connection: ConnectionId(id.into()),
            peer: ServerId(id),
            outgoing: false,
        };
        assert!(self.step(connected).is_empty());
    }

    /// Starts, and is elected by voter 1's vote.
    pub(super) fn elect(&mut self) -> Vec<Effect> {
        self.step(Event::Start);
        let vote = Vote {
            epoch: self.zab.current_epoch(),
            zxid: self.zab.last_logged(),
            leader: self.zab.state.id,
        };
        let supports = looking(self.zab.election.round(), vote);
        let mut effects = self.hear(1, supports.clone());
        if self.zab.role() == RoleKind::Looking {
            effects.extend(self.pass(20));
        }
        assert_eq!(self.zab.role(), RoleKind::Leading);
        effects
    }

    /// Follows this leader, with connection 9 to it.
    pub(super) fn follow(&mut self, leader: u32) -> Vec<Effect> {
        self.step(Event::Start);
        let vote = Vote { epoch: Epoch(9), zxid: zxid(9, 9), leader: ServerId(leader) };
        let notification = looking(self.zab.election.round(), vote);
        self.hear(leader, notification);
        if self.zab.role() == RoleKind::Looking {
            self.pass(20);
        }
        let (connection, peer) = (ConnectionId(9), ServerId(leader));
        self.step(Event::Connected { connection, peer, outgoing: true })
    }

    /// Leads epoch 2 with its history, learner 1 synced with it.
    pub(super) fn establish(&mut self) -> Vec<Effect> {
        self.elect();
        self.join(1);
        let effects = self.packet_and_sync(1, Packet::Ack(Ack::forged(zxid(2, 0))));
        assert!(self.zab.is_serving(), "{effects:?}");
        effects
    }

    /// A follower with the same history comes as far as NEWLEADER.
    pub(super) fn join(&mut self, id: u32) -> Vec<Effect> {
        self.learner_connects(id);
        self.packet_and_sync(id.into(), Packet::FollowerInfo(learner_info(1)));
        let last = self.zab.last_logged();
        self.packet_and_sync(id.into(), Packet::AckEpoch(AckEpoch::forged(Epoch(1), last)))
    }

    /// Follows 3 in epoch 2 with its history, as far as UPTODATE.
    pub(super) fn follow_to_broadcast(&mut self) {
        self.follow(3);
        self.packet_and_sync(9, Packet::LeaderInfo { epoch: Epoch(2), counts: true });
        let zxid = self.zab.last_logged();
        self.packet(9, Packet::Diff { zxid });
        self.packet_and_sync(9, Packet::NewLeader { epoch: Epoch(2) });
        self.packet(9, Packet::UpToDate { committed: zxid });
        assert!(self.zab.is_serving());
    }
}

pub(super) fn looking(round: u64, vote: Vote) -> Notification {
    Notification {
        state: PeerState::Looking,
        round,
        vote,
        standing: INITIALIZED,
        configuration: Ensemble::default(),
    }
}

pub(super) fn learner_info(accepted: u32) -> LearnerInfo {
    LearnerInfo {
        accepted_epoch: Epoch(accepted),
        standing: INITIALIZED,
        configuration: Zxid::ZERO,
    }
}

/// The packets sent on a connection, in order.
pub(super) fn sent(effects: &[Effect], connection: u64) -> Vec<Packet> {
    let connection = ConnectionId(connection);
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { to, packet } if to.contains(&connection) => Some(packet.clone()),
            _ => None,
        })
        .collect()
}

/// The notifications sent, with their receivers.
pub(super) fn notified(effects: &[Effect]) -> Vec<(Vec<u32>, Notification)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Notify { to, notification } => {
                Some((to.iter().map(|id| id.0).collect(), notification.clone()))
            }
            _ => None,
        })
        .collect()
}

/// The entries delivered, as zxids.
pub(super) fn delivered(effects: &[Effect]) -> Vec<Zxid> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver(entries) => Some(entries.iter().map(|entry| entry.zxid)),
            _ => None,
        })
        .flatten()
        .collect()
}

/// The last disk effect's ticket.
pub(super) fn last_ticket(effects: &[Effect]) -> Option<Ticket> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::AppendTxns { ticket, .. }
        | Effect::TruncateLog { ticket, .. }
        | Effect::InstallSnapshot { ticket, .. }
        | Effect::PersistAcceptedEpoch { ticket, .. }
        | Effect::PersistCurrentEpoch { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

/// Why the replica went looking, if it did.
pub(super) fn looked(effects: &[Effect]) -> Option<&'static str> {
    effects.iter().find_map(|effect| match effect {
        Effect::ChangeRole { role: RoleKind::Looking, reason } => Some(*reason),
        _ => None,
    })
}

pub(super) fn proposal(entries: &[Entry]) -> Packet {
    Packet::Proposal { entries: entries.into() }
}
