//! The operations on a tree in this process, with other clients coming between.

mod comparison;
mod creator;
mod lifetimes;

use std::ffi::OsStr;

use fuser::{Errno, FileAttr, FileType, TimeOrNow};
use znodefs::{Acl, CreateMode, OpCode, SessionId};

use super::test_tree::{OURS, TestTree};
use super::{AttributeChange, Closed, Entry, Filesystem, Opened, ReadNow, RenameKind, WrittenNow};
use crate::caller::Caller;
use crate::inode_table::ROOT;
use crate::mounted::MountOptions;

/// A mounted tree, and who uses it: root, in a process that is its own.
struct Mount {
    tree: TestTree,
    filesystem: Filesystem,
}

const ROOT_USER: Caller = Caller { uid: 0, gid: 0, thread: 0 };
const STRANGER: Caller = Caller { uid: 4711, gid: 4711, thread: 0 };

impl Mount {
    fn new() -> Mount {
        Mount::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut MountOptions)) -> Mount {
        let tree = TestTree::new();
        let mut options = MountOptions::new("test");
        options.uid = Some(0);
        options.gid = Some(0);
        change(&mut options);
        for (scheme, id) in &options.identities {
            tree.authenticate(scheme, id);
        }
        let filesystem = Filesystem::new(std::sync::Arc::new(tree.clone()), &options);
        Mount { tree, filesystem }
    }

    /// Walks to a path as the kernel does.
    async fn walk(&self, path: &str) -> Result<FileAttr, Errno> {
        let mut attributes = self.filesystem.getattr(ROOT).await?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let parent = attributes.ino.0;
            attributes =
                self.filesystem.lookup(ROOT_USER, parent, OsStr::new(name)).await?.attributes;
        }
        Ok(attributes)
    }

    async fn inode(&self, path: &str) -> u64 {
        self.walk(path).await.unwrap_or_else(|error| panic!("{path}: {error:?}")).ino.0
    }

    async fn place<'a>(&self, path: &'a str) -> (u64, &'a OsStr) {
        let (parent, name) = path.rsplit_once('/').unwrap();
        (self.inode(parent).await, OsStr::new(name))
    }

    async fn open(&self, path: &str, flags: i32) -> Result<u64, Errno> {
        let inode = self.inode(path).await;
        Ok(self.filesystem.open(ROOT_USER, inode, flags).await?.handle)
    }

    async fn create(&self, path: &str, flags: i32) -> Result<(Entry, Opened), Errno> {
        let (parent, name) = self.place(path).await;
        self.filesystem.create(ROOT_USER, parent, name, 0o644, flags | libc::O_CREAT).await
    }

    async fn mkdir(&self, path: &str) -> Result<Entry, Errno> {
        let (parent, name) = self.place(path).await;
        self.filesystem.mkdir(ROOT_USER, parent, name, 0o755).await
    }

    async fn unlink(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.place(path).await;
        // As the kernel does.
        let _ = self.filesystem.lookup(ROOT_USER, parent, name).await;
        self.filesystem.unlink(ROOT_USER, parent, name).await
    }

    async fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.place(path).await;
        let _ = self.filesystem.lookup(ROOT_USER, parent, name).await;
        self.filesystem.rmdir(ROOT_USER, parent, name).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        self.rename_as(from, to, RenameKind::Replace).await
    }

    async fn rename_as(&self, from: &str, to: &str, kind: RenameKind) -> Result<(), Errno> {
        let (from, to) = (self.place(from).await, self.place(to).await);
        for (parent, name) in [from, to] {
            let _ = self.filesystem.lookup(ROOT_USER, parent, name).await;
        }
        self.filesystem.rename(ROOT_USER, from, to, kind).await
    }

    async fn read(&self, handle: u64, offset: u64) -> String {
        let data = match self.filesystem.read_now(handle, offset, 1000).unwrap() {
            ReadNow::Data(data) => data,
            ReadNow::MustWait(file) => self.filesystem.read(&file, offset, 1000).await.unwrap(),
        };
        String::from_utf8(data.to_vec()).unwrap()
    }

    async fn write(&self, handle: u64, offset: u64, text: &str) -> Result<(), Errno> {
        match self.filesystem.write(handle, offset, text.as_bytes())? {
            WrittenNow::Taken => Ok(()),
            WrittenNow::MustCommit(file) => self.filesystem.commit(&file).await,
        }
    }

    /// The last close by the process that opened the file.
    async fn close(&self, handle: u64) -> Result<(), Errno> {
        let flushed = match self.filesystem.flush_now(ROOT_USER, handle) {
            Some(file) => self.filesystem.commit(&file).await,
            None => Ok(()),
        };
        match self.filesystem.release(handle) {
            Closed::Done => {}
            Closed::MustCommit(file, releasing) => {
                self.filesystem.commit_released(&file, releasing).await;
            }
            Closed::MustEnd(ending) => self.filesystem.end_closed(ending).await,
        }
        flushed
    }

    async fn write_file(&self, path: &str, flags: i32, text: &str) -> Result<(), Errno> {
        let handle = match self.walk(path).await {
            Ok(_) => self.open(path, flags | libc::O_WRONLY).await?,
            Err(_) => self.create(path, flags | libc::O_WRONLY).await?.1.handle,
        };
        self.write(handle, 0, text).await?;
        self.close(handle).await
    }

    async fn list(&self, path: &str) -> Vec<(String, FileType)> {
        let inode = self.inode(path).await;
        let (handle, _) = self.filesystem.opendir(ROOT_USER, inode).await.unwrap();
        let mut entries = Vec::new();
        let mut offset = 0;
        loop {
            let (before, start) = (entries.len(), offset);
            let add = |entry: &super::DirectoryEntry| {
                entries.push((entry.name.clone(), entry.kind));
                offset = entry.next_offset;
                // The kernel's buffer takes a few at a time.
                entries.len() - before >= 3
            };
            self.filesystem.readdir(handle, start, add).await.unwrap();
            if entries.len() == before {
                break;
            }
        }
        self.filesystem.releasedir(handle);
        entries.retain(|(name, _)| !name.starts_with('.') && name != "zookeeper");
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        entries
    }

    async fn names(&self, path: &str) -> Vec<String> {
        self.list(path).await.into_iter().map(|(name, _)| name).collect()
    }
}

