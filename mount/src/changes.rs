//! What an open file has changed and not yet committed: writes, truncations and appends, gathered so
//! that they can be applied to any value of the znode. No I/O.

/// Changes to a value, in the order in which they were made but without the value itself, so that
/// they can be applied again to a newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// How much of the value is kept at most; `None` is all of it.
    keep: Option<usize>,
    /// The value is at least so long, filled with zeros.
    length_min: usize,
    /// Written ranges: sorted, apart from each other.
    extents: Vec<Extent>,
    /// What comes behind everything else.
    appended: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Extent {
    start: usize,
    bytes: Vec<u8>,
}

impl Extent {
    fn end(&self) -> usize {
        self.start + self.bytes.len()
    }
}

impl Changes {
    /// No change.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// A truncation to `length` bytes (or an extension with zeros) and nothing else.
    pub fn truncation(length: usize) -> Changes {
        let mut changes = Changes::default();
        changes.truncate(length);
        changes
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.keep.is_none() && self.length_min == 0 && !self.has_data()
    }

    /// Whether bytes were written; otherwise there is a truncation at most.
    pub fn has_data(&self) -> bool {
        !self.extents.is_empty() || !self.appended.is_empty()
    }

    /// Whether bytes were appended: their place depends on the value.
    pub fn has_appended(&self) -> bool {
        !self.appended.is_empty()
    }

    /// Whether the outcome depends on the value that the changes are applied to.
    pub fn need_value(&self) -> bool {
        self.keep != Some(0)
    }

