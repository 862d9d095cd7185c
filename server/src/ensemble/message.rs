//! What travels on a connection between a learner and its leader: the protocol's packets, and what
//! the drivers have to tell each other before and between them. No I/O.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use znodefs::Zxid;

use crate::codec::{self, CodecError};
use crate::persistence::EnsembleId;
use crate::session_id::PasswordKey;
use crate::zab::Packet;

/// Payload bytes of one message of proposals; what is more is sent in several.
pub(super) const ENTRY_BYTES_MAX: usize = 4 << 20;

/// The longest frame between replicas, bytes: one transaction may be as long as a record may be.
pub(super) const FRAME_LENGTH_MAX: usize = codec::RECORD_LENGTH_MAX + (64 << 10);

/// What all members of an ensemble have in common; made by its first leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SharedIdentity {
    /// Which ensemble it is.
    pub ensemble_id: EnsembleId,
    /// What session passwords are made with.
    pub password_key: [u8; 32],
}

impl SharedIdentity {
    /// The key as the replica takes it.
    pub fn key(&self) -> PasswordKey {
        PasswordKey(self.password_key)
    }
}

/// One message; `P` is a packet, borrowed where it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message<P> {
    /// Leader, before anything else: which ensemble this is.
    Identity(SharedIdentity),
    /// Leader: a snapshot of everything up to `zxid` follows, and then the packet that names it.
    SnapshotBegin {
        /// What it contains for certain.
        zxid: Zxid,
    },
    /// Leader: part of the snapshot.
    SnapshotBlock(Bytes),
    /// A packet of the protocol.
    Packet(P),
}

/// A message as it is read.
pub(super) type ReceivedMessage = Message<Packet>;

/// A message as it is written.
pub(super) type SentMessage<'a> = Message<&'a Packet>;

/// The bytes of a message.
pub(super) fn encode(message: &SentMessage<'_>) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    codec::encode_into(message, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use znodefs::Epoch;

    use super::*;

    #[test]
    fn what_is_written_with_a_borrowed_packet_is_read_with_its_own() {
        let packet = Packet::NewLeader { epoch: Epoch(7) };
        let bytes = encode(&Message::Packet(&packet)).unwrap();
        let Message::Packet(read) = codec::decode::<ReceivedMessage>(&bytes).unwrap() else {
            panic!("another message")
        };
        assert_eq!(read, packet);
        let block = Bytes::from_static(b"block");
        let bytes = encode(&Message::SnapshotBlock(block.clone())).unwrap();
        let read = codec::decode::<ReceivedMessage>(&bytes).unwrap();
        assert!(matches!(read, Message::SnapshotBlock(read) if read == block));
    }
}
