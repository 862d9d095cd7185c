//! What reaches the file system from elsewhere: changes of znodes and of the session's state. What
//! has to be replayed is queued here; nothing here waits.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use znodefs::client::SessionState;
use znodefs::path;

use super::Filesystem;
use super::replay::Intents;
use crate::echo::{Change, Decided, Happening};
use crate::kernel_notify::KernelNotifier;
use crate::remote_changes::{Batch, Remote, RemoteChanges};
use crate::replay::ReplayHelper;

/// What the file system keeps about changes made elsewhere.
#[derive(Default)]
pub struct RemoteState {
    pub(super) intents: Intents,
    changes: Mutex<RemoteChanges>,
    /// Something has to be done.
    noted: Notify,
    /// Whether the session's state has changed since a status file last said so.
    state_changed: AtomicBool,
    /// Whether everything that the kernel knows has to be compared with the service.
    must_compare: AtomicBool,
    helper: OnceLock<ReplayHelper>,
    kernel: OnceLock<KernelNotifier>,
}

/// Something to be done about changes made elsewhere.
#[derive(Debug)]
pub enum Task {
    /// Replay these.
    Replay(Batch),
    /// Say in `@status/state` that the session's state has changed.
    Status,
    /// Compare everything that the kernel knows with the service.
    Compare,
}

impl Filesystem {
    /// From now on changes are replayed and the kernel is notified.
    pub(crate) fn start_replay(&self, helper: ReplayHelper, kernel: KernelNotifier) {
        // A file system is started once.
        let _ = self.remote.helper.set(helper);
        let _ = self.remote.kernel.set(kernel);
    }

    /// The helper process, once there is one.
    pub fn replay_helper(&self) -> Option<&ReplayHelper> {
        self.remote.helper.get()
    }

    pub(crate) fn kernel(&self) -> Option<&KernelNotifier> {
        self.remote.kernel.get()
    }

    /// Whether a request comes from the replay helper.
    pub fn is_replay(&self, thread: u32) -> bool {
        self.replay_helper().is_some_and(|helper| helper.has_thread(thread))
    }

    /// An event arrived: whatever is answered from now on may know of it.
    pub(crate) fn change_arrived(&self, change: &Change) {
        let Some(kernel) = self.kernel() else { return };
        let mut touched = Vec::new();
        self.touched(&change.path, &mut touched);
        for inode in touched {
            // The kernel may have forgotten it meanwhile.
            let _ = kernel.invalidate_attributes(inode);
        }
    }

    /// It was decided whose change it is.
    pub(crate) fn change_decided(&self, decided: &Decided) {
        if self.replay_helper().is_none() {
            return;
        }
        let Change { path: znode, happening, zxid } = &decided.change;
        let mut changes = self.remote.changes.lock();
        let mut has_room = true;
        if !decided.is_own && self.concerns(znode) {
            has_room = changes.note(znode, *happening, *zxid);
        }
        if *happening == Happening::Created
            && let Some(parent) = path::parent(znode)
            && self.is_shown_as_file(parent)
        {
            // With a child it is a directory.
            has_room &= changes.note_shape(parent);
        }
        drop(changes);
        if !has_room {
            self.remote.must_compare.store(true, Ordering::Release);
        }
        self.remote.noted.notify_one();
    }

    /// A znode was made here, but under another name than the program asked for: the kernel is told
    /// of the real one.
    pub(super) fn announce(&self, znode: &str) {
        if self.replay_helper().is_some() && self.remote.changes.lock().note_announcement(znode) {
            self.remote.noted.notify_one();
        }
    }

    /// The session's state changed.
    pub(crate) fn session_changed(&self, _: SessionState) {
        self.remote.state_changed.store(true, Ordering::Release);
        self.remote.noted.notify_one();
    }

    /// Waits for the next thing to be done; `batch_max` bounds how many changes are replayed as one
    /// batch.
    pub(crate) async fn next_task(&self, batch_max: usize) -> Task {
        loop {
            if self.remote.state_changed.swap(false, Ordering::AcqRel) {
                return Task::Status;
            }
            if self.remote.must_compare.swap(false, Ordering::AcqRel) {
                return Task::Compare;
            }
            let batch = self.remote.changes.lock().take(batch_max);
            if let Some(batch) = batch {
                return Task::Replay(batch);
            }
            self.remote.noted.notified().await;
        }
    }

    /// What could not be replayed is tried again.
    pub(crate) fn replay_again(&self, znode: &str, remote: Remote) {
        if !self.remote.changes.lock().put_back(znode, remote) {
            self.remote.must_compare.store(true, Ordering::Release);
        }
    }

    /// A batch has been replayed.
    pub(crate) fn batch_done(&self, directory: &str) {
        self.remote.changes.lock().done(directory);
        self.remote.noted.notify_one();
    }
}
