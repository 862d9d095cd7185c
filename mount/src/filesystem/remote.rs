//! What reaches the file system from elsewhere: changes of znodes and of the session's state. What
//! has to be replayed is queued here; nothing here waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;
use znodefs::client::SessionState;
use znodefs::{Zxid, path};

use super::Filesystem;
use super::replay::Intents;
use crate::announced::{Announced, Child, Kind};
use crate::echo::{Change, Decided, Happening};
use crate::inode_table::{Inode, InodeTable, View, Znode};
use crate::journal::Journal;
use crate::kernel_notify::KernelNotifier;
use crate::remote_changes::{Batch, Remote, RemoteChanges};
use crate::replay::ReplayHelper;

/// What the file system keeps about changes made elsewhere.
#[derive(Default)]
pub struct RemoteState {
    pub(super) intents: Intents,
    /// Never locked before the inodes, only while they are.
    pub(super) announced: Mutex<Announced>,
    pub(super) journal: Mutex<Journal>,
    changes: Mutex<RemoteChanges>,
    /// Something has to be done.
    noted: Notify,
    /// Whether the session's state has changed since a status file last said so.
    state_changed: AtomicBool,
    /// Whether an older kernel has to be told, name by name, to keep nothing.
    must_drop_caches: AtomicBool,
    /// Whether everything that the kernel knows has to be compared with the service.
    must_compare: AtomicBool,
    /// Whether changes are announced at all.
    is_announcing: AtomicBool,
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
    /// Compare everything that was announced with the service.
    Compare,
    /// Ask for the children of this directory.
    Survey(Arc<str>),
    /// Tell the kernel that names in this directory are to be looked up again.
    ExpireNames(u64),
    /// Tell an older kernel, name by name, to keep nothing.
    DropCaches,
}

/// What there is room to begin.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// One more batch to be replayed.
    pub replays: bool,
    /// One more directory to be surveyed.
    pub surveys: bool,
}

impl Filesystem {
    /// From now on changes are replayed and the kernel is notified.
    pub(crate) fn start_replay(&self, helper: ReplayHelper, kernel: KernelNotifier) {
        // A file system is started once.
        let _ = self.remote.helper.set(helper);
        let _ = self.remote.kernel.set(kernel);
        self.start_announcing();
    }

    /// From now on it is kept what programs were told of.
    pub(super) fn start_announcing(&self) {
        self.remote.announced.lock().hold(&"/".into());
        self.remote.is_announcing.store(true, Ordering::Release);
    }

