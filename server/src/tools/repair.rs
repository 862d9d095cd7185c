//! `znoded repair`: lets a replica with damaged files start again, after it has shown what that
//! costs. What it takes away it puts beside.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::error::ToolError;
use super::location::{Location, LocationDisks};
use super::log_scan::Ending;
use super::plan::{Action, Plan, plan};
use super::state::{self, Lost};
use super::survey::{Contents, Survey};
use super::timestamp;
use crate::codec;
use crate::persistence::committed_file::COMMITTED_NAME;
use crate::persistence::disk::{Disk, DiskError};
use crate::persistence::file_header::HEADER_LENGTH;
use crate::persistence::{EpochFiles, SnapshotFiles, Storage, StorageOptions};
use crate::tree::{DataTree, TreeRestorer};
use crate::txn::Txn;

/// Bytes copied at once.
const CHUNK_LENGTH: usize = 1 << 20;

/// What `znoded repair` is told.
#[derive(Debug, Args)]
pub struct RepairArguments {
    /// The dataDir of a stopped replica, or its zoo.cfg
    #[arg(value_name = "DIR")]
    path: PathBuf,

    /// Where its log is, if dataLogDir says so
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// Do it; without, show what it would do and what would be lost, and exit with 1
    #[arg(long)]
    yes: bool,

    /// Shorten the log even of a member of an ensemble, so that the others may lose what they
    /// acknowledged with its help
    #[arg(long)]
    accept_rollback: bool,
}

/// Runs `znoded repair`.
pub fn run(arguments: &RepairArguments) -> Result<(), ToolError> {
    let location = Location::find(&arguments.path, arguments.log_dir.as_deref())?;
    let disks = location.locked()?;
    let survey = Survey::take(&disks)?;
    let plan = plan(&survey, &disks);
    let shown = location.data_dir.display();
    for damage in &plan.damages {
        println!("{damage}");
    }
    if plan.is_healthy() {
        println!("{shown}: nothing to repair{}", torn_tail(&survey));
        return Ok(());
    }
    if let Action::Impossible { reason } = &plan.action {
        return Err(ToolError::DataDirectory(format!("{shown} cannot be repaired: {reason}")));
    }
    let lost = state::lost(&survey, &plan, &disks)?;
    show(&plan, &lost);
    let is_member =
        survey.identity.as_ref().is_ok_and(|one| one.is_some_and(|one| one.replica_id != 0));
    if plan.loses() && is_member && !arguments.accept_rollback {
        return Err(member_refusal(&location));
    }
    if !arguments.yes {
        return Err(ToolError::Failed(format!(
            "nothing was changed: run `znoded repair --yes{}{}` to do it",
            if arguments.accept_rollback { " --accept-rollback " } else { " " },
            location.as_arguments()
        )));
    }
    let kept = act(&survey, &plan, &disks)?;
    for path in &kept {
        state::give_to_owner_of(&location.data_dir, path)?;
    }
    println!("what was taken away is kept:");
    kept.iter().for_each(|path| println!("  {}", path.display()));
    let contents = try_start(&survey, &disks)?;
    println!(
        "{shown} is repaired: {} znodes and {} sessions as of transaction {}",
        contents.znodes, contents.sessions, plan.end
    );
    Ok(())
}

impl std::fmt::Display for super::plan::Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => {
                write!(f, "{} is damaged at byte {offset}: {}", self.file.display(), self.reason)
            }
            // The reason of a snapshot names it.
            None => write!(f, "{}", self.reason),
        }
    }
}

fn member_refusal(location: &Location) -> ToolError {
    let arguments = location.as_arguments();
    ToolError::Failed(format!(
        "nothing was changed: this replica is a member of an ensemble, and with a shorter log it \
         could help to undo what the ensemble acknowledged; empty {} instead and start it, the \
         other replicas then bring it up to date; if they are lost see `znoded recover`; for an \
         ensemble of one, or to take the loss, run `znoded repair --yes --accept-rollback \
         {arguments}`",
        location.data_path().display()
    ))
}

