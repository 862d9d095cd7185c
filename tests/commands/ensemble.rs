//! `znode lock` on an ensemble: replicas that are killed and started again, and one that goes on serving
//! its clients although it is cut off from its leader.

use std::process::Command;

use znodefs_tests::ensemble::{Ensemble, SERVICE_LIMIT};
use znodefs_tests::server::{four_letter_word, is_serving};
use znodefs_tests::{Directory, Process, Proxy, Random, binary, free_port, wait_until};

use crate::world::{SOON, Shells};

#[test]
fn twenty_contenders_exclude_each_other_while_replicas_are_killed_at_random() {
    let mut random = Random::announced();
    let mut ensemble = Ensemble::start(3, 0);
    let shells = Shells::new();
    let section = "set -C; { : > inside; } 2>/dev/null || echo VIOLATION >> record; set +C; \
                   echo in >> record; sleep 0.1; echo out >> record; rm -f inside";
    let script = format!("znode lock /l bash -c '{section}'");
    let servers = ensemble.connect_string();
    let mut contenders: Vec<_> = (0..20)
        .map(|_| shells.start_to(&servers, &format!("{script} && {script} && {script}")))
        .collect();
    shells.wait_for_line("record", "out");
    for _ in 0..3 {
        let victim = random.between(1, 4) as u8;
        ensemble.kill(victim);
        let seen = shells.read("record").len();
        wait_until("it goes on", SERVICE_LIMIT, || shells.read("record").len() > seen);
        ensemble.start_member(victim);
        ensemble.wait_until_serving(victim);
    }
    for contender in &mut contenders {
        let status = contender.wait(3 * SOON).expect("no contender starves");
        assert!(status.success(), "{status}: {}", contender.log_text());
    }
    let record = shells.read("record");
    assert!(!record.contains("VIOLATION"), "{record}");
    let lines: Vec<_> = record.lines().collect();
    assert_eq!(lines.len(), 120);
    assert!(lines.chunks(2).all(|pair| pair == ["in", "out"]), "{record}");
}

/// Three voters, of which the first reaches the others' quorum ports through proxies only.
struct Severable {
    _processes: Vec<Process>,
    client_ports: Vec<u16>,
    proxies: Vec<Proxy>,
    _directory: Directory,
}

impl Severable {
    fn start() -> Severable {
        let directory = Directory::new();
        let ports: Vec<[u16; 3]> =
            (0..3).map(|_| [free_port(), free_port(), free_port()]).collect();
        let proxies: Vec<Proxy> = ports[1..]
            .iter()
            .map(|[quorum, ..]| Proxy::of(&format!("127.0.0.1:{quorum}")))
            .collect();
        let start = |id: usize| {
            let data = directory.subdirectory(&id.to_string());
            // It takes long to notice that its leader is silent.
            let mut lines = format!(
                "dataDir={}\ntickTime=1000\ninitLimit=10\nsyncLimit=30\n4lw.commands.whitelist=*\n",
                data.display()
            );
            for (index, [quorum, election, client]) in ports.iter().enumerate() {
                let address = match index.checked_sub(1) {
                    Some(other) if id == 1 => proxies[other].address().to_string(),
                    _ => format!("127.0.0.1:{quorum}"),
                };
                lines += &format!("server.{}={address}:{election};127.0.0.1:{client}\n", index + 1);
            }
            std::fs::write(data.join("myid"), format!("{id}\n")).expect("a fresh directory");
            let file = directory.join(format!("{id}.cfg"));
            std::fs::write(&file, lines).expect("the same");
            let mut command = Command::new(binary("znoded"));
            Process::spawn(command.arg(file), &directory.join(format!("{id}.log")))
        };
        let processes = (1..=3).map(start).collect();
        let client_ports: Vec<u16> = ports.iter().map(|[_, _, client]| *client).collect();
        let severable =
            Severable { _processes: processes, client_ports, proxies, _directory: directory };
        for port in &severable.client_ports {
            wait_until("all serve", SERVICE_LIMIT, || is_serving(*port));
        }
        severable
    }

    fn address(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.client_ports[id - 1])
    }
}

#[test]
fn a_holder_whose_replica_is_cut_off_has_ended_before_the_next_one_starts() {
    let ensemble = Severable::start();
    let role = four_letter_word(ensemble.client_ports[0], "mntr").unwrap_or_default();
    assert!(
        role.contains("zk_server_state\tfollower"),
        "the highest id leads a new ensemble: {role}"
    );
    let shells = Shells::new();
    let section = "trap \"\" TERM; while :; do echo old >> got; sleep 0.01; done";
    let script = format!("znode --timeout 6s lock /l bash -c '{section}'");
    let mut old = shells.start_to(&ensemble.address(1), &script);
    shells.wait_for_line("got", "old");
    let next = "znode --timeout 6s lock /l sh -c 'echo new >> got; sleep 2'";
    let mut new = shells.start_to(&ensemble.address(2), next);
    let waits = "znode wait /l --children 2 -w 20";
    shells.sh_to(&ensemble.address(2), waits).ok();
    for proxy in &ensemble.proxies {
        proxy.fall_silent();
    }
    shells.wait_for_line("got", "new");
    assert_eq!(new.wait(SOON).and_then(|status| status.code()), Some(0));
    assert_eq!(old.wait(SOON).and_then(|status| status.code()), Some(137));
    let got = shells.read("got");
    let (_, after) = got.split_once("new\n").expect("the new holder came");
    assert!(!after.contains("old"), "two held the lock at once");
}
