//! `znoded inspect`: what lies in a dataDir, a log segment or a snapshot (a backup is one). Looks only, also
//! while a replica runs; what cannot be read is shown as such.

mod listing;
mod output;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use znodefs::{Epoch, Zxid};

use super::describe;
use super::error::ToolError;
use super::location::{Location, LocationDisks};
use super::log_scan::{self, Ending, Segment, SegmentHeader};
use super::plan::{Action, Plan, plan};
use super::state;
use super::survey::{self, Epochs, Snapshot, SnapshotState, Survey};
use crate::codec;
use crate::persistence::{Disk, EnsembleId, FileDisk, ReplicaIdentity};
use crate::txn::Txn;

use output::Output;

/// How often a directory in use is read again when it seems damaged: a file that is being written
/// may look so for a moment.
const TRIES_WHILE_IN_USE: usize = 3;

/// What `znoded inspect` is told.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Data directories, zoo.cfg files, single files of a log, snapshots, or backups
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    /// Where the log of the one DIR is, if dataLogDir says so
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// One JSON object a line
    #[arg(long)]
    json: bool,

    /// Show every transaction (a single file of a log always does)
    #[arg(long)]
    txns: bool,

    /// Show transactions from this one on (0x… or decimal)
    #[arg(long, value_name = "ZXID", value_parser = parse_zxid)]
    from: Option<Zxid>,

    /// Show transactions up to this one
    #[arg(long, value_name = "ZXID", value_parser = parse_zxid)]
    to: Option<Zxid>,

    /// Show only transactions that change, and znodes that are, PREFIX or below it
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,

    /// Show values and password hashes too
    #[arg(long)]
    data: bool,

    /// List the znodes, each with what is below it: of a directory as of its last transaction
    #[arg(long)]
    tree: bool,

    /// List znodes down to this level only
    #[arg(long, value_name = "N", requires = "tree")]
    depth: Option<usize>,
}

impl InspectArguments {
    fn wants_txns(&self) -> bool {
        self.txns || self.from.is_some() || self.to.is_some() || (self.path.is_some() && !self.tree)
    }

    fn wants(&self, txn_zxid: Zxid) -> bool {
        self.from.is_none_or(|from| txn_zxid >= from) && self.to.is_none_or(|to| txn_zxid <= to)
    }
}

fn parse_zxid(text: &str) -> Result<Zxid, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map(|number| Zxid(number as i64)).map_err(|_| {
        format!(
            "'{text}' is no transaction number: expected hexadecimal as in 0x100000001, or decimal"
        )
    })
}

/// Runs `znoded inspect`.
pub fn run(arguments: &InspectArguments) -> Result<(), ToolError> {
    let mut inspection = Inspection { arguments, out: Output::new(arguments.json), problems: 0 };
    for path in &arguments.paths {
        inspection.path(path)?;
    }
    inspection.out.flush()?;
    match inspection.problems {
        0 => Ok(()),
        _ => Err(ToolError::Failed("damage was found, as shown above".to_owned())),
    }
}

struct Inspection<'a> {
    arguments: &'a InspectArguments,
    out: Output,
    problems: usize,
}

/// What a single file is.
enum FileSort {
    Log,
    Snapshot,
    Other,
}

fn sort_of(path: &Path) -> Result<FileSort, ToolError> {
    let mut magic = [0; 8];
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut magic));
    let count =
        read.map_err(|error| ToolError::DataDirectory(format!("{}: {error}", path.display())))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(match &magic[..count] {
        b"ZNODELOG" => FileSort::Log,
        b"ZNODSNAP" => FileSort::Snapshot,
        // The names decide where the first bytes are damaged.
        _ if name.starts_with("log.") => FileSort::Log,
        _ if name.starts_with("snapshot.") => FileSort::Snapshot,
        _ => FileSort::Other,
    })
}

