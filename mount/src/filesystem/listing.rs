//! What an open directory lists: a snapshot of names, taken when a reader starts at the beginning,
//! so that it is stable while entries come and go. What kind each entry is, is found out in batches
//! as the reader gets there. No I/O.

use crate::inode_table::View;
use crate::journal::Moment;
use crate::naming;

/// How many entries' kinds are asked for at once.
pub const BATCH: usize = 512;

/// An entry of a directory, by its file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The file name.
    pub name: String,
    /// The znode's name; `None` for the directory's own data.
    pub znode_name: Option<String>,
    /// What is known of it.
    pub kind: Kind,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody has asked.
    Unknown,
    /// It has gone since the names were taken.
    Gone,
    /// What it is shown as, and the number of its inode.
    Known(View, u64),
}

/// The names in a directory.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The entries beside `.` and `..`.
    pub items: Vec<Item>,
    /// When they were asked for.
    pub taken: Option<Moment>,
}

impl Listing {
    /// The entries of a directory with these children; `has_data` when its own data are to be
    /// listed. Also returns the names that are too long to be shown.
    pub fn new(children: Vec<String>, has_data: bool, at_root: bool) -> (Listing, Vec<String>) {
        let mut items = Vec::with_capacity(children.len() + 1);
        let mut unshown = Vec::new();
        if has_data {
            let name = naming::DATA.to_string();
            items.push(Item { name, znode_name: None, kind: Kind::Unknown });
        }
        for child in children {
            match naming::file_name(&child, at_root) {
                Some(name) => {
                    items.push(Item { name, znode_name: Some(child), kind: Kind::Unknown });
                }
                None => unshown.push(child),
            }
        }
        (Listing { items, taken: None }, unshown)
    }

    /// The entries from `start` on whose kind has to be found out next: none when that of `start`
    /// is known.
    pub fn unknown_from(&self, start: usize) -> std::ops::Range<usize> {
        match self.items.get(start) {
            Some(Item { kind: Kind::Unknown, .. }) => {
                start..start.saturating_add(BATCH).min(self.items.len())
            }
            _ => start..start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_escaped_and_too_long_ones_left_out() {
        let children = vec!["a@eph".into(), "x".repeat(300), "b".into()];
        let (listing, unshown) = Listing::new(children, true, false);
        let names: Vec<_> = listing.items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["@data", "a@@eph", "b"]);
        assert_eq!(unshown.len(), 1);
    }

    #[test]
    fn kinds_are_found_out_in_batches() {
        let children = (0..BATCH + 10).map(|number| number.to_string()).collect();
        let (mut listing, _) = Listing::new(children, false, false);
        assert_eq!(listing.unknown_from(0), 0..BATCH);
        for item in &mut listing.items[..BATCH] {
            item.kind = Kind::Gone;
        }
        assert!(listing.unknown_from(5).is_empty());
        assert_eq!(listing.unknown_from(BATCH), BATCH..BATCH + 10);
        assert!(listing.unknown_from(BATCH + 10).is_empty());
    }
}
