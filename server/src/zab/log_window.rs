//! The last part of the log in memory: what followers that lag a little are sent (DIFF), and what
//! waits for its commit. The log itself is the driver's.

use std::collections::VecDeque;

use znodefs::Zxid;

use super::packet::Entry;

/// The entries after `base`, without a hole, up to the end of the log.
#[derive(Debug)]
pub(super) struct LogWindow {
    base: Zxid,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl LogWindow {
    /// An empty window at the end of a recovered log.
    pub(super) fn new(last: Zxid) -> LogWindow {
        LogWindow { base: last, entries: VecDeque::new(), bytes: 0 }
    }

    /// The last zxid before the window: in the log (or in the snapshot it starts from), or 0.
    pub(super) fn base(&self) -> Zxid {
        self.base
    }

    /// The end of the log.
    pub(super) fn last(&self) -> Zxid {
        self.entries.back().map_or(self.base, |entry| entry.zxid)
    }

    /// Whether this zxid may come next: the one after the last, or the first of a later epoch.
    pub(super) fn continues_with(&self, zxid: Zxid) -> bool {
        let last = self.last();
        if zxid.epoch() == last.epoch() {
            last.next() == Some(zxid)
        } else {
            zxid.epoch() > last.epoch() && zxid.counter() == 1
        }
    }

    /// Adds an entry at the end.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.payload.len();
        self.entries.push_back(entry);
    }

    /// The greatest zxid of the history that is not above `zxid`; only for `zxid >= base`.
    pub(super) fn floor(&self, zxid: Zxid) -> Zxid {
        let above = self.entries.partition_point(|entry| entry.zxid <= zxid);
        if above == 0 { self.base } else { self.entries[above - 1].zxid }
    }

    /// The entries in (`after`, `through`] that are in the window.
    pub(super) fn between(&self, after: Zxid, through: Zxid) -> impl Iterator<Item = &Entry> {
        let from = self.entries.partition_point(|entry| entry.zxid <= after);
        let to = self.entries.partition_point(|entry| entry.zxid <= through);
        self.entries.range(from..to.max(from))
    }

    /// Forgets everything above `zxid`.
    pub(super) fn truncate(&mut self, zxid: Zxid) {
        if zxid < self.base {
            *self = LogWindow::new(zxid);
            return;
        }
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.zxid > zxid) {
            self.bytes -= entry.payload.len();
        }
    }

    /// Drops the oldest entries, none above `through`, until the limits hold.
    pub(super) fn trim(&mut self, through: Zxid, entries_max: usize, bytes_max: usize) {
        while self.entries.len() > entries_max || self.bytes > bytes_max {
            let Some(entry) = self.entries.pop_front_if(|entry| entry.zxid <= through) else {
                return;
            };
            self.bytes -= entry.payload.len();
            self.base = entry.zxid;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use znodefs::Epoch;

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn window(zxids: &[(u32, u32)]) -> LogWindow {
        let mut window = LogWindow::new(Zxid::ZERO);
        for (epoch, counter) in zxids {
            let zxid = zxid(*epoch, *counter);
            assert!(window.continues_with(zxid), "{zxid}");
            window.push(Entry { zxid, payload: Bytes::from_static(b"0123456789") });
        }
        window
    }

    #[test]
    fn floor_finds_the_greatest_common_entry() {
        let window = window(&[(1, 1), (1, 2), (3, 1)]);
        assert_eq!(window.floor(zxid(1, 2)), zxid(1, 2));
        assert_eq!(window.floor(zxid(2, 7)), zxid(1, 2));
        assert_eq!(window.floor(zxid(9, 9)), zxid(3, 1));
        assert_eq!(window.floor(Zxid::ZERO), Zxid::ZERO);
    }

    #[test]
    fn history_has_no_gap_within_an_epoch() {
        let window = window(&[(1, 1), (1, 2)]);
        assert!(window.continues_with(zxid(1, 3)));
        assert!(window.continues_with(zxid(4, 1)));
        for wrong in [zxid(1, 4), zxid(1, 2), zxid(2, 2), zxid(2, 0)] {
            assert!(!window.continues_with(wrong), "{wrong}");
        }
    }

    #[test]
    fn trim_keeps_what_waits_for_its_commit() {
        let mut window = window(&[(1, 1), (1, 2), (1, 3), (1, 4)]);
        window.trim(zxid(1, 2), 1, usize::MAX);
        assert_eq!((window.base(), window.last()), (zxid(1, 2), zxid(1, 4)));
        window.trim(zxid(1, 4), 10, 15);
        assert_eq!(window.base(), zxid(1, 3), "one entry of ten bytes fits");
    }

    #[test]
    fn truncate_below_the_window_leaves_it_empty_there() {
        let mut window = window(&[(1, 1), (1, 2), (1, 3)]);
        window.trim(zxid(1, 2), 1, usize::MAX);
        window.truncate(zxid(1, 1));
        assert_eq!((window.base(), window.last()), (zxid(1, 1), zxid(1, 1)));
    }
}