fn torn_tail(survey: &Survey) -> String {
    let torn = survey.segments.last().and_then(|segment| match &segment.ending {
        Ending::Torn { bytes } => Some(format!(
            " ({} ends in {bytes} bytes that a crash left unfinished, never acknowledged; the next \
             start cuts them off)",
            segment.name
        )),
        _ => None,
    });
    torn.unwrap_or_default()
}

/// Says what would be done, and what would be lost.
fn show(plan: &Plan, lost: &Lost) {
    println!("{}", what_to_do(plan));
    if !plan.damaged_snapshots.is_empty() {
        println!("set aside, since they cannot be read: {}", plan.damaged_snapshots.join(" "));
    }
    if !plan.loses() {
        println!("nothing is lost: everything up to {} is kept", plan.end);
        return;
    }
    println!("kept: everything up to transaction {}", plan.end);
    println!("lost: {}", loss(plan, lost));
    if !lost.paths.is_empty() {
        let more = if lost.has_more_paths { " and more" } else { "" };
        let paths: Vec<&str> = lost.paths.iter().map(String::as_str).collect();
        println!("znodes that the readable ones changed: {}{more}", paths.join(" "));
    }
}

fn what_to_do(plan: &Plan) -> String {
    let snapshot = plan.base.as_ref().map_or("no snapshot", |info| info.name.as_str());
    match &plan.action {
        Action::Nothing | Action::Impossible { .. } => "the log stays as it is".to_owned(),
        Action::SetAside { segments } => {
            format!("set aside, since {snapshot} holds it all: {}", segments.join(" "))
        }
        Action::Cut { segment, offset, later } if later.is_empty() => {
            format!("cut {segment} at byte {offset}")
        }
        Action::Cut { segment, offset, later } => {
            format!("cut {segment} at byte {offset}, and what follows: {}", later.join(" "))
        }
        Action::Rebuild { segments } => format!(
            "begin anew with a snapshot of transaction {}, made of {snapshot} and what can be read \
             of {}",
            plan.end,
            segments.join(" ")
        ),
    }
}

/// How much would be lost.
pub fn loss(plan: &Plan, lost: &Lost) -> String {
    let (end, newest) = (plan.end, plan.newest_known);
    if newest <= end {
        return "what the disk had lost and the other replicas had not yet replaced".to_owned();
    }
    let readable = lost.readable.len();
    if end.epoch() == newest.epoch() {
        let count = newest.counter() - end.counter();
        let first = end.next().unwrap_or(newest);
        return format!(
            "{count} transactions, {first} to {newest} ({readable} of them can still be read with \
             `znoded inspect --txns --from {first}`)"
        );
    }
    format!(
        "transactions behind {end} up to {newest}, {readable} of which can still be read; how many \
         were between is not known"
    )
}

/// Does what the plan says, in an order that a crash at any moment survives: until the last step,
/// the directory is as refusable as before. Returns what was put aside.
pub(super) fn act(
    survey: &Survey,
    plan: &Plan,
    disks: &LocationDisks,
) -> Result<Vec<PathBuf>, ToolError> {
    let suffix = format!("cut-{}", timestamp::for_names(timestamp::now_ms()));
    let mut kept = Vec::new();
    let data = &*disks.data;
    for name in &plan.damaged_snapshots {
        kept.push(set_aside(data, name, "damaged")?);
    }
    for name in &plan.later_snapshots {
        kept.push(set_aside(data, name, &suffix)?);
    }
    let log = &*disks.log;
    match &plan.action {
        Action::Nothing | Action::Impossible { .. } => {}
        Action::SetAside { segments } => {
            for name in segments {
                kept.push(set_aside(log, name, &suffix)?);
            }
        }
        Action::Cut { segment, offset, later } => {
            for name in later.iter().rev() {
                kept.push(set_aside(log, name, &suffix)?);
            }
            if *offset < HEADER_LENGTH as u64 {
                kept.push(set_aside(log, segment, &suffix)?);
            } else {
                kept.push(cut(log, segment, *offset, &suffix)?);
            }
        }
        Action::Rebuild { segments } => {
            let tree = state::rebuild(survey, plan, disks)?;
            begin_anew(survey, plan, disks, &tree)?;
            for name in segments.iter().rev() {
                kept.push(set_aside(log, name, &suffix)?);
            }
        }
    }
    kept.extend(settle(survey, plan, disks, &suffix)?);
    Ok(kept)
}

