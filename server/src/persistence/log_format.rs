//! How a transaction lies in a log segment, and how to find one. No policy: what a bad record means
//! is decided in `log_recovery`.
//!
//! A segment is a header (`file_header`, its zxid the last one before the segment) and records, each
//! beginning at a multiple of 8, numbers little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | length of header and payload; never 0, so that preallocated space ends the log |
//! | 4..8 | CRC32C, see below |
//! | 8..16 | zxid |
//! | 16..20 | distance in bytes to the start of the batch, the one write that brought the record |
//! | 20..24 | kind: 0 a transaction, 1 the mark of a clean shutdown |
//! | 24.. | payload, then zeros up to a multiple of 8 |
//!
//! The checksum covers the ensemble's id, the record's own offset in the file, and everything but
//! itself, padding included: a record in the wrong place, or one stored inside another's payload,
//! is none.
//!
//! The distance tells a torn batch from damage: a batch is written only after the one before was
//! synced. A whole record whose batch begins *behind* a bad spot proves that the bad spot was once
//! on the disk.

use std::ops::Range;

use znodefs::Zxid;

use super::disk::{DiskError, DiskFile};
use super::file_header::{EnsembleId, HEADER_LENGTH, u32_at, u64_at};
use crate::codec::RECORD_LENGTH_MAX;

/// Length of what precedes a payload in bytes.
pub const RECORD_HEADER_LENGTH: usize = 24;

/// Records begin at multiples of this.
pub const ALIGNMENT: usize = 8;

/// The longest payload.
pub const PAYLOAD_LENGTH_MAX: usize = RECORD_LENGTH_MAX;

const READ_CHUNK_LENGTH: usize = 256 << 10;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A transaction.
    Txn,
    /// The replica stopped in order here; carries the last zxid again and no payload.
    CleanShutdown,
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its place in the file.
    pub offset: u64,
    /// Header and payload, without padding.
    pub length: usize,
    /// Its transaction.
    pub zxid: Zxid,
    /// Where the write that brought it began.
    pub batch_offset: u64,
    /// What it is.
    pub kind: RecordKind,
}

impl RecordHeader {
    /// The bytes it takes in the file.
    pub fn padded_length(&self) -> usize {
        self.length.next_multiple_of(ALIGNMENT)
    }

    /// Where the next record would be.
    pub fn end(&self) -> u64 {
        self.offset + self.padded_length() as u64
    }

    /// Reads the header at the start of `bytes`, which lie at `offset`; `None` when no record can
    /// begin so.
    pub fn parse(bytes: &[u8], offset: u64) -> Option<RecordHeader> {
        if bytes.len() < RECORD_HEADER_LENGTH {
            return None;
        }
        let length = u32_at(bytes, 0) as usize;
        let distance = u64::from(u32_at(bytes, 16));
        let kind = match u32_at(bytes, 20) {
            0 => RecordKind::Txn,
            1 => RecordKind::CleanShutdown,
            _ => return None,
        };
        let plausible = (RECORD_HEADER_LENGTH..=RECORD_HEADER_LENGTH + PAYLOAD_LENGTH_MAX)
            .contains(&length)
            && distance + HEADER_LENGTH as u64 <= offset;
        plausible.then(|| RecordHeader {
            offset,
            length,
            zxid: Zxid(u64_at(bytes, 8) as i64),
            batch_offset: offset - distance,
            kind,
        })
    }
}

/// What the checksums of one ensemble's records begin with.
#[derive(Clone, Copy, Debug)]
pub struct Salt(u32);

impl Salt {
    /// The ensemble's salt.
    pub fn new(ensemble_id: EnsembleId) -> Salt {
        Salt(crc32c::crc32c(&ensemble_id.0))
    }

    /// The checksum of a record with its padding, as it lies at `offset`.
    fn checksum(self, record: &[u8], offset: u64) -> u32 {
        let mut head = [0; 8 + RECORD_HEADER_LENGTH - 4];
        head[..8].copy_from_slice(&offset.to_le_bytes());
        head[8..12].copy_from_slice(&record[..4]);
        head[12..].copy_from_slice(&record[8..RECORD_HEADER_LENGTH]);
        let checksum = crc32c::crc32c_append(self.0, &head);
        crc32c::crc32c_append(checksum, &record[RECORD_HEADER_LENGTH..])
    }

    /// The record at the start of `bytes`, which lie at `offset`, if there is a whole one.
    pub fn record(self, bytes: &[u8], offset: u64) -> Option<RecordHeader> {
        let header = RecordHeader::parse(bytes, offset)?;
        let record = bytes.get(..header.padded_length())?;
        (self.checksum(record, offset) == u32_at(record, 4)).then_some(header)
    }

    /// Completes the records in `batch`, made by [`push_record`], for a write at `offset`.
    pub fn seal(self, batch: &mut [u8], offset: u64) {
        let mut at = 0;
        while at < batch.len() {
            let length = (u32_at(batch, at) as usize).next_multiple_of(ALIGNMENT);
            let record = &mut batch[at..at + length];
            record[16..20].copy_from_slice(&(at as u32).to_le_bytes());
            let checksum = self.checksum(record, offset + at as u64);
            record[4..8].copy_from_slice(&checksum.to_le_bytes());
            at += length;
        }
    }
}

