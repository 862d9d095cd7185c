//! What travels beside the transactions: forwarded requests, syncs, touched sessions and their
//! revalidation. What a session is belongs to the driver.
//!
//! A sync is answered once a quorum has confirmed, after it was asked for, that this leader still
//! leads, and once everything proposed before it is committed. One ping confirms every sync that
//! waits. (ZOOKEEPER-1675: without the quorum a deposed leader answers.)

use bytes::Bytes;
use znodefs::{SessionId, Zxid};

use super::effect::Effect;
use super::event::ConnectionId;
use super::follower::Follower;
use super::leader::{Leader, Next, PendingSync};
use super::mutation::Mutation;
use super::packet::Packet;
use super::state::State;

impl Leader {
    /// A request that a learner forwarded: handed on in order, to be validated and proposed.
    pub(super) fn on_request(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        payload: Bytes,
    ) -> Next {
        if let Some(handler) = self.learners.get(&connection)
            && self.next_zxid(state).is_some()
        {
            state.effects.push(Effect::Request { from: handler.sid, payload });
        }
        Next::Stay
    }

    /// A learner's session wants to go on there.
    pub(super) fn on_revalidate(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        session_id: SessionId,
        timeout_ms: i32,
    ) -> Next {
        if let Some(handler) = self.learners.get(&connection) {
            let from = handler.sid;
            let asked = Effect::RevalidateSession { connection, from, session_id, timeout_ms };
            state.effects.push(asked);
        }
        Next::Stay
    }

    /// A sync, of a learner or of a local client.
    pub(super) fn on_sync(
        &mut self,
        state: &mut State,
        learner: Option<ConnectionId>,
        token: u64,
    ) -> Next {
        if !self.is_established() {
            return Next::Stay;
        }
        let sequence = self.ping_sequence + 1;
        let zxid = state.window.last();
        self.syncs.push_back(PendingSync { learner, token, sequence, zxid });
        if self.confirming.is_none() {
            self.confirm(state);
        }
        self.answer_syncs(state);
        Next::Stay
    }

    fn confirm(&mut self, state: &mut State) {
        self.ping(state);
        self.confirming = Some(self.ping_sequence);
    }

    /// Pings every learner that has its history.
    pub(super) fn ping(&mut self, state: &mut State) {
        self.ping_sequence += 1;
        let to = self.connections(|_| true);
        let packet = Packet::Ping { sequence: self.ping_sequence, touched: Vec::new() };
        state.send_all(to, packet);
    }

    /// A learner's answer to a ping.
    pub(super) fn on_pong(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        sequence: u64,
        touched: Vec<(SessionId, i32)>,
    ) -> Next {
        let Some(handler) = self.learners.get_mut(&connection) else { return Next::Stay };
        handler.ponged = handler.ponged.max(sequence);
        if !touched.is_empty() {
            let from = handler.sid;
            state.effects.push(Effect::SessionsTouched { from, touched });
        }
        self.answer_syncs(state);
        Next::Stay
    }

    /// Answers the syncs whose ping a quorum has answered and whose proposals are committed.
    pub(super) fn answer_syncs(&mut self, state: &mut State) {
        if self.syncs.is_empty() {
            return;
        }
        let mut confirmed = state.quorum.reached_by_quorum(|id| match id == state.id {
            true => u64::MAX,
            false => self
                .handler(id)
                .filter(|handler| handler.phase.is_synced())
                .map_or(0, |handler| handler.ponged),
        });
        if state.mutated(Mutation::SyncWithoutQuorum) {
            confirmed = u64::MAX;
        }
        let committed = state.committed;
        while let Some(sync) =
            self.syncs.pop_front_if(|sync| sync.sequence <= confirmed && sync.zxid <= committed)
        {
            match sync.learner {
                None => state.complete_sync(sync.token, sync.zxid),
                Some(connection) => state.send(connection, Packet::Sync { token: sync.token }),
            }
        }
        if self.confirming.is_some_and(|sequence| sequence <= confirmed) {
            self.confirming = None;
            if self.syncs.back().is_some_and(|sync| sync.sequence > self.ping_sequence) {
                self.confirm(state);
            }
        }
    }
}

impl Follower {
    /// A local client's sync.
    pub(super) fn sync(&mut self, state: &mut State, token: u64) {
        if state.serving {
            self.send(state, Packet::Sync { token });
        }
    }

    /// The leader's answer: it came behind the commits it speaks of.
    pub(super) fn on_sync_answer(&mut self, state: &mut State, token: u64) -> Next {
        if !self.is_active() {
            return Next::Look("SYNC out of place");
        }
        let zxid: Zxid = self.committed;
        state.complete_sync(token, zxid);
        self.deliver(state);
        Next::Stay
    }

    /// PING: answer with the sessions that were used here.
    pub(super) fn on_ping(&mut self, state: &mut State, sequence: u64) -> Next {
        let touched = std::mem::take(&mut state.touched).into_iter().collect();
        self.send(state, Packet::Ping { sequence, touched });
        Next::Stay
    }

    /// A local client's request that the leader must see.
    pub(super) fn forward(&mut self, state: &mut State, payload: Bytes) {
        if state.serving {
            self.send(state, Packet::Request { payload });
        }
    }
}