    /// Writes bytes at an offset. Not to be mixed with [`Changes::append`] without a commit between.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        // Nearly every write continues the one before it.
        if let Some(last) = self.extents.last_mut()
            && last.end() == offset
        {
            last.bytes.extend_from_slice(bytes);
            return;
        }
        let end = offset + bytes.len();
        let first = self.extents.partition_point(|extent| extent.end() < offset);
        let behind = self.extents.partition_point(|extent| extent.start <= end);
        if first == behind {
            self.extents.insert(first, Extent { start: offset, bytes: bytes.to_vec() });
            return;
        }
        let inside = behind - first == 1
            && self.extents[first].start <= offset
            && end <= self.extents[first].end();
        if inside {
            let extent = &mut self.extents[first];
            let start = offset - extent.start;
            extent.bytes[start..start + bytes.len()].copy_from_slice(bytes);
            return;
        }
        // Everything from `first` to `behind` touches the new bytes: one extent replaces them.
        let touched: Vec<Extent> = self.extents.drain(first..behind).collect();
        let start = touched[0].start.min(offset);
        let merged_end = touched[touched.len() - 1].end().max(end);
        let mut merged = vec![0; merged_end - start];
        for extent in &touched {
            merged[extent.start - start..extent.end() - start].copy_from_slice(&extent.bytes);
        }
        merged[offset - start..end - start].copy_from_slice(bytes);
        self.extents.insert(first, Extent { start, bytes: merged });
    }

    /// Appends bytes behind whatever the value is.
    pub fn append(&mut self, bytes: &[u8]) {
        self.appended.extend_from_slice(bytes);
    }

    /// Cuts or extends to a length. Not to be mixed with [`Changes::append`] without a commit
    /// between.
    pub fn truncate(&mut self, length: usize) {
        self.keep = Some(self.keep.map_or(length, |keep| keep.min(length)));
        self.length_min = length;
        self.extents.retain_mut(|extent| {
            extent.bytes.truncate(length.saturating_sub(extent.start));
            !extent.bytes.is_empty()
        });
    }

    /// The length of the outcome when applied to a value of `value_length` bytes.
    pub fn length(&self, value_length: usize) -> usize {
        let kept = self.keep.map_or(value_length, |keep| keep.min(value_length));
        let written = self.extents.last().map_or(0, Extent::end);
        kept.max(self.length_min).max(written) + self.appended.len()
    }

    /// The least length of the outcome, whatever the value is.
    pub fn length_least(&self) -> usize {
        self.length(0)
    }

    /// The outcome when applied to a value.
    pub fn apply(&self, value: &[u8]) -> Vec<u8> {
        let kept = self.keep.map_or(value.len(), |keep| keep.min(value.len()));
        let length = self.length(value.len());
        let mut result = Vec::with_capacity(length);
        result.extend_from_slice(&value[..kept]);
        result.resize(length - self.appended.len(), 0);
        for extent in &self.extents {
            result[extent.start..extent.end()].copy_from_slice(&extent.bytes);
        }
        result.extend_from_slice(&self.appended);
        result
    }

    /// The whole new value when it does not depend on the old one and is in one piece: taken out
    /// without a copy.
    pub fn take_whole(&mut self) -> Option<Vec<u8>> {
        let [extent] = self.extents.as_mut_slice() else { return None };
        let whole = self.keep == Some(0)
            && extent.start == 0
            && self.length_min <= extent.bytes.len()
            && self.appended.is_empty();
        whole.then(|| std::mem::take(&mut extent.bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn writes_lie_over_the_value() {
        let mut changes = Changes::new();
        changes.write(2, b"XX");
        assert_eq!(changes.apply(b"abcdef"), b"abXXef");
        assert_eq!(changes.apply(b"a"), b"a\0XX");
        assert!(changes.need_value() && changes.has_data());
    }

    #[test]
    fn a_truncation_alone_is_no_data() {
        let mut changes = Changes::truncation(0);
        assert!(!changes.is_empty() && !changes.has_data() && !changes.need_value());
        changes.write(0, b"new");
        assert_eq!(changes.apply(b"something old"), b"new");
        assert_eq!(changes.take_whole(), Some(b"new".to_vec()));
    }

    #[test]
    fn appended_bytes_come_last_whatever_the_value_is() {
        let mut changes = Changes::new();
        changes.append(b"12");
        changes.append(b"3");
        assert_eq!(changes.apply(b"0"), b"0123");
        assert_eq!(changes.apply(b""), b"123");
        assert_eq!(changes.length(4), 7);
    }

    #[derive(Clone, Debug)]
    enum Change {
        Write(usize, Vec<u8>),
        Truncate(usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            3 => (0..40_usize, proptest::collection::vec(1..255_u8, 0..12))
                .prop_map(|(offset, bytes)| Change::Write(offset, bytes)),
            1 => (0..40_usize).prop_map(Change::Truncate),
        ]
    }

    proptest! {
        #[test]
        fn gathered_changes_do_what_each_would_have_done(
            value in proptest::collection::vec(1..255_u8, 0..40),
            steps in proptest::collection::vec(change(), 0..20),
            appended in proptest::collection::vec(1..255_u8, 0..5),
        ) {
            let mut expected = value.clone();
            let mut changes = Changes::new();
            for step in &steps {
                match step {
                    Change::Write(offset, bytes) => {
                        if !bytes.is_empty() {
                            let end = offset + bytes.len();
                            expected.resize(expected.len().max(end), 0);
                            expected[*offset..end].copy_from_slice(bytes);
                        }
                        changes.write(*offset, bytes);
                    }
                    Change::Truncate(length) => {
                        expected.resize(*length, 0);
                        changes.truncate(*length);
                    }
                }
            }
            expected.extend_from_slice(&appended);
            changes.append(&appended);
            prop_assert_eq!(changes.length(value.len()), expected.len());
            prop_assert_eq!(changes.apply(&value), expected.clone());
            let ordered = changes.extents.windows(2).all(|pair| pair[0].end() < pair[1].start);
            prop_assert!(ordered, "extents touch: {:?}", changes.extents);
            if let Some(whole) = changes.take_whole() {
                prop_assert_eq!(whole, expected);
            }
        }
    }
}
