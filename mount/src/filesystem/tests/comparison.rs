//! What was changed while nobody told is found by comparison.

use std::sync::Arc;

use znodefs::Zxid;

use super::*;
use crate::echo::{Change, Decided, Happening};
use crate::filesystem::remote::{Room, Task};
use crate::remote_changes::Batch;
use crate::replay::Action;
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

fn change_elsewhere(mount: &Mount, filesystem: &Filesystem, znode: &str, happening: Happening) {
    let zxid = mount.tree.last_zxid();
    let after = Zxid(zxid.0 - 1);
    let change = Change { path: znode.into(), happening, zxid: Some(zxid), after };
    filesystem.change_decided(&Decided { change, is_own: false, was_uncertain: false });
}

fn next_batch(filesystem: &Filesystem) -> Option<Batch> {
    match filesystem.next_task(32, Room { replays: true, surveys: false })? {
        Task::Replay(batch) => Some(batch),
        _ => next_batch(filesystem),
    }
}

/// Replays a batch as far as the kernel is not asked; gives what it would be told.
async fn replay(filesystem: &Filesystem, batch: &Batch) -> Vec<(String, Action)> {
    let mut told = Vec::new();
    for (znode, remote) in &batch.changes {
        let now = filesystem.state_to_replay(znode).await.unwrap();
        let steps = filesystem.plan(znode, remote, now.as_ref());
        told.extend(steps.into_iter().map(|step| (step.command.name, step.command.action)));
        filesystem.note_announced(znode, now.as_ref());
    }
    filesystem.batch_done(&batch.directory);
    told
}

#[tokio::test]
async fn a_creation_that_was_missed_is_announced_by_the_change_that_was_not() {
    for compares_first in [false, true] {
        let (mount, filesystem) = announcing().await;
        miss(&mount, &filesystem);
        mount.tree.create("/d/new", None);
        mount.tree.delete("/d/other");
        mount.tree.create("/d/other", Some("1"));
        for znode in ["/d/new", "/d/other"] {
            mount.tree.set(znode, "new");
            change_elsewhere(&mount, &filesystem, znode, Happening::Changed);
        }
        let first = next_batch(&filesystem).unwrap();
        if compares_first {
            assert_eq!(filesystem.compare().await, Ok(true));
        }
        let expected = [
            ("new", Action::CreateFile(3)),
            ("other", Action::Unlink),
            ("other", Action::CreateFile(3)),
        ];
        let expected = expected.map(|(name, action)| (name.to_string(), action));
        assert_eq!(replay(&filesystem, &first).await, expected);
        if !compares_first {
            assert_eq!(filesystem.compare().await, Ok(true));
        }
        while let Some(batch) = next_batch(&filesystem) {
            assert_eq!(replay(&filesystem, &batch).await, [], "everything is told already");
        }
    }
}

#[tokio::test]
async fn what_was_found_is_announced_whatever_looks_at_it_before() {
    let (mount, filesystem) = announcing().await;
    let directory = filesystem.lookup(ROOT_USER, ROOT, OsStr::new("d")).await.unwrap();
    filesystem.remote.announced.lock().release("/d");
    filesystem.remote.announced.lock().hold(&"/d".into());
    miss(&mount, &filesystem);
    mount.tree.create("/d/new", Some("1"));
    mount.tree.create("/d/also", Some("1"));
    assert_eq!(filesystem.compare().await, Ok(true));
    let parent = directory.attributes.ino.0;
    filesystem.lookup(ROOT_USER, parent, OsStr::new("new")).await.unwrap();
    filesystem.survey(&"/d".into()).await;
    let mut told = replay(&filesystem, &next_batch(&filesystem).unwrap()).await;
    told.sort_by(|first, second| first.0.cmp(&second.0));
    let expected = ["also", "new"].map(|name| (name.to_string(), Action::CreateFile(1)));
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_deletion_that_was_missed_is_announced_when_the_name_has_come_and_gone_again() {
    let (mount, filesystem) = announcing().await;
    miss(&mount, &filesystem);
    mount.tree.delete("/d/file");
    mount.tree.create("/d/file", None);
    change_elsewhere(&mount, &filesystem, "/d/file", Happening::Created);
    mount.tree.delete("/d/file");
    change_elsewhere(&mount, &filesystem, "/d/file", Happening::Deleted);
    let batch = next_batch(&filesystem).unwrap();
    assert_eq!(replay(&filesystem, &batch).await, [("file".to_string(), Action::Unlink)]);
}

#[tokio::test]
async fn a_directory_that_somebody_is_in_already_is_not_taken_away_to_announce_it() {
    let (mount, filesystem) = announcing().await;
    let parent = filesystem.lookup(ROOT_USER, ROOT, OsStr::new("d")).await.unwrap();
    let parent = parent.attributes.ino.0;
    miss(&mount, &filesystem);
    mount.tree.create("/d/file/child", None);
    mount.tree.delete("/d/directory");
    mount.tree.create("/d/directory", None);
    for name in ["file", "directory"] {
        filesystem.lookup(ROOT_USER, parent, OsStr::new(name)).await.unwrap();
    }
    assert_eq!(filesystem.compare().await, Ok(true));
    let mut found = Vec::new();
    let mut told = Vec::new();
    // Which directory comes first is not said.
    while let Some(batch) = next_batch(&filesystem) {
        found.extend(batch.changes.iter().map(|(znode, _)| znode.to_string()));
        told.extend(replay(&filesystem, &batch).await);
    }
    found.sort();
    assert_eq!(found, ["/d/directory", "/d/file", "/d/file/child"]);
    assert_eq!(told, [("child".to_string(), Action::CreateDirectory)]);
}
