//! The house rules that no compiler checks: pure modules stay pure, files stay readable, the
//! documents name what exists. Reads the sources only.

mod restarts;

use std::path::{Path, PathBuf};

use znodefs_tests::binaries::source_directory;

/// Above this a file is no longer one room.
const FILE_LINES_MAX: usize = 800;

/// State machines: time, randomness, files and sockets are passed in, so that they run in a
/// simulator as they run in production. A name without a file yet is a promise.
const PURE: &[&str] = &[
    "src/acl.rs",
    "src/path.rs",
    "src/recipe/contender.rs",
    "src/recipe/lease.rs",
    "src/recipe/watched_tree.rs",
    "src/stat.rs",
    "src/wire",
    "src/zxid.rs",
    "server/src/codec.rs",
    "server/src/request_processor",
    "server/src/request_processor.rs",
    "server/src/session_tracker.rs",
    "server/src/tree",
    "server/src/txn.rs",
    "server/src/zab",
    "mount/src/inode_table.rs",
    "mount/src/naming.rs",
    "mount/src/open_file.rs",
    "mount/src/permission.rs",
    "mount/src/suffix.rs",
];

/// What gives a state machine a clock, chance or an outside of its own.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::thread",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "Instant",
    "SystemTime",
    "rand::",
];

/// The files that git knows, relative to the root, with this ending.
fn sources(ending: &str) -> Vec<PathBuf> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(source_directory())
        .output()
        .expect("git");
    assert!(listed.status.success(), "the sources are a git repository");
    let names = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let named = names.lines().filter(|name| name.ends_with(ending)).map(PathBuf::from);
    named.filter(|path| source_directory().join(path).exists()).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = source_directory().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all findings at once.
#[track_caller]
fn assert_none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

#[test]
fn every_file_says_what_lives_in_it() {
    let silent = |path: &PathBuf| !read(path).starts_with("//!");
    let findings = sources(".rs").into_iter().filter(silent).map(|path| path.display().to_string());
    assert_none("a file starts with //! and what lives there", findings.collect());
}

#[test]
fn no_file_is_longer_than_one_can_hold_in_mind() {
    let mut findings = Vec::new();
    for path in sources(".rs") {
        let lines = read(&path).lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert_none("at most 800 lines", findings);
}

#[test]
fn pure_modules_reach_for_no_clock_no_chance_no_disk_and_no_network() {
    let mut findings = Vec::new();
    for path in sources(".rs") {
        if !PURE.iter().any(|pure| path.starts_with(pure)) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                findings.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert_none("these modules take such things as arguments", findings);
}

#[test]
fn no_file_names_one_machine() {
    // Assembled, so that this file is not a finding itself.
    let machine_paths = ["work", "root", "home"].map(|name| format!("/{name}/"));
    let mut findings = Vec::new();
    for path in sources("") {
        for (number, line) in read(&path).lines().enumerate() {
            if machine_paths.iter().any(|machine_path| line.contains(machine_path)) {
                findings.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("the project works on every machine", findings);
}

#[test]
fn the_documents_name_only_scripts_and_pages_that_exist() {
    let mut findings = Vec::new();
    for document in sources(".md") {
        let text = read(&document);
        let folder = document.parent().unwrap_or(Path::new(""));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let is_page = !target.is_empty() && !target.contains("://");
            if is_page && !source_directory().join(folder).join(target).exists() {
                findings.push(format!("{}: no page {target}", document.display()));
            }
        }
        for rest in text.split("scripts/").skip(1) {
            let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
            let script = rest.split(ends).next().unwrap_or_default();
            if !script.is_empty() && !source_directory().join("scripts").join(script).exists() {
                findings.push(format!("{}: no scripts/{script}", document.display()));
            }
        }
    }
    assert_none("a newcomer follows the documents word by word", findings);
}

/// Failures on the list.
const KNOWN_FAILURES: usize = 46;

#[test]
fn every_known_failure_has_its_tests() {
    let (mut findings, mut listed) = (Vec::new(), 0);
    for row in read("tests/KNOWN_FAILURES.md").lines() {
        let Some(number) = row.split('|').nth(1).and_then(|cell| cell.trim().parse::<usize>().ok())
        else {
            continue;
        };
        listed += 1;
        assert_eq!(number, listed, "the list is in order");
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            findings.push(format!("item {number}: no test"));
        }
        for pair in names.chunks(2) {
            let [file, test] = pair else {
                findings.push(format!("item {number}: a file without a test"));
                continue;
            };
            let is_there = source_directory().join(file).exists()
                && read(file).lines().zip(read(file).lines().skip(1)).any(|(above, line)| {
                    let is_test = above.trim().starts_with("#[test]")
                        || above.trim().starts_with("#[tokio::test");
                    is_test && line.contains(&format!("fn {test}("))
                });
            if !is_there {
                findings.push(format!("item {number}: {file} has no test {test}"));
            }
        }
    }
    assert_eq!(listed, KNOWN_FAILURES);
    assert_none("what broke others is tested here", findings);
}
