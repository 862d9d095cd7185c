//! Creating: `MKDIR`, `MKNOD`, `CREATE`, with what a name's suffix or an open flag asks for.

use std::ffi::OsStr;

use bytes::Bytes;
use fuser::Errno;
use znodefs::{ErrorCode, Stat, path};

use super::{Directory, Entry, Filesystem};
use crate::caller::Caller;
use crate::errno;
use crate::inode_table::{View, Znode};
use crate::lifetimes::LifetimeId;
use crate::naming::{self, FileName, NameError};
use crate::open_file::{OpenFile, OpenMode};
use crate::process::Process;
use crate::service::{NewZnode, ServiceError};
use crate::suffix::Suffix;

/// A file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The number the kernel is to know it by.
    pub handle: u64,
    /// Whether it has no position of the kernel's.
    pub is_stream: bool,
}

/// A znode that was just made.
struct Made {
    /// Its file name, which a sequential creation only now knows.
    shown: String,
    path: String,
    znode: Znode,
    /// What it lives as long as, when that is shorter than the session.
    lifetime: Option<LifetimeId>,
}

/// How many digits the service appends to the name of a sequential znode.
pub(super) const COUNTER_DIGITS: &str = "0000000000";

impl Filesystem {
    /// `MKDIR`: a znode without data.
    pub async fn mkdir(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Result<Entry, Errno> {
        let directory = self.directory_to_change(caller, parent)?;
        self.make_unopened(caller, &directory, name, mode, View::Directory).await
    }

    /// `MKNOD`: a regular file; a coordination tree has no other kinds.
    pub async fn mknod(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Result<Entry, Errno> {
        let directory = self.directory_to_change(caller, parent)?;
        if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return Err(Errno::EPERM);
        }
        if naming::parse(name, directory.is_root()) == Ok(FileName::Data) {
            return self.make_data_file(&directory, true).await;
        }
        self.make_unopened(caller, &directory, name, mode, View::File).await
    }

    /// A new znode without an open file.
    async fn make_unopened(
        &self,
        caller: Caller,
        directory: &Directory,
        name: &OsStr,
        mode: u32,
        view: View,
    ) -> Result<Entry, Errno> {
        let (znode_name, suffix) = new_name(directory, name)?;
        if suffix.file_descriptor {
            let path = path::join(&directory.path, &name.to_string_lossy());
            told(
                &path,
                &"only a file that is opened has a descriptor that it could live as long as",
            );
            return Err(Errno::EINVAL);
        }
        let data = (view == View::File).then(Bytes::new);
        let made = self.make(caller, directory, &znode_name, &suffix, data, (mode, true)).await?;
        let made = made.map_err(|()| Errno::EEXIST)?;
        Ok(self.tell((directory.number, name), made, view))
    }

    /// `CREATE`: a file of no bytes, opened. Without `O_EXCL` one that came meanwhile is opened.
    pub async fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(Entry, Opened), Errno> {
        let directory = self.directory_to_change(caller, parent)?;
        let opener = caller.process();
        let exclusive = flags & libc::O_EXCL != 0;
        if naming::parse(name, directory.is_root()) == Ok(FileName::Data) {
            let entry = self.make_data_file(&directory, exclusive).await?;
            let opened = self.open(caller, entry.attributes.ino.0, flags).await?;
            return Ok((entry, opened));
        }
        let (znode_name, mut suffix) = new_name(&directory, name)?;
        if exclusive {
            self.add_flags(caller, &mut suffix, flags)?;
        }
        let data = Some(Bytes::new());
        let made =
            self.make(caller, &directory, &znode_name, &suffix, data, (mode, exclusive)).await?;
        let Ok(made) = made else {
            return self.open_found(caller, &directory, &znode_name, &suffix, flags).await;
        };
        let open_mode = open_mode(flags);
        let file = if suffix.sequential {
            OpenFile::sequential(open_mode, opener, &made.shown)
        } else {
            OpenFile::created(open_mode, opener)
        };
        let (stat, lifetime) = (made.znode.stat, made.lifetime);
        let entry = self.tell((parent, name), made, View::File);
        let opened = self.add_file(entry.attributes.ino.0, file, &stat);
        if let Some(lifetime) = lifetime.filter(|_| suffix.file_descriptor) {
            self.lifetimes.lock().bind(lifetime, opened.handle);
        }
        Ok((entry, opened))
    }

    /// What the open flags ask for beside the name.
    fn add_flags(&self, caller: Caller, suffix: &mut Suffix, flags: i32) -> Result<(), Errno> {
        if flags & libc::O_NOATIME != 0 {
            // The kernel would refuse it after the creation, which is too late.
            if !self.is_owner(caller) {
                return Err(Errno::EPERM);
            }
            suffix.ephemeral = true;
        }
        suffix.sequential |= flags & libc::O_NONBLOCK != 0;
        suffix.file_descriptor |= flags & libc::O_ASYNC != 0;
        if suffix.is_consistent() { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Creates a znode. `Err(())` inside says that it exists.
    async fn make(
        &self,
        caller: Caller,
        directory: &Directory,
        znode_name: &str,
        suffix: &Suffix,
        data: Option<Bytes>,
        (mode, exclusive): (u32, bool),
    ) -> Result<Result<Made, ()>, Errno> {
        let path = path::join(&directory.path, znode_name);
        let process = suffix.process.map(|number| process_of(caller, number, &path)).transpose()?;
        if suffix.sequential {
            let longest = format!("{znode_name}{COUNTER_DIGITS}");
            naming::file_name(&longest, directory.is_root()).ok_or(Errno::ENAMETOOLONG)?;
        }
        let acl = self.settings.identities.acl_of_new(mode);
        let null_data = Some(data.is_none());
        let new = NewZnode {
            path: &path,
            data,
            acl: acl.clone(),
            mode: suffix.create_mode(),
            ttl_ms: suffix.time_to_live_ms(),
        };
        let Some((path, stat)) = self.create_surely(&new, exclusive).await? else {
            return Ok(Err(()));
        };
        let lifetime = (suffix.file_descriptor || process.is_some())
            .then(|| self.lifetimes.lock().begin(&path, &stat));
        if let (Some(lifetime), Some(process)) = (lifetime, process) {
            self.follow_process(lifetime, process);
        }
        let made_name = path::name(&path);
        let shown = naming::file_name(made_name, directory.is_root()).ok_or(Errno::ENAMETOOLONG)?;
        let znode = Znode { stat, acl: acl.into(), null_data };
        Ok(Ok(Made { shown, path, znode, lifetime }))
    }

    /// Creates a znode, finding out what became of it when an answer is lost; `None` when there is one
    /// of that name.
    async fn create_surely(
        &self,
        new: &NewZnode<'_>,
        exclusive: bool,
    ) -> Result<Option<(String, Stat)>, Errno> {
        let service = self.znodes.service();
        let (session, before) = (service.session_id(), service.last_zxid());
        let mut lost = false;
        loop {
            match self.znodes.create(new).await {
                Ok(created) => return Ok(Some(created)),
                // An ephemeral that nobody knows of would outlive everything that it should end with.
                Err(ServiceError::OutcomeUnknown) if new.mode.is_ephemeral() => {
                    match self.find_unconfirmed(new, session, before).await {
                        Ok(Some(found)) => return Ok(Some(found)),
                        Ok(None) => {}
                        Err(error) => return Err(errno::from_service(&error)),
                    }
                }
                Err(ServiceError::OutcomeUnknown) if !new.mode.is_sequential() => lost = true,
                // Who alone may have it must not be told so, nor the contrary, on a guess.
                Err(ServiceError::Code(ErrorCode::NodeExists)) if lost && exclusive => {
                    return Err(Errno::ETIMEDOUT);
                }
                Err(ServiceError::Code(ErrorCode::NodeExists)) => return Ok(None),
                Err(ServiceError::Code(ErrorCode::Unimplemented)) if new.ttl_ms > 0 => {
                    told(new.path, &"the servers allow no time to live: set extendedTypesEnabled");
                    return Err(Errno::EOPNOTSUPP);
                }
                Err(error) => return Err(errno::from_service(&error)),
            }
        }
    }

    /// The entry of a znode that was made in a directory, under its real name. When that is not the
    /// one asked for, programs that watch the directory are to hear of it.
    fn tell(&self, (parent, asked): (u64, &OsStr), made: Made, view: View) -> Entry {
        if asked != made.shown.as_str() {
            self.announce(&made.path);
            self.invalidate_made_name(parent, &made.shown);
        }
        let mut inodes = self.inodes.lock();
        self.entry(inodes.look_up(parent, &made.shown, view, &made.path, made.znode))
    }

    /// Opens a file that was found when it was to be created.
    async fn open_found(
        &self,
        caller: Caller,
        directory: &Directory,
        znode_name: &str,
        suffix: &Suffix,
        flags: i32,
    ) -> Result<(Entry, Opened), Errno> {
        if flags & libc::O_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        let shown =
            naming::file_name(znode_name, directory.is_root()).ok_or(Errno::ENAMETOOLONG)?;
        let entry = self.lookup(caller, directory.number, OsStr::new(&shown)).await?;
        let inode = self.inode(entry.attributes.ino.0)?;
        // Whoever asks for an ephemeral file must not write to one that stays, or to another's.
        let as_asked = match suffix.create_mode().is_ephemeral() {
            true => self.own_session(&inode.znode.stat).is_some(),
            false => suffix.time_to_live.is_none() && !suffix.container,
        };
        if !as_asked {
            self.forget(inode.number, 1);
            return Err(Errno::EEXIST);
        }
        if inode.view.is_directory() {
            self.forget(inode.number, 1);
            return Err(Errno::EISDIR);
        }
        match self.open(caller, inode.number, flags).await {
            Ok(opened) => Ok((entry, opened)),
            Err(error) => {
                self.forget(inode.number, 1);
                Err(error)
            }
        }
    }

    /// Gives a directory data of no bytes, where it has none: the file `@data` in it.
    async fn make_data_file(&self, directory: &Directory, exclusive: bool) -> Result<Entry, Errno> {
        loop {
            let found = self.fetch(&directory.path, None).await?.ok_or(Errno::ENOENT)?;
            let version = found.stat.version;
            let is_null = found.stat.data_length == 0 && self.is_null(&directory.path).await?;
            let znode = if is_null {
                let data = Some(Bytes::new());
                match self.znodes.set_data(&directory.path, data, version).await {
                    Ok(stat) => Znode { stat, null_data: Some(false), ..found },
                    Err(ServiceError::Code(ErrorCode::BadVersion)) => continue,
                    Err(error) => return Err(errno::from_service(&error)),
                }
            } else if exclusive {
                return Err(Errno::EEXIST);
            } else {
                Znode { null_data: Some(false), ..found }
            };
            let mut inodes = self.inodes.lock();
            let (parent, path) = (directory.number, &directory.path);
            return Ok(self.entry(inodes.look_up(parent, naming::DATA, View::Data, path, znode)));
        }
    }
}

/// What the name of something that is to be made stands for.
pub(super) fn parse_new(directory: &Directory, name: &OsStr) -> Result<FileName, Errno> {
    naming::parse(name, directory.is_root()).map_err(|error| {
        if matches!(error, NameError::Suffix(_)) {
            told(&path::join(&directory.path, &name.to_string_lossy()), &error);
        }
        errno::from_name(error)
    })
}

/// Says why something was refused whose errno alone does not tell.
pub(super) fn told(path: &str, reason: &dyn std::fmt::Display) {
    tracing::warn!("{path}: refused: {reason}");
}

/// The znode's name and the way of creation that a new file name asks for.
fn new_name(directory: &Directory, name: &OsStr) -> Result<(String, Suffix), Errno> {
    match parse_new(directory, name)? {
        FileName::Znode(znode_name) => Ok((znode_name, Suffix::default())),
        FileName::Creation(znode_name, suffix) => Ok((znode_name, suffix)),
        // A view of a znode that does not exist cannot be made.
        FileName::AsDirectory(_) => Err(Errno::ENOENT),
        FileName::Data => Err(Errno::EINVAL),
        FileName::Status => Err(Errno::EEXIST),
    }
}

/// The process that a znode is to live as long as.
fn process_of(caller: Caller, number: u32, path: &str) -> Result<Process, Errno> {
    Process::of_caller(caller, number).inspect_err(|error| match *error {
        Errno::ESRCH => told(path, &format!("there is no process {number}, or no longer")),
        Errno::EPERM => told(
            path,
            &format!(
                "user {} may not name process {number}: it is another user's, or in another pid namespace",
                caller.uid
            ),
        ),
        error => {
            let error = std::io::Error::from_raw_os_error(error.code());
            told(path, &format!("process {number} cannot be watched: {error}"));
        }
    })
}

/// What open flags say about reading and writing.
pub(super) fn open_mode(flags: i32) -> OpenMode {
    let access = flags & libc::O_ACCMODE;
    // Linux truncates whatever the access is, and asks for the permission to write.
    let truncate = flags & libc::O_TRUNC != 0;
    OpenMode {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY || truncate,
        append: flags & libc::O_APPEND != 0,
        // O_SYNC includes the bit of O_DSYNC.
        synchronous: flags & libc::O_DSYNC != 0,
        truncate,
    }
}
