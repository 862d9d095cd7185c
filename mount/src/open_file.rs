//! One open file: what it reads, what it has changed, and when that is to be committed. A plain
//! state machine without I/O: it says what it needs (the value, a commit) and is told what came of
//! it. What the kernel really does at each close is in the tests below.

use bytes::Bytes;

use crate::changes::Changes;

/// How a file was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenMode {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// `O_APPEND`: every write goes behind the newest value.
    pub append: bool,
    /// `O_SYNC` or `O_DSYNC`: every write is committed at once, every value read is synced first.
    pub synchronous: bool,
    /// `O_TRUNC`: the value is replaced by what is written.
    pub truncate: bool,
}

/// A value of the znode, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The data; null counts as empty.
    pub data: Bytes,
    /// The znode's version.
    pub version: i32,
}

/// What a read comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadStep {
    /// These bytes; none at the end of the file.
    Data(Bytes),
    /// Get the newest value first, then [`OpenFile::supply`] it and read again.
    NeedsValue,
}

/// What is to be committed as one setData.
#[derive(Debug, PartialEq, Eq)]
pub enum Commit {
    /// This value, whatever is there.
    Replace(Bytes),
    /// These changes, applied to the newest value on condition that it stays the newest. `base` is
    /// the value to try first.
    #[allow(missing_docs)]
    Modify { changes: Changes, base: Option<Value> },
    /// These changes, applied to the value that was read, on condition that it is still there.
    #[allow(missing_docs)]
    ReadModify { changes: Changes, base: Value },
}

/// The file is over the limit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The part of a file that was made by a sequential creation: what is read first is the name.
#[derive(Debug)]
struct NameFirst {
    text: Bytes,
    written: bool,
}

/// One open file.
#[derive(Debug)]
pub struct OpenFile {
    mode: OpenMode,
    /// The process that opened it; 0 is unknown.
    opener: u32,
    value: Option<Value>,
    /// Whether bytes of `value` were handed out.
    has_read: bool,
    /// Whether the next read takes the value anew: one has found the end, or the replica has caught
    /// up since the value was taken.
    take_anew: bool,
    /// Whether the znode is gone, so that the value last known is the last there will be.
    detached: bool,
    changes: Changes,
    /// The changes that a commit under way covers, which no longer count as pending.
    committing: Option<Changes>,
    /// Without a position of the kernel's: the cursors of a file from a sequential creation.
    name_first: Option<NameFirst>,
    cursor: usize,
    /// Whether this open created the file.
    is_creator: bool,
    /// Whether nothing has changed it since.
    is_new: bool,
}

impl OpenFile {
    /// A file as opened by a process. `value` is what was there, where it is already known.
    pub fn new(mode: OpenMode, opener: u32, value: Option<Value>) -> OpenFile {
        let changes = if mode.truncate { Changes::truncation(0) } else { Changes::new() };
        OpenFile {
            mode,
            opener,
            value,
            has_read: false,
            take_anew: false,
            detached: false,
            changes,
            committing: None,
            name_first: None,
            cursor: 0,
            is_creator: false,
            is_new: false,
        }
    }

    /// A file that this open created: empty, of version 0.
    pub fn created(mode: OpenMode, opener: u32) -> OpenFile {
        let value = Value { data: Bytes::new(), version: 0 };
        let mode = OpenMode { truncate: false, ..mode };
        OpenFile { is_creator: true, is_new: true, ..OpenFile::new(mode, opener, Some(value)) }
    }

    /// A file that a sequential creation made: until something is written, it reads back the name.
    pub fn sequential(mode: OpenMode, opener: u32, name: &str) -> OpenFile {
        let text = Bytes::from(format!("{name}\n"));
        let name_first = Some(NameFirst { text, written: false });
        OpenFile { name_first, ..OpenFile::created(mode, opener) }
    }

    /// How it was opened.
    pub fn mode(&self) -> OpenMode {
        self.mode
    }

    /// Whether this open created the file and nothing has changed it since: a change of times needs
    /// no commit of its own.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this open created the file: it may write whatever permissions the file was given.
    pub fn is_creator(&self) -> bool {
        self.is_creator
    }

    /// Whether it has no position of the kernel's: the one to use is its cursor.
    pub fn has_cursor(&self) -> bool {
        self.name_first.is_some()
    }

