//! The mount as programs see it. What holds for any server is asked of three: `znoded`, the replica
//! inside the mount, and Debian's ZooKeeper.

mod appearance;
mod attributes;
mod data;
mod directories;
mod documented;
mod lifecycle;
mod names;
mod options;
mod programs;
mod readme;
mod reference;
mod refusals;
mod rename;
mod semantics;
