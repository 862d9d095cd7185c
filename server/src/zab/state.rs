//! What a replica knows whatever its role is: its epochs, its log, what is committed and delivered.
//! The roles change it through the methods here, which also give the effects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};
use znodefs::{Epoch, SessionId, Zxid};

use super::disk_queue::{DiskQueue, Operation, Ticket};
use super::effect::Effect;
use super::event::{ConnectionId, OnDisk};
use super::log_window::LogWindow;
use super::mutation::Mutation;
use super::packet::{Entry, LearnerInfo, Packet, Standing, Vote};
use super::quorum::{Ensemble, QuorumVerifier, ServerId};
use super::settings::{Identity, Recovered, Settings};

/// Finds the configuration that an entry makes, if it is a reconfiguration. Its version must be the
/// entry's zxid.
pub type ReadConfiguration = fn(&Entry) -> Option<Ensemble>;

/// State that outlives roles.
pub(super) struct State {
    pub(super) id: ServerId,
    pub(super) settings: Settings,
    pub(super) quorum: QuorumVerifier,
    /// Finds the configuration that an entry of the log makes.
    pub(super) read_configuration: ReadConfiguration,
    pub(super) now: u64,
    pub(super) effects: Vec<Effect>,
    pub(super) disk: DiskQueue,
    pub(super) window: LogWindow,
    /// The greatest epoch promised, on disk or on its way.
    pub(super) promised: Epoch,
    /// To whom, if it was in this process's life.
    pub(super) promised_to: Option<ServerId>,
    /// currentEpoch, on disk or on its way there behind the history it stands for.
    pub(super) current_epoch: Epoch,
    /// The last zxid known to be committed.
    pub(super) committed: Zxid,
    /// The last zxid handed to the replicated database.
    pub(super) delivered: Zxid,
    pub(super) serving: bool,
    /// Elections since service was last begun.
    pub(super) elections: u32,
    /// Sessions used here since the last ping.
    pub(super) touched: BTreeMap<SessionId, i32>,
    /// Confirmed syncs that wait until this much is delivered.
    syncs: VecDeque<(Zxid, u64)>,
    /// The disk has lost something; how much is left says nothing.
    incomplete: bool,
    initialize: bool,
    random: u64,
    pub(super) mutation: Option<Mutation>,
}

impl State {
    pub(super) fn new(identity: Identity, settings: Settings, recovered: &Recovered) -> State {
        State {
            id: identity.id,
            settings,
            quorum: QuorumVerifier::Majority(identity.ensemble),
            read_configuration: |_| None,
            now: 0,
            effects: Vec::new(),
            disk: DiskQueue::new(
                recovered.last_logged,
                recovered.accepted_epoch,
                recovered.current_epoch,
            ),
            window: LogWindow::new(recovered.last_logged),
            promised: recovered.accepted_epoch,
            promised_to: None,
            current_epoch: recovered.current_epoch,
            committed: recovered.delivered,
            delivered: recovered.delivered,
            serving: false,
            elections: 0,
            touched: BTreeMap::new(),
            syncs: VecDeque::new(),
            incomplete: recovered.incomplete,
            initialize: recovered.initialize && !recovered.incomplete,
            random: identity.seed,
            mutation: None,
        }
    }

    /// Whether this deliberate mistake is to be made.
    #[inline]
    pub(super) fn mutated(&self, mutation: Mutation) -> bool {
        cfg!(any(test, feature = "mutations")) && self.mutation == Some(mutation)
    }

