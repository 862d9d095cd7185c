//! Where each write stands in the order of zxids. What was answered is placed by its reply. What was
//! not is placed where something that a client was shown can come from nothing else: a value, a
//! creation or a change at a zxid that no answered write has, or a watch event. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};

use znodefs::path::parent;
use znodefs::wire::EventType;
use znodefs::{Stat, Zxid};

use super::report::Subject;
use super::{Call, ClientId, History, OperationId, Outcome, Reply, Report, Session, Step, Value};
use super::{Write, call};

/// Where a write, or the end of a session, took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At this zxid.
    At(Zxid),
    /// Not at all.
    Nowhere,
    /// Not at all, or somewhere between these two.
    Unknown { after: Zxid, before: Option<Zxid> },
}

/// What is known of all writes.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// Of each operation.
    pub places: Vec<Place>,
    /// The end of each client's session.
    pub ends: Vec<Place>,
    /// The paths of sequential znodes, by operation and place in its multi.
    pub made: HashMap<(OperationId, usize), String>,
}

impl Resolved {
    /// Where a write's znode is; `None` while the counter of a sequential one is unknown.
    pub fn path<'a>(
        &'a self,
        operation: OperationId,
        index: usize,
        write: &'a Write,
    ) -> Option<&'a str> {
        match write {
            Write::Create { sequential: true, .. } => {
                self.made.get(&(operation, index)).map(String::as_str)
            }
            other => Some(other.path()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Created,
    Set,
    Deleted,
    ChildrenChanged,
}

/// Something that a client was shown, and that a write must have caused.
type Traces = BTreeMap<(Zxid, String, Kind), Option<Value>>;

/// What may have caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// One of an operation's writes.
    Operation(OperationId, usize),
    /// The end of the session of who created an ephemeral znode by that write.
    End(ClientId, OperationId, usize),
}

pub(super) fn resolve(history: &History, sessions: &[Session], report: &mut Report) -> Resolved {
    let mut resolved = place_answered(history, sessions);
    let traces = collect_traces(history, &resolved);
    let index = Unanswered::of(history, &resolved);
    let mut open: Vec<_> = traces.iter().collect();
    // What one trace gives away leaves fewer possibilities for the others.
    loop {
        let before = open.len();
        let causes = known_causes(history, &resolved);
        open.retain(|((zxid, path, kind), _)| !causes.contains(&(*zxid, path.as_str(), *kind)));
        open.retain(|((zxid, path, kind), value)| {
            !index.pin(history, &mut resolved, (*zxid, path, *kind), value)
        });
        if open.len() == before {
            break;
        }
    }
    for ((zxid, path, kind), value) in open {
        index.report_unexplained(history, &resolved, (*zxid, path, *kind), value, report);
    }
    count(history, &resolved, report);
    bound(history, &mut resolved, report);
    resolved
}

fn place_answered(history: &History, sessions: &[Session]) -> Resolved {
    let unknown = |after| Place::Unknown { after, before: None };
    let mut made = HashMap::new();
    let mut alive_at = vec![Zxid::ZERO; sessions.len()];
    let mut closed_at = vec![None; sessions.len()];
    let mut places = Vec::with_capacity(history.operations.len());
    for (number, operation) in history.operations.iter().enumerate() {
        let client = operation.client.0;
        places.push(match &operation.outcome {
            Outcome::Done { zxid, .. } => {
                match operation.call {
                    Call::Close => closed_at[client] = Some(*zxid),
                    _ => alive_at[client] = alive_at[client].max(*zxid),
                }
                for (index, written) in operation.outcome.written().into_iter().enumerate() {
                    if let Some(path) = written.path {
                        made.insert((OperationId(number), index), path);
                    }
                }
                Place::At(*zxid)
            }
            Outcome::Unknown if operation.call.is_write() => unknown(operation.frontier),
            Outcome::Failed { .. } | Outcome::Unknown | Outcome::NotSent => Place::Nowhere,
        });
    }
    let end = |client: usize| match closed_at[client] {
        Some(zxid) => Place::At(zxid),
        // It must be over at that zxid, so the bound is the one behind.
        None => Place::Unknown {
            after: alive_at[client],
            before: sessions[client].over_by.map(|by| Zxid(by.0 + 1)),
        },
    };
    let ends = (0..sessions.len()).map(end).collect();
    Resolved { places, ends, made }
}

