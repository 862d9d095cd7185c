//! The quorum port: connections that learners make to whom they hold for the leader, each with a
//! number of its own, so that nothing of an old connection is ever taken for the new one's.
//!
//! What does not live here: when to connect (Zab says so) and what frames mean.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::endpoint::{Endpoint, Host, PeerStream};
use super::handshake::{self, EnsembleId, Hello, ServerId};
use super::peer_connection::{self, SendQueue};
use super::{LinkOptions, Listening};

/// What happens on the quorum port.
#[derive(Debug)]
pub enum PortEvent {
    /// A connection is up.
    Connected {
        /// Its number, never used again in this process.
        connection: u64,
        /// Who is at the other end.
        peer: ServerId,
        /// Whether [`QuorumPort::connect`] asked for it.
        outgoing: bool,
    },
    /// A connection that was asked for could not be made.
    ConnectFailed {
        /// To whom.
        peer: ServerId,
        /// Why, every address tried.
        reason: String,
    },
    /// A frame came; frames of one connection come in order.
    Message {
        /// On this connection.
        connection: u64,
        /// The frame's payload.
        payload: Vec<u8>,
    },
    /// A connection is gone; what was not delivered is lost.
    Disconnected {
        /// Which.
        connection: u64,
        /// Why.
        reason: String,
    },
}

/// Takes the port's events; called from its tasks, so it must not block.
pub type PortSink = Arc<dyn Fn(PortEvent) + Send + Sync>;

/// The quorum port of one replica. Dropping it closes everything.
pub struct QuorumPort {
    shared: Arc<Shared>,
    listening: Listening,
}

struct Shared {
    endpoint: Endpoint,
    sink: PortSink,
    runtime: tokio::runtime::Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peers: HashMap<ServerId, Vec<String>>,
    connections: HashMap<u64, Arc<SendQueue>>,
    next_connection: u64,
    closed: bool,
}

impl QuorumPort {
    /// Listens on `address` for the replicas that [`set_peers`](QuorumPort::set_peers) names.
    pub fn start(
        address: SocketAddr,
        options: LinkOptions,
        ensemble_id: Option<EnsembleId>,
        sink: PortSink,
    ) -> io::Result<QuorumPort> {
        let shared = Arc::new(Shared {
            endpoint: Endpoint::new(options, ensemble_id),
            sink,
            runtime: tokio::runtime::Handle::current(),
            state: Mutex::default(),
        });
        let listening = Listening::begin(address, Arc::downgrade(&shared))?;
        Ok(QuorumPort { shared, listening })
    }

    /// Where connections are taken.
    pub fn listening(&self) -> &Listening {
        &self.listening
    }

    /// Says which other replicas there are, each with its addresses `HOST:PORT`.
    pub fn set_peers(&self, peers: HashMap<ServerId, Vec<String>>) {
        self.shared.state.lock().peers = peers;
    }

    /// From now on only replicas of this ensemble are let in.
    pub fn set_ensemble_id(&self, ensemble_id: EnsembleId) {
        self.shared.endpoint.set_ensemble_id(ensemble_id);
    }

    /// Dials a peer; [`PortEvent::Connected`] or [`PortEvent::ConnectFailed`] follows.
    pub fn connect(&self, peer: ServerId) {
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move {
            let addresses = shared.state.lock().peers.get(&peer).cloned().unwrap_or_default();
            match shared.endpoint.dial(peer, &addresses).await {
                Ok(stream) => shared.run(peer, stream, true).await,
                Err(error) => {
                    let reason = error.reason;
                    if error.is_refusal {
                        shared.endpoint.complain(&format!("leader {peer} not reached: {reason}"));
                    }
                    (shared.sink)(PortEvent::ConnectFailed { peer, reason });
                }
            }
        });
    }

    /// Queues a frame; false when the connection is gone. A peer that has fallen too far behind
    /// loses its connection here.
    pub fn send(&self, connection: u64, payload: &[u8]) -> bool {
        let queue = self.shared.state.lock().connections.get(&connection).cloned();
        queue.is_some_and(|queue| {
            queue.push(payload, self.shared.endpoint.options.waiting_bytes_max)
        })
    }

    /// Ends a connection once what was sent before is written.
    pub fn disconnect(&self, connection: u64) {
        if let Some(queue) = self.shared.state.lock().connections.get(&connection) {
            queue.finish();
        }
    }

    /// Resolves once no more than `limit` bytes wait for the other end, or the connection is gone.
    pub async fn has_room(&self, connection: u64, limit: usize) {
        let queue = self.shared.state.lock().connections.get(&connection).cloned();
        if let Some(queue) = queue {
            queue.has_room(limit).await;
        }
    }

    /// Whether every connection is gone: what was sent before their ends is written.
    pub fn is_drained(&self) -> bool {
        self.shared.state.lock().connections.is_empty()
    }

    /// Begins a stream of frames, such as a snapshot, on a connection: frames sent from now on wait
    /// behind it until it is dropped. `None` when the connection is gone.
    pub fn begin_stream(&self, connection: u64) -> Option<FrameStream> {
        let queue = self.shared.state.lock().connections.get(&connection).cloned()?;
        queue.begin_stream();
        Some(FrameStream { queue, limit: self.shared.endpoint.options.waiting_bytes_max })
    }
}

/// Frames that go before whatever else is sent on their connection.
pub struct FrameStream {
    queue: Arc<SendQueue>,
    limit: usize,
}

