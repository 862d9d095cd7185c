//! Ports for servers under test.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use parking_lot::Mutex;

use crate::random::Random;

/// Below Linux' range for outgoing connections (from 32768), so that no client's own port can take
/// the place of a server that is down for a moment and comes back on the same port.
const RANGE: std::ops::Range<u64> = 10_240..32_000;

/// The ports of this process, each with what keeps other test processes away while nobody listens on it.
static GIVEN: Mutex<BTreeMap<u16, UnixDatagram>> = Mutex::new(BTreeMap::new());

/// A port of loopback that nobody listens on now, and that no test that still runs was given before.
pub fn free_port() -> u16 {
    let mut random = Random::from_system();
    loop {
        let port = random.between(RANGE.start, RANGE.end) as u16;
        let Some(claim) = claim(port) else { continue };
        // Programs that are none of the tests listen too.
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            GIVEN.lock().insert(port, claim);
            return port;
        }
    }
}

/// A socket whose abstract name stands for the port, so that the kernel gives it back with the process; `None`
/// if another has it.
fn claim(port: u16) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("znodefs-test-port-{port}"));
    UnixDatagram::bind_addr(&name.expect("a short name")).ok()
}
