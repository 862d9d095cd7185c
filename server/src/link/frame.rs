//! Frames between replicas: version, length, checksum, payload. No I/O.

/// Version of the frames and of the messages inside; replicas of different versions refuse each
/// other in the handshake.
pub const VERSION: u16 = 1;

/// Length of the header in bytes: mark u16, version u16, payload length u32, CRC-32C of the payload
/// u32, all little-endian.
pub const HEADER_LENGTH: usize = 12;

const MARK: u16 = 0x5a4c;

/// The first byte of every frame, whatever its version.
pub const FIRST_BYTE: u8 = MARK.to_le_bytes()[0];

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not our protocol at all.
    #[error("the bytes are not a frame of a replica")]
    NotAFrame,
    /// Another version of it.
    #[error("the frame has version {0}, this replica speaks version {VERSION}")]
    Version(u16),
    /// Longer than any message may be.
    #[error("a frame of {length} bytes is announced, allowed are {limit}")]
    TooLong {
        /// The announced length in bytes.
        length: usize,
        /// The greatest allowed length in bytes.
        limit: usize,
    },
    /// Damaged on the way.
    #[error("the frame's checksum does not match: it was damaged on the way")]
    Checksum,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload in bytes.
    pub length: usize,
    checksum: u32,
}

impl Header {
    /// Reads a header; a length over `limit` is refused before anything is allocated.
    pub fn decode(bytes: &[u8; HEADER_LENGTH], limit: usize) -> Result<Header, FrameError> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if half(0) != MARK {
            return Err(FrameError::NotAFrame);
        }
        if half(2) != VERSION {
            return Err(FrameError::Version(half(2)));
        }
        let length = word(4) as usize;
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        Ok(Header { length, checksum: word(8) })
    }

    /// Checks the payload against the header.
    pub fn check(&self, payload: &[u8]) -> Result<(), FrameError> {
        if crc32c::crc32c(payload) == self.checksum { Ok(()) } else { Err(FrameError::Checksum) }
    }
}

/// Appends one frame.
pub fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.reserve(HEADER_LENGTH + payload.len());
    out.extend_from_slice(&MARK.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(frame: &[u8]) -> [u8; HEADER_LENGTH] {
        frame[..HEADER_LENGTH].try_into().unwrap()
    }

    #[test]
    fn a_frame_comes_back_and_any_flipped_bit_is_noticed() {
        let mut frame = Vec::new();
        put_frame(&mut frame, b"proposal");
        let decoded = Header::decode(&header(&frame), 100).unwrap();
        assert_eq!(decoded.length, 8);
        assert_eq!(decoded.check(&frame[HEADER_LENGTH..]), Ok(()));
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let noticed = match Header::decode(&header(&damaged), 100) {
                Err(_) => true,
                Ok(decoded) => {
                    decoded.length != 8 || decoded.check(&damaged[HEADER_LENGTH..]).is_err()
                }
            };
            assert!(noticed, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_recognised_as_such() {
        let mut frame = Vec::new();
        put_frame(&mut frame, b"");
        frame[2] = 9;
        assert_eq!(Header::decode(&header(&frame), 100), Err(FrameError::Version(9)));
    }
}