#[tokio::test]
async fn znodes_are_directories_or_files_by_children_and_data() {
    let mount = Mount::new();
    mount.tree.create("/null", None);
    mount.tree.create("/empty", Some(""));
    mount.tree.create("/file", Some("data"));
    mount.tree.create("/parent", Some("own"));
    mount.tree.create("/parent/child", None);
    let kinds = mount.list("/").await;
    let expected = [
        ("empty", FileType::RegularFile),
        ("file", FileType::RegularFile),
        ("null", FileType::Directory),
        ("parent", FileType::Directory),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_string(), kind)));
    for (name, kind) in expected {
        assert_eq!(mount.walk(name).await.unwrap().kind, kind, "{name}: listing and stat agree");
    }
    assert_eq!(mount.names("/parent").await, ["@data", "child"]);
    assert_eq!(mount.walk("/parent/@data").await.unwrap().size, 3);
    assert_eq!(mount.walk("/null/@data").await, Err(Errno::ENOENT));
    assert_eq!(mount.names("/file@dir").await, ["@data"]);
    assert_eq!(mount.walk("/missing@dir").await, Err(Errno::ENOENT));
    assert_eq!(mount.walk("/file/below").await, Err(Errno::ENOTDIR));
}

#[tokio::test]
async fn a_listing_agrees_with_lookups_on_inode_numbers() {
    let mount = Mount::new();
    mount.tree.create("/d", None);
    mount.tree.create("/d/f", Some("x"));
    let directory = mount.inode("/d").await;
    let (handle, _) = mount.filesystem.opendir(ROOT_USER, directory).await.unwrap();
    let mut numbers = Vec::new();
    let add = |entry: &super::DirectoryEntry| {
        numbers.push((entry.name.clone(), entry.inode));
        false
    };
    mount.filesystem.readdir(handle, 0, add).await.unwrap();
    let file = mount.inode("/d/f").await;
    let expected = [(".", directory), ("..", ROOT), ("f", file)];
    assert_eq!(numbers, expected.map(|(name, number)| (name.to_string(), number)));
}

#[tokio::test]
async fn an_overwrite_is_one_set_data() {
    let mount = Mount::new();
    mount.write_file("/f", 0, "one").await.unwrap();
    assert_eq!(mount.tree.stat("/f").unwrap().version, 1, "empty, then one");
    mount.write_file("/f", libc::O_TRUNC, "two").await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("two"));
    assert_eq!(mount.tree.stat("/f").unwrap().version, 2);
}

#[tokio::test]
async fn looking_at_a_known_file_again_asks_for_its_stat_alone() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    mount.walk("/f").await.unwrap();
    mount.tree.take_log();
    mount.walk("/f").await.unwrap();
    assert_eq!(mount.tree.take_log(), ["exists /", "exists /f"]);
}

