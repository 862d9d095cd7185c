//! `RENAME`: one multi, or `EXDEV` so that mv(1) copies.

use std::collections::HashMap;
use std::ffi::OsStr;

use fuser::Errno;
use znodefs::wire::Response;
use znodefs::{ErrorCode, Zxid, path};

use super::create::parse_new;
use super::remove::existing_name;
use super::rename_plan::{
    LENGTH_MAX, NotOne, Operation, Source, ZNODES_MAX, exchange_files, move_subtree, new_stats,
    replace_file,
};
use super::{Directory, Filesystem};
use crate::caller::Caller;
use crate::errno;
use crate::inode_table::{View, Znode};
use crate::naming::FileName;
use crate::service::ServiceError;

/// How often a rename is tried again when others change what it is about.
const ATTEMPTS_MAX: usize = 100;

/// What renameat2(2) asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameKind {
    /// Replaces what is there.
    Replace,
    /// `RENAME_NOREPLACE`.
    NoReplace,
    /// `RENAME_EXCHANGE`.
    Exchange,
}

/// What came of a multi.
enum Tried {
    /// It was done, by this transaction.
    Done(Zxid, Vec<Response>),
    /// Others came between: nothing was done.
    Between,
    /// The answer was lost.
    Unknown,
}

/// A name in a directory, and the znode it stands for.
struct Place {
    parent: u64,
    shown: String,
    path: String,
}

impl Place {
    fn new(directory: &Directory, name: &OsStr, znode_name: &str) -> Place {
        let path = path::join(&directory.path, znode_name);
        Place { parent: directory.number, shown: name.to_string_lossy().into_owned(), path }
    }

    fn name(&self) -> (u64, &str) {
        (self.parent, &self.shown)
    }
}

impl Filesystem {
    /// `RENAME`.
    pub async fn rename(
        &self,
        caller: Caller,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
        kind: RenameKind,
    ) -> Result<(), Errno> {
        let from = self.directory_to_change(caller, parent)?;
        let to = self.directory_to_change(caller, new_parent)?;
        let from = match existing_name(&from, name)? {
            FileName::Znode(znode_name) => Place::new(&from, name, &znode_name),
            FileName::Creation(..) => return Err(Errno::ENOENT),
            FileName::Status => return Err(Errno::EPERM),
            // Views of a znode are not moved: a copy is made of what they show.
            FileName::AsDirectory(_) | FileName::Data => return Err(Errno::EXDEV),
        };
        let new = parse_new(&to, new_name)?;
        let to = match new {
            FileName::Znode(znode_name) => Place::new(&to, new_name, &znode_name),
            // A suffix speaks of a creation: a copy makes one.
            FileName::Data | FileName::Creation(..) => return Err(Errno::EXDEV),
            FileName::AsDirectory(_) => return Err(Errno::EINVAL),
            FileName::Status => return Err(Errno::EPERM),
        };
        if from.path == to.path {
            return Ok(());
        }
        if path::is_within(&to.path, &from.path) {
            return Err(Errno::EINVAL);
        }
        for _ in 0..ATTEMPTS_MAX {
            let done = match kind {
                RenameKind::Exchange => self.exchange(&from, &to).await?,
                kind => self.rename_once(&from, &to, kind).await?,
            };
            if done {
                return Ok(());
            }
        }
        Err(Errno::EBUSY)
    }

