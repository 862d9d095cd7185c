//! A machine whose power can be cut: the replica runs inside the test on a disk that forgets what
//! was not synchronized, loses directory entries and tears writes. `kill -9` cannot show that,
//! since it keeps what is in the kernel's page cache.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use znodefs_server::config::ServerConfig;
use znodefs_server::persistence::MemoryDisk;
use znodefs_server::server::{Disks, Server, StartError, Surroundings};
use znodefs_tests::{Deadline, free_port};

/// How long the replica may take to notice that its disk is gone, once its last change has come.
const FAILURE_LIMIT: Duration = Duration::from_secs(60);

/// A machine with a forgetful disk that runs a replica.
pub struct Machine {
    runtime: Runtime,
    disk: MemoryDisk,
    address: SocketAddr,
    server: Server,
}

impl Machine {
    /// Starts a replica on an empty disk; equal seeds give disks that forget alike.
    pub fn new(seed: u64) -> Machine {
        let runtime = Runtime::new().expect("a runtime");
        let disk = MemoryDisk::new(seed);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let server = runtime.block_on(start(&disk, address));
        Machine { runtime, disk, address, server }
    }

    /// `HOST:PORT` of the replica.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Cuts the power at the `change`th change of the disk from now and waits until the replica has
    /// ended of it. Gives up, and returns false, once `is_over` tells that no more changes will come.
    pub fn cut_power(&self, change: u64, is_over: impl Fn() -> bool) -> bool {
        self.disk.cut_power_after(change);
        let deadline = Deadline::after(FAILURE_LIMIT);
        while !self.has_failed_within(Duration::from_millis(20)) {
            if is_over() {
                return false;
            }
            assert!(!deadline.has_passed(), "the replica goes on without its disk");
        }
        true
    }

    fn has_failed_within(&self, limit: Duration) -> bool {
        let failed = async { tokio::time::timeout(limit, self.server.failed()).await };
        self.runtime.block_on(failed).is_ok()
    }

    /// The machine comes up again with what its disk has kept.
    pub fn restart(&mut self) {
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
    let deadline = Deadline::after(FAILURE_LIMIT);
    loop {
        let disks = Disks { data: Arc::new(disk.clone()), log: Arc::new(disk.clone()) };
        match Server::start_on(config.clone(), disks, Surroundings::system()).await {
            Ok(server) => return server,
            // The task that listened before ends when the runtime comes to it.
            Err(StartError::PortInUse { .. }) if !deadline.has_passed() => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("the replica does not start again: {error}"),
        }
    }
}