#[tokio::test]
async fn an_append_lands_behind_what_another_wrote_meanwhile() {
    let mount = Mount::new();
    mount.tree.create("/log", Some("a"));
    let handle = mount.open("/log", libc::O_WRONLY | libc::O_APPEND).await.unwrap();
    mount.write(handle, 0, "b").await.unwrap();
    mount.tree.set("/log", "aX");
    mount.tree.before(OpCode::SetData, |tree| tree.set("/log", "aXY"));
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/log").as_deref(), Some("aXYb"));
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_not_made_twice() {
    let mount = Mount::new();
    mount.tree.create("/log", Some("a"));
    for lost in [true, false] {
        let handle = mount.open("/log", libc::O_WRONLY | libc::O_APPEND).await.unwrap();
        mount.write(handle, 0, "b").await.unwrap();
        if lost {
            mount.tree.lose_reply(OpCode::SetData);
        } else {
            mount.tree.lose_request(OpCode::SetData);
        }
        mount.close(handle).await.unwrap();
    }
    assert_eq!(mount.tree.data("/log").as_deref(), Some("abb"));
}

#[tokio::test]
async fn a_partial_overwrite_is_applied_to_the_newest_value() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("12345678"));
    let handle = mount.open("/f", libc::O_WRONLY).await.unwrap();
    mount.write(handle, 2, "XY").await.unwrap();
    mount.tree.set("/f", "abcdefghij");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("abXYefghij"));
}

#[tokio::test]
async fn read_modify_write_over_anothers_change_is_stale_and_lost() {
    let mount = Mount::new();
    mount.tree.create("/counter", Some("1"));
    let handle = mount.open("/counter", libc::O_RDWR).await.unwrap();
    assert_eq!(mount.read(handle, 0).await, "1");
    mount.tree.set("/counter", "5");
    mount.write(handle, 0, "2").await.unwrap();
    assert_eq!(mount.filesystem.fsync(handle).await, Err(Errno::ESTALE));
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/counter").as_deref(), Some("5"));
}

#[tokio::test]
async fn a_commit_to_a_file_that_others_removed_is_stale_and_creates_nothing() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("1"));
    let handle = mount.open("/f", libc::O_WRONLY | libc::O_TRUNC).await.unwrap();
    mount.write(handle, 0, "2").await.unwrap();
    mount.tree.delete("/f");
    assert_eq!(mount.close(handle).await, Err(Errno::ESTALE));
    assert_eq!(mount.tree.stat("/f"), None);
}

#[tokio::test]
async fn a_file_removed_here_is_scratch_space_for_who_has_it_open() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("1"));
    let (inode, handle) = (mount.inode("/f").await, mount.open("/f", libc::O_RDWR).await.unwrap());
    mount.unlink("/f").await.unwrap();
    mount.write(handle, 1, "2").await.unwrap();
    mount.filesystem.fsync(handle).await.unwrap();
    assert_eq!(mount.read(handle, 0).await, "12");
    let attributes = mount.filesystem.getattr(inode).await.unwrap();
    assert_eq!((attributes.nlink, attributes.size), (0, 2));
    mount.tree.create("/f", Some("new"));
    mount.write(handle, 0, "9").await.unwrap();
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("new"), "another file by now");
}

#[tokio::test]
async fn a_file_removed_elsewhere_has_no_link_and_keeps_its_last_value() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("1"));
    let (inode, handle) =
        (mount.inode("/f").await, mount.open("/f", libc::O_RDONLY).await.unwrap());
    mount.tree.delete("/f");
    assert_eq!(mount.filesystem.getattr(inode).await.unwrap().nlink, 0);
    assert_eq!(mount.read(handle, 0).await, "1");
    assert_eq!(mount.read(handle, 0).await, "1");
    assert_eq!(mount.walk("/f").await, Err(Errno::ENOENT));
}

#[tokio::test]
async fn a_truncation_left_by_a_closed_file_is_seen_by_the_next_open() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("old"));
    let handle = mount.open("/f", libc::O_WRONLY | libc::O_TRUNC).await.unwrap();
    assert!(mount.filesystem.flush_now(ROOT_USER, handle).is_none());
    let Closed::MustCommit(file, releasing) = mount.filesystem.release(handle) else { panic!() };
    let commit = mount.filesystem.commit_released(&file, releasing);
    let reader = async {
        let handle = mount.open("/f", libc::O_RDONLY).await.unwrap();
        mount.read(handle, 0).await
    };
    // The reader starts first, and waits.
    let (text, ()) = tokio::join!(reader, commit);
    assert_eq!(text, "");
}

