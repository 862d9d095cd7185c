//! What a member reaches outside of its core's thread: the other members, and those who work for it
//! meanwhile. The driver knows no more of them than this, so that a simulation can take their place.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use super::log_read::LogReading;
use super::snapshot_transfer::SnapshotTransfer;
use crate::link::quorum_port::QuorumPort;
use crate::link::{LinkSet, Listening, Plane};
use crate::net;
use crate::persistence::{EnsembleId, LogThread, LogWorker};
use crate::replica::snapshot_task::SnapshotTask;
use crate::server::backend::{Threads, Workers};
use crate::service::Service;
use crate::tree::DataTree;
use crate::zab::{Effect, ServerId};

/// Where other members listen.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Their quorum ports.
    pub quorum: HashMap<ServerId, Vec<String>>,
    /// Their election ports.
    pub election: HashMap<ServerId, Vec<String>>,
}

/// The other members, and helpers. No call blocks; answers come as
/// [`MemberEvent`](super::MemberEvent)s.
pub trait Outside: Workers {
    /// Sends a notification on the election port's link; it may be lost.
    fn notify(&self, peer: ServerId, payload: &[u8]);
    /// Breaks the election port's link with a member that makes no sense; it is made anew.
    fn break_link(&self, peer: ServerId, reason: &str);
    /// Connects to a member's quorum port.
    fn connect(&self, peer: ServerId);
    /// Sends a message on a quorum connection, in order. One that is gone, or too slow, is told as
    /// lost.
    fn send(&self, connection: u64, payload: &[u8]);
    /// Closes a quorum connection, behind what was sent on it.
    fn disconnect(&self, connection: u64);
    /// From now on members of another ensemble are kept out.
    fn set_ensemble_id(&self, ensemble_id: EnsembleId);
    /// Whether everything sent has left.
    fn is_drained(&self) -> bool;
    /// Sends a snapshot on a quorum connection, piece by piece; what is sent later comes behind it.
    fn send_snapshot(&self, transfer: SnapshotTransfer);
    /// Reads part of the log for a learner, as soon as that has taken what was sent before.
    fn read_log(&self, reading: LogReading);
    /// Takes a tree apart that is no longer used.
    fn discard(&self, tree: DataTree);
    /// Says which other members there are, each with its addresses `HOST:PORT`.
    fn set_peers(&self, _peers: Peers) {}
    /// Listens on one more address for replicas; it was this replica's own line that changed.
    fn listen(&self, _plane: Plane, _address: SocketAddr) -> io::Result<()> {
        Ok(())
    }
    /// Takes no more connections of replicas on this port; those there are stay.
    fn end_listening(&self, _plane: Plane, _port: u16) -> bool {
        false
    }
    /// Takes no more clients on this port; those there are stay.
    fn end_listening_for_clients(&self, _service: &Service, _port: u16) -> bool {
        false
    }
    /// Listens on one more address for clients.
    fn listen_for_clients(&self, _service: &Arc<Service>, _address: SocketAddr) -> io::Result<()> {
        Ok(())
    }
    /// Is told what the protocol wants done before it is done. For the checks of a simulation.
    fn observe(&self, _effect: &Effect) {}
}

/// The machine's network and threads.
pub(super) struct SystemOutside {
    pub links: LinkSet,
    pub port: Arc<QuorumPort>,
    pub runtime: Handle,
}

impl SystemOutside {
    fn listening(&self, plane: Plane) -> &Listening {
        match plane {
            Plane::Quorum => self.port.listening(),
            Plane::Election => self.links.listening(),
        }
    }
}

impl Workers for SystemOutside {
    fn start_log(&self, worker: LogWorker) -> io::Result<Option<LogThread>> {
        Threads.start_log(worker)
    }

    fn start_snapshot(&self, task: SnapshotTask) -> io::Result<Option<JoinHandle<()>>> {
        Threads.start_snapshot(task)
    }
}

impl Outside for SystemOutside {
    fn notify(&self, peer: ServerId, payload: &[u8]) {
        self.links.send(peer, payload);
    }

    fn break_link(&self, peer: ServerId, reason: &str) {
        self.links.disconnect(peer, reason);
    }

    fn connect(&self, peer: ServerId) {
        self.port.connect(peer);
    }

    fn send(&self, connection: u64, payload: &[u8]) {
        self.port.send(connection, payload);
    }

    fn disconnect(&self, connection: u64) {
        self.port.disconnect(connection);
    }

    fn set_ensemble_id(&self, ensemble_id: EnsembleId) {
        self.links.set_ensemble_id(ensemble_id);
        self.port.set_ensemble_id(ensemble_id);
    }

    fn is_drained(&self) -> bool {
        self.port.is_drained()
    }

    fn send_snapshot(&self, transfer: SnapshotTransfer) {
        let Some(stream) = self.port.begin_stream(transfer.connection().0) else { return };
        self.runtime.spawn(transfer.send(stream));
    }

    fn read_log(&self, reading: LogReading) {
        self.runtime.spawn(reading.read_when_there_is_room(Arc::clone(&self.port)));
    }

    fn set_peers(&self, peers: Peers) {
        self.port.set_peers(peers.quorum);
        self.links.set_peers(peers.election);
    }

    fn listen(&self, plane: Plane, address: SocketAddr) -> io::Result<()> {
        self.listening(plane).add(address).map(drop)
    }

    fn end_listening(&self, plane: Plane, port: u16) -> bool {
        self.listening(plane).end(port)
    }

    fn end_listening_for_clients(&self, service: &Service, port: u16) -> bool {
        service.listeners.end(port)
    }

    fn listen_for_clients(&self, service: &Arc<Service>, address: SocketAddr) -> io::Result<()> {
        let _inside = self.runtime.enter();
        let listener = net::bind(address)?.listen(service.config.listen_backlog)?;
        net::take_clients(listener, service)
    }

    fn discard(&self, tree: DataTree) {
        // Taking a large tree apart takes its time.
        self.runtime.spawn_blocking(move || drop(tree));
    }
}
