//! The commands for scripts: `znode lock`, `elect`, `watch`, `wait` and `register`, with a replica
//! that goes away and comes back meanwhile.

mod elect;
mod ensemble;
mod kazoo;
mod lock;
mod outage;
mod recipes;
mod recipes_contended;
mod recipes_lost;
mod register;
mod status;
mod terminal;
mod wait;
mod watch;
mod world;
