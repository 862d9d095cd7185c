//! `znoded recover`: service again from one replica when a quorum is lost for good. It makes a new
//! ensemble of what this replica has; what only the others had is gone, and that is said aloud.

use std::path::PathBuf;

use clap::Args;
use znodefs::Epoch;

use super::error::ToolError;
use super::location::Location;
use super::plan::{Action, Plan, plan};
use super::repair::loss;
use super::state::{self, NewDirectory};
use super::survey::{Contents, Survey};
use super::timestamp;
use crate::persistence::ReplicaIdentity;
use crate::persistence::file_disk::DIRECTORY_NAME;

/// What `znoded recover` is told.
#[derive(Debug, Args)]
pub struct RecoverArguments {
    /// The dataDir of the stopped replica that has the newest data, or its zoo.cfg
    #[arg(value_name = "DIR")]
    path: PathBuf,

    /// Where its log is, if dataLogDir says so
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// Give the replica another number (myid); 0 to run it alone
    #[arg(long, value_name = "N")]
    id: Option<u8>,

    /// Do it; without, show what it would do and what it costs, and exit with 1
    #[arg(long)]
    yes: bool,
}

/// Runs `znoded recover`.
pub fn run(arguments: &RecoverArguments) -> Result<(), ToolError> {
    let location = Location::find(&arguments.path, arguments.log_dir.as_deref())?;
    let disks = location.locked()?;
    let survey = Survey::take(&disks)?;
    let shown = location.data_dir.display();
    let old = match &survey.identity {
        Ok(Some(identity)) => *identity,
        Ok(None) => {
            let message =
                format!("{shown} belongs to no ensemble yet: there is nothing to recover");
            return Err(ToolError::DataDirectory(message));
        }
        Err(reason) => return Err(ToolError::DataDirectory(reason.clone())),
    };
    let plan = plan(&survey, &disks);
    plan.damages.iter().for_each(|damage| println!("{damage}"));
    if let Action::Impossible { reason } = &plan.action {
        return Err(ToolError::DataDirectory(format!("{shown} cannot be recovered: {reason}")));
    }
    let mut tree = state::rebuild(&survey, &plan, &disks)?;
    let contents = Contents::of(&tree);
    println!(
        "{shown} has {} znodes as of transaction {}; it belongs to ensemble {}",
        contents.znodes, plan.end, old.ensemble_id
    );
    show_cost(&plan, &contents, &state::lost(&survey, &plan, &disks)?);
    let replica_id = arguments.id.map_or(old.replica_id, u64::from);
    if !arguments.yes {
        let id = arguments.id.map_or_else(String::new, |id| format!(" --id {id}"));
        return Err(ToolError::Failed(format!(
            "nothing was changed: when no quorum of the ensemble can ever come back, and no other \
             replica has later data, run `znoded recover --yes{id} {}`",
            location.as_arguments()
        )));
    }
    let epoch = next_epoch(&survey, &plan);
    let (sessions, ephemerals) = state::end_sessions(&mut tree, epoch);
    let ensemble_id = state::new_ensemble_id()?;
    let identity = ReplicaIdentity { ensemble_id, replica_id };
    let new = NewDirectory { data_dir: &location.data_dir, identity, epoch, tree: &tree };
    let mut kept: Vec<PathBuf> = state::install(&new)?.into_iter().collect();
    kept.extend(set_log_aside(&location)?);
    println!("{shown} is now replica {replica_id} of ensemble {ensemble_id}, which is new");
    println!("{sessions} sessions and {ephemerals} ephemeral znodes were dropped");
    println!("what was there is kept:");
    kept.iter().for_each(|path| println!("  {}", path.display()));
    println!(
        "start it; members of the old ensemble are refused. For more members: `znoded backup` of \
         this one, then on each `znoded restore --id N --ensemble-id {ensemble_id} FILE DIR`, before \
         any of them is started"
    );
    Ok(())
}

fn show_cost(plan: &Plan, contents: &Contents, lost: &state::Lost) {
    println!("this makes a new ensemble of it. The cost:");
    println!("  everything that only other replicas have, and that was acknowledged, is lost");
    if plan.loses() {
        println!("  of what this replica had, lost by damage: {}", loss(plan, lost));
    }
    println!(
        "  every session ends ({}), and with it its ephemeral znodes ({}), so that every client \
         notices",
        contents.sessions, contents.ephemerals
    );
    println!("  the other replicas can never join it with the data they have");
}

/// An epoch later than all that this replica has heard of.
fn next_epoch(survey: &Survey, plan: &Plan) -> Epoch {
    let epochs = survey.epochs.as_ref().ok().copied().unwrap_or_default();
    let newest =
        epochs.accepted.max(epochs.current).max(plan.newest_known.epoch()).max(plan.end.epoch());
    Epoch(newest.0.saturating_add(1))
}

/// A log in a directory of its own belongs to the old ensemble.
fn set_log_aside(location: &Location) -> Result<Option<PathBuf>, ToolError> {
    let Some(log_dir) = &location.log_dir else { return Ok(None) };
    let stamp = timestamp::for_names(timestamp::now_ms());
    let (ours, aside) =
        (log_dir.join(DIRECTORY_NAME), log_dir.join(format!("{DIRECTORY_NAME}.before-{stamp}")));
    let renamed =
        std::fs::rename(&ours, &aside).and_then(|()| std::fs::File::open(log_dir)?.sync_all());
    renamed.map_err(|error| {
        ToolError::DataDirectory(format!(
            "{} cannot be moved away: {error}; move it by hand before the replica is started",
            ours.display()
        ))
    })?;
    Ok(Some(aside))
}
