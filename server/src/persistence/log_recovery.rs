//! What a start makes of the log that it finds: the chain of segments, the end of the last one, and
//! the difference between a tail that a crash tore and records that were damaged later.
//!
//! A crash can only harm the batch that was being written: it lies at the end of the last segment,
//! and no later batch exists. So a place without a whole record is a torn tail, unless a whole
//! record of a *later* batch lies behind it. What a torn tail holds was never acknowledged.

use tracing::{info, warn};
use znodefs::Zxid;

use super::disk::{Disk, DiskError, DiskFile};
use super::file_header::{FileHeader, FileKind, HEADER_LENGTH};
use super::log_error::LogError;
use super::log_format::{ALIGNMENT, RecordHeader, RecordKind, RecordReader, Salt, may_follow};
use super::log_index::{LogIndex, LogView, Segment, parse_segment_name};
use super::txn_log::{ActiveSegment, CutTail, LogOptions};

const CHUNK_LENGTH: usize = 1 << 20;

/// What was found.
pub(super) struct Recovered {
    pub(super) index: LogIndex,
    pub(super) active: Option<ActiveSegment>,
    pub(super) cut: Option<CutTail>,
}

/// A segment whose header was read.
struct Candidate {
    first: Zxid,
    segment: Segment,
}

/// Reads the log's shape; removes what is void and cuts what is torn.
pub(super) fn recover(disk: &dyn Disk, options: &LogOptions) -> Result<Recovered, LogError> {
    let salt = Salt::new(options.ensemble_id);
    let candidates = find_segments(disk, options, salt)?;
    let segments: Vec<Segment> =
        candidates.into_iter().map(|candidate| candidate.segment).collect();
    let Some(newest) = segments.last().cloned() else {
        return Ok(Recovered { index: LogIndex::default(), active: None, cut: None });
    };
    let tail = find_end(disk, &newest, salt)?;
    let index = LogIndex::default();
    index.with(|view| *view = LogView { segments, last: tail.last, end: tail.end });
    let mut file = disk.open(&newest.name)?;
    let mut cut = None;
    let mut allocated = tail.length;
    if tail.garbage > 0 {
        // What a torn batch left must never look like records again (ClickHouse #75197).
        file.set_length(tail.end)?;
        file.sync_data()?;
        allocated = tail.end;
        warn!(
            "{} ends in {} bytes that a crash left unfinished: cut at byte {}, behind transaction {}",
            disk.path_of(&newest.name).display(),
            tail.garbage,
            tail.end,
            tail.last
        );
        let file = newest.name.clone();
        cut = Some(CutTail { file, offset: tail.end, bytes: tail.garbage, last: tail.last });
    }
    make_durable(&mut *file, &tail)?;
    disk.sync_dir()?;
    let active = ActiveSegment {
        file,
        name: newest.name,
        end: tail.end,
        allocated,
        zeroed: tail.end,
        has_records: tail.end > HEADER_LENGTH as u64,
    };
    Ok(Recovered { index, active: Some(active), cut })
}

/// The segments of this generation, oldest first.
fn find_segments(
    disk: &dyn Disk,
    options: &LogOptions,
    salt: Salt,
) -> Result<Vec<Candidate>, LogError> {
    let mut names: Vec<(Zxid, String)> = disk
        .list()?
        .into_iter()
        .filter_map(|name| Some((parse_segment_name(&name)?, name)))
        .collect();
    names.sort_unstable();
    let mut found: Vec<Candidate> = Vec::new();
    let mut headless = Vec::new();
    let mut void = Vec::new();
    for (first, name) in names {
        match read_header(disk, &name, options)? {
            None => headless.push((first, name)),
            Some(header) if header.generation < options.generation => void.push(name),
            Some(header) if header.generation > options.generation => {
                let reason = format!(
                    "it continues a history of which no snapshot is left (generation {}, the \
                     snapshots are of {})",
                    header.generation, options.generation
                );
                return Err(damaged(disk, &name, 0, reason));
            }
            Some(header) => {
                found.push(Candidate { first, segment: Segment { name, previous: header.zxid } });
            }
        }
    }
    remove_void(disk, &void)?;
    found.sort_by_key(|candidate| (candidate.segment.previous, candidate.first));
    remove_headless(disk, headless, &found, salt)?;
    remove_empty(disk, &mut found, salt)?;
    Ok(found)
}