/// Appends a record to a batch; checksum and distance are left for [`Salt::seal`]. The payload is no
/// longer than [`PAYLOAD_LENGTH_MAX`].
pub fn push_record(batch: &mut Vec<u8>, zxid: Zxid, kind: RecordKind, payload: &[u8]) {
    let length = RECORD_HEADER_LENGTH + payload.len();
    let mut header = [0; RECORD_HEADER_LENGTH];
    header[..4].copy_from_slice(&(length as u32).to_le_bytes());
    header[8..16].copy_from_slice(&zxid.0.to_le_bytes());
    header[20..].copy_from_slice(&(kind as u32).to_le_bytes());
    batch.reserve(length.next_multiple_of(ALIGNMENT));
    batch.extend_from_slice(&header);
    batch.extend_from_slice(payload);
    batch.resize(batch.len().next_multiple_of(ALIGNMENT), 0);
}

/// Whether `next` may come right after `previous`: later, and without a gap inside an epoch.
pub fn may_follow(previous: Zxid, next: Zxid) -> bool {
    if previous.epoch() == next.epoch() { previous.next() == Some(next) } else { previous < next }
}

/// Reads a segment's records one after the other through a bounded buffer.
pub struct RecordReader {
    file: Box<dyn DiskFile>,
    salt: Salt,
    /// No byte at or behind this is looked at.
    limit: u64,
    /// The next record's place.
    offset: u64,
    /// Bytes of the file from `buffer_offset` on.
    buffer: Vec<u8>,
    buffer_offset: u64,
    /// Where in the buffer the payload of the last record is.
    payload: Range<usize>,
}

impl RecordReader {
    /// A reader that begins behind the header and looks at `limit` bytes of the file at most.
    pub fn new(file: Box<dyn DiskFile>, salt: Salt, limit: u64) -> RecordReader {
        let offset = HEADER_LENGTH as u64;
        let buffer = Vec::new();
        RecordReader { file, salt, limit, offset, buffer, buffer_offset: offset, payload: 0..0 }
    }

    /// Where the next record is, or where the last call found none.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at `offset`: that of the record that the last step came to, or a later one.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.buffer_offset + self.buffer.len() as u64 {
            self.buffer.clear();
            self.buffer_offset = offset;
        }
        self.payload = 0..0;
        self.offset = offset;
    }

    /// Steps to the next whole record; `None` when there is none at this place.
    pub fn step(&mut self) -> Result<Option<RecordHeader>, DiskError> {
        if !self.fill(RECORD_HEADER_LENGTH)? {
            return Ok(None);
        }
        let Some(header) = RecordHeader::parse(self.rest(), self.offset) else { return Ok(None) };
        if header.end() > self.limit || !self.fill(header.padded_length())? {
            return Ok(None);
        }
        if self.salt.record(self.rest(), self.offset).is_none() {
            return Ok(None);
        }
        let start = (self.offset - self.buffer_offset) as usize;
        self.payload = start + RECORD_HEADER_LENGTH..start + header.length;
        self.offset = header.end();
        Ok(Some(header))
    }

    /// The payload of the record that the last step came to.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.payload.clone()]
    }

    /// Gives the file back.
    pub fn into_file(self) -> Box<dyn DiskFile> {
        self.file
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[(self.offset - self.buffer_offset) as usize..]
    }

    /// Makes `length` bytes from the current place available; `false` when the file has not so many.
    fn fill(&mut self, length: usize) -> Result<bool, DiskError> {
        if self.rest().len() >= length {
            return Ok(true);
        }
        let used = (self.offset - self.buffer_offset) as usize;
        self.buffer.drain(..used);
        self.payload = 0..0;
        self.buffer_offset = self.offset;
        let mut filled = self.buffer.len();
        let room = self.limit.saturating_sub(self.offset).min(length.max(READ_CHUNK_LENGTH) as u64)
            as usize;
        self.buffer.resize(room.max(filled), 0);
        while filled < room {
            let count = self
                .file
                .read_at(self.buffer_offset + filled as u64, &mut self.buffer[filled..])?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        self.buffer.truncate(filled);
        Ok(filled >= length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use znodefs::Epoch;

    #[test]
    fn a_record_is_valid_only_where_it_was_written() {
        let salt = Salt::new(EnsembleId([1; 16]));
        let mut batch = Vec::new();
        push_record(&mut batch, Zxid(1), RecordKind::Txn, b"first");
        push_record(&mut batch, Zxid(2), RecordKind::Txn, b"");
        salt.seal(&mut batch, 64);
        let first = salt.record(&batch, 64).unwrap();
        assert_eq!((first.zxid, first.length, first.batch_offset), (Zxid(1), 29, 64));
        let second = salt.record(&batch[32..], 96).unwrap();
        assert_eq!((second.zxid, second.length, second.batch_offset), (Zxid(2), 24, 64));
        assert_eq!(salt.record(&batch, 72), None);
        assert!(Salt::new(EnsembleId([2; 16])).record(&batch, 64).is_none());
        for at in 0..32 {
            for bit in 0..8 {
                let mut flipped = batch.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(salt.record(&flipped, 64), None, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_zxid_follows_without_a_gap_inside_an_epoch() {
        let zxid = |epoch, counter| Zxid::new(Epoch(epoch), counter);
        assert!(may_follow(zxid(1, 1), zxid(1, 2)));
        assert!(!may_follow(zxid(1, 1), zxid(1, 1)));
        assert!(!may_follow(zxid(1, 1), zxid(1, 3)));
        assert!(may_follow(zxid(1, 7), zxid(3, 1)));
        assert!(!may_follow(zxid(2, 1), zxid(1, 9)));
    }
}
