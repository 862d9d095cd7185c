//! The ZooKeeper client protocol: jute records, frames, opcodes, error codes. Used by replica and
//! client alike, so that there is one encoder and one decoder of each record.
//!
//! No I/O lives here. Decoding borrows from the frame, never panics and never allocates more than
//! the frame holds.

pub mod connect;
pub mod error_code;
pub mod frame;
pub mod jute;
pub mod op_code;
pub mod request;
pub mod response;
pub mod watch;

#[cfg(test)]
mod tests;

pub use connect::{ConnectRequest, ConnectResponse};
pub use error_code::ErrorCode;
pub use frame::{FRAME_LENGTH_MAX_DEFAULT, put_frame, take_frame};
pub use jute::{Decoder, Encode, WireError};
pub use op_code::{CreateMode, OpCode};
pub use request::{MultiOp, Request, RequestHeader, WatchSets};
pub use response::{MultiResult, ReplyHeader, Response};
pub use watch::{AddWatchMode, EventType, KeeperState, WatchedEvent, WatcherType};

/// Request numbers with a meaning of their own; ordinary requests count up from 1.
pub mod xid {
    /// A watch event; the only number a server invents.
    pub const NOTIFICATION: i32 = -1;
    /// A ping and its answer.
    pub const PING: i32 = -2;
    /// An authentication and its answer.
    pub const AUTH: i32 = -4;
    /// Watches set again after a reconnection.
    pub const SET_WATCHES: i32 = -8;
}
