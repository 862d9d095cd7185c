//! Hands the events of a client to whoever waits for one on a path. What does not live here: setting
//! the watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::client::{Delivery, SessionState, Sink};
use crate::wire::WatchedEvent;

/// The waiters of one client. Clones share them; one clone is the client's [`Sink`].
#[derive(Clone, Default)]
pub struct EventHub {
    waiters: Arc<Mutex<HashMap<String, Vec<oneshot::Sender<()>>>>>,
}

impl EventHub {
    /// A hub without waiters.
    pub fn new() -> EventHub {
        EventHub::default()
    }

    /// Resolves at the next event on `path`, or with an error when the session ends. Call it
    /// before the request that sets the watch, or the event may come in between.
    pub fn next_event(&self, path: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.lock();
        let waiting = waiters.entry(path.to_string()).or_default();
        // Those who gave up waiting leave nothing behind for long.
        waiting.retain(|waiter| !waiter.is_closed());
        waiting.push(sender);
        receiver
    }

    /// Wakes those who wait for `event`'s path.
    pub fn event(&self, event: &WatchedEvent) {
        self.wake(&event.path);
    }

    /// Wakes those who wait for an event on `path`.
    pub fn wake(&self, path: &str) {
        for waiter in self.lock().remove(path).into_iter().flatten() {
            // A waiter that is gone needs no event.
            let _ = waiter.send(());
        }
    }

    /// Lets go of everybody: the watches are gone with the session.
    pub fn session_ended(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<oneshot::Sender<()>>>> {
        // The map is whole whenever the lock is free: no code that holds it can panic.
        self.waiters.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Sink for EventHub {
    fn deliver(&mut self, delivery: Delivery<'_>) {
        match delivery {
            Delivery::Event(event) => self.event(event),
            Delivery::State(
                SessionState::Expired | SessionState::AuthFailed | SessionState::Closed,
            ) => self.session_ended(),
            Delivery::State(_) | Delivery::Reply { .. } | Delivery::OutsideEvent(_) => {}
        }
    }
}
