//! The harness of the end-to-end tests: it starts the real binaries, Debian's ZooKeeper and real
//! kernel mounts, runs shell commands against them and leaves nothing behind, whether the test
//! passes, fails or is killed.
//!
//! No assertion about the product lives here; those are in `tests/<area>/`.

pub mod backend;
pub mod background;
pub mod binaries;
pub mod certificates;
pub mod deadline;
pub mod directory;
pub mod ensemble;
pub mod history;
pub mod mount;
pub mod mount_table;
pub mod network;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod random;
pub mod reaper;
pub mod replicas;
pub mod restarts;
mod roaming;
pub mod server;
pub mod shell;
pub mod small_disk;
pub mod tree;
pub mod wire_client;

pub use backend::{Backend, World};
pub use background::Background;
pub use binaries::binary;
pub use certificates::Authority;
pub use deadline::{Deadline, wait_for, wait_until};
pub use directory::Directory;
pub use ensemble::Ensemble;
pub use history::History;
pub use mount::Mount;
pub use network::Network;
pub use ports::free_port;
pub use process::Process;
pub use proxy::Proxy;
pub use random::Random;
pub use replicas::{Replicas, ZooKeeperEnsemble};
pub use server::{DebianZooKeeper, Server, Znoded};
pub use shell::{Ran, Shell};
pub use small_disk::SmallDisk;
pub use wire_client::WireClient;
