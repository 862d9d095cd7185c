//! The record that describes a znode. No I/O.

use crate::wire::jute::{Decoder, Encode, WireError};
use crate::zxid::{SessionId, Zxid};
use bytes::{BufMut, BytesMut};

/// What the service says about a znode beside its data (`Stat` in ZooKeeper's records; 68 bytes on
/// the wire).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that created the znode.
    pub czxid: Zxid,
    /// The transaction that last set the data (creation counts).
    pub mzxid: Zxid,
    /// Creation time, milliseconds since 1970 by the leader's clock.
    pub ctime: i64,
    /// Time of the last change of the data, milliseconds since 1970 by the leader's clock.
    pub mtime: i64,
    /// Number of changes of the data.
    pub version: i32,
    /// Number of creations and deletions of children.
    pub cversion: i32,
    /// Number of changes of the ACL.
    pub aversion: i32,
    /// The session that owns an ephemeral znode; 0 for every other znode.
    pub ephemeral_owner: SessionId,
    /// Length of the data in bytes; 0 for null data too.
    pub data_length: i32,
    /// Number of direct children.
    pub num_children: i32,
    /// The transaction that last created or deleted a child (creation of the znode counts).
    pub pzxid: Zxid,
}

impl Stat {
    /// Length of the encoded record in bytes.
    pub const ENCODED_LENGTH: usize = 6 * 8 + 5 * 4;

    /// Reads the record.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<Stat, WireError> {
        Ok(Stat {
            czxid: Zxid(decoder.read_long()?),
            mzxid: Zxid(decoder.read_long()?),
            ctime: decoder.read_long()?,
            mtime: decoder.read_long()?,
            version: decoder.read_int()?,
            cversion: decoder.read_int()?,
            aversion: decoder.read_int()?,
            ephemeral_owner: SessionId(decoder.read_long()?),
            data_length: decoder.read_int()?,
            num_children: decoder.read_int()?,
            pzxid: Zxid(decoder.read_long()?),
        })
    }
}

impl Encode for Stat {
    fn encode(&self, out: &mut BytesMut) {
        out.reserve(Stat::ENCODED_LENGTH);
        out.put_i64(self.czxid.0);
        out.put_i64(self.mzxid.0);
        out.put_i64(self.ctime);
        out.put_i64(self.mtime);
        out.put_i32(self.version);
        out.put_i32(self.cversion);
        out.put_i32(self.aversion);
        out.put_i64(self.ephemeral_owner.0);
        out.put_i32(self.data_length);
        out.put_i32(self.num_children);
        out.put_i64(self.pzxid.0);
    }
}
