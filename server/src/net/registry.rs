//! All connections there are, and the limits on their number. No I/O.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::connection::{Connection, ConnectionId};

/// The connections of a replica.
#[derive(Debug)]
pub struct ConnectionRegistry {
    per_address_max: usize,
    total_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: HashMap<ConnectionId, Arc<Connection>>,
    per_address: HashMap<IpAddr, usize>,
    last_id: u64,
    stopped: bool,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its address has too many.
    Address {
        /// The most it may have.
        limit: usize,
    },
    /// There are too many.
    Total {
        /// The most there may be.
        limit: usize,
    },
    /// The replica stops.
    Stopped,
}

impl ConnectionRegistry {
    /// No connections; a limit of 0 is none.
    pub fn new(per_address_max: usize, total_max: usize) -> ConnectionRegistry {
        ConnectionRegistry { per_address_max, total_max, state: Mutex::default() }
    }

    /// Takes a connection in, unless there are too many.
    pub fn admit(
        &self,
        peer: SocketAddr,
        wall_ms: i64,
        now_ms: u64,
    ) -> Result<Arc<Connection>, Refusal> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(Refusal::Stopped);
        }
        if self.total_max != 0 && state.connections.len() >= self.total_max {
            return Err(Refusal::Total { limit: self.total_max });
        }
        let count = state.per_address.entry(peer.ip()).or_insert(0);
        if self.per_address_max != 0 && *count >= self.per_address_max {
            return Err(Refusal::Address { limit: self.per_address_max });
        }
        *count += 1;
        state.last_id += 1;
        let id = ConnectionId(state.last_id);
        let connection = Arc::new(Connection::new(id, peer, wall_ms, now_ms));
        state.connections.insert(id, Arc::clone(&connection));
        Ok(connection)
    }

    /// Forgets a connection.
    pub fn remove(&self, connection: &Connection) {
        let mut state = self.state.lock();
        if state.connections.remove(&connection.id).is_none() {
            return;
        }
        let address = connection.peer.ip();
        if let Some(count) = state.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                state.per_address.remove(&address);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.lock().connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        let mut all: Vec<_> = self.state.lock().connections.values().cloned().collect();
        all.sort_by_key(|connection| connection.id);
        all
    }

    /// Takes no more, and returns those there are.
    pub fn stop(&self) -> Vec<Arc<Connection>> {
        self.state.lock().stopped = true;
        self.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_per_address_and_a_closed_connection_makes_room() {
        let registry = ConnectionRegistry::new(2, 3);
        let peer = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 5);
        let first = registry.admit(peer("127.0.0.1"), 0, 0).unwrap();
        registry.admit(peer("127.0.0.1"), 0, 0).unwrap();
        let refused = registry.admit(peer("127.0.0.1"), 0, 0).unwrap_err();
        assert_eq!(refused, Refusal::Address { limit: 2 });
        registry.admit(peer("127.0.0.2"), 0, 0).unwrap();
        let refused = registry.admit(peer("127.0.0.3"), 0, 0).unwrap_err();
        assert_eq!(refused, Refusal::Total { limit: 3 });
        registry.remove(&first);
        registry.remove(&first);
        registry.admit(peer("127.0.0.1"), 0, 0).unwrap();
        assert_eq!(registry.stop().len(), 3);
        assert_eq!(registry.admit(peer("127.0.0.9"), 0, 0).unwrap_err(), Refusal::Stopped);
    }
}
