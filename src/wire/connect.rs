//! The records that open a connection. They have no header. No I/O.

use bytes::{BufMut, Bytes, BytesMut};

use super::jute::{Decoder, Encode, WireError, put_boolean, put_buffer};
use crate::zxid::{SessionId, Zxid};

/// Length of a session password in bytes.
pub const PASSWORD_LENGTH: usize = 16;

/// The first frame of a client (`ConnectRequest`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Always 0.
    pub protocol_version: i32,
    /// The newest zxid the client has seen; a replica behind it must not serve the client.
    pub last_zxid_seen: Zxid,
    /// The session timeout the client asks for, milliseconds.
    pub timeout_ms: i32,
    /// The session to attach to; 0 asks for a new one.
    pub session_id: SessionId,
    /// The session's password, 16 bytes; `None` for null.
    pub password: Option<Bytes>,
    /// Whether the client would accept a read-only replica; `None` from clients that predate the
    /// field, which must not see it in the answer either.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Reads the record.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<ConnectRequest, WireError> {
        Ok(ConnectRequest {
            protocol_version: decoder.read_int()?,
            last_zxid_seen: Zxid(decoder.read_long()?),
            timeout_ms: decoder.read_int()?,
            session_id: SessionId(decoder.read_long()?),
            password: decoder.read_buffer()?,
            read_only: decode_read_only(decoder)?,
        })
    }
}

fn decode_read_only(decoder: &mut Decoder<'_>) -> Result<Option<bool>, WireError> {
    if decoder.remaining() == 0 { Ok(None) } else { decoder.read_boolean().map(Some) }
}

impl Encode for ConnectRequest {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.protocol_version);
        out.put_i64(self.last_zxid_seen.0);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session_id.0);
        put_buffer(out, self.password.as_deref());
        if let Some(read_only) = self.read_only {
            put_boolean(out, read_only);
        }
    }
}

/// The first frame of a replica (`ConnectResponse`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectResponse {
    /// Always 0.
    pub protocol_version: i32,
    /// The session timeout that holds, milliseconds; 0 says that the session is not valid.
    pub timeout_ms: i32,
    /// The session; 0 when it is not valid.
    pub session_id: SessionId,
    /// The session's password, 16 bytes.
    pub password: Bytes,
    /// Whether this replica is read-only; sent only to clients that sent theirs.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// The answer that tells a client its session is gone.
    pub fn invalid_session(read_only: Option<bool>) -> ConnectResponse {
        ConnectResponse {
            password: Bytes::from_static(&[0; PASSWORD_LENGTH]),
            read_only,
            ..ConnectResponse::default()
        }
    }

    /// Reads the record.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<ConnectResponse, WireError> {
        Ok(ConnectResponse {
            protocol_version: decoder.read_int()?,
            timeout_ms: decoder.read_int()?,
            session_id: SessionId(decoder.read_long()?),
            password: decoder.read_buffer()?.unwrap_or_default(),
            read_only: decode_read_only(decoder)?,
        })
    }
}

impl Encode for ConnectResponse {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.protocol_version);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.session_id.0);
        put_buffer(out, Some(&self.password));
        if let Some(read_only) = self.read_only {
            put_boolean(out, read_only);
        }
    }
}
