//! Three replicas that a test can take down one after the other: those of the project, or Debian's
//! ZooKeeper.

use std::path::Path;
use std::time::Duration;

use crate::deadline::{pause, wait_until};
use crate::ensemble::SERVICE_LIMIT;
use crate::server::{STOP_LIMIT, four_letter_word, is_serving, spawn_zookeeper, write_log4j};
use crate::{Directory, Ensemble, Process, Random, free_port};

/// An ensemble whose members come and go.
pub trait Replicas {
    /// All members for a client.
    fn connect_string(&self) -> String;

    /// How many there are; their ids count from 1.
    fn count(&self) -> u8;

    /// `kill -9`.
    fn kill(&mut self, id: u8);

    /// SIGTERM, and waits for the end.
    fn stop(&mut self, id: u8);

    /// The member that leads, once there is one.
    fn leader(&self) -> u8;

    /// Starts a member that does not run, with the data it has, and waits until it serves.
    fn start_again(&mut self, id: u8);
}

impl Replicas for Ensemble {
    fn connect_string(&self) -> String {
        Ensemble::connect_string(self)
    }

    fn count(&self) -> u8 {
        self.ids().len() as u8
    }

    fn kill(&mut self, id: u8) {
        Ensemble::kill(self, id);
    }

    fn stop(&mut self, id: u8) {
        Ensemble::stop(self, id);
    }

    fn leader(&self) -> u8 {
        Ensemble::leader(self)
    }

    fn start_again(&mut self, id: u8) {
        self.start_member(id);
        self.wait_until_serving(id);
    }
}

/// Kills a random member, and starts it again a moment later.
pub fn restart_one(replicas: &mut dyn Replicas, random: &mut Random) {
    let victim = random.between(1, u64::from(replicas.count()) + 1) as u8;
    replicas.kill(victim);
    pause(Duration::from_millis(random.between(0, 1000)));
    replicas.start_again(victim);
}

/// Three servers of Debian's ZooKeeper.
#[derive(Debug)]
pub struct ZooKeeperEnsemble {
    ports: Vec<u16>,
    processes: Vec<Option<Process>>,
    directory: Directory,
}

impl ZooKeeperEnsemble {
    /// Starts them with empty directories and waits until all of them serve.
    pub fn start() -> ZooKeeperEnsemble {
        let directory = Directory::new();
        let ports: Vec<[u16; 3]> =
            (0..3).map(|_| [free_port(), free_port(), free_port()]).collect();
        let lines: Vec<String> = (1..)
            .zip(&ports)
            .map(|(id, [client, quorum, election])| {
                format!("server.{id}=127.0.0.1:{quorum}:{election};127.0.0.1:{client}\n")
            })
            .collect();
        for id in 1..=3 {
            configure(&directory.subdirectory(&id.to_string()), id, &lines.concat());
        }
        let ports = ports.into_iter().map(|[client, ..]| client).collect();
        let processes = (0..3).map(|_| None).collect();
        let mut ensemble = ZooKeeperEnsemble { ports, processes, directory };
        for id in 1..=3 {
            ensemble.spawn(id);
        }
        for id in 1..=3 {
            ensemble.wait_until_serving(id);
        }
        ensemble
    }

    fn spawn(&mut self, id: u8) {
        let directory = self.directory.join(id.to_string());
        self.processes[usize::from(id) - 1] = Some(spawn_zookeeper(&directory));
    }

    fn wait_until_serving(&self, id: u8) {
        let port = self.ports[usize::from(id) - 1];
        // Java takes its time on a machine that does much else.
        wait_until(&format!("ZooKeeper {id} serves"), 2 * SERVICE_LIMIT, || is_serving(port));
    }

    /// A four-letter word's answer.
    pub fn word(&self, id: u8, word: &str) -> Option<String> {
        four_letter_word(self.ports[usize::from(id) - 1], word)
    }
}

fn configure(directory: &Path, id: u8, servers: &str) {
    let data = directory.join("data");
    let configuration = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\n4lw.commands.whitelist=*\n\
         admin.enableServer=false\n{servers}",
        data.display()
    );
    std::fs::create_dir_all(&data).expect("a directory in a fresh one");
    std::fs::write(data.join("myid"), format!("{id}\n")).expect("a file in it");
    std::fs::write(directory.join("zoo.cfg"), configuration).expect("the same");
    write_log4j(directory);
}

impl Replicas for ZooKeeperEnsemble {
    fn connect_string(&self) -> String {
        let all: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        all.join(",")
    }

    fn count(&self) -> u8 {
        3
    }

    fn kill(&mut self, id: u8) {
        if let Some(mut process) = self.processes[usize::from(id) - 1].take() {
            process.kill();
        }
    }

    fn stop(&mut self, id: u8) {
        if let Some(mut process) = self.processes[usize::from(id) - 1].take() {
            process.terminate(STOP_LIMIT);
        }
    }

    fn leader(&self) -> u8 {
        let leads =
            |id: &u8| self.word(*id, "srvr").is_some_and(|answer| answer.contains("Mode: leader"));
        let mut found = None;
        wait_until("a ZooKeeper leads", SERVICE_LIMIT, || {
            found = (1..=3).find(leads);
            found.is_some()
        });
        found.unwrap_or_default()
    }

    fn start_again(&mut self, id: u8) {
        self.spawn(id);
        self.wait_until_serving(id);
    }
}
