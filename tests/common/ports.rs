//! Ports for servers under test.

use std::net::TcpListener;

use crate::random::Random;

/// Below Linux' range for outgoing connections (from 32768), so that no client's own port can take
/// the place of a server that is down for a moment and comes back on the same port.
const RANGE: std::ops::Range<u64> = 10_240..32_000;

/// A port of loopback that nobody listens on now.
pub fn free_port() -> u16 {
    let mut random = Random::from_system();
    loop {
        let port = random.between(RANGE.start, RANGE.end) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
