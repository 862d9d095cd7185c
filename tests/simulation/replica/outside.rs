//! What a simulated member reaches outside of its core: everything it wants done is written down, and
//! done, or not, by the world.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use znodefs::{Epoch, Zxid};
use znodefs_server::ensemble::log_read::LogReading;
use znodefs_server::ensemble::outside::{Outside, Peers};
use znodefs_server::ensemble::snapshot_transfer::SnapshotTransfer;
use znodefs_server::persistence::EnsembleId;
use znodefs_server::persistence::log_thread::{LogThread, LogWorker};
use znodefs_server::replica::snapshot_task::SnapshotTask;
use znodefs_server::server::backend::Workers;
use znodefs_server::tree::DataTree;
use znodefs_server::zab::{Effect, Entry, Packet, RoleKind, ServerId};

/// Something that a member wants done.
pub enum Action {
    Notify {
        to: ServerId,
        payload: Vec<u8>,
    },
    BreakLink(ServerId),
    Connect(ServerId),
    Send {
        connection: u64,
        payload: Vec<u8>,
    },
    Disconnect(u64),
    SendSnapshot(SnapshotTransfer),
    ReadLog(LogReading),
    StartLog(LogWorker),
    StartSnapshot(SnapshotTask),
    /// The other members are these.
    SetPeers(BTreeSet<ServerId>),
}

/// Something that the checks want to know, in order with everything else of its kind.
pub enum Seen {
    Appended(Arc<[Entry]>),
    Truncated(Zxid),
    Installed(Zxid),
    Delivered(Vec<Entry>),
    DeliveredFromLog { after: Zxid, through: Zxid },
    Promised,
    Acknowledged(Zxid),
    Leads,
    ChangedOver,
    Serves { leader: ServerId, epoch: Epoch },
    ServesNoMore,
    Halts(String),
}

#[derive(Default)]
struct State {
    actions: Vec<Action>,
    seen: Vec<Seen>,
    ensemble_id: Option<EnsembleId>,
    /// The ensemble whose member it is, if only by name.
    joined: Option<EnsembleId>,
}

/// The outside of one member.
#[derive(Default)]
pub struct SimulatedOutside {
    state: Mutex<State>,
}

impl SimulatedOutside {
    /// What is to be done, in order.
    pub fn take_actions(&self) -> Vec<Action> {
        std::mem::take(&mut self.state.lock().actions)
    }

    /// What was seen, in order.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().seen)
    }

    /// Of which ensemble other members must be.
    pub fn ensemble_id(&self) -> Option<EnsembleId> {
        self.state.lock().ensemble_id
    }

    /// The same, as it was found at a start.
    pub fn found_ensemble_id(&self, ensemble_id: Option<EnsembleId>, joined: Option<EnsembleId>) {
        let mut state = self.state.lock();
        state.ensemble_id = ensemble_id;
        state.joined = joined;
    }

    fn act(&self, action: Action) {
        self.state.lock().actions.push(action);
    }
}

impl Workers for SimulatedOutside {
    fn start_log(&self, worker: LogWorker) -> io::Result<Option<LogThread>> {
        self.act(Action::StartLog(worker));
        Ok(None)
    }

    fn start_snapshot(&self, task: SnapshotTask) -> io::Result<Option<JoinHandle<()>>> {
        self.act(Action::StartSnapshot(task));
        Ok(None)
    }
}

impl Outside for SimulatedOutside {
    fn notify(&self, to: ServerId, payload: &[u8]) {
        self.act(Action::Notify { to, payload: payload.to_vec() });
    }

    fn break_link(&self, peer: ServerId, _reason: &str) {
        self.act(Action::BreakLink(peer));
    }

    fn connect(&self, peer: ServerId) {
        self.act(Action::Connect(peer));
    }

    fn send(&self, connection: u64, payload: &[u8]) {
        self.act(Action::Send { connection, payload: payload.to_vec() });
    }

    fn disconnect(&self, connection: u64) {
        self.act(Action::Disconnect(connection));
    }

    fn set_ensemble_id(&self, ensemble_id: EnsembleId) {
        let mut state = self.state.lock();
        if state.joined.replace(ensemble_id).is_some_and(|former| former != ensemble_id) {
            state.seen.push(Seen::ChangedOver);
        }
        state.ensemble_id = Some(ensemble_id);
    }

    fn is_drained(&self) -> bool {
        true
    }

    fn send_snapshot(&self, transfer: SnapshotTransfer) {
        self.act(Action::SendSnapshot(transfer));
    }

    fn read_log(&self, reading: LogReading) {
        self.act(Action::ReadLog(reading));
    }

    fn discard(&self, tree: DataTree) {
        drop(tree);
    }

    fn set_peers(&self, peers: Peers) {
        self.act(Action::SetPeers(peers.quorum.into_keys().collect()));
    }

    fn observe(&self, effect: &Effect) {
        let seen = match effect {
            Effect::AppendTxns { entries, .. } => Seen::Appended(Arc::clone(entries)),
            Effect::TruncateLog { zxid, .. } => Seen::Truncated(*zxid),
            Effect::InstallSnapshot { zxid, .. } => Seen::Installed(*zxid),
            Effect::Deliver(entries) => Seen::Delivered(entries.clone()),
            Effect::DeliverFromLog { after, through } => {
                Seen::DeliveredFromLog { after: *after, through: *through }
            }
            Effect::Send { packet: Packet::AckEpoch(ack), .. } if ack.is_promise() => {
                Seen::Promised
            }
            Effect::Send { packet: Packet::Ack(ack), .. } => Seen::Acknowledged(ack.zxid()),
            Effect::ChangeRole { role: RoleKind::Leading, .. } => Seen::Leads,
            Effect::StartServing { leader, epoch } => {
                Seen::Serves { leader: *leader, epoch: *epoch }
            }
            Effect::StopServing => Seen::ServesNoMore,
            Effect::Halt { reason } => Seen::Halts(reason.clone()),
            _ => return,
        };
        self.state.lock().seen.push(seen);
    }
}
