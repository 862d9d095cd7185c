//! Reading and committing: one value per commit, what a descriptor reads, how writers meet.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use znodefs_tests::{Process, World, on_every_backend, wait_until};

fn version(world: &World, path: &str) -> i32 {
    world.client().stat(path).expect(path).version
}

fn data(world: &World, path: &str) -> String {
    let data = world.client().data(path).expect("data that are not null");
    String::from_utf8(data.to_vec()).expect("text")
}

fn several_commands_redirected_to_a_file_commit_one_value(world: &World) {
    world.sh("echo old > f").ok();
    let before = version(world, "/f");
    world.sh("{ echo a; date; echo b; } > f").ok();
    assert_eq!(version(world, "/f"), before + 1, "one setData");
    let value = data(world, "/f");
    assert!(value.starts_with("a\n") && value.ends_with("\nb\n"), "{value}");
}

fn a_replaced_file_never_looks_empty_or_half(world: &World) {
    world.sh("head -c 200000 /dev/zero | tr '\\0' a > f").ok();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for letter in "bcdefghij".chars() {
                let value = vec![letter as u8; 200_000];
                std::fs::write(world.path("f"), value).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stop.load(Ordering::Relaxed) && !writer.is_finished() {
            let value = std::fs::read(world.path("f")).unwrap();
            assert_eq!(value.len(), 200_000);
            assert!(value.iter().all(|byte| *byte == value[0]), "two values mixed");
        }
    });
}

fn truncation_alone_is_committed_when_the_file_is_closed(world: &World) {
    world.sh("echo old > f; : > f").ok();
    assert_eq!(data(world, "/f"), "");
}

fn truncate_shortens_and_lengthens_with_zeros(world: &World) {
    world.sh("printf 123456 > f; truncate --size=3 f").ok();
    assert_eq!(data(world, "/f"), "123");
    world.sh("truncate --size=5 f").ok();
    assert_eq!(data(world, "/f"), "123\0\0");
}

fn appends_of_two_mounts_are_all_there(world: &World) {
    let other = world.mount_again(&[]);
    world.sh(": > log").ok();
    let script = |name: &str| format!("for i in $(seq 50); do echo {name} $i >> log; done");
    std::thread::scope(|scope| {
        scope.spawn(|| world.sh(&script("one")).ok());
        scope.spawn(|| other.sh(&script("two")).ok());
    });
    let value = data(world, "/log");
    for name in ["one", "two"] {
        let expected: Vec<String> = (1..=50).map(|i| format!("{name} {i}")).collect();
        let found: Vec<&str> = value.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(found, expected, "all lines of {name}, in its order");
    }
    assert_eq!(value.lines().count(), 100);
}

fn exclusive_creation_is_won_by_one(world: &World) {
    let other = world.mount_again(&[]);
    let script = "dd if=/dev/null of=once conv=excl 2>&1";
    std::thread::scope(|scope| {
        let one = scope.spawn(|| world.sh(script).code);
        let two = scope.spawn(|| other.sh(script).code);
        assert_eq!(one.join().unwrap() + two.join().unwrap(), 1, "one of both");
    });
    let refused = world.sh(script);
    assert!(refused.stdout.contains("File exists"), "{refused:#?}");
}

fn a_partial_overwrite_leaves_the_rest(world: &World) {
    world.sh("printf 12345678 > f; printf XY | dd of=f bs=1 seek=2 conv=notrunc").ok();
    assert_eq!(data(world, "/f"), "12XY5678");
}

fn a_partial_overwrite_is_applied_to_what_another_wrote_meanwhile(world: &World) {
    world.sh("printf 12345678 > f").ok();
    let file = OpenOptions::new().write(true).open(world.path("f")).unwrap();
    file.write_all_at(b"XY", 2).unwrap();
    world.client().set("/f", Some(b"abcdefghij"));
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(data(world, "/f"), "abXYefghij");
}

fn read_modify_write_over_anothers_change_is_stale(world: &World) {
    world.sh("printf 1 > counter").ok();
    let mut file = OpenOptions::new().read(true).write(true).open(world.path("counter")).unwrap();
    let mut value = String::new();
    file.read_to_string(&mut value).unwrap();
    assert_eq!(value, "1");
    world.client().set("/counter", Some(b"5"));
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"2").unwrap();
    let error = file.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
    drop(file);
    assert_eq!(data(world, "/counter"), "5", "nothing of it is committed later");
}

fn read_modify_write_alone_succeeds(world: &World) {
    world.sh("printf 1 > counter").ok();
    let mut file = OpenOptions::new().read(true).write(true).open(world.path("counter")).unwrap();
    for expected in ["1", "2", "3"] {
        let mut value = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut value).unwrap();
        assert_eq!(value, expected);
        let next = value.parse::<u32>().unwrap() + 1;
        file.seek(SeekFrom::Start(0)).unwrap();
        write!(file, "{next}").unwrap();
        file.sync_all().unwrap();
    }
    assert_eq!(data(world, "/counter"), "4");
}

