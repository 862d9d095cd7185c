//! A TCP proxy in front of a server, or of several, that can fall silent or cut every connection: what goes wrong in
//! networks, at will.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a thread of the proxy looks away from its flags at most.
const READ_TIMEOUT: Duration = Duration::from_millis(20);

/// Forwards connections to a server until told otherwise.
pub struct Proxy {
    address: String,
    flags: Arc<Flags>,
}

#[derive(Default)]
struct Flags {
    /// Connections stay, but nothing goes through; new ones are not answered.
    is_silent: AtomicBool,
    /// Connections are closed, and new ones at once.
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

impl Proxy {
    /// Listens on a fresh port, for `HOST:PORT` or for several of them, separated by commas, in turn.
    pub fn of(servers: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = listener.local_addr().expect("the port just bound").to_string();
        let flags = Arc::new(Flags::default());
        let of_thread = flags.clone();
        let mut servers: VecDeque<String> = servers.split(',').map(str::to_string).collect();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if of_thread.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if of_thread.is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                // Who is down is passed over.
                for _ in 0..servers.len() {
                    servers.rotate_left(1);
                    if let Ok(server) = TcpStream::connect(&servers[0]) {
                        forward(&client, &server, &of_thread);
                        forward(&server, &client, &of_thread);
                        break;
                    }
                }
            }
        });
        Proxy { address, flags }
    }

    /// `HOST:PORT` for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on nothing goes through, and nobody is told.
    pub fn fall_silent(&self) {
        self.flags.is_silent.store(true, Ordering::Relaxed);
    }

    /// Closes every connection, and every new one at once.
    pub fn cut(&self) {
        self.flags.is_cut.store(true, Ordering::Relaxed);
    }

    /// Connections can be made again.
    pub fn mend(&self) {
        self.flags.is_cut.store(false, Ordering::Relaxed);
    }

    /// Everything that was held back goes through, and what comes from now on.
    pub fn speak(&self) {
        self.flags.is_silent.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.flags.is_over.store(true, Ordering::Relaxed);
        // Wakes the listening thread.
        let _ = TcpStream::connect(&self.address);
    }
}

/// Forwards one direction in a thread of its own.
fn forward(from: &TcpStream, to: &TcpStream, flags: &Arc<Flags>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second descriptor of a socket");
    let (mut from, mut to, flags) = (clone(from), clone(to), flags.clone());
    from.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout that is not zero");
    std::thread::spawn(move || {
        let mut buffer = [0; 64 * 1024];
        while !flags.is_over.load(Ordering::Relaxed) && !flags.is_cut.load(Ordering::Relaxed) {
            if flags.is_silent.load(Ordering::Relaxed) {
                std::thread::sleep(READ_TIMEOUT);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    while flags.is_silent.load(Ordering::Relaxed) {
                        std::thread::sleep(READ_TIMEOUT);
                    }
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
