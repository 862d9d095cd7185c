//! Ports for servers under test.

use std::collections::BTreeSet;
use std::net::TcpListener;

use parking_lot::Mutex;

use crate::random::Random;

/// Below Linux' range for outgoing connections (from 32768), so that no client's own port can take
/// the place of a server that is down for a moment and comes back on the same port.
const RANGE: std::ops::Range<u64> = 10_240..32_000;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of loopback that nobody listens on now, and that this process was not given before.
pub fn free_port() -> u16 {
    let mut random = Random::from_system();
    loop {
        let port = random.between(RANGE.start, RANGE.end) as u16;
        // One that was given away may not be listened on yet.
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && GIVEN.lock().insert(port) {
            return port;
        }
    }
}
