//! What a survey means: which state can be rebuilt, what stands in a replica's way, and the
//! smallest change that lets it start. Decides only; `repair` and `recover` act.
//!
//! A state is a snapshot and the transactions behind it without a gap. A whole transaction behind
//! damage counts if its zxid says that nothing is missing in between: so damage to what a snapshot
//! holds anyway costs nothing.

use std::path::PathBuf;

use znodefs::{Epoch, Zxid};

use super::location::LocationDisks;
use super::log_scan::{Ending, Run, Segment, SegmentHeader};
use super::survey::{SnapshotState, Survey, newest_known};
use crate::persistence::SnapshotInfo;
use crate::persistence::committed_file::COMMITTED_NAME;
use crate::persistence::log_index::parse_segment_name;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes; `None` where the message says it or the file as a whole is meant.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: a replica starts, or has nothing to start from.
    Nothing,
    /// Setting aside segments that a snapshot makes unneeded.
    SetAside {
        /// Their names, oldest first.
        segments: Vec<String>,
    },
    /// Cutting the log.
    Cut {
        /// The segment to be cut.
        segment: String,
        /// Where; 0 for the whole file.
        offset: u64,
        /// The segments behind it, oldest first.
        later: Vec<String>,
    },
    /// Beginning a new history with a snapshot of what can be rebuilt.
    Rebuild {
        /// The segments that it replaces, oldest first.
        segments: Vec<String>,
    },
    /// Nothing can be done with what is there.
    Impossible {
        /// Why.
        reason: String,
    },
}

/// What a survey means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The history's generation.
    pub generation: u64,
    /// The snapshot to begin with; `None` for the empty tree.
    pub base: Option<SnapshotInfo>,
    /// The last transaction of the state that can be rebuilt.
    pub end: Zxid,
    /// The newest transaction of which there is any trace.
    pub newest_known: Zxid,
    /// What is wrong, in the log's order and then the snapshots'.
    pub damages: Vec<Damage>,
    /// What to do about the log.
    pub action: Action,
    /// Snapshots that cannot be read.
    pub damaged_snapshots: Vec<String>,
    /// Whole snapshots that may hold transactions behind `end`.
    pub later_snapshots: Vec<String>,
    /// Whether what is left is short of what was committed, and counts all the same afterwards.
    pub settles: bool,
}

impl Plan {
    /// Whether a transaction that was durable would be gone.
    pub fn loses(&self) -> bool {
        self.newest_known > self.end || self.settles
    }

    /// Whether there is nothing to repair.
    pub fn is_healthy(&self) -> bool {
        self.action == Action::Nothing && self.damages.is_empty()
    }
}

/// A place where the log cannot be read on.
struct Break {
    /// The place of the segment in the chain.
    position: usize,
    offset: u64,
    reason: String,
    /// The last transaction before it, where that is known.
    last: Option<Zxid>,
}

/// What the segments and snapshots that count are.
struct Chain<'a> {
    generation: u64,
    segments: Vec<&'a Segment>,
    snapshots: Vec<&'a SnapshotInfo>,
    breaks: Vec<Break>,
}

