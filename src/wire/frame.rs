//! Frames: an int length, then that many bytes. No I/O.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::jute::WireError;

/// The greatest length of a frame's payload in bytes unless configured otherwise
/// (`jute.maxbuffer`).
pub const FRAME_LENGTH_MAX_DEFAULT: usize = 0xf_ffff;

/// Takes the next whole frame's payload off `input`, without copying; `None` while it is incomplete.
///
/// The announced length is checked as soon as its four bytes are there, so that a peer cannot make
/// us wait for, or allocate, more than `limit` bytes.
pub fn take_frame(input: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, WireError> {
    let Some(prefix) = input.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*prefix);
    if length < 0 || length as usize > limit {
        return Err(WireError::FrameLength { length, limit });
    }
    let length = length as usize;
    if input.len() < 4 + length {
        input.reserve(4 + length - input.len());
        return Ok(None);
    }
    input.advance(4);
    Ok(Some(input.split_to(length).freeze()))
}

/// Appends one frame whose payload `write` appends; the length is filled in afterwards.
pub fn put_frame(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_exactly_the_limit_is_taken_and_one_more_byte_is_refused() {
        let mut input = BytesMut::new();
        put_frame(&mut input, |out| out.put_bytes(7, 10));
        assert_eq!(take_frame(&mut input.clone(), 10).unwrap().unwrap().len(), 10);
        let refused = WireError::FrameLength { length: 10, limit: 9 };
        assert_eq!(take_frame(&mut input, 9), Err(refused));
    }

    #[test]
    fn a_half_frame_waits_and_a_negative_length_is_refused() {
        let mut input = BytesMut::from(&[0, 0, 0, 5, 1, 2][..]);
        assert_eq!(take_frame(&mut input, 100).unwrap(), None);
        input.put_slice(&[3, 4, 5]);
        assert_eq!(take_frame(&mut input, 100).unwrap().unwrap(), &[1, 2, 3, 4, 5][..]);
        let mut input = BytesMut::from(&[255, 255, 255, 255][..]);
        assert!(take_frame(&mut input, 100).is_err());
    }
}
