//! What clients ask for and what they are told, reduced to what the checks need. No I/O.

use std::fmt;

use bytes::Bytes;
use znodefs::wire::{MultiResult, Request, Response};
use znodefs::{CreateMode, ErrorCode, Stat, Zxid};

/// A value as it was written or read; `None` is null.
pub type Value = Option<Bytes>;

/// One change asked for; also one operation of a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new znode.
    Create {
        /// Its path, or what the counter is appended to.
        path: String,
        /// Its data.
        data: Value,
        /// Whether it goes with its session.
        ephemeral: bool,
        /// Whether the service appends a counter.
        sequential: bool,
    },
    /// Other data.
    SetData {
        /// The znode.
        path: String,
        /// The data.
        data: Value,
        /// The version it must have; -1 is any.
        version: i32,
    },
    /// No znode any more.
    Delete {
        /// The znode.
        path: String,
        /// The version it must have; -1 is any.
        version: i32,
    },
    /// Nothing, but only if the znode has this version.
    Check {
        /// The znode.
        path: String,
        /// The version it must have; -1 is any.
        version: i32,
    },
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// One change, or several at once.
    Write {
        /// The changes.
        writes: Vec<Write>,
        /// Whether they were asked for as a multi.
        multi: bool,
    },
    /// A znode's data.
    GetData {
        /// The znode.
        path: String,
        /// Whether a watch is left.
        watch: bool,
    },
    /// Whether a znode is there.
    Exists {
        /// The znode.
        path: String,
        /// Whether a watch is left.
        watch: bool,
    },
    /// The children of a znode.
    GetChildren {
        /// The znode.
        path: String,
        /// Whether a watch is left.
        watch: bool,
    },
    /// A persistent watch.
    AddWatch {
        /// The znode.
        path: String,
        /// Whether it counts for everything below as well.
        recursive: bool,
    },
    /// To catch up.
    Sync,
    /// The end of the session.
    Close,
    /// Something that takes a place in the order, of which nothing else is checked.
    Other {
        /// What it is called.
        name: &'static str,
        /// The znodes that it may have changed in a way that is not modelled; nothing is checked of
        /// them.
        unmodelled: Vec<String>,
        /// Whether it uses a transaction.
        is_write: bool,
    },
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done {
        /// The reply's zxid: the write itself, or what a read shows.
        zxid: Zxid,
        /// What was told.
        reply: Reply,
    },
    /// It was refused.
    Failed {
        /// The reply's zxid.
        zxid: Zxid,
        /// Why.
        error: ErrorCode,
        /// Which operation of a multi.
        index: usize,
    },
    /// No reply came.
    Unknown,
    /// It never left the client.
    NotSent,
}

/// What a successful reply tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Of each write: the path of a created znode, and the stat where the reply has one.
    Written(Vec<Written>),
    /// Data and stat.
    Data(Value, Stat),
    /// The stat.
    Stat(Stat),
    /// Names of children, and the stat where the reply has one.
    Children(Vec<String>, Option<Stat>),
    /// Nothing more than that it was done.
    Done,
}

/// What a reply tells of one write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The path of a created znode.
    pub path: Option<String>,
    /// The stat behind the write.
    pub stat: Option<Stat>,
}

impl Write {
    /// The znode; of a sequential one what comes before the counter.
    pub fn path(&self) -> &str {
        match self {
            Write::Create { path, .. }
            | Write::SetData { path, .. }
            | Write::Delete { path, .. }
            | Write::Check { path, .. } => path,
        }
    }

    /// Whether this write could have been at `path`.
    pub fn may_concern(&self, path: &str) -> bool {
        match self {
            Write::Create { path: prefix, sequential: true, .. } => {
                let counter = path.strip_prefix(prefix.as_str());
                counter.is_some_and(|digits| {
                    digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit())
                })
            }
            other => other.path() == path,
        }
    }

    /// The data it writes.
    pub fn data(&self) -> Option<&Value> {
        match self {
            Write::Create { data, .. } | Write::SetData { data, .. } => Some(data),
            Write::Delete { .. } | Write::Check { .. } => None,
        }
    }

    /// `None` for what is not modelled.
    fn of(request: &Request<'_>) -> Option<Write> {
        Some(match request {
            Request::Create(create) => {
                let mode = CreateMode::from_flags(create.flags)?;
                let is_plain = matches!(
                    mode,
                    CreateMode::Persistent
                        | CreateMode::Ephemeral
                        | CreateMode::PersistentSequential
                        | CreateMode::EphemeralSequential
                );
                if !is_plain {
                    return None;
                }
                Write::Create {
                    path: create.path.to_string(),
                    data: create.data.clone(),
                    ephemeral: mode.is_ephemeral(),
                    sequential: matches!(
                        mode,
                        CreateMode::PersistentSequential | CreateMode::EphemeralSequential
                    ),
                }
            }
            Request::SetData { path, data, version } => {
                Write::SetData { path: path.to_string(), data: data.clone(), version: *version }
            }
            Request::Delete { path, version } => {
                Write::Delete { path: path.to_string(), version: *version }
            }
            Request::Check { path, version } => {
                Write::Check { path: path.to_string(), version: *version }
            }
            _ => return None,
        })
    }
}

