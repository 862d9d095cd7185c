//! Which sessions have been silent for too long. Pure: the time comes in, expired sessions go out;
//! the replica turns them into transactions. Whose requests are taken is the request processor's.
//!
//! Sessions stand in buckets, one a tick. A request does not move its session: it only stores the
//! time in the session's [`LastHeard`], which is looked at when the session's bucket comes due. So
//! being heard costs one relaxed store, and a session lives between its timeout and one tick more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use znodefs::SessionId;

/// When a client was last heard, in milliseconds of the replica's monotonic clock. Shared between
/// the connection that hears it and the tracker.
#[derive(Clone, Debug, Default)]
pub struct LastHeard(Arc<AtomicU64>);

impl LastHeard {
    /// Heard at this time.
    pub fn at(now_ms: u64) -> LastHeard {
        LastHeard(Arc::new(AtomicU64::new(now_ms)))
    }

    /// Notes that the client was heard.
    pub fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }

    /// When the client was last heard.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Session {
    timeout_ms: u64,
    last_heard: LastHeard,
    closing: bool,
    /// The tick of its bucket; it may stand in others that no longer count.
    bucket: u64,
}

/// The sessions of the ensemble, as its leader sees them.
pub struct SessionTracker {
    tick_ms: u64,
    sessions: HashMap<SessionId, Session>,
    /// The tick in which a bucket comes due, and who stands in it.
    buckets: BTreeMap<u64, Vec<SessionId>>,
}

impl SessionTracker {
    /// No sessions; buckets of `tick_ms` milliseconds.
    pub fn new(tick_ms: u64) -> SessionTracker {
        SessionTracker {
            tick_ms: tick_ms.max(1),
            sessions: HashMap::new(),
            buckets: BTreeMap::new(),
        }
    }

    /// Begins to track a session, with its full timeout from `now_ms`. A session known already
    /// keeps its owner.
    pub fn add(&mut self, session_id: SessionId, timeout_ms: u64, now_ms: u64) {
        if self.sessions.contains_key(&session_id) {
            return;
        }
        let last_heard = LastHeard::at(now_ms);
        let session = Session { timeout_ms, last_heard, closing: false, bucket: 0 };
        self.sessions.insert(session_id, session);
        self.put_in_bucket(session_id, now_ms + timeout_ms);
    }

