//! `kill -9` keeps what the kernel has in its page cache; a power cut does not. The replica runs
//! inside the test on a disk that forgets what was not synchronized, loses directory entries and
//! tears writes; the mount is a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_server::config::ServerConfig;
use znodefs_server::persistence::MemoryDisk;
use znodefs_server::server::{Disks, Server, Surroundings};
use znodefs_tests::binaries::source_directory;
use znodefs_tests::{Mount, Random, WireClient, free_port};

use crate::copy::{Copy, GiveUp};
use crate::rounds;

/// Between two power cuts there are at most so many changes of the disk.
const CHANGES_MAX: u64 = 600;

/// How long a replica may take to notice that its disk is gone, and a test to bring about that many
/// changes.
const FAILURE_LIMIT: Duration = Duration::from_secs(60);

/// A machine with a forgetful disk that runs a replica.
struct Machine {
    runtime: Runtime,
    disk: MemoryDisk,
    address: SocketAddr,
    server: Server,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let runtime = Runtime::new().expect("a runtime");
        let disk = MemoryDisk::new(seed);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let server = runtime.block_on(start(&disk, address));
        Machine { runtime, disk, address, server }
    }

    /// Waits until the replica has failed because its disk did; false if that does not happen.
    fn has_failed_within(&self, limit: Duration) -> bool {
        let failed = async { tokio::time::timeout(limit, self.server.failed()).await };
        self.runtime.block_on(failed).is_ok()
    }

    /// The machine comes up again with what its disk has kept.
    fn restart(&mut self) {
        self.runtime.block_on(self.server.kill());
        self.disk.crash();
        self.server = self.runtime.block_on(start(&self.disk, self.address));
    }
}

async fn start(disk: &MemoryDisk, address: SocketAddr) -> Server {
    let mut config = ServerConfig::standalone(Path::new("/unused"), address);
    // Often, so that power is cut in the middle of snapshots too.
    config.snapshot_txns = 200;
    config.log_preallocation = 1 << 20;
    let disks = Disks { data: Arc::new(disk.clone()), log: Arc::new(disk.clone()) };
    let started = Server::start_on(config, disks, Surroundings::system()).await;
    started.unwrap_or_else(|error| panic!("the replica does not start again: {error}"))
}

/// Copies `source` while the power is cut again and again, each time at a random change of the disk.
fn survives_power_cuts(source: &Path, random: &mut Random) {
    let mut machine = Machine::new(random.next_u64());
    let address = machine.address.to_string();
    let mount = Mount::of(&address, &[]);
    let copy = Copy::new(source, mount.join("copy"), "/copy");
    let mut cuts = 0;
    std::thread::scope(|scope| {
        let _give_up = GiveUp(&copy);
        let copier = scope.spawn(|| copy.run());
        while !copier.is_finished() {
            machine.disk.cut_power_after(random.between(0, CHANGES_MAX));
            let deadline = znodefs_tests::Deadline::after(FAILURE_LIMIT);
            while !machine.has_failed_within(Duration::from_millis(50)) {
                if copier.is_finished() {
                    break;
                }
                assert!(!deadline.has_passed(), "the replica goes on without its disk");
            }
            let returned = copy.returned();
            machine.restart();
            cuts += 1;
            copy.assert_are_there(&returned, &mut WireClient::connect(&address));
        }
    });
    let mut client = WireClient::connect(&address);
    copy.assert_are_there(&copy.returned(), &mut client);
    copy.assert_none_is_half(&mut client);
    eprintln!("{cuts} power cuts, {} of {} copies returned", copy.returned().len(), copy.len());
}

#[test]
fn copied_files_survive_power_cuts_of_the_replica() {
    let mut random = Random::announced();
    for _ in 0..rounds() {
        survives_power_cuts(&source_directory().join("server"), &mut random);
        survives_power_cuts(Path::new("/usr/share/zoneinfo/Europe"), &mut random);
    }
}
