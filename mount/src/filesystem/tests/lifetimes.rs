//! Znodes that end with an open file or a process, with other clients coming between.

use znodefs::{CreateMode, OpCode};

use super::*;

const EXCLUSIVE: i32 = libc::O_RDWR | libc::O_EXCL;

#[tokio::test]
async fn a_znode_of_an_open_file_goes_with_its_last_close() {
    let mount = Mount::new();
    for (path, flags) in [("/f@fd", EXCLUSIVE), ("/f", EXCLUSIVE | libc::O_ASYNC)] {
        let handle = mount.create(path, flags).await.unwrap().1.handle;
        assert_eq!(mount.tree.stat("/f").unwrap().ephemeral_owner, OURS);
        mount.write(handle, 0, "data").await.unwrap();
        mount.close(handle).await.unwrap();
        assert_eq!(mount.tree.stat("/f"), None);
        assert_eq!(mount.walk("/f").await, Err(Errno::ENOENT));
    }
}

#[tokio::test]
async fn a_file_that_was_made_once_is_not_deleted_twice() {
    let mount = Mount::new();
    let handle = mount.create("/f@fd", EXCLUSIVE).await.unwrap().1.handle;
    mount.tree.delete("/f");
    mount.tree.create("/f", Some("another's"));
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("another's"));
    mount.tree.delete("/f");
    let handle = mount.create("/f@fd", EXCLUSIVE).await.unwrap().1.handle;
    mount.tree.before(OpCode::Delete, |tree| {
        tree.delete("/f");
        tree.create("/f", Some("another's"));
        tree.set("/f", "later");
    });
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.data("/f").as_deref(), Some("later"));
}

#[tokio::test]
async fn a_session_that_has_ended_takes_its_znodes_along_and_no_others() {
    let mount = Mount::new();
    let handle = mount.create("/f@fd", EXCLUSIVE).await.unwrap().1.handle;
    mount.tree.renew_session(SessionId(0x33));
    assert_eq!(mount.tree.stat("/f"), None);
    mount.create("/f@eph", EXCLUSIVE).await.unwrap();
    mount.tree.take_log();
    mount.close(handle).await.unwrap();
    assert!(mount.tree.stat("/f").is_some(), "the new session's");
    assert!(!mount.tree.take_log().iter().any(|line| line.starts_with("delete")));
}

#[tokio::test]
async fn a_lifetime_goes_along_with_a_rename() {
    let mount = Mount::new();
    let handle = mount.create("/f@fd", EXCLUSIVE).await.unwrap().1.handle;
    mount.rename("/f", "/g").await.unwrap();
    assert_eq!(mount.tree.stat("/g").unwrap().ephemeral_owner, OURS);
    mount.close(handle).await.unwrap();
    assert_eq!(mount.tree.stat("/g"), None);
    let handle = mount.create("/f@fd", EXCLUSIVE).await.unwrap().1.handle;
    mount.create("/stays@eph", EXCLUSIVE).await.unwrap();
    mount.rename("/f", "/stays").await.unwrap();
    mount.close(handle).await.unwrap();
    assert!(mount.tree.stat("/stays").is_some());
}

#[tokio::test]
async fn a_creation_whose_answer_is_lost_is_found_and_ends_in_its_time() {
    let mount = Mount::new();
    mount.tree.create_with("/n-", Some(""), CreateMode::PersistentSequential, Acl::open());
    for name in ["/f@fd", "/n-@seq,fd"] {
        for lost in [TestTree::lose_reply, TestTree::lose_request] {
            lost(&mount.tree, OpCode::Create2);
            let (entry, opened) = mount.create(name, EXCLUSIVE).await.unwrap();
            let path = mount.filesystem.inode(entry.attributes.ino.0).unwrap().path;
            assert_eq!(mount.tree.stat(&path).unwrap().ephemeral_owner, OURS, "{path}");
            mount.close(opened.handle).await.unwrap();
            assert_eq!(mount.tree.stat(&path), None, "{path}");
        }
    }
    // What another has made meanwhile is not taken for ours.
    mount.tree.before(OpCode::Create2, |tree| {
        tree.lose_request(OpCode::Create2);
        tree.create("/f", None);
    });
    assert!(mount.create("/f@fd", EXCLUSIVE).await.is_err());
    assert!(mount.tree.stat("/f").is_some());
}

#[tokio::test]
async fn a_znode_of_a_process_goes_with_it() {
    let mount = Mount::new();
    let thread = nix::unistd::gettid().as_raw() as u32;
    let caller = Caller { thread, ..ROOT_USER };
    for made in ["/lock", "/other"] {
        let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let name = format!("{}@pid={}", &made[1..], process.id());
        mount.filesystem.mkdir(caller, ROOT, OsStr::new(&name), 0o755).await.unwrap();
        assert_eq!(mount.tree.stat(made).unwrap().ephemeral_owner, OURS);
        process.kill().unwrap();
        while mount.tree.stat(made).is_some() {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        process.wait().unwrap();
        let again = mount.filesystem.mkdir(caller, ROOT, OsStr::new(&name), 0o755).await;
        assert_eq!(again.unwrap_err(), Errno::ESRCH);
    }
    let init = OsStr::new("lock@pid=1");
    let stranger = Caller { thread, ..STRANGER };
    assert_eq!(
        mount.filesystem.mkdir(stranger, ROOT, init, 0o755).await.unwrap_err(),
        Errno::EPERM
    );
    assert_eq!(mount.tree.stat("/lock"), None);
}

#[tokio::test]
async fn only_an_open_makes_an_open_file() {
    let mount = Mount::new();
    assert_eq!(mount.mkdir("/d@fd").await.unwrap_err(), Errno::EINVAL);
    let name = OsStr::new("f@fd");
    let made = mount.filesystem.mknod(ROOT_USER, ROOT, name, libc::S_IFREG | 0o644).await;
    assert_eq!(made.unwrap_err(), Errno::EINVAL);
}

#[tokio::test]
async fn a_process_that_ends_while_its_znode_is_made_takes_it_along() {
    let mount = Mount::new();
    let thread = nix::unistd::gettid().as_raw() as u32;
    let caller = Caller { thread, ..ROOT_USER };
    let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let name = format!("lock@pid={}", process.id());
    mount.tree.before(OpCode::Create2, move |_| {
        process.kill().unwrap();
        process.wait().unwrap();
    });
    mount.filesystem.mkdir(caller, ROOT, OsStr::new(&name), 0o755).await.unwrap();
    while mount.tree.stat("/lock").is_some() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
