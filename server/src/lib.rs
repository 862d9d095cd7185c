//! The replica: the tree of znodes, the request processor, the log and its snapshots, sessions,
//! watches and the client port.
//!
//! Tree, request processor, sessions and transactions are plain state machines: no sockets,
//! files, clocks or randomness. Persistence reaches the disk only through a trait. The network and
//! the replica drive them.

mod admin;
pub mod authentication;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod connection;
pub mod ensemble;
pub mod four_letter_word;
pub mod link;
pub mod local_request;
pub mod mailbox;
pub mod metrics;
pub mod mutation;
pub mod net;
pub mod persistence;
pub mod replica;
pub mod request_processor;
pub mod server;
pub mod service;
pub mod session_id;
pub mod session_tracker;
pub mod status;
#[cfg(test)]
mod test_replica;
#[cfg(test)]
mod test_steps;
pub mod tls;
pub mod tools;
pub mod tree;
pub mod txn;
pub mod zab;
