//! `znode lock` on a terminal, driven through a pseudo-terminal by `terminal.py`: the command has the
//! terminal, keys reach it, job control works.

use std::process::Command;

use znodefs_tests::binaries::source_directory;

use crate::world::Service;

#[track_caller]
fn drive(step: &str) {
    let service = Service::new();
    let script = source_directory().join("tests/commands/terminal.py");
    let shell = service.shell_to(&service.server.address());
    shell.run(Command::new("/usr/bin/python3").arg("-B").arg(script).arg(step)).ok();
}

#[test]
fn the_command_reads_from_the_terminal() {
    drive("reads");
}

#[test]
fn an_interrupt_key_ends_the_command_and_the_script_around_it() {
    drive("interrupt");
}

#[test]
fn a_stopped_command_is_a_stopped_job_and_goes_on_in_the_foreground() {
    drive("stop");
}

#[test]
fn a_pipeline_keeps_the_terminal_until_the_command_asks_for_it() {
    drive("pipeline");
}
