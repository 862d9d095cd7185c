//! One port of a replica, as its peers meet it: the loop that takes connections, and the agreement on
//! one, dialled or taken, with or without TLS, within a time limit. What does not live here: what an
//! agreed connection is used for (`LinkSet`, `QuorumPort`).

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use super::LinkOptions;
use super::complaints::Complaints;
use super::handshake::{self, EnsembleId, HandshakeError, Hello, ServerId, Speech};
use crate::tls::QuorumTls;

/// How long a connection and its handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How long, and for how many bytes, a refused connection stays open: closing it with unread bytes
/// would take the reason away from the other side.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// An agreed connection.
pub(super) enum PeerStream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted, both sides authenticated.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What this replica says of itself on one of its ports.
pub(super) struct Endpoint {
    pub(super) options: LinkOptions,
    ensemble_id: Mutex<Option<EnsembleId>>,
    complaints: Mutex<Complaints>,
    started: Instant,
}

/// Who uses the connections of an [`Endpoint`].
pub(super) trait Host: Send + Sync + 'static {
    /// The port.
    fn endpoint(&self) -> &Endpoint;
    /// What there is against who has dialled.
    fn objection(&self, hello: &Hello) -> Option<String>;
    /// Uses a connection that a peer has made, until it breaks.
    fn run_accepted(
        self: Arc<Self>,
        peer: ServerId,
        stream: PeerStream,
    ) -> impl Future<Output = ()> + Send;
}

/// Why a peer was not reached at any of its addresses.
pub(super) struct DialError {
    /// Each address with what is wrong.
    pub(super) reason: String,
    /// Whether somebody is there and there was no agreement, so that trying again does not help.
    pub(super) is_refusal: bool,
}

impl Endpoint {
    pub(super) fn new(options: LinkOptions, ensemble_id: Option<EnsembleId>) -> Endpoint {
        Endpoint {
            options,
            ensemble_id: Mutex::new(ensemble_id),
            complaints: Mutex::default(),
            started: Instant::now(),
        }
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
            instance: self.options.instance,
            meant: None,
        }
    }

    /// Logs a refusal, the same one only once in a while.
    pub(super) fn complain(&self, complaint: &str) {
        let plane = self.options.plane;
        match self.complaints.lock().tell(complaint, self.started.elapsed()) {
            None => {}
            Some(0) => tracing::warn!(%plane, "{complaint}"),
            Some(untold) => tracing::warn!(%plane, "{complaint} ({untold} times more meanwhile)"),
        }
    }

    /// Tries every address of a peer once.
    pub(super) async fn dial(
        &self,
        peer: ServerId,
        addresses: &[String],
    ) -> Result<PeerStream, DialError> {
        let mut reasons = Vec::new();
        let mut is_refusal = false;
        for address in addresses {
            match in_time(self.dial_address(peer, address)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    is_refusal |= error.is_refusal();
                    reasons.push(format!("{address}: {error}"));
                }
            }
        }
        if reasons.is_empty() {
            reasons.push(HandshakeError::NoAddress.to_string());
        }
        Err(DialError { reason: reasons.join(", "), is_refusal })
    }

    async fn dial_address(
        &self,
        peer: ServerId,
        address: &str,
    ) -> Result<PeerStream, HandshakeError> {
        let hello = Hello { meant: Some(peer), ..self.hello() };
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = self.options.tls.as_ref().filter(|tls| tls.dials) else {
            handshake::dial(&mut stream, &hello).await?;
            return Ok(PeerStream::Plain(stream));
        };
        let connected = tls.ends().connector.connect(server_name(address)?, stream).await;
        let mut stream = TlsStream::from(connected?);
        handshake::dial(&mut stream, &hello).await?;
        Ok(PeerStream::Tls(Box::new(stream)))
    }

    /// Agrees with whoever has dialled.
    pub(super) async fn accept(
        &self,
        mut stream: TcpStream,
        object: impl Fn(&Hello) -> Option<String>,
    ) -> Result<(ServerId, PeerStream), HandshakeError> {
        stream.set_nodelay(true)?;
        let hello = self.hello();
        let tls = self.options.tls.as_ref();
        let speech = Speech::of(&stream).await?;
        let agreed = match (speech, tls) {
            (Speech::Tls, Some(tls)) => {
                return accept_tls(tls, stream, &hello, object).await;
            }
            (Speech::Tls, None) => handshake::refuse(&mut stream, HandshakeError::SpeaksTls).await,
            (Speech::Plain, Some(tls)) if !tls.takes_plain => {
                handshake::refuse(&mut stream, HandshakeError::SpeaksNoTls).await
            }
            _ => handshake::accept(&mut stream, &hello, object).await,
        };
        match agreed {
            Ok(peer) => Ok((peer, PeerStream::Plain(stream))),
            Err(error) => {
                linger(stream).await;
                Err(error)
            }
        }
    }
}

async fn accept_tls(
    tls: &QuorumTls,
    stream: TcpStream,
    hello: &Hello,
    object: impl Fn(&Hello) -> Option<String>,
) -> Result<(ServerId, PeerStream), HandshakeError> {
    let mut stream = match tls.ends().acceptor.accept(stream).into_fallible().await {
        Ok(stream) => TlsStream::from(stream),
        Err((error, stream)) => {
            linger(stream).await;
            return Err(error.into());
        }
    };
    let agreed = handshake::accept(&mut stream, hello, object).await;
    match agreed {
        Ok(peer) => Ok((peer, PeerStream::Tls(Box::new(stream)))),
        Err(error) => {
            // It is refused all the same when it does not hear of it.
            let _ = stream.shutdown().await;
            Err(error)
        }
    }
}

/// Lets the other side read why before the connection is closed.
async fn linger(mut stream: TcpStream) {
    // It is refused all the same when it does not hear of it.
    let _ = stream.shutdown().await;
    let mut sink = tokio::io::sink();
    let mut rest = (&mut stream).take(LINGER_BYTES_MAX);
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
}

/// The host of `HOST:PORT`, for which a certificate must be.
fn server_name(address: &str) -> Result<ServerName<'static>, HandshakeError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_string()).map_err(|_| {
        let reason = format!("'{host}' is no host that a certificate can be for");
        HandshakeError::Io(io::Error::new(io::ErrorKind::InvalidInput, reason))
    })
}

async fn in_time<T>(
    attempt: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, attempt).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// Takes connections of peers until the end, for as long as the host lives, and keeps those that were
/// taken.
pub(super) async fn accept_peers<H: Host>(listener: TcpListener, host: Weak<H>, end: Arc<Notify>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.notified() => break,
        };
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
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept_peer<H: Host>(host: Arc<H>, stream: TcpStream, address: SocketAddr) {
    let endpoint = host.endpoint();
    match in_time(endpoint.accept(stream, |hello| host.objection(hello))).await {
        Ok((peer, stream)) => Arc::clone(&host).run_accepted(peer, stream).await,
        // The port is another one every time.
        Err(error) => endpoint.complain(&format!("peer at {} refused: {error}", address.ip())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_must_be_for_the_host_that_is_dialled() {
        for (address, host) in
            [("zoo1:2888", "zoo1"), ("10.0.0.1:2888", "10.0.0.1"), ("[::1]:2888", "::1")]
        {
            assert_eq!(server_name(address).unwrap().to_str(), host);
        }
        assert!(server_name("not a host:1").is_err());
    }
}
