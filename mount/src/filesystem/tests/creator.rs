//! Files that are created, or made, read-only while they are still being written, and what can be neither
//! read nor written.

use znodefs::OpCode;

use super::*;

fn bob() -> Mount {
    Mount::with(|options| options.identities = vec![("digest".into(), "bob:x=".into())])
}

fn mode(mode: u32) -> AttributeChange {
    AttributeChange { mode: Some(mode), ..AttributeChange::default() }
}

async fn create_read_only(mount: &Mount, name: &str) -> u64 {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let name = OsStr::new(name);
    mount.filesystem.create(ROOT_USER, ROOT, name, 0o444, flags).await.unwrap().1.handle
}

#[tokio::test]
async fn who_creates_a_read_only_file_writes_it_and_nobody_else_does() {
    let mount = bob();
    let handle = create_read_only(&mount, "f").await;
    mount.write(handle, 0, "data").await.unwrap();
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("data"));
    assert_eq!(mount.tree.acl("/f"), "digest:bob:x=:ra,world:anyone:r");
    assert_eq!(mount.walk("/f").await.unwrap().perm, 0o444);
    assert_eq!(mount.open("/f", libc::O_WRONLY).await, Err(Errno::EACCES));
}

#[tokio::test]
async fn an_answer_lost_meanwhile_leaves_nothing_open() {
    let lose: fn(&TestTree) = |tree| tree.lose_reply(OpCode::SetAcl);
    // The first is for the commit, the second comes afterwards.
    let lose_second: fn(&TestTree) =
        |tree| tree.before(OpCode::SetAcl, |tree| tree.lose_reply(OpCode::SetAcl));
    for lose in [lose, lose_second] {
        let mount = bob();
        let handle = create_read_only(&mount, "f").await;
        mount.write(handle, 0, "data").await.unwrap();
        lose(&mount.tree);
        mount.close(handle).await.unwrap();
        assert_eq!(mount.tree.data("/f").as_deref(), Some("data"));
        assert_eq!(mount.tree.acl("/f"), "digest:bob:x=:ra,world:anyone:r");
    }
}

#[tokio::test]
async fn a_file_that_another_has_closed_stays_closed() {
    let mount = bob();
    let handle = create_read_only(&mount, "f").await;
    mount.write(handle, 0, "data").await.unwrap();
    let inode = mount.inode("/f").await;
    let acl = OsStr::new("user.znode.acl");
    mount.filesystem.setxattr(ROOT_USER, inode, acl, b"world:anyone:r").await.unwrap();
    assert_eq!(mount.close(handle).await, Err(Errno::EACCES));
    assert_eq!(mount.tree.acl("/f"), "world:anyone:r");
}

#[tokio::test]
async fn what_was_written_before_a_chmod_is_committed_before_it() {
    let mount = bob();
    mount.tree.create("/f", Some(""));
    let thread = nix::unistd::gettid().as_raw() as u32;
    let caller = Caller { thread, ..ROOT_USER };
    let inode = mount.inode("/f").await;
    let handle = mount.filesystem.open(caller, inode, libc::O_WRONLY).await.unwrap().handle;
    mount.write(handle, 0, "data").await.unwrap();
    mount.filesystem.setattr(caller, inode, Some(handle), mode(0o444)).await.unwrap();
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("data"));
}

#[tokio::test]
async fn a_mode_of_nothing_is_seen_and_taken_back() {
    let mount = bob();
    mount.tree.create("/f", Some("data"));
    mount.mkdir("/d").await.unwrap();
    for path in ["/f", "/d"] {
        let inode = mount.inode(path).await;
        let changed = mount.filesystem.setattr(ROOT_USER, inode, None, mode(0)).await.unwrap();
        assert_eq!(changed.perm, 0, "{path}");
        assert_eq!(mount.walk(path).await.unwrap().perm, 0, "{path}");
        let changed = mount.filesystem.setattr(ROOT_USER, inode, None, mode(0o666)).await.unwrap();
        assert_ne!(changed.perm, 0, "{path}");
    }
    assert_eq!(mount.walk("/f").await.unwrap().size, 4);
    mount.rmdir("/d").await.unwrap();
}

#[tokio::test]
async fn only_the_owner_may_set_a_time_even_if_nobody_keeps_it() {
    let mount = Mount::new();
    mount.tree.create("/f", Some("x"));
    let inode = mount.inode("/f").await;
    let other = Some(TimeOrNow::SpecificTime(std::time::SystemTime::UNIX_EPOCH));
    for change in [
        AttributeChange { atime: other, ..AttributeChange::default() },
        AttributeChange { mtime: other, ..AttributeChange::default() },
    ] {
        let refused = mount.filesystem.setattr(STRANGER, inode, None, change).await;
        assert_eq!(refused, Err(Errno::EPERM));
        mount.filesystem.setattr(ROOT_USER, inode, None, change).await.unwrap();
    }
    let now = AttributeChange { mtime: Some(TimeOrNow::Now), ..AttributeChange::default() };
    mount.filesystem.setattr(STRANGER, inode, None, now).await.unwrap();
    assert_eq!(mount.tree.stat("/f").unwrap().version, 1);
}
