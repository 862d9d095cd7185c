//! The handshake of a link: each side says who it is, and each refuses, in words that the other logs,
//! a replica of another ensemble, of another version, one that is not in the configuration or one
//! with its own id.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frame::{self, FrameError, HEADER_LENGTH, Header};
use crate::codec::{self, CodecError};
use crate::tls;

pub use crate::persistence::EnsembleId;
pub use crate::zab::ServerId;

/// Which of a replica's two ports a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plane {
    /// Leader and learners.
    Quorum,
    /// Leader election.
    Election,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Plane::Quorum => "quorum",
            Plane::Election => "election",
        })
    }
}

/// Greatest length of a handshake's frame in bytes.
const HELLO_LENGTH_MAX: usize = 1024;

/// Who a replica says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its id.
    pub own_id: ServerId,
    /// The port it means.
    pub plane: Plane,
    /// Its ensemble; `None` while its data directory is empty.
    pub ensemble_id: Option<EnsembleId>,
    /// A number that its process drew at its start.
    pub instance: u64,
    /// Whom it meant to reach, if it has dialled.
    pub meant: Option<ServerId>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Welcome(Hello),
    Refused(String),
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side said why.
    #[error("it refused this replica: {0}")]
    RefusedByPeer(String),
    /// We refuse the other side.
    #[error("{0}")]
    Refused(String),
    /// The bytes are not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is not a handshake.
    #[error("its handshake makes no sense: {0}")]
    Codec(#[from] CodecError),
    /// The other side speaks TLS to a replica without.
    #[error("it speaks TLS, this replica does not: set sslQuorum to the same on both sides")]
    SpeaksTls,
    /// The other side speaks no TLS to a replica that demands it.
    #[error(
        "it speaks no TLS, this replica demands it (sslQuorum): set sslQuorum to the same on both \
         sides"
    )]
    SpeaksNoTls,
    /// There was no agreement on TLS.
    #[error("{0}")]
    Tls(String),
    /// The connection failed.
    #[error(transparent)]
    Io(io::Error),
    /// The other side took too long.
    #[error("its handshake took too long")]
    TimedOut,
    /// There is nowhere to dial.
    #[error("no address is known")]
    NoAddress,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        match tls::words::reason(&error) {
            Some(reason) => HandshakeError::Tls(reason),
            None => HandshakeError::Io(error),
        }
    }
}

impl HandshakeError {
    /// Whether somebody was there and there was no agreement.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            HandshakeError::Io(_) | HandshakeError::TimedOut | HandshakeError::NoAddress
        )
    }
}

/// What who has dialled speaks, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Frames.
    Plain,
    /// TLS.
    Tls,
    /// Something else.
    Unknown,
}

impl Speech {
    /// Looks without taking anything.
    pub async fn of(stream: &TcpStream) -> Result<Speech, HandshakeError> {
        let mut first = [0; 1];
        if stream.peek(&mut first).await? == 0 {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(match first[0] {
            frame::FIRST_BYTE => Speech::Plain,
            // A TLS record that holds a handshake.
            0x16 => Speech::Tls,
            _ => Speech::Unknown,
        })
    }
}

/// Tells who has dialled that it is refused, in the frames of who speaks no TLS: who does is told by
/// its own side that these are none of TLS.
pub async fn refuse(
    stream: &mut TcpStream,
    error: HandshakeError,
) -> Result<ServerId, HandshakeError> {
    let reason = match &error {
        HandshakeError::SpeaksNoTls => {
            "it demands TLS (sslQuorum): set sslQuorum to the same on both sides".to_string()
        }
        other => other.to_string(),
    };
    send(stream, &Answer::Refused(reason)).await?;
    Err(error)
}

/// Why `own` cannot have a link with `theirs`; `None` if it can.
fn objection(own: &Hello, theirs: &Hello) -> Option<String> {
    if own.plane != theirs.plane {
        return Some(format!(
            "the {} port was reached as if it were the {} port: the ports of a server line are \
             swapped on one side",
            own.plane, theirs.plane
        ));
    }
    if own.own_id == theirs.own_id {
        return Some(id_conflict(own.own_id));
    }
    if let Some(meant) = theirs.meant.filter(|meant| *meant != own.own_id) {
        return Some(format!(
            "replica {} was reached where replica {} should be: check the server lines and myid",
            own.own_id.0, meant.0
        ));
    }
    match (own.ensemble_id, theirs.ensemble_id) {
        (Some(own), Some(theirs)) if own != theirs => Some(format!(
            "a replica of ensemble {theirs} met one of ensemble {own}: one of them has the wrong \
             data directory or the wrong server lines"
        )),
        _ => None,
    }
}

async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    record: &T,
) -> Result<(), HandshakeError> {
    let mut payload = Vec::new();
    codec::encode_into(record, &mut payload)?;
    let mut bytes = Vec::new();
    frame::put_frame(&mut bytes, &payload);
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

async fn receive<T: for<'de> Deserialize<'de>>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, HandshakeError> {
    let mut header = [0; HEADER_LENGTH];
    stream.read_exact(&mut header).await?;
    let header = Header::decode(&header, HELLO_LENGTH_MAX)?;
    let mut payload = vec![0; header.length];
    stream.read_exact(&mut payload).await?;
    header.check(&payload)?;
    Ok(codec::decode(&payload)?)
}

/// The side that dialled.
pub async fn dial(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    own: &Hello,
) -> Result<(), HandshakeError> {
    send(stream, own).await?;
    let theirs = match receive(stream).await? {
        Answer::Welcome(theirs) => theirs,
        Answer::Refused(reason) => return Err(HandshakeError::RefusedByPeer(reason)),
    };
    match objection(own, &theirs) {
        Some(reason) => Err(HandshakeError::Refused(reason)),
        None => Ok(()),
    }
}

/// The side that was dialled; `object` says what else there is against the other side.
pub async fn accept(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    own: &Hello,
    object: impl Fn(&Hello) -> Option<String>,
) -> Result<ServerId, HandshakeError> {
    let theirs: Hello = match receive(stream).await {
        Ok(theirs) => theirs,
        Err(HandshakeError::Frame(error)) => {
            // The other side may be of another version: tell it, if it can read that much.
            let _ = send(stream, &Answer::Refused(error.to_string())).await;
            return Err(error.into());
        }
        Err(error) => return Err(error),
    };
    if let Some(reason) = objection(own, &theirs).or_else(|| object(&theirs)) {
        send(stream, &Answer::Refused(reason.clone())).await?;
        return Err(HandshakeError::Refused(reason));
    }
    send(stream, &Answer::Welcome(*own)).await?;
    Ok(theirs.own_id)
}

/// What there is against a replica that the configuration does not name.
pub fn not_configured(peer: ServerId) -> String {
    format!("replica {} is not in this replica's configuration", peer.0)
}

/// What there is against a second replica with one id.
pub fn id_conflict(id: ServerId) -> String {
    format!("two replicas have the id {}: give each its own number in myid", id.0)
}
