//! A TCP proxy in front of a server, or of several, that can fall silent or cut every connection: what goes wrong in
//! networks, at will. It can also make an older server out of a new one.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    on_add_watch: OnAddWatch,
    add_watches: AtomicUsize,
}

/// What becomes of a request for a persistent watch.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum OnAddWatch {
    #[default]
    Pass,
    /// The answer of a server that does not know it (ZooKeeper before 3.6).
    Refuse,
    /// The first one of all comes with the end of its connection.
    CutOnce,
}

impl Proxy {
    /// Listens on a fresh port, for `HOST:PORT` or for several of them, separated by commas, in turn.
    pub fn of(servers: &str) -> Proxy {
        Proxy::with(servers, OnAddWatch::Pass)
    }

    /// The servers as if they did not know persistent watches.
    pub fn of_older(servers: &str) -> Proxy {
        Proxy::with(servers, OnAddWatch::Refuse)
    }

    /// Cuts the first connection through which a persistent watch is asked for, before a server has heard
    /// of it.
    pub fn cutting_the_first_watch(servers: &str) -> Proxy {
        Proxy::with(servers, OnAddWatch::CutOnce)
    }

    fn with(servers: &str, on_add_watch: OnAddWatch) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = listener.local_addr().expect("the port just bound").to_string();
        let flags = Arc::new(Flags { on_add_watch, ..Flags::default() });
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
                        if of_thread.on_add_watch == OnAddWatch::Pass {
                            forward(&client, &server, &of_thread);
                        } else {
                            forward_requests(&client, &server, &of_thread);
                        }
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

    /// How often a persistent watch was asked for and not passed on.
    pub fn add_watches(&self) -> usize {
        self.flags.add_watches.load(Ordering::Relaxed)
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

/// Forwards a client's frames in a thread of its own, persistent watches excepted.
fn forward_requests(client: &TcpStream, server: &TcpStream, flags: &Arc<Flags>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a second descriptor of a socket");
    let (mut client, mut server, flags) = (clone(client), clone(server), flags.clone());
    std::thread::spawn(move || {
        // The greeting has no header.
        let mut is_greeting = true;
        while let Ok(frame) = read_frame(&mut client) {
            let is_add_watch = !is_greeting && frame.get(8..12) == Some(&ADD_WATCH.to_be_bytes());
            is_greeting = false;
            let is_first = is_add_watch && flags.add_watches.fetch_add(1, Ordering::Relaxed) == 0;
            let result = match flags.on_add_watch {
                OnAddWatch::Refuse if is_add_watch => client.write_all(&refusal(&frame)),
                OnAddWatch::CutOnce if is_first => break,
                _ => server.write_all(&frame),
            };
            if result.is_err() || flags.is_cut.load(Ordering::Relaxed) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

const ADD_WATCH: i32 = 106;
const UNIMPLEMENTED: i32 = -6;

/// A frame with its length.
fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let length = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + length, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}

/// The reply to a request that the server does not know; nothing else is on its way then.
fn refusal(request: &[u8]) -> Vec<u8> {
    let mut reply = 16_u32.to_be_bytes().to_vec();
    reply.extend_from_slice(&request[4..8]);
    reply.extend_from_slice(&0_i64.to_be_bytes());
    reply.extend_from_slice(&UNIMPLEMENTED.to_be_bytes());
    reply
}
