//! The queue in front of a thread: many senders, one receiver that takes everything there is at once,
//! so that the work behind it (one lock, one write, one sync) is shared by all of it.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A queue of events for one thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    events: Vec<T>,
    waiting: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        let state = State { events: Vec::new(), waiting: false };
        Mailbox { state: Mutex::new(state), filled: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Puts an event at the end; wakes the receiver only if it sleeps.
    pub fn push(&self, event: T) {
        let mut state = self.state.lock();
        state.events.push(event);
        if std::mem::take(&mut state.waiting) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.state.lock().events.is_empty()
    }

    /// Moves everything there is to `events`, which must be empty; waits for something, at most for
    /// `timeout`.
    pub fn take(&self, events: &mut Vec<T>, timeout: Duration) {
        let mut state = self.state.lock();
        if state.events.is_empty() && !timeout.is_zero() {
            state.waiting = true;
            self.filled.wait_for(&mut state, timeout);
            state.waiting = false;
        }
        std::mem::swap(&mut state.events, events);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn everything_sent_arrives_once_and_in_each_senders_order() {
        let mailbox = Arc::new(Mailbox::default());
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let mailbox = Arc::clone(&mailbox);
                std::thread::spawn(move || (0..1000).for_each(|n| mailbox.push((sender, n))))
            })
            .collect();
        let mut next = [0; 4];
        let mut batch = Vec::new();
        while next != [1000; 4] {
            mailbox.take(&mut batch, Duration::from_secs(10));
            assert!(!batch.is_empty(), "the receiver was woken for nothing, or never");
            for (sender, n) in batch.drain(..) {
                assert_eq!(n, next[sender]);
                next[sender] += 1;
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        mailbox.take(&mut batch, Duration::ZERO);
        assert!(batch.is_empty());
    }
}
