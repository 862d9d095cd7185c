//! What the stored owner of a znode says about its kind (`EphemeralType`). No I/O.

use znodefs::SessionId;

/// The stored owner of a container.
const CONTAINER: i64 = i64::MIN;
/// The stored owner of a znode with a time to live has these bits, and the time below them.
const TTL_MARK: u64 = 0xff00_0000_0000_0000;
/// Bits between mark and time that later kinds would use.
const RESERVED: u64 = 0x00ff_ff00_0000_0000;

/// The longest time to live, milliseconds.
pub const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// A znode's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    /// Stays until it is deleted.
    Persistent,
    /// Goes with its session.
    Ephemeral(SessionId),
    /// Deleted by the service once its last child is gone.
    Container,
    /// Deleted by the service when childless and unmodified for this long.
    Ttl {
        /// Milliseconds, 1 to [`TTL_MS_MAX`].
        ttl_ms: i64,
    },
}

impl OwnerKind {
    /// Reads a stored owner. Session ids never start with the byte 0xff: a replica's id, which they
    /// start with, is 254 at most.
    pub fn from_stored(owner: i64) -> OwnerKind {
        match owner {
            0 => OwnerKind::Persistent,
            CONTAINER => OwnerKind::Container,
            other if other as u64 & (TTL_MARK | RESERVED) == TTL_MARK => {
                OwnerKind::Ttl { ttl_ms: (other as u64 & !TTL_MARK) as i64 }
            }
            session => OwnerKind::Ephemeral(SessionId(session)),
        }
    }

    /// The stored owner.
    pub fn to_stored(self) -> i64 {
        match self {
            OwnerKind::Persistent => 0,
            OwnerKind::Ephemeral(session) => session.0,
            OwnerKind::Container => CONTAINER,
            OwnerKind::Ttl { ttl_ms } => (TTL_MARK | ttl_ms as u64) as i64,
        }
    }

    /// The owner that a stat shows: 0 for all but ephemeral znodes.
    pub fn shown(self) -> SessionId {
        match self {
            OwnerKind::Ephemeral(session) => session,
            _ => SessionId(0),
        }
    }

    /// Whether the znode goes with a session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, OwnerKind::Ephemeral(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_owners_are_zookeepers_own() {
        assert_eq!(OwnerKind::Container.to_stored() as u64, 0x8000_0000_0000_0000);
        let ttl = OwnerKind::Ttl { ttl_ms: 0x1234 };
        assert_eq!(ttl.to_stored() as u64, 0xff00_0000_0000_1234);
        let longest = OwnerKind::Ttl { ttl_ms: TTL_MS_MAX };
        let session = OwnerKind::Ephemeral(SessionId(0x0100_0000_0000_0001));
        for kind in [OwnerKind::Persistent, OwnerKind::Container, ttl, longest, session] {
            assert_eq!(OwnerKind::from_stored(kind.to_stored()), kind);
        }
        assert_eq!(ttl.shown(), SessionId(0));
        assert_eq!(session.shown(), SessionId(0x0100_0000_0000_0001));
    }
}
