//! Synchronization: every learner's log becomes the leader's, a quorum adopts the epoch, service
//! begins.
//!
//! Zab paper (DSN 2011), section 4, phase 2: the leader proposes NEWLEADER(e', history); a follower
//! accepts all of it, makes f.a = e' and acknowledges; "upon receiving acknowledgements from a
//! quorum" the leader commits it (COMMIT-LD, here UPTODATE). Instead of whole histories travels what
//! is missing (DIFF), what is too much is cut first (TRUNC), and a tree replaces what the log does
//! not reach (SNAP).
//!
//! The decision and the registration for live proposals are one step, so no proposal is missed
//! between them, and UPTODATE conveys the latest commit (TLA+ `protocol-spec/issues.md`, 1 and 3).

use znodefs::{Epoch, Zxid};

use super::effect::Effect;
use super::event::{ConnectionId, LogRead, ReadId};
use super::follower::{Follower, FollowerPhase};
use super::leader::{HandlerPhase, Leader, LeaderPhase, Next, SyncMode};
use super::mutation::Mutation;
use super::packet::{Ack, Entry, Packet};
use super::quorum::Ensemble;
use super::state::State;

/// Entries of one history message; a message stays far below the codec's limit unless a single
/// transaction does not.
const HISTORY_ENTRIES_MAX: usize = 512;
/// Bytes of payload after which a history message is closed.
const HISTORY_BYTES_MAX: usize = 1 << 20;
impl Leader {
    /// Starts to synchronize a learner that has told its history, once there is something to
    /// synchronize with: for followers the initial history of the epoch, for observers, which learn
    /// only what is committed, an established leader.
    pub(super) fn start_sync_if_due(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
    ) -> Next {
        let Some(handler) = self.learners.get_mut(&connection) else { return Next::Stay };
        let due = match self.phase {
            LeaderPhase::Synchronization(_) => !handler.observer,
            LeaderPhase::Broadcast => true,
            _ => false,
        };
        if !due || handler.phase != HandlerPhase::Waiting {
            return Next::Stay;
        }
        handler.committed_at_sync = state.committed;
        let end = if handler.observer { state.committed } else { state.window.last() };
        let learner = handler.last_zxid;
        match decide(state, learner, end) {
            Some(mode) => {
                self.begin_history(state, connection, mode);
                self.continue_history(state, connection)
            }
            None => {
                // Before it is established a leader's tree may lag behind its log: such a tree is
                // no way out for a learner that is further.
                let required = learner >= state.delivered;
                self.read_log(state, connection, learner, required);
                Next::Stay
            }
        }
    }

    /// Asks for the next part of a learner's history that is not in memory.
    fn read_log(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        from: Zxid,
        required: bool,
    ) {
        self.reads += 1;
        let (read, through) = (ReadId(self.reads), state.window.base());
        if let Some(handler) = self.learners.get_mut(&connection) {
            handler.phase = HandlerPhase::Reading(read);
            state.effects.push(Effect::ReadLog { read, connection, from, through, required });
        }
    }

    /// Part of a learner's history was read. The first answer decides between DIFF, TRUNC and SNAP.
    pub(super) fn on_log_read(&mut self, state: &mut State, read: ReadId, answer: LogRead) -> Next {
        let reading = HandlerPhase::Reading(read);
        let connection = self.connections(|handler| handler.phase == reading).first().copied();
        let Some(connection) = connection else { return Next::Stay };
        let Some(handler) = self.learners.get(&connection) else { return Next::Stay };
        let (learner, sent_to) = (handler.last_zxid, handler.sent_to);
        match (answer, sent_to) {
            (LogRead::Entries { after, entries }, None) => {
                let mode = if after == learner { SyncMode::Diff } else { SyncMode::Trunc(after) };
                self.begin_history(state, connection, mode);
                self.send_entries(state, connection, entries);
            }
            (LogRead::Entries { after, entries }, Some(sent_to))
                if after == sent_to && !entries.is_empty() =>
            {
                self.send_entries(state, connection, entries);
            }
            (LogRead::Unavailable, None) if learner < state.delivered => {
                self.begin_history(state, connection, SyncMode::Snap(state.delivered));
            }
            // Purged while we read; the learner comes again.
            _ => return self.drop_learner(state, connection),
        }
        self.continue_history(state, connection)
    }

    /// Tells the learner how its log is brought in line.
    fn begin_history(&mut self, state: &mut State, connection: ConnectionId, mode: SyncMode) {
        let Some(handler) = self.learners.get_mut(&connection) else { return };
        let learner = handler.last_zxid;
        let start = match mode {
            SyncMode::Trunc(_) if state.mutated(Mutation::SkipTrunc) => {
                state.send(connection, Packet::Diff { zxid: learner });
                learner
            }
            SyncMode::Diff => {
                state.send(connection, Packet::Diff { zxid: learner });
                learner
            }
            SyncMode::Trunc(zxid) => {
                state.send(connection, Packet::Trunc { zxid });
                zxid
            }
            SyncMode::Snap(zxid) => {
                let stale = state.mutated(Mutation::StaleSnapshot);
                let zxid = if stale { state.window.last() } else { zxid };
                // What is delivered is committed: no later configuration is among it.
                let configuration = state.quorum.committed().clone();
                state.effects.push(Effect::SendSnapshot { connection, zxid, configuration });
                zxid
            }
        };
        handler.sent_to = Some(start);
    }

