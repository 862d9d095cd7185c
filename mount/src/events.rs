//! The session's stream of replies and events on its way to the file system: every write passes
//! here before it is sent, every reply and event as it arrives, so that echoes can be told from
//! what others changed. Nothing is decided here.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use znodefs::Zxid;
use znodefs::client::{Client, Delivery};
use znodefs::wire::{MultiResult, Request, Response, WatchedEvent};

use crate::echo::{Change, Decided, EchoFilter, Happening};
use crate::filesystem::Filesystem;
use crate::service::PendingReply;

/// What a session's sink and its service share. Make it before the session; it passes on to a file
/// system once there is one.
#[derive(Default)]
pub struct EventStream {
    filter: Mutex<EchoFilter>,
    filesystem: OnceLock<Weak<Filesystem>>,
}

impl EventStream {
    /// What the client's sink is to do with everything that servers send.
    pub fn deliver(&self, delivery: Delivery<'_>) {
        match delivery {
            Delivery::Event(event) => self.take_event(event),
            Delivery::Reply { request_id, zxid, result, .. } => {
                let mut decided = Vec::new();
                let succeeded = match result {
                    Ok(Response::Multi(results)) => {
                        results.iter().all(|result| matches!(result, MultiResult::Ok(..)))
                    }
                    result => result.is_ok(),
                };
                let success = succeeded.then_some(zxid);
                self.filter.lock().answered(request_id, success, &mut decided);
                self.pass_on(decided);
            }
            // What is outside of the mount's root is not shown.
            Delivery::OutsideEvent(_) => {}
            Delivery::State(state) => {
                if let Some(filesystem) = self.filesystem() {
                    filesystem.session_changed(state);
                }
            }
        }
    }

    fn take_event(&self, event: &WatchedEvent) {
        let Some(happening) = Happening::of(event.event_type) else { return };
        let filesystem = self.filesystem();
        // An event comes before any reply that shows its change, and so after all that came before.
        let answered = filesystem.as_ref().map_or(Zxid::ZERO, |filesystem| filesystem.last_zxid());
        let after = event.zxid.map_or(answered, |zxid| Zxid(zxid.0 - 1));
        let change = Change { path: event.path.clone(), happening, zxid: event.zxid, after };
        let mut decided = Vec::new();
        let mut filter = self.filter.lock();
        if let Some(filesystem) = filesystem {
            filesystem.change_arrived(&change, filter.may_be_own(&change));
        }
        filter.event(change, &mut decided);
        drop(filter);
        self.pass_on(decided);
    }

    fn pass_on(&self, decided: Vec<Decided>) {
        if decided.is_empty() {
            return;
        }
        let Some(filesystem) = self.filesystem() else { return };
        for decided in decided {
            filesystem.change_decided(&decided);
        }
    }

    fn filesystem(&self) -> Option<Arc<Filesystem>> {
        self.filesystem.get()?.upgrade()
    }

    /// Passes everything from now on to a file system.
    pub(crate) fn attach(&self, filesystem: &Arc<Filesystem>) {
        // There is one file system to a session.
        let _ = self.filesystem.set(Arc::downgrade(filesystem));
    }

    /// Sends a request whose echo is going to be known.
    pub fn submit(self: &Arc<Self>, client: &Client, request: &Request<'_>) -> PendingReply {
        if !EchoFilter::is_write(request) {
            let pending = client.submit(request);
            return Box::pin(async move { Ok(pending.await?) });
        }
        let pending = {
            // The reply may come before this has returned.
            let mut filter = self.filter.lock();
            let pending = client.submit(request);
            filter.submitted(pending.request_id(), request);
            pending
        };
        let unanswered = Unanswered { events: self.clone(), request_id: pending.request_id() };
        Box::pin(async move {
            let result = pending.await;
            drop(unanswered);
            Ok(result?)
        })
    }

    /// A request came to nothing without a reply, or its caller has gone.
    fn failed(&self, request_id: u64) {
        let mut decided = Vec::new();
        self.filter.lock().failed(request_id, &mut decided);
        self.pass_on(decided);
    }
}

/// Sees to it that no event waits for a write that nobody will hear of any more.
struct Unanswered {
    events: Arc<EventStream>,
    request_id: u64,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // After a reply it changes nothing.
        self.events.failed(self.request_id);
    }
}
