//! The binary `znoded`: see `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    znodefs_server::cli::main()
}
