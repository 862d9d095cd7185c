//! The tests of clients on an ensemble of three of which a random member is restarted every few seconds:
//! the same test bodies as on one server. A client goes on at another member, and its session with it.
//!
//! A body passes when it has run to its end while at least one member was down. Where a client says
//! that a connection was lost with a request on its way, as its contract has it, and the body cannot go
//! on from there, it has shown nothing: it is run again, and the report counts it.

mod campaign;
mod exceptions;
mod loss;
mod restarted;

pub use campaign::{Case, pass};
pub use exceptions::{Exception, Listed, exceptions};
pub(crate) use loss::{hear, inconclusive};
pub use restarted::{Restarted, settle};
