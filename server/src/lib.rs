//! The replica: the tree of znodes, the request processor, the log and its snapshots, sessions,
//! watches and the client port.
//!
//! Tree, request processor, sessions and transactions are plain state machines: no sockets,
//! files, clocks or randomness. Persistence reaches the disk only through a trait. The network and
//! the replica drive them.

pub mod codec;
pub mod link;
pub mod request_processor;
#[cfg(test)]
mod test_replica;
pub mod tree;
pub mod persistence;
pub mod txn;
