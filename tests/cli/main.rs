//! The command `znode`, and what all three commands say of themselves.

mod help;
mod manual;
mod quickstart;
mod znode;