    /// Sends what is left of the history and NEWLEADER once the rest is in memory, and registers the
    /// learner for live proposals in the same step; asks the log for what is not.
    fn continue_history(&mut self, state: &mut State, connection: ConnectionId) -> Next {
        let Some(handler) = self.learners.get_mut(&connection) else { return Next::Stay };
        let Some(sent_to) = handler.sent_to else { return Next::Stay };
        if sent_to < state.window.base() {
            self.read_log(state, connection, sent_to, true);
            return Next::Stay;
        }
        let end = if handler.observer { state.committed } else { state.window.last() };
        handler.synced_to = end;
        handler.phase = HandlerPhase::Synchronizing;
        let rest: Vec<Entry> = state.window.between(sent_to, end).cloned().collect();
        self.send_entries(state, connection, rest);
        state.send(connection, Packet::NewLeader { epoch: self.epoch });
        Next::Stay
    }

    /// Sends history in messages of bounded size.
    pub(super) fn send_entries(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        history: Vec<Entry>,
    ) {
        let Some(handler) = self.learners.get_mut(&connection) else { return };
        if let Some(last) = history.last() {
            handler.sent_to = handler.sent_to.max(Some(last.zxid));
        }
        let mut message = Vec::new();
        let mut bytes = 0;
        for entry in history {
            bytes += entry.payload.len();
            message.push(entry);
            if message.len() >= HISTORY_ENTRIES_MAX || bytes >= HISTORY_BYTES_MAX {
                let entries = std::mem::take(&mut message).into();
                state.send(connection, Packet::Proposal { entries });
                bytes = 0;
            }
        }
        if !message.is_empty() {
            state.send(connection, Packet::Proposal { entries: message.into() });
        }
    }

    /// ACK of NEWLEADER: the learner holds everything that was sent before it.
    pub(super) fn on_new_leader_ack(
        &mut self,
        state: &mut State,
        connection: ConnectionId,
        epoch: Epoch,
    ) -> Next {
        let established = self.is_established();
        let Some(handler) = self.learners.get_mut(&connection) else { return Next::Stay };
        if handler.phase != HandlerPhase::Synchronizing || epoch != self.epoch {
            return self.drop_learner(state, connection);
        }
        handler.phase = HandlerPhase::Synced;
        handler.acked = handler.synced_to;
        handler.deadline = u64::MAX;
        if !established {
            return self.try_establish(state);
        }
        self.send_up_to_date(state, connection);
        self.advance_commit(state)
    }

    fn send_up_to_date(&mut self, state: &mut State, connection: ConnectionId) {
        let Some(handler) = self.learners.get_mut(&connection) else { return };
        handler.phase = HandlerPhase::Active;
        let committed = match state.mutated(Mutation::StaleUpToDate) {
            true => handler.committed_at_sync,
            false => state.committed,
        };
        state.send(connection, Packet::UpToDate { committed });
    }

    /// Serves once a quorum, this leader among them, has adopted the epoch with its history.
    pub(super) fn try_establish(&mut self, state: &mut State) -> Next {
        let LeaderPhase::Synchronization(ticket) = self.phase else { return Next::Stay };
        let synced = self.has_quorum(state, |handler| handler.phase.is_synced());
        if !state.disk.is_done(ticket) || !synced {
            return Next::Stay;
        }
        self.establish(state)
    }

    /// The initial history is committed, including entries that were never known to be; a
    /// reconfiguration may be among them.
    pub(super) fn establish(&mut self, state: &mut State) -> Next {
        self.phase = LeaderPhase::Broadcast;
        self.deadline = u64::MAX;
        state.commit(state.window.last());
        state.deliver();
        self.plan_handover(state);
        for connection in self.connections(|handler| handler.phase == HandlerPhase::Synced) {
            self.send_up_to_date(state, connection);
        }
        state.start_serving(state.id, self.epoch);
        for connection in self.connections(|handler| handler.phase == HandlerPhase::Waiting) {
            let next = self.start_sync_if_due(state, connection);
            if next != Next::Stay {
                return next;
            }
        }
        Next::Stay
    }
}

