//! The tools of `znoded` for the bad day, on files that real replicas left: what they say, what they
//! change, and that a replica then serves what was promised.

mod backup;
mod damage;
mod inspect;
mod recover;
mod repair;
