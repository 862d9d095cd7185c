//! What others change is seen, whoever they are and however the kernel stands to it.

use std::path::Path;
use std::process::Command;

use znodefs_tests::{Shell, on_znoded, wait_until};

use crate::fixture::{Inotifywait, LIMIT, TwoMounts};

fn files_and_directories_of_another_mount_come_change_and_go(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let watching = Inotifywait::of(&mounts.here);
    mounts.there.sh("echo one > d/f").ok();
    watching.wait_for("CREATE d/f");
    watching.wait_for("MODIFY d/f");
    mounts.there.sh("mkdir d/e; rm d/f; rmdir d/e; rmdir d").ok();
    let events = watching.wait_for("DELETE,ISDIR d");
    for event in ["CREATE,ISDIR d/e", "DELETE d/f", "DELETE,ISDIR d/e", "DELETE_SELF d/"] {
        assert!(events.iter().any(|known| known == event), "{event} in {events:#?}");
    }
    assert_eq!(mounts.here.sh("ls").ok(), "zookeeper\n");
}

fn changes_by_znode_arrive_once_each(mounts: &mut TwoMounts) {
    let watching = Inotifywait::of(&mounts.here);
    mounts.znode(&["create", "/f", "value"]).ok();
    watching.expect(&["CREATE f", "MODIFY f", "CLOSE_WRITE f"]);
    mounts.znode(&["set", "/f", "other"]).ok();
    let mut expected = vec!["CREATE f", "MODIFY f", "CLOSE_WRITE f", "MODIFY f", "CLOSE_WRITE f"];
    watching.expect(&expected);
    mounts.znode(&["rm", "/f"]).ok();
    expected.push("DELETE f");
    watching.expect(&expected);
}

fn locks_are_not_announced_where_they_are_not_listed(mounts: &mut TwoMounts) {
    let watching = Inotifywait::of(&mounts.here);
    mounts.there.sh("touch f; flock f true; touch last").ok();
    let events = watching.wait_for("CREATE last");
    assert!(!events.iter().any(|event| event.contains("znodefs")), "{events:#?}");
    // Who looks at them is told.
    let watching = Inotifywait::of(&mounts.here.join("znodefs/locks"));
    mounts.there.sh("flock f true; touch other; flock other true").ok();
    watching.wait_for("CREATE,ISDIR %2Fother");
}

fn a_file_that_was_looked_for_in_vain_appears(mounts: &mut TwoMounts) {
    mounts.here.sh("! test -e f && ! test -e d && ! test -e f@dir").ok();
    let watching = Inotifywait::of(&mounts.here);
    mounts.there.sh("echo x > f; mkdir d").ok();
    watching.wait_for("CREATE,ISDIR d");
    watching.wait_for("MODIFY f");
    assert_eq!(mounts.here.sh("cat f; stat --format=%F d f@dir").ok(), "x\ndirectory\ndirectory\n");
}

fn a_watched_file_tells_of_its_changes_and_its_end(mounts: &mut TwoMounts) {
    mounts.there.sh("echo one > f").ok();
    let watching = Inotifywait::of(&mounts.here.join("f"));
    mounts.there.sh("echo two > f").ok();
    watching.wait_for("MODIFY .");
    mounts.there.sh("rm f").ok();
    watching.wait_for("DELETE_SELF .");
}

fn the_data_of_a_directory_come_change_and_go(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let watching = Inotifywait::of(&mounts.here);
    mounts.znode(&["set", "/d", "one"]).ok();
    watching.wait_for("CREATE d/@data");
    mounts.znode(&["set", "/d", "two"]).ok();
    assert!(mounts.here.sh("cat d/@data").ok().starts_with("two"));
    mounts.there.sh("rm d/@data").ok();
    watching.wait_for("DELETE d/@data");
    assert_eq!(mounts.here.sh("ls d").ok(), "");
}

fn a_view_of_a_file_as_a_directory_tells_of_its_children(mounts: &mut TwoMounts) {
    mounts.there.sh("echo x > leaf").ok();
    let watching = Inotifywait::of(&mounts.here.join("leaf@dir"));
    mounts.there.sh("mkdir leaf@dir/child").ok();
    watching.wait_for("CREATE,ISDIR child");
    // With a child, the file is a directory.
    let is_directory = || mounts.here.sh("test -d leaf").code == 0;
    wait_until("the leaf is a directory", LIMIT, is_directory);
}

