//! The replica over real sockets, in this process: a raw client that speaks frames, a disk that
//! forgets, a clock that stands still until it is moved.

mod client;
mod disk;
mod handshake;
mod limits;
mod ordering;
mod sessions;
mod vectors;
mod watches;
mod words;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::ManualClock;
use crate::config::{FourLetterWords, ServerConfig};
use crate::persistence::{Disk, MemoryDisk};
use crate::replica::Event;
use crate::server::{Disks, Server, StartError, Surroundings};

pub(super) use client::TestClient;

/// How long a test waits for what must happen.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Where the manual clock starts, milliseconds.
const START_MS: u64 = 1_700_000_000_000;

/// A replica on a disk in memory, with a clock that stands still.
pub(super) struct TestServer {
    pub server: Server,
    pub disk: MemoryDisk,
    pub clock: Arc<ManualClock>,
    pub config: ServerConfig,
}

pub(super) fn config() -> ServerConfig {
    let address = "127.0.0.1:0".parse().unwrap();
    let mut config = ServerConfig::standalone("/memory", address);
    config.log_preallocation = 64 << 10;
    config.four_letter_words = FourLetterWords::All;
    config
}

/// Randomness that is the same in every run.
fn repeatable(clock: &Arc<ManualClock>) -> Surroundings {
    let state = std::sync::atomic::AtomicU64::new(1);
    let random = move |buffer: &mut [u8]| {
        for byte in buffer {
            let next =
                state.load(std::sync::atomic::Ordering::SeqCst).wrapping_mul(0x5851_f42d_4c95_7f2d);
            state.store(next.wrapping_add(1), std::sync::atomic::Ordering::SeqCst);
            *byte = (next >> 33) as u8;
        }
        Ok(())
    };
    let clock: Arc<ManualClock> = Arc::clone(clock);
    Surroundings { clock, random: Arc::new(random) }
}

impl TestServer {
    pub async fn start() -> TestServer {
        TestServer::start_with(config()).await
    }

    pub async fn start_with(config: ServerConfig) -> TestServer {
        let clock = Arc::new(ManualClock::at(START_MS));
        TestServer::start_on(config, MemoryDisk::new(1), clock).await.unwrap()
    }

    pub async fn start_on(
        config: ServerConfig,
        disk: MemoryDisk,
        clock: Arc<ManualClock>,
    ) -> Result<TestServer, StartError> {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let disks = Disks { data: Arc::clone(&shared), log: shared };
        let server = Server::start_on(config.clone(), disks, repeatable(&clock)).await?;
        Ok(TestServer { server, disk, clock, config })
    }

    /// Stops in order and starts again on the same disk, at another port.
    pub async fn start_again(self) -> TestServer {
        self.server.stop().await;
        TestServer::start_on(self.config, self.disk, self.clock).await.unwrap()
    }

    /// The machine loses power; what was not synced is lost, or half of it. Then it starts again.
    pub async fn crash(self) -> TestServer {
        self.disk.crash();
        self.server.kill().await;
        TestServer::start_on(self.config, self.disk, self.clock).await.unwrap()
    }

    /// Lets time pass, second by second, so that the replica never seems to have stood still.
    pub async fn advance(&self, by: Duration) {
        for _ in 0..by.as_secs() {
            self.clock.advance(Duration::from_secs(1));
            self.settle().await;
        }
    }

    /// Waits until the core has done everything that is due.
    pub async fn settle(&self) {
        for _ in 0..2 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            self.server.service().mailbox.push(Event::DumpSessions(sender));
            receiver.await.unwrap();
        }
    }

    pub async fn client(&self) -> TestClient {
        TestClient::connect(self.server.address()).await
    }
}

/// Waits until a condition holds.
pub(super) async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
