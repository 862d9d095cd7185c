//! Coordination recipes on top of the [`client`](crate::client): locks and leader election as the
//! paper's section 2.4 has them. The names of contenders are those of the Python library kazoo, so
//! that its programs and ours exclude each other.
//!
//! [`contender`], [`lease`] and [`watched_tree`] are the logic without any I/O; [`lock`] drives them with a client;
//! [`event_hub`] hands the client's events to whoever waits for one.

pub mod contender;
pub mod event_hub;
pub mod lease;
pub mod lock;
pub mod watched_tree;

pub use contender::LockMode;
pub use event_hub::EventHub;
pub use lease::Lease;
pub use lock::{HeldLock, LockError, LockRequest};
pub use watched_tree::{Change, ChangeKind, WatchedTree};
