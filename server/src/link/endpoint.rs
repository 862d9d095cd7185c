//! One port of a replica, as its peers meet it: the loop that takes connections, and the agreement on
//! one, dialled or taken, within a time limit. What does not live here: what an agreed connection is
//! used for (`LinkSet`, `QuorumPort`).

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::LinkOptions;
use super::handshake::{self, EnsembleId, HandshakeError, Hello, ServerId};

/// How long a connection and its handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What this replica says of itself on one of its ports.
pub(super) struct Endpoint {
    pub(super) options: LinkOptions,
    ensemble_id: Mutex<Option<EnsembleId>>,
}

/// Who uses the connections of an [`Endpoint`].
pub(super) trait Host: Send + Sync + 'static {
    /// The port.
    fn endpoint(&self) -> &Endpoint;
    /// Whether there is such a peer.
    fn knows(&self, peer: ServerId) -> bool;
    /// Uses a connection that a peer has made, until it breaks.
    fn run_accepted(
        self: Arc<Self>,
        peer: ServerId,
        stream: TcpStream,
    ) -> impl Future<Output = ()> + Send;
}

impl Endpoint {
    pub(super) fn new(options: LinkOptions, ensemble_id: Option<EnsembleId>) -> Endpoint {
        Endpoint { options, ensemble_id: Mutex::new(ensemble_id) }
    }

    /// From now on only replicas of this ensemble are let in.
    pub(super) fn set_ensemble_id(&self, ensemble_id: EnsembleId) {
        *self.ensemble_id.lock() = Some(ensemble_id);
    }

    fn hello(&self) -> Hello {
        Hello {
            own_id: self.options.own_id,
            plane: self.options.plane,
            ensemble_id: *self.ensemble_id.lock(),
        }
    }

    /// Tries every address of a peer once; the error names each with what is wrong.
    pub(super) async fn dial(
        &self,
        peer: ServerId,
        addresses: &[String],
    ) -> Result<TcpStream, String> {
        if addresses.is_empty() {
            return Err(HandshakeError::NoAddress.to_string());
        }
        let hello = self.hello();
        let mut reasons = Vec::new();
        for address in addresses {
            let attempt = async {
                let mut stream = TcpStream::connect(address).await?;
                handshake::dial(&mut stream, &hello, peer).await?;
                Ok(stream)
            };
            match in_time(attempt).await {
                Ok(stream) => return Ok(stream),
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        Err(reasons.join(", "))
    }
}

async fn in_time<T>(
    attempt: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, attempt).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// Takes connections of peers for as long as the host lives.
pub(super) async fn accept_peers<H: Host>(listener: TcpListener, host: Weak<H>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let Some(host) = host.upgrade() else { return };
        match accepted {
            Ok((stream, address)) => {
                connections.spawn(accept_peer(host, stream, address));
            }
            Err(error) => {
                // Out of descriptors, most likely: it passes, and a busy loop would not help.
                tracing::warn!("connection of a peer not taken: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_peer<H: Host>(host: Arc<H>, mut stream: TcpStream, address: SocketAddr) {
    let hello = host.endpoint().hello();
    let agreed = handshake::accept(&mut stream, &hello, |peer| host.knows(peer));
    match in_time(agreed).await {
        Ok(peer) => host.run_accepted(peer, stream).await,
        Err(error) => {
            tracing::warn!(%address, plane = %hello.plane, "peer refused: {error}");
        }
    }
}
