//! The transaction log: appends batches, makes them durable, rolls to new segments, cuts. One
//! thread owns it (`log_thread`); others read through a [`LogReader`].
//!
//! A record counts only once the `fdatasync` behind it succeeded. After a failed write or sync
//! nothing is tried again: the log is poisoned, the process is to end. A full disk is the
//! exception, since it is met before anything counts.

use std::sync::Arc;

use tracing::warn;
use znodefs::Zxid;

use super::disk::{Disk, DiskError, DiskFile, remove_if_there};
use super::file_header::{EnsembleId, FileHeader, FileKind, HEADER_LENGTH};
use super::log_error::LogError;
use super::log_format::{
    PAYLOAD_LENGTH_MAX, RecordKind, RecordReader, Salt, may_follow, push_record,
};
use super::log_index::{LogIndex, Segment, segment_name};
use super::log_reader::LogReader;
use super::log_recovery;
use crate::mutation::{Mutation, mutated};

/// When a segment cannot have all the space it would like, what is needed is rounded up to this.
const SMALL_ALLOCATION_LENGTH: u64 = 256 << 10;

/// More buffered bytes than this and the buffer is given back after the write.
const BUFFER_LENGTH_KEPT_MAX: usize = 8 << 20;

/// A batch this long must be written before more is appended (a record's distance to its batch is a
/// 32-bit number).
pub const BATCH_LENGTH_MAX: usize = 1 << 30;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Whose log it is.
    pub ensemble_id: EnsembleId,
    /// The history it belongs to (see `storage`): segments of an older one are void.
    pub generation: u64,
    /// The length of a segment in bytes, reserved at once (`preAllocSize`).
    pub preallocate: u64,
    /// How many bytes are zeroed ahead of the records, so that `fdatasync` needs not change the
    /// file's block map each time; 0: none.
    pub zero_ahead: u64,
    /// Whether to sync at all (`forceSync`). Without it a crash of the machine loses what was
    /// acknowledged.
    pub force_sync: bool,
}

impl LogOptions {
    /// The defaults for an ensemble's log.
    pub fn new(ensemble_id: EnsembleId) -> LogOptions {
        LogOptions {
            ensemble_id,
            generation: 0,
            preallocate: 64 << 20,
            zero_ahead: 256 << 10,
            force_sync: true,
        }
    }
}

/// A torn tail that was cut off when the log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutTail {
    /// The segment's name.
    pub file: String,
    /// Where it now ends, in bytes.
    pub offset: u64,
    /// How many bytes were not whole records.
    pub bytes: u64,
    /// The last whole record's transaction.
    pub last: Zxid,
}

/// The log, open for appending.
pub struct TxnLog {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    salt: Salt,
    index: LogIndex,
    active: Option<ActiveSegment>,
    /// Records to be written next, not sealed yet.
    pending: Vec<u8>,
    /// The first transaction in `pending`.
    pending_first: Option<Zxid>,
    /// The newest transaction, durable or pending.
    last: Zxid,
    poisoned: Option<String>,
}

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