impl FrameStream {
    /// Sends one frame as soon as there is room; false when the connection is gone.
    pub async fn send(&self, payload: &[u8]) -> bool {
        self.queue.stream(payload, self.limit).await
    }

    /// Gives the connection up: the stream cannot be completed.
    pub fn abort(self, reason: &str) {
        self.queue.close(reason);
    }
}

impl Drop for FrameStream {
    fn drop(&mut self) {
        self.queue.end_stream();
    }
}

impl Drop for QuorumPort {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        for (_, queue) in state.connections.drain() {
            queue.close("this replica is stopping");
        }
    }
}

impl Host for Shared {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn objection(&self, hello: &Hello) -> Option<String> {
        let state = self.state.lock();
        let is_known =
            self.endpoint.options.takes_strangers || state.peers.contains_key(&hello.own_id);
        (!is_known).then(|| handshake::not_configured(hello.own_id))
    }

    async fn run_accepted(self: Arc<Shared>, peer: ServerId, stream: PeerStream) {
        self.run(peer, stream, false).await;
    }
}

impl Shared {
    /// Runs an agreed connection until it breaks.
    async fn run(&self, peer: ServerId, stream: PeerStream, outgoing: bool) {
        let queue = Arc::new(SendQueue::new());
        let connection = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            let connection = state.next_connection;
            state.next_connection += 1;
            state.connections.insert(connection, Arc::clone(&queue));
            connection
        };
        (self.sink)(PortEvent::Connected { connection, peer, outgoing });
        let take = |payload| (self.sink)(PortEvent::Message { connection, payload });
        let limit = self.endpoint.options.frame_length_max;
        let reason = peer_connection::run(stream, &queue, limit, take).await;
        self.state.lock().connections.remove(&connection);
        tracing::debug!(peer = %peer, connection, "quorum connection ended: {reason}");
        (self.sink)(PortEvent::Disconnected { connection, reason });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::link::Plane;

    struct Replica {
        port: QuorumPort,
        events: UnboundedReceiver<PortEvent>,
    }

    async fn replica(id: u32, waiting_bytes_max: usize) -> Replica {
        let (sender, events) = unbounded_channel();
        let options = LinkOptions {
            own_id: ServerId(id),
            plane: Plane::Quorum,
            waiting_bytes_max,
            frame_length_max: 1 << 20,
            instance: u64::from(id),
            takes_strangers: false,
            tls: None,
        };
        let sink: PortSink = Arc::new(move |event| {
            // A test that has ended needs no more events.
            let _ = sender.send(event);
        });
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let port = QuorumPort::start(address, options, None, sink).unwrap();
        Replica { port, events }
    }

    impl Replica {
        async fn next(&mut self) -> PortEvent {
            let next = self.events.recv();
            tokio::time::timeout(Duration::from_secs(20), next).await.unwrap().unwrap()
        }

        async fn connected(&mut self) -> u64 {
            match self.next().await {
                PortEvent::Connected { connection, .. } => connection,
                other => panic!("{other:?}"),
            }
        }

        async fn message(&mut self) -> Vec<u8> {
            match self.next().await {
                PortEvent::Message { payload, .. } => payload,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn leader_and_learner() -> (Replica, Replica, u64, u64) {
        let (mut leader, mut learner) = (replica(1, 4096).await, replica(2, 4096).await);
        leader.port.set_peers(HashMap::from([(ServerId(2), vec![])]));
        let address = leader.port.listening().first().to_string();
        learner.port.set_peers(HashMap::from([(ServerId(1), vec![address])]));
        learner.port.connect(ServerId(1));
        let (of_leader, of_learner) = (leader.connected().await, learner.connected().await);
        (leader, learner, of_leader, of_learner)
    }

    #[tokio::test]
    async fn what_is_sent_during_a_stream_comes_behind_it() {
        let (leader, mut learner, connection, _) = leader_and_learner().await;
        let stream = leader.port.begin_stream(connection).unwrap();
        assert!(leader.port.send(connection, b"behind"));
        let streamed = tokio::spawn(async move {
            for number in 0..100u8 {
                assert!(stream.send(&[number; 1000]).await);
            }
        });
        for number in 0..100u8 {
            assert_eq!(learner.message().await, [number; 1000]);
        }
        streamed.await.unwrap();
        assert_eq!(learner.message().await, b"behind");
    }

    #[tokio::test]
    async fn a_disconnection_lets_what_was_sent_before_arrive() {
        let (mut leader, mut learner, connection, _) = leader_and_learner().await;
        assert!(leader.port.send(connection, b"last words"));
        leader.port.disconnect(connection);
        assert_eq!(learner.message().await, b"last words");
        assert!(matches!(learner.next().await, PortEvent::Disconnected { .. }));
        assert!(matches!(leader.next().await, PortEvent::Disconnected { .. }));
        assert!(!leader.port.send(connection, b"too late"));
    }

    #[tokio::test]
    async fn a_peer_that_cannot_be_reached_is_told_with_every_address() {
        let mut learner = replica(2, 4096).await;
        let unused = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = unused.local_addr().unwrap().to_string();
        drop(unused);
        learner.port.set_peers(HashMap::from([(ServerId(1), vec![address.clone()])]));
        learner.port.connect(ServerId(1));
        let PortEvent::ConnectFailed { reason, .. } = learner.next().await else {
            panic!("connected to nobody")
        };
        assert!(reason.contains(&address), "{reason}");
    }
}
