//! What was acknowledged survives: the replica is killed at random moments while real trees are
//! copied into the mount, one command per file.
//!
//! `ZNODEFS_CRASH_ROUNDS` runs more rounds than the everyday test does, `ZNODEFS_SEED` repeats one.

mod copy;
mod kill;
mod sync_before_reply;
