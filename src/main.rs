//! The command line `znode`: reads its arguments, runs one command, exits 0, 1 (it failed) or 2
//! (usage). Everything else is in `cli`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