    /// Reads `length` bytes from `offset`; without a position of the kernel's, from the cursor.
    pub fn read(&mut self, offset: u64, length: usize) -> ReadStep {
        if let Some(NameFirst { text, written: false }) = &self.name_first {
            let part = slice(text, self.cursor, length);
            self.cursor += part.len();
            return ReadStep::Data(part);
        }
        let offset = match self.name_first {
            Some(_) => self.cursor,
            None => usize::try_from(offset).unwrap_or(usize::MAX),
        };
        if self.must_take_value(offset) {
            return ReadStep::NeedsValue;
        }
        let content = self.content();
        let part = slice(&content, offset, length);
        self.take_anew = part.is_empty() && length > 0;
        self.has_read |= self.depends_on_value();
        if self.has_cursor() {
            self.cursor += part.len();
        }
        ReadStep::Data(part)
    }

    /// A value is taken when there is none, and anew when a read starts at the beginning or follows
    /// one that found the end; but never under changes that lie over it.
    fn must_take_value(&self, offset: usize) -> bool {
        if self.detached || !self.depends_on_value() {
            return false;
        }
        let anew = (offset == 0 && self.has_read) || self.take_anew;
        self.value.is_none() || (anew && self.changes.is_empty() && self.committing.is_none())
    }

    /// Whether what is read depends on the znode's value at all, or on our own changes alone.
    fn depends_on_value(&self) -> bool {
        self.changes.need_value() && self.committing.as_ref().is_none_or(Changes::need_value)
    }

    /// The value as this file sees it: its own changes lie over it.
    fn content(&self) -> Bytes {
        let value = self.value.as_ref().map(|value| value.data.clone()).unwrap_or_default();
        let committed = match &self.committing {
            Some(changes) => changes.apply(&value).into(),
            None => value,
        };
        if self.changes.is_empty() { committed } else { self.changes.apply(&committed).into() }
    }

    /// The newest value, as asked for by [`ReadStep::NeedsValue`].
    pub fn supply(&mut self, value: Value) {
        self.value = Some(value);
        self.has_read = false;
        self.take_anew = false;
    }

    /// The replica has caught up: who has not begun to read starts with the newest value.
    pub fn synced(&mut self) {
        self.take_anew |= !self.has_read;
    }

    /// The process that has the file open has locked it: what is read from now on is the newest value,
    /// wherever the read starts.
    pub fn locked(&mut self) {
        if self.changes.is_empty() && !self.detached && self.committing.is_none() {
            self.value = None;
            self.has_read = false;
        }
    }

    /// Whether this process has opened the file, as far as is known.
    pub fn is_opened_by(&self, process: u32) -> bool {
        process != 0 && process == self.opener
    }

    /// The znode was renamed, by creating it anew or by setting another's data: the value of version
    /// `from` is the same as that of version `to`.
    pub fn moved(&mut self, from: i32, to: i32) {
        if let Some(value) = &mut self.value
            && value.version == from
        {
            value.version = to;
        }
    }

    /// The znode is gone: the file goes on with what it has.
    pub fn detach(&mut self) {
        self.detached = true;
    }

    /// Takes a write; the file may become `length_max` bytes long.
    pub fn write(&mut self, offset: u64, bytes: &[u8], length_max: usize) -> Result<(), TooLarge> {
        let offset = match &mut self.name_first {
            None => usize::try_from(offset).map_err(|_| TooLarge)?,
            Some(name_first) => {
                // The first write starts the value; from there on the name cannot be read.
                if !std::mem::replace(&mut name_first.written, true) {
                    self.cursor = 0;
                }
                self.cursor
            }
        };
        let end = if self.mode.append {
            self.size_known() + bytes.len()
        } else {
            offset.checked_add(bytes.len()).ok_or(TooLarge)?
        };
        if end > length_max {
            return Err(TooLarge);
        }
        self.is_new = false;
        if self.mode.append {
            self.changes.append(bytes);
        } else {
            self.changes.write(offset, bytes);
        }
        if self.has_cursor() {
            self.cursor += bytes.len();
        }
        Ok(())
    }

    /// Takes an ftruncate. With appended bytes pending a commit comes first
    /// ([`OpenFile::must_commit_before_truncation`]).
    pub fn truncate(&mut self, length: u64, length_max: usize) -> Result<(), TooLarge> {
        let length = usize::try_from(length).map_err(|_| TooLarge)?;
        if length > length_max {
            return Err(TooLarge);
        }
        self.is_new = false;
        self.changes.truncate(length);
        Ok(())
    }

