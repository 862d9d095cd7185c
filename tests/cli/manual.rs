//! The manual pages name every option and every command that the programs name themselves.

use std::path::Path;
use std::process::Command;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Shell, binary};

/// The words of `--help` that are long options.
fn long_options(help: &str) -> impl Iterator<Item = &str> {
    let separators = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    help.split(separators).filter(|word| word.len() > 2 && word.starts_with("--"))
}

/// The names under the heading `Commands:`.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
}

#[test]
fn the_manual_names_what_the_programs_can_do() {
    let mut missing = Vec::new();
    for (name, page) in
        [("znode", "znode.1"), ("znoded", "znoded.8"), ("znode-mount", "znode-mount.8")]
    {
        let help = Shell::new(Path::new("/")).run(Command::new(binary(name)).arg("--help")).ok();
        let text = std::fs::read_to_string(source_directory().join("docs/man").join(page)).unwrap();
        let text = text.replace("\\-", "-");
        let words = long_options(&help).chain(commands(&help));
        missing.extend(
            words.filter(|word| !text.contains(word)).map(|word| format!("{page}: {word}")),
        );
    }
    assert!(missing.is_empty(), "{missing:?}");
}