/// Lets what is left count as everything.
fn settle(
    survey: &Survey,
    plan: &Plan,
    disks: &LocationDisks,
    suffix: &str,
) -> Result<Option<PathBuf>, ToolError> {
    let data = &disks.data;
    let (true, Some(ensemble_id)) = (plan.settles, survey.ensemble_id()) else { return Ok(None) };
    let kept = match data.exists(COMMITTED_NAME)? {
        true => Some(set_aside(&**data, COMMITTED_NAME, suffix)?),
        false => None,
    };
    let epochs = EpochFiles::open(Arc::clone(data), ensemble_id);
    let trusted = epochs.and_then(|mut epochs| epochs.trust());
    trusted.map_err(|error| ToolError::DataDirectory(error.to_string()))?;
    Ok(kept)
}

fn begin_anew(
    survey: &Survey,
    plan: &Plan,
    disks: &LocationDisks,
    tree: &DataTree,
) -> Result<(), ToolError> {
    let Some(ensemble_id) = survey.ensemble_id() else {
        return Err(ToolError::Failed("the replica belongs to no ensemble yet".to_owned()));
    };
    let snapshots = SnapshotFiles::new(Arc::clone(&disks.data), ensemble_id);
    snapshots.begin_generation(plan.generation)?;
    state::write_snapshot(snapshots.create_installed(tree.last_applied())?, tree)
}

/// Gives a file a name that no replica reads.
fn set_aside(disk: &dyn Disk, name: &str, suffix: &str) -> Result<PathBuf, DiskError> {
    let mut aside = format!("{name}.{suffix}");
    let mut number = 1;
    while disk.exists(&aside)? {
        number += 1;
        aside = format!("{name}.{suffix}-{number}");
    }
    disk.rename(name, &aside)?;
    disk.sync_dir()?;
    Ok(disk.path_of(&aside))
}

/// Copies the bytes from `offset` on into a file beside, then cuts them off.
fn cut(disk: &dyn Disk, name: &str, offset: u64, suffix: &str) -> Result<PathBuf, DiskError> {
    let aside = format!("{name}.at-{offset}.{suffix}");
    let mut file = disk.open(name)?;
    let length = file.length()?;
    let mut copy = disk.create_new(&aside)?;
    let mut chunk = vec![0; CHUNK_LENGTH];
    let mut at = offset;
    while at < length {
        let count = file.read_at(at, &mut chunk)?;
        if count == 0 {
            break;
        }
        copy.write_at(at - offset, &chunk[..count])?;
        at += count as u64;
    }
    copy.sync_data()?;
    disk.sync_dir()?;
    file.set_length(offset)?;
    file.sync_data()?;
    Ok(disk.path_of(&aside))
}

/// Starts from the repaired files as a replica does.
pub(super) fn try_start(survey: &Survey, disks: &LocationDisks) -> Result<Contents, ToolError> {
    let replica_id =
        survey.identity.as_ref().ok().copied().flatten().map_or(0, |one| one.replica_id);
    let options = StorageOptions::new(replica_id, None);
    let storage = Storage::open(Arc::clone(&disks.data), Arc::clone(&disks.log), options)?;
    let restored = storage.restore(|reader| {
        let mut restorer = TreeRestorer::new(0);
        while let Some(block) = reader.next_block()? {
            restorer.block(block)?;
        }
        Ok(restorer.finish()?)
    })?;
    let (from, mut tree) = restored.unwrap_or_else(|| (Default::default(), DataTree::new(0)));
    storage.replay_after(from, |_, payload| {
        tree.apply(&codec::decode::<Txn>(payload)?, &mut |_| {});
        Ok(())
    })?;
    Ok(Contents::of(&tree))
}
