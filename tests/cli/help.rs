//! `--help` and `--version`.

use std::path::Path;
use std::process::Command;

use znodefs_tests::{Ran, Shell, binary};

fn run(name: &str, argument: &str) -> Ran {
    Shell::new(Path::new("/")).run(Command::new(binary(name)).arg(argument))
}

#[test]
fn every_command_explains_itself() {
    for (name, words) in [
        ("znode", &["get", "set", "ls", "create", "rm", "stat", "ZNODE_SERVERS"][..]),
        ("znoded", &["--standalone", "--listen", "--initialize"]),
        ("znode-mount", &["--embedded", "--listen", "MOUNTPOINT", "allow_other"]),
    ] {
        let help = run(name, "--help").ok();
        for word in words {
            assert!(help.contains(word), "{name} --help does not mention {word}:\n{help}");
        }
        assert!(run(name, "--version").ok().contains(env!("CARGO_PKG_VERSION")));
        assert_eq!(run(name, "--no-such-option").code, 2);
    }
}
