//! The client port: accepts connections, reads frames, writes what the outboxes hold. What a request
//! means is decided elsewhere.

pub mod client_connection;
mod connection_task;
mod handshake;
pub mod registry;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::service::Service;
use registry::Refusal;

/// Takes the client port without opening it yet. Must be called inside a tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Where clients are taken.
#[derive(Default)]
pub struct Listeners {
    open: Mutex<Vec<(SocketAddr, AbortHandle)>>,
}

impl Listeners {
    /// Takes no more clients on this port; whether it did.
    pub fn end(&self, port: u16) -> bool {
        let is_ending = |(address, _): &mut (SocketAddr, AbortHandle)| address.port() == port;
        let mut open = self.open.lock();
        let ending: Vec<_> = open.extract_if(.., is_ending).collect();
        ending.iter().for_each(|(_, task)| task.abort());
        !ending.is_empty()
    }

    /// Takes no more clients.
    pub fn end_all(&self) {
        self.open.lock().drain(..).for_each(|(_, task)| task.abort());
    }
}

/// Takes clients from now on, until [`Listeners::end`]. Must be called inside a tokio runtime.
pub fn take_clients(listener: TcpListener, service: &Arc<Service>) -> io::Result<()> {
    let address = listener.local_addr()?;
    let task = tokio::spawn(accept(listener, Arc::clone(service)));
    service.listeners.open.lock().push((address, task.abort_handle()));
    Ok(())
}

/// Accepts clients for as long as it is polled.
async fn accept(listener: TcpListener, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(&service, stream, peer),
            Err(error) => {
                warn!("cannot accept a client: {error}");
                // Out of descriptors, mostly: without a pause this loop would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(service: &Arc<Service>, stream: TcpStream, peer: SocketAddr) {
    let clock = &service.clock;
    match service.connections.admit(peer, clock.wall_ms(), clock.monotonic_ms()) {
        Ok(connection) => {
            if let Err(error) = stream.set_nodelay(true) {
                debug!("client {peer}: TCP_NODELAY: {error}");
            }
            tokio::spawn(connection_task::serve(Arc::clone(service), connection, stream));
        }
        Err(Refusal::Address { limit }) => warn!(
            "client {peer} refused: its address has {limit} connections already, the most that \
             maxClientCnxns allows"
        ),
        Err(Refusal::Total { limit }) => warn!(
            "client {peer} refused: there are {limit} connections already, the most that maxCnxns \
             allows"
        ),
        Err(Refusal::Stopped) => {}
    }
}
