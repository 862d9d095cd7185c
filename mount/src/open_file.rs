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
    /// Whether a read has found the end, so that the next takes the value anew.
    at_end: bool,
    /// Whether the znode is gone, so that the value last known is the last there will be.
    detached: bool,
    changes: Changes,
    /// The changes that a commit under way covers, which no longer count as pending.
    committing: Option<Changes>,
    /// Without a position of the kernel's: the cursors of a file from a sequential creation.
    name_first: Option<NameFirst>,
    cursor: usize,
    /// Whether this open created the file and nothing has changed it since.
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
            at_end: false,
            detached: false,
            changes,
            committing: None,
            name_first: None,
            cursor: 0,
            is_new: false,
        }
    }

    /// A file that this open created: empty, of version 0.
    pub fn created(mode: OpenMode, opener: u32) -> OpenFile {
        let value = Value { data: Bytes::new(), version: 0 };
        let mode = OpenMode { truncate: false, ..mode };
        OpenFile { is_new: true, ..OpenFile::new(mode, opener, Some(value)) }
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
        self.at_end = part.is_empty() && length > 0;
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
        let anew = (offset == 0 && self.has_read) || self.at_end;
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
        self.at_end = false;
    }

    /// The znode's replica has caught up: a value that nobody has read yet is not worth keeping.
    pub fn synced(&mut self) {
        if !self.has_read && !self.detached && self.committing.is_none() {
            self.value = None;
        }
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

    /// The length that a stat of the file is to show while changes are pending; `None` when there
    /// are none. `length` is that of the znode's value.
    pub fn pending_length(&self, length: usize) -> Option<usize> {
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
mod tests {
    use super::*;

    const LIMIT: usize = 1000;
    const SHELL: u32 = 100;
    const CHILD: u32 = 200;

    fn value(data: &'static str, version: i32) -> Value {
        Value { data: Bytes::from_static(data.as_bytes()), version }
    }

    fn opened(mode: OpenMode, data: &'static str) -> OpenFile {
        OpenFile::new(mode, SHELL, Some(value(data, 1)))
    }

    const READ: OpenMode =
        OpenMode { read: true, write: false, append: false, synchronous: false, truncate: false };
    const WRITE: OpenMode = OpenMode { read: false, write: true, ..READ };
    const READ_WRITE: OpenMode = OpenMode { write: true, ..READ };
    const OVERWRITE: OpenMode = OpenMode { truncate: true, ..WRITE };

    fn read(file: &mut OpenFile, offset: u64) -> String {
        match file.read(offset, 100) {
            ReadStep::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
            ReadStep::NeedsValue => "(needs value)".into(),
        }
    }

    fn commit_whole(file: &mut OpenFile) -> Option<String> {
        match file.begin_commit()? {
            Commit::Replace(data) => {
                file.end_commit(Value { data: data.clone(), version: 2 });
                Some(String::from_utf8(data.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// `{ echo a; date; echo b; } > f` as the kernel tells it: a flush by the shell before any byte
    /// (dup2), one by date with half of the value, one by the shell at the end.
    #[test]
    fn a_group_redirected_to_a_file_commits_one_value() {
        let mut file = OpenFile::new(OVERWRITE, SHELL, None);
        assert!(!file.commits_at_flush(SHELL), "dup2 closes the first descriptor");
        file.write(0, b"a\n", LIMIT).unwrap();
        file.write(2, b"Mon\n", LIMIT).unwrap();
        assert!(!file.commits_at_flush(CHILD), "date exits");
        file.write(6, b"b\n", LIMIT).unwrap();
        assert!(file.commits_at_flush(SHELL));
        assert_eq!(commit_whole(&mut file).as_deref(), Some("a\nMon\nb\n"));
        assert!(!file.is_changed(), "nothing is left for the release");
    }

    /// `: > f`: nothing but the truncation, committed at release.
    #[test]
    fn a_truncation_alone_waits_for_the_release() {
        let mut file = OpenFile::new(OVERWRITE, SHELL, None);
        assert!(!file.commits_at_flush(SHELL));
        assert!(file.is_changed());
        assert_eq!(commit_whole(&mut file).as_deref(), Some(""));
    }

    /// `( date ) > f` where the shell opened the file and only the child wrote: nobody but the
    /// release is left.
    #[test]
    fn what_only_others_closed_is_left_for_the_release() {
        let mut file = OpenFile::new(OVERWRITE, SHELL, None);
        file.write(0, b"Mon\n", LIMIT).unwrap();
        assert!(!file.commits_at_flush(CHILD));
        assert!(file.is_changed());
    }

    #[test]
    fn a_reader_keeps_one_value_until_it_starts_again_or_has_seen_the_end() {
        let mut file = opened(READ, "hello");
        assert_eq!(file.read(0, 2), ReadStep::Data("he".into()));
        assert_eq!(read(&mut file, 2), "llo");
        // A short read is not the end: cat must not mix two values.
        assert_eq!(read(&mut file, 5), "");
        assert_eq!(file.read(5, 10), ReadStep::NeedsValue);
        file.supply(value("hello world", 2));
        assert_eq!(read(&mut file, 5), " world");
        assert_eq!(file.read(0, 10), ReadStep::NeedsValue);
    }

    #[test]
    fn the_first_read_uses_the_value_taken_at_open() {
        let mut file = opened(READ, "hello");
        assert_eq!(read(&mut file, 0), "hello");
        let mut file = opened(READ, "hello");
        file.synced();
        assert_eq!(file.read(0, 10), ReadStep::NeedsValue, "fsync asked for the newest");
    }

    #[test]
    fn a_file_reads_back_its_own_writes_before_they_are_committed() {
        let mut file = opened(READ_WRITE, "hello");
        file.write(0, b"J", LIMIT).unwrap();
        assert_eq!(read(&mut file, 0), "Jello");
        assert_eq!(file.pending_length(5), Some(5));
        assert_eq!(read(&mut file, 0), "Jello", "no newer value under pending changes");
    }

    #[test]
    fn having_read_makes_a_commit_conditional_even_when_it_replaces_everything() {
        let mut file = opened(READ_WRITE, "1");
        assert_eq!(read(&mut file, 0), "1");
        file.truncate(0, LIMIT).unwrap();
        file.write(0, b"2", LIMIT).unwrap();
        let Some(Commit::ReadModify { base, .. }) = file.begin_commit() else { panic!() };
        assert_eq!(base.version, 1);
        file.end_commit(value("2", 2));
        file.write(1, b"3", LIMIT).unwrap();
        let Some(Commit::ReadModify { base, .. }) = file.begin_commit() else { panic!() };
        assert_eq!(base.version, 2, "its own commit is what it knows now");
    }

    #[test]
    fn a_partial_overwrite_that_read_nothing_applies_to_whatever_is_there() {
        for mode in [WRITE, READ_WRITE] {
            let mut file = opened(mode, "hello");
            file.write(1, b"u", LIMIT).unwrap();
            let Some(Commit::Modify { changes, .. }) = file.begin_commit() else { panic!() };
            assert_eq!(changes.apply(b"halloween"), b"hulloween");
        }
    }

    #[test]
    fn an_append_never_becomes_conditional_on_what_was_read() {
        let mut file = opened(OpenMode { append: true, ..READ_WRITE }, "a");
        assert_eq!(read(&mut file, 0), "a");
        file.write(0, b"b", LIMIT).unwrap();
        assert!(matches!(file.begin_commit(), Some(Commit::Modify { .. })));
    }

    #[test]
    fn writes_during_a_commit_wait_for_the_next() {
        let mut file = opened(READ_WRITE, "hello");
        file.write(0, b"J", LIMIT).unwrap();
        assert!(file.begin_commit().is_some());
        file.write(4, b"y", LIMIT).unwrap();
        assert!(file.begin_commit().is_none(), "one at a time");
        assert_eq!(read(&mut file, 0), "Jelly");
        file.end_commit(value("Jello", 2));
        assert_eq!(read(&mut file, 0), "Jelly");
        assert!(file.is_changed());
    }

    #[test]
    fn a_write_over_the_limit_is_refused_where_it_crosses() {
        let mut file = OpenFile::new(OVERWRITE, SHELL, None);
        assert_eq!(file.write(0, &[1; 999], LIMIT), Ok(()));
        assert_eq!(file.write(999, &[1; 2], LIMIT), Err(TooLarge));
        assert_eq!(file.write(999, &[1], LIMIT), Ok(()));
        assert_eq!(file.write(u64::MAX, &[1], LIMIT), Err(TooLarge));
        assert_eq!(file.truncate(1001, LIMIT), Err(TooLarge));
        let mut file = opened(OpenMode { append: true, ..WRITE }, "12345");
        assert_eq!(file.write(0, &[1; 996], LIMIT), Err(TooLarge));
    }

    /// `exec 9<>'n-@seq'; read -r name <&9; echo data >&9`: reads and writes all come with offset 0.
    #[test]
    fn a_sequential_file_reads_back_its_name_until_something_is_written() {
        let mut file = OpenFile::sequential(READ_WRITE, SHELL, "n-0000000007");
        assert_eq!(file.read(0, 2), ReadStep::Data("n-".into()));
        assert_eq!(read(&mut file, 0), "0000000007\n");
        assert_eq!(read(&mut file, 0), "");
        file.write(0, b"da", LIMIT).unwrap();
        file.write(0, b"ta", LIMIT).unwrap();
        let Some(Commit::Modify { changes, .. }) = file.begin_commit() else { panic!() };
        assert_eq!(changes.apply(b""), b"data");
    }

    #[test]
    fn a_file_without_a_znode_goes_on_with_what_it_has() {
        let mut file = opened(READ_WRITE, "scratch");
        file.detach();
        file.write(0, b"S", LIMIT).unwrap();
        let commit = file.begin_commit().unwrap();
        file.end_commit_detached(commit);
        assert_eq!(read(&mut file, 0), "Scratch");
        assert_eq!(read(&mut file, 0), "Scratch");
    }

    #[test]
    fn a_failed_commit_keeps_its_changes_only_when_told_so() {
        let mut file = opened(WRITE, "hello");
        file.write(0, b"J", LIMIT).unwrap();
        let Some(Commit::Modify { changes, .. }) = file.begin_commit() else { panic!() };
        file.fail_commit(Some(changes));
        assert!(file.is_changed());
        assert!(file.begin_commit().is_some());
        file.fail_commit(None);
        assert!(!file.is_changed());
    }

    #[test]
    fn a_rename_is_no_conflict_for_who_has_read_what_was_moved() {
        let base_version = |read_version| {
            let mut file = OpenFile::new(READ_WRITE, SHELL, Some(value("x", read_version)));
            assert_eq!(read(&mut file, 0), "x");
            file.moved(4, 0);
            file.write(0, b"y", LIMIT).unwrap();
            let Some(Commit::ReadModify { base, .. }) = file.begin_commit() else { panic!() };
            base.version
        };
        assert_eq!(base_version(4), 0);
        assert_eq!(base_version(3), 3, "it had read an older value, and still has");
    }

    #[test]
    fn a_new_file_stays_new_until_it_is_changed() {
        let mut file = OpenFile::created(WRITE, SHELL);
        assert!(file.is_new());
        file.write(0, b"x", LIMIT).unwrap();
        assert!(!file.is_new());
    }
}
