//! What was changed while nobody told is found by comparison.

use std::sync::Arc;

use super::*;
use crate::filesystem::remote::{Room, Task};
use crate::service::Service;

/// A mount on which programs have looked into `/d`, whose children are known.
async fn announcing() -> (Mount, Arc<Filesystem>) {
    let tree = TestTree::new();
    for (path, data) in [("/d", None), ("/d/file", Some("1")), ("/d/other", Some("1"))] {
        tree.create(path, data);
    }
    tree.create("/d/directory", None);
    tree.create("/unseen", None);
    let options = MountOptions { uid: Some(0), gid: Some(0), ..MountOptions::new("test") };
    let filesystem = Arc::new(Filesystem::new(Arc::new(tree.clone()), &options));
    filesystem.start_announcing();
    let mount = Mount { tree: tree.clone(), filesystem: Filesystem::new(Arc::new(tree), &options) };
    let directory = filesystem.lookup(ROOT_USER, ROOT, OsStr::new("d")).await.unwrap();
    assert_eq!(directory.attributes.kind, FileType::Directory);
    let room = Room { replays: false, surveys: true };
    while let Some(Task::Survey(directory)) = filesystem.next_task(32, room) {
        filesystem.survey(&directory).await;
    }
    (mount, filesystem)
}

/// The znodes that a comparison hands to replay.
async fn found(filesystem: &Arc<Filesystem>) -> Vec<String> {
    assert_eq!(filesystem.compare().await, Ok(true));
    let mut found = Vec::new();
    let room = Room { replays: true, surveys: false };
    while let Some(task) = filesystem.next_task(32, room) {
        let Task::Replay(batch) = task else { continue };
        for (znode, remote) in &batch.changes {
            assert!(remote.compared.is_some());
            let now = filesystem.state_to_replay(znode).await.unwrap();
            filesystem.note_announced(znode, now.as_ref());
            found.push(znode.to_string());
        }
        filesystem.batch_done(&batch.directory);
    }
    found.sort();
    found
}

fn miss(mount: &Mount, filesystem: &Filesystem) {
    filesystem.remote.announced.lock().miss(mount.tree.last_zxid());
}

#[tokio::test]
async fn every_difference_is_found_once() {
    let (mount, filesystem) = announcing().await;
    miss(&mount, &filesystem);
    assert_eq!(found(&filesystem).await, [""; 0], "nothing has changed");
    miss(&mount, &filesystem);
    mount.tree.set("/d/file", "2");
    mount.tree.delete("/d/directory");
    mount.tree.create("/d/directory", Some("now a file"));
    mount.tree.create("/d/new", None);
    mount.tree.delete("/unseen");
    mount.tree.create("/top", None);
    let expected = ["/d/directory", "/d/file", "/d/new", "/top", "/unseen"];
    assert_eq!(found(&filesystem).await, expected);
    miss(&mount, &filesystem);
    assert_eq!(found(&filesystem).await, [""; 0], "all of it is told");
}

#[tokio::test]
async fn what_programs_looked_at_meanwhile_is_still_found() {
    let (mount, filesystem) = announcing().await;
    miss(&mount, &filesystem);
    mount.tree.set("/d/file", "2");
    mount.tree.create("/d/new", Some("1"));
    let directory = filesystem.lookup(ROOT_USER, ROOT, OsStr::new("d")).await.unwrap();
    for name in ["file", "new"] {
        let parent = directory.attributes.ino.0;
        filesystem.lookup(ROOT_USER, parent, OsStr::new(name)).await.unwrap();
    }
    assert_eq!(found(&filesystem).await, ["/d/file", "/d/new"]);
}

#[tokio::test]
async fn what_changes_during_the_comparison_is_compared_again() {
    let (mount, filesystem) = announcing().await;
    miss(&mount, &filesystem);
    let again = filesystem.clone();
    mount.tree.before(OpCode::Exists, move |tree| {
        again.remote.announced.lock().miss(tree.last_zxid());
        tree.set("/d/other", "2");
    });
    assert_eq!(filesystem.compare().await, Ok(false));
    assert_eq!(found(&filesystem).await, ["/d/other"]);
}

#[tokio::test]
async fn only_directories_whose_children_changed_are_listed_and_nothing_else_is_read() {
    let (mount, filesystem) = announcing().await;
    miss(&mount, &filesystem);
    mount.tree.create("/d/new", None);
    mount.tree.take_log();
    assert_eq!(filesystem.compare().await, Ok(true));
    let log = mount.tree.take_log();
    let listed: Vec<_> = log.iter().filter(|line| line.contains("Children")).collect();
    assert!(listed.len() == 1 && listed[0].contains("/d"), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("GetData")), "{log:?}");
}
