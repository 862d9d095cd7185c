//! A replica inside the mount process, for a tree that needs no other server.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail};

/// A running replica. It is stopped with [`EmbeddedReplica::stop`]; dropped, it ends as a crash
/// would end it, which loses nothing that was acknowledged.
pub struct EmbeddedReplica {
    address: SocketAddr,
}

impl EmbeddedReplica {
    /// Starts a standalone replica with its data in `directory` (created if missing) that listens
    /// on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is in use, or the directory cannot be used.
    pub async fn start(directory: &Path, listen: SocketAddr) -> Result<EmbeddedReplica> {
        let _ = EmbeddedReplica { address: listen };
        bail!("an embedded replica in {} is not built yet", directory.display())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it: what was acknowledged is on disk, the port is free.
    pub async fn stop(self) {}
}
