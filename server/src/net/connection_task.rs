//! The task that owns a client's socket: reads whatever is there in one go, lets the
//! [`ClientConnection`] work on it, and writes everything that there is for the client in one go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::client_connection::{self, ClientConnection, Ending, Wait};
use super::handshake::{self, Handshake};
use crate::connection::Connection;
use crate::service::Service;

/// Bytes asked of the socket at once: grows while reads come back full, shrinks when they do not.
const READ_LENGTH_MIN: usize = 2 << 10;
const READ_LENGTH_MAX: usize = 128 << 10;
/// How long a closed connection waits for its last bytes to be taken.
const LINGER: Duration = Duration::from_secs(2);

/// One connection's side of the socket.
pub(super) struct ConnectionTask {
    pub(super) client: ClientConnection,
    pub(super) stream: TcpStream,
    read_length: usize,
}

/// Serves a client until one side closes the connection.
pub(super) async fn serve(service: Arc<Service>, connection: Arc<Connection>, stream: TcpStream) {
    let registered = Registered { service: service.clone(), connection: connection.clone() };
    let client = ClientConnection::new(service, connection);
    let mut task = ConnectionTask { client, stream, read_length: READ_LENGTH_MIN };
    let ending = task.run().await;
    drop(registered);
    log_ending(task.client.connection.peer, &ending);
    if matches!(ending, Ok(()) | Err(Ending::ByReplica)) {
        linger(task.stream).await;
    }
}

fn log_ending(peer: SocketAddr, ending: &Result<(), Ending>) {
    match ending {
        Ok(()) | Err(Ending::ByClient | Ending::ByReplica) => debug!("client {peer} is gone"),
        Err(Ending::Socket(error)) => debug!("client {peer} is gone: {error}"),
        Err(ending @ Ending::NoConnectRequest(_)) => info!("client {peer} closed: {ending}"),
        Err(ending) => warn!("client {peer} closed: {ending}"),
    }
}

/// Lets the client take the last bytes: closing a socket with unread input would reset it and throw
/// them away.
async fn linger(mut stream: TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let drain = async {
        stream.shutdown().await?;
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether the client hangs up in time makes no difference: the socket is closed now.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

impl ConnectionTask {
    async fn run(&mut self) -> Result<(), Ending> {
        let limit = self.client.service.config.handshake_timeout;
        let handshake = tokio::time::timeout(limit, handshake::receive(self)).await;
        match handshake.map_err(|_| Ending::NoConnectRequest(limit))?? {
            Handshake::Words(answer) => {
                use tokio::io::AsyncWriteExt;
                let write = self.stream.write_all(answer.as_bytes());
                // Whoever asks and does not listen has had its time.
                return Ok(tokio::time::timeout(LINGER, write).await.unwrap_or(Ok(()))?);
            }
            Handshake::Connecting => {}
        }
        loop {
            let stream = &self.stream;
            self.client.work(|bytes| stream.try_write(bytes))?;
            self.wait().await?;
        }
    }

    /// Waits for the socket or for the core.
    async fn wait(&mut self) -> Result<(), Ending> {
        let (reads, writes) = match self.client.waits_for()? {
            Wait::ToFinish => return self.finish_output().await,
            Wait::For { input, output } => (input, output),
        };
        let interest = match (reads, writes) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => {
                self.client.connection.woken().await;
                return Ok(());
            }
        };
        tokio::select! {
            ready = self.stream.ready(interest) => {
                if ready?.is_readable() && reads {
                    self.read_input()?;
                }
            }
            () = self.client.connection.woken() => {}
        }
        Ok(())
    }

    fn read_input(&mut self) -> Result<(), Ending> {
        let input = self.client.input();
        input.reserve(self.read_length);
        match self.stream.try_read_buf(input) {
            Ok(0) => Err(Ending::ByClient),
            Ok(count) if count >= self.read_length => {
                self.read_length = (self.read_length * 2).min(READ_LENGTH_MAX);
                Ok(())
            }
            Ok(count) => {
                if count * 4 < self.read_length {
                    self.read_length = (self.read_length / 2).max(READ_LENGTH_MIN);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the last bytes of a connection that is being closed.
    async fn finish_output(&mut self) -> Result<(), Ending> {
        let (client, stream) = (&mut self.client, &self.stream);
        let deadline = async {
            loop {
                if client.write_output(&mut |bytes| stream.try_write(bytes))? {
                    return Err(Ending::ByReplica);
                }
                stream.writable().await?;
            }
        };
        match tokio::time::timeout(LINGER, deadline).await {
            Ok(ended) => ended,
            Err(_) => Err(Ending::ByReplica),
        }
    }
}

/// A connection's place in the replica; nothing is left of it when this goes, be it by a panic.
struct Registered {
    service: Arc<Service>,
    connection: Arc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        client_connection::forget(&self.service, &self.connection);
    }
}
