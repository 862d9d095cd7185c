//! The order of system calls: the log is synchronized before anybody is told.

use std::process::Command;
use std::time::Duration;

use znodefs_tests::{Directory, Process, WireClient, Znoded, free_port, server, wait_until};

/// The value whose way through the replica is followed.
const MARK: &str = "a-value-that-no-other-call-contains";

/// Calls in the order in which they returned: `PID call(…) = result`, unfinished ones joined.
fn returned_calls(trace: &str) -> Vec<String> {
    let mut unfinished = std::collections::HashMap::new();
    let mut returned = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid.to_string(), start.to_string());
        } else if call.starts_with("<... ") {
            let rest = call.split_once(" resumed>").map_or("", |(_, rest)| rest);
            returned.push(unfinished.remove(pid).unwrap_or_default() + rest);
        } else {
            returned.push(call.to_string());
        }
    }
    returned
}

#[test]
fn the_log_is_synchronized_before_the_reply_is_sent() {
    let (directory, port) = (Directory::new(), free_port());
    let trace = directory.join("trace");
    let znoded = Znoded::command(&directory, port);
    let mut command = Command::new("strace");
    command.args(["-f", "-s", "4096", "-o"]).arg(&trace);
    let calls = "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync,\
                 io_uring_enter,sync_file_range";
    command.arg("-e").arg(format!("trace={calls}"));
    // A traced process survives its tracer unless it is told not to.
    command.args(["setpriv", "--pdeathsig=KILL"]);
    command.arg(znoded.get_program()).args(znoded.get_args());
    let _process = Process::spawn(&mut command, &directory.join("znoded.log"));
    wait_until("the replica serves", Duration::from_secs(60), || server::is_serving(port));
    let address = format!("127.0.0.1:{port}");
    let mut client = WireClient::connect(&address);
    client.create("/marked", Some(MARK.as_bytes()));
    client.create("/replied-to", Some(b""));
    let written = || std::fs::read_to_string(&trace).unwrap_or_default();
    wait_until("the trace is written", Duration::from_secs(10), || {
        written().matches("/replied-to").count() >= 2
    });
    let calls = returned_calls(&written());
    let position = |what: &str, from: usize, matches: &dyn Fn(&str) -> bool| {
        let found = calls.iter().skip(from).position(|call| matches(call));
        from + found.unwrap_or_else(|| panic!("no {what} in:\n{}", calls.join("\n")))
    };
    let logged = position("write of the record", 0, &|call| call.contains(MARK));
    let synchronized = position("fdatasync after it", logged, &|call| {
        call.starts_with("fdatasync(") && call.ends_with("= 0")
    });
    let is_reply = |call: &str| {
        let sends = ["write(", "writev(", "sendto(", "sendmsg("];
        sends.iter().any(|name| call.starts_with(name)) && call.contains("/marked")
    };
    let replied = position("reply", 0, &|call| is_reply(call) && !call.contains(MARK));
    assert!(logged < synchronized && synchronized < replied, "{}", calls.join("\n"));
}
