//! Which segments the log has, shared between its writer, its readers and the purge. Names and
//! numbers only; no I/O.

use std::sync::Arc;

use parking_lot::Mutex;
use znodefs::Zxid;

/// A segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its file, `log.<zxid of the first record in hexadecimal>`.
    pub name: String,
    /// The last transaction before it.
    pub previous: Zxid,
}

/// The durable log at one moment.
#[derive(Clone, Debug, Default)]
pub struct LogView {
    /// Oldest first. Only the last is written to.
    pub segments: Vec<Segment>,
    /// The newest durable transaction, or where an empty log begins.
    pub last: Zxid,
    /// The end of the last segment's records in bytes.
    pub end: u64,
}

/// The shared index.
#[derive(Clone, Debug, Default)]
pub struct LogIndex(Arc<Mutex<LogView>>);

impl LogIndex {
    /// What is there now.
    pub fn view(&self) -> LogView {
        self.0.lock().clone()
    }

    /// Looks at or changes the index under its lock: no I/O inside.
    pub fn with<T>(&self, act: impl FnOnce(&mut LogView) -> T) -> T {
        act(&mut self.0.lock())
    }
}

impl LogView {
    /// The last transaction before the oldest segment: what is later is in the log.
    pub fn base(&self) -> Zxid {
        self.segments.first().map_or(self.last, |segment| segment.previous)
    }

    /// The last transaction of the segment at `position`.
    pub fn last_of(&self, position: usize) -> Zxid {
        self.segments.get(position + 1).map_or(self.last, |next| next.previous)
    }
}

/// The name of the segment whose first record is this transaction.
pub fn segment_name(first: Zxid) -> String {
    format!("log.{:x}", first.0)
}

/// The first transaction by a segment's name; `None` for any other file.
pub fn parse_segment_name(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix("log.")?;
    let zxid = u64::from_str_radix(digits, 16).ok()?;
    Some(Zxid(zxid as i64))
}
