//! Which process a peer's id stands for. A process that comes back after another one with its id was
//! seen proves that two replicas have the same id: a restarted one never comes back. Then the one that
//! was there first stays. No I/O.

use std::collections::HashMap;

use super::ServerId;

/// Processes remembered of one peer.
const REMEMBERED_MAX: usize = 16;

/// The processes that were seen of each peer, in the order of their first appearance.
#[derive(Debug, Default)]
pub(super) struct Instances {
    seen: HashMap<ServerId, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    in_order: Vec<u64>,
    current: u64,
}

impl Instances {
    /// Whether process `instance` may be the peer from now on; `is_linked` tells whether the one that
    /// is now has a link.
    pub(super) fn admit(&mut self, peer: ServerId, instance: u64, is_linked: bool) -> bool {
        let seen = self.seen.entry(peer).or_default();
        let position = |of: u64| seen.in_order.iter().position(|one| *one == of);
        match (position(instance), position(seen.current)) {
            // The newest process, mostly the old one's successor.
            (None, _) => {
                if seen.in_order.len() == REMEMBERED_MAX {
                    seen.in_order.remove(0);
                }
                seen.in_order.push(instance);
            }
            // It has been displaced by one that came before it.
            (Some(own), Some(current)) if own > current && is_linked => return false,
            (Some(_), _) => {}
        }
        seen.current = instance;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ServerId = ServerId(3);

    #[test]
    fn a_restarted_replica_takes_its_own_place_linked_or_not() {
        let mut instances = Instances::default();
        for instance in 1..100 {
            for is_linked in [false, true, false] {
                assert!(instances.admit(PEER, instance, is_linked));
            }
        }
        assert!(instances.seen[&PEER].in_order.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn of_two_with_one_id_the_first_stays_for_as_long_as_it_is_there() {
        let mut instances = Instances::default();
        assert!(instances.admit(PEER, 1, false));
        // It could be the first one's successor.
        assert!(instances.admit(PEER, 2, true));
        // It is not: the first one comes back.
        assert!(instances.admit(PEER, 1, true));
        for _ in 0..3 {
            assert!(!instances.admit(PEER, 2, true));
            assert!(instances.admit(PEER, 1, true));
        }
        assert!(instances.admit(PEER, 2, false), "the first one has gone");
        assert!(instances.admit(PEER, 1, true), "and is back");
        assert!(!instances.admit(PEER, 2, true));
        assert!(instances.admit(ServerId(4), 2, true), "another id");
    }
}
