//! Whether there is an explanation for everything that was done to a znode and shown of it: places for
//! the writes of unknown outcome, or none, such that each write found its condition fulfilled and each
//! reply shows what the writes before it have made. Because zxids place everything that was answered,
//! the search (Wing and Gong's, with Lowe's memory of what has failed) goes back and forth only over
//! the few writes that neither a reply nor anything shown gives away. Of those that nobody could tell
//! from each other one is tried, and nothing before a point from which on all is the same. No I/O.

use std::collections::{HashMap, HashSet};
use std::fmt;

use znodefs::{SessionId, Zxid};

use super::call::show_value;
use super::report::Subject;
use super::timeline::{Act, Optional, Point, Sight, Timeline, Timelines, What};
use super::{ClientId, History, Report, Value};

/// Places tried for the unknown writes of one znode.
const TRIES_MAX: usize = 200_000;

/// A zxid, or that it is above this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum When {
    At(Zxid),
    After(Zxid),
}

/// A znode, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    created: When,
    modified: When,
    version: i32,
    data: Value,
    client: Option<ClientId>,
    owner: SessionId,
}

type State = Option<Node>;

/// What has surely happened to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Created,
    Set,
    Deleted,
}

/// The changes of one znode, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub changes: Vec<(Zxid, Change)>,
    /// Whether there may be more between them.
    pub is_uncertain: bool,
}

pub(super) fn check(
    history: &History,
    timelines: &Timelines,
    report: &mut Report,
) -> HashMap<String, Changes> {
    let mut all = HashMap::new();
    for (path, timeline) in timelines {
        let mut search = Search::new(timeline);
        match search.run() {
            Verdict::Explained => {}
            Verdict::Undecided => report.undecided.push(path.clone()),
            Verdict::Wrong => {
                let point = &timeline.points[search.farthest];
                let (rule, description) = search.describe(path, point);
                report.add(history, rule, description, Subject::Znode(path, point.zxid));
            }
        }
        let changes = certain(search.trace, !timeline.optional.is_empty());
        all.insert(path.clone(), changes);
    }
    all
}

/// Where some writes have no place, an end of a session may have found nothing to delete.
fn certain(trace: Vec<(Zxid, Change, bool)>, is_uncertain: bool) -> Changes {
    let sure = trace.into_iter().filter(|(.., by_end)| !(is_uncertain && *by_end));
    Changes { changes: sure.map(|(zxid, change, _)| (zxid, change)).collect(), is_uncertain }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Explained,
    Wrong,
    Undecided,
}

/// A point at which unknown writes may have been done.
struct Fork {
    at: usize,
    state: State,
    used: Used,
    trace_length: usize,
    next: usize,
}

/// Which unknown writes have found a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Used(Vec<u64>);

impl Used {
    fn has(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    fn with(&self, number: usize) -> Used {
        let mut used = self.clone();
        used.0[number / 64] |= 1 << (number % 64);
        used
    }
}

struct Search<'a> {
    timeline: &'a Timeline,
    /// For each unknown write the kind that it is of: nobody can tell those of one kind from each other.
    kinds: Vec<usize>,
    state: State,
    trace: Vec<(Zxid, Change, bool)>,
    farthest: usize,
    /// What the farthest point was reached with, and why it did not fit.
    obstacle: (State, String),
}

