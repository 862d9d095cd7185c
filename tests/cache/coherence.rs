//! Two mounts and one writer: readers on the other mount never see anything older than what they saw
//! before, by whatever way they look.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use znodefs_tests::{World, on_every_backend, wait_until};

use crate::LIMIT;

on_every_backend!(
    readers_never_go_back_in_time,
    a_name_that_comes_and_goes_is_never_seen_as_it_was,
    a_directory_that_is_made_again_is_another,
);

/// How many versions are written.
const VERSIONS: usize = 300;

/// The length of the value, by its content and by stat(2), and how many entries there are.
#[derive(Debug, Default)]
struct Seen {
    length: usize,
    entries: usize,
}

impl Seen {
    /// Looks once in every way. The writer makes the entry `eN` before the value of length N.
    fn look(&mut self, root: &Path, looks: usize) {
        let by_content = |seen: &mut Seen| {
            let value = fs::read(root.join("value"));
            let value = value.unwrap_or_else(|error| panic!("the value, {error}, after {seen:?}"));
            let length = value.len();
            assert!(length >= seen.length, "a value of {length} after {seen:?}");
            seen.length = length;
        };
        let by_attributes = |seen: &mut Seen| {
            let file = fs::metadata(root.join("value"));
            let file = file.unwrap_or_else(|error| panic!("the file, {error}, after {seen:?}"));
            let length = file.len() as usize;
            assert!(length >= seen.length, "a length of {length} after {seen:?}");
            seen.length = length;
        };
        let by_listing = |seen: &mut Seen| {
            let names = fs::read_dir(root.join("d")).expect("the directory");
            let entries = names.count();
            assert!(entries >= seen.entries.max(seen.length), "{entries} entries after {seen:?}");
            seen.entries = entries;
        };
        let by_name = |seen: &mut Seen| {
            // The writer made these before what was seen.
            for number in [seen.length, seen.entries].into_iter().filter(|number| *number > 0) {
                let entry = root.join(format!("d/e{number}"));
                assert!(entry.exists(), "e{number} is missing after {seen:?}");
            }
            // Absent names are asked for before they come, so that they are cached.
            for ahead in 1..4 {
                let entry = root.join(format!("d/e{}", seen.entries + ahead));
                if entry.exists() {
                    seen.entries += ahead;
                }
            }
        };
        let ways: [&dyn Fn(&mut Seen); 4] = [&by_content, &by_attributes, &by_listing, &by_name];
        for way in 0..ways.len() {
            ways[(way + looks) % ways.len()](self);
        }
    }
}

fn readers_never_go_back_in_time(world: &World) {
    let there = world.mount_again(&[]);
    there.sh("mkdir d; : > value").ok();
    // The other mount's server may hear of it later.
    wait_until("the reader's mount has it", LIMIT, || world.path("value").exists());
    let is_written = AtomicBool::new(false);
    let writing = || {
        let mut value = String::new();
        for number in 1..=VERSIONS {
            fs::write(there.join(format!("d/e{number}")), "").expect("an entry");
            value.push('x');
            fs::write(there.join("value"), &value).expect("a version");
        }
    };
    let reading = |start: usize| {
        let (mut seen, mut looks) = (Seen::default(), start);
        while !is_written.load(Ordering::Acquire) || seen.length < VERSIONS {
            seen.look(&world.mount, looks);
            looks += 1;
        }
        // Each look is of many kinds; a busy machine has time for few.
        let looks = looks - start;
        assert!(looks > 4, "only {looks} looks");
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|start| scope.spawn(move || reading(start))).collect();
        scope.spawn(|| {
            writing();
            is_written.store(true, Ordering::Release);
        });
        for reader in readers {
            reader.join().expect("a reader that never went back");
        }
    });
    let count = || fs::read_dir(world.path("d")).expect("the directory").count();
    wait_until("every entry is listed", LIMIT, || count() == VERSIONS);
}

fn a_name_that_comes_and_goes_is_never_seen_as_it_was(world: &World) {
    let there = world.mount_again(&[]);
    let mut writer = world.client();
    let is_written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut newest, mut absences) = (0, 0);
            while !is_written.load(Ordering::Acquire) || newest < VERSIONS {
                match fs::read_to_string(world.path("flip")) {
                    Ok(text) => {
                        let number = text.parse().unwrap_or(newest);
                        assert!(number >= newest, "{number} after {newest}");
                        newest = number;
                    }
                    Err(_) => absences += 1,
                }
            }
            absences
        });
        for number in 1..=VERSIONS {
            writer.create("/flip", Some(number.to_string().as_bytes()));
            if number < VERSIONS {
                writer.delete("/flip").expect("a znode to delete");
            }
        }
        is_written.store(true, Ordering::Release);
        reader.join().expect("a reader that never went back");
    });
    assert_eq!(there.sh("cat flip").ok(), VERSIONS.to_string());
    assert_eq!(world.sh("cat flip; ls | grep -c flip").ok(), format!("{VERSIONS}1\n"));
}

fn a_directory_that_is_made_again_is_another(world: &World) {
    let there = world.mount_again(&[]);
    for round in 0..20 {
        let kind = if round % 2 == 0 { "mkdir n; touch n/inside" } else { "echo file > n" };
        there.sh(&format!("rm -rf n; {kind}")).ok();
        let expected = if round % 2 == 0 { "directory inside\n" } else { "regular file file\n" };
        let script = "stat --printf='%F ' n; if test -d n; then ls n; else cat n; fi";
        wait_until(expected, LIMIT, || world.sh(script).stdout == expected);
    }
}