    /// Tries a rename; false when others came between.
    async fn rename_once(&self, from: &Place, to: &Place, kind: RenameKind) -> Result<bool, Errno> {
        let known = self.settled_znode(from.parent, &from.shown).await;
        let target_known = self.settled_znode(to.parent, &to.shown).await;
        let held = {
            let inodes = self.inodes.lock();
            inodes.find(from.parent, &from.shown).map(|inode| inode.view)
        };
        let view = match (held, known) {
            (Some(view), Some(_)) => view,
            _ => self.fetch(&from.path, None).await?.ok_or(Errno::ENOENT)?.view(None),
        };
        let target = self.fetch(&to.path, target_known.as_ref()).await?;
        let session = self.znodes.service().session_id();
        let collected = match &target {
            Some(_) if kind == RenameKind::NoReplace => return Err(Errno::EEXIST),
            Some(target) => {
                check_kinds(view, self.view_of(to, target), target)?;
                self.collect(&from.path, view).await?
            }
            None => self.collect(&from.path, view).await?,
        };
        let Some(sources) = collected else { return Ok(false) };
        let Some(version) = sources.first().map(|source| source.stat.version) else {
            return Ok(false);
        };
        let operations = match &target {
            Some(target) if sources.len() == 1 && self.view_of(to, target) == View::File => {
                replace_file(&sources[0], &to.path, &target.stat, session)
            }
            target => {
                let replaced = target.as_ref().map(|target| &target.stat);
                move_subtree(&sources, &to.path, replaced, session)
            }
        };
        let target_acl = target.as_ref().map(|target| target.acl.clone());
        let operations = operations.map_err(|_: NotOne| Errno::EXDEV)?;
        // A target that is set stays the same znode.
        let is_set = matches!(operations.first(), Some(Operation::Set { .. }));
        let before = self.znodes.service().last_zxid();
        let stats = match self.try_multi(&operations).await? {
            Tried::Done(zxid, records) => new_stats(&operations, &records, zxid),
            Tried::Between => return Ok(false),
            Tried::Unknown => {
                if !self.was_renamed(from, &sources[0], to, is_set, before).await? {
                    return Ok(false);
                }
                HashMap::new()
            }
        };
        let acl = target_acl.filter(|_| is_set);
        match is_set {
            true => self.lifetimes.lock().deleted(&from.path),
            false => self.lifetimes.lock().moved(&from.path, &to.path, &stats),
        }
        let (replaced, moved) = {
            let mut inodes = self.inodes.lock();
            let replaced = inodes.rename(from.name(), to.name(), &to.path, &stats, acl);
            self.note_moved(&inodes, &to.path);
            (replaced, inodes.find(to.parent, &to.shown).map(|inode| inode.number))
        };
        self.detach_files(replaced);
        if let (Some(moved), Some(stat)) = (moved, stats.get(&to.path)) {
            self.move_files(moved, version, stat.version);
        }
        Ok(true)
    }

    /// Whether a rename whose answer was lost was done. Where it was not, somebody else may have moved
    /// the source away: of several who rename one file, one must be told that it was theirs.
    async fn was_renamed(
        &self,
        from: &Place,
        source: &Source,
        to: &Place,
        is_set: bool,
        before: Zxid,
    ) -> Result<bool, Errno> {
        // The next server may be one that has not heard of it yet.
        let synced = self.znodes.sync(&from.path);
        let (source_now, target) = (self.znodes.exists(&from.path), self.znodes.exists(&to.path));
        synced.await.map_err(|error| errno::from_service(&error))?;
        match source_now.await {
            Ok(found) if found.czxid == source.stat.czxid => return Ok(false),
            Ok(_) | Err(ServiceError::Code(ErrorCode::NoNode)) => {}
            Err(error) => return Err(errno::from_service(&error)),
        }
        match target.await {
            Ok(found) if is_set && found.mzxid > before => Ok(true),
            Ok(found) if !is_set && found.czxid > before => Ok(true),
            Ok(_) | Err(ServiceError::Code(ErrorCode::NoNode)) => Err(Errno::ENOENT),
            Err(error) => Err(errno::from_service(&error)),
        }
    }

    /// The value of an inode's open files has another version after a rename.
    fn move_files(&self, inode: u64, from_version: i32, to_version: i32) {
        for file in self.handles.files_of(inode) {
            file.file.lock().moved(from_version, to_version);
        }
    }

    fn view_of(&self, place: &Place, znode: &Znode) -> View {
        znode.view(self.inodes.lock().find(place.parent, &place.shown))
    }

    /// Does a rename's operations.
    async fn try_multi(&self, operations: &[Operation]) -> Result<Tried, Errno> {
        let requests = operations.iter().map(Operation::request).collect();
        match self.znodes.multi(requests).await {
            Ok((zxid, records)) => Ok(Tried::Done(zxid, records)),
            Err(ServiceError::OutcomeUnknown) => Ok(Tried::Unknown),
            Err(ServiceError::Code(
                ErrorCode::BadVersion
                | ErrorCode::NoNode
                | ErrorCode::NodeExists
                | ErrorCode::NotEmpty,
            )) => {
                // The new parent may be what is missing: then there is nothing to try again.
                let parent = operations.first().and_then(|first| match first {
                    Operation::Create { path, .. } => path::parent(path),
                    _ => None,
                });
                match parent {
                    None => Ok(Tried::Between),
                    Some(parent) => match self.znodes.exists(parent).await {
                        Ok(_) => Ok(Tried::Between),
                        Err(error) => Err(errno::from_service(&error)),
                    },
                }
            }
            Err(ServiceError::TooLarge) => Err(Errno::EXDEV),
            Err(error) => Err(errno::from_service(&error)),
        }
    }