#[tokio::test]
async fn a_process_that_opens_a_file_again_finds_what_it_has_written() {
    let mount = Mount::new();
    let ours = Caller { thread: std::process::id(), ..ROOT_USER };
    mount.tree.create("/f", Some("old"));
    let inode = mount.inode("/f").await;
    let flags = libc::O_WRONLY | libc::O_TRUNC;
    let writer = mount.filesystem.open(ours, inode, flags).await.unwrap().handle;
    mount.write(writer, 0, "new").await.unwrap();
    let other = mount.filesystem.open(ROOT_USER, inode, libc::O_RDONLY).await.unwrap().handle;
    assert_eq!(mount.read(other, 0).await, "old", "another process waits for the commit");
    let own = mount.filesystem.open(ours, inode, libc::O_RDONLY).await.unwrap().handle;
    assert_eq!(mount.read(own, 0).await, "new");
}

#[tokio::test]
async fn truncate_by_path_and_by_descriptor() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("12345"));
    let inode = mount.inode("/f").await;
    let to = |size| AttributeChange { size: Some(size), ..AttributeChange::default() };
    let attributes = mount.filesystem.setattr(ROOT_USER, inode, None, to(3)).await.unwrap();
    assert_eq!((attributes.size, mount.tree.data("/f").as_deref()), (3, Some("123")));
    let handle = mount.open("/f", libc::O_RDWR).await.unwrap();
    let change = mount.filesystem.setattr(ROOT_USER, inode, Some(handle), to(5));
    assert_eq!(change.await.unwrap().size, 5, "what the file will be");
    assert_eq!(mount.tree.data("/f").as_deref(), Some("123"), "committed when it is closed");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("123\0\0"));
    let huge = mount.filesystem.setattr(ROOT_USER, inode, None, to(2 << 20)).await;
    assert_eq!(huge, Err(Errno::EFBIG));
}

#[tokio::test]
async fn touch_sets_the_same_bytes_and_explicit_times_set_nothing() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    let inode = mount.inode("/f").await;
    let now = AttributeChange { mtime: Some(TimeOrNow::Now), ..AttributeChange::default() };
    mount.filesystem.setattr(ROOT_USER, inode, None, now).await.unwrap();
    assert_eq!(mount.tree.stat("/f").unwrap().version, 1);
    assert_eq!(mount.tree.data("/f").as_deref(), Some("x"));
    let then = TimeOrNow::SpecificTime(std::time::SystemTime::UNIX_EPOCH);
    let then = AttributeChange { mtime: Some(then), ..AttributeChange::default() };
    mount.filesystem.setattr(ROOT_USER, inode, None, then).await.unwrap();
    assert_eq!(mount.tree.stat("/f").unwrap().version, 1);
    // touch of a new file is its creation, and no more.
    let (entry, opened) = mount.create("/new", libc::O_WRONLY).await.unwrap();
    mount.filesystem.setattr(ROOT_USER, entry.attributes.ino.0, None, now).await.unwrap();
    mount.close(opened.handle).await.unwrap();
    assert_eq!(mount.tree.stat("/new").unwrap().version, 0);
}

#[tokio::test]
async fn data_of_a_directory_come_and_go_as_a_file() {
    let mount = Mount::new();
    mount.mkdir("/d").await.unwrap();
    mount.write_file("/d/@data", 0, "own").await.unwrap();
    assert_eq!(mount.tree.data("/d").as_deref(), Some("own"));
    assert_eq!(mount.walk("/d").await.unwrap().kind, FileType::Directory, "it stays one");
    assert_eq!(mount.names("/d").await, ["@data"]);
    assert_eq!(mount.rmdir("/d").await, Err(Errno::ENOTEMPTY));
    assert_eq!(mount.create("/d/@data", libc::O_EXCL).await.map(drop), Err(Errno::EEXIST));
    mount.unlink("/d/@data").await.unwrap();
    assert_eq!(mount.tree.data("/d"), None);
    mount.rmdir("/d").await.unwrap();
    assert_eq!(mount.tree.stat("/d"), None);
}

#[tokio::test]
async fn removing_what_is_not_empty_or_of_another_kind_is_refused() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    mount.inode("/f").await;
    mount.tree.create("/f/child", Some("x"));
    let (parent, name) = mount.place("/f").await;
    assert_eq!(mount.filesystem.unlink(ROOT_USER, parent, name).await, Err(Errno::EISDIR));
    assert_eq!(mount.rmdir("/f").await, Err(Errno::ENOTEMPTY));
    assert_eq!(mount.rmdir("/zookeeper").await, Err(Errno::ENOTEMPTY));
    assert_eq!(mount.unlink("/zookeeper/config").await, Err(Errno::EPERM));
}

#[tokio::test]
async fn rmdir_of_a_directory_that_got_data_meanwhile_is_refused() {
    let mount = Mount::new();
    mount.mkdir("/d").await.unwrap();
    mount.tree.before(OpCode::Delete, |tree| tree.set("/d", "data"));
    assert_eq!(mount.rmdir("/d").await, Err(Errno::ENOTEMPTY));
    assert_eq!(mount.tree.data("/d").as_deref(), Some("data"));
}

