//! One log segment as it lies there: its header, every run of whole records, also behind damage,
//! and how it ends. Judges one file; what its neighbours say about it is the plan's (`plan`).
//!
//! The rules are those of `persistence::log_recovery`, which stops at the first bad spot; this
//! reads on.

use znodefs::Zxid;

use crate::persistence::file_header::{
    EnsembleId, FileHeader, FileKind, HEADER_LENGTH, HeaderError,
};
use crate::persistence::log_format::{
    ALIGNMENT, RecordHeader, RecordKind, RecordReader, Salt, may_follow,
};
use crate::persistence::log_recovery::last_nonzero;
use crate::persistence::{Disk, DiskError};

/// A run of whole transactions, each right behind the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first transaction.
    pub first: Zxid,
    /// Its last transaction.
    pub last: Zxid,
    /// How many they are.
    pub count: u64,
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Where it ends.
    pub end: u64,
}

/// How a segment's whole records end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In the mark of a clean shutdown.
    Clean,
    /// In nothing, or in space reserved for more.
    Open,
    /// In bytes of a write that a crash interrupted; it was never acknowledged.
    Torn {
        /// How many.
        bytes: u64,
    },
    /// In damage: what follows was durable once.
    Damaged {
        /// What is wrong there.
        reason: String,
    },
}

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentHeader {
    /// It is whole.
    Whole(FileHeader),
    /// It is not; nothing but its name says where the segment belongs.
    Damaged,
    /// The file is of another program version.
    Version(u32),
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its file's name.
    pub name: String,
    /// The file's length in bytes.
    pub length: u64,
    /// Its header.
    pub header: SegmentHeader,
    /// Runs of whole transactions; if the first begins right behind the header, it is what a
    /// replica would read.
    pub runs: Vec<Run>,
    /// Where the whole records from the beginning on end, bytes.
    pub end: u64,
    /// What is there.
    pub ending: Ending,
}

impl Segment {
    /// The header, if it is whole.
    pub fn whole_header(&self) -> Option<&FileHeader> {
        match &self.header {
            SegmentHeader::Whole(header) => Some(header),
            _ => None,
        }
    }

    /// The run that a replica would read; `None` when there is no transaction before the end.
    pub fn readable(&self) -> Option<&Run> {
        self.whole_header()?;
        self.runs.first().filter(|run| run.offset == HEADER_LENGTH as u64)
    }

    /// The runs that were durable once; `is_newest` says that no segment follows, so that what lies
    /// behind a torn tail never was.
    pub fn durable_runs(&self, is_newest: bool) -> &[Run] {
        let is_torn = is_newest && matches!(self.ending, Ending::Torn { .. });
        match self.readable() {
            Some(_) if is_torn => &self.runs[..1],
            None if is_torn && self.whole_header().is_some() => &[],
            _ => &self.runs,
        }
    }

    /// The last transaction that a replica would read, or the one before the segment.
    pub fn last(&self) -> Option<Zxid> {
        let previous = self.whole_header().map(|header| header.zxid);
        self.readable().map(|run| run.last).or(previous)
    }

    /// How many transactions a replica would read.
    pub fn count(&self) -> u64 {
        self.readable().map_or(0, |run| run.count)
    }

    /// How many whole transactions lie behind the damage.
    pub fn count_behind(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum::<u64>() - self.count()
    }

    /// What is damaged: where, and why.
    pub fn damage(&self) -> Option<(u64, String)> {
        match (&self.header, &self.ending) {
            (SegmentHeader::Damaged, _) if !self.runs.is_empty() => {
                Some((0, "its header is not whole".to_owned()))
            }
            (_, Ending::Damaged { reason }) => Some((self.end, reason.clone())),
            _ => None,
        }
    }
}

/// A transaction that a scan comes by.
pub struct Scanned<'a> {
    /// Its record.
    pub record: RecordHeader,
    /// The transaction's bytes.
    pub payload: &'a [u8],
    /// Whether it lies behind a bad spot, where no replica reads it.
    pub is_behind: bool,
}

