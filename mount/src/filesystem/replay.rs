//! Replay as the file system sees it: what has to be done on the mountpoint so that the kernel knows
//! what others changed, and how the requests are answered that this causes. The helper's requests
//! are answered from what is known; none of them asks a server.
//!
//! What the kernel was told last is in the inode table; a command compares with that when it
//! arrives, so one that comes too late hits nothing newer.

use std::collections::HashMap;
use std::ffi::OsStr;

use fuser::{Errno, FileAttr};
use parking_lot::Mutex;
use znodefs::{Zxid, path};

use super::{Entry, Filesystem, status};
use crate::announced::{Child, Kind};
use crate::echo::Happening;
use crate::inode_table::{Inode, Presence, ROOT, View, Znode};
use crate::naming;
use crate::remote_changes::Remote;
use crate::replay::{Action, Command};

/// What a command under way is meant to show the kernel.
#[derive(Clone, Debug)]
pub enum Intent {
    /// The znode appears under the name.
    Appear(View, Box<str>, Znode),
    /// Its data were set.
    Modify(View, Box<str>, Znode),
    /// What the kernel knows under the name goes; the inode's number once it is known. With
    /// `lives_on` the znode is only going to be shown as something else.
    #[allow(missing_docs)]
    Vanish { view: View, inode: Option<u64>, path: Box<str>, lives_on: bool },
}

/// The commands under way, by directory and name.
#[derive(Debug, Default)]
pub struct Intents(Mutex<HashMap<(u64, Box<str>), Intent>>);

/// One command, and what its requests are to be answered with.
#[derive(Debug)]
pub struct Step {
    /// The inode of the directory.
    pub parent: u64,
    /// For the helper.
    pub command: Command,
    /// For the handlers.
    pub intent: Intent,
}

impl Filesystem {
    /// Whether the kernel may know of a znode, or of its absence: then changes of it are replayed.
    pub(crate) fn concerns(&self, znode: &str) -> bool {
        let inodes = self.inodes.lock();
        let in_directory = path::parent(znode)
            .is_some_and(|parent| inodes.at_path(parent).any(|inode| inode.view.is_directory()));
        in_directory || inodes.at_path(znode).next().is_some()
    }

    /// Whether the kernel takes a znode for a file, which a child of it disproves.
    pub(crate) fn is_shown_as_file(&self, znode: &str) -> bool {
        self.inodes.lock().at_path(znode).any(|inode| inode.view == View::File)
    }