#[tokio::test]
async fn suffixes_and_flags_say_how_a_znode_is_created() {
    let mount = Mount::new();
    mount.mkdir("/lock@eph").await.unwrap();
    assert_eq!(mount.tree.stat("/lock").unwrap().ephemeral_owner, OURS);
    assert_eq!(mount.mkdir("/lock@eph").await, Err(Errno::EEXIST));
    assert_eq!(mount.mkdir("/lock@dir/below").await, Err(Errno::EPERM));
    mount.mkdir("/q").await.unwrap();
    let entry = mount.mkdir("/q/n-@seq").await.unwrap();
    assert_eq!(mount.inode("/q/n-0000000000").await, entry.attributes.ino.0);
    assert_eq!(mount.walk("/q/n-@seq").await, Err(Errno::ENOENT));
    mount.mkdir("/q/@seq").await.unwrap();
    assert!(mount.tree.stat("/q/0000000001").is_some());
    let flags = libc::O_RDWR | libc::O_EXCL | libc::O_NONBLOCK | libc::O_NOATIME;
    let (_, opened) = mount.create("/q/m-", flags).await.unwrap();
    assert!(opened.is_stream);
    assert_eq!(mount.read(opened.handle, 0).await, "m-0000000002\n");
    assert_eq!(mount.tree.stat("/q/m-0000000002").unwrap().ephemeral_owner, OURS);
    for name in ["/a@ttl=x", "/a@eph,eph", "/a@pid=0", "/a@container,seq", "/@eph"] {
        assert_eq!(mount.mkdir(name).await, Err(Errno::EINVAL), "{name}");
        assert_eq!(mount.create(name, 0).await.map(drop), Err(Errno::EINVAL), "{name}");
    }
    mount.create("/t@ttl=30s", 0).await.unwrap();
    mount.mkdir("/c@container").await.unwrap();
    assert!(mount.tree.stat("/t").is_some() && mount.tree.stat("/c").is_some());
}

#[tokio::test]
async fn an_ephemeral_file_is_opened_again_only_by_its_own_session() {
    let mount = Mount::new();
    mount.write_file("/mine@eph", 0, "a").await.unwrap();
    mount.write_file("/mine@eph", 0, "b").await.unwrap();
    assert_eq!(mount.tree.data("/mine").as_deref(), Some("b"));
    mount.tree.create("/stays", Some(""));
    mount.tree.create_with("/theirs", Some(""), CreateMode::Ephemeral, Acl::open());
    for name in ["/stays@eph", "/theirs@eph"] {
        assert_eq!(mount.write_file(name, 0, "x").await, Err(Errno::EEXIST));
    }
}

#[tokio::test]
async fn a_descriptor_of_an_ephemeral_file_is_stale_after_the_session() {
    let mount = Mount::new();
    let (_, opened) = mount.create("/mine@eph", libc::O_RDWR).await.unwrap();
    mount.tree.create("/other", Some("x"));
    let other = mount.open("/other", libc::O_RDWR).await.unwrap();
    mount.tree.renew_session(SessionId(0x33));
    // Somebody else has the name by now.
    mount.tree.create("/mine", Some("theirs"));
    mount.write(opened.handle, 0, "lost").await.unwrap();
    assert_eq!(mount.filesystem.fsync(opened.handle).await, Err(Errno::ESTALE));
    assert_eq!(mount.tree.data("/mine").as_deref(), Some("theirs"));
    mount.write(other, 0, "y").await.unwrap();
    mount.filesystem.fsync(other).await.unwrap();
    assert_eq!(mount.tree.data("/other").as_deref(), Some("y"));
}

#[tokio::test]
async fn a_rename_replaces_data_and_follows_open_files() {
    let mount = Mount::new();
    mount.tree.create("/a", Some("new"));
    mount.tree.create("/b", Some("old"));
    let before = mount.tree.stat("/b").unwrap();
    let source = mount.open("/a", libc::O_RDWR).await.unwrap();
    assert_eq!(mount.read(source, 0).await, "new");
    let target = mount.open("/b", libc::O_RDWR).await.unwrap();
    mount.rename("/a", "/b").await.unwrap();
    let after = mount.tree.stat("/b").unwrap();
    assert_eq!((after.czxid, after.version), (before.czxid, before.version + 1));
    assert_eq!(mount.tree.stat("/a"), None);
    // Having read before the rename is no conflict: it is the same file.
    mount.write(source, 0, "N").await.unwrap();
    mount.close(source).await.unwrap();
    assert_eq!(mount.tree.data("/b").as_deref(), Some("New"));
    mount.write(target, 0, "lost with the file that was replaced").await.unwrap();
    mount.close(target).await.unwrap();
    assert_eq!(mount.tree.data("/b").as_deref(), Some("New"));
}

