//! What happened to each znode, in the order of zxids: its writes, and what clients were shown. No
//! I/O.

use std::collections::{BTreeMap, HashMap, HashSet};

use znodefs::path::{join, parent};
use znodefs::{ErrorCode, SessionId, Stat, Zxid};

use super::report::Subject;
use super::resolve::{Place, Resolved, is_modelled, unmodelled};
use super::{
    Call, ClientId, History, Operation, OperationId, Outcome, Reply, Report, Session, Value, Write,
};

/// What was done to a znode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// It was created.
    Create { data: Value, client: ClientId, owner: SessionId, ephemeral: bool },
    /// Its data was set, if it had this version (-1: any).
    Set { data: Value, version: i32 },
    /// It was deleted, if it had this version.
    Delete { version: i32 },
    /// It had this version.
    Check { version: i32 },
    /// This client's session ended.
    End { client: ClientId },
}

/// What a client was shown of a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Absent,
    Present,
    /// It is there and does not have this version.
    OtherVersion(i32),
    Shown(Stat, Option<Value>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Act(Act),
    Sight(Sight),
}

/// One point of a znode's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub zxid: Zxid,
    /// Within the transaction; what was shown by replies comes last.
    pub order: usize,
    pub what: What,
    /// What it comes from; `None` for the end of a session without a reply.
    pub operation: Option<OperationId>,
}

/// Acts on one znode that belong together and may not have been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Optional {
    pub acts: Vec<Act>,
    pub after: Zxid,
    /// An end of a session must have come before.
    pub before: Option<Zxid>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    pub points: Vec<Point>,
    pub optional: Vec<Optional>,
}

/// One reply with the names of children.
struct Listing<'a> {
    zxid: Zxid,
    operation: OperationId,
    names: HashSet<&'a str>,
}

/// By path.
pub(super) type Timelines = BTreeMap<String, Timeline>;

struct Builder<'a> {
    history: &'a History,
    sessions: &'a [Session],
    resolved: &'a Resolved,
    timelines: Timelines,
    children: HashMap<String, Vec<String>>,
}

pub(super) fn build(
    history: &History,
    sessions: &[Session],
    resolved: &Resolved,
    report: &mut Report,
) -> Timelines {
    let (timelines, children) = Default::default();
    let mut builder = Builder { history, sessions, resolved, timelines, children };
    builder.add_writes();
    builder.add_names(report);
    builder.add_ends();
    builder.add_sights();
    builder.add_listings();
    let unmodelled = unmodelled(history);
    let mut timelines = builder.timelines;
    timelines.retain(|path, _| is_modelled(path, &unmodelled));
    for timeline in timelines.values_mut() {
        timeline.points.sort_by_key(|point| (point.zxid, point.order));
    }
    timelines
}

/// Where replies show something: behind all acts of a transaction.
pub(super) const REPLY: usize = usize::MAX;

