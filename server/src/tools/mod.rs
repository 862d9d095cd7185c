//! Tools for the bad day, as subcommands of `znoded`: most work on the files of a replica, not on
//! the service; `download` and `refill` are clients of running ones. No replica runs here.
//!
//! `survey` reads all there is, `plan` decides what it means, `state` rebuilds the tree; the commands
//! show, ask and act.

pub(crate) mod backup;
mod credentials;
mod describe;
mod download;
mod error;
mod holder;
mod inspect;
pub(crate) mod location;
mod log_scan;
mod plan;
mod progress;
mod recover;
mod refill;
mod refill_plan;
mod repair;
mod state;
mod survey;
#[cfg(test)]
mod tests;
mod timestamp;

use clap::Subcommand;

pub use error::ToolError;

/// A tool and what it is told.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Show what a dataDir, a file of a log, a snapshot or a backup holds; changes nothing, also
    /// while the replica runs
    Inspect(inspect::InspectArguments),
    /// Let a replica with damaged files start again, after showing what that would lose
    Repair(repair::RepairArguments),
    /// Write the state of a replica, running or not, into one file, also over the network
    Backup(backup::BackupArguments),
    /// Make a new ensemble out of a backup, or restore it into a running one
    Restore(backup::RestoreArguments),
    /// Make a new ensemble out of one replica, when a quorum is lost for good
    Recover(recover::RecoverArguments),
}

/// Runs a tool.
pub fn run(tool: &Tool) -> Result<(), ToolError> {
    match tool {
        Tool::Inspect(arguments) => inspect::run(arguments),
        Tool::Repair(arguments) => repair::run(arguments),
        Tool::Backup(arguments) => backup::run_backup(arguments),
        Tool::Restore(arguments) => backup::run_restore(arguments),
        Tool::Recover(arguments) => recover::run(arguments),
    }
}