    /// Asks for the state of a znode that is to be replayed.
    pub(crate) async fn state_to_replay(&self, znode: &str) -> Result<Option<Znode>, Errno> {
        let known = self.inodes.lock().at_path(znode).next().map(|inode| inode.znode.clone());
        let Some(mut state) = self.fetch(znode, known.as_ref()).await? else { return Ok(None) };
        // Whether a directory has `@data` is asked only where that can be seen.
        let shows_data = {
            let inodes = self.inodes.lock();
            inodes.at_path(znode).any(|inode| inode.view.is_directory())
        };
        if shows_data && state.stat.data_length == 0 && state.null_data.is_none() {
            match self.is_null(znode).await {
                Ok(is_null) => state.null_data = Some(is_null),
                Err(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(state))
    }

    /// What has to be done for the kernel to know what became of a znode.
    pub(crate) fn plan(&self, znode: &str, remote: &Remote, now: Option<&Znode>) -> Vec<Step> {
        let mut steps = Vec::new();
        let inodes = self.inodes.lock();
        let (told, missed) = {
            let announced = self.remote.announced.lock();
            (announced.child(znode), announced.missed_of(znode))
        };
        let name = path::name(znode);
        let parents = path::parent(znode).into_iter().flat_map(|parent| inodes.at_path(parent));
        for directory in parents.filter(|inode| inode.view.is_directory()) {
            let Some(shown_path) = inodes.shown_path(directory.number) else { continue };
            let Some(shown) = naming::file_name(name, directory.number == ROOT) else { continue };
            if self.is_hidden(&directory.path, name) {
                continue;
            }
            let parent = directory.number;
            let mut place = Place { parent, shown_path, znode, told, missed, steps: &mut steps };
            let as_directory = format!("{shown}@dir");
            let view = inodes.find(directory.number, &as_directory);
            if let Some(known) = view
                && now.is_none_or(|now| now.stat.czxid != known.czxid())
            {
                place.vanish(&as_directory, View::AsDirectory, Some(known.number), false);
            }
            place.follow(&shown, remote, now, inodes.find(directory.number, &shown));
        }
        for directory in inodes.at_path(znode).filter(|inode| inode.view.is_directory()) {
            let Some(shown_path) = inodes.shown_path(directory.number) else { continue };
            let same =
                |now: &&Znode| directory.number == ROOT || now.stat.czxid == directory.czxid();
            let Some(now) = now.filter(same) else { continue };
            let parent = directory.number;
            let mut place = Place { parent, shown_path, znode, told, missed, steps: &mut steps };
            place.follow_data(remote, now, directory, inodes.find(directory.number, naming::DATA));
        }
        steps
    }

    /// The command that says that a status file has changed, if the kernel has ever seen one.
    pub(crate) fn status_step(&self) -> Option<Step> {
        let parent = self.seen_status_directory()?;
        let (view, znode) = (View::File, self.inode(ROOT).ok()?.znode);
        let length = self.status_length("state")?;
        let command = Command {
            directory: naming::STATUS.into(),
            name: "state".into(),
            action: Action::Modify(length),
        };
        Some(Step { parent, command, intent: Intent::Modify(view, "".into(), znode) })
    }

    /// A step's command is about to be performed: its requests are answered from now on.
    pub(crate) fn begin_step(&self, step: &Step) {
        let key = (step.parent, step.command.name.as_str().into());
        self.remote.intents.0.lock().insert(key, step.intent.clone());
    }

    /// A step's command has been performed.
    pub(crate) fn end_step(&self, step: &Step) {
        self.remote.intents.0.lock().remove(&(step.parent, step.command.name.as_str().into()));
    }

    fn intent(&self, parent: u64, name: &str) -> Option<Intent> {
        self.remote.intents.0.lock().get(&(parent, name.into())).cloned()
    }

    /// `LOOKUP` by the helper.
    pub fn replayed_lookup(&self, parent: u64, name: &OsStr) -> Result<Entry, Errno> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        if status::is_status(parent) {
            return self.look_up_status(parent, name.as_ref());
        }
        if parent == ROOT && name == naming::STATUS {
            return Ok(self.status_directory());
        }
        let intent = self.intent(parent, name);
        let mut inodes = self.inodes.lock();
        let known = inodes.find(parent, name).map(|known| {
            let view = known.view;
            (view, known.path.clone(), known.znode.clone())
        });
        match (intent, known) {
            // It is about to be created.
            (Some(Intent::Appear(..)), _) => Err(Errno::ENOENT),
            (Some(Intent::Modify(view, path, znode)), Some((known_view, _, known))) => {
                let is_newer = known.stat.czxid != znode.stat.czxid || known_view != view;
                let znode =
                    if is_newer || known.stat.mzxid > znode.stat.mzxid { known } else { znode };
                Ok(self.entry(inodes.look_up(parent, name, known_view, &path, znode)))
            }
            (_, Some((view, path, znode))) => {
                Ok(self.entry(inodes.look_up(parent, name, view, &path, znode)))
            }
            (Some(Intent::Modify(view, path, znode)), None) => {
                Ok(self.entry(inodes.look_up(parent, name, view, &path, znode)))
            }
            // The kernel may have forgotten what its watchers are to see going.
            (Some(Intent::Vanish { view, path, lives_on, .. }), None) => {
                let znode = Znode { stat: Default::default(), acl: [].into(), null_data: None };
                let inode = inodes.look_up(parent, name, view, &path, znode);
                let entry = self.entry(inode);
                let inode = Some(inode.number);
                let intent = Intent::Vanish { view, path, inode, lives_on };
                self.remote.intents.0.lock().insert((parent, name.into()), intent);
                Ok(entry)
            }
            (None, None) => Err(Errno::ENOENT),
        }
    }

    /// `CREATE` and `MKDIR` by the helper.
    pub fn replayed_creation(
        &self,
        parent: u64,
        name: &OsStr,
        is_directory: bool,
    ) -> Result<Entry, Errno> {
        let name = name.to_str().ok_or(Errno::EBUSY)?;
        let Some(Intent::Appear(view, path, znode)) = self.intent(parent, name) else {
            return Err(Errno::EBUSY);
        };
        let mut inodes = self.inodes.lock();
        let alive = inodes.get(parent).is_some_and(|parent| parent.presence == Presence::Live);
        let is_newer = inodes.find(parent, name).is_some_and(|known| {
            known.czxid() > znode.stat.czxid
                || known.czxid() == znode.stat.czxid && known.view != view
        });
        if !alive || is_newer || view.is_directory() != is_directory {
            return Err(Errno::EBUSY);
        }
        Ok(self.entry(inodes.look_up(parent, name, view, &path, znode)))
    }

    /// `UNLINK` and `RMDIR` by the helper. What is newer than what was deleted stays, and EBUSY
    /// leaves what the kernel knows of it untouched.
    pub fn replayed_removal(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let name = name.to_str().ok_or(Errno::EBUSY)?;
        let Some(Intent::Vanish { inode: Some(meant), lives_on, .. }) = self.intent(parent, name)
        else {
            return Err(Errno::EBUSY);
        };
        let mut inodes = self.inodes.lock();
        match inodes.find(parent, name) {
            Some(inode) if inode.number == meant => {
                inodes.vanish(meant, lives_on);
                Ok(())
            }
            Some(_) => Err(Errno::EBUSY),
            None => Ok(()),
        }
    }

    /// `GETATTR` and `SETATTR` by the helper: nothing is changed.
    pub fn replayed_attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        if status::is_status(number) {
            return self.status_attributes(number);
        }
        self.known_attributes(number).ok_or(Errno::ESTALE)
    }
}