/// Thinks about a survey.
pub fn plan(survey: &Survey, disks: &LocationDisks) -> Plan {
    let chain = chain(survey);
    let known = newest_known(&chain.segments, &chain.snapshots);
    let mut damages: Vec<Damage> =
        chain.breaks.iter().map(|found| damage(found, &chain, disks)).collect();
    let is_damaged = |state: &SnapshotState| matches!(state, SnapshotState::Damaged(_));
    let damaged = survey.snapshots.iter().filter(|snapshot| is_damaged(&snapshot.state));
    let damaged_snapshots: Vec<String> = damaged.map(|snapshot| snapshot.name.clone()).collect();
    for snapshot in &survey.snapshots {
        if let SnapshotState::Damaged(reason) | SnapshotState::Foreign(reason) = &snapshot.state {
            let file = disks.data.path_of(&snapshot.name);
            damages.push(Damage { file, offset: None, reason: reason.clone() });
        }
    }
    let refusal = refusal(survey, disks).or_else(|| lost_history(survey, chain.generation));
    let best = best_state(&chain);
    let (base, end) = best.clone().unwrap_or_default();
    let later = chain.snapshots.iter().filter(|info| info.newest > end);
    let later_snapshots = later.map(|info| info.name.clone()).collect::<Vec<_>>();
    let action = match (refusal, &best) {
        (Some(reason), _) => Action::Impossible { reason },
        (None, None) => Action::Impossible { reason: nothing_to_begin_with(&chain, survey) },
        (None, Some((base, end))) => action(&chain, base.as_ref(), *end),
    };
    let is_rebuilt = matches!(action, Action::Rebuild { .. });
    if chain.breaks.is_empty() && best.is_some() && (is_rebuilt || !later_snapshots.is_empty()) {
        damages.push(log_missing(&chain, disks));
    }
    let generation = chain.generation;
    let missing = best.as_ref().and_then(|(_, end)| missing(survey, generation, *end));
    // What is damaged explains it.
    if let Some(committed) = missing.filter(|_| damages.is_empty()) {
        damages.push(committed_missing(committed, end, disks));
    }
    let known = known.max(missing.unwrap_or_default());
    let distrusted = survey.epochs.as_ref().is_ok_and(|epochs| epochs.distrusted > Epoch(0));
    if distrusted && damages.is_empty() {
        damages.push(no_vote(disks));
    }
    Plan {
        generation,
        base,
        end,
        newest_known: known,
        damages,
        action,
        damaged_snapshots,
        later_snapshots,
        settles: missing.is_some() || distrusted,
    }
}

/// What of this history was known to be committed, if it ends before.
fn missing(survey: &Survey, generation: u64, end: Zxid) -> Option<Zxid> {
    let committed = survey.committed;
    let is_missing = committed.generation == generation && committed.is_missing_behind(end);
    is_missing.then_some(committed.zxid)
}

fn committed_missing(committed: Zxid, end: Zxid, disks: &LocationDisks) -> Damage {
    let file = disks.data.path_of(COMMITTED_NAME);
    let reason = format!(
        "{} says that transactions up to {committed} were committed, but the log ends at {end}: the \
         disk has lost a write that it had confirmed",
        file.display()
    );
    Damage { file, offset: None, reason }
}

fn no_vote(disks: &LocationDisks) -> Damage {
    let file = disks.data.path().to_owned();
    let reason = format!(
        "{} has no vote, since its disk had lost what was committed: the other replicas are to bring \
         it up to date",
        file.display()
    );
    Damage { file, offset: None, reason }
}

/// The segments and snapshots of the newest history that has a whole snapshot.
fn chain(survey: &Survey) -> Chain<'_> {
    let whole = survey.snapshots.iter().filter_map(|snapshot| snapshot.info());
    let generation = whole.clone().map(|info| info.generation).max().unwrap_or(0);
    let mut snapshots: Vec<&SnapshotInfo> =
        whole.filter(|info| info.generation == generation).collect();
    snapshots.sort_by_key(|info| std::cmp::Reverse(info.zxid));
    let newest_name =
        survey.segments.iter().filter_map(|segment| parse_segment_name(&segment.name)).max();
    let counts = |segment: &&Segment| match &segment.header {
        SegmentHeader::Whole(header) => {
            let is_ours = survey.ensemble_id().is_none_or(|id| id == header.ensemble_id);
            is_ours && header.generation == generation
        }
        // Being created when the replica stopped: removed at its next start.
        SegmentHeader::Damaged => {
            !segment.runs.is_empty() || parse_segment_name(&segment.name) != newest_name
        }
        SegmentHeader::Version(_) => false,
    };
    let mut segments: Vec<&Segment> = survey.segments.iter().filter(counts).collect();
    segments.sort_by_key(|segment| {
        let first = parse_segment_name(&segment.name).unwrap_or_default();
        let before = Zxid(first.0.saturating_sub(1));
        (segment.whole_header().map_or(before, |header| header.zxid), first)
    });
    // Of two that continue the same one, an empty first is left of an attempt on a full disk.
    let previous: Vec<Option<Zxid>> =
        segments.iter().map(|segment| Some(segment.whole_header()?.zxid)).collect();
    let mut place = 0;
    segments.retain(|segment| {
        let is_twin =
            previous[place].is_some() && previous.get(place + 1) == Some(&previous[place]);
        place += 1;
        !(is_twin && segment.runs.is_empty())
    });
    let breaks = breaks(&segments);
    Chain { generation, segments, snapshots, breaks }
}

