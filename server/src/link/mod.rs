//! Links between replicas: one TCP connection for each pair of them on each port (quorum, election),
//! with frames in order, TLS if configured, a handshake that refuses strangers, reconnection with
//! back-off, and a bound on what waits for a slow peer.
//!
//! What does not live here: what the messages mean (the Zab state machine). A link that breaks is lost with
//! everything under way on it; the protocol above starts anew on the next.

mod complaints;
mod endpoint;
pub mod frame;
pub mod handshake;
mod instances;
mod listening;
mod peer_connection;
pub mod quorum_port;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use endpoint::{Endpoint, Host, PeerStream};
use handshake::Hello;
pub use handshake::{EnsembleId, Plane, ServerId};
use instances::Instances;
pub use listening::Listening;
use peer_connection::SendQueue;

use crate::tls::QuorumTls;

/// First pause between attempts to reach a peer; doubled up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(20);
/// How long the replica with the lower id waits for the other one to dial before it dials itself,
/// where replicas may come that the other does not know.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest pause between attempts to reach a peer: one that has started waits that long at most,
/// since the other one dials.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// What happens on the links.
#[derive(Debug)]
pub enum LinkEvent {
    /// A link to the peer is up; frames can be sent.
    Connected {
        /// The other replica.
        peer: ServerId,
    },
    /// The link is gone; what was not delivered is lost.
    Lost {
        /// The other replica.
        peer: ServerId,
        /// Why.
        reason: String,
    },
    /// A frame came; frames of one link come in order.
    Message {
        /// The other replica.
        peer: ServerId,
        /// The frame's payload.
        payload: Vec<u8>,
    },
}

/// Takes link events; called from the links' tasks, so it must not block.
pub type LinkSink = Arc<dyn Fn(LinkEvent) + Send + Sync>;

/// How links behave.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// This replica.
    pub own_id: ServerId,
    /// Which of the two ports this is.
    pub plane: Plane,
    /// Greatest number of bytes that wait for one peer; a peer that falls further behind loses its
    /// link and is brought up to date again when it is back.
    pub waiting_bytes_max: usize,
    /// Greatest length of one frame in bytes.
    pub frame_length_max: usize,
    /// A number that this process has drawn at its start.
    pub instance: u64,
    /// Whether replicas of the same ensemble that are not named are let in: they may be about to join.
    pub takes_strangers: bool,
    /// Keys and trust; without them links are not encrypted, and whoever reaches the port is believed.
    pub tls: Option<Arc<QuorumTls>>,
}

/// The links of one replica on one port. Dropping it closes them all.
pub struct LinkSet {
    shared: Arc<Shared>,
    listening: Listening,
}

struct Shared {
    endpoint: Endpoint,
    sink: LinkSink,
    runtime: tokio::runtime::Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peers: HashMap<ServerId, Peer>,
    instances: Instances,
    next_link: u64,
    closed: bool,
}

/// What is known of one other replica.
#[derive(Default)]
struct Peer {
    addresses: Vec<String>,
    /// It was not named; forgotten when its link is lost.
    is_stranger: bool,
    /// Wakes the dialling task when the link is lost or the addresses change.
    wake: Arc<Notify>,
    dialling: Option<JoinHandle<()>>,
    link: Option<Link>,
    /// Held by the link that is up, so that its loss is told before the next one's connection.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A link that is up.
struct Link {
    number: u64,
    queue: Arc<SendQueue>,
}

impl LinkSet {
    /// Listens on `address` and takes links from the peers that [`set_peers`](LinkSet::set_peers)
    /// names.
    pub fn start(
        address: SocketAddr,
        options: LinkOptions,
        ensemble_id: Option<EnsembleId>,
        sink: LinkSink,
    ) -> io::Result<LinkSet> {
        let shared = Arc::new(Shared {
            endpoint: Endpoint::new(options, ensemble_id),
            sink,
            runtime: tokio::runtime::Handle::current(),
            state: Mutex::default(),
        });
        let listening = Listening::begin(address, Arc::downgrade(&shared))?;
        Ok(LinkSet { shared, listening })
    }

    /// Where connections are taken.
    pub fn listening(&self) -> &Listening {
        &self.listening
    }

    /// Says which other replicas there are, each with its addresses `HOST:PORT`. Links to replicas
    /// that are not named any more are closed. Names are resolved at every attempt.
    pub fn set_peers(&self, peers: HashMap<ServerId, Vec<String>>) {
        let mut state = self.shared.state.lock();
        let takes_strangers = self.shared.endpoint.options.takes_strangers;
        state.peers.retain(|id, peer| {
            let stays = peers.contains_key(id) || (takes_strangers && peer.is_stranger);
            if !stays {
                peer.close("the peer left the ensemble");
            }
            stays
        });
        for (id, addresses) in peers {
            if id == self.shared.endpoint.options.own_id {
                continue;
            }
            let peer = state.peers.entry(id).or_default();
            peer.addresses = addresses;
            peer.is_stranger = false;
            peer.wake.notify_one();
            // One connection for each pair: the replica with the greater id dials. Where the other
            // may not know this one, it has to dial in the end.
            let dials_first = self.shared.endpoint.options.own_id > id;
            if (dials_first || takes_strangers) && peer.dialling.is_none() {
                let patience = if dials_first { None } else { Some(PATIENCE) };
                let (shared, wake) = (Arc::downgrade(&self.shared), peer.wake.clone());
                let task = dial_peer(shared, id, wake, patience);
                peer.dialling = Some(self.shared.runtime.spawn(task));
            }
        }
    }

