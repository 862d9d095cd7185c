//! Who excludes whom.

use std::path::Path;
use std::process::Command;

use znodefs_tests::{Background, Mount, Shell, World, on_every_backend};

fn python(place: &Path, script: &str) -> znodefs_tests::Ran {
    Shell::new(place).run(Command::new("/usr/bin/python3").arg("-c").arg(script))
}

fn one_holder_excludes_all_others_everywhere(world: &World) {
    let there = world.mount_again(&[]);
    world.sh("echo x > f").ok();
    let mut holder = Background::start(&world.mount, "exec 9<f; flock 9; echo in; exec sleep 1000");
    holder.wait_for("in");
    for mount in [&world.mount, &there] {
        assert_eq!(mount.sh("flock -n f true").code, 1);
        assert_eq!(mount.sh("flock -n -s f true").code, 1);
        assert_eq!(mount.sh("flock -n other true").code, 0, "another file is free");
    }
    holder.process().kill();
    there.sh("flock -w 20 f true").ok();
    world.sh("flock -n f true").ok();
}

fn shared_holders_share_and_exclude_a_writer(world: &World) {
    let there = world.mount_again(&[]);
    world.sh("echo x > f").ok();
    let readers = [
        Background::start(&world.mount, "exec 9<f; flock -s 9; echo in; exec sleep 1000"),
        Background::start(&there, "exec 9<f; flock -s 9; echo in; exec sleep 1000"),
    ];
    readers.iter().for_each(|reader| reader.wait_for("in"));
    assert_eq!(there.sh("flock -n f true").code, 1);
    there.sh("flock -n -s f true").ok();
    drop(readers);
    there.sh("flock -w 20 f true").ok();
}

fn what_is_written_under_a_lock_is_read_under_the_next(world: &World) {
    let there = world.mount_again(&[]);
    world.sh("echo 0 > counter").ok();
    // The file is opened for reading before the lock is there.
    let script = "for _ in 1 2 3 4 5; do \
                  ( flock 9; read -r n <&9; echo $((n + 1)) > counter ) 9< counter; done";
    let mut counting: Vec<_> = [&world.mount, &there, &world.mount, &there]
        .iter()
        .map(|mount| Background::start(mount, script))
        .collect();
    counting.iter_mut().for_each(|one| assert_eq!(one.code(), 0));
    assert_eq!(there.sh("flock counter cat counter").ok(), "20\n");
}

fn fcntl_locks_hold_everywhere_and_answer_who_is_in_the_way(world: &World) {
    let there = world.mount_again(&[]);
    world.sh("echo x > f").ok();
    let holder = Background::start(
        &world.mount,
        "exec /usr/bin/python3 -uc 'import fcntl, time; f = open(\"f\", \"r+\")
fcntl.lockf(f, fcntl.LOCK_EX, 10, 100); print(\"in\"); time.sleep(1000)'",
    );
    holder.wait_for("in");
    let ask = "import fcntl, struct; f = open('f', 'r+')
asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 5, 0)
print(*struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, asked)))
try: fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
except BlockingIOError: print('held')";
    // F_WRLCK is 1; a process on another machine is 0.
    assert_eq!(python(&there, ask).ok(), "1 0 0 0 0\nheld\n");
    let here = python(&world.mount, ask).ok();
    let pid = holder_pid(holder);
    assert_eq!(here, format!("1 0 0 0 {pid}\nheld\n"));
    assert_eq!(world.sh("flock -w 20 f true").code, 0, "gone with its holder");
    // F_UNLCK is 2.
    assert!(python(&there, ask).ok().starts_with("2 "));
}

fn holder_pid(mut holder: Background) -> u32 {
    holder.process().pid()
}

fn a_lock_becomes_stronger_and_weaker(world: &World) {
    world.sh("echo x > f").ok();
    let script = "
import fcntl
from fcntl import flock, LOCK_EX, LOCK_SH, LOCK_NB, LOCK_UN
one, other = open('f'), open('f')
flock(one, LOCK_SH); flock(other, LOCK_SH)
try: flock(one, LOCK_EX | LOCK_NB); print('two hold it')
except BlockingIOError: print('held')
flock(other, LOCK_UN)
flock(one, LOCK_EX | LOCK_NB)
try: flock(other, LOCK_SH | LOCK_NB); print('two hold it')
except BlockingIOError: print('held')
flock(one, LOCK_SH)
flock(other, LOCK_SH)
print('shared')";
    assert_eq!(python(&world.mount, script).ok(), "held\nheld\nshared\n");
}