impl Inspection<'_> {
    fn path(&mut self, path: &Path) -> Result<(), ToolError> {
        if path.is_dir() || !path.exists() {
            return self.directory(path);
        }
        match sort_of(path)? {
            FileSort::Log => self.log_file(path),
            FileSort::Snapshot => self.snapshot_file(path),
            FileSort::Other => self.directory(path),
        }
    }

    fn directory(&mut self, path: &Path) -> Result<(), ToolError> {
        let location = Location::find(path, self.arguments.log_dir.as_deref())?;
        let disks = location.read_only();
        let holder = location.holder();
        let mut survey = Survey::take(&disks)?;
        let mut plan_found = plan(&survey, &disks);
        for _ in 1..TRIES_WHILE_IN_USE {
            if holder.is_none() || plan_found.is_healthy() {
                break;
            }
            survey = Survey::take(&disks)?;
            plan_found = plan(&survey, &disks);
        }
        self.heading(&location, holder.as_deref(), &survey)?;
        for snapshot in &survey.snapshots {
            self.snapshot(snapshot)?;
        }
        for segment in &survey.segments {
            self.segment(segment)?;
            if self.arguments.wants_txns() {
                self.txns(&*disks.log, segment, survey.ensemble_id())?;
            }
        }
        for (name, length) in &survey.others {
            self.out.item(
                || json!({"kind": "other", "file": name, "length": length}),
                || format!("{name}: {length} bytes, read by no replica"),
            )?;
        }
        self.verdict(&location, holder.is_some(), &plan_found)?;
        if self.arguments.tree && !matches!(plan_found.action, Action::Impossible { .. }) {
            self.state_tree(&survey, &plan_found, &disks)?;
        }
        Ok(())
    }

    fn state_tree(
        &mut self,
        survey: &Survey,
        plan: &Plan,
        disks: &LocationDisks,
    ) -> Result<(), ToolError> {
        let tree = state::rebuild(survey, plan, disks)?;
        let end = plan.end;
        self.out.text(|| format!("the tree as of transaction {end}"))?;
        listing::list(&tree, self.arguments, &mut self.out)
    }

    fn heading(
        &mut self,
        location: &Location,
        holder: Option<&str>,
        survey: &Survey,
    ) -> Result<(), ToolError> {
        let shown = location.data_dir.display().to_string();
        let used = match holder {
            Some(pid) => format!("in use by process {pid}; more may be written while this reads"),
            None => "not in use".to_owned(),
        };
        let identity = identity_text(&survey.identity);
        let epochs = match &survey.epochs {
            Ok(Epochs { accepted, current, distrusted }) => {
                let lost = match distrusted {
                    Epoch(0) => String::new(),
                    was => format!(" (was {was} before what it stands for was lost: no vote)"),
                };
                format!("acceptedEpoch {accepted}, currentEpoch {current}{lost}")
            }
            Err(reason) => reason.clone(),
        };
        self.problems +=
            usize::from(survey.identity.is_err()) + usize::from(survey.epochs.is_err());
        self.out.item(
            || {
                let found = survey.identity.as_ref().ok().copied().flatten();
                let epochs = survey.epochs.as_ref().ok();
                json!({
                    "kind": "directory",
                    "path": shown,
                    "log_path": location.log_path().display().to_string(),
                    "used_by": holder,
                    "ensemble_id": found.map(|one| one.ensemble_id.to_string()),
                    "replica_id": found.map(|one| one.replica_id),
                    "accepted_epoch": epochs.map(|epochs| epochs.accepted.0),
                    "current_epoch": epochs.map(|epochs| epochs.current.0),
                    "distrusted_epoch": epochs.map(|epochs| epochs.distrusted.0),
                    "committed": survey.committed.zxid.to_string(),
                    "error": survey.identity.as_ref().err().or(survey.epochs.as_ref().err()),
                })
            },
            || format!("{shown}: {used}\n{identity}\n{epochs}"),
        )
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), ToolError> {
        let (name, length) = (&snapshot.name, snapshot.length);
        match &snapshot.state {
            SnapshotState::Whole(info, contents) => self.out.item(
                || {
                    json!({
                        "kind": "snapshot", "file": name, "length": length,
                        "zxid": info.zxid.to_string(), "newest": info.newest.to_string(),
                        "generation": info.generation, "installed": info.installed,
                        "znodes": contents.znodes, "ephemerals": contents.ephemerals,
                        "sessions": contents.sessions, "data_size": contents.bytes,
                    })
                },
                || {
                    let begun = if info.installed { ", begins its history" } else { "" };
                    let fuzzy = match info.newest > info.zxid {
                        true => format!(" and some up to {}", info.newest),
                        false => String::new(),
                    };
                    format!(
                        "{name}: {length} bytes, transactions up to {}{fuzzy}, generation \
                         {}{begun}: {} znodes ({} ephemeral), {} sessions, {} bytes of paths and \
                         values",
                        info.zxid,
                        info.generation,
                        contents.znodes,
                        contents.ephemerals,
                        contents.sessions,
                        contents.bytes
                    )
                },
            ),
            SnapshotState::Damaged(reason) | SnapshotState::Foreign(reason) => self.out.item(
                || json!({"kind": "snapshot", "file": name, "length": length, "error": reason}),
                || format!("{name}: {length} bytes, not usable: {reason}"),
            ),
        }
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), ToolError> {
        let ending = ending_text(segment);
        self.out.item(
            || {
                let header = segment.whole_header();
                let readable = segment.readable();
                json!({
                    "kind": "segment", "file": segment.name, "length": segment.length,
                    "ensemble_id": header.map(|header| header.ensemble_id.to_string()),
                    "generation": header.map(|header| header.generation),
                    "previous": header.map(|header| header.zxid.to_string()),
                    "first": readable.map(|run| run.first.to_string()),
                    "last": readable.map(|run| run.last.to_string()),
                    "txns": segment.count(), "end": segment.end,
                    "ending": ending_word(segment), "ending_text": ending,
                    "txns_behind_damage": segment.count_behind(),
                })
            },
            || {
                let range = match segment.readable() {
                    Some(run) => {
                        format!("{} transactions, {} to {}", run.count, run.first, run.last)
                    }
                    None => "no transactions".to_owned(),
                };
                format!("{}: {} bytes, {range}; {ending}", segment.name, segment.length)
            },
        )
    }

    /// Shows a segment's transactions.
    fn txns(
        &mut self,
        disk: &dyn Disk,
        segment: &Segment,
        ensemble_id: Option<EnsembleId>,
    ) -> Result<(), ToolError> {
        let is_damaged = segment.damage().is_some();
        let mut failed = None;
        log_scan::scan(disk, &segment.name, ensemble_id, |scanned| {
            // What a torn tail holds never counted.
            let counts = !scanned.is_behind || is_damaged;
            if failed.is_none() && counts && self.arguments.wants(scanned.record.zxid) {
                let behind = scanned.is_behind || segment.whole_header().is_none();
                failed = self.txn(scanned.record.zxid, scanned.payload, behind).err();
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn txn(&mut self, zxid: Zxid, payload: &[u8], is_behind: bool) -> Result<(), ToolError> {
        let with_data = self.arguments.data;
        let mark = if is_behind { "  [behind damage]" } else { "" };
        let txn = match codec::decode::<Txn>(payload) {
            Ok(txn) => txn,
            Err(error) => {
                return self.out.item(
                    || json!({"kind": "txn", "zxid": zxid.to_string(), "error": error.to_string()}),
                    || format!("  {zxid}  cannot be understood: {error}{mark}"),
                );
            }
        };
        if let Some(prefix) = &self.arguments.path
            && !describe::changed_paths(&txn).iter().any(|path| describe::is_below(path, prefix))
        {
            return Ok(());
        }
        self.out.item(
            || {
                let mut value = describe::json(&txn, with_data);
                describe::merge(&mut value, json!({"behind_damage": is_behind}));
                value
            },
            || format!("  {}{mark}", describe::text(&txn, with_data)),
        )
    }

    fn verdict(
        &mut self,
        location: &Location,
        is_in_use: bool,
        plan: &Plan,
    ) -> Result<(), ToolError> {
        for damage in &plan.damages {
            self.problems += 1;
            self.out.item(
                || {
                    let file = damage.file.display().to_string();
                    json!({
                        "kind": "damage", "file": file, "offset": damage.offset,
                        "reason": damage.reason,
                    })
                },
                || damage.to_string(),
            )?;
        }
        let arguments = location.as_arguments();
        let stop = if is_in_use { "stop the replica, then " } else { "" };
        let (state, text) = match &plan.action {
            Action::Impossible { reason } => {
                self.problems += 1;
                ("unusable", reason.clone())
            }
            _ if plan.is_healthy() => ("whole", format!("whole up to transaction {}", plan.end)),
            _ => (
                "damaged",
                format!(
                    "everything up to transaction {} can be had: {stop}run `znoded repair \
                     {arguments}`, which shows what it would do first",
                    plan.end
                ),
            ),
        };
        self.out.item(
            || {
                json!({
                    "kind": "verdict", "state": state, "end": plan.end.to_string(),
                    "newest_known": plan.newest_known.to_string(), "text": text,
                })
            },
            || text.clone(),
        )
    }

    fn log_file(&mut self, path: &Path) -> Result<(), ToolError> {
        let (disk, name) = beside(path);
        let ensemble_id = id_beside(&*disk);
        let segment = log_scan::scan(&*disk, &name, ensemble_id, |_| {})?;
        self.problems += usize::from(segment.damage().is_some());
        self.problems += usize::from(!matches!(segment.header, SegmentHeader::Whole(_)));
        self.segment(&segment)?;
        self.txns(&*disk, &segment, ensemble_id)
    }

    fn snapshot_file(&mut self, path: &Path) -> Result<(), ToolError> {
        let (disk, name) = beside(path);
        let snapshot = survey::read_snapshot(&disk, &name, None)?;
        self.problems += usize::from(snapshot.info().is_none());
        self.snapshot(&snapshot)?;
        if self.arguments.tree
            && let Ok((_, tree)) = survey::load_snapshot(&disk, &name, None)
        {
            listing::list(&tree, self.arguments, &mut self.out)?;
        }
        Ok(())
    }
}

fn identity_text(identity: &Result<Option<ReplicaIdentity>, String>) -> String {
    match identity {
        Ok(Some(one)) if one.replica_id == 0 => {
            format!("a replica alone, ensemble {}", one.ensemble_id)
        }
        Ok(Some(one)) => format!("replica {} of ensemble {}", one.replica_id, one.ensemble_id),
        Ok(None) => "belongs to no ensemble yet".to_owned(),
        Err(reason) => reason.clone(),
    }
}

/// A file's directory as a disk, and its name there.
fn beside(path: &Path) -> (Arc<dyn Disk>, String) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (Arc::new(FileDisk::look_at(directory.unwrap_or(Path::new(".")))), name)
}

/// The ensemble of the directory that a file lies in, for when the file's own header is gone.
fn id_beside(disk: &dyn Disk) -> Option<EnsembleId> {
    ReplicaIdentity::read(disk).ok().flatten().map(|identity| identity.ensemble_id)
}

fn ending_word(segment: &Segment) -> &'static str {
    match (&segment.header, &segment.ending) {
        (SegmentHeader::Version(_), _) => "version",
        (SegmentHeader::Damaged, _) => "header",
        (_, Ending::Clean) => "clean",
        (_, Ending::Open) => "open",
        (_, Ending::Torn { .. }) => "torn",
        (_, Ending::Damaged { .. }) => "damaged",
    }
}

fn ending_text(segment: &Segment) -> String {
    let (end, behind) = (segment.end, segment.count_behind());
    match (&segment.header, &segment.ending) {
        (SegmentHeader::Version(version), _) => {
            format!("format version {version}, which this program does not read")
        }
        (SegmentHeader::Damaged, _) => format!(
            "damaged at byte 0: its header is not whole; {behind} transactions can be read behind it"
        ),
        (_, Ending::Clean) => format!("ends at byte {end} in a clean shutdown"),
        (_, Ending::Open) => format!("ends at byte {end}"),
        (_, Ending::Torn { bytes }) => format!(
            "ends at byte {end}, behind which {bytes} bytes are left of a write that a crash \
             interrupted"
        ),
        (_, Ending::Damaged { reason }) => {
            format!("damaged at byte {end}: {reason}; {behind} transactions can be read behind it")
        }
    }
}