/// Where a replica that reads the segments one after the other would be stopped.
fn breaks(segments: &[&Segment]) -> Vec<Break> {
    let mut found = Vec::new();
    let mut last_before = None;
    for (position, segment) in segments.iter().enumerate() {
        if segment.whole_header().is_none() {
            let reason = "its header is not whole".to_owned();
            found.push(Break { position, offset: 0, reason, last: last_before });
            last_before = segment.runs.last().map(|run| run.last);
            continue;
        }
        let last = segment.last();
        let next =
            segments.get(position + 1).map(|next| next.whole_header().map(|header| header.zxid));
        let reason = match (&segment.ending, next) {
            (_, Some(Some(next))) if last < Some(next) => Some(format!(
                "no whole record is there, though the log goes on from {} to {next}",
                last.unwrap_or_default()
            )),
            (_, Some(Some(_))) => None,
            (Ending::Damaged { reason }, _) => Some(reason.clone()),
            _ => None,
        };
        if let Some(reason) = reason {
            found.push(Break { position, offset: segment.end, reason, last });
        }
        last_before = last;
    }
    found
}

fn damage(found: &Break, chain: &Chain<'_>, disks: &LocationDisks) -> Damage {
    let file = disks.log.path_of(&chain.segments[found.position].name);
    Damage { file, offset: Some(found.offset), reason: found.reason.clone() }
}

fn log_missing(chain: &Chain<'_>, disks: &LocationDisks) -> Damage {
    let last = chain.segments.last().and_then(|segment| segment.last()).unwrap_or_default();
    let newest = chain.snapshots.iter().map(|info| info.newest).max().unwrap_or_default();
    let reason = format!(
        "the log ends at {last}, but a snapshot holds transactions up to {newest}: log files are \
         missing (was dataLogDir changed?)"
    );
    Damage { file: disks.log.path().to_owned(), offset: None, reason }
}

/// Why nothing here may be touched.
fn refusal(survey: &Survey, disks: &LocationDisks) -> Option<String> {
    let path = disks.data.path().display();
    let elsewhere = "restore a backup with `znoded restore`, or empty the dataDir to have it brought \
                     up to date by the other replicas";
    match &survey.identity {
        Err(error) => return Some(error.clone()),
        Ok(None) if !survey.segments.is_empty() || !survey.snapshots.is_empty() => {
            return Some(format!("{path} holds data but no file `identity`: {elsewhere}"));
        }
        Ok(_) => {}
    }
    for snapshot in &survey.snapshots {
        if let SnapshotState::Foreign(reason) = &snapshot.state {
            return Some(reason.clone());
        }
    }
    for segment in &survey.segments {
        let file = disks.log.path_of(&segment.name);
        match &segment.header {
            SegmentHeader::Version(version) => {
                return Some(format!(
                    "{} has format version {version}: use the program that wrote it",
                    file.display()
                ));
            }
            SegmentHeader::Whole(header)
                if survey.ensemble_id().is_some_and(|id| id != header.ensemble_id) =>
            {
                return Some(format!(
                    "{} belongs to another ensemble, {}: correct dataDir or dataLogDir",
                    file.display(),
                    header.ensemble_id
                ));
            }
            _ => {}
        }
    }
    None
}

/// Why a log that continues an installed snapshot is of no use without it.
fn lost_history(survey: &Survey, generation: u64) -> Option<String> {
    let headers = survey.segments.iter().filter_map(|segment| segment.whole_header());
    let newer =
        headers.map(|header| header.generation).max().filter(|&newest| newest > generation)?;
    let survey_count = survey.snapshots.len();
    Some(format!(
        "the log continues a history (generation {newer}) that began with a snapshot from elsewhere, \
         and none of the {survey_count} snapshots that is whole belongs to it: the znodes cannot be \
         had from here; restore a backup with `znoded restore`, or empty the dataDir to have it \
         brought up to date by the other replicas"
    ))
}