/// The stats that a client was shown, with the data where it was.
fn shown(
    operation: &super::Operation,
    resolved: &Resolved,
    id: OperationId,
) -> Vec<(String, Stat, Option<Value>)> {
    let mut shown = Vec::new();
    match (&operation.call, &operation.outcome) {
        (Call::GetData { path, .. }, Outcome::Done { reply: Reply::Data(data, stat), .. }) => {
            shown.push((path.clone(), *stat, Some(data.clone())));
        }
        (Call::Exists { path, .. }, Outcome::Done { reply: Reply::Stat(stat), .. })
        | (
            Call::GetChildren { path, .. },
            Outcome::Done { reply: Reply::Children(_, Some(stat)), .. },
        ) => shown.push((path.clone(), *stat, None)),
        (Call::Write { writes, .. }, outcome @ Outcome::Done { .. }) => {
            for (index, (write, written)) in writes.iter().zip(outcome.written()).enumerate() {
                if let (Some(path), Some(stat)) = (resolved.path(id, index, write), written.stat) {
                    shown.push((path.to_string(), stat, write.data().cloned()));
                }
            }
        }
        _ => {}
    }
    shown
}

fn collect_traces(history: &History, resolved: &Resolved) -> Traces {
    let unmodelled = unmodelled(history);
    let mut traces = Traces::new();
    let mut add = |zxid: Zxid, path: &str, kind, value: Option<Value>| {
        if zxid.0 > 0 && is_modelled(path, &unmodelled) {
            let known = traces.entry((zxid, path.to_string(), kind)).or_default();
            *known = known.take().or(value);
        }
    };
    for (number, operation) in history.operations.iter().enumerate() {
        for (path, stat, data) in shown(operation, resolved, OperationId(number)) {
            // One multi may have created it and set it.
            let is_new = stat.mzxid == stat.czxid && stat.version == 0;
            add(stat.czxid, &path, Kind::Created, data.clone().filter(|_| is_new));
            if !is_new {
                add(stat.mzxid, &path, Kind::Set, data);
            }
        }
    }
    for noted in &history.noted {
        let Step::Event(event) = &noted.step else { continue };
        let Some(zxid) = event.zxid else { continue };
        let kind = match event.event_type {
            EventType::NodeCreated => Kind::Created,
            EventType::NodeDataChanged => Kind::Set,
            EventType::NodeDeleted => Kind::Deleted,
            EventType::NodeChildrenChanged => Kind::ChildrenChanged,
            EventType::None | EventType::Unknown(_) => continue,
        };
        add(zxid, &event.path, kind, None);
    }
    traces
}

/// Znodes that operations may have changed in a way that is not modelled.
pub(super) fn unmodelled(history: &History) -> HashSet<&str> {
    let calls = history.operations.iter().map(|operation| &operation.call);
    let paths = calls.filter_map(|call| match call {
        Call::Other { unmodelled, .. } => Some(unmodelled),
        _ => None,
    });
    paths.flatten().map(String::as_str).collect()
}

/// Whether a znode's changes are all noted: not the root's and the service's own.
pub(super) fn is_modelled(path: &str, unmodelled: &HashSet<&str>) -> bool {
    path != "/" && !znodefs::path::is_within(path, "/zookeeper") && !unmodelled.contains(path)
}

/// What writes do whose place is known.
fn known_causes<'a>(
    history: &'a History,
    resolved: &'a Resolved,
) -> HashSet<(Zxid, &'a str, Kind)> {
    let mut causes = HashSet::new();
    let mut ephemerals: HashMap<ClientId, Vec<(Option<&str>, &str)>> = HashMap::new();
    for (number, operation) in history.operations.iter().enumerate() {
        let id = OperationId(number);
        for (index, write) in operation.call.writes().iter().enumerate() {
            let path = resolved.path(id, index, write);
            let is_done = resolved.places[number] != Place::Nowhere;
            if is_done && matches!(write, Write::Create { ephemeral: true, .. }) {
                let above = parent(write.path()).unwrap_or("/");
                ephemerals.entry(operation.client).or_default().push((path, above));
            }
            let Some(path) = path else { continue };
            let Place::At(zxid) = resolved.places[number] else { continue };
            let kind = match write {
                Write::Create { .. } => Kind::Created,
                Write::SetData { .. } => Kind::Set,
                Write::Delete { .. } => Kind::Deleted,
                Write::Check { .. } => continue,
            };
            causes.insert((zxid, path, kind));
            if kind != Kind::Set {
                causes.insert((zxid, parent(path).unwrap_or("/"), Kind::ChildrenChanged));
            }
        }
    }
    for (client, paths) in ephemerals {
        let Place::At(zxid) = resolved.ends[client.0] else { continue };
        for (path, above) in paths {
            causes.extend(path.map(|path| (zxid, path, Kind::Deleted)));
            causes.insert((zxid, above, Kind::ChildrenChanged));
        }
    }
    causes
}

/// Writes without an answer and sessions without a known end, by what they may have changed.
struct Unanswered<'a> {
    /// By the znode.
    by_path: HashMap<String, Vec<Cause>>,
    /// Sequential ones by the parent of the znode.
    sequential: HashMap<&'a str, Vec<Cause>>,
    /// All that change its children by the parent.
    by_parent: HashMap<&'a str, Vec<Cause>>,
}

