//! Command lines and configurations with which a replica cannot start.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use znodefs_tests::{
    Directory, Process, Ran, Server, Shell, Znoded, binary, free_port, server, wait_until,
};

fn znoded(arguments: &[&str]) -> Ran {
    Shell::new(Path::new("/")).run(Command::new(binary("znoded")).args(arguments))
}

/// A `zoo.cfg` with these lines behind the usual ones, in a directory of its own.
fn configuration(directory: &Directory, port: u16, lines: &str) -> String {
    let data = directory.subdirectory("data");
    let text = format!(
        "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n{lines}\n",
        data.display()
    );
    let file = directory.join("zoo.cfg");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn a_port_in_use_is_named() {
    let server = Znoded::start();
    let directory = Directory::new();
    let ran = Shell::new(&directory).run(&mut Znoded::command(&directory, server.port()));
    ran.ends_saying(1, &[&server.address(), "in use"]);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    znoded(&["/nonexistent/zoo.cfg"]).ends_saying(2, &["/nonexistent/zoo.cfg"]);
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    let directory = Directory::new();
    let file = configuration(&directory, free_port(), "initLimit=many");
    let ran = znoded(&[&file]);
    let line = ran.ends_saying(2, &["initLimit", "5"]);
    assert!(line.contains(&file), "{line}");
}

#[test]
fn an_unknown_key_is_a_warning_that_names_it() {
    let (directory, port) = (Directory::new(), free_port());
    let file = configuration(&directory, port, "unheardOf=1");
    let mut command = Command::new(binary("znoded"));
    let process = Process::spawn(command.arg(file), &directory.join("log"));
    let limit = Duration::from_secs(20);
    wait_until("the replica serves", limit, || server::is_serving(port));
    assert!(process.log_text().contains("unheardOf"), "{}", process.log_text());
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    assert_eq!(znoded(&[]).code, 2);
    assert_eq!(znoded(&["--no-such-option"]).code, 2);
    assert_eq!(znoded(&["--standalone"]).code, 2);
    let listen = znoded(&["--standalone", "/nonexistent/data", "--listen", "nonsense"]);
    assert_ne!(listen.code, 0, "{listen:#?}");
}
