//! A client's request on its way from the learner that took it to the leader. No I/O.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use znodefs::SessionId;

use crate::codec::{self, CodecError};
use crate::connection::Identities;

/// A request as a learner forwards it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ForwardedRequest {
    /// Whose it is.
    pub session_id: SessionId,
    /// The client's number for it.
    pub xid: i32,
    /// What it asks for.
    pub op_code: i32,
    /// The connection it came through, by the learner's own count.
    pub connection: u64,
    /// What the connection has proved.
    pub identities: Identities,
    /// The record behind the header.
    pub body: Bytes,
}

impl ForwardedRequest {
    /// Its bytes.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        let mut bytes = Vec::with_capacity(64 + self.body.len());
        codec::encode_into(self, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Reads one that came from a learner.
    pub fn decode(payload: &[u8]) -> Result<ForwardedRequest, CodecError> {
        codec::decode(payload)
    }
}
