//! What `mount/SEMANTICS.md` shows is what happens: its examples are run, each on an empty tree.

use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Backend, World};

/// An example: the commands, and everything they print.
struct Example {
    script: String,
    printed: String,
}

fn examples() -> Vec<Example> {
    let page = source_directory().join("mount/SEMANTICS.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks
        .map(|block| {
            let (commands, printed): (Vec<_>, Vec<_>) =
                block.lines().partition(|line| line.starts_with("$ "));
            let commands: Vec<_> = commands.iter().map(|line| &line[2..]).collect();
            Example { script: commands.join("\n"), printed: printed.join("\n") + "\n" }
        })
        .collect()
}

fn every_example_prints_what_the_page_says(backend: Backend) {
    let examples = examples();
    assert!(examples.len() >= 6, "the page has lost its examples");
    for Example { script, printed } in examples {
        let world = World::new(backend);
        let shell = world.mount.shell().variable("LC_ALL", "C.UTF-8");
        let ran = shell.sh(&format!("exec 2>&1\n{script}"));
        // A shell that runs a script also says in which line it is.
        let shown: Vec<_> = ran.stdout.lines().map(without_line_number).collect();
        assert_eq!(shown.join("\n") + "\n", printed, "{script}");
    }
}

fn without_line_number(line: &str) -> String {
    let Some((shell, rest)) = line.split_once(": line ") else { return line.into() };
    match rest.split_once(": ") {
        Some((number, message)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}: {message}", shell.rsplit('/').next().unwrap_or(shell))
        }
        _ => line.into(),
    }
}

#[test]
fn every_example_of_the_semantics_is_true_on_znoded() {
    every_example_prints_what_the_page_says(Backend::Znoded);
}

#[test]
fn every_example_of_the_semantics_is_true_on_zookeeper() {
    every_example_prints_what_the_page_says(Backend::ZooKeeper);
}
