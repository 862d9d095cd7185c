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

    /// Every kind of message with as much in it as it may have.
    fn messages() -> Vec<Vec<u8>> {
        use crate::zab::{Ack, Entry, LearnerInfo, ServerId, Standing};
        use std::sync::Arc;
        use znodefs::SessionId;
        let zxid = Zxid::new(Epoch(7), 3);
        let entries: Arc<[Entry]> = [Entry { zxid, payload: Bytes::from_static(b"set /a") }].into();
        let standing = Standing { initialized: true, has_data: true };
        let info = LearnerInfo { accepted_epoch: Epoch(7), standing, configuration: zxid };
        let configuration = crate::zab::Ensemble::default();
        let identity = SharedIdentity { ensemble_id: EnsembleId([3; 16]), password_key: [5; 32] };
        let packets = [
            Packet::FollowerInfo(info),
            Packet::Snap { zxid, configuration },
            Packet::Proposal { entries: entries.clone() },
            Packet::Inform { entries },
            Packet::Ack(Ack::forged(zxid)),
            Packet::Ping { sequence: 1, touched: vec![(SessionId(4), 4000); 9] },
            Packet::Revalidate { session_id: SessionId(4), timeout_ms: 4000, valid: Some(true) },
            Packet::Request { payload: Bytes::from_static(b"create /a") },
            Packet::Handover { successor: ServerId(2) },
        ];
        let others = [
            Message::Identity(identity),
            Message::SnapshotBegin { zxid },
            Message::SnapshotBlock(Bytes::from_static(b"a block of a snapshot")),
        ];
        let packets = packets.iter().map(Message::Packet).chain(others);
        packets.map(|message| encode(&message).unwrap()).collect()
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(4000))]

        /// What has a checksum that fits and was garbled all the same: no panic, and no more memory
        /// than its bytes are worth.
        #[test]
        fn zookeeper_2201_item_32_damaged_messages_are_refused_or_mean_something_else(
            which in 0..12_usize,
            changes in proptest::collection::vec((0..200_usize, proptest::prelude::any::<u8>()), 1..6),
            cut in proptest::option::of(0..200_usize),
            tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
        ) {
            let mut bytes = messages().swap_remove(which);
            for (place, value) in changes {
                let place = place % bytes.len();
                bytes[place] = value;
            }
            bytes.truncate(cut.unwrap_or(bytes.len()));
            bytes.extend(tail);
            if let Ok(message) = codec::decode::<ReceivedMessage>(&bytes)
                && let Message::Packet(packet) = &message
            {
                // It is what its bytes say, and nothing is left over.
                let again = encode(&Message::Packet(packet)).unwrap();
                proptest::prop_assert!(again.len() <= bytes.len());
            }
        }
    }
}