#[tokio::test]
async fn a_rename_to_a_new_name_is_no_conflict_for_open_files() {
    let mount = Mount::new();
    mount.tree.create("/a", Some("old"));
    mount.tree.set("/a", "0123456789");
    let handle = mount.open("/a", libc::O_RDWR).await.unwrap();
    mount.write(handle, 0, "A").await.unwrap();
    mount.rename("/a", "/b").await.unwrap();
    assert_eq!(mount.read(handle, 2).await, "23456789");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/b").as_deref(), Some("A123456789"));
}

#[tokio::test]
async fn a_rename_is_tried_again_when_others_come_between() {
    let mount = Mount::new();
    mount.tree.create("/a", Some("1"));
    mount.inode("/a").await;
    mount.tree.before(OpCode::Multi, |tree| tree.set("/a", "2"));
    mount.rename("/a", "/b").await.unwrap();
    assert_eq!(mount.tree.data("/b").as_deref(), Some("2"));
    mount.tree.create("/d", None);
    mount.tree.before(OpCode::Multi, |tree| tree.create("/d/late", Some("x")));
    mount.rename("/d", "/e").await.unwrap();
    assert_eq!(mount.tree.data("/e/late").as_deref(), Some("x"));
    mount.tree.create("/e/brief", Some("x"));
    mount.inode("/e").await;
    mount.tree.before(OpCode::GetChildren2, |_| {});
    mount.tree.before(OpCode::GetData, |_| {});
    mount.tree.before(OpCode::GetData, |tree| tree.delete("/e/brief"));
    mount.rename("/e", "/f").await.unwrap();
    assert_eq!(mount.tree.data("/f/late").as_deref(), Some("x"));
    mount.tree.before(OpCode::Multi, |tree| tree.delete("/b"));
    assert_eq!(mount.rename("/b", "/c").await, Err(Errno::ENOENT));
}

#[tokio::test]
async fn a_lost_answer_is_found_out_where_that_is_possible() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    mount.tree.lose_reply(OpCode::Delete);
    mount.unlink("/f").await.unwrap();
    mount.tree.create("/a", Some("1"));
    mount.tree.create("/b", Some("2"));
    mount.tree.lose_reply(OpCode::Multi);
    mount.rename("/a", "/b").await.unwrap();
    assert_eq!(mount.tree.data("/b").as_deref(), Some("1"));
    mount.tree.lose_request(OpCode::Multi);
    mount.rename("/b", "/c").await.unwrap();
    assert_eq!(mount.tree.data("/c").as_deref(), Some("1"));
    mount.tree.lose_request(OpCode::Create2);
    mount.mkdir("/d").await.unwrap();
    mount.tree.lose_reply(OpCode::Create2);
    mount.create("/g", 0).await.unwrap();
    // Whether we have made it, or somebody else, nobody can tell.
    mount.tree.lose_reply(OpCode::Create2);
    assert_eq!(mount.mkdir("/lock").await, Err(Errno::ETIMEDOUT));
}

#[tokio::test]
async fn another_znode_of_the_name_is_not_deleted_when_an_answer_was_lost() {
    let mount = Mount::new();
    for lost in [true, false] {
        mount.mkdir("/lock").await.unwrap();
        // Done and not answered, or not even done.
        match lost {
            true => mount.tree.lose_reply(OpCode::Delete),
            false => mount.tree.lose_request(OpCode::Delete),
        }
        // Who waited for it takes the lock before we have a connection again.
        mount.tree.before(OpCode::Sync, move |tree| {
            if !lost {
                tree.delete("/lock");
            }
            tree.create("/lock", None);
        });
        mount.rmdir("/lock").await.unwrap();
        assert!(mount.tree.stat("/lock").is_some(), "the lock of the next one");
        mount.tree.delete("/lock");
    }
}