/// A directory in which steps are planned.
struct Place<'a> {
    parent: u64,
    shown_path: String,
    znode: &'a str,
    /// What the znode was announced as.
    told: Option<Child>,
    /// Where changes of it may have been missed: the transaction up to which all were announced.
    missed: Option<Zxid>,
    steps: &'a mut Vec<Step>,
}

impl Place<'_> {
    /// What happened to a znode under its own name.
    fn follow(&mut self, shown: &str, remote: &Remote, now: Option<&Znode>, known: Option<&Inode>) {
        let told_view = self.told.map_or(View::File, |told| told.kind.view());
        let Some(now) = now else {
            let was_told = self.told.is_some() && remote.compared.or(self.missed).is_some();
            if known.is_some() || remote.was_there || was_told {
                let view = known.map_or(told_view, |known| known.view);
                self.vanish(shown, view, known.map(|known| known.number), false);
            }
            return;
        };
        let view = now.view(known);
        let compared = remote.compared.or_else(|| self.missed_creation(remote, now));
        if let Some(told_up_to) = compared {
            return self.follow_compared(shown, (now, view), known, told_up_to);
        }
        let was_created = remote.last == Some(Happening::Created);
        // A znode newer than everything that was heard of was made here, or will be heard of.
        let is_newer = remote.zxid.is_some_and(|zxid| now.stat.czxid > zxid);
        match known {
            Some(known) if known.czxid() != now.stat.czxid || known.view != view => {
                let lives_on = known.czxid() == now.stat.czxid;
                self.vanish(shown, known.view, Some(known.number), lives_on);
                self.appear(shown, view, now);
            }
            _ if remote.is_announced => self.appear(shown, view, now),
            None if remote.last == Some(Happening::Deleted) && remote.was_there => {
                self.vanish(shown, told_view, None, false);
            }
            _ if was_created && !is_newer => {
                if known.is_none() && remote.was_there {
                    self.vanish(shown, told_view, None, false);
                }
                self.appear(shown, view, now);
            }
            _ if remote.is_changed && view == View::File && !is_newer => {
                self.modify(shown, View::File, now);
            }
            _ => {}
        }
    }

    /// When the event that tells of a znode was not that of its creation, which was missed: the
    /// transaction up to which everything was announced.
    fn missed_creation(&self, remote: &Remote, now: &Znode) -> Option<Zxid> {
        let told_up_to = self.missed?;
        let is_new = match self.told {
            Some(told) => told.was_replaced(&now.stat, told_up_to),
            None => remote.last.is_none() && now.stat.czxid > told_up_to,
        };
        is_new.then_some(told_up_to)
    }

    /// What a comparison has found under a znode's own name.
    fn follow_compared(
        &mut self,
        shown: &str,
        (now, view): (&Znode, View),
        known: Option<&Inode>,
        told_up_to: Zxid,
    ) {
        let Some(told) = self.told else {
            if now.stat.czxid > told_up_to || known.is_none_or(|known| known.view != view) {
                self.appear(shown, view, now);
            } else if now.stat.mzxid > told_up_to && view == View::File {
                self.modify(shown, view, now);
            }
            return;
        };
        let was_replaced = told.was_replaced(&now.stat, told_up_to);
        let is_other_kind =
            told.kind != Kind::Unknown && told.kind != Kind::of(view.is_directory());
        if was_replaced || is_other_kind {
            let has_current =
                known.is_some_and(|known| known.czxid() == now.stat.czxid && known.view == view);
            // Somebody may be in a directory already: it is not taken away for the sake of an event.
            if has_current && view.is_directory() {
                return;
            }
            let view_told = known.map_or(told.kind.view(), |known| known.view);
            let lives_on = !was_replaced || has_current;
            self.vanish(shown, view_told, known.map(|known| known.number), lives_on);
            self.appear(shown, view, now);
        } else if told.was_set(&now.stat, told_up_to) && view == View::File {
            self.modify(shown, view, now);
        }
    }

    /// What happened to the data of a znode that is shown as a directory.
    fn follow_data(
        &mut self,
        remote: &Remote,
        now: &Znode,
        directory: &Inode,
        known: Option<&Inode>,
    ) {
        let was_set = remote.compared.is_some_and(|told_up_to| match self.told {
            Some(told) => told.was_set(&now.stat, told_up_to),
            None => now.stat.mzxid > told_up_to,
        });
        let has_data = now.null_data != Some(true);
        let had_data = known.is_some() || directory.znode.stat.data_length > 0;
        match (had_data, has_data) {
            (true, false) => {
                self.vanish(naming::DATA, View::Data, known.map(|known| known.number), false);
            }
            _ if !remote.is_changed && !was_set => {}
            (true, true) => self.modify(naming::DATA, View::Data, now),
            (false, true) if now.stat.data_length > 0 => self.appear(naming::DATA, View::Data, now),
            (false, _) => {}
        }
    }

    fn appear(&mut self, name: &str, view: View, now: &Znode) {
        let action = if view.is_directory() {
            Action::CreateDirectory
        } else {
            Action::CreateFile(length(now))
        };
        self.step(name, action, Intent::Appear(view, self.znode.into(), now.clone()));
    }

    fn modify(&mut self, name: &str, view: View, now: &Znode) {
        let intent = Intent::Modify(view, self.znode.into(), now.clone());
        self.step(name, Action::Modify(length(now)), intent);
    }

    fn vanish(&mut self, name: &str, view: View, inode: Option<u64>, lives_on: bool) {
        let action = if view.is_directory() { Action::RemoveDirectory } else { Action::Unlink };
        let intent = Intent::Vanish { view, inode, path: self.znode.into(), lives_on };
        self.step(name, action, intent);
    }

    fn step(&mut self, name: &str, action: Action, intent: Intent) {
        let directory = self.shown_path.clone();
        let command = Command { directory, name: name.into(), action };
        self.steps.push(Step { parent: self.parent, command, intent });
    }
}

fn length(znode: &Znode) -> u64 {
    u64::try_from(znode.stat.data_length).unwrap_or(0)
}
