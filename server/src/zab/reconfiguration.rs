//! Reconfiguration: how the ensemble changes while it works. Alexander Shraer, Benjamin Reed, Dahlia
//! Malkhi, Flavio Junqueira: "Dynamic Reconfiguration of Primary/Backup Clusters", ATC 2012.
//!
//! A configuration is a transaction like any other, and its version is that transaction's zxid. What
//! the protocol makes of it:
//!
//! - From the moment the transaction is **in a replica's log**, that replica needs a quorum of the old
//!   and one of the new configuration for whatever it decides
//!   ([`QuorumVerifier::Joint`](super::quorum::QuorumVerifier::Joint)); from the moment it is known to be **committed**, one of the new configuration alone. A log that loses the
//!   transaction by TRUNC gives the old configuration back; a log that is replaced by SNAP takes the
//!   configuration that comes with the snapshot. Nothing else has to be kept: log and snapshot are the
//!   durable form of "last seen". That it is committed is kept by the driver as well, in a file of its
//!   own, or a replica that starts alone after the others have gone would ask them for their votes.
//! - No second one is proposed before the first is committed (the request processor's rule). So every
//!   reconfiguration in a log is committed but the last.
//! - The **leader** says who votes. A learner that gains a vote is sent, on the connection it has,
//!   what is proposed and not committed, and hears of proposals from then on; it acknowledges as soon
//!   as the transaction is in its own log. One that loses its vote goes on as it is; its
//!   acknowledgements count for nothing.
//!   Its LEADERINFO tells a learner whether its promise counts, and who counts keeps what it promised,
//!   whatever it knows of its vote itself: two leaders may know that it votes when it does not.
//! - A leader that loses its vote hands over to the new voter with the longest log, which begins the
//!   next epoch. The others have the transaction and its commit by then, or 20 ms have passed.
//! - A replica that is in **no configuration** (one that joins, one that was removed) learns like an
//!   observer. It hears of the committed configuration, with every address, in the notifications that
//!   answer its own, and adopts it if it is newer: what is committed cannot be taken back.
//! - While it looks for a leader, a replica without a vote repeats the best vote that it hears. Who
//!   has the transaction in its log may need the votes of members who have not heard of it.
//!
//! Why one configuration's quorum is enough again after the commit: a quorum of the old one has the
//! transaction, so whoever still decides by the old configuration meets a replica with a longer log
//! in any quorum, and gives up in discovery.

use znodefs::Zxid;

use super::event::ConnectionId;
use super::leader::{HandlerPhase, Leader, Next};
use super::packet::{Entry, Packet};
use super::quorum::ServerId;
use super::state::State;

impl Leader {
    /// A reconfiguration is in the log: learners that it gives a vote hear of proposals from now on.
    /// `before` is the end of the log before it was proposed.
    pub(super) fn give_votes(&mut self, state: &mut State, before: Zxid) {
        let to: Vec<ConnectionId> = self
            .connections(|handler| handler.observer && state.quorum.is_voter(handler.sid))
            .into_vec();
        for connection in to {
            let Some(handler) = self.learners.get_mut(&connection) else { continue };
            handler.observer = false;
            if handler.phase.is_forwarding() {
                let proposed: Vec<Entry> =
                    state.window.between(state.committed, before).cloned().collect();
                self.send_entries(state, connection, proposed);
            }
        }
    }

    /// Whoever leads without a vote is about to hand over.
    pub(super) fn plan_handover(&mut self, state: &State) {
        if !state.is_voter() {
            self.hand_over_at.get_or_insert(state.now + state.settings.handover_wait_ms);
        }
    }

    /// Hands over once the voters have the reconfiguration on disk, or the wait for that is over.
    pub(super) fn try_hand_over(&mut self, state: &mut State) -> Next {
        let Some(at) = self.hand_over_at else { return Next::Stay };
        if state.is_voter() {
            // Another reconfiguration has given the vote back.
            self.hand_over_at = None;
            return Next::Stay;
        }
        let version = state.quorum.committed().version;
        let active = |handler: &&super::leader::LearnerHandler| {
            handler.phase == HandlerPhase::Active && state.quorum.is_voter(handler.sid)
        };
        let told = state.delivered >= version
            && self.learners.values().filter(active).all(|handler| handler.acked >= version);
        if !told && state.now < at {
            return Next::Stay;
        }
        match self.name_successor(state) {
            Some(successor) => Next::Appointed(successor),
            None => {
                self.hand_over_at = Some(state.now + state.settings.handover_wait_ms.max(1));
                Next::Stay
            }
        }
    }

    /// Tells everyone whom to follow next: the voter with the longest log.
    pub(super) fn name_successor(&mut self, state: &mut State) -> Option<ServerId> {
        let may_lead = |sid| state.quorum.committed().is_voter(sid);
        let best = self
            .learners
            .values()
            .filter(|handler| handler.phase == HandlerPhase::Active && may_lead(handler.sid))
            .max_by_key(|handler| (handler.acked, handler.sid));
        let successor = best.map(|handler| handler.sid)?;
        let to = self.connections(|handler| handler.phase == HandlerPhase::Active);
        state.send_all(to, Packet::Handover { successor });
        Some(successor)
    }
}
