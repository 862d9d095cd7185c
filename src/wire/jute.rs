//! Jute, ZooKeeper's record encoding: big-endian integers; strings, buffers and vectors with an
//! int length where -1 means null. Decoding borrows from the frame, never panics and never
//! allocates more than the frame holds. No I/O.

use bytes::{BufMut, Bytes, BytesMut};

/// Why bytes could not be read as the record they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The record goes on after the frame's end.
    #[error("the record goes on after the frame's end")]
    Truncated,
    /// A length below -1, or -1 where null makes no sense.
    #[error("a length of {0} makes no sense here")]
    BadLength(i32),
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A boolean that is neither 0 nor 1.
    #[error("a boolean has the value {0}")]
    BadBoolean(u8),
    /// An opcode that has no record.
    #[error("opcode {0} has no such record")]
    UnknownOpCode(i32),
    /// A frame whose announced length is negative or over the limit.
    #[error("a frame of {length} bytes is announced, allowed are 0 to {limit}")]
    FrameLength {
        /// The announced length in bytes.
        length: i32,
        /// The greatest allowed length in bytes.
        limit: usize,
    },
}

/// A record that can be written to the wire.
pub trait Encode {
    /// Appends the encoded record.
    fn encode(&self, out: &mut BytesMut);
}

/// Reads records out of one frame, borrowing from it.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    frame: &'a Bytes,
    position: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the frame's first byte.
    pub fn new(frame: &'a Bytes) -> Decoder<'a> {
        Decoder { frame, position: 0 }
    }

    /// Number of bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.frame.len() - self.position
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let bytes = self.frame[self.position..].get(..length).ok_or(WireError::Truncated)?;
        self.position += length;
        Ok(bytes)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        // `take` returned exactly N bytes.
        Ok(bytes.try_into().unwrap())
    }

    /// Reads an int, 4 bytes.
    pub fn read_int(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.take_array()?))
    }

    /// Reads a long, 8 bytes.
    pub fn read_long(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.take_array()?))
    }

    /// Reads a boolean, 1 byte.
    pub fn read_boolean(&mut self) -> Result<bool, WireError> {
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::BadBoolean(other)),
        }
    }

    /// Reads a length or count; `None` for null.
    fn read_length(&mut self) -> Result<Option<usize>, WireError> {
        match self.read_int()? {
            -1 => Ok(None),
            length if length < 0 => Err(WireError::BadLength(length)),
            length => Ok(Some(length as usize)),
        }
    }

    /// Reads a buffer without copying it; `None` for null.
    pub fn read_buffer(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some(length) = self.read_length()? else { return Ok(None) };
        let start = self.position;
        self.take(length)?;
        Ok(Some(self.frame.slice(start..start + length)))
    }

    /// Reads a string; null reads as an empty one, as ZooKeeper's servers treat it.
    pub fn read_ustring(&mut self) -> Result<&'a str, WireError> {
        Ok(self.read_nullable_ustring()?.unwrap_or_default())
    }

    /// Reads a string where null means something else than an empty one.
    pub fn read_nullable_ustring(&mut self) -> Result<Option<&'a str>, WireError> {
        let Some(length) = self.read_length()? else { return Ok(None) };
        std::str::from_utf8(self.take(length)?).map(Some).map_err(|_| WireError::NotUtf8)
    }

    /// Reads a vector, each element with `read`; null reads as an empty one. Space is reserved only
    /// for elements that the rest of the frame can hold, `smallest` bytes each.
    pub fn read_vector<T>(
        &mut self,
        smallest: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let Some(count) = self.read_length()? else { return Ok(Vec::new()) };
        if count > self.remaining() / smallest.max(1) {
            return Err(WireError::Truncated);
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// Reads a vector of strings.
    pub fn read_ustrings(&mut self) -> Result<Vec<&'a str>, WireError> {
        self.read_vector(4, |decoder| decoder.read_ustring())
    }
}

/// Appends a boolean.
pub fn put_boolean(out: &mut BytesMut, value: bool) {
    out.put_u8(value as u8);
}

/// Appends a buffer; `None` is written as null.
pub fn put_buffer(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.reserve(4 + bytes.len());
            out.put_i32(bytes.len() as i32);
            out.put_slice(bytes);
        }
    }
}

/// Appends a string.
pub fn put_ustring(out: &mut BytesMut, value: &str) {
    put_buffer(out, Some(value.as_bytes()));
}

/// Appends a vector of strings.
pub fn put_ustrings<S: AsRef<str>>(out: &mut BytesMut, values: &[S]) {
    out.put_i32(values.len() as i32);
    for value in values {
        put_ustring(out, value.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_buffers_differ_on_the_wire() {
        let mut out = BytesMut::new();
        put_buffer(&mut out, None);
        put_buffer(&mut out, Some(b""));
        let frame = out.freeze();
        assert_eq!(&frame[..], &[255, 255, 255, 255, 0, 0, 0, 0]);
        let mut decoder = Decoder::new(&frame);
        assert_eq!(decoder.read_buffer().unwrap(), None);
        assert_eq!(decoder.read_buffer().unwrap(), Some(Bytes::new()));
    }

    #[test]
    fn a_vector_count_beyond_the_frame_is_refused_before_allocating() {
        let frame = Bytes::from_static(&[0x7f, 255, 255, 255, 0]);
        assert_eq!(Decoder::new(&frame).read_ustrings(), Err(WireError::Truncated));
    }

    #[test]
    fn a_length_below_minus_one_is_refused() {
        let frame = Bytes::from_static(&[255, 255, 255, 254]);
        assert_eq!(Decoder::new(&frame).read_buffer(), Err(WireError::BadLength(-2)));
    }
}