fn the_write_that_crosses_the_limit_fails(world: &World) {
    let mut file = File::create(world.path("big")).unwrap();
    file.write_all(&vec![b'x'; 1_000_000]).unwrap();
    let error = file.write_all(&vec![b'x'; 100_000]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
    drop(file);
    world.sh("head -c 2000000 /dev/zero > bigger").fails("File too large");
    world.sh("truncate --size=2000000 big").fails("File too large");
}

fn a_value_of_nearly_a_mebibyte_goes_in_and_out(world: &World) {
    world
        .sh("head -c 1040000 /dev/urandom > /tmp/$$; cp /tmp/$$ f && cmp /tmp/$$ f; rm /tmp/$$")
        .ok();
}

fn a_reader_keeps_one_value_until_it_starts_again(world: &World) {
    let mut client = world.client();
    let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 400_000]);
    client.create("/f", Some(&old));
    let mut reader = File::open(world.path("f")).unwrap();
    let mut first = vec![0; 100_000];
    reader.read_exact(&mut first).unwrap();
    client.set("/f", Some(&new));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    first.extend(rest);
    assert!(first == old, "the value of the first read, to its end");
    assert!(std::fs::read(world.path("f")).unwrap() == new, "a new descriptor has the new value");
    reader.seek(SeekFrom::Start(0)).unwrap();
    let mut again = Vec::new();
    reader.read_to_end(&mut again).unwrap();
    assert!(again == new, "from the start it is the new value");
}

fn tail_follows_what_is_appended_and_replaced(world: &World) {
    world.sh("echo first > log").ok();
    let directory = znodefs_tests::Directory::new();
    let mut command = Command::new("tail");
    command.args(["-n", "+1", "--sleep-interval=0.1", "-F"]).arg(world.path("log"));
    let tail = Process::spawn(&mut command, &directory.join("tail"));
    let prints = |line: &str| {
        let limit = Duration::from_secs(10);
        wait_until(&format!("tail prints {line}"), limit, || tail.log_text().contains(line));
    };
    prints("first");
    world.sh("echo second >> log").ok();
    prints("second");
    world.sh("echo another file > new; mv new log").ok();
    prints("another file");
    assert_eq!(tail.log_text().matches("first").count(), 1, "{}", tail.log_text());
}

fn each_synchronous_write_is_a_commit(world: &World) {
    let mut file = OpenOptions::new();
    let file = file.write(true).create(true).custom_flags(libc::O_SYNC).open(world.path("f"));
    let mut file = file.unwrap();
    for (text, so_far) in [("a", "a"), ("b", "ab"), ("c", "abc")] {
        file.write_all(text.as_bytes()).unwrap();
        assert_eq!(data(world, "/f"), so_far, "before the file is closed");
    }
}

fn fsync_commits_what_is_written_so_far(world: &World) {
    let mut file = File::create(world.path("f")).unwrap();
    file.write_all(b"one").unwrap();
    file.sync_all().unwrap();
    assert_eq!(data(world, "/f"), "one");
    file.write_all(b" two").unwrap();
    drop(file);
    assert_eq!(data(world, "/f"), "one two");
}

fn touch_of_an_existing_file_wakes_watchers(world: &World) {
    world.sh("echo value > f").ok();
    let before = version(world, "/f");
    world.sh("touch f").ok();
    assert_eq!(version(world, "/f"), before + 1);
    assert_eq!(data(world, "/f"), "value\n");
    world.sh("touch --date=2001-01-01 f").ok();
    assert_eq!(data(world, "/f"), "value\n");
}

fn a_removed_file_can_be_read_by_who_has_it_open(world: &World) {
    world.sh("echo value > f").ok();
    assert_eq!(world.sh("exec 9<f; rm f; stat -L --format=%h /proc/self/fd/9").ok(), "0\n");
    world.sh("cat f").fails("No such file or directory");
}

fn writing_through_a_descriptor_of_a_removed_file_brings_nothing_back(world: &World) {
    let mut file = File::create(world.path("f")).unwrap();
    file.write_all(b"one").unwrap();
    world.client().delete("/f").unwrap();
    let _ = file.sync_all();
    drop(file);
    assert_eq!(world.client().stat("/f"), None);
}

on_every_backend![
    several_commands_redirected_to_a_file_commit_one_value,
    a_replaced_file_never_looks_empty_or_half,
    truncation_alone_is_committed_when_the_file_is_closed,
    truncate_shortens_and_lengthens_with_zeros,
    appends_of_two_mounts_are_all_there,
    exclusive_creation_is_won_by_one,
    a_partial_overwrite_leaves_the_rest,
    a_partial_overwrite_is_applied_to_what_another_wrote_meanwhile,
    read_modify_write_over_anothers_change_is_stale,
    read_modify_write_alone_succeeds,
    the_write_that_crosses_the_limit_fails,
    a_value_of_nearly_a_mebibyte_goes_in_and_out,
    a_reader_keeps_one_value_until_it_starts_again,
    tail_follows_what_is_appended_and_replaced,
    each_synchronous_write_is_a_commit,
    fsync_commits_what_is_written_so_far,
    touch_of_an_existing_file_wakes_watchers,
    a_removed_file_can_be_read_by_who_has_it_open,
    writing_through_a_descriptor_of_a_removed_file_brings_nothing_back,
];
