//! The znodes that end before their session does: with the open file that made them (`@fd`) or with a
//! process (`@pid=N`). A plain table without I/O: it is told what ended and says which znode has to
//! be deleted; whoever asks does that.
//!
//! All of them are ephemeral, so a mount that dies needs no table: the service deletes them with the
//! session, and nothing ever creates them anew.

use std::collections::HashMap;

use znodefs::path::is_within;
use znodefs::{SessionId, Stat, Zxid};

/// A znode in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LifetimeId(u64);

/// A znode that has to be deleted, unless it is another's by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// Its path.
    pub path: String,
    /// The session that owns it.
    pub session: SessionId,
    /// Its creation, which tells it from a later znode of the same path; `None` where the answer that
    /// would have told it was lost.
    pub czxid: Option<Zxid>,
}

impl Doomed {
    /// Whether the znode with this stat, found at the path, is the one that was meant.
    pub fn is(&self, found: &Stat) -> bool {
        found.ephemeral_owner == self.session && self.czxid.is_none_or(|own| own == found.czxid)
    }
}

/// Every znode whose end is ours to bring about.
#[derive(Debug, Default)]
pub struct LifetimeTable {
    last: u64,
    znodes: HashMap<LifetimeId, Doomed>,
    /// The open file that a znode lives as long as.
    of_handles: HashMap<u64, LifetimeId>,
}

impl LifetimeTable {
    /// An ephemeral znode was made, whose stat names its session. Those of earlier sessions are gone
    /// by now, and are forgotten.
    pub fn begin(&mut self, path: &str, stat: &Stat) -> LifetimeId {
        let session = stat.ephemeral_owner;
        self.znodes.retain(|_, znode| znode.session == session);
        self.of_handles.retain(|_, id| self.znodes.contains_key(id));
        self.last += 1;
        let id = LifetimeId(self.last);
        let czxid = Some(stat.czxid);
        self.znodes.insert(id, Doomed { path: path.to_string(), session, czxid });
        id
    }

    /// The znode ends when this open file does, at the latest.
    pub fn bind(&mut self, id: LifetimeId, handle: u64) {
        if self.znodes.contains_key(&id) {
            self.of_handles.insert(handle, id);
        }
    }

    /// A znode's time is over; `None` when that was so already.
    pub fn end(&mut self, id: LifetimeId) -> Option<Doomed> {
        self.znodes.remove(&id)
    }

    /// An open file was closed everywhere: the znode that lived as long, if there is one still.
    pub fn closed(&mut self, handle: u64) -> Option<Doomed> {
        let id = self.of_handles.remove(&handle)?;
        self.end(id)
    }

    /// Everything at and below `from` was moved to `to` by creating it anew: `created` has the new
    /// stats by path, or nothing where the answer was lost. Lifetimes go along.
    pub fn moved(&mut self, from: &str, to: &str, created: &HashMap<String, Stat>) {
        for znode in self.znodes.values_mut().filter(|znode| is_within(&znode.path, from)) {
            let path = format!("{to}{}", &znode.path[from.len()..]);
            znode.czxid = created.get(&path).map(|stat| stat.czxid);
            znode.path = path;
        }
    }

    /// The znode at a path was deleted by us: it needs no end any more.
    pub fn deleted(&mut self, path: &str) {
        self.znodes.retain(|_, znode| znode.path != path);
        self.of_handles.retain(|_, id| self.znodes.contains_key(id));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.znodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.znodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: SessionId = SessionId(1);

    fn stat(czxid: i64, session: SessionId) -> Stat {
        Stat { czxid: Zxid(czxid), ephemeral_owner: session, ..Stat::default() }
    }

    fn doomed(path: &str, czxid: i64) -> Option<Doomed> {
        Some(Doomed { path: path.into(), session: OURS, czxid: Some(Zxid(czxid)) })
    }

    #[test]
    fn a_znode_ends_once_with_whatever_ends_first() {
        let mut table = LifetimeTable::default();
        let both = table.begin("/a", &stat(5, OURS));
        table.bind(both, 7);
        assert_eq!(table.closed(8), None);
        assert_eq!(table.closed(7), doomed("/a", 5));
        assert_eq!(table.end(both), None);
        let other = table.begin("/b", &stat(6, OURS));
        table.bind(other, 9);
        assert_eq!(table.end(other), doomed("/b", 6));
        assert_eq!(table.closed(9), None);
        assert!(table.is_empty());
    }

    #[test]
    fn only_the_very_znode_that_was_made_is_meant() {
        let own = doomed("/a", 5).unwrap();
        assert!(own.is(&stat(5, OURS)));
        assert!(!own.is(&stat(6, OURS)), "made anew by us");
        assert!(!own.is(&stat(6, SessionId(2))), "made anew by another");
        assert!(!own.is(&stat(6, SessionId(0))), "made anew to stay");
        let unknown = Doomed { czxid: None, ..own };
        assert!(unknown.is(&stat(6, OURS)) && !unknown.is(&stat(6, SessionId(2))));
    }

    #[test]
    fn lifetimes_go_along_with_a_rename() {
        let mut table = LifetimeTable::default();
        let one = table.begin("/d/one", &stat(5, OURS));
        let two = table.begin("/dd/two", &stat(6, OURS));
        let created = HashMap::from([("/e/one".to_string(), stat(9, OURS))]);
        table.moved("/d", "/e", &created);
        assert_eq!(table.end(one), doomed("/e/one", 9));
        assert_eq!(table.end(two), doomed("/dd/two", 6));
    }

    #[test]
    fn those_of_earlier_sessions_are_forgotten() {
        let mut table = LifetimeTable::default();
        let old = table.begin("/a", &stat(5, OURS));
        table.bind(old, 7);
        table.begin("/a", &stat(8, SessionId(2)));
        assert_eq!((table.end(old), table.closed(7), table.len()), (None, None, 1));
    }

    #[test]
    fn what_was_removed_by_hand_needs_no_end() {
        let mut table = LifetimeTable::default();
        let id = table.begin("/a", &stat(5, OURS));
        table.deleted("/a");
        assert_eq!(table.end(id), None);
    }
}