    /// Everything at and below a path, parents before children, level by level: all requests of a
    /// level are on their way before the first answer. `None` when something below vanished
    /// meanwhile; otherwise there is at least the path itself.
    async fn collect(&self, root: &str, view: View) -> Result<Option<Vec<Source>>, Errno> {
        let mut sources = Vec::new();
        let mut level = vec![root.to_string()];
        let mut length = 0;
        while !level.is_empty() {
            if sources.len() + level.len() > ZNODES_MAX {
                return Err(Errno::EXDEV);
            }
            let asked: Vec<_> = level
                .drain(..)
                .map(|path| {
                    let data = self.znodes.get_data(&path);
                    let acl = self.znodes.get_acl(&path);
                    let children = view.is_directory().then(|| self.znodes.children(&path));
                    (path, data, acl, children)
                })
                .collect();
            for (path, data, acl, children) in asked {
                let answers = async {
                    let (data, stat) = data.await?;
                    let (acl, _) = acl.await?;
                    let names = match children {
                        Some(children) => children.await?.0,
                        None => Vec::new(),
                    };
                    Ok((data, stat, acl, names))
                };
                let (data, stat, acl, names) = match answers.await {
                    Ok(answers) => answers,
                    Err(ServiceError::Code(ErrorCode::NoNode)) if path != root => return Ok(None),
                    Err(error) => return Err(errno::from_service(&error)),
                };
                level.extend(names.iter().map(|name| path::join(&path, name)));
                length += stat.data_length.max(0) as usize + path.len();
                if length > LENGTH_MAX {
                    return Err(Errno::EXDEV);
                }
                sources.push(Source { path, data, stat, acl });
            }
        }
        Ok(Some(sources))
    }

    /// Tries to exchange two files; false when others came between.
    async fn exchange(&self, one: &Place, other: &Place) -> Result<bool, Errno> {
        let mut sources = Vec::with_capacity(2);
        for place in [one, other] {
            let known = self.settled_znode(place.parent, &place.shown).await;
            let znode = self.fetch(&place.path, known.as_ref()).await?.ok_or(Errno::ENOENT)?;
            if self.view_of(place, &znode) != View::File {
                return Err(Errno::EINVAL);
            }
            sources.extend(self.collect(&place.path, View::File).await?.unwrap_or_default());
        }
        let [first, second] = sources.as_slice() else { return Ok(false) };
        if first.stat.ephemeral_owner != second.stat.ephemeral_owner {
            return Err(Errno::EINVAL);
        }
        let operations = exchange_files(first, second).map_err(|_: NotOne| Errno::EINVAL)?;
        let stats = match self.try_multi(&operations).await? {
            Tried::Done(zxid, records) => new_stats(&operations, &records, zxid),
            Tried::Between => return Ok(false),
            // To do it once more would undo it.
            Tried::Unknown => return Err(Errno::ETIMEDOUT),
        };
        self.inodes.lock().exchange(one.name(), other.name());
        for (place, moved) in [(one, second), (other, first)] {
            let inode = {
                let inodes = self.inodes.lock();
                inodes.find(place.parent, &place.shown).map(|inode| inode.number)
            };
            if let (Some(inode), Some(stat)) = (inode, stats.get(&place.path)) {
                self.move_files(inode, moved.stat.version, stat.version);
            }
        }
        Ok(true)
    }
}

/// What rename(2) says of a target of another kind.
fn check_kinds(source: View, target: View, target_znode: &Znode) -> Result<(), Errno> {
    match (source.is_directory(), target.is_directory()) {
        (false, true) => Err(Errno::EISDIR),
        (true, false) => Err(Errno::ENOTDIR),
        (true, true) => {
            let stat = &target_znode.stat;
            let empty = stat.num_children == 0 && stat.data_length == 0;
            if empty { Ok(()) } else { Err(Errno::ENOTEMPTY) }
        }
        (false, false) => Ok(()),
    }
}