impl Call {
    /// What a request asks for.
    pub fn of(request: &Request<'_>) -> Call {
        if let Some(write) = Write::of(request) {
            return Call::Write { writes: vec![write], multi: false };
        }
        let other = |is_write| {
            let operations = match request {
                Request::Multi(operations) => operations.as_slice(),
                one => std::slice::from_ref(one),
            };
            let paths = operations.iter().filter(|_| is_write).filter_map(Request::path);
            let unmodelled = paths.map(str::to_string).collect();
            Call::Other { name: request.op_code().name(), unmodelled, is_write }
        };
        match request {
            Request::Multi(operations) => {
                let writes: Option<Vec<Write>> = operations.iter().map(Write::of).collect();
                writes.map_or_else(|| other(true), |writes| Call::Write { writes, multi: true })
            }
            Request::GetData { path, watch } => {
                Call::GetData { path: path.to_string(), watch: *watch }
            }
            Request::Exists { path, watch } => {
                Call::Exists { path: path.to_string(), watch: *watch }
            }
            Request::GetChildren { path, watch } | Request::GetChildren2 { path, watch } => {
                Call::GetChildren { path: path.to_string(), watch: *watch }
            }
            Request::AddWatch { path, mode } => {
                Call::AddWatch { path: path.to_string(), recursive: *mode == 1 }
            }
            Request::Sync { .. } => Call::Sync,
            Request::CloseSession => Call::Close,
            Request::Create(_) | Request::Reconfig { .. } => other(true),
            // Of the stat nothing but the ACL's version changes.
            Request::SetAcl { .. } => {
                Call::Other { name: "setACL", unmodelled: Vec::new(), is_write: true }
            }
            _ => other(false),
        }
    }

    /// Whether it uses a transaction.
    pub fn is_write(&self) -> bool {
        match self {
            Call::Write { .. } | Call::Close => true,
            Call::Other { is_write, .. } => *is_write,
            _ => false,
        }
    }

    /// The changes asked for.
    pub fn writes(&self) -> &[Write] {
        match self {
            Call::Write { writes, .. } => writes,
            _ => &[],
        }
    }

    /// The znodes it is about.
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Call::Write { writes, .. } => writes.iter().map(Write::path).collect(),
            Call::GetData { path, .. }
            | Call::Exists { path, .. }
            | Call::GetChildren { path, .. }
            | Call::AddWatch { path, .. } => vec![path],
            _ => Vec::new(),
        }
    }
}

impl Outcome {
    /// What an answer says: the reply's zxid, and its record or error.
    pub fn of(zxid: Zxid, answer: Result<&Response, ErrorCode>) -> Outcome {
        let response = match answer {
            Ok(response) => response,
            // The request may have been passed on already.
            Err(ErrorCode::ConnectionLoss) => return Outcome::Unknown,
            Err(error) => return Outcome::Failed { zxid, error, index: 0 },
        };
        let written = |written| Reply::Written(vec![written]);
        let reply = match response {
            Response::Empty => written(Written::default()),
            Response::Path(path) => written(Written { path: Some(path.clone()), stat: None }),
            Response::Created { path, stat } => {
                written(Written { path: Some(path.clone()), stat: Some(*stat) })
            }
            Response::Stat(stat) => Reply::Stat(*stat),
            Response::Data { data, stat } => Reply::Data(data.clone(), *stat),
            Response::Names(names) => Reply::Children(names.clone(), None),
            Response::Children { names, stat } => Reply::Children(names.clone(), Some(*stat)),
            Response::Multi(results) => return Outcome::of_multi(zxid, results),
            _ => Reply::Done,
        };
        Outcome::Done { zxid, reply }
    }