impl Search<'_> {
    fn new(timeline: &Timeline) -> Search<'_> {
        let (kinds, obstacle) = (kinds(timeline), (None, String::new()));
        Search { timeline, kinds, state: None, trace: Vec::new(), farthest: 0, obstacle }
    }

    fn run(&mut self) -> Verdict {
        let mut used = Used(vec![0; self.timeline.optional.len().div_ceil(64)]);
        let mut forks: Vec<Fork> = Vec::new();
        let mut tried = HashSet::new();
        let mut at = 0;
        while let Some(point) = self.timeline.points.get(at) {
            if self.may_fork(at, &used) {
                let (state, used) = (self.state.clone(), used.clone());
                let trace_length = self.trace.len();
                forks.push(Fork { at, state, used, trace_length, next: 0 });
            }
            match self.pass(point) {
                Ok(()) => {
                    if self.is_settled(point, &used) {
                        forks.clear();
                        tried.clear();
                    }
                    at += 1;
                }
                Err(why) => {
                    if at >= self.farthest {
                        (self.farthest, self.obstacle) = (at, (self.state.clone(), why));
                    }
                    let Some((back, other)) = self.back(&mut forks, &mut tried) else {
                        return Verdict::Wrong;
                    };
                    (at, used) = (back, other);
                    if tried.len() > TRIES_MAX {
                        return Verdict::Undecided;
                    }
                }
            }
        }
        Verdict::Explained
    }

    /// The zxids between which something may have been done before a point.
    fn gap(&self, at: usize) -> (Zxid, Zxid) {
        let last = at.checked_sub(1).map_or(Zxid::ZERO, |last| self.timeline.points[last].zxid);
        (last, self.timeline.points[at].zxid)
    }

    /// Whether another past would make no difference any more: the znode is known as a whole, and no
    /// unknown write was used up that could still be of use.
    fn is_settled(&self, point: &Point, used: &Used) -> bool {
        let is_known = matches!(&point.what, What::Sight(Sight::Absent | Sight::Shown(_, Some(_))));
        is_known
            && self.timeline.optional.iter().enumerate().all(|(number, optional)| {
                !used.has(number) || optional.before.is_some_and(|before| before <= point.zxid)
            })
    }

    /// Whether there is another unknown write of the same kind that may be done wherever this one may:
    /// whatever this one explains, that one does.
    fn is_needless(&self, number: usize, fork: &Fork) -> bool {
        let bounds = |number: usize| {
            let Optional { after, before, .. } = &self.timeline.optional[number];
            (*after, before.unwrap_or(Zxid(i64::MAX)))
        };
        let (after, before) = bounds(number);
        let mut others = self.kinds.iter().enumerate();
        others.any(|(other, kind)| {
            let is_earlier = || {
                let theirs = bounds(other);
                let is_within = theirs.0 <= after && theirs.1 <= before;
                is_within && (theirs != (after, before) || other < number)
            };
            other != number
                && *kind == self.kinds[number]
                && !fork.used.has(other)
                && is_earlier()
                && self.fits(&self.timeline.optional[other], fork.at)
        })
    }

    fn may_fork(&self, at: usize, used: &Used) -> bool {
        let optional = self.timeline.optional.iter().enumerate();
        optional.into_iter().any(|(number, one)| !used.has(number) && self.fits(one, at))
    }

    fn fits(&self, optional: &Optional, at: usize) -> bool {
        let (last, next) = self.gap(at);
        last < next && optional.after < next && optional.before.is_none_or(|before| last < before)
    }

    /// Goes back to the last fork where something else can be tried.
    fn back(
        &mut self,
        forks: &mut Vec<Fork>,
        tried: &mut HashSet<(usize, State, Used)>,
    ) -> Option<(usize, Used)> {
        while let Some(fork) = forks.last_mut() {
            while fork.next < self.timeline.optional.len() {
                let number = fork.next;
                fork.next += 1;
                let optional = &self.timeline.optional[number];
                if fork.used.has(number)
                    || !self.fits(optional, fork.at)
                    || self.is_needless(number, fork)
                {
                    continue;
                }
                let last = self.gap(fork.at).0.max(optional.after);
                let Some(state) = done(optional, &fork.state, last) else { continue };
                let used = fork.used.with(number);
                if tried.insert((fork.at, state.clone(), used.clone())) {
                    self.trace.truncate(fork.trace_length);
                    self.state = state;
                    return Some((fork.at, used));
                }
            }
            forks.pop();
        }
        None
    }

    /// Goes over a point, or says why it cannot be.
    fn pass(&mut self, point: &Point) -> Result<(), String> {
        self.check_ends(point)?;
        match &point.what {
            What::Act(act) => {
                let by_end = matches!(act, Act::End { .. });
                let was_there = self.state.is_some();
                let is_done = apply(act, &mut self.state, When::At(point.zxid))?;
                let change = match (was_there, self.state.is_some()) {
                    (false, true) => Change::Created,
                    (true, false) => Change::Deleted,
                    _ => Change::Set,
                };
                if is_done {
                    self.trace.push((point.zxid, change, by_end));
                }
                Ok(())
            }
            What::Sight(sight) => compare(sight, &mut self.state, point.zxid),
        }
    }

    /// Sessions that must be over own nothing.
    fn check_ends(&self, point: &Point) -> Result<(), String> {
        let Some(Node { client: Some(client), .. }) = &self.state else { return Ok(()) };
        for optional in &self.timeline.optional {
            let Some(before) = optional.before.filter(|before| *before <= point.zxid) else {
                continue;
            };
            if optional.acts == [Act::End { client: *client }] {
                return Err(format!(
                    "its session (client {}) must have ended before {before}",
                    client.0
                ));
            }
        }
        Ok(())
    }

    fn describe(&self, path: &str, point: &Point) -> (&'static str, String) {
        let (state, why) = &self.obstacle;
        let rule = match &point.what {
            What::Act(_) => "an acknowledged write is done once its condition holds, and stays",
            What::Sight(Sight::Shown(..) | Sight::Absent | Sight::Present) => {
                "replies show what the writes before them have made"
            }
            What::Sight(Sight::OtherVersion(_)) => "a refusal has a reason",
        };
        let operation = point.operation.map_or(String::new(), |id| format!(" (#{})", id.0));
        let what = match &point.what {
            What::Act(act) => format!("{act:?}"),
            What::Sight(sight) => format!("{sight:?}"),
        };
        let unknown = match self.timeline.optional.len() {
            0 => String::new(),
            count => format!(", whatever became of {count} others without a reply"),
        };
        let state = show(state);
        let description = format!(
            "{path} at {}{operation}: {what}; the writes before it make {state}{unknown}: {why}",
            point.zxid
        );
        (rule, description)
    }
}

