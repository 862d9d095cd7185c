//! Random operations on the mount and on an ordinary directory beside it: both must answer alike.
//! One descriptor at a time, since two may have two values here by design.

use std::ffi::CString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use znodefs_tests::random::Random;
use znodefs_tests::{Directory, World, on_every_backend};

const NAMES: [&str; 10] = ["a", "b", "c", "d1/x", "d1/y", "d1", "d2", "d3", "d1/s", "d2/s/t"];
const LENGTHS: [u64; 5] = [0, 4, 77, 1000, 5555];
const OPERATIONS: usize = 600;

/// The same tree twice: in the mount, and on an ordinary file system.
struct Twins {
    roots: [PathBuf; 2],
    open: Option<[File; 2]>,
    log: Vec<String>,
}

impl Twins {
    /// Does the same to both and compares what comes of it.
    fn both<T: Debug + PartialEq>(
        &mut self,
        what: String,
        mut act: impl FnMut(&Path, Option<&mut File>) -> io::Result<T>,
    ) {
        let [one, other] = [0, 1].map(|index| {
            let file = self.open.as_mut().map(|files| &mut files[index]);
            act(&self.roots[index], file).map_err(|error| error.raw_os_error())
        });
        self.log.push(format!("{what}: {other:?}"));
        let history = &self.log[self.log.len().saturating_sub(30)..];
        assert_eq!(one, other, "mount and reference differ after\n{}", history.join("\n"));
    }

    /// The same with the open file; nothing when there is none.
    fn with_file<T: Debug + PartialEq>(
        &mut self,
        what: String,
        mut act: impl FnMut(&mut File) -> io::Result<T>,
    ) {
        if self.open.is_some() {
            self.both(what, |_, file| file.map_or_else(|| unreachable!(), &mut act));
        }
    }

    fn open(&mut self, name: &str, flags: i32) {
        // What reads and seeks of directories answer differs between file systems.
        if self.open.is_some() || self.roots[1].join(name).is_dir() {
            return;
        }
        let mut opened = Vec::new();
        self.both(format!("open {name} {flags:#o}"), |root, _| {
            let mut options = OpenOptions::new();
            match flags & libc::O_ACCMODE {
                libc::O_RDONLY => options.read(true),
                libc::O_WRONLY => options.write(true),
                _ => options.read(true).write(true),
            };
            options.custom_flags(flags & !libc::O_ACCMODE);
            opened.push(options.open(root.join(name))?);
            Ok(())
        });
        self.open = opened.try_into().ok();
    }

    fn close(&mut self) {
        let Some(files) = self.open.take() else { return };
        self.log.push("close".into());
        for file in files {
            // SAFETY: the descriptor is owned by no one else once it is taken out of the file.
            let code = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(file)) };
            assert_eq!(code, 0, "close: {}", io::Error::last_os_error());
        }
    }
}

/// What bytes were read, short enough for a message.
fn digest(bytes: &[u8]) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes, {:016x}", bytes.len(), hasher.finish())
}

fn names_below(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let name = entry.path().strip_prefix(root).unwrap().display().to_string();
            names.push(format!("{name} {}", kind.is_dir()));
            if kind.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    names.sort();
    names
}

fn truncate(path: &Path, length: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string that lives until the call returns.
    match unsafe { libc::truncate(path.as_ptr(), length as i64) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn change_names(twins: &mut Twins, random: &mut Random) {
    let name = NAMES[random.between(0, NAMES.len() as u64) as usize];
    let other = NAMES[random.between(0, NAMES.len() as u64) as usize];
    let length = LENGTHS[random.between(0, LENGTHS.len() as u64) as usize];
    match random.between(0, 8) {
        0 => twins.both(format!("mkdir {name}"), |root, _| fs::create_dir(root.join(name))),
        1 => twins.both(format!("rmdir {name}"), |root, _| fs::remove_dir(root.join(name))),
        2 => twins.both(format!("unlink {name}"), |root, _| fs::remove_file(root.join(name))),
        3 | 4 => twins.both(format!("rename {name} {other}"), |root, _| {
            fs::rename(root.join(name), root.join(other))
        }),
        5 => twins.both("list".into(), |root, _| Ok(names_below(root))),
        6 => twins.both(format!("stat {name}"), |root, _| {
            let stat = fs::metadata(root.join(name))?;
            Ok((stat.is_dir(), stat.is_file().then_some(stat.len())))
        }),
        _ if twins.open.is_none() => {
            twins.both(format!("truncate {name} {length}"), |root, _| {
                truncate(&root.join(name), length)
            });
            if !twins.roots[1].join(name).is_dir() {
                twins.both(format!("read {name}"), |root, _| {
                    fs::read(root.join(name)).map(|bytes| digest(&bytes))
                });
            }
        }
        _ => {}
    }
}

fn use_file(twins: &mut Twins, random: &mut Random) {
    let offset = LENGTHS[random.between(0, LENGTHS.len() as u64) as usize];
    let length = LENGTHS[random.between(0, LENGTHS.len() as u64) as usize];
    match random.between(0, 10) {
        0 | 1 => {
            let bytes = random.bytes(length as usize);
            twins.with_file(format!("write {length}"), |file| file.write(&bytes));
        }
        2 => {
            let bytes = random.bytes(length as usize);
            let what = format!("pwrite {length} at {offset}");
            twins.with_file(what, |file| file.write_at(&bytes, offset));
        }
        3 => twins.with_file(format!("read {length}"), |file| {
            let mut bytes = vec![0; length as usize];
            file.read(&mut bytes).map(|read| digest(&bytes[..read]))
        }),
        4 => twins.with_file(format!("pread {length} at {offset}"), |file| {
            let mut bytes = vec![0; length as usize];
            file.read_at(&mut bytes, offset).map(|read| digest(&bytes[..read]))
        }),
        5 => twins.with_file(format!("ftruncate {length}"), |file| file.set_len(length)),
        6 => twins.with_file("seek to the end".into(), |file| file.seek(SeekFrom::End(0))),
        7 => twins.with_file(format!("seek {offset}"), |file| file.seek(SeekFrom::Start(offset))),
        8 => twins.with_file("fsync".into(), |file| file.sync_all()),
        _ => twins.with_file("fstat".into(), |file| Ok(file.metadata()?.len())),
    }
}

fn random_operations_are_answered_as_by_an_ordinary_file_system(world: &World) {
    let mut random = Random::announced();
    let reference = Directory::new();
    let roots = [world.path("r"), reference.subdirectory("r")];
    fs::create_dir(&roots[0]).unwrap();
    let mut twins = Twins { roots, open: None, log: Vec::new() };
    for _ in 0..OPERATIONS {
        match random.between(0, 10) {
            0 | 1 => {
                let name = NAMES[random.between(0, NAMES.len() as u64) as usize];
                let accesses = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR];
                let access = accesses[random.between(0, 3) as usize];
                let creations =
                    [0, libc::O_CREAT, libc::O_CREAT | libc::O_EXCL, libc::O_CREAT | libc::O_TRUNC];
                let creation = creations[random.between(0, 4) as usize];
                let appends = access != libc::O_RDONLY && random.between(0, 3) == 0;
                let append = if appends { libc::O_APPEND } else { 0 };
                twins.open(name, access | creation | append);
            }
            2 => twins.close(),
            3..=6 => use_file(&mut twins, &mut random),
            _ => change_names(&mut twins, &mut random),
        }
    }
    twins.close();
    twins.both("list".into(), |root, _| Ok(names_below(root)));
}

on_every_backend![random_operations_are_answered_as_by_an_ordinary_file_system];
