//! A member whose disk is full. It stops acknowledging, leaves the ensemble (a leader hands over) and
//! stays alive; where that is configured it serves reads. As soon as there is room it comes back by
//! itself, with what its disk really holds.
//!
//! A failed `fdatasync` is another matter: what it covered is unknown, and the member ends.

use tracing::{info, warn};
use znodefs::Zxid;

use super::driver::Driver;
use crate::replica::core_thread::CoreResult;
use crate::zab;

/// The room without which a member does not come back, bytes: with less it would soon leave again.
const ROOM_NEEDED: u64 = 4 << 20;

/// How often it is looked whether there is room. The pause doubles, up to the second, each time that
/// the disk is full again within [`RELAPSE_MS`].
const PAUSE_MS_MIN: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 30_000;
const RELAPSE_MS: u64 = 60_000;

/// What a member knows of its full disk. Pure.
#[derive(Debug)]
pub(super) struct FullDisk {
    /// When it is looked next; `None` while there is room, or the log is asked to go on.
    look_at_ms: Option<u64>,
    is_full: bool,
    pause_ms: u64,
    over_at_ms: Option<u64>,
}

impl FullDisk {
    pub fn new() -> FullDisk {
        FullDisk { look_at_ms: None, is_full: false, pause_ms: PAUSE_MS_MIN, over_at_ms: None }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// When [`look_is_due`](Self::look_is_due), milliseconds of the monotonic clock.
    pub fn next_due_ms(&self) -> u64 {
        self.look_at_ms.unwrap_or(u64::MAX)
    }

    fn begins(&mut self, now_ms: u64) {
        let relapse = self.over_at_ms.is_some_and(|at| now_ms < at + RELAPSE_MS);
        self.pause_ms = match relapse {
            true => (self.pause_ms * 2).min(PAUSE_MS_MAX),
            false => PAUSE_MS_MIN,
        };
        self.is_full = true;
        self.look_at_ms = Some(now_ms + self.pause_ms);
    }

    fn look_is_due(&mut self, now_ms: u64) -> bool {
        let due = self.next_due_ms() <= now_ms;
        if due {
            self.look_at_ms = Some(now_ms + self.pause_ms);
        }
        due
    }

    fn room_was_found(&mut self) {
        self.look_at_ms = None;
    }

    fn ends(&mut self, now_ms: u64) {
        self.is_full = false;
        self.look_at_ms = None;
        self.over_at_ms = Some(now_ms);
    }
}

impl Driver {
    /// Leaves the ensemble if the disk has just become full.
    pub(super) fn leave_if_disk_is_full(&mut self) -> CoreResult {
        let Some(reason) = self.disk.take_newly_full() else { return Ok(()) };
        warn!(
            "{reason}; until {} MiB are free this replica takes no part in the ensemble, and the \
             others go on without it",
            ROOM_NEEDED >> 20
        );
        self.full_disk.begins(self.now.monotonic_ms);
        self.step(zab::Event::DiskFull)
    }

    /// Comes back if there is room.
    pub(super) fn look_at_full_disk(&mut self) -> CoreResult {
        if !self.full_disk.look_is_due(self.now.monotonic_ms) || !self.disk.has_room(ROOM_NEEDED) {
            return Ok(());
        }
        let kept = self.disk.keep_what_is_left().map_err(|error| error.to_string())?;
        if !kept {
            return Ok(());
        }
        self.full_disk.room_was_found();
        match self.disk.resume() {
            true => self.come_back(Zxid::ZERO),
            false => Ok(()),
        }
    }

    /// The log goes on behind `last`.
    pub(super) fn come_back(&mut self, last: Zxid) -> CoreResult {
        info!("there is room on the disk: this replica takes part again, its log ends at {last}");
        self.full_disk.ends(self.now.monotonic_ms);
        let found = self.disk.unblock(last);
        self.step(zab::Event::DiskHasRoom(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_again_and_again_is_looked_at_less_often() {
        let mut disk = FullDisk::new();
        assert_eq!(disk.next_due_ms(), u64::MAX);
        disk.begins(1_000);
        assert!(disk.is_full() && !disk.look_is_due(1_999) && disk.look_is_due(2_000));
        assert_eq!(disk.next_due_ms(), 3_000, "there was no room");
        disk.room_was_found();
        assert_eq!(disk.next_due_ms(), u64::MAX, "the log is asked");
        for (began, pause) in [(10_000, 2_000), (20_000, 4_000), (30_000, 8_000), (40_000, 16_000)]
        {
            disk.ends(began - 1_000);
            assert!(!disk.is_full());
            disk.begins(began);
            assert_eq!(disk.next_due_ms(), began + pause);
        }
        disk.ends(50_000);
        disk.begins(50_000 + RELAPSE_MS);
        assert_eq!(disk.next_due_ms(), 50_000 + RELAPSE_MS + 1_000, "it was well for long");
    }
}