    fn is_announcing(&self) -> bool {
        self.remote.is_announcing.load(Ordering::Acquire)
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

    /// An event arrived: whatever is answered from now on may know of it. When it may be the echo of
    /// what is done here, the kernel knows the rest already.
    pub(crate) fn change_arrived(&self, change: &Change, may_be_own: bool) {
        self.invalidate(change);
        if !may_be_own {
            self.invalidate_names(change);
        }
    }

    /// The newest transaction that any reply has shown.
    pub(crate) fn last_zxid(&self) -> Zxid {
        self.znodes.service().last_zxid()
    }

    /// It was decided whose change it is.
    pub(crate) fn change_decided(&self, decided: &Decided) {
        if !self.is_announcing() {
            return;
        }
        let Change { path: znode, happening, zxid, after } = &decided.change;
        if decided.is_own {
            // The kernel has announced it as part of what was done.
            self.note_own(znode, *happening, zxid.unwrap_or(Zxid::ZERO));
            self.invalidate_other_names(&decided.change);
        } else if decided.was_uncertain {
            self.invalidate_names(&decided.change);
        }
        let mut changes = self.remote.changes.lock();
        let mut has_room = true;
        if !decided.is_own && self.concerns(znode) {
            has_room = changes.note(znode, *happening, *zxid, *after);
        }
        if *happening == Happening::Created
            && let Some(parent) = path::parent(znode)
            && self.is_shown_as_file(parent)
        {
            // With a child it is a directory.
            has_room &= changes.note_shape(parent, *after);
        }
        drop(changes);
        if !has_room {
            self.missed_changes(*after);
        }
        self.remote.noted.notify_one();
    }

    /// Some changes after a transaction are not going to be announced one by one: what there is has
    /// to be compared with what was announced.
    fn missed_changes(&self, after: Zxid) {
        self.remote.announced.lock().miss(after);
        self.remote.must_compare.store(true, Ordering::Release);
    }

    /// A change made here was announced by the kernel itself.
    fn note_own(&self, znode: &str, happening: Happening, zxid: Zxid) {
        let kind = {
            let inodes = self.inodes.lock();
            let view = inodes.at_path(znode).map(|inode| inode.view).find(View::is_name);
            view.map_or(Kind::Unknown, |view| Kind::of(view.is_directory()))
        };
        let mut announced = self.remote.announced.lock();
        match happening {
            Happening::Created => {
                announced.told(znode, Child { czxid: zxid, mzxid: zxid, kind });
                if let Some(parent) = path::parent(znode) {
                    announced.is_parent(parent);
                }
            }
            Happening::Changed => announced.told_set(znode, zxid),
            Happening::Deleted => announced.told_gone(znode),
        }
    }

    /// What became of a znode has been announced.
    pub(crate) fn note_announced(&self, znode: &str, now: Option<&Znode>) {
        let kind = self.inodes.lock().at_path(znode).map(|inode| inode.view).find(View::is_name);
        let mut announced = self.remote.announced.lock();
        let Some(now) = now else { return announced.told_gone(znode) };
        let view = kind.unwrap_or_else(|| now.view(None));
        announced.told(znode, Child::new(&now.stat, Kind::of(view.is_directory())));
        if let Some(parent) = path::parent(znode) {
            announced.is_parent(parent);
        }
    }

    /// The kernel is told of an inode.
    pub(super) fn note_shown(&self, inode: &Inode) {
        if !self.is_announcing() || inode.view == View::Data {
            return;
        }
        let mut announced = self.remote.announced.lock();
        if inode.view.is_directory() && announced.hold(&inode.path) {
            self.remote.noted.notify_one();
        }
        if inode.view.is_name() {
            let kind = Kind::of(inode.view.is_directory());
            announced.observe(&inode.path, Child::new(&inode.znode.stat, kind));
        }
    }

    /// The kernel goes on with the inodes at and below a path, under which they are new.
    pub(super) fn note_moved(&self, inodes: &InodeTable, path: &str) {
        let moved = inodes.iter().filter(|inode| {
            inode.view.is_directory() && znodefs::path::is_within(&inode.path, path)
        });
        moved.for_each(|inode| self.note_shown(inode));
    }

    /// Notes that a comparison has found a znode other than it was announced; false when there is no
    /// room until something has been replayed.
    pub(super) fn note_compared(&self, znode: &str, told_up_to: Zxid) -> bool {
        self.remote.announced.lock().found(znode, told_up_to);
        let noted = self.remote.changes.lock().note_compared(znode, told_up_to);
        self.remote.noted.notify_one();
        noted
    }

    /// A znode was made here, but under another name than the program asked for: the kernel is told
    /// of the real one.
    pub(super) fn announce(&self, znode: &str) {
        if self.is_announcing()
            && self.remote.changes.lock().note_announcement(znode, self.last_zxid())
        {
            self.remote.noted.notify_one();
        }
    }

    /// The session's state changed.
    pub(crate) fn session_changed(&self, state: SessionState) {
        match state {
            SessionState::Suspended => {
                self.drop_caches();
                self.remote.must_drop_caches.store(true, Ordering::Release);
                // An event comes before any reply that shows its change.
                self.remote.announced.lock().miss(self.last_zxid());
            }
            SessionState::Connected if self.remote.announced.lock().missed().is_some() => {
                self.remote.must_compare.store(true, Ordering::Release);
            }
            _ => {}
        }
        self.remote.state_changed.store(true, Ordering::Release);
        self.remote.noted.notify_one();
    }

    /// The next thing to be done, if there is room for it; `batch_max` bounds how many changes are
    /// replayed as one batch.
    pub(crate) fn next_task(&self, batch_max: usize, room: Room) -> Option<Task> {
        if let Some(directory) = self.next_to_expire() {
            return Some(Task::ExpireNames(directory));
        }
        if self.remote.must_drop_caches.swap(false, Ordering::AcqRel) {
            return Some(Task::DropCaches);
        }
        if self.remote.state_changed.swap(false, Ordering::AcqRel) {
            return Some(Task::Status);
        }
        if self.remote.must_compare.swap(false, Ordering::AcqRel) {
            return Some(Task::Compare);
        }
        let batch = room.replays.then(|| self.remote.changes.lock().take(batch_max)).flatten();
        if let Some(batch) = batch {
            return Some(Task::Replay(batch));
        }
        room.surveys.then(|| self.next_to_survey()).flatten().map(Task::Survey)
    }

    /// Waits until there may be something to be done, or room for it.
    pub(crate) async fn task_noted(&self) {
        self.remote.noted.notified().await;
    }

    /// There is room for more.
    pub(crate) fn wake_replayer(&self) {
        self.remote.noted.notify_one();
    }

    fn next_to_survey(&self) -> Option<Arc<str>> {
        let mut announced = self.remote.announced.lock();
        // What was missed comes first.
        announced.missed().is_none().then(|| announced.next_unsurveyed())?
    }

    /// A comparison came to nothing, or has to be made once more.
    pub(crate) fn compare_again(&self) {
        self.remote.must_compare.store(true, Ordering::Release);
        self.remote.noted.notify_one();
    }

    /// Whether a znode's change is still to be replayed.
    pub(super) fn is_to_be_replayed(&self, znode: &str) -> bool {
        self.remote.changes.lock().is_pending(znode)
    }

    /// What could not be replayed is tried again.
    pub(crate) fn replay_again(&self, znode: &str, remote: Remote) {
        if !self.remote.changes.lock().put_back(znode, remote) {
            self.missed_changes(remote.after);
        }
    }

    /// A batch has been replayed.
    pub(crate) fn batch_done(&self, directory: &str) {
        self.remote.changes.lock().done(directory);
        self.remote.noted.notify_one();
    }
}