/// The decision table, as far as memory reaches; `None` asks the log. `end` is the last entry that
/// the learner is to have.
///
/// | the learner's last zxid p | |
/// |---|---|
/// | the end | DIFF, nothing to send |
/// | above the end | TRUNC to the end |
/// | in the window, or its base, or counter 0 | DIFF from there |
/// | within the window's range, unknown | TRUNC to the greatest entry below it, then what follows |
/// | below the window | the same from the log, if it reaches back; else SNAP |
///
/// ZooKeeper sends SNAP when the entry after the cut is of another epoch than p. It need not: p is of
/// an epoch e whose leader was established, so every later leader has adopted e's initial history,
/// and what the learner holds below p is that history and a run of e's own proposals. The greatest
/// common entry is therefore in both logs; a learner that finds otherwise halts.
pub(super) fn decide(state: &State, learner: Zxid, end: Zxid) -> Option<SyncMode> {
    if learner == end {
        return Some(SyncMode::Diff);
    }
    if learner > end {
        return Some(SyncMode::Trunc(end));
    }
    if learner < state.window.base() {
        return None;
    }
    let floor = state.window.floor(learner);
    if floor == learner || learner.counter() == 0 {
        return Some(SyncMode::Diff);
    }
    Some(SyncMode::Trunc(floor))
}

impl Follower {
    /// DIFF: the log is right as it is.
    pub(super) fn on_diff(&mut self, state: &mut State, zxid: Zxid) -> Next {
        if self.phase != FollowerPhase::AwaitingSync || zxid != state.window.last() {
            return Next::Look("DIFF out of place");
        }
        self.begin_synchronization(state);
        Next::Stay
    }

    /// TRUNC: the log's end was never committed.
    pub(super) fn on_trunc(&mut self, state: &mut State, zxid: Zxid) -> Next {
        if self.phase != FollowerPhase::AwaitingSync || zxid >= state.window.last() {
            return Next::Look("TRUNC out of place");
        }
        let known = zxid < state.window.base() || state.window.floor(zxid) == zxid;
        if zxid < state.committed || !known {
            let (last, committed) = (state.window.last(), state.committed);
            let reason = format!(
                "leader {} asks to truncate the log to {zxid}, but here {committed} is committed \
                 and {last} is the last entry: the two histories contradict each other",
                self.leader
            );
            state.effects.push(Effect::Halt { reason });
            return Next::Look("TRUNC contradicts what is committed");
        }
        self.begin_synchronization(state);
        state.truncate(zxid);
        Next::Stay
    }

    /// SNAP: the leader's log does not reach back to the end of this one.
    pub(super) fn on_snap(
        &mut self,
        state: &mut State,
        zxid: Zxid,
        configuration: &Ensemble,
    ) -> Next {
        let Some(connection) = self.connection else { return Next::Stay };
        if self.phase != FollowerPhase::AwaitingSync || zxid < state.committed {
            return Next::Look("SNAP out of place");
        }
        self.begin_synchronization(state);
        state.install_snapshot(connection, zxid, configuration);
        self.take_vote(state);
        Next::Stay
    }

    fn begin_synchronization(&mut self, state: &mut State) {
        self.phase = FollowerPhase::Synchronization;
        if state.mutated(Mutation::CurrentEpochBeforeHistory) {
            state.adopt_epoch(self.epoch);
        }
    }

    /// NEWLEADER: adopt the epoch, on disk behind the history that came before.
    pub(super) fn on_new_leader(&mut self, state: &mut State, epoch: Epoch) -> Next {
        if self.phase != FollowerPhase::Synchronization || epoch != self.epoch {
            return Next::Look("NEWLEADER out of place");
        }
        self.acked = state.window.last();
        let ticket = match state.current_epoch == epoch {
            // Adopted on an earlier connection to this leader; history may have followed since.
            true => state.disk.last(),
            false => state.adopt_epoch(epoch),
        };
        self.phase = FollowerPhase::AdoptingEpoch(ticket);
        #[cfg(any(test, feature = "mutations"))]
        if state.mutated(Mutation::AckNewLeaderBeforeFsync) {
            self.phase = FollowerPhase::Synced;
            self.send(state, Packet::Ack(Ack::forged(Zxid::new(epoch, 0))));
            return Next::Stay;
        }
        self.on_durable(state)
    }

    /// History and currentEpoch are on disk.
    pub(super) fn acknowledge_new_leader(&mut self, state: &mut State) -> Next {
        let Some(ack) = Ack::of_new_leader(self.epoch, state.disk.facts()) else {
            return Next::Look("currentEpoch on disk is not the leader's epoch");
        };
        self.phase = FollowerPhase::Synced;
        self.deadline = state.now + state.settings.init_limit_ms();
        self.send(state, Packet::Ack(ack));
        self.acknowledge_proposals(state)
    }

    /// UPTODATE: the epoch is established; apply what is committed, then serve.
    pub(super) fn on_up_to_date(&mut self, state: &mut State, committed: Zxid) -> Next {
        let missing =
            committed > state.window.last() && !state.mutated(Mutation::ForwardAfterNewLeaderAck);
        if self.phase != FollowerPhase::Synced || missing {
            return Next::Look("UPTODATE out of place");
        }
        self.phase = FollowerPhase::Broadcast;
        self.deadline = u64::MAX;
        self.committed = self.committed.max(committed);
        self.serve_from = self.committed;
        state.commit(self.committed);
        self.deliver(state);
        Next::Stay
    }
}