/// `None`: the header is not whole.
fn read_header(
    disk: &dyn Disk,
    name: &str,
    options: &LogOptions,
) -> Result<Option<FileHeader>, LogError> {
    let file = disk.open_read(name)?;
    let mut bytes = [0; HEADER_LENGTH];
    let count = read_full(&*file, 0, &mut bytes)?;
    match FileHeader::decode(FileKind::Log, Some(options.ensemble_id), &bytes[..count]) {
        Ok(header) => Ok(Some(header)),
        Err(error) => match error.wrong_file(disk.path_of(name), Some(options.ensemble_id)) {
            Some(wrong) => Err(wrong.into()),
            None => Ok(None),
        },
    }
}

/// Removes segments of a history that a later snapshot replaced (`TxnLog::reset` did not get so
/// far).
fn remove_void(disk: &dyn Disk, void: &[String]) -> Result<(), LogError> {
    for name in void {
        info!("{} belongs to a history that was replaced: removed", disk.path_of(name).display());
        disk.remove(name)?;
    }
    if !void.is_empty() {
        disk.sync_dir()?;
    }
    Ok(())
}

/// A file without a whole header is a segment whose creation a crash interrupted, if it is the
/// newest and holds no record; the header is durable before the first record is written.
fn remove_headless(
    disk: &dyn Disk,
    headless: Vec<(Zxid, String)>,
    found: &[Candidate],
    salt: Salt,
) -> Result<(), LogError> {
    let newest = found.iter().map(|candidate| candidate.first).max();
    for (first, name) in headless {
        let file = disk.open_read(&name)?;
        let length = file.length()?;
        let begun = HEADER_LENGTH as u64;
        let has_records = first_record(&*file, salt, begun, length, Zxid(0), 0)?.is_some();
        if has_records || newest.is_some_and(|newest| newest > first) {
            return Err(damaged(disk, &name, 0, "its header is not whole".to_owned()));
        }
        info!(
            "{} was being created when the replica stopped: removed",
            disk.path_of(&name).display()
        );
        disk.remove(&name)?;
        disk.sync_dir()?;
    }
    Ok(())
}

/// Two segments that continue the same one: the first is left of an attempt on a full disk, and
/// must be empty.
fn remove_empty(disk: &dyn Disk, found: &mut Vec<Candidate>, salt: Salt) -> Result<(), LogError> {
    let mut position = 0;
    while position + 1 < found.len() {
        let segment = &found[position].segment;
        if segment.previous != found[position + 1].segment.previous {
            position += 1;
            continue;
        }
        let file = disk.open_read(&segment.name)?;
        let limit = file.length()?;
        if RecordReader::new(file, salt, limit).step()?.is_some() {
            let other = &found[position + 1].segment.name;
            let reason = format!("it and {other} both continue {}", segment.previous);
            return Err(damaged(disk, &segment.name, 0, reason));
        }
        disk.remove(&segment.name)?;
        disk.sync_dir()?;
        found.remove(position);
    }
    Ok(())
}

/// Where a segment's records end.
struct Tail {
    end: u64,
    last: Zxid,
    /// The file's length.
    length: u64,
    /// How many bytes behind the end are not just zeros.
    garbage: u64,
    /// Where the last batch begins.
    last_batch: u64,
}

/// Makes what was found certain. The process before may have ended between the last write and its
/// sync, or because of a failed sync: then the bytes are only in memory, and the kernel may take
/// them for clean. So they are written again. Earlier batches, and the header, were synced before
/// the last batch was written.
fn make_durable(file: &mut dyn DiskFile, tail: &Tail) -> Result<(), DiskError> {
    let mut from = if tail.end > HEADER_LENGTH as u64 { tail.last_batch } else { 0 };
    let mut chunk = vec![0; CHUNK_LENGTH.min((tail.end - from) as usize)];
    while from < tail.end {
        let part = chunk.len().min((tail.end - from) as usize);
        let count = read_full(file, from, &mut chunk[..part])?;
        if count == 0 {
            break;
        }
        file.write_at(from, &chunk[..count])?;
        from += count as u64;
    }
    file.sync_data()
}