    /// Whether bytes that were appended have to be committed before an ftruncate, since nobody
    /// knows yet where they will stand.
    pub fn must_commit_before_truncation(&self) -> bool {
        self.changes.has_appended()
    }

    /// The length of the file as far as this open knows, for the limit.
    fn size_known(&self) -> usize {
        let length = self.value.as_ref().map_or(0, |value| value.data.len());
        let committed = self.committing.as_ref().map_or(length, |changes| changes.length(length));
        self.changes.length(committed)
    }

    /// The length that a stat of the file is to show while changes are pending, or once the file is
    /// all that is left of its znode; `None` otherwise. `length` is that of the znode's value.
    pub fn pending_length(&self, length: usize) -> Option<usize> {
        if self.detached && self.value.is_some() {
            return Some(self.size_known());
        }
        if self.changes.is_empty() && self.committing.is_none() {
            return None;
        }
        let committed = self.committing.as_ref().map_or(length, |changes| changes.length(length));
        Some(self.changes.length(committed))
    }

    /// Whether anything is pending.
    pub fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether this process opened the file and has written what is not committed yet: when it opens
    /// the file once more, it is to find that.
    pub fn is_written_by(&self, process: u32) -> bool {
        process != 0 && process == self.opener && self.changes.has_data()
    }

    /// Whether a close by this process is the moment to commit. Closes by others are not, since
    /// they inherited the file from its opener, which will still close it; nor is one that finds
    /// nothing but a truncation, which comes before the first byte is written (`{ a; b; } > f`
    /// closes a duplicate at once).
    pub fn commits_at_flush(&self, process: u32) -> bool {
        let by_opener = process == self.opener || process == 0 || self.opener == 0;
        by_opener && self.changes.has_data()
    }

    /// Starts a commit of everything pending; `None` when there is nothing. Until it has ended, no
    /// other may start.
    pub fn begin_commit(&mut self) -> Option<Commit> {
        if self.changes.is_empty() || self.committing.is_some() {
            return None;
        }
        self.is_new = false;
        let mut changes = std::mem::take(&mut self.changes);
        // A file that is only written needs no copy of what it has handed over.
        if !self.mode.read
            && let Some(whole) = changes.take_whole()
        {
            self.value = None;
            return Some(Commit::Replace(whole.into()));
        }
        self.committing = Some(changes.clone());
        let base = self.value.clone();
        Some(match base {
            // Reading and writing back is safe from the shell: what was read must still be there.
            // Appending asks for less.
            Some(base) if self.has_read && !self.mode.append => {
                Commit::ReadModify { changes, base }
            }
            base if changes.need_value() => Commit::Modify { changes, base },
            _ => Commit::Replace(changes.apply(&[]).into()),
        })
    }

    /// Ends a commit of a file whose znode is gone: the file is all that is left of it.
    pub fn end_commit_detached(&mut self, commit: Commit) {
        let version = self.value.as_ref().map_or(0, |value| value.version);
        let data = match commit {
            Commit::Replace(data) => data,
            Commit::Modify { changes, base } => {
                changes.apply(&base.map(|base| base.data).unwrap_or_default()).into()
            }
            Commit::ReadModify { changes, base } => changes.apply(&base.data).into(),
        };
        self.committing = None;
        self.detached = true;
        self.value = Some(Value { data, version });
    }

    /// The commit succeeded: `committed` is the new value and its version.
    pub fn end_commit(&mut self, committed: Value) {
        self.committing = None;
        // A file that is only written reads nothing, and only an append wants to know the value.
        self.value = (self.mode.read || self.mode.append).then_some(committed);
    }

    /// The commit failed. With `keep` its changes stay pending, under those made since; otherwise
    /// they are lost, as its caller was told.
    pub fn fail_commit(&mut self, keep: Option<Changes>) {
        self.committing = None;
        match keep {
            Some(changes) if self.changes.is_empty() => self.changes = changes,
            _ => {}
        }
    }
}

fn slice(content: &Bytes, offset: usize, length: usize) -> Bytes {
    let start = offset.min(content.len());
    content.slice(start..start.saturating_add(length).min(content.len()))
}

#[cfg(test)]
mod tests;
