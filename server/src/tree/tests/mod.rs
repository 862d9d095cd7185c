//! What the tree shows, what it tells watches, and that snapshot and replay come to the same.

mod consistency;
mod events;
mod property;
mod reads;
mod set_watches;
mod snapshots;
mod stats;