    fn of_multi(zxid: Zxid, results: &[MultiResult]) -> Outcome {
        let mut written = Vec::new();
        for (index, result) in results.iter().enumerate() {
            match result {
                MultiResult::Error(code) => match ErrorCode::from_code(*code) {
                    Some(error) => return Outcome::Failed { zxid, error, index },
                    None => continue,
                },
                MultiResult::Ok(_, Response::Path(path)) => {
                    written.push(Written { path: Some(path.clone()), stat: None });
                }
                MultiResult::Ok(_, Response::Created { path, stat }) => {
                    written.push(Written { path: Some(path.clone()), stat: Some(*stat) });
                }
                MultiResult::Ok(_, Response::Stat(stat)) => {
                    written.push(Written { path: None, stat: Some(*stat) });
                }
                MultiResult::Ok(..) => written.push(Written::default()),
            }
        }
        Outcome::Done { zxid, reply: Reply::Written(written) }
    }

    /// The reply's zxid, where there is a reply that has one.
    pub fn zxid(&self) -> Option<Zxid> {
        match self {
            Outcome::Done { zxid, .. } | Outcome::Failed { zxid, .. } => {
                (zxid.0 > 0).then_some(*zxid)
            }
            Outcome::Unknown | Outcome::NotSent => None,
        }
    }

    /// What is told of each write.
    pub fn written(&self) -> Vec<Written> {
        match self {
            Outcome::Done { reply: Reply::Written(written), .. } => written.clone(),
            Outcome::Done { reply: Reply::Stat(stat), .. } => {
                vec![Written { path: None, stat: Some(*stat) }]
            }
            _ => Vec::new(),
        }
    }
}

/// How much of a value an excerpt shows.
const VALUE_SHOWN: usize = 24;

pub(super) fn show_value(value: &Value) -> String {
    match value {
        None => "null".into(),
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(VALUE_SHOWN)]).into_owned();
            let more = if bytes.len() > VALUE_SHOWN { "…" } else { "" };
            format!("{text:?}{more}")
        }
    }
}

fn show_stat(stat: &Stat) -> String {
    format!(
        "czxid {} mzxid {} pzxid {} version {} cversion {} owner {} children {}",
        stat.czxid,
        stat.mzxid,
        stat.pzxid,
        stat.version,
        stat.cversion,
        stat.ephemeral_owner,
        stat.num_children
    )
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Create { path, data, ephemeral, sequential } => {
                let kind = match (ephemeral, sequential) {
                    (false, false) => "",
                    (true, false) => " ephemeral",
                    (false, true) => " sequential",
                    (true, true) => " ephemeral sequential",
                };
                write!(f, "create {path}{kind} {}", show_value(data))
            }
            Write::SetData { path, data, version } => {
                write!(f, "setData {path} version {version} {}", show_value(data))
            }
            Write::Delete { path, version } => write!(f, "delete {path} version {version}"),
            Write::Check { path, version } => write!(f, "check {path} version {version}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watching = |watch: &bool| if *watch { " watching" } else { "" };
        match self {
            Call::Write { writes, multi } => {
                let shown: Vec<String> = writes.iter().map(Write::to_string).collect();
                let shown = shown.join(", ");
                if *multi { write!(f, "multi [{shown}]") } else { f.write_str(&shown) }
            }
            Call::GetData { path, watch } => write!(f, "getData {path}{}", watching(watch)),
            Call::Exists { path, watch } => write!(f, "exists {path}{}", watching(watch)),
            Call::GetChildren { path, watch } => write!(f, "getChildren {path}{}", watching(watch)),
            Call::AddWatch { path, recursive } => {
                write!(f, "addWatch {path}{}", if *recursive { " recursive" } else { "" })
            }
            Call::Sync => f.write_str("sync"),
            Call::Close => f.write_str("closeSession"),
            Call::Other { name, .. } => f.write_str(name),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done { zxid, reply } => {
                write!(f, "ok at {zxid}")?;
                match reply {
                    Reply::Written(written) => written.iter().try_for_each(|one| {
                        one.path.as_ref().map_or(Ok(()), |path| write!(f, " {path}"))?;
                        one.stat.as_ref().map_or(Ok(()), |stat| write!(f, " {}", show_stat(stat)))
                    }),
                    Reply::Data(data, stat) => {
                        write!(f, ": {} {}", show_value(data), show_stat(stat))
                    }
                    Reply::Stat(stat) => write!(f, ": {}", show_stat(stat)),
                    Reply::Children(names, _) if names.len() > 12 => {
                        write!(f, ": {} names", names.len())
                    }
                    Reply::Children(names, _) => write!(f, ": {}", names.join(" ")),
                    Reply::Done => Ok(()),
                }
            }
            Outcome::Failed { zxid, error, index } => {
                write!(f, "failed at {zxid}: {error} (operation {index})")
            }
            Outcome::Unknown => f.write_str("no reply, outcome unknown"),
            Outcome::NotSent => f.write_str("never sent"),
        }
    }
}
