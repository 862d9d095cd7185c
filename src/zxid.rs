//! Transaction and session numbers. No I/O.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A transaction id: the leader's epoch in the high 32 bits, a counter within that epoch in the
/// low 32 (Zab paper, section 3; `zxid` in ZooKeeper's records).
///
/// Ordering by the whole number is the order in which transactions take effect.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Zxid(pub i64);

/// The number of a leader's reign.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// The id of a client session; 0 is never a session.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SessionId(pub i64);

impl Zxid {
    /// Before the first transaction.
    pub const ZERO: Zxid = Zxid(0);

    /// The zxid with this counter in this epoch.
    pub fn new(epoch: Epoch, counter: u32) -> Zxid {
        Zxid(((epoch.0 as i64) << 32) | counter as i64)
    }

    /// The high half.
    pub fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }

    /// The low half.
    pub fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The zxid after this one in the same epoch; `None` when the epoch's counter is used up, on
    /// which a leader must step down (ZOOKEEPER-1277).
    pub fn next(self) -> Option<Zxid> {
        let counter = self.counter().checked_add(1)?;
        Some(Zxid::new(self.epoch(), counter))
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zxid_orders_by_epoch_before_counter() {
        let old = Zxid::new(Epoch(1), u32::MAX);
        let new = Zxid::new(Epoch(2), 0);
        assert!(old < new);
        assert_eq!(old.next(), None);
        assert_eq!(new.next(), Some(Zxid::new(Epoch(2), 1)));
        assert_eq!(new.to_string(), "0x200000000");
    }
}
