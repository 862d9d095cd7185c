//! A member of an ensemble at work: [`Zab`](crate::zab::Zab) and the
//! [`Replica`](crate::replica::Replica) driven by one thread, with the links to the other members,
//! the log and the snapshots around them.
//!
//! What does not live here: the protocol (`zab`), sockets and frames (`link`), files
//! (`persistence`), what clients are answered (`replica`).

mod disk;
mod driver;
mod effects;
mod full_disk;
pub mod log_read;
pub(crate) mod membership;
mod message;
pub mod outside;
mod read_only;
pub mod snapshot_transfer;
mod start;

use crate::link::LinkEvent;
use crate::link::quorum_port::PortEvent;
use crate::persistence::LogEvent;
use crate::zab;

pub use driver::Driver;
pub(crate) use start::start;
pub use start::{MemberRecovered, assemble, recover, show_server_lines};

/// What the driver of a member is told.
pub enum MemberEvent {
    /// Something happened on the election port's links.
    Link(LinkEvent),
    /// Something happened on the quorum port's connections.
    Port(PortEvent),
    /// The log reports.
    Log(LogEvent),
    /// An epoch is durable.
    EpochDurable,
    /// Part of the log was read for a learner.
    LogRead(zab::ReadId, zab::LogRead),
    /// Part of a snapshot went out to a learner.
    SnapshotProgress(zab::ConnectionId),
}
