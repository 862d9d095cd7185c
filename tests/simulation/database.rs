//! The replicated state of a simulated replica: a hash over everything applied, in order, and a few
//! registers. Small, so that a whole copy is a snapshot.

use bytes::Bytes;
use znodefs::Zxid;
use znodefs_server::zab::{Ensemble, Entry, ServerId};

use crate::random::mix;

const KEYS: usize = 8;

/// The state after some prefix of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// The last transaction applied.
    pub zxid: Zxid,
    /// How many were applied.
    pub applied: u64,
    /// A hash over all of them, in order.
    pub chain: u64,
    /// The last configuration applied.
    pub configuration: Ensemble,
    keys: [u64; KEYS],
}

/// What the payload of a reconfiguration begins with; longer than a write.
const RECONFIGURATION: &[u8] = b"members: ";

/// The payload of a transaction that makes these the members; voters first, then observers.
pub fn reconfiguration(new: &Ensemble) -> Bytes {
    let ids = |ids: &[ServerId]| ids.iter().map(|id| id.0 as u8).collect::<Vec<u8>>();
    let parts = [RECONFIGURATION, &ids(new.voters()), &[0], &ids(new.observers())];
    Bytes::from(parts.concat())
}

/// The configuration that an entry makes.
pub fn configuration(entry: &Entry) -> Option<Ensemble> {
    configuration_of(entry.zxid, &entry.payload)
}

fn configuration_of(zxid: Zxid, payload: &[u8]) -> Option<Ensemble> {
    let ids = payload.strip_prefix(RECONFIGURATION)?;
    let end = ids.iter().position(|id| *id == 0)?;
    let id = |id: &u8| ServerId(u32::from(*id));
    Some(Ensemble::new(zxid, ids[..end].iter().map(id), ids[end + 1..].iter().map(id)))
}

/// A client's write: what the payload of a transaction says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The simulator's number for it.
    pub operation: u64,
}

impl Write {
    /// The payload.
    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&self.operation.to_le_bytes())
    }

    /// The write that a payload says.
    pub fn decode(payload: &[u8]) -> Option<Write> {
        Some(Write { operation: u64::from_le_bytes(payload.try_into().ok()?) })
    }
}

/// A hash of a payload.
pub fn hash(payload: &[u8]) -> u64 {
    payload.iter().fold(payload.len() as u64, |hash, byte| mix(hash ^ u64::from(*byte) ^ 0x100))
}

impl Database {
    /// Before the first transaction.
    pub fn new() -> Database {
        let configuration = Ensemble::default();
        Database { zxid: Zxid::ZERO, applied: 0, chain: 0, configuration, keys: [0; KEYS] }
    }

    /// Applies one transaction.
    pub fn apply(&mut self, zxid: Zxid, payload: &[u8]) {
        self.chain = extend_chain(self.chain, zxid, payload);
        self.zxid = zxid;
        self.applied += 1;
        if let Some(configuration) = configuration_of(zxid, payload) {
            self.configuration = configuration;
        }
        if let Some(write) = Write::decode(payload) {
            self.keys[(mix(write.operation) % KEYS as u64) as usize] = write.operation;
        }
    }
}

/// The chain's next value.
pub fn extend_chain(chain: u64, zxid: Zxid, payload: &[u8]) -> u64 {
    mix(chain ^ mix(zxid.0 as u64) ^ hash(payload).rotate_left(17))
}
