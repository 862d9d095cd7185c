//! `znoded backup` and `znoded restore`: the state of a replica, running or not, as one file, and a
//! new ensemble from such a file.
//!
//! A backup is a snapshot that is not fuzzy: it holds one moment, and nothing of the history before.
//! It holds all values, whatever their ACLs say: so who may read the dataDir may make one, or, over
//! the network, who may read everything; and the file is readable for its owner only.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use znodefs::{Epoch, Zxid};

use super::credentials::CredentialArguments;
use super::download;
use super::error::ToolError;
use super::location::{Location, LocationDisks};
use super::plan::{Action, Plan, plan};
use super::refill::{self, Target};
use super::state::{self, NewDirectory};
use super::survey::{Contents, Survey, load_snapshot};
use crate::persistence::file_disk::DIRECTORY_NAME;
use crate::persistence::log_index::parse_segment_name;
use crate::persistence::snapshot::snapshot_name;
use crate::persistence::{
    Disk, EnsembleId, FileDisk, ReplicaIdentity, SnapshotFiles, SnapshotInfo,
};
use crate::tree::DataTree;

/// How often a directory is read again when a running replica purged or cut what was being read.
const TRIES: usize = 5;

/// What `znoded backup` is told.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The dataDir of a replica, running or not, or its zoo.cfg; or http://HOST:PORT, the admin server
    /// of a running one
    #[arg(value_name = "DIR|URL")]
    path: PathBuf,

    /// The file to write; it must not be there yet
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the log is, if dataLogDir says so
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    #[command(flatten)]
    credentials: CredentialArguments,
}

/// What `znoded restore` is told.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// A backup, or a snapshot file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// A dataDir without data, made if it is not there, or the zoo.cfg that names it
    #[arg(value_name = "DIR", required_unless_present = "servers")]
    path: Option<PathBuf>,

    /// Restore into a running ensemble instead: create every znode of FILE in its tree
    #[arg(long, value_name = "HOST[:PORT],…", conflicts_with_all = ["path", "id", "ensemble_id"])]
    servers: Option<String>,

    /// Remove what is in that ensemble's tree first
    #[arg(long, requires = "servers")]
    replace: bool,

    #[command(flatten)]
    credentials: CredentialArguments,

    /// The replica's number (myid), if it is a member of an ensemble
    #[arg(long, value_name = "N")]
    id: Option<u8>,

    /// Make a further member of the ensemble that a first restore of the same FILE began
    #[arg(long, value_name = "ID", value_parser = parse_ensemble_id)]
    ensemble_id: Option<EnsembleId>,
}

/// Reads an ensemble's id as it is shown.
pub fn parse_ensemble_id(text: &str) -> Result<EnsembleId, String> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut id = [0; 16];
    let is_id = digits.len() == 32
        && id.iter_mut().zip(digits.chunks_exact(2)).all(|(byte, pair)| {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return false };
            *byte = (high * 16 + low) as u8;
            true
        });
    is_id.then_some(EnsembleId(id)).ok_or_else(|| {
        format!("'{text}' is no ensemble's id: expected the 32 hexadecimal digits that the first restore shows")
    })
}

/// What a backup holds.
pub(crate) struct Backup {
    /// The last transaction in it.
    pub zxid: Zxid,
    /// The length of its file in bytes.
    pub length: u64,
    contents: Contents,
}

/// Runs `znoded backup`.
pub fn run_backup(arguments: &BackupArguments) -> Result<(), ToolError> {
    let file = &arguments.file;
    refuse_existing(file)?;
    let backup = if download::is_url(&arguments.path) {
        let credential = arguments.credentials.digest()?;
        download::download(&arguments.path.to_string_lossy(), &credential, file)?;
        read_back(file)?
    } else {
        let location = Location::find(&arguments.path, arguments.log_dir.as_deref())?;
        back_up(&location, file)?
    };
    println!(
        "{}: {} znodes and {} sessions as of transaction {}; `znoded restore` makes a new ensemble \
         of it, without sessions and ephemeral znodes ({})",
        file.display(),
        backup.contents.znodes,
        backup.contents.sessions,
        backup.zxid,
        backup.contents.ephemerals
    );
    Ok(())
}

/// What came over the network; of no use, it does not stay.
fn read_back(file: &Path) -> Result<Backup, ToolError> {
    let loaded = load(file);
    if loaded.is_err() {
        let _ = std::fs::remove_file(file);
    }
    let (info, copy) = loaded?;
    Ok(Backup { zxid: copy.last_applied(), length: info.length, contents: Contents::of(&copy) })
}

