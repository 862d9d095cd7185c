//! Rename: one multi, or EXDEV so that mv copies.

use znodefs::CreateMode;
use znodefs_tests::{World, on_every_backend};

fn errno(result: std::io::Result<()>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn a_file_gets_another_name(world: &World) {
    world.sh("echo value > old; mv old new").ok();
    assert_eq!(world.sh("ls; cat new").ok(), "new\nzookeeper\nvalue\n");
}

fn a_rename_replaces_its_target_in_one_transaction(world: &World) {
    let mut client = world.client();
    world.sh("echo old > target; echo new > temporary").ok();
    let before = client.stat("/target").unwrap();
    world.sh("mv temporary target").ok();
    let after = client.stat("/target").unwrap();
    assert_eq!(after.czxid, before.czxid, "the target is still the same znode");
    assert_eq!(after.version, before.version + 1);
    assert_eq!(client.stat("/").unwrap().pzxid, after.mzxid, "set and deleted by one transaction");
    assert_eq!(client.data("/target").as_deref(), Some(&b"new\n"[..]));
    assert_eq!(client.stat("/temporary"), None);
}

fn a_small_subtree_moves_with_all_its_data(world: &World) {
    let mut client = world.client();
    world.sh("mkdir --parents a/b/c z; echo 1 > a/@data; echo 2 > a/b/file; touch a/empty").ok();
    world.sh("mv a z/moved").ok();
    assert_eq!(client.data("/z/moved").as_deref(), Some(&b"1\n"[..]));
    assert_eq!(client.data("/z/moved/b/file").as_deref(), Some(&b"2\n"[..]));
    assert_eq!(client.data("/z/moved/empty").as_deref(), Some(&b""[..]));
    assert_eq!(client.data("/z/moved/b/c"), None);
    assert_eq!(client.stat("/a"), None);
    assert_eq!(client.stat("/z/moved").unwrap().czxid, client.stat("/").unwrap().pzxid);
}

fn a_rename_over_something_of_another_kind_is_refused(world: &World) {
    world.sh("mkdir empty directory full; touch full/child file; echo x > directory/y").ok();
    let rename = |from: &str, to: &str| std::fs::rename(world.path(from), world.path(to));
    assert_eq!(errno(rename("file", "empty")), Some(libc::EISDIR));
    assert_eq!(errno(rename("directory", "file")), Some(libc::ENOTDIR));
    assert_eq!(errno(rename("directory", "full")), Some(libc::ENOTEMPTY));
    assert_eq!(errno(rename("missing", "new")), Some(libc::ENOENT));
    assert_eq!(errno(rename("directory", "directory/inside")), Some(libc::EINVAL));
    rename("directory", "empty").unwrap();
    assert_eq!(world.sh("cat empty/y; ls").ok(), "x\nempty\nfile\nfull\nzookeeper\n");
}

fn a_subtree_too_big_for_one_transaction_is_left_to_mv_to_copy(world: &World) {
    world.sh("mkdir big; for i in $(seq 40); do head -c 50000 /dev/zero > big/$i; done").ok();
    let rename = std::fs::rename(world.path("big"), world.path("moved"));
    assert_eq!(errno(rename), Some(libc::EXDEV));
    assert_eq!(world.client().children("/big").len(), 40, "nothing has moved");
    world.sh("mv big moved").ok();
    assert_eq!(world.client().children("/moved").len(), 40);
    assert_eq!(world.client().stat("/big"), None);
}

fn an_ephemeral_of_another_session_is_left_to_mv_to_copy(world: &World) {
    let mut client = world.client();
    client.create_with("/theirs", Some(b"x"), CreateMode::Ephemeral).unwrap();
    let rename = std::fs::rename(world.path("theirs"), world.path("ours"));
    assert_eq!(errno(rename), Some(libc::EXDEV));
    assert!(client.stat("/theirs").is_some());
}

fn a_rename_that_must_not_replace_does_not(world: &World) {
    world.sh("echo one > a; echo two > b; mv --no-clobber a b").ok();
    assert_eq!(world.sh("cat a b").ok(), "one\ntwo\n");
}

fn what_is_open_while_it_is_renamed_is_still_the_file(world: &World) {
    let script = "exec 9>a; echo one >&9; mv a b; echo two >&9; exec 9>&-; cat b; ls";
    assert_eq!(world.sh(script).ok(), "one\ntwo\nb\nzookeeper\n");
}

on_every_backend![
    a_file_gets_another_name,
    a_rename_replaces_its_target_in_one_transaction,
    a_small_subtree_moves_with_all_its_data,
    a_rename_over_something_of_another_kind_is_refused,
    a_subtree_too_big_for_one_transaction_is_left_to_mv_to_copy,
    an_ephemeral_of_another_session_is_left_to_mv_to_copy,
    a_rename_that_must_not_replace_does_not,
    what_is_open_while_it_is_renamed_is_still_the_file,
];