    pub(super) fn is_voter(&self) -> bool {
        self.quorum.is_voter(self.id)
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            initialized: self.initialize
                || self.current_epoch > Epoch(0)
                || self.mutated(Mutation::EmptyReplicaVotes),
            has_data: self.window.last() > Zxid::ZERO || self.incomplete,
        }
    }

    /// Whether there may be no ensemble yet. Where a configuration was ever committed there is one, and
    /// whoever has nothing has lost it, or is to join.
    pub(super) fn may_form_ensemble(&self) -> bool {
        self.quorum.last_seen().version == Zxid::ZERO
    }

    /// The vote for oneself.
    pub(super) fn own_vote(&self) -> Vote {
        Vote { epoch: self.current_epoch, zxid: self.window.last(), leader: self.id }
    }

    pub(super) fn learner_info(&self) -> LearnerInfo {
        LearnerInfo {
            accepted_epoch: self.promised,
            standing: self.standing(),
            configuration: self.quorum.committed().version,
        }
    }

    /// How long to wait after an election for the other side to turn up.
    pub(super) fn discovery_ms(&self) -> u64 {
        let doublings = self.elections.saturating_sub(1).min(16);
        let patience = self.settings.discovery_ms << doublings;
        patience.min(self.settings.init_limit_ms())
    }

    pub(super) fn send(&mut self, connection: ConnectionId, packet: Packet) {
        self.effects.push(Effect::Send { to: smallvec![connection], packet });
    }

    pub(super) fn send_all(&mut self, to: SmallVec<[ConnectionId; 8]>, packet: Packet) {
        if !to.is_empty() {
            self.effects.push(Effect::Send { to, packet });
        }
    }

    /// A number below `bound` from this replica's own seed (SplitMix64).
    pub(super) fn random_below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    /// Promises an epoch: acceptedEpoch is written; the promise may be told once it is durable.
    pub(super) fn promise(&mut self, epoch: Epoch, to: ServerId) -> Ticket {
        self.promised = epoch;
        self.promised_to = Some(to);
        let ticket = self.disk.submit(Operation::AcceptedEpoch(epoch));
        self.effects.push(Effect::PersistAcceptedEpoch { ticket, epoch });
        ticket
    }

    /// Adopts an epoch: currentEpoch is written behind all of the history before it.
    pub(super) fn adopt_epoch(&mut self, epoch: Epoch) -> Ticket {
        self.current_epoch = epoch;
        let ticket = self.disk.submit(Operation::CurrentEpoch(epoch));
        self.effects.push(Effect::PersistCurrentEpoch { ticket, epoch });
        ticket
    }

    /// Appends entries that continue the log; the caller has checked that they do.
    pub(super) fn append(&mut self, entries: Arc<[Entry]>) {
        let Some(last) = entries.last() else { return };
        let ticket = self.disk.submit(Operation::Append(last.zxid));
        for entry in &*entries {
            self.window.push(entry.clone());
            if let Some(ensemble) = (self.read_configuration)(entry) {
                self.configure(|quorum| quorum.proposed(ensemble));
            }
        }
        self.effects.push(Effect::AppendTxns { ticket, entries });
    }

    /// Changes which replicas decide.
    fn configure(&mut self, change: impl FnOnce(QuorumVerifier) -> QuorumVerifier) {
        let changed = change(self.quorum.clone());
        if changed != self.quorum {
            self.quorum = changed.clone();
            self.effects.push(Effect::Configure(changed));
        }
    }

    /// Takes note of a configuration that was committed somewhere; whether it was news.
    pub(super) fn learn_configuration(&mut self, committed: &Ensemble) -> bool {
        let is_newer = committed.version > self.quorum.committed().version;
        if is_newer {
            self.configure(|quorum| quorum.learned(committed.clone()));
        }
        is_newer
    }

    /// Removes the log's end; the caller has checked that nothing delivered goes with it.
    pub(super) fn truncate(&mut self, zxid: Zxid) {
        let ticket = self.disk.submit(Operation::Truncate(zxid));
        self.window.truncate(zxid);
        self.configure(|quorum| quorum.truncated_to(zxid));
        self.effects.push(Effect::TruncateLog { ticket, zxid });
    }

    /// Takes up what a disk that was full holds: whatever else it was given is gone, promises and
    /// all. None of that was told to anybody, since only what is durable is.
    ///
    /// # Panics
    /// When the tree shows more than the disk holds.
    pub(super) fn restore(&mut self, found: OnDisk) {
        let OnDisk { accepted_epoch, current_epoch, last_logged, delivered } = found;
        assert!(delivered <= last_logged, "{delivered} is shown, {last_logged} is on disk");
        self.disk.restart(last_logged, accepted_epoch, current_epoch);
        self.window = LogWindow::new(last_logged);
        self.configure(|quorum| quorum.truncated_to(last_logged));
        self.promised = accepted_epoch;
        self.promised_to = None;
        self.current_epoch = current_epoch;
        self.delivered = delivered;
        self.committed = self.committed.min(last_logged).max(delivered);
    }

    /// Replaces the tree and the log, and with them what was known of the ensemble: the snapshot
    /// stands for all that was committed up to it, reconfigurations among it.
    pub(super) fn install_snapshot(
        &mut self,
        connection: ConnectionId,
        zxid: Zxid,
        configuration: &Ensemble,
    ) {
        let ticket = self.disk.submit(Operation::Snapshot(zxid));
        self.window = LogWindow::new(zxid);
        self.configure(|quorum| quorum.truncated_to(Zxid::ZERO));
        if !self.mutated(Mutation::SnapshotWithoutConfiguration) {
            self.learn_configuration(configuration);
        }
        self.delivered = zxid;
        self.committed = zxid;
        self.effects.push(Effect::InstallSnapshot { ticket, connection, zxid });
    }

    /// Raises the commit index.
    pub(super) fn commit(&mut self, zxid: Zxid) {
        self.committed = self.committed.max(zxid);
        if self.quorum.is_joint() {
            let committed = self.committed;
            self.configure(|quorum| quorum.committed_through(committed));
        }
    }

    /// Hands on what is committed and on this disk: nothing that a crash could take back is ever
    /// seen by a client.
    pub(super) fn deliver(&mut self) {
        let mut through = self.committed.min(self.disk.facts().zxid());
        if self.mutated(Mutation::ApplyBeforeCommit) {
            through = self.disk.facts().zxid();
        }
        if self.mutated(Mutation::LeaderCommitsOwnUnsynced) {
            through = self.committed;
        }
        if through > self.delivered {
            let base = self.window.base();
            if self.delivered < base {
                let through = through.min(base);
                self.effects.push(Effect::DeliverFromLog { after: self.delivered, through });
            }
            let entries: Vec<Entry> =
                self.window.between(self.delivered.max(base), through).cloned().collect();
            if !entries.is_empty() {
                self.effects.push(Effect::Deliver(entries));
            }
            self.delivered = through;
            self.window.trim(through, self.settings.window_entries, self.settings.window_bytes);
        }
        while let Some((_, token)) = self.syncs.pop_front_if(|(zxid, _)| *zxid <= self.delivered) {
            self.effects.push(Effect::SyncDone { token });
        }
    }

    /// Answers a local sync once `zxid` is delivered.
    pub(super) fn complete_sync(&mut self, token: u64, zxid: Zxid) {
        self.syncs.push_back((zxid, token));
        self.deliver();
    }

    pub(super) fn start_serving(&mut self, leader: ServerId, epoch: Epoch) {
        self.serving = true;
        self.elections = 0;
        self.effects.push(Effect::StartServing { leader, epoch });
    }

    pub(super) fn stop_serving(&mut self) {
        if std::mem::take(&mut self.serving) {
            self.effects.push(Effect::StopServing);
        }
        self.syncs.clear();
        self.touched.clear();
    }
}
