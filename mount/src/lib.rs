//! Mounts a ZooKeeper tree as a file system: a FUSE client of the ZooKeeper protocol.
//!
//! [`mount()`] joins a session ([`service::Service`]) with a mountpoint; `SEMANTICS.md` says what
//! every system call does to a znode. The logic is kept apart from I/O: [`naming`],
//! [`inode_table`], [`open_file`] and [`permission`] are plain state machines and functions,
//! [`filesystem`] does the operations on znodes without knowing the kernel, and [`fuse`] only
//! decodes, calls and replies.
//!
//! What does not live here: the protocol and the client (package `znodefs`) and the replica
//! (package `znodefs-server`).

pub mod announced;
pub mod caller;
pub mod changes;
pub mod commit;
pub mod echo;
pub mod errno;
pub mod events;
pub mod filesystem;
pub mod fuse;
pub mod handle_table;
pub mod inode_table;
pub mod interruption;
pub mod journal;
pub mod kernel_notify;
pub mod lifetimes;
pub mod lock_queue;
pub mod lock_table;
pub mod locks;
pub mod mounted;
pub mod naming;
pub mod open_file;
pub mod permission;
pub mod process;
pub mod recent_lookups;
pub mod remote_changes;
pub mod replay;
pub mod replayer;
pub mod service;
pub mod suffix;
pub mod value_cache;

pub use mounted::{MountError, MountOptions, Mounted, Served, Watching, mount, serve};
