//! `znode get|set|ls|create|rm|stat` from a script's point of view: output, exit code, message.

use std::path::Path;

use znodefs_tests::{Ran, Server, Shell, WireClient, binary, free_port, on_znoded};

/// A server and a shell in which `znode` talks to it.
struct Service<'a> {
    server: &'a dyn Server,
    shell: Shell,
}

impl Service<'_> {
    fn of(server: &dyn Server) -> Service<'_> {
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

fn create_get_set_and_rm_work_on_one_znode(service: &Service) {
    service.sh("znode create /a one").ok();
    assert_eq!(service.sh("znode get /a").ok(), "one");
    service.sh("znode set /a two").ok();
    assert_eq!(service.sh("znode get /a").ok(), "two");
    service.sh("znode rm /a").ok();
    service.sh("znode get /a").ends_saying(1, &["/a"]);
}

fn data_come_from_standard_input_byte_for_byte(service: &Service) {
    service.sh("znode create /a x").ok();
    let script = "t=$(mktemp); head -c 1000 /dev/urandom > $t; znode set /a - < $t &&
        znode get /a | cmp - $t; code=$?; rm $t; exit $code";
    service.sh(script).ok();
}

fn ls_prints_the_names_sorted_one_a_line(service: &Service) {
    service.sh("for name in b a c; do znode create /$name x; done").ok();
    assert_eq!(service.sh("znode ls /").ok(), "a\nb\nc\nzookeeper\n");
    assert_eq!(service.sh("znode ls /a").ok(), "");
}

fn stat_prints_the_fields_of_the_znode(service: &Service) {
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

fn failures_exit_with_1_and_name_the_znode(service: &Service) {
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

fn no_server_there_is_said_with_the_address_and_the_way_out(service: &Service) {
    let address = format!("127.0.0.1:{}", free_port());
    let ran = service.sh(&format!("znode -s {address} get /"));
    ran.ends_saying(1, &[&address]);
}

fn an_unknown_command_is_a_usage_error(service: &Service) {
    assert_eq!(service.sh("znode").code, 2);
    assert_eq!(service.sh("znode nonsense").code, 2);
    assert_eq!(service.sh("znode get").code, 2);
}

on_znoded![|server| &super::Service::of(server);
    create_get_set_and_rm_work_on_one_znode,
    data_come_from_standard_input_byte_for_byte,
    ls_prints_the_names_sorted_one_a_line,
    stat_prints_the_fields_of_the_znode,
    failures_exit_with_1_and_name_the_znode,
    no_server_there_is_said_with_the_address_and_the_way_out,
    an_unknown_command_is_a_usage_error,
];