/// Reads the whole of a segment, telling `visit` of every transaction. `ensemble_id` is whose it
/// must be when its header does not say so.
pub fn scan(
    disk: &dyn Disk,
    name: &str,
    ensemble_id: Option<EnsembleId>,
    mut visit: impl FnMut(&Scanned<'_>),
) -> Result<Segment, DiskError> {
    let file = disk.open_read(name)?;
    let length = file.length()?;
    let mut head = [0; HEADER_LENGTH];
    let mut filled = 0;
    while filled < HEADER_LENGTH {
        match file.read_at(filled as u64, &mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let header = match FileHeader::decode(FileKind::Log, None, &head[..filled]) {
        Ok(header) => SegmentHeader::Whole(header),
        Err(HeaderError::Version(version)) => SegmentHeader::Version(version),
        Err(HeaderError::Damaged | HeaderError::Foreign(_)) => SegmentHeader::Damaged,
    };
    let (salt, previous) = match &header {
        SegmentHeader::Whole(header) => (Some(Salt::new(header.ensemble_id)), Some(header.zxid)),
        SegmentHeader::Damaged => (ensemble_id.map(Salt::new), None),
        SegmentHeader::Version(_) => (None, None),
    };
    let end = HEADER_LENGTH as u64;
    let name = name.to_owned();
    let mut segment = Segment { name, length, header, runs: Vec::new(), end, ending: Ending::Open };
    let Some(salt) = salt else { return Ok(segment) };
    // Where a running replica is writing, this is the end from now on: of all that is before it,
    // only the batch being written can be half there, as in a torn tail.
    let Some(last_byte) = last_nonzero(&*file, end, length)? else { return Ok(segment) };
    let mut reader = RecordReader::new(file, salt, length);
    read_from_start(&mut segment, &mut reader, last_byte, previous, &mut visit)?;
    read_behind(&mut segment, reader, last_byte, &mut visit)?;
    Ok(segment)
}

/// Reads what a replica would read.
fn read_from_start(
    segment: &mut Segment,
    reader: &mut RecordReader,
    last_byte: u64,
    previous: Option<Zxid>,
    visit: &mut impl FnMut(&Scanned<'_>),
) -> Result<(), DiskError> {
    let mut last = previous;
    while reader.offset() <= last_byte
        && let Some(record) = reader.step()?
    {
        let in_order = last.is_none_or(|last| match record.kind {
            RecordKind::Txn => may_follow(last, record.zxid),
            RecordKind::CleanShutdown => record.zxid == last,
        });
        if !in_order {
            let last = last.unwrap_or_default();
            let reason = format!("transaction {} follows {last}", record.zxid);
            segment.ending = Ending::Damaged { reason };
            reader.skip_to(record.offset);
            break;
        }
        last = Some(record.zxid);
        segment.end = record.end();
        segment.ending = match record.kind {
            RecordKind::CleanShutdown => {
                if let Some(run) = segment.runs.last_mut() {
                    run.end = record.end();
                }
                Ending::Clean
            }
            RecordKind::Txn => {
                extend_runs(&mut segment.runs, &record);
                visit(&Scanned { record, payload: reader.payload(), is_behind: false });
                Ending::Open
            }
        };
    }
    Ok(())
}

/// Looks for whole records behind the place where the readable ones end, and tells a torn tail from
/// damage.
fn read_behind(
    segment: &mut Segment,
    mut reader: RecordReader,
    last_byte: u64,
    visit: &mut impl FnMut(&Scanned<'_>),
) -> Result<(), DiskError> {
    let bad = segment.end;
    let last = segment.last().unwrap_or_default();
    if last_byte < bad {
        return Ok(());
    }
    let was_out_of_order = matches!(segment.ending, Ending::Damaged { .. });
    let mut later = None;
    let mut found = Vec::new();
    while reader.offset() <= last_byte {
        let offset = reader.offset();
        let Some(record) = reader.step()? else {
            reader.skip_to(offset + ALIGNMENT as u64);
            continue;
        };
        if later.is_none() && record.zxid >= last && record.batch_offset > bad {
            later = Some(record);
        }
        if record.kind == RecordKind::Txn {
            extend_runs(&mut found, &record);
            visit(&Scanned { record, payload: reader.payload(), is_behind: true });
        }
    }
    segment.runs.append(&mut found);
    if was_out_of_order {
        return Ok(());
    }
    segment.ending = match later {
        Some(later) => Ending::Damaged {
            reason: format!(
                "no whole record is there, but transaction {} at byte {} was written later (the \
                 last whole one before is {last})",
                later.zxid, later.offset
            ),
        },
        None => Ending::Torn { bytes: last_byte + 1 - bad },
    };
    Ok(())
}

fn extend_runs(runs: &mut Vec<Run>, record: &RecordHeader) {
    if let Some(run) = runs.last_mut()
        && run.end == record.offset
        && may_follow(run.last, record.zxid)
    {
        run.last = record.zxid;
        run.count += 1;
        run.end = record.end();
        return;
    }
    let zxid = record.zxid;
    let (offset, end) = (record.offset, record.end());
    runs.push(Run { first: zxid, last: zxid, count: 1, offset, end });
}
