//! When a member without a quorum serves reads alone (`readonlymode.enabled`), and how far its disk is
//! told that the log is committed: a restart shows that much again, and misses it if it is gone. Pure:
//! time is passed in.

use znodefs::Zxid;

use crate::zab::RoleKind;

/// How long a member looks for a leader at least before it serves reads without one.
const WAIT_MS_MIN: u64 = 2_000;

/// How often it is written down how far the log is committed.
const NOTE_INTERVAL_MS: u64 = 1_000;

/// Read-only service of a member.
#[derive(Debug)]
pub(super) struct ReadOnlyMode {
    enabled: bool,
    wait_ms: u64,
    looking_since: Option<u64>,
    /// Whether the tree is as of one transaction, and not of several while it is brought up to date.
    tree_is_whole: bool,
    serves: bool,
    noted: Zxid,
    note_at_ms: u64,
}

impl ReadOnlyMode {
    /// A member that has just started; `tree_is_whole` says whether what it recovered can be shown.
    pub fn new(enabled: bool, tick_ms: u64, tree_is_whole: bool) -> ReadOnlyMode {
        ReadOnlyMode {
            enabled,
            wait_ms: tick_ms.max(WAIT_MS_MIN),
            looking_since: None,
            tree_is_whole,
            serves: false,
            noted: Zxid::ZERO,
            note_at_ms: 0,
        }
    }

    /// Whether reads are served.
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// What the member does has changed. To lead may come to nothing, so that it still looks.
    pub fn role_changed(&mut self, role: RoleKind, now_ms: u64) {
        match role {
            RoleKind::Looking => {
                self.looking_since.get_or_insert(now_ms);
            }
            RoleKind::Leading => {}
            RoleKind::Following(_) | RoleKind::Observing(_) | RoleKind::Retired => {
                self.looking_since = None;
            }
        }
    }

    /// Everybody is served now: the tree is whole, and more is known to be committed.
    pub fn service_begins(&mut self) {
        self.looking_since = None;
        self.tree_is_whole = true;
        self.note_now();
    }

    /// Another tree has come, which becomes whole only when the transactions behind it are applied.
    pub fn tree_replaced(&mut self) {
        self.tree_is_whole = false;
    }

    /// Whether read-only service begins now.
    pub fn begins(&mut self, role: RoleKind, now_ms: u64) -> bool {
        let due = role == RoleKind::Looking && self.begins_at_ms() <= now_ms;
        self.serves |= due;
        due
    }

    /// Whether read-only service, which must not go on, was going on.
    pub fn ends(&mut self) -> bool {
        std::mem::take(&mut self.serves)
    }

    /// The next note is due at once.
    pub fn note_now(&mut self) {
        self.note_at_ms = 0;
    }

    /// What to write down now: that everything up to here is committed.
    pub fn note(&mut self, delivered: Zxid, now_ms: u64) -> Option<Zxid> {
        let due = delivered > self.noted && self.note_at_ms <= now_ms;
        if !due || !self.tree_is_whole {
            return None;
        }
        self.noted = delivered;
        self.note_at_ms = now_ms + NOTE_INTERVAL_MS;
        Some(delivered)
    }

    /// When there is something to do, milliseconds of the monotonic clock.
    pub fn next_due_ms(&self, delivered: Zxid) -> u64 {
        let notes = self.tree_is_whole && delivered > self.noted;
        let note = if notes { self.note_at_ms } else { u64::MAX };
        self.begins_at_ms().min(note)
    }

    fn begins_at_ms(&self) -> u64 {
        match self.looking_since {
            Some(since) if self.enabled && self.tree_is_whole && !self.serves => {
                since + self.wait_ms
            }
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use znodefs::Epoch;

    use super::*;
    use crate::zab::ServerId;

    fn looking(enabled: bool, whole: bool) -> ReadOnlyMode {
        let mut mode = ReadOnlyMode::new(enabled, 500, whole);
        mode.role_changed(RoleKind::Looking, 1_000);
        mode
    }

    #[test]
    fn reads_are_served_after_two_seconds_without_a_leader() {
        let mut mode = looking(true, true);
        assert_eq!(mode.next_due_ms(Zxid::ZERO), 3_000);
        assert!(!mode.begins(RoleKind::Looking, 2_999));
        assert!(mode.begins(RoleKind::Looking, 3_000) && mode.serves());
        assert_eq!(mode.next_due_ms(Zxid::ZERO), u64::MAX, "it has begun");
        assert!(mode.ends() && !mode.serves() && !mode.ends());
    }

    #[test]
    fn a_candidate_that_nobody_follows_still_looks_but_a_follower_does_not() {
        let mut mode = looking(true, true);
        mode.role_changed(RoleKind::Leading, 2_000);
        assert!(!mode.begins(RoleKind::Leading, 9_000));
        mode.role_changed(RoleKind::Looking, 9_000);
        assert!(mode.begins(RoleKind::Looking, 9_000));
        let mut mode = looking(true, true);
        mode.role_changed(RoleKind::Following(ServerId(2)), 2_000);
        mode.role_changed(RoleKind::Looking, 9_000);
        assert!(!mode.begins(RoleKind::Looking, 10_999));
        assert!(mode.begins(RoleKind::Looking, 11_000));
    }

    #[test]
    fn nothing_is_shown_that_is_not_of_one_moment_or_where_it_is_not_wanted() {
        assert!(!looking(false, true).begins(RoleKind::Looking, u64::MAX - 1));
        let mut mode = looking(true, false);
        assert!(!mode.begins(RoleKind::Looking, u64::MAX - 1));
        mode.service_begins();
        mode.role_changed(RoleKind::Looking, 5_000);
        assert!(mode.begins(RoleKind::Looking, 7_000));
        mode.ends();
        mode.tree_replaced();
        assert!(!mode.begins(RoleKind::Looking, u64::MAX - 1));
    }

    #[test]
    fn what_is_committed_is_noted_once_a_second_and_where_service_changes() {
        let zxid = |counter| Zxid::new(Epoch(1), counter);
        let mut mode = ReadOnlyMode::new(true, 2_000, true);
        assert_eq!(mode.note(zxid(1), 10), Some(zxid(1)));
        assert_eq!((mode.note(zxid(1), 5_000), mode.note(zxid(2), 1_009)), (None, None));
        assert_eq!(mode.next_due_ms(zxid(2)), 1_010);
        mode.note_now();
        assert_eq!(mode.note(zxid(2), 1_009), Some(zxid(2)));
        mode.tree_replaced();
        assert_eq!(mode.note(zxid(9), 9_999), None);
    }
}