#[tokio::test]
async fn one_alone_has_renamed_a_file_when_answers_were_lost() {
    let mount = Mount::new();
    mount.tree.create("/item", Some("1"));
    mount.tree.lose_request(OpCode::Multi);
    mount.tree.before(OpCode::Sync, |tree| tree.delete("/item"));
    assert_eq!(mount.rename("/item", "/ours").await, Err(Errno::ENOENT), "it was another");
    mount.tree.create("/item", Some("1"));
    mount.tree.create("/target", Some("0"));
    mount.tree.lose_request(OpCode::Multi);
    mount.tree.before(OpCode::Sync, |tree| tree.delete("/item"));
    assert_eq!(mount.rename("/item", "/target").await, Err(Errno::ENOENT), "it was another");
    mount.tree.create("/item", Some("1"));
    mount.tree.lose_reply(OpCode::Multi);
    mount.rename("/item", "/ours").await.unwrap();
    assert_eq!(mount.tree.data("/ours").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_replaced_file_keeps_its_own_acl() {
    let mount = Mount::new();
    mount.tree.create("/a", Some("new"));
    let own = Acl::parse_list("world:anyone:rwa").unwrap();
    mount.tree.create_with("/b", Some("old"), CreateMode::Persistent, own);
    mount.rename("/a", "/b").await.unwrap();
    let inode = mount.inode("/b").await;
    let acl = mount.filesystem.getxattr(inode, OsStr::new("user.znode.acl")).await;
    assert_eq!(acl.as_deref(), Ok("world:anyone:rwa"));
}

#[tokio::test]
async fn a_moved_directory_keeps_the_inodes_below_it() {
    let mount = Mount::new();
    mount.tree.create("/d", Some("own"));
    mount.tree.create("/d/f", Some("x"));
    let before = mount.inode("/d/f").await;
    mount.mkdir("/to").await.unwrap();
    mount.rename("/d", "/to/e").await.unwrap();
    assert_eq!(mount.inode("/to/e/f").await, before);
    assert_eq!(mount.tree.data("/to/e").as_deref(), Some("own"));
    assert_eq!(mount.rename("/to", "/to/e/in").await, Err(Errno::EINVAL));
    assert_eq!(mount.rename("/to", "/missing@dir").await, Err(Errno::EINVAL));
}

#[tokio::test]
async fn kinds_are_not_replaced_by_other_kinds() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    mount.tree.create("/empty", None);
    mount.tree.create("/full", None);
    mount.tree.create("/full/child", Some("x"));
    assert_eq!(mount.rename("/f", "/empty").await, Err(Errno::EISDIR));
    assert_eq!(mount.rename("/full", "/f").await, Err(Errno::ENOTDIR));
    assert_eq!(mount.rename("/empty", "/full").await, Err(Errno::ENOTEMPTY));
    mount.rename("/full", "/empty").await.unwrap();
    assert_eq!(mount.tree.data("/empty/child").as_deref(), Some("x"));
    let kept = mount.rename_as("/f", "/empty/child", RenameKind::NoReplace).await;
    assert_eq!(kept, Err(Errno::EEXIST));
}

#[tokio::test]
async fn two_files_exchange_their_data() {
    let mount = Mount::new();
    mount.tree.create("/a", Some("1"));
    mount.tree.create("/b", Some("2"));
    let (a, b) = (mount.inode("/a").await, mount.inode("/b").await);
    mount.rename_as("/a", "/b", RenameKind::Exchange).await.unwrap();
    assert_eq!(mount.tree.data("/a").as_deref(), Some("2"));
    assert_eq!((mount.inode("/a").await, mount.inode("/b").await), (b, a));
    mount.tree.create("/d", None);
    let refused = mount.rename_as("/a", "/d", RenameKind::Exchange).await;
    assert_eq!(refused, Err(Errno::EINVAL));
}

#[tokio::test]
async fn chmod_edits_the_acl_where_there_are_credentials() {
    let mode = |mode| AttributeChange { mode: Some(mode), ..AttributeChange::default() };
    let plain = Mount::new();
    plain.tree.create("/f", Some("x"));
    let inode = plain.inode("/f").await;
    plain.filesystem.setattr(ROOT_USER, inode, None, mode(0o600)).await.unwrap();
    assert_eq!(plain.tree.acl("/f"), "world:anyone:cdrwa");
    let strict = Mount::with(|options| options.strict_chmod = true);
    strict.tree.create("/f", Some("x"));
    let inode = strict.inode("/f").await;
    let refused = strict.filesystem.setattr(ROOT_USER, inode, None, mode(0o600)).await;
    assert_eq!(refused, Err(Errno::EPERM));
    let bob = Mount::with(|options| options.identities = vec![("digest".into(), "bob:x=".into())]);
    bob.tree.create("/f", Some("x"));
    let inode = bob.inode("/f").await;
    let changed = bob.filesystem.setattr(ROOT_USER, inode, None, mode(0o600)).await.unwrap();
    assert_eq!(bob.tree.acl("/f"), "digest:bob:x=:cdrwa");
    assert_eq!(changed.perm, 0o600);
    bob.create("/new", 0).await.unwrap();
    assert_eq!(bob.tree.acl("/new"), "digest:bob:x=:cdrwa,world:anyone:r", "mode 644");
}

#[tokio::test]
async fn what_the_acl_forbids_is_refused_at_open() {
    let mount = Mount::new();
    let read_only = Acl::parse_list("world:anyone:r").unwrap();
    mount.tree.create_with("/f", Some("x"), CreateMode::Persistent, read_only);
    assert_eq!(mount.open("/f", libc::O_WRONLY | libc::O_TRUNC).await, Err(Errno::EACCES));
    assert_eq!(mount.open("/f", libc::O_WRONLY).await, Err(Errno::EACCES));
    mount.open("/f", libc::O_RDONLY).await.unwrap();
    let write_only = Acl::parse_list("world:anyone:w").unwrap();
    mount.tree.create_with("/hidden", Some("x"), CreateMode::Persistent, write_only);
    assert_eq!(mount.walk("/hidden").await, Err(Errno::EACCES));
    assert_eq!(mount.names("/").await, ["f", "hidden"], "what cannot be looked at is still listed");
}

#[tokio::test]
async fn strangers_are_held_to_the_bits_that_are_shown() {
    let mount = Mount::with(|options| options.umask = Some(0o027));
    mount.tree.create("/f", Some("x"));
    let inode = mount.inode("/f").await;
    let open = mount.filesystem.open(STRANGER, inode, libc::O_RDONLY).await;
    assert_eq!(open, Err(Errno::EACCES));
    let name = OsStr::new("new");
    let create = mount.filesystem.mkdir(STRANGER, ROOT, name, 0o755).await;
    assert_eq!(create, Err(Errno::EACCES));
    let change = AttributeChange { mode: Some(0o777), ..AttributeChange::default() };
    let chmod = mount.filesystem.setattr(STRANGER, inode, None, change).await;
    assert_eq!(chmod, Err(Errno::EPERM));
}

#[tokio::test]
async fn a_read_only_mount_refuses_every_change() {
    let mount = Mount::with(|options| options.read_only = true);
    mount.tree.create("/f", Some("x"));
    let inode = mount.inode("/f").await;
    assert_eq!(mount.open("/f", libc::O_WRONLY).await, Err(Errno::EROFS));
    assert_eq!(mount.create("/g", 0).await.map(drop), Err(Errno::EROFS));
    assert_eq!(mount.mkdir("/d").await, Err(Errno::EROFS));
    assert_eq!(mount.unlink("/f").await, Err(Errno::EROFS));
    assert_eq!(mount.rename("/f", "/g").await, Err(Errno::EROFS));
    let size = AttributeChange { size: Some(0), ..AttributeChange::default() };
    let truncate = mount.filesystem.setattr(ROOT_USER, inode, None, size).await;
    assert_eq!(truncate, Err(Errno::EROFS));
    mount.open("/f", libc::O_RDONLY).await.unwrap();
}

#[tokio::test]
async fn extended_attributes_show_stat_and_acl() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    mount.tree.set("/f", "y");
    let inode = mount.inode("/f").await;
    let get = async |name: &str| {
        let name = format!("user.znode.{name}");
        mount.filesystem.getxattr(inode, OsStr::new(&name)).await
    };
    assert_eq!(get("version").await.as_deref(), Ok("1"));
    assert_eq!(get("acl").await.as_deref(), Ok("world:anyone:cdrwa"));
    assert_eq!(get("other").await, Err(Errno::ENODATA));
    let acl = OsStr::new("user.znode.acl");
    mount.filesystem.setxattr(ROOT_USER, inode, acl, b"world:anyone:ra").await.unwrap();
    assert_eq!(mount.tree.acl("/f"), "world:anyone:ra");
    assert_eq!(mount.walk("/f").await.unwrap().perm, 0o444);
    let nonsense = mount.filesystem.setxattr(ROOT_USER, inode, acl, b"nonsense").await;
    assert_eq!(nonsense, Err(Errno::EINVAL));
    let version = OsStr::new("user.znode.version");
    let set = mount.filesystem.setxattr(ROOT_USER, inode, version, b"7").await;
    assert_eq!(set, Err(Errno::ENOTSUP));
}

#[tokio::test]
async fn status_files_tell_of_the_session() {
    let mount = Mount::new();
    let directory = mount.inode("/@status").await;
    let state = mount.filesystem.lookup(ROOT_USER, directory, OsStr::new("state")).await.unwrap();
    let opened = mount.filesystem.open(ROOT_USER, state.attributes.ino.0, libc::O_RDONLY).await;
    let text = mount.read(opened.unwrap().handle, 0).await;
    assert_eq!(text, "connected\n");
    assert_eq!(state.attributes.size, text.len() as u64);
    assert!(mount.names("/").await.is_empty(), "it is not listed");
    assert_eq!(mount.names("/@status").await, ["server", "session", "state", "stats"]);
    assert_eq!(mount.create("/@status/x", 0).await.map(drop), Err(Errno::EACCES));
}
