//! `scripts/quickstart`, the first thing that a newcomer runs.

use std::process::Command;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::reaper::Reaper;
use znodefs_tests::{Directory, Ran, Server, Shell, Znoded, free_port, mount_table};

/// A directory to run it in, with data and a port of its own.
struct Newcomer {
    directory: Directory,
    shell: Shell,
    reaper: Reaper,
}

impl Newcomer {
    fn new() -> Newcomer {
        let directory = Directory::new();
        let reaper = Reaper::of(&directory.join("mnt"));
        let shell = Shell::new(&directory)
            // The build that the other tests use, so that it is there already.
            .variable("PROFILE", "dev")
            .variable("ZNODE_DATA", directory.join("data").display())
            .variable("ZNODE_PORT", free_port());
        Newcomer { directory, shell, reaper }
    }

    #[track_caller]
    fn quickstart(&self, arguments: &[&str]) -> Ran {
        let script = source_directory().join("scripts/quickstart");
        self.shell.run(Command::new(script).args(arguments))
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if mount_table::is_anything_mounted_below(&self.directory) {
            self.reaper.reap();
        }
    }
}

#[test]
fn quickstart_mounts_shows_a_session_and_finds_its_data_again() {
    let newcomer = Newcomer::new();
    let first = newcomer.quickstart(&[]).ok();
    for shown in ["$ ls mnt\nzookeeper\n", "$ cat mnt/app/greeting\nhello, tree\n", "--stop"] {
        assert!(first.contains(shown), "'{shown}' is not in:\n{first}");
    }
    assert_eq!(newcomer.shell.sh("cat mnt/app/greeting").ok(), "hello, tree\n");
    let second = newcomer.quickstart(&[]);
    assert!(second.stderr.contains("mounted already"), "{second:#?}");
    newcomer.quickstart(&["--stop"]).ok();
    assert!(!mount_table::is_anything_mounted_below(&newcomer.directory));
    assert!(newcomer.quickstart(&["--stop"]).stderr.contains("nothing is mounted"));
    newcomer.quickstart(&["mnt"]).ok();
    assert_eq!(newcomer.shell.sh("wc --lines < mnt/app/visits").ok(), "3\n");
    newcomer.quickstart(&["--stop", "mnt"]).ok();
}

#[test]
fn quickstart_tells_how_to_choose_a_port_when_its_own_is_taken() {
    let newcomer = Newcomer::new();
    let server = Znoded::start();
    let refused = newcomer.quickstart(&["--listen", &server.address()]);
    refused.ends_saying(1, &["ZNODE_PORT=", &server.port().to_string()]);
}
