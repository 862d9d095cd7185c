//! What was acknowledged survives: the replica is killed at random moments while real trees are
//! copied into the mount, one command per file.
//!
//! `ZNODEFS_CRASH_ROUNDS` runs more rounds than the everyday test does, `ZNODEFS_SEED` repeats one.

mod acknowledged;
mod copy;
mod kill;
mod machine;
mod power_cut_copy;
mod sync_before_reply;

/// How many times the whole is done.
fn rounds() -> u64 {
    let given = std::env::var("ZNODEFS_CRASH_ROUNDS").ok();
    given.and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}
