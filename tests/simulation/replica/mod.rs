//! Whole replicas as they ship, on a simulated network, clock and disk: the driver of a member with its
//! request processor, tree, sessions, watches and protocol, the log, snapshots and epochs on a disk
//! that forgets, and clients that hold sessions, watches and ephemerals and speak through the code
//! that serves sockets. In a third of the runs members that find no quorum serve reads alone, and
//! quorums are lost for long enough. One seed is one run, bit for bit. What is simulated stands for
//! `ensemble::outside::Outside`, for the clock, the disk and the sockets; all else is the product.

pub mod ask;
pub mod client;
pub mod clock;
pub mod damage;
pub mod drive;
pub mod faults;
pub mod healing;
pub mod hear;
pub mod invariants;
pub mod log;
pub mod membership;
pub mod node;
pub mod outside;
pub mod plan;
pub mod read_only;
pub mod report;
pub mod traffic;
pub mod world;