fn ranges_of_one_process_are_one_lock_until_the_last_is_gone(world: &World) {
    let there = world.mount_again(&[]);
    world.sh("echo x > f").ok();
    let script = "
import fcntl, os, subprocess, sys
f = open('f', 'r+')
other = sys.argv[1]
probe = lambda: print(subprocess.run(['flock', '-n', other, 'true']).returncode)
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0); fcntl.lockf(f, fcntl.LOCK_EX, 10, 100)
fcntl.lockf(f, fcntl.LOCK_UN, 10, 0); probe()
fcntl.lockf(f, fcntl.LOCK_UN, 10, 100); probe()
fcntl.lockf(f, fcntl.LOCK_EX)
open('f').close(); probe()";
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-uc", script]).arg(there.join("f"));
    // The last: as POSIX has it, any close of the file ends its process' locks.
    assert_eq!(Shell::new(&world.mount).run(&mut command).ok(), "1\n0\n0\n");
}

fn a_database_works_on_two_mounts(world: &World) {
    let there = world.mount_again(&[]);
    let setup = "import sqlite3; d = sqlite3.connect('db', timeout=20); \
                 d.execute('create table t (n)'); d.commit()";
    python(&world.mount, setup).ok();
    let insert = "import sqlite3
for n in range(5):
    d = sqlite3.connect('db', timeout=50, isolation_level=None)
    d.execute('begin immediate'); d.execute('insert into t values (?)', (n,)); d.execute('commit')
    d.close()";
    let script = format!("exec /usr/bin/python3 -c \"{insert}\"");
    let mut inserting =
        [Background::start(&world.mount, &script), Background::start(&there, &script)];
    inserting.iter_mut().for_each(|one| assert_eq!(one.code(), 0));
    let count = "import sqlite3; print(sqlite3.connect('db').execute('select count(*), sum(n) from t').fetchone())";
    assert_eq!(python(&there, count).ok(), "(10, 20)\n");
}

fn the_lock_of_a_file_is_where_its_path_says(world: &World) {
    world.sh("mkdir -p app/d; echo x > 'app/d/a b'").ok();
    let chrooted = Mount::of(&format!("{}/app", world.address), &[]);
    let _holder = Background::start(&chrooted, "exec 9<'d/a b'; flock 9; echo in; exec sleep 1000");
    _holder.wait_for("in");
    assert_eq!(world.sh("flock -n 'app/d/a b' true").code, 1);
    let contenders = world.client().children("/znodefs/locks/%2Fapp%2Fd%2Fa%20b");
    assert_eq!(contenders.len(), 1);
    assert!(contenders[0].ends_with("__lock__0000000000"), "{contenders:?}");
    let (data, stat) = world
        .client()
        .get(&format!("/znodefs/locks/%2Fapp%2Fd%2Fa%20b/{}", contenders[0]))
        .unwrap();
    let says = String::from_utf8(data.unwrap().to_vec()).unwrap();
    assert!(says.ends_with(":flock"), "{says}");
    assert_ne!(stat.ephemeral_owner.0, 0);
    assert_eq!(world.sh("ls").ok(), "app\nzookeeper\n", "not listed");
    assert_eq!(chrooted.sh("ls").ok(), "d\n");
}

on_every_backend!(
    one_holder_excludes_all_others_everywhere,
    shared_holders_share_and_exclude_a_writer,
    what_is_written_under_a_lock_is_read_under_the_next,
    fcntl_locks_hold_everywhere_and_answer_who_is_in_the_way,
    a_lock_becomes_stronger_and_weaker,
    ranges_of_one_process_are_one_lock_until_the_last_is_gone,
    a_database_works_on_two_mounts,
    the_lock_of_a_file_is_where_its_path_says,
);