impl<'a> Unanswered<'a> {
    fn of(history: &'a History, resolved: &Resolved) -> Unanswered<'a> {
        let (by_path, sequential, by_parent) = Default::default();
        let mut index = Unanswered { by_path, sequential, by_parent };
        for (number, operation) in history.operations.iter().enumerate() {
            let is_unknown = match resolved.places[number] {
                Place::Nowhere => continue,
                Place::At(_) => false,
                Place::Unknown { .. } => true,
            };
            let end_is_unknown = matches!(resolved.ends[operation.client.0], Place::Unknown { .. });
            for (at, write) in operation.call.writes().iter().enumerate() {
                let id = OperationId(number);
                let this = is_unknown.then_some(Cause::Operation(id, at));
                let is_ephemeral = matches!(write, Write::Create { ephemeral: true, .. });
                let end = (end_is_unknown && is_ephemeral).then_some(Cause::End(
                    operation.client,
                    id,
                    at,
                ));
                let causes = [this, end];
                for cause in causes.into_iter().flatten() {
                    index.add(cause, write, resolved.path(id, at, write));
                }
            }
        }
        index
    }

    fn add(&mut self, cause: Cause, write: &'a Write, path: Option<&str>) {
        let above = parent(write.path()).unwrap_or("/");
        let lists = match path {
            Some(path) => self.by_path.entry(path.to_string()).or_default(),
            None => self.sequential.entry(above).or_default(),
        };
        lists.push(cause);
        if !matches!(write, Write::SetData { .. } | Write::Check { .. }) {
            self.by_parent.entry(above).or_default().push(cause);
        }
    }

    /// What may have caused a trace, whether its place is known by now or not.
    fn causes(
        &self,
        history: &History,
        (path, kind): (&str, Kind),
        value: &Option<Value>,
    ) -> Vec<Cause> {
        if kind == Kind::ChildrenChanged {
            return self.by_parent.get(path).cloned().unwrap_or_default();
        }
        let fixed = self.by_path.get(path).into_iter().flatten();
        let above = parent(path).unwrap_or("/");
        let sequential = self.sequential.get(above).into_iter().flatten();
        let fits = |cause: &&Cause| match **cause {
            Cause::End(_, id, at) => {
                let write = &history.operations[id.0].call.writes()[at];
                kind == Kind::Deleted && write.may_concern(path)
            }
            Cause::Operation(id, at) => {
                let write = &history.operations[id.0].call.writes()[at];
                let is_kind = match write {
                    Write::Create { .. } => kind == Kind::Created,
                    Write::SetData { .. } => kind == Kind::Set,
                    Write::Delete { .. } => kind == Kind::Deleted,
                    Write::Check { .. } => false,
                };
                let is_value = value.is_none() || write.data() == value.as_ref();
                is_kind && is_value && write.may_concern(path)
            }
        };
        fixed.chain(sequential).filter(fits).copied().collect()
    }

    /// Places the only possible cause of a trace; whether there was one.
    fn pin(
        &self,
        history: &History,
        resolved: &mut Resolved,
        (zxid, path, kind): (Zxid, &str, Kind),
        value: &Option<Value>,
    ) -> bool {
        let is_open = |cause: &Cause, within_bounds: bool| match place(resolved, *cause) {
            Place::Unknown { after, before } => {
                !within_bounds || after < zxid && before.is_none_or(|before| zxid < before)
            }
            Place::At(_) | Place::Nowhere => false,
        };
        let mut causes = self.causes(history, (path, kind), value);
        // Another trace of the same write may have placed it meanwhile.
        if causes.iter().any(|cause| place(resolved, *cause) == Place::At(zxid)) {
            return true;
        }
        let is_indirect = kind == Kind::ChildrenChanged;
        causes.retain(|cause| is_open(cause, is_indirect || matches!(cause, Cause::End(..))));
        // One that is alone but out of its bounds is reported as such.
        if causes.len() > 1 {
            causes.retain(|cause| is_open(cause, true));
        }
        let Some(first) = causes.first().copied() else { return false };
        let is_same = |cause: &Cause| match (*cause, first) {
            (Cause::End(client, ..), Cause::End(other, ..)) => client == other,
            (Cause::Operation(id, at), Cause::Operation(other, place)) => {
                id == other && (at == place || kind == Kind::ChildrenChanged)
            }
            _ => false,
        };
        if !causes.iter().all(is_same) {
            return false;
        }
        match first {
            Cause::End(client, ..) => resolved.ends[client.0] = Place::At(zxid),
            Cause::Operation(id, at) => {
                resolved.places[id.0] = Place::At(zxid);
                let is_sequential = matches!(
                    history.operations[id.0].call.writes()[at],
                    Write::Create { sequential: true, .. }
                );
                if is_sequential && kind != Kind::ChildrenChanged {
                    resolved.made.insert((id, at), path.to_string());
                }
            }
        }
        true
    }

    /// A trace that no known write has left: either it has several possible causes, which the search
    /// looks at, or it is wrong.
    fn report_unexplained(
        &self,
        history: &History,
        resolved: &Resolved,
        (zxid, path, kind): (Zxid, &str, Kind),
        value: &Option<Value>,
        report: &mut Report,
    ) {
        let causes = self.causes(history, (path, kind), value);
        if causes.iter().any(|cause| matches!(place(resolved, *cause), Place::Unknown { .. })) {
            return;
        }
        let what = match kind {
            Kind::Created => "was created",
            Kind::Set => "was set",
            Kind::Deleted => "was deleted",
            Kind::ChildrenChanged => "got or lost a child",
        };
        let value =
            value.as_ref().map_or(String::new(), |value| format!(" ({})", call::show_value(value)));
        let why = match causes.first().map(|cause| (cause, place(resolved, *cause))) {
            Some((Cause::Operation(id, _), Place::At(other))) => {
                format!("the only write that fits, #{}, took effect at {other}", id.0)
            }
            _ => "no client asked for it".into(),
        };
        let description = format!("{path} {what} at {zxid}{value}, but {why}");
        let rule = "every change was asked for, and made at most once";
        report.add(history, rule, description, Subject::Znode(path, zxid));
    }
}

fn place(resolved: &Resolved, cause: Cause) -> Place {
    match cause {
        Cause::Operation(id, _) => resolved.places[id.0],
        Cause::End(client, ..) => resolved.ends[client.0],
    }
}

fn count(history: &History, resolved: &Resolved, report: &mut Report) {
    for (operation, place) in history.operations.iter().zip(&resolved.places) {
        if operation.call.is_write() && operation.outcome == Outcome::Unknown {
            report.unknown += 1;
            report.recognised += usize::from(matches!(place, Place::At(_)));
        }
    }
}

/// Narrows down where unknown writes may be by the other writes of their session, and checks that
/// those recognised are within.
fn bound(history: &History, resolved: &mut Resolved, report: &mut Report) {
    let mut of_client: Vec<Vec<usize>> = vec![Vec::new(); history.sessions.len()];
    for (number, operation) in history.operations.iter().enumerate() {
        if operation.call.is_write() && resolved.places[number] != Place::Nowhere {
            of_client[operation.client.0].push(number);
        }
    }
    for (writes, end) in of_client.into_iter().zip(resolved.ends.clone()) {
        let mut newest = Zxid::ZERO;
        let mut before_it = Vec::with_capacity(writes.len());
        for number in &writes {
            before_it.push(newest);
            match &mut resolved.places[*number] {
                Place::At(zxid) => newest = newest.max(*zxid),
                Place::Unknown { after, .. } => *after = newest.max(*after),
                Place::Nowhere => {}
            }
        }
        // Nothing of a session follows its end.
        let mut oldest = match end {
            Place::At(zxid) => Some(zxid),
            Place::Unknown { before, .. } => before,
            Place::Nowhere => None,
        };
        for (number, last) in writes.iter().zip(before_it).rev() {
            match &mut resolved.places[*number] {
                Place::At(zxid) => {
                    check_recognised(history, *number, *zxid, (last, oldest), report);
                    oldest = Some(oldest.map_or(*zxid, |oldest: Zxid| oldest.min(*zxid)));
                }
                Place::Unknown { before, .. } => *before = oldest,
                Place::Nowhere => {}
            }
        }
    }
}

/// `last` and `next` are the nearest earlier and later writes of the same session.
fn check_recognised(
    history: &History,
    number: usize,
    zxid: Zxid,
    (last, next): (Zxid, Option<Zxid>),
    report: &mut Report,
) {
    let operation = &history.operations[number];
    if operation.outcome != Outcome::Unknown {
        return;
    }
    let subject = Subject::Operations(operation.frontier_at, OperationId(number));
    if zxid <= operation.frontier {
        let description = format!(
            "#{number}, without a reply, took effect at {zxid}, but {} had been told to a client \
             before it was asked for",
            operation.frontier
        );
        report.add(history, "writes are linearizable", description, subject);
    }
    if zxid <= last || next.is_some_and(|next| next <= zxid) {
        let next = next.map_or("the end".into(), |next| next.to_string());
        let description = format!(
            "#{number}, without a reply, took effect at {zxid}; the writes before and after it of its \
             session did so at {last} and {next}"
        );
        let rule = "a session's writes take effect in their order";
        report.add(history, rule, description, subject);
    }
}
