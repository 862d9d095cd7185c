//! A replica inside the mount process, for a tree that needs no other server.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use znodefs_server::config::ServerConfig;
use znodefs_server::server::Server;

/// A running replica. It is stopped with [`EmbeddedReplica::stop`]; dropped, it ends as a crash
/// would end it, which loses nothing that was acknowledged.
pub struct EmbeddedReplica {
    server: Server,
}

impl EmbeddedReplica {
    /// Starts a standalone replica with its data in `directory` (created if missing) that listens
    /// on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is in use, or the directory cannot be used; the replica's own words.
    pub async fn start(directory: &Path, listen: SocketAddr) -> Result<EmbeddedReplica> {
        let config = ServerConfig::standalone(directory, listen);
        let server = Server::start(config).await.context("cannot start the replica")?;
        Ok(EmbeddedReplica { server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Waits until it cannot go on, and says why.
    pub async fn failed(&self) -> String {
        self.server.failed().await
    }

    /// Stops it: what was acknowledged is on disk, the port is free.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}
