//! The addresses on which a port takes connections. They come and go while the replica runs, as its
//! line in the configuration changes; connections that were taken outlive the address.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::endpoint::{Host, accept_peers};
use crate::net;

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;

/// Where connections of peers are taken. Dropping it ends that, and closes those that were taken.
pub struct Listening {
    first: SocketAddr,
    open: Mutex<Vec<Open>>,
    runtime: Handle,
    accept: Box<dyn Fn(TcpListener, Arc<Notify>) -> JoinHandle<()> + Send + Sync>,
}

struct Open {
    /// `None`: no more connections are taken.
    address: Option<SocketAddr>,
    end: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Takes connections on `address` for `host`. Must be called inside a tokio runtime.
    pub(super) fn begin<H: Host>(address: SocketAddr, host: Weak<H>) -> io::Result<Listening> {
        let runtime = Handle::current();
        let spawning = runtime.clone();
        let accept = move |listener, end| spawning.spawn(accept_peers(listener, host.clone(), end));
        let mut listening =
            Listening { first: address, open: Mutex::default(), runtime, accept: Box::new(accept) };
        listening.first = listening.add(address)?;
        Ok(listening)
    }

    /// The first address.
    pub fn first(&self) -> SocketAddr {
        self.first
    }

    /// Takes connections on one more address, which is returned as it is then.
    pub fn add(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let _inside = self.runtime.enter();
        let listener = net::bind(address)?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let end = Arc::new(Notify::new());
        let task = (self.accept)(listener, Arc::clone(&end));
        let mut open = self.open.lock();
        open.retain(|one| !one.task.is_finished());
        open.push(Open { address: Some(address), end, task });
        Ok(address)
    }

    /// Takes no more connections on this TCP port; whether it did.
    pub fn end(&self, port: u16) -> bool {
        let mut open = self.open.lock();
        let ending = open.iter_mut().filter(|one| one.address.is_some_and(|at| at.port() == port));
        let mut ends = false;
        for one in ending {
            one.address = None;
            one.end.notify_one();
            ends = true;
        }
        ends
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.open.lock().iter().for_each(|one| one.task.abort());
    }
}