    /// From now on only replicas of this ensemble are let in.
    pub fn set_ensemble_id(&self, ensemble_id: EnsembleId) {
        self.shared.endpoint.set_ensemble_id(ensemble_id);
    }

    /// Queues a frame; false if there is no link. A peer that has fallen too far behind loses its
    /// link here.
    pub fn send(&self, peer: ServerId, payload: &[u8]) -> bool {
        let state = self.shared.state.lock();
        let Some(link) = state.peers.get(&peer).and_then(|peer| peer.link.as_ref()) else {
            return false;
        };
        link.queue.push(payload, self.shared.endpoint.options.waiting_bytes_max)
    }

    /// Closes the link to a peer; a new one is made at once.
    pub fn disconnect(&self, peer: ServerId, reason: &str) {
        let state = self.shared.state.lock();
        if let Some(link) = state.peers.get(&peer).and_then(|peer| peer.link.as_ref()) {
            link.queue.close(reason);
        }
    }
}

impl Drop for LinkSet {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        for (_, mut peer) in state.peers.drain() {
            peer.close("this replica is stopping");
        }
    }
}

impl Peer {
    fn close(&mut self, reason: &str) {
        if let Some(dialling) = self.dialling.take() {
            dialling.abort();
        }
        if let Some(link) = self.link.take() {
            link.queue.close(reason);
        }
    }
}

impl Host for Shared {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn objection(&self, hello: &Hello) -> Option<String> {
        let mut state = self.state.lock();
        let peer = state.peers.get(&hello.own_id);
        if peer.is_none() && !self.endpoint.options.takes_strangers {
            return Some(handshake::not_configured(hello.own_id));
        }
        let is_linked = peer.is_some_and(|peer| peer.link.is_some());
        let is_admitted = state.instances.admit(hello.own_id, hello.instance, is_linked);
        (!is_admitted).then(|| handshake::id_conflict(hello.own_id))
    }

    async fn run_accepted(self: Arc<Shared>, peer: ServerId, stream: PeerStream) {
        self.run_link(peer, stream).await;
    }
}

impl Shared {
    /// Runs an agreed link until it breaks.
    async fn run_link(self: &Arc<Shared>, peer_id: ServerId, stream: PeerStream) {
        let queue = Arc::new(SendQueue::new());
        let (number, turn) = {
            let mut state = self.state.lock();
            let number = state.next_link;
            state.next_link += 1;
            let closed = state.closed;
            if self.endpoint.options.takes_strangers && !closed {
                let stranger = || Peer { is_stranger: true, ..Peer::default() };
                state.peers.entry(peer_id).or_insert_with(stranger);
            }
            let Some(peer) = state.peers.get_mut(&peer_id).filter(|_| !closed) else { return };
            let link = Link { number, queue: queue.clone() };
            if let Some(old) = peer.link.replace(link) {
                old.queue.close("the peer opened a new link");
            }
            (number, peer.turn.clone())
        };
        let _turn = turn.lock().await;
        let sink = self.sink.clone();
        sink(LinkEvent::Connected { peer: peer_id });
        let take = |payload| sink(LinkEvent::Message { peer: peer_id, payload });
        let limit = self.endpoint.options.frame_length_max;
        let reason = peer_connection::run(stream, &queue, limit, take).await;
        let mut state = self.state.lock();
        if let Some(peer) = state.peers.get_mut(&peer_id) {
            if peer.link.as_ref().is_some_and(|link| link.number == number) {
                peer.link = None;
            }
            peer.wake.notify_one();
            if peer.is_stranger && peer.link.is_none() {
                state.peers.remove(&peer_id);
            }
        }
        drop(state);
        tracing::info!(peer = %peer_id, plane = %self.endpoint.options.plane, "link lost: {reason}");
        sink(LinkEvent::Lost { peer: peer_id, reason });
    }
}

/// Keeps a link to a peer up; with patience, only when the peer has not dialled for so long.
async fn dial_peer(
    shared: Weak<Shared>,
    peer: ServerId,
    wake: Arc<Notify>,
    patience: Option<Duration>,
) {
    let mut pause = RETRY_PAUSE_MIN;
    let mut last_error = String::new();
    loop {
        if let Some(patience) = patience {
            tokio::time::sleep(patience).await;
        }
        let Some(shared) = shared.upgrade() else { return };
        let known = {
            let state = shared.state.lock();
            let peer = state.peers.get(&peer);
            if patience.is_some() && peer.is_some_and(|peer| peer.link.is_some()) {
                continue;
            }
            peer.map(|peer| peer.addresses.clone())
        };
        match shared.endpoint.dial(peer, &known.unwrap_or_default()).await {
            Ok(stream) => {
                pause = RETRY_PAUSE_MIN;
                last_error.clear();
                shared.run_link(peer, stream).await;
            }
            Err(error) => {
                let error = error.reason;
                // Said once, not at every attempt; by the one whose turn it is to dial.
                if error != last_error && patience.is_none() {
                    let plane = shared.endpoint.options.plane;
                    tracing::warn!(peer = %peer, %plane, "peer not reached: {error}");
                    last_error = error;
                }
            }
        }
        drop(shared);
        let _ = tokio::time::timeout(pause, wake.notified()).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests;
