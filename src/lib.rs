//! What the replica, the mount and the command line share: the ZooKeeper client protocol without
//! any I/O ([`wire`]), the names of things ([`path`], [`zxid`], [`acl`], [`stat`]) and a client
//! ([`client`]), and recipes made of it ([`recipe`]).
//!
//! What does not live here: the tree and the log (package `znodefs-server`) and everything about
//! the kernel (package `znodefs-mount`).

pub mod acl;
pub mod client;
pub mod credential;
pub mod path;
pub mod recipe;
pub mod stat;
pub mod wire;
pub mod zxid;

pub use acl::{Acl, Permissions};
pub use credential::{Credential, CredentialsError};
pub use stat::Stat;
pub use wire::{CreateMode, ErrorCode, OpCode};
pub use zxid::{Epoch, SessionId, Zxid};
