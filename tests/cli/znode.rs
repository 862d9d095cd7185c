//! `znode get|set|ls|create|rm|stat` from a script's point of view: output, exit code, message.

use std::path::Path;

use znodefs_tests::{Ran, Server, Shell, WireClient, Znoded, binary, free_port};

/// A replica and a shell in which `znode` talks to it.
struct Service {
    server: Znoded,
    shell: Shell,
}

impl Service {
    fn new() -> Service {
        let server = Znoded::start();
        let path = format!("{}:/usr/bin:/bin", binary("znode").parent().unwrap().display());
        let shell = Shell::new(Path::new("/")).variable("PATH", path);
        let shell = shell.variable("ZNODE_SERVERS", server.address());
        Service { server, shell }
    }

    #[track_caller]
    fn sh(&self, script: &str) -> Ran {
        self.shell.sh(script)
    }

    fn client(&self) -> WireClient {
        WireClient::connect(&self.server.address())
    }
}

#[test]
fn create_get_set_and_rm_work_on_one_znode() {
    let service = Service::new();
    service.sh("znode create /a one").ok();
    assert_eq!(service.sh("znode get /a").ok(), "one");
    service.sh("znode set /a two").ok();
    assert_eq!(service.sh("znode get /a").ok(), "two");
    service.sh("znode rm /a").ok();
    service.sh("znode get /a").ends_saying(1, &["/a"]);
}

#[test]
fn data_come_from_standard_input_byte_for_byte() {
    let service = Service::new();
    service.sh("znode create /a x").ok();
    let script = "t=$(mktemp); head -c 1000 /dev/urandom > $t; znode set /a - < $t &&
        znode get /a | cmp - $t; code=$?; rm $t; exit $code";
    service.sh(script).ok();
}

#[test]
fn ls_prints_the_names_sorted_one_a_line() {
    let service = Service::new();
    service.sh("for name in b a c; do znode create /$name x; done").ok();
    assert_eq!(service.sh("znode ls /").ok(), "a\nb\nc\nzookeeper\n");
    assert_eq!(service.sh("znode ls /a").ok(), "");
}

#[test]
fn stat_prints_the_fields_of_the_znode() {
    let service = Service::new();
    service.sh("znode create /a value; znode set /a values").ok();
    let printed = service.sh("znode stat /a").ok();
    let stat = service.client().stat("/a").unwrap();
    let fields = [("version", stat.version), ("cversion", stat.cversion), ("aversion", 0)];
    for (name, value) in fields {
        let found = printed.lines().any(|line| {
            let words: Vec<_> =
                line.split([' ', '=', ':', '\t']).filter(|w| !w.is_empty()).collect();
            words == [name, &value.to_string()]
        });
        assert!(found, "no {name} {value} in:\n{printed}");
    }
}

#[test]
fn failures_exit_with_1_and_name_the_znode() {
    let service = Service::new();
    service.sh("znode create /a x; znode create /a/b x").ok();
    service.sh("znode create /a x").ends_saying(1, &["/a"]);
    service.sh("znode create /missing/b x").ends_saying(1, &["/missing"]);
    service.sh("znode set /missing x").ends_saying(1, &["/missing"]);
    service.sh("znode ls /missing").ends_saying(1, &["/missing"]);
    service.sh("znode stat /missing").ends_saying(1, &["/missing"]);
    service.sh("znode rm /missing").ends_saying(1, &["/missing"]);
    service.sh("znode rm /a").ends_saying(1, &["/a"]);
    let usage = service.sh("znode get relative");
    assert_eq!(usage.code, 2);
    assert!(usage.stderr.contains("relative"), "{usage:#?}");
}

#[test]
fn no_server_there_is_said_with_the_address_and_the_way_out() {
    let service = Service::new();
    let address = format!("127.0.0.1:{}", free_port());
    let ran = service.sh(&format!("znode -s {address} get /"));
    ran.ends_saying(1, &[&address]);
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let service = Service::new();
    assert_eq!(service.sh("znode").code, 2);
    assert_eq!(service.sh("znode nonsense").code, 2);
    assert_eq!(service.sh("znode get").code, 2);
}