fn nothing_to_begin_with(chain: &Chain<'_>, survey: &Survey) -> String {
    let base = chain.segments.first().and_then(|segment| segment.whole_header());
    let behind =
        base.map_or_else(String::new, |header| format!(" behind transaction {}", header.zxid));
    let damaged = survey.snapshots.len() - chain.snapshots.len();
    format!(
        "the log begins{behind}, and of {} snapshots none that is whole reaches so far ({damaged} \
         cannot be used): the znodes cannot be had from here; restore a backup with `znoded \
         restore`, or empty the dataDir to have it brought up to date by the other replicas",
        survey.snapshots.len()
    )
}

/// The snapshot that leads furthest, and how far; `None` when there is nothing to begin with.
fn best_state(chain: &Chain<'_>) -> Option<(Option<SnapshotInfo>, Zxid)> {
    let mut best: Option<(Option<SnapshotInfo>, Zxid)> = None;
    for info in &chain.snapshots {
        let end = reach(&chain.segments, info.zxid);
        // A fuzzy snapshot is settled only by the transactions that came while it was taken.
        let is_settled = end >= info.newest;
        if is_settled && best.as_ref().is_none_or(|(_, best_end)| end > *best_end) {
            best = Some((Some((*info).clone()), end));
        }
    }
    let begins_at_zero = chain.segments.first().is_none_or(|segment| {
        segment.whole_header().is_none_or(|header| header.zxid == Zxid::ZERO)
    });
    if chain.generation == 0 && begins_at_zero {
        let end = reach(&chain.segments, Zxid::ZERO);
        let is_of_use =
            end > Zxid::ZERO || chain.segments.iter().all(|one| one.whole_header().is_some());
        if is_of_use && best.as_ref().is_none_or(|(_, best_end)| end > *best_end) {
            best = Some((None, end));
        }
    }
    best
}

/// How far the transactions behind `from` go without a gap.
fn reach(segments: &[&Segment], from: Zxid) -> Zxid {
    let mut last = from;
    for (position, segment) in segments.iter().enumerate() {
        let readable = segment.readable();
        for run in segment.durable_runs(position + 1 == segments.len()) {
            let is_readable = Some(run) == readable;
            if run.last <= last {
                continue;
            }
            if !continues(segment, run, is_readable, last) {
                return last;
            }
            last = run.last;
        }
    }
    last
}

/// Whether nothing is missing between `last` and what of `run` is later.
fn continues(segment: &Segment, run: &Run, is_readable: bool, last: Zxid) -> bool {
    let begins_here =
        || is_readable && segment.whole_header().is_some_and(|header| header.zxid <= last);
    run.first <= last || last.next() == Some(run.first) || begins_here()
}

/// Whether a replica that finds whole segments would start with this snapshot.
fn starts_from(chain: &Chain<'_>, base: &SnapshotInfo, end: Zxid) -> bool {
    let log_end = chain.segments.last().and_then(|segment| segment.last());
    match (log_end, chain.segments.first().and_then(|segment| segment.whole_header())) {
        (Some(log_end), Some(first)) => base.zxid >= first.zxid && log_end >= end,
        _ => base.installed || base.newest == Zxid::ZERO,
    }
}

fn action(chain: &Chain<'_>, base: Option<&SnapshotInfo>, end: Zxid) -> Action {
    let names = |segments: &[&Segment]| -> Vec<String> {
        segments.iter().map(|segment| segment.name.clone()).collect()
    };
    let (Some(first), Some(last)) = (chain.breaks.first(), chain.breaks.last()) else {
        let starts = base.is_none_or(|base| starts_from(chain, base, end));
        return match starts {
            true => Action::Nothing,
            false => Action::Rebuild { segments: names(&chain.segments) },
        };
    };
    let begins_behind =
        chain.segments.get(last.position + 1).and_then(|segment| segment.whole_header());
    if let (Some(base), Some(header)) = (base, begins_behind)
        && base.zxid >= header.zxid
        && chain.segments.last().and_then(|segment| segment.last()) == Some(end)
    {
        return Action::SetAside { segments: names(&chain.segments[..=last.position]) };
    }
    if first.last == Some(end) {
        return Action::Cut {
            segment: chain.segments[first.position].name.clone(),
            offset: first.offset,
            later: names(&chain.segments[first.position + 1..]),
        };
    }
    Action::Rebuild { segments: names(&chain.segments) }
}