impl TxnLog {
    /// Opens the log in `disk`: checks the segments' chain, finds the end of the last, cuts a torn
    /// tail there. The records of earlier segments are checked when they are read.
    ///
    /// Errors: [`LogError::Damaged`], [`LogError::WrongFile`],
    /// [`LogError::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
    ) -> Result<(TxnLog, Option<CutTail>), LogError> {
        let found = log_recovery::recover(&*disk, &options)?;
        let last = found.index.view().last;
        let log = TxnLog {
            disk,
            salt: Salt::new(options.ensemble_id),
            options,
            index: found.index,
            active: found.active,
            pending: Vec::new(),
            pending_first: None,
            last,
            poisoned: None,
        };
        Ok((log, found.cut))
    }

    /// The newest transaction, durable or appended since; where an empty log begins.
    pub fn last_zxid(&self) -> Zxid {
        self.last
    }

    /// The newest durable transaction.
    pub fn durable_zxid(&self) -> Zxid {
        self.index.with(|index| index.last)
    }

    /// Everything later than this is in the log.
    pub fn base(&self) -> Zxid {
        self.index.view().base()
    }

    /// Whether the log has no segment at all.
    pub fn is_empty(&self) -> bool {
        self.index.with(|index| index.segments.is_empty())
    }

    /// The oldest transaction in the log; `None` when it holds none.
    pub fn first_zxid(&self) -> Result<Option<Zxid>, LogError> {
        self.reader().first_zxid()
    }

    /// How many bytes wait for [`TxnLog::write_and_sync`].
    pub fn pending_length(&self) -> usize {
        self.pending.len()
    }

    /// A reader of the durable log that can be given to other threads.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.disk.clone(), self.options.ensemble_id, self.index.clone())
    }

    /// Says that a log without segments begins behind `zxid`, which a snapshot holds.
    ///
    /// # Panics
    /// When there are segments or appended records: their order is theirs to say.
    pub fn begin_after(&mut self, zxid: Zxid) {
        assert!(self.is_empty() && self.pending.is_empty(), "the log has begun already");
        self.index.with(|index| index.last = zxid);
        self.last = zxid;
    }

    /// Puts a transaction into the batch that the next [`TxnLog::write_and_sync`] writes.
    ///
    /// Errors: [`LogError::OutOfOrder`] and [`LogError::TooLong`], which change nothing, and
    /// [`LogError::Poisoned`].
    pub fn append(&mut self, zxid: Zxid, payload: &[u8]) -> Result<(), LogError> {
        self.check_usable()?;
        if !may_follow(self.last, zxid) {
            return Err(LogError::OutOfOrder { last: self.last, zxid });
        }
        if payload.len() > PAYLOAD_LENGTH_MAX {
            return Err(LogError::TooLong { zxid, length: payload.len() });
        }
        assert!(self.pending.len() <= BATCH_LENGTH_MAX, "the batch was never written");
        push_record(&mut self.pending, zxid, RecordKind::Txn, payload);
        self.pending_first.get_or_insert(zxid);
        self.last = zxid;
        Ok(())
    }

    /// Makes all appended transactions durable with one write and one `fdatasync`, and returns the
    /// newest durable zxid.
    ///
    /// Errors: [`LogError::DiskFull`] leaves the batch pending: try again, or
    /// [`TxnLog::discard_pending`]. Any other is the end of this log.
    pub fn write_and_sync(&mut self) -> Result<Zxid, LogError> {
        self.check_usable()?;
        let Some(first) = self.pending_first else { return Ok(self.last) };
        self.guarded(|log| {
            log.make_room(first)?;
            log.write_pending()
        })?;
        self.index.with(|index| index.last = self.last);
        self.pending_first = None;
        self.pending.clear();
        if self.pending.capacity() > BUFFER_LENGTH_KEPT_MAX {
            self.pending = Vec::new();
        }
        Ok(self.last)
    }

    /// Forgets what was appended and is not durable.
    pub fn discard_pending(&mut self) {
        self.pending.clear();
        self.pending_first = None;
        self.last = self.durable_zxid();
    }

    /// Lets the next transaction begin a new segment; done when a snapshot begins, so that old
    /// segments can be purged. Nothing may be pending.
    pub fn roll(&mut self) -> Result<(), LogError> {
        self.check_usable()?;
        assert!(self.pending.is_empty(), "a segment cannot end inside a batch");
        self.end_segment();
        Ok(())
    }

    /// Removes every transaction after `zxid`, for good: later segments newest first, then the tail
    /// of the one that holds `zxid`. Returns the newest transaction that is left; snapshots newer
    /// than `zxid` are invalid with it, and must be removed *before*.
    ///
    /// Errors: [`LogError::NotReachingBack`] changes nothing; any other is the end of this log.
    pub fn truncate_to(&mut self, zxid: Zxid) -> Result<Zxid, LogError> {
        self.check_usable()?;
        self.discard_pending();
        let base = self.base();
        if zxid < base {
            return Err(LogError::NotReachingBack { base, asked: zxid });
        }
        if zxid >= self.last {
            return Ok(self.last);
        }
        self.guarded(|log| log.truncate_segments(zxid))?;
        Ok(self.last)
    }

    /// Empties the log for a history that begins with a snapshot at `base`: every segment goes. Call
    /// it once the snapshot, which carries the same generation, is durable; a crash in between
    /// is mended at the next start, since segments of an older generation are void.
    pub fn reset(&mut self, generation: u64, base: Zxid) -> Result<(), LogError> {
        self.check_usable()?;
        self.discard_pending();
        self.active = None;
        self.guarded(|log| {
            let names = log.index.with(|index| {
                index.last = base;
                std::mem::take(&mut index.segments)
            });
            for segment in names.iter().rev() {
                remove_if_there(&*log.disk, &segment.name)?;
            }
            Ok(log.disk.sync_dir()?)
        })?;
        self.options.generation = generation;
        self.last = base;
        Ok(())
    }

    /// Ends the log in order: marks the clean end, so that any later damage to the last records is
    /// noticed, and gives unused space back. Nothing may be pending.
    pub fn close(mut self) -> Result<(), LogError> {
        self.check_usable()?;
        assert!(self.pending.is_empty(), "appended transactions were neither written nor dropped");
        let Some(active) = &mut self.active else { return Ok(()) };
        if !active.has_records {
            return Ok(());
        }
        let mut mark = Vec::new();
        push_record(&mut mark, self.last, RecordKind::CleanShutdown, &[]);
        self.salt.seal(&mut mark, active.end);
        active.file.write_at(active.end, &mark)?;
        active.file.set_length(active.end + mark.len() as u64)?;
        active.file.sync_data()?;
        Ok(())
    }

    fn check_usable(&self) -> Result<(), LogError> {
        match &self.poisoned {
            Some(reason) => Err(LogError::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    /// Runs what changes the disk; an error that leaves it unknown what is there poisons the log.
    fn guarded<T>(
        &mut self,
        act: impl FnOnce(&mut TxnLog) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let result = act(self);
        if let Err(error) = &result
            && !error.is_recoverable()
        {
            self.poisoned = Some(error.to_string());
        }
        result
    }

    /// Finds or makes a segment with room for the batch, whose first transaction is `first`.
    fn make_room(&mut self, first: Zxid) -> Result<(), LogError> {
        let needed = self.pending.len() as u64;
        if let Some(active) = &mut self.active {
            if !active.has_records {
                self.rename_empty(first)?;
                return self.extend(needed);
            }
            if active.end + needed <= active.allocated {
                return Ok(());
            }
            if active.end + needed <= self.options.preallocate {
                return self.extend(needed);
            }
            self.end_segment();
        }
        self.begin_segment(first, needed)
    }

    /// Reserves space in the active segment.
    fn extend(&mut self, needed: u64) -> Result<(), LogError> {
        let path = self.disk.path().to_owned();
        let Some(active) = &mut self.active else { return Ok(()) };
        let end = active.end + needed;
        if end <= active.allocated {
            return Ok(());
        }
        match allocate(&mut *active.file, end, self.options.preallocate) {
            Ok(allocated) => {
                active.allocated = allocated;
                Ok(())
            }
            Err(error) if error.is_full() => Err(LogError::DiskFull { path, needed }),
            Err(error) => Err(error.into()),
        }
    }

    /// A segment left empty by a truncation takes the name of the first record it gets.
    fn rename_empty(&mut self, first: Zxid) -> Result<(), LogError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let name = segment_name(first);
        if active.name == name {
            return Ok(());
        }
        match self.disk.rename(&active.name, &name) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                let needed = self.pending.len() as u64;
                return Err(LogError::DiskFull { path: self.disk.path().to_owned(), needed });
            }
            Err(error) => return Err(error.into()),
        }
        self.index.with(|index| {
            if let Some(segment) = index.segments.last_mut() {
                segment.name.clone_from(&name);
            }
        });
        active.name = name;
        // Before it has records: an old name that came back could be taken for another segment's.
        Ok(self.disk.sync_dir()?)
    }

    /// Creates a segment, durable with its header before any record is written to it.
    fn begin_segment(&mut self, first: Zxid, needed: u64) -> Result<(), LogError> {
        let previous = self.durable_zxid();
        let name = segment_name(first);
        let header = FileHeader {
            kind: FileKind::Log,
            flags: 0,
            ensemble_id: self.options.ensemble_id,
            generation: self.options.generation,
            zxid: previous,
        };
        // What an attempt on a full disk may have left.
        if self.index.with(|index| index.segments.iter().all(|segment| segment.name != name)) {
            remove_if_there(&*self.disk, &name)?;
        }
        match create_segment(&*self.disk, &name, &header, needed, &self.options) {
            Ok(active) => {
                self.index.with(|index| {
                    index.segments.push(Segment { name, previous });
                    index.end = active.end;
                });
                self.active = Some(active);
                Ok(())
            }
            Err(error) if error.is_full() => {
                remove_if_there(&*self.disk, &name)?;
                Err(LogError::DiskFull { path: self.disk.path().to_owned(), needed })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives up the active segment and the space it does not use.
    fn end_segment(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.has_records)
            && let Some(mut active) = self.active.take()
        {
            // Only space is at stake; zeros behind the last record harm nobody.
            if let Err(error) = active.file.set_length(active.end) {
                warn!("unused space of a log segment is not given back: {error}");
            }
        }
    }

    fn write_pending(&mut self) -> Result<(), LogError> {
        let path = self.disk.path().to_owned();
        let Some(active) = &mut self.active else { return Ok(()) };
        let length = self.pending.len();
        self.salt.seal(&mut self.pending, active.end);
        let end = active.end + length as u64;
        if self.options.zero_ahead > 0 && end > active.zeroed {
            let zeroed = (end + self.options.zero_ahead).min(active.allocated).max(end);
            self.pending.resize(length + (zeroed - end) as usize, 0);
            active.zeroed = zeroed;
        }
        let written = active.file.write_at(active.end, &self.pending);
        self.pending.truncate(length);
        match written {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                // The file system could not keep its reservation. What was written of the batch
                // must be gone for certain before anything else is written there.
                active.file.set_length(active.end)?;
                active.file.sync_data()?;
                active.allocated = active.end;
                active.zeroed = active.end;
                return Err(LogError::DiskFull { path, needed: length as u64 });
            }
            Err(error) => return Err(error.into()),
        }
        if self.options.force_sync && !mutated(Mutation::LogNotSynced) {
            active.file.sync_data()?;
        }
        active.end = end;
        active.has_records = true;
        self.index.with(|index| index.end = end);
        Ok(())
    }

    fn truncate_segments(&mut self, zxid: Zxid) -> Result<(), LogError> {
        self.active = None;
        loop {
            let doomed = self.index.with(|index| {
                // The oldest segment stays, if empty: without it the log's beginning is unknown.
                let last = index.segments.last().filter(|last| last.previous >= zxid)?;
                (index.segments.len() > 1).then(|| last.clone())
            });
            let Some(segment) = doomed else { break };
            self.disk.remove(&segment.name)?;
            // One at a time: a crash must leave a chain without a gap.
            self.disk.sync_dir()?;
            self.index.with(|index| {
                index.segments.pop();
                index.last = segment.previous;
            });
        }
        let view = self.index.view();
        let Some(segment) = view.segments.last() else { return Ok(()) };
        let (active, last) = shorten(&*self.disk, self.salt, segment, view.last, zxid)?;
        self.index.with(|index| {
            index.last = last;
            index.end = active.end;
        });
        self.last = last;
        self.active = Some(active);
        Ok(())
    }
}

/// Reserves as much as a segment should have, or, on a nearly full disk, what is needed now.
/// Returns the file's length.
fn allocate(file: &mut dyn DiskFile, end: u64, wanted: u64) -> Result<u64, DiskError> {
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

fn create_segment(
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
fn shorten(
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
