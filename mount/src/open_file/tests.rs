//! One open file, with the exact sequences of the kernel's closes.

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
fn a_file_that_was_synced_and_then_removed_still_has_its_value() {
    let mut file = opened(READ_WRITE, "scratch");
    file.synced();
    file.detach();
    file.write(0, b"S", LIMIT).unwrap();
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
