//! Reading the durable log, from any thread, while it is being written. Never sees a record before
//! its `fdatasync` succeeded.

use std::sync::Arc;

use znodefs::Zxid;

use super::disk::Disk;
use super::file_header::EnsembleId;
use super::log_error::LogError;
use super::log_format::{RecordKind, RecordReader, Salt};
use super::log_index::{LogIndex, LogView};
use super::log_recovery::{check_order, damaged};

/// Reads a log; clones read the same one.
#[derive(Clone)]
pub struct LogReader {
    disk: Arc<dyn Disk>,
    salt: Salt,
    index: LogIndex,
}

impl LogReader {
    pub(super) fn new(disk: Arc<dyn Disk>, ensemble_id: EnsembleId, index: LogIndex) -> LogReader {
        LogReader { disk, salt: Salt::new(ensemble_id), index }
    }

    /// The newest durable transaction.
    pub fn last_zxid(&self) -> Zxid {
        self.index.with(|view| view.last)
    }

    /// Everything later than this is in the log.
    pub fn base(&self) -> Zxid {
        self.index.with(|view| view.base())
    }

    /// The oldest transaction in the log; `None` when it holds none.
    pub fn first_zxid(&self) -> Result<Option<Zxid>, LogError> {
        let mut cursor = self.read_after(self.base())?;
        Ok(cursor.next_record()?.map(|(zxid, _)| zxid))
    }

    /// All transactions later than `zxid` that are durable now, in order.
    ///
    /// Errors: [`LogError::NotReachingBack`] when some of them are no longer in the log.
    pub fn read_after(&self, zxid: Zxid) -> Result<LogCursor, LogError> {
        let view = self.index.view();
        let base = view.base();
        if zxid < base {
            return Err(LogError::NotReachingBack { base, asked: zxid });
        }
        let position =
            view.segments.iter().rposition(|segment| segment.previous <= zxid).unwrap_or(0);
        Ok(LogCursor {
            disk: self.disk.clone(),
            salt: self.salt,
            last: view.segments.get(position).map_or(view.last, |segment| segment.previous),
            view,
            position,
            reader: None,
            after: zxid,
        })
    }

    /// The greatest zxid of the history that is not above `zxid`: a transaction of the log, or what
    /// the log begins behind.
    ///
    /// Errors: [`LogError::NotReachingBack`] when the log begins behind a later one.
    pub fn floor(&self, zxid: Zxid) -> Result<Zxid, LogError> {
        let mut cursor = self.read_after(zxid)?;
        loop {
            let before = cursor.last;
            if !cursor.advance()? || cursor.last > zxid {
                return Ok(before);
            }
        }
    }

    /// Whether there is no file of the log.
    pub fn has_no_segments(&self) -> bool {
        self.index.with(|view| view.segments.is_empty())
    }

    pub(super) fn index(&self) -> &LogIndex {
        &self.index
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
}

/// A place in the log. A segment that is purged or cut meanwhile is an error of the read that
/// reaches it.
pub struct LogCursor {
    disk: Arc<dyn Disk>,
    salt: Salt,
    view: LogView,
    /// The segment being read.
    position: usize,
    reader: Option<RecordReader>,
    /// The transaction read last, wanted or not.
    last: Zxid,
    after: Zxid,
}

impl LogCursor {
    /// The next transaction: its zxid and its bytes; `None` at the end.
    ///
    /// Errors: [`LogError::Damaged`] where records should be and are not, [`LogError::Disk`].
    pub fn next_record(&mut self) -> Result<Option<(Zxid, &[u8])>, LogError> {
        while self.advance()? {
            if self.last > self.after {
                let payload = self.reader.as_ref().map_or(&[][..], RecordReader::payload);
                return Ok(Some((self.last, payload)));
            }
        }
        Ok(None)
    }

    /// Steps to the next transaction; `false` at the end.
    fn advance(&mut self) -> Result<bool, LogError> {
        loop {
            let Some(segment) = self.view.segments.get(self.position) else { return Ok(false) };
            if self.last >= self.view.last_of(self.position) {
                self.position += 1;
                self.reader = None;
                continue;
            }
            let reader = match &mut self.reader {
                Some(reader) => reader,
                none => {
                    let file = self.disk.open_read(&segment.name)?;
                    let limit = if self.position + 1 == self.view.segments.len() {
                        self.view.end
                    } else {
                        file.length()?
                    };
                    none.insert(RecordReader::new(file, self.salt, limit))
                }
            };
            let Some(record) = reader.step()? else {
                let reason = format!(
                    "no whole record is there, though the log goes on from {} to {}",
                    self.last,
                    self.view.last_of(self.position)
                );
                return Err(damaged(&*self.disk, &segment.name, reader.offset(), reason));
            };
            check_order(&*self.disk, &segment.name, self.last, &record)?;
            if record.kind == RecordKind::Txn {
                self.last = record.zxid;
                return Ok(true);
            }
        }
    }
}

impl Iterator for LogCursor {
    type Item = Result<(Zxid, Vec<u8>), LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_record() {
            Ok(record) => record.map(|(zxid, payload)| Ok((zxid, payload.to_vec()))),
            Err(error) => Some(Err(error)),
        }
    }
}
