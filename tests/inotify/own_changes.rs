//! What is done through a mount is seen there once, as on any file system.

use znodefs_tests::on_znoded;

use crate::fixture::{Inotifywait, TwoMounts};

fn own_changes_are_told_once(mounts: &mut TwoMounts) {
    let watching = Inotifywait::of(&mounts.here);
    mounts.here.sh("mkdir d; rmdir d; touch f; echo x > f; mv f g; rm g").ok();
    // What comes from elsewhere comes behind it.
    mounts.there.sh("mkdir last").ok();
    let events = watching.wait_for("CREATE,ISDIR last");
    for (event, count) in [
        ("CREATE,ISDIR d", 1),
        ("DELETE,ISDIR d", 1),
        ("CREATE f", 1),
        ("MODIFY f", 2), // O_TRUNC and the write
        ("MOVED_FROM f", 1),
        ("MOVED_TO g", 1),
        ("DELETE f", 0),
        ("CREATE g", 0),
        ("DELETE g", 1),
    ] {
        assert_eq!(events.iter().filter(|known| *known == event).count(), count, "{events:#?}");
    }
}

fn a_creation_by_suffix_is_told_under_the_name_that_was_made(mounts: &mut TwoMounts) {
    mounts.here.sh("mkdir q").ok();
    let watching = Inotifywait::of(&mounts.here.join("q"));
    mounts.here.sh("cd q; exec 9<>n-@seq; read -r name <&9; echo x >&9; cat $name").ok();
    watching.wait_for("CREATE n-0000000000");
    mounts.here.sh("mkdir q/d@eph").ok();
    watching.wait_for("CREATE,ISDIR d");
    assert_eq!(mounts.here.sh("ls q; cat q/n-0000000000").ok(), "d\nn-0000000000\nx\n");
    mounts.here.sh("rm q/n-0000000000; rmdir q/d").ok();
    let events = watching.wait_for("DELETE,ISDIR d");
    for event in ["CREATE n-0000000000", "DELETE n-0000000000", "CREATE,ISDIR d"] {
        assert_eq!(events.iter().filter(|known| *known == event).count(), 1, "{events:#?}");
    }
}

fn writers_on_both_sides_hear_of_each_other_and_agree(mounts: &mut TwoMounts) {
    let script = "for n in $(seq 1 100); do echo $0-$n > f; done";
    mounts.here.sh(": > f").ok();
    let watching = Inotifywait::of(&mounts.here);
    std::thread::scope(|scope| {
        let here = scope.spawn(|| mounts.here.shell().sh(&script.replace("$0", "here")).ok());
        mounts.there.sh(&script.replace("$0", "there")).ok();
        here.join().expect("the writer here");
    });
    mounts.there.sh("mkdir last").ok();
    watching.wait_for("CREATE,ISDIR last");
    assert_eq!(mounts.here.sh("cat f").ok(), mounts.there.sh("cat f").ok());
    assert_eq!(mounts.here.sh("stat -c %s f").ok(), mounts.there.sh("stat -c %s f").ok());
}

on_znoded![|server| &mut super::TwoMounts::on(server);
    own_changes_are_told_once,
    a_creation_by_suffix_is_told_under_the_name_that_was_made,
    writers_on_both_sides_hear_of_each_other_and_agree,
];
