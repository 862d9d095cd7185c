//! Examples in the documents: blocks of commands behind `$ ` and of what they print.

use znodefs_tests::Shell;
use znodefs_tests::binaries::source_directory;

/// An example: the commands, and everything they print.
pub struct Example {
    pub script: String,
    pub printed: String,
}

/// The examples of a page, in order.
pub fn examples(page: &str) -> Vec<Example> {
    let page = source_directory().join(page);
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

/// Runs an example.
///
/// # Panics
/// If it does not print what the page says.
#[track_caller]
pub fn assert_prints(shell: &Shell, Example { script, printed }: &Example) {
    let ran = shell.sh(&format!("exec 2>&1\n{script}"));
    // A shell that runs a script also says in which line it is.
    let shown: Vec<_> = ran.stdout.lines().map(without_line_number).collect();
    assert_eq!(shown.join("\n") + "\n", *printed, "{script}");
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