/// For each unknown write the first one that does the same, as far as anything shown can tell: data that
/// nobody was shown has a length and no more.
fn kinds(timeline: &Timeline) -> Vec<usize> {
    let shown: HashSet<&Value> = timeline
        .points
        .iter()
        .filter_map(|point| match &point.what {
            What::Sight(Sight::Shown(_, data)) => data.as_ref(),
            _ => None,
        })
        .collect();
    let blurred = |act: &Act| {
        let mut act = act.clone();
        let mut length = None;
        if let Act::Create { data, .. } | Act::Set { data, .. } = &mut act
            && !shown.contains(data)
        {
            length = data.take().map(|data| data.len());
        }
        (act, length)
    };
    let mut firsts = HashMap::new();
    let optional = timeline.optional.iter().enumerate();
    optional
        .map(|(number, optional)| {
            let acts: Vec<_> = optional.acts.iter().map(blurred).collect();
            *firsts.entry(acts).or_insert(number)
        })
        .collect()
}

/// The state behind unknown writes done somewhere after `last`; `None` if they could not be done, or
/// would leave everything as it is.
fn done(optional: &Optional, state: &State, last: Zxid) -> Option<State> {
    let mut after = state.clone();
    let mut any = false;
    for act in &optional.acts {
        any |= apply(act, &mut after, When::After(last)).ok()?;
    }
    any.then_some(after)
}

/// Does something to a znode; `Ok(false)` where it changes nothing.
fn apply(act: &Act, state: &mut State, when: When) -> Result<bool, String> {
    let has = |node: &Node, version: i32| {
        if version == -1 || version == node.version {
            return Ok(());
        }
        Err(format!("it was done for version {version}"))
    };
    match (act, state.as_mut()) {
        (Act::Create { data, client, owner, ephemeral }, None) => {
            let client = ephemeral.then_some(*client);
            let (data, owner) = (data.clone(), *owner);
            *state = Some(Node { created: when, modified: when, version: 0, data, client, owner });
            Ok(true)
        }
        (Act::Create { .. }, Some(_)) => Err("it was there already".into()),
        (Act::Set { data, version }, Some(node)) => {
            has(node, *version)?;
            node.modified = when;
            node.data = data.clone();
            node.version = next_version(node.version);
            Ok(true)
        }
        (Act::Delete { version }, Some(node)) => {
            has(node, *version)?;
            *state = None;
            Ok(true)
        }
        (Act::Check { version }, Some(node)) => has(node, *version).map(|()| false),
        (Act::Set { .. } | Act::Delete { .. } | Act::Check { .. }, None) => {
            Err("it was not there".into())
        }
        (Act::End { client }, Some(node)) if node.client == Some(*client) => {
            *state = None;
            Ok(true)
        }
        (Act::End { .. }, _) => Ok(false),
    }
}

/// Versions skip -1, which stands for any (ZOOKEEPER-4743).
fn next_version(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}

/// Compares what was shown with what should be; a zxid that was not known is from then on.
fn compare(sight: &Sight, state: &mut State, zxid: Zxid) -> Result<(), String> {
    match (sight, state.as_mut()) {
        (Sight::Absent, None) | (Sight::Present, Some(_)) => Ok(()),
        (Sight::Absent, Some(_)) => Err("it is shown as absent".into()),
        (Sight::OtherVersion(version), Some(node)) if node.version == *version => {
            Err("it was refused although the version is right".into())
        }
        (Sight::OtherVersion(_), Some(_)) => Ok(()),
        (Sight::Shown(stat, data), Some(node)) => {
            compare_when(&mut node.created, stat.czxid, zxid, "czxid")?;
            compare_when(&mut node.modified, stat.mzxid, zxid, "mzxid")?;
            if stat.version != node.version {
                return Err(format!("version {} is shown", stat.version));
            }
            if stat.ephemeral_owner != node.owner {
                return Err(format!("owner {} is shown", stat.ephemeral_owner));
            }
            if data.as_ref().is_some_and(|data| *data != node.data) {
                return Err("other data is shown".into());
            }
            let length = node.data.as_ref().map_or(0, |data| data.len());
            if stat.data_length as usize != length {
                return Err(format!("a length of {} is shown", stat.data_length));
            }
            Ok(())
        }
        (Sight::Present | Sight::OtherVersion(_) | Sight::Shown(..), None) => {
            Err("it is shown as present".into())
        }
    }
}

fn compare_when(when: &mut When, shown: Zxid, now: Zxid, what: &str) -> Result<(), String> {
    match *when {
        When::At(zxid) if zxid == shown => Ok(()),
        When::After(zxid) if zxid < shown && shown <= now => {
            *when = When::At(shown);
            Ok(())
        }
        _ => Err(format!("{what} {shown} is shown")),
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::At(zxid) => zxid.fmt(f),
            When::After(zxid) => write!(f, "somewhere after {zxid}"),
        }
    }
}

fn show(state: &State) -> String {
    match state {
        None => "it absent".into(),
        Some(node) => format!(
            "it {} version {}, created {}, modified {}, owner {}",
            show_value(&node.data),
            node.version,
            node.created,
            node.modified,
            node.owner
        ),
    }
}