fn find_end(disk: &dyn Disk, segment: &Segment, salt: Salt) -> Result<Tail, LogError> {
    let file = disk.open_read(&segment.name)?;
    let length = file.length()?;
    let mut reader = RecordReader::new(file, salt, length);
    let (mut last, mut last_batch) = (segment.previous, HEADER_LENGTH as u64);
    while let Some(record) = reader.step()? {
        check_order(disk, &segment.name, last, &record)?;
        last = record.zxid;
        last_batch = record.batch_offset;
    }
    let end = reader.offset();
    let file = reader.into_file();
    let garbage = match last_nonzero(&*file, end, length)? {
        None => 0,
        Some(at) => at + 1 - end,
    };
    if garbage > 0
        && let Some(later) = first_record(&*file, salt, end, end + garbage, last, end)?
    {
        let reason = format!(
            "no whole record is there, but transaction {} at byte {} was written later (the last \
             whole one before is {last})",
            later.zxid, later.offset
        );
        return Err(damaged(disk, &segment.name, end, reason));
    }
    Ok(Tail { end, last, length, garbage, last_batch })
}

/// An error unless `record` may come behind transaction `last`.
pub(super) fn check_order(
    disk: &dyn Disk,
    name: &str,
    last: Zxid,
    record: &RecordHeader,
) -> Result<(), LogError> {
    let in_order = match record.kind {
        RecordKind::Txn => may_follow(last, record.zxid),
        RecordKind::CleanShutdown => record.zxid == last,
    };
    if in_order {
        return Ok(());
    }
    let reason = format!("transaction {} follows {last}", record.zxid);
    Err(damaged(disk, name, record.offset, reason))
}

pub(super) fn damaged(disk: &dyn Disk, name: &str, offset: u64, reason: String) -> LogError {
    LogError::Damaged { file: disk.path_of(name), offset, reason }
}

/// Reads until `buffer` is full or the file ends; returns how much came.
fn read_full(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset + filled as u64, &mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The place of the last byte in `from..to` that is not zero.
pub(crate) fn last_nonzero(
    file: &dyn DiskFile,
    from: u64,
    to: u64,
) -> Result<Option<u64>, DiskError> {
    let mut chunk = vec![0; CHUNK_LENGTH.min((to - from.min(to)) as usize)];
    let mut end = to;
    while end > from {
        let start = end.saturating_sub(chunk.len() as u64).max(from);
        let part = &mut chunk[..(end - start) as usize];
        let count = read_full(file, start, part)?;
        if let Some(at) = part[..count].iter().rposition(|byte| *byte != 0) {
            return Ok(Some(start + at as u64));
        }
        end = start;
    }
    Ok(None)
}

/// Looks in `from..to` for a whole record, not older than `last`, whose batch began behind `bad`.
fn first_record(
    file: &dyn DiskFile,
    salt: Salt,
    from: u64,
    to: u64,
    last: Zxid,
    bad: u64,
) -> Result<Option<RecordHeader>, DiskError> {
    // The last record's padding may be all of zeros, so look a little further.
    let length = (to.saturating_sub(from) as usize).next_multiple_of(ALIGNMENT) + ALIGNMENT;
    let mut bytes = vec![0; length];
    let count = read_full(file, from, &mut bytes)?;
    bytes.truncate(count);
    let mut at = 0;
    while at < bytes.len() {
        match salt.record(&bytes[at..], from + at as u64) {
            Some(record) if record.zxid >= last && record.batch_offset > bad => {
                return Ok(Some(record));
            }
            Some(record) => at += record.padded_length(),
            None => at += ALIGNMENT,
        }
    }
    Ok(None)
}
