//! The one place that knows how our own records (log, snapshots, messages between replicas) become
//! bytes: bincode 2, standard configuration, fixed byte order. Nothing else may name bincode, so that
//! it can be replaced. No I/O.

use bincode::config::{self, Configuration, Limit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Upper bound of one decoded record in bytes: a transaction may be larger than any client frame
/// (ZOOKEEPER-3496), but a damaged length must not make us allocate without end.
pub const RECORD_LENGTH_MAX: usize = 64 << 20;

const CONFIGURATION: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    Limit<RECORD_LENGTH_MAX>,
> = config::standard().with_limit::<RECORD_LENGTH_MAX>();

/// Why bytes are not the record they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The record could not be written.
    #[error("record could not be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The record could not be read.
    #[error("record could not be decoded: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The record ends before its bytes do.
    #[error("{0} bytes are left over behind the record")]
    Trailing(usize),
}

/// Appends a record to `out`.
pub fn encode_into<T: Serialize>(record: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(record, out, CONFIGURATION)?;
    Ok(())
}

/// Reads a record that fills `bytes` exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (record, used) = bincode::serde::decode_from_slice(bytes, CONFIGURATION)?;
    if used != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - used));
    }
    Ok(record)
}

/// Reads the record at the front of `bytes`, borrowing from them; the record and its length in bytes.
pub fn decode_front<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, usize), CodecError> {
    Ok(bincode::serde::borrow_decode_from_slice(bytes, CONFIGURATION)?)
}