/// Writes the state of a replica, running or not, into a new file.
pub(crate) fn back_up(location: &Location, file: &Path) -> Result<Backup, ToolError> {
    let disks = location.read_only();
    let (survey, tree) = consistent_state(location, &disks)?;
    let Some(identity) = survey.identity.as_ref().ok().copied().flatten() else {
        let shown = location.data_dir.display();
        return Err(ToolError::DataDirectory(format!("{shown} holds nothing yet")));
    };
    write_backup(file, identity.ensemble_id, &tree)?;
    let (info, copy) = load(file)?;
    let contents = Contents::of(&copy);
    if contents != Contents::of(&tree) || copy.last_applied() != tree.last_applied() {
        let shown = file.display();
        return Err(ToolError::Failed(format!("{shown} does not read back as it was written")));
    }
    Ok(Backup { zxid: tree.last_applied(), length: info.length, contents })
}

fn refuse_existing(file: &Path) -> Result<(), ToolError> {
    match file.symlink_metadata() {
        Ok(_) => {
            let shown = file.display();
            Err(ToolError::Failed(format!("{shown} is there already: choose another name")))
        }
        Err(_) => Ok(()),
    }
}

/// The newest state of a directory that a replica may be writing to.
fn consistent_state(
    location: &Location,
    disks: &LocationDisks,
) -> Result<(Survey, DataTree), ToolError> {
    let mut attempt = 1;
    loop {
        let result = Survey::take(disks).and_then(|survey| {
            let plan = plan(&survey, disks);
            check_complete(location, &plan)?;
            let tree = state::rebuild(&survey, &plan, disks)?;
            Ok((survey, tree))
        });
        match result {
            Err(_) if attempt < TRIES && location.holder().is_some() => attempt += 1,
            result => return result,
        }
    }
}

/// A backup of less than what was acknowledged would be no backup.
fn check_complete(location: &Location, plan: &Plan) -> Result<(), ToolError> {
    let shown = location.data_dir.display();
    if let Action::Impossible { reason } = &plan.action {
        return Err(ToolError::DataDirectory(reason.clone()));
    }
    if plan.loses() {
        let damage = plan.damages.first().map_or_else(String::new, |damage| format!(": {damage}"));
        return Err(ToolError::DataDirectory(format!(
            "{shown} is damaged, only transactions up to {} of {} could be backed up{damage}; back \
             up another replica, or run `znoded repair {}` first",
            plan.end,
            plan.newest_known,
            location.as_arguments()
        )));
    }
    Ok(())
}

/// Writes the file so that it is there as a whole or not at all.
fn write_backup(file: &Path, ensemble_id: EnsembleId, tree: &DataTree) -> Result<(), ToolError> {
    let name = file.file_name().ok_or_else(|| {
        ToolError::Usage(format!("{}: name a file for the backup", file.display()))
    })?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let building = parent.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = write_into(&building, file, ensemble_id, tree);
    let _ = std::fs::remove_dir_all(&building);
    written?;
    let synced = std::fs::File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(|error| cannot_write(file, &error))
}

fn write_into(
    building: &Path,
    file: &Path,
    ensemble_id: EnsembleId,
    tree: &DataTree,
) -> Result<(), ToolError> {
    let failed = |error: io::Error| cannot_write(file, &error);
    std::fs::create_dir(building).map_err(failed)?;
    std::fs::set_permissions(building, Permissions::from_mode(0o700)).map_err(failed)?;
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(building)?);
    let snapshots = SnapshotFiles::new(Arc::clone(&disk), ensemble_id);
    let written = snapshots
        .create_installed(tree.last_applied())
        .map_err(ToolError::from)
        .and_then(|writer| state::write_snapshot(writer, tree));
    written.map_err(|error| ToolError::Failed(format!("{}: {error}", file.display())))?;
    let made = disk.path_of(&snapshot_name(tree.last_applied()));
    std::fs::set_permissions(&made, Permissions::from_mode(0o600)).map_err(failed)?;
    // Unlike a rename, this replaces nothing.
    std::fs::hard_link(&made, file).map_err(failed)
}

fn cannot_write(file: &Path, error: &io::Error) -> ToolError {
    ToolError::Failed(format!("{} cannot be written: {error}", file.display()))
}

/// Reads a backup to its end.
fn load(file: &Path) -> Result<(SnapshotInfo, DataTree), ToolError> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::look_at(parent.unwrap_or(Path::new("."))));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    load_snapshot(&disk, &name, None).map_err(|error| {
        ToolError::Failed(format!("{error}; nothing was restored: take another backup"))
    })
}

