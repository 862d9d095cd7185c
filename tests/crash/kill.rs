//! `kill -9` of the replica at random moments while files are copied into its mount.

use std::path::Path;
use std::time::Duration;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::deadline::pause;
use znodefs_tests::{Mount, Random, Server, WireClient, Znoded};

use crate::copy::{Copy, GiveUp};
use crate::rounds;

/// How often the replica is killed while one tree is copied.
const KILLS: usize = 12;

/// Copies `source` into a fresh tree and kills the replica again and again meanwhile. After each restart every file whose copy had returned before the kill is looked up.
fn survives_kills(source: &Path, random: &mut Random) {
    let mut server = Znoded::start();
    let mount = Mount::of(&server.address(), &[]);
    std::fs::create_dir(mount.join("copy")).expect("a directory in an empty tree");
    let copy = Copy::new(source, mount.join("copy"), "/copy");
    let mut kills = 0;
    std::thread::scope(|scope| {
        let _give_up = GiveUp(&copy);
        let copier = scope.spawn(|| copy.run());
        while kills < KILLS && !copier.is_finished() {
            copy.wait_for_progress(|| copier.is_finished());
            pause(Duration::from_micros(random.between(0, 300_000)));
            server.kill();
            let returned = copy.returned();
            kills += 1;
            server.start_again();
            copy.assert_are_there(&returned, &mut WireClient::connect(&server.address()));
        }
    });
    let returned = copy.returned();
    let mut client = WireClient::connect(&server.address());
    copy.assert_are_there(&returned, &mut client);
    copy.assert_none_is_half(&mut client);
    eprintln!("{kills} kills, {} of {} copies returned", returned.len(), copy.len());
    assert!(returned.len() + 3 * kills >= copy.len(), "a kill fails more than what was under way");
}

#[test]
fn a_copied_zoneinfo_survives_kills_of_the_replica() {
    let mut random = Random::announced();
    for _ in 0..rounds() {
        survives_kills(Path::new("/usr/share/zoneinfo"), &mut random);
    }
}

#[test]
fn copied_sources_survive_kills_of_the_replica() {
    let mut random = Random::announced();
    let folders = ["src", "server", "mount", "tests"];
    for _ in 0..rounds() {
        let folder = folders[random.between(0, folders.len() as u64) as usize];
        survives_kills(&source_directory().join(folder), &mut random);
    }
}

#[test]
fn an_embedded_replica_keeps_what_had_returned_when_its_mount_is_killed() {
    let mut random = Random::announced();
    for _ in 0..rounds() * 5 {
        let data = znodefs_tests::Directory::new();
        let (mut mount, _) = Mount::embedded(&data, &[]);
        let source = source_directory().join("src");
        let copy = Copy::new(&source, mount.join("copy"), "/copy");
        let returned = std::thread::scope(|scope| {
            scope.spawn(|| copy.run());
            pause(Duration::from_micros(random.between(50_000, 500_000)));
            let returned = copy.returned();
            mount.process().kill();
            // What is copied from now on goes into the directory underneath.
            copy.give_up();
            returned
        });
        drop(mount);
        let (_mount, address) = Mount::embedded(&data, &[]);
        let mut client = WireClient::connect(&address);
        copy.assert_are_there(&returned, &mut client);
        copy.assert_none_is_half(&mut client);
    }
}
