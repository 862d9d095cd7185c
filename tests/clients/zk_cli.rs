//! zkCli.sh, the shell that comes with ZooKeeper.

use std::process::Command;

use znodefs_tests::{Ran, Server, Shell, on_every_server};

/// Runs one command with `zkCli.sh`.
#[track_caller]
pub fn zk_cli(address: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new("/usr/share/zookeeper/bin/zkCli.sh");
    command.arg("-server").arg(address).args(arguments);
    // It waits for the connection before it runs the command.
    command.env("CLIENT_JVMFLAGS", "-XX:TieredStopAtLevel=1 -Xmx128m");
    Shell::new(&std::env::temp_dir()).run(&mut command)
}

/// Types these lines into one interactive `zkCli.sh`.
#[track_caller]
fn zk_cli_session(address: &str, lines: &str) -> String {
    let shell = Shell::new(&std::env::temp_dir());
    let script = format!(
        "/usr/share/zookeeper/bin/zkCli.sh -server {address} <<'END' 2>&1\n{lines}\nquit\nEND"
    );
    shell.variable("CLIENT_JVMFLAGS", "-XX:TieredStopAtLevel=1 -Xmx128m").sh(&script).output()
}

/// The last line of the output that is not empty.
pub fn last_line(output: &str) -> &str {
    output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default()
}

fn zk_cli_creates_reads_watches_and_deletes(server: &mut dyn Server) {
    let lines = "create /cli one
get -s /cli
create -s /cli/n- x
create -e /cli/e y
create -s -e /cli/m- z
ls /cli
get -w /cli
set /cli two
get /cli
set -v 7 /cli three
ls -w /cli
delete /cli/e
stat -w /absent
create /absent
addWatch -m PERSISTENT_RECURSIVE /cli
create /cli/deep x
create /cli/deep/er
setAcl /cli world:anyone:rwd
getAcl /cli
getAllChildrenNumber /cli
deleteall /cli
ls /";
    let output = zk_cli_session(&server.address(), lines);
    assert_in_order(
        &output,
        &[
            "Created /cli",
            "dataVersion = 0",
            "dataLength = 3",
            "numChildren = 0",
            "Created /cli/n-0000000000",
            "Created /cli/e",
            "Created /cli/m-0000000002",
            "[e, m-0000000002, n-0000000000]",
            "two",
            "version No is not valid",
            "Node does not exist: /absent",
            "Created /absent",
            "Created /cli/deep",
            "Created /cli/deep/er",
            "'world,'anyone\n: drw",
            "4",
            "[absent, zookeeper]",
        ],
    );
    // It prints events whenever its event thread comes to it, between any two lines.
    assert_in_order(
        &output,
        &[
            "type:NodeDataChanged path:/cli",
            "type:NodeChildrenChanged path:/cli",
            "type:NodeCreated path:/absent",
            "type:NodeCreated path:/cli/deep",
            "type:NodeCreated path:/cli/deep/er",
            "type:NodeDeleted path:/cli/deep/er",
        ],
    );
}

/// Fails unless all of these are in the output, each after the one before it.
#[track_caller]
fn assert_in_order(output: &str, expected: &[&str]) {
    let mut rest = output;
    for text in expected {
        let Some((_, after)) = rest.split_once(text) else {
            panic!("no '{text}' in its place of:\n{output}\nfrom here on:\n{rest}")
        };
        rest = after;
    }
}

on_every_server![zk_cli_creates_reads_watches_and_deletes];