    /// Attaches a session to whoever serves its client now, with the timeout that was negotiated this
    /// time. `false` when it is not a live session.
    pub fn attach(
        &mut self,
        session_id: SessionId,
        last_heard: LastHeard,
        timeout_ms: u64,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return false };
        if session.closing {
            return false;
        }
        let due_ms = last_heard.get() + timeout_ms;
        session.last_heard = last_heard;
        session.timeout_ms = timeout_ms;
        if due_ms.div_ceil(self.tick_ms) < session.bucket {
            self.put_in_bucket(session_id, due_ms);
        }
        true
    }

    /// Notes that a session's client was heard by another replica.
    pub fn touch(&mut self, session_id: SessionId, now_ms: u64) {
        if let Some(session) = self.sessions.get(&session_id) {
            session.last_heard.set(now_ms.max(session.last_heard.get()));
        }
    }

    /// Whether a session is tracked, closing ones included.
    pub fn contains(&self, session_id: SessionId) -> bool {
        self.sessions.contains_key(&session_id)
    }

    /// The session's end is on its way: it is neither expired nor attached anymore.
    pub fn set_closing(&mut self, session_id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.closing = true;
        }
    }

    /// Takes every [`set_closing`](Self::set_closing) and expiry back that is not
    /// [`remove`](Self::remove)d yet, when the closing could not be made durable. The sessions get
    /// their full timeout again.
    pub fn reopen_all(&mut self, now_ms: u64) {
        let closing = self.sessions.iter().filter(|(_, session)| session.closing);
        let closing: Vec<SessionId> = closing.map(|(session_id, _)| *session_id).collect();
        for session_id in closing {
            let Some(session) = self.sessions.get_mut(&session_id) else { continue };
            session.closing = false;
            let due_ms = now_ms + session.timeout_ms;
            self.put_in_bucket(session_id, due_ms);
        }
    }

    /// Forgets a session.
    pub fn remove(&mut self, session_id: SessionId) {
        self.sessions.remove(&session_id);
    }

    /// Number of sessions tracked.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is tracked.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Looks into every bucket that is due: who was heard moves on to a later one, who was silent for
    /// its whole timeout is marked as closing and pushed to `expired`.
    pub fn expire(&mut self, now_ms: u64, expired: &mut Vec<SessionId>) {
        while let Some(entry) = self.buckets.first_entry() {
            let bucket = *entry.key();
            if bucket * self.tick_ms > now_ms {
                return;
            }
            for session_id in entry.remove() {
                let Some(session) = self.sessions.get_mut(&session_id) else { continue };
                if session.closing || session.bucket != bucket {
                    continue;
                }
                let due_ms = session.last_heard.get() + session.timeout_ms;
                if due_ms > now_ms {
                    self.put_in_bucket(session_id, due_ms);
                } else {
                    session.closing = true;
                    expired.push(session_id);
                }
            }
        }
    }

    /// Gives every session its full timeout from now on, as a new leader would: nobody was listening
    /// for a while, so that silence means nothing.
    pub fn restart_all(&mut self, now_ms: u64) {
        for session in self.sessions.values() {
            session.last_heard.set(now_ms.max(session.last_heard.get()));
        }
    }

    /// When [`expire`](Self::expire) next has something to look at, milliseconds.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.buckets.first_key_value().map(|(tick, _)| tick * self.tick_ms)
    }

    /// Buckets and the sessions in them, for the `dump` word: the bucket's time and its live sessions.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, Vec<SessionId>)> + '_ {
        self.buckets.iter().map(|(tick, session_ids)| {
            let stands_here = |id: &&SessionId| {
                self.sessions.get(*id).is_some_and(|session| session.bucket == *tick)
            };
            let live = session_ids.iter().filter(stands_here);
            (tick * self.tick_ms, live.copied().collect())
        })
    }

    fn put_in_bucket(&mut self, session_id: SessionId, due_ms: u64) {
        let bucket = due_ms.div_ceil(self.tick_ms);
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.bucket = bucket;
            self.buckets.entry(bucket).or_default().push(session_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn expired(tracker: &mut SessionTracker, now_ms: u64) -> Vec<SessionId> {
        let mut expired = Vec::new();
        tracker.expire(now_ms, &mut expired);
        expired
    }

    #[test]
    fn a_silent_session_expires_between_its_timeout_and_one_tick_more() {
        let mut tracker = SessionTracker::new(100);
        tracker.add(SESSION, 250, 0);
        assert_eq!(tracker.next_due_ms(), Some(300));
        assert_eq!(expired(&mut tracker, 299), []);
        assert_eq!(expired(&mut tracker, 300), [SESSION]);
        assert_eq!(expired(&mut tracker, 1000), [], "it expires once");
    }

    #[test]
    fn a_session_that_is_heard_lives_on_without_being_moved_by_the_request() {
        let mut tracker = SessionTracker::new(100);
        let last_heard = LastHeard::at(0);
        tracker.add(SESSION, 250, 0);
        assert!(tracker.attach(SESSION, last_heard.clone(), 250));
        last_heard.set(290);
        assert_eq!(expired(&mut tracker, 300), []);
        assert_eq!(expired(&mut tracker, 599), []);
        assert_eq!(expired(&mut tracker, 600), [SESSION]);
    }

    #[test]
    fn a_shorter_timeout_negotiated_anew_counts_at_once() {
        let mut tracker = SessionTracker::new(100);
        tracker.add(SESSION, 10_000, 0);
        assert!(tracker.attach(SESSION, LastHeard::at(0), 250));
        assert_eq!(expired(&mut tracker, 300), [SESSION]);
        assert_eq!(expired(&mut tracker, 20_000), []);
    }

    #[test]
    fn a_closing_session_can_neither_expire_nor_be_attached() {
        let mut tracker = SessionTracker::new(100);
        tracker.add(SESSION, 250, 0);
        tracker.attach(SESSION, LastHeard::at(0), 250);
        tracker.set_closing(SESSION);
        assert!(!tracker.attach(SESSION, LastHeard::at(0), 250));
        assert_eq!(expired(&mut tracker, 10_000), []);
        tracker.reopen_all(10_000);
        assert_eq!(expired(&mut tracker, 10_300), [SESSION]);
    }
}
