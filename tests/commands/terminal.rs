//! `znode lock` on a terminal, driven through a pseudo-terminal by `terminal.py`: the command has the
//! terminal, keys reach it, job control works.

use std::process::Command;

use znodefs_tests::binaries::source_directory;
use znodefs_tests::on_znoded;

use crate::world::Service;

#[track_caller]
fn drive(service: &Service, step: &str) {
    let script = source_directory().join("tests/commands/terminal.py");
    let shell = service.shell_to(&service.server.address());
    shell.run(Command::new("/usr/bin/python3").arg("-B").arg(script).arg(step)).ok();
}

fn the_command_reads_from_the_terminal(service: &mut Service) {
    drive(service, "reads");
}

fn an_interrupt_key_ends_the_command_and_the_script_around_it(service: &mut Service) {
    drive(service, "interrupt");
}

fn a_stopped_command_is_a_stopped_job_and_goes_on_in_the_foreground(service: &mut Service) {
    drive(service, "stop");
}

fn a_pipeline_keeps_the_terminal_until_the_command_asks_for_it(service: &mut Service) {
    drive(service, "pipeline");
}

on_znoded![|server| &mut super::Service::of(server);
    the_command_reads_from_the_terminal,
    an_interrupt_key_ends_the_command_and_the_script_around_it,
    a_stopped_command_is_a_stopped_job_and_goes_on_in_the_foreground,
    a_pipeline_keeps_the_terminal_until_the_command_asks_for_it,
];