impl Builder<'_> {
    fn timeline(&mut self, path: &str) -> &mut Timeline {
        if !self.timelines.contains_key(path) {
            let above = parent(path).unwrap_or("/").to_string();
            self.children.entry(above).or_default().push(path.to_string());
        }
        self.timelines.entry(path.to_string()).or_default()
    }

    fn act(&self, client: ClientId, write: &Write) -> Act {
        match write {
            Write::Create { data, ephemeral, .. } => {
                let session = self.sessions[client.0].id.unwrap_or_default();
                let owner = if *ephemeral { session } else { SessionId(0) };
                Act::Create { data: data.clone(), client, owner, ephemeral: *ephemeral }
            }
            Write::SetData { data, version, .. } => {
                Act::Set { data: data.clone(), version: *version }
            }
            Write::Delete { version, .. } => Act::Delete { version: *version },
            Write::Check { version, .. } => Act::Check { version: *version },
        }
    }

    fn add_writes(&mut self) {
        let history = self.history;
        for (number, operation) in history.operations.iter().enumerate() {
            let id = OperationId(number);
            let mut optional: BTreeMap<&str, Vec<Act>> = BTreeMap::new();
            for (index, write) in operation.call.writes().iter().enumerate() {
                let resolved = self.resolved;
                let act = self.act(operation.client, write);
                match (self.resolved.places[number], resolved.path(id, index, write)) {
                    (Place::At(zxid), Some(path)) => {
                        let what = What::Act(act);
                        let point = Point { zxid, order: 2 * index + 1, what, operation: Some(id) };
                        self.timeline(path).points.push(point);
                    }
                    (Place::Unknown { .. }, Some(path)) => {
                        optional.entry(path).or_default().push(act);
                    }
                    // A sequential one that nobody has seen.
                    (_, None) | (Place::Nowhere, _) => {}
                }
            }
            let Place::Unknown { after, before } = self.resolved.places[number] else { continue };
            for (path, acts) in optional {
                self.timeline(path).optional.push(Optional { acts, after, before });
            }
        }
    }

    /// Names in listings that no write with a known path has made come from sequential creations
    /// without a reply.
    fn add_names(&mut self, report: &mut Report) {
        let history = self.history;
        let unmodelled = unmodelled(history);
        let mut unknown: Vec<(Optional, &Write)> = Vec::new();
        for (number, operation) in history.operations.iter().enumerate() {
            let (after, before) = match self.resolved.places[number] {
                Place::Unknown { after, before } => (after, before),
                // A change of the parent has given the zxid away, and nothing the name.
                Place::At(zxid) => (Zxid(zxid.0 - 1), Some(Zxid(zxid.0 + 1))),
                Place::Nowhere => continue,
            };
            for (index, write) in operation.call.writes().iter().enumerate() {
                let path = self.resolved.path(OperationId(number), index, write);
                if path.is_none() && matches!(write, Write::Create { sequential: true, .. }) {
                    let acts = vec![self.act(operation.client, write)];
                    unknown.push((Optional { acts, after, before }, write));
                }
            }
        }
        for operation in &history.operations {
            let (Call::GetChildren { path, .. }, Outcome::Done { zxid, reply }) =
                (&operation.call, &operation.outcome)
            else {
                continue;
            };
            let Reply::Children(names, _) = reply else { continue };
            for name in names {
                let child = join(path, name);
                if self.timelines.contains_key(&child) || !is_modelled(&child, &unmodelled) {
                    continue;
                }
                let possible = unknown.iter().filter(|(_, write)| write.may_concern(&child));
                let optional: Vec<Optional> =
                    possible.map(|(optional, _)| optional.clone()).collect();
                if optional.is_empty() {
                    let description = format!("{child} is listed at {zxid}, and nobody created it");
                    let rule = "every change was asked for, and made at most once";
                    report.add(history, rule, description, Subject::Znode(&child, *zxid));
                }
                self.timeline(&child).optional = optional;
            }
        }
    }

    /// Ends of sessions, at every znode that may belong to them.
    fn add_ends(&mut self) {
        let mut owned: Vec<(String, ClientId)> = Vec::new();
        for (path, timeline) in &self.timelines {
            let acts = timeline.points.iter().filter_map(|point| match &point.what {
                What::Act(act) => Some(act),
                What::Sight(_) => None,
            });
            let optional = timeline.optional.iter().flat_map(|optional| &optional.acts);
            for act in acts.chain(optional) {
                if let Act::Create { client, ephemeral: true, .. } = act {
                    owned.push((path.clone(), *client));
                }
            }
        }
        owned.sort();
        owned.dedup();
        for (path, client) in owned {
            let act = Act::End { client };
            let end = self.resolved.ends[client.0];
            let timeline = self.timeline(&path);
            match end {
                Place::At(zxid) => {
                    let what = What::Act(act);
                    timeline.points.push(Point { zxid, order: 1, what, operation: None });
                }
                Place::Unknown { after, before } => {
                    timeline.optional.push(Optional { acts: vec![act], after, before });
                }
                Place::Nowhere => {}
            }
        }
    }

    fn add_sights(&mut self) {
        let history = self.history;
        for (number, operation) in history.operations.iter().enumerate() {
            let id = OperationId(number);
            match &operation.outcome {
                Outcome::Done { zxid, reply } => self.add_answer(id, operation, *zxid, reply),
                Outcome::Failed { zxid, error, index } if zxid.0 > 0 => {
                    self.add_refusal(id, operation, *zxid, *error, *index);
                }
                Outcome::Failed { .. } | Outcome::Unknown | Outcome::NotSent => {}
            }
            if let Place::At(zxid) = self.resolved.places[number] {
                self.add_conditions(id, operation, zxid);
            }
        }
    }

    fn see(&mut self, path: &str, zxid: Zxid, order: usize, sight: Sight, id: OperationId) {
        let what = What::Sight(sight);
        let point = Point { zxid, order, what, operation: Some(id) };
        // Of what nobody has ever tried to create nothing else is known.
        self.timeline(path).points.push(point);
    }

    fn add_answer(&mut self, id: OperationId, operation: &Operation, zxid: Zxid, reply: &Reply) {
        match (&operation.call, reply) {
            (Call::GetData { path, .. }, Reply::Data(data, stat)) => {
                let sight = Sight::Shown(*stat, Some(data.clone()));
                self.see(path, zxid, REPLY, sight, id);
            }
            (Call::Exists { path, .. }, Reply::Stat(stat)) => {
                self.see(path, zxid, REPLY, Sight::Shown(*stat, None), id);
            }
            (Call::GetChildren { path, .. }, Reply::Children(_, stat)) => {
                let sight = stat.map_or(Sight::Present, |stat| Sight::Shown(stat, None));
                self.see(path, zxid, REPLY, sight, id);
            }
            (Call::Write { writes, .. }, _) => {
                let resolved = self.resolved;
                for (index, (write, written)) in
                    writes.iter().zip(operation.outcome.written()).enumerate()
                {
                    if let (Some(path), Some(stat)) =
                        (resolved.path(id, index, write), written.stat)
                    {
                        let sight = Sight::Shown(stat, None);
                        self.see(path, zxid, 2 * index + 2, sight, id);
                    }
                }
            }
            _ => {}
        }
    }

    /// What listings say of each child: that it is there, or that it is not.
    fn add_listings(&mut self) {
        let history = self.history;
        let mut listings: BTreeMap<&str, Vec<Listing<'_>>> = BTreeMap::new();
        for (number, operation) in history.operations.iter().enumerate() {
            if let (
                Call::GetChildren { path, .. },
                Outcome::Done { zxid, reply: Reply::Children(names, _) },
            ) = (&operation.call, &operation.outcome)
            {
                let names = names.iter().map(String::as_str).collect();
                let listing = Listing { zxid: *zxid, operation: OperationId(number), names };
                listings.entry(path).or_default().push(listing);
            }
        }
        let lives = self.lives_of_sequential();
        for (path, mut listings) in listings {
            listings.sort_by_key(|listing| listing.zxid);
            let mut listed: HashMap<&str, Vec<usize>> = HashMap::new();
            for (place, listing) in listings.iter().enumerate() {
                listing.names.iter().for_each(|name| listed.entry(name).or_default().push(place));
            }
            for child in self.children.get(path).cloned().unwrap_or_default() {
                let name = znodefs::path::name(&child);
                let listed = listed.get(name).map_or(&[][..], Vec::as_slice);
                // Where it certainly is not, a listing says something new only if it has it.
                let range = lives.get(&child).map_or(0..listings.len(), |(born, gone)| {
                    let start = listings.partition_point(|listing| listing.zxid < *born);
                    let end = listings.partition_point(|listing| listing.zxid < *gone);
                    start..(end + 1).min(listings.len()).max(start)
                });
                let outside = listed.iter().copied().filter(|place| !range.contains(place));
                for place in range.clone().chain(outside) {
                    let Listing { zxid, operation, names } = &listings[place];
                    let sight = if names.contains(name) { Sight::Present } else { Sight::Absent };
                    self.see(&child, *zxid, REPLY, sight, *operation);
                }
            }
        }
    }

    /// When each sequential znode was created, and by when it is certainly gone. There are many of
    /// them, each of them is created once, and nearly every listing is of another time.
    fn lives_of_sequential(&self) -> HashMap<String, (Zxid, Zxid)> {
        let mut lives = HashMap::new();
        for ((operation, index), path) in &self.resolved.made {
            let Operation { client, call, .. } = &self.history.operations[operation.0];
            let Place::At(born) = self.resolved.places[operation.0] else { continue };
            let gone = match (call.writes().get(*index), self.resolved.ends[client.0]) {
                (Some(Write::Create { sequential: true, ephemeral: true, .. }), end) => match end {
                    Place::At(zxid) | Place::Unknown { before: Some(zxid), .. } => zxid,
                    _ => Zxid(i64::MAX),
                },
                (Some(Write::Create { sequential: true, .. }), _) => Zxid(i64::MAX),
                _ => continue,
            };
            lives.insert(path.clone(), (born, gone));
        }
        lives
    }

    /// What a refusal says about the znode.
    fn add_refusal(
        &mut self,
        id: OperationId,
        operation: &Operation,
        zxid: Zxid,
        error: ErrorCode,
        index: usize,
    ) {
        let (path, sight) = match (&operation.call, error) {
            (
                Call::GetData { path, .. }
                | Call::Exists { path, .. }
                | Call::GetChildren { path, .. },
                ErrorCode::NoNode,
            ) => (path.as_str(), Sight::Absent),
            (Call::Write { writes, .. }, _) => {
                let Some(write) = writes.get(index) else { return };
                let path = write.path();
                let above = parent(path).unwrap_or("/");
                // What the same multi had done before it counts, and is not modelled.
                let earlier = writes[..index].iter();
                if earlier.into_iter().any(|other| [path, above].contains(&other.path())) {
                    return;
                }
                match (write, error) {
                    (Write::Create { sequential: false, .. }, ErrorCode::NodeExists) => {
                        (path, Sight::Present)
                    }
                    (Write::Create { .. }, ErrorCode::NoNode) => (above, Sight::Absent),
                    (_, ErrorCode::NoNode) => (path, Sight::Absent),
                    (_, ErrorCode::NotEmpty) => (path, Sight::Present),
                    (
                        Write::SetData { version, .. }
                        | Write::Delete { version, .. }
                        | Write::Check { version, .. },
                        ErrorCode::BadVersion,
                    ) => (path, Sight::OtherVersion(*version)),
                    _ => return,
                }
            }
            _ => return,
        };
        self.see(path, zxid, REPLY, sight, id);
    }

    /// What must have been so for a write to be done: a parent for a creation, no children for a
    /// deletion.
    fn add_conditions(&mut self, id: OperationId, operation: &Operation, zxid: Zxid) {
        let resolved = self.resolved;
        for (index, write) in operation.call.writes().iter().enumerate() {
            let Some(path) = resolved.path(id, index, write) else { continue };
            match write {
                Write::Create { .. } => {
                    let above = parent(path).unwrap_or("/");
                    if above != "/" {
                        self.see(above, zxid, 2 * index, Sight::Present, id);
                    }
                }
                Write::Delete { .. } => {
                    for child in self.children.get(path).cloned().unwrap_or_default() {
                        self.see(&child, zxid, 2 * index, Sight::Absent, id);
                    }
                }
                Write::SetData { .. } | Write::Check { .. } => {}
            }
        }
    }
}
