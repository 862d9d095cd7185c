//! One segment of the log as it is written to: creating it, reserving its space, cutting it. When to
//! do so is `txn_log`'s decision.

use znodefs::Zxid;

use super::disk::{Disk, DiskError, DiskFile};
use super::file_header::{FileHeader, HEADER_LENGTH};
use super::log_error::LogError;
use super::log_format::{RecordReader, Salt};
use super::log_index::Segment;
use super::txn_log::LogOptions;

/// When a segment cannot have all the space it would like, what is needed is rounded up to this.
const SMALL_ALLOCATION_LENGTH: u64 = 256 << 10;

/// The segment that is written to.
pub(super) struct ActiveSegment {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) name: String,
    /// Where the next record goes.
    pub(super) end: u64,
    /// The file's length.
    pub(super) allocated: u64,
    /// Up to here space is known to be written with zeros.
    pub(super) zeroed: u64,
    /// Whether it holds a transaction.
    pub(super) has_records: bool,
}

/// Reserves as much as a segment should have, or, on a nearly full disk, what is needed now.
/// Returns the file's length.
pub(super) fn allocate(file: &mut dyn DiskFile, end: u64, wanted: u64) -> Result<u64, DiskError> {
    match file.preallocate(wanted.max(end)) {
        Ok(()) => Ok(wanted.max(end)),
        Err(error) if error.is_full() => {
            let small = end.next_multiple_of(SMALL_ALLOCATION_LENGTH).min(wanted.max(end));
            // A failed reservation may have reserved a part.
            file.preallocate(small)?;
            Ok(small)
        }
        Err(error) => Err(error),
    }
}

/// Creates a segment with room for `needed` bytes, durable with its header before any record is
/// written to it.
pub(super) fn create(
    disk: &dyn Disk,
    name: &str,
    header: &FileHeader,
    needed: u64,
    options: &LogOptions,
) -> Result<ActiveSegment, DiskError> {
    let mut file = disk.create_new(name)?;
    let end = HEADER_LENGTH as u64;
    let allocated = allocate(&mut *file, end + needed, options.preallocate)?;
    file.write_at(0, &header.encode())?;
    if options.force_sync {
        file.sync_data()?;
        disk.sync_dir()?;
    }
    let name = name.to_owned();
    Ok(ActiveSegment { file, name, end, allocated, zeroed: end, has_records: false })
}

/// Cuts a segment, whose last transaction is `segment_last`, behind the last record that is not later
/// than `zxid`; returns it and that record's zxid.
pub(super) fn shorten(
    disk: &dyn Disk,
    salt: Salt,
    segment: &Segment,
    segment_last: Zxid,
    zxid: Zxid,
) -> Result<(ActiveSegment, Zxid), LogError> {
    let file = disk.open(&segment.name)?;
    let limit = file.length()?;
    let mut reader = RecordReader::new(file, salt, limit);
    let (mut end, mut last) = (HEADER_LENGTH as u64, segment.previous);
    while last < segment_last {
        let offset = reader.offset();
        let Some(record) = reader.step()? else {
            let reason = format!("no whole record is there, though the log goes on behind {last}");
            return Err(LogError::Damaged { file: disk.path_of(&segment.name), offset, reason });
        };
        if record.zxid > zxid {
            break;
        }
        (end, last) = (record.end(), record.zxid);
    }
    let mut file = reader.into_file();
    file.set_length(end)?;
    file.sync_data()?;
    let has_records = end > HEADER_LENGTH as u64;
    let name = segment.name.clone();
    Ok((ActiveSegment { file, name, end, allocated: end, zeroed: end, has_records }, last))
}