fn a_file_deleted_and_made_again_as_a_directory_is_one(mounts: &mut TwoMounts) {
    mounts.there.sh("echo x > n").ok();
    mounts.here.sh("cat n").ok();
    let watching = Inotifywait::of(&mounts.here);
    for _ in 0..5 {
        mounts.there.sh("rm n; mkdir n; mkdir n/child; rmdir n/child; rmdir n; echo y > n").ok();
    }
    mounts.there.sh("rm n; mkdir n").ok();
    let is_directory = || mounts.here.sh("test -d n").code == 0;
    wait_until("n is a directory here as well", LIMIT, is_directory);
    let events = watching.wait_for("CREATE,ISDIR n");
    assert!(events.iter().any(|event| event == "DELETE n"), "{events:#?}");
}

fn a_working_directory_goes_and_comes_back(mounts: &mut TwoMounts) {
    mounts.there.sh("mkdir d").ok();
    let directory = mounts.here.join("d");
    let mut waiting = Command::new("sh");
    waiting.args(["-c", "until test -e ../over; do sleep 0.1; done; pwd -P"]);
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| Shell::new(&directory).run(&mut waiting));
        let watching = Inotifywait::of(&mounts.here);
        mounts.there.sh("mkdir d/child").ok();
        watching.wait_for("CREATE,ISDIR d/child");
        mounts.there.sh("rmdir d/child; rmdir d; mkdir d").ok();
        watching.wait_for("DELETE,ISDIR d");
        watching.wait_for("CREATE,ISDIR d");
        mounts.there.sh("touch over").ok();
        // `..` of a directory that is gone leads on; its own name does not.
        let ran = inside.join().expect("the shell inside");
        assert!(ran.code == 0 || ran.stderr.contains("No such file"), "{ran:#?}");
    });
    assert_eq!(mounts.here.sh("cd d && ls").ok(), "");
}

fn the_final_state_of_a_burst_is_seen(mounts: &mut TwoMounts) {
    mounts.there.sh("echo 0 > f").ok();
    let watching = Inotifywait::of(&mounts.here);
    mounts.there.sh("for n in $(seq 1 500); do echo $n > f; done; echo end-of-it > f").ok();
    mounts.there.sh("for n in $(seq 1 300); do : > g$n; done; touch last").ok();
    let events = watching.wait_for("CREATE last");
    for number in 1..=300 {
        let event = format!("CREATE g{number}");
        assert_eq!(events.iter().filter(|known| **known == event).count(), 1, "{event}");
    }
    assert!(events.iter().filter(|known| *known == "MODIFY f").count() > 1);
    assert_eq!(mounts.here.sh("cat f; ls | wc -l").ok(), "end-of-it\n303\n");
}

fn programs_that_follow_a_file_see_what_others_write(mounts: &mut TwoMounts) {
    mounts.there.sh("echo one > log").ok();
    let tail = "timeout 15 tail -F -n +1 log | { read a; read b; read c; echo $a $b $c; }";
    std::thread::scope(|scope| {
        let following = scope.spawn(|| mounts.here.sh(tail));
        mounts.there.sh("sleep 0.5; echo two >> log; sleep 0.2; echo three >> log").ok();
        let ran = following.join().expect("tail");
        assert_eq!(ran.stdout, "one two three\n", "{ran:#?}");
    });
}

fn what_happens_in_directories_that_nobody_looked_into_is_no_business_of_ours(
    mounts: &mut TwoMounts,
) {
    mounts.there.sh("mkdir -p deep/er; touch deep/er/f").ok();
    let watching = Inotifywait::of(&mounts.here.join("zookeeper"));
    mounts.there.sh("echo x > deep/er/f; rm deep/er/f; rmdir deep/er deep").ok();
    mounts.there.sh("mkdir after").ok();
    let seen = || Shell::new(Path::new("/")).sh(&format!("ls {}", mounts.here.display())).ok();
    wait_until("the directory is there", LIMIT, || seen().contains("after"));
    assert_eq!(watching.events(), Vec::<String>::new());
}

on_znoded![|server| &mut super::TwoMounts::on(server);
    files_and_directories_of_another_mount_come_change_and_go,
    changes_by_znode_arrive_once_each,
    locks_are_not_announced_where_they_are_not_listed,
    a_file_that_was_looked_for_in_vain_appears,
    a_watched_file_tells_of_its_changes_and_its_end,
    the_data_of_a_directory_come_change_and_go,
    a_view_of_a_file_as_a_directory_tells_of_its_children,
    a_file_deleted_and_made_again_as_a_directory_is_one,
    a_working_directory_goes_and_comes_back,
    the_final_state_of_a_burst_is_seen,
    programs_that_follow_a_file_see_what_others_write,
    what_happens_in_directories_that_nobody_looked_into_is_no_business_of_ours,
];
