//! The replicated database in memory: the tree of znodes with its sessions ([`DataTree`]), the
//! watches of this replica's connections ([`WatchManager`]), ACL checks ([`access`]) and the answers
//! to reads ([`read_request`]).
//!
//! Everything here is a plain state machine: no I/O, no clock, no randomness. Whether a change is
//! allowed is decided by the request processor, never here: the tree applies what was agreed on.

pub mod access;
mod acl_table;
mod applied;
mod apply;
mod body_store;
mod chunked_vec;
pub mod data_tree;
mod digest;
mod node_store;
mod owner;
mod path_index;
mod quota;
pub mod read_request;
mod restore;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch_manager;

pub use applied::{Applied, MultiApplied, TreeEvent, put_reply};
pub use data_tree::{
    CONFIG_PATH, DataTree, NodeRef, QUOTA_PATH, ZOOKEEPER_PATH, ephemeral_length, is_built_in,
};
pub use owner::{OwnerKind, TTL_MS_MAX};
pub use quota::{Quota, QuotaStats};
pub use restore::{RestoreError, TreeRestorer};
pub use snapshot::SnapshotCursor;
pub use watch_manager::{WatchKind, WatchManager, WatchSummary, WatcherId};