/// Runs `znoded restore`.
pub fn run_restore(arguments: &RestoreArguments) -> Result<(), ToolError> {
    let (info, mut tree) = load(&arguments.file)?;
    if info.newest > info.zxid {
        return Err(ToolError::Failed(format!(
            "{} was taken while transactions went on ({} to {}), and is whole only with the log \
             behind it: take a backup with `znoded backup`",
            arguments.file.display(),
            info.zxid,
            info.newest
        )));
    }
    let Some(path) = &arguments.path else { return run_refill(arguments, info.zxid, &tree) };
    let location = target(path)?;
    let replica_id = replica_id(arguments, &location)?;
    // Held until the new one is in place, so that no replica starts in between.
    let empty = lock_empty(&location)?;
    let epoch = Epoch(tree.last_applied().epoch().0.saturating_add(1));
    let (sessions, ephemerals) = state::end_sessions(&mut tree, epoch);
    let ensemble_id = match arguments.ensemble_id {
        Some(id) => id,
        None => state::new_ensemble_id()?,
    };
    let identity = ReplicaIdentity { ensemble_id, replica_id };
    let new = NewDirectory { data_dir: &location.data_dir, identity, epoch, tree: &tree };
    if let Some(replaced) = state::install(&new)? {
        // Nothing but a lock file was in it.
        let _ = std::fs::remove_dir_all(replaced);
    }
    drop(empty);
    let data_dir = location.data_dir.display();
    println!(
        "{data_dir}: {} znodes as of transaction {}; {sessions} sessions and {ephemerals} ephemeral \
         znodes were dropped",
        Contents::of(&tree).znodes,
        info.zxid
    );
    println!("it is replica {replica_id} of ensemble {ensemble_id}, which {}", kinship(arguments));
    if arguments.ensemble_id.is_none() && replica_id != 0 {
        println!(
            "for each further member: znoded restore --id N --ensemble-id {ensemble_id} {} DIR",
            arguments.file.display()
        );
    }
    Ok(())
}

/// Into a running ensemble.
fn run_refill(arguments: &RestoreArguments, zxid: Zxid, tree: &DataTree) -> Result<(), ToolError> {
    let target = Target {
        servers: arguments.servers.clone().unwrap_or_default(),
        auth: arguments.credentials.all()?,
        replaces: arguments.replace,
    };
    let refilled = refill::refill(tree, &target)?;
    println!(
        "{}: {} znodes as of transaction {zxid} were created and {} removed before; {} ephemeral \
         znodes were dropped; versions, times and transaction numbers begin anew",
        target.servers, refilled.znodes, refilled.removed, refilled.ephemerals
    );
    if !refilled.uncounted.is_empty() {
        println!(
            "names of sequential znodes begin anew below {}: their counters had gone too far",
            refilled.uncounted.join(", ")
        );
    }
    Ok(())
}

fn kinship(arguments: &RestoreArguments) -> &'static str {
    match arguments.ensemble_id {
        Some(_) => "it joins",
        None => "is new: members of the old one are refused",
    }
}

/// The directory to restore into, made if it is missing.
fn target(path: &Path) -> Result<Location, ToolError> {
    if !path.exists() {
        std::fs::create_dir_all(path).map_err(|error| {
            ToolError::DataDirectory(format!("{} cannot be made: {error}", path.display()))
        })?;
    }
    Location::named(path)
}

fn replica_id(arguments: &RestoreArguments, location: &Location) -> Result<u64, ToolError> {
    if let Some(id) = arguments.id.map(u64::from).or(location.replica_id) {
        return Ok(id);
    }
    let my_id = location.data_dir.join("myid");
    match std::fs::read_to_string(&my_id) {
        Ok(text) => Err(ToolError::Usage(format!(
            "{} says {}: add --id {} for a member of an ensemble, or --id 0 for a replica alone",
            my_id.display(),
            text.trim(),
            text.trim()
        ))),
        Err(_) => Ok(0),
    }
}

/// Locks the target's directory if there is one; it must hold nothing.
fn lock_empty(location: &Location) -> Result<Vec<FileDisk>, ToolError> {
    let mut locked = Vec::new();
    let directories = [Some(&location.data_dir), location.log_dir.as_ref()];
    for directory in directories.into_iter().flatten() {
        let ours = directory.join(DIRECTORY_NAME);
        if !ours.exists() {
            continue;
        }
        let disk = FileDisk::open(directory)?;
        let is_data =
            |name: &String| directory == &location.data_dir || parse_segment_name(name).is_some();
        if let Some(file) = disk.list()?.into_iter().find(is_data) {
            return Err(ToolError::DataDirectory(format!(
                "{} holds data ({file}), and nothing is overwritten: move {} away first, or choose \
                 another dataDir",
                directory.display(),
                ours.display()
            )));
        }
        locked.push(disk);
    }
    Ok(locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ensembles_id_is_read_as_it_is_shown() {
        let id = EnsembleId([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xa5]);
        assert_eq!(parse_ensemble_id(&id.to_string()), Ok(id));
        for text in
            ["", "12", "é0000000000000000000000000000000", "zz000000000000000000000000000000"]
        {
            assert!(parse_ensemble_id(text).is_err(), "{text}");
        }
    }
}
