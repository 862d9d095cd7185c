//! How session ids and passwords are made. Pure: time and key come in.

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use znodefs::SessionId;
use znodefs::wire::connect::PASSWORD_LENGTH;

use crate::config::ensemble::ServerId;

/// Makes the ids of new sessions: the replica's number in the high byte, so that two replicas never
/// make the same; then 40 bits of the time of the start, so that two starts do not either; then a
/// counter.
#[derive(Debug)]
pub struct SessionIdAllocator {
    next: i64,
}

impl SessionIdAllocator {
    /// Starts to count at a wall-clock time in milliseconds since 1970.
    pub fn new(server_id: ServerId, start_ms: i64) -> SessionIdAllocator {
        let time_bits = ((start_ms as u64) << 24) >> 8;
        SessionIdAllocator { next: (((server_id.0 as u64) << 56) | time_bits) as i64 }
    }

    /// The next id; never 0.
    pub fn allocate(&mut self) -> SessionId {
        loop {
            let session_id = self.next;
            self.next = self.next.wrapping_add(1);
            if session_id != 0 {
                return SessionId(session_id);
            }
        }
    }
}

/// What session passwords are made with. Every replica of an ensemble has the same, so that a client
/// can prove its session to any of them.
#[derive(Clone)]
pub struct PasswordKey(pub [u8; 32]);

impl PasswordKey {
    /// A session's password: the first 16 bytes of HMAC-SHA256 over its id.
    pub fn password(&self, session_id: SessionId) -> Bytes {
        Bytes::copy_from_slice(&self.mac(session_id).finalize().into_bytes()[..PASSWORD_LENGTH])
    }

    /// Whether a client knows its session's password; takes the same time for every wrong one.
    pub fn verify(&self, session_id: SessionId, password: Option<&[u8]>) -> bool {
        let Some(password) = password.filter(|password| password.len() == PASSWORD_LENGTH) else {
            return false;
        };
        self.mac(session_id).verify_truncated_left(password).is_ok()
    }

    /// The password of a session that only the replica that made it knows, while there is no quorum.
    /// It is no session's of the ensemble, so that nobody can take one for the other.
    pub fn local_password(&self, session_id: SessionId) -> Bytes {
        let mac = self.local_mac(session_id);
        Bytes::copy_from_slice(&mac.finalize().into_bytes()[..PASSWORD_LENGTH])
    }

    /// Whether a password is that of a session that one replica made alone.
    pub fn verify_local(&self, session_id: SessionId, password: Option<&[u8]>) -> bool {
        let Some(password) = password.filter(|password| password.len() == PASSWORD_LENGTH) else {
            return false;
        };
        self.local_mac(session_id).verify_truncated_left(password).is_ok()
    }

    fn local_mac(&self, session_id: SessionId) -> Hmac<Sha256> {
        let mut mac = self.mac(session_id);
        mac.update(b"read-only");
        mac
    }

    fn mac(&self, session_id: SessionId) -> Hmac<Sha256> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap();
        mac.update(&session_id.0.to_be_bytes());
        mac
    }
}

impl std::fmt::Debug for PasswordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_replica_and_never_repeat_across_starts() {
        let mut first = SessionIdAllocator::new(ServerId(3), 1_700_000_000_000);
        let mut later = SessionIdAllocator::new(ServerId(3), 1_700_000_000_001);
        let (a, b) = (first.allocate(), first.allocate());
        assert_eq!((a.0 as u64) >> 56, 3);
        assert_eq!(b.0, a.0 + 1);
        assert!(later.allocate().0 - a.0 >= 1 << 16);
        assert_ne!(SessionIdAllocator::new(ServerId(0), 0).allocate(), SessionId(0));
    }

    #[test]
    fn only_the_sessions_own_password_is_accepted() {
        let key = PasswordKey([9; 32]);
        let password = key.password(SessionId(5));
        assert_eq!(password.len(), PASSWORD_LENGTH);
        assert!(key.verify(SessionId(5), Some(&password)));
        assert!(!key.verify(SessionId(6), Some(&password)));
        assert!(!key.verify(SessionId(5), Some(&password[..8])));
        assert!(!key.verify(SessionId(5), None));
        assert!(!PasswordKey([8; 32]).verify(SessionId(5), Some(&password)));
    }
}
