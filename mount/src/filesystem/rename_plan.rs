//! What a rename is on the wire: the operations of one multi. No I/O.

use std::collections::HashMap;

use bytes::Bytes;
use znodefs::wire::{FRAME_LENGTH_MAX_DEFAULT, Request, Response};
use znodefs::{Acl, CreateMode, SessionId, Stat, Zxid};

use crate::service::NewZnode;

/// Most znodes that one rename moves.
pub const ZNODES_MAX: usize = 1000;

/// Most bytes that the operations of one rename may have; the rest of the frame is for headers and
/// for a chroot that the client puts before every path.
pub const LENGTH_MAX: usize = FRAME_LENGTH_MAX_DEFAULT - 4096;

/// A znode that is to be moved.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path.
    pub path: String,
    /// Its data.
    pub data: Option<Bytes>,
    /// Its stat.
    pub stat: Stat,
    /// Its ACL.
    pub acl: Vec<Acl>,
}

/// Why a rename cannot be one multi; a copy can do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOne {
    /// Too many znodes or bytes.
    TooLarge,
    /// An ephemeral znode of another session: only that session could create it anew.
    OthersEphemeral,
}

/// One operation of a rename.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Creates a znode.
    #[allow(missing_docs)]
    Create { path: String, data: Option<Bytes>, acl: Vec<Acl>, ephemeral: bool },
    /// Sets data, whatever the version is.
    #[allow(missing_docs)]
    Set { path: String, data: Option<Bytes>, version: i32 },
    /// Deletes a znode of this version.
    #[allow(missing_docs)]
    Delete { path: String, version: i32 },
}

impl Operation {
    /// The request.
    pub fn request(&self) -> Request<'_> {
        match self {
            Operation::Create { path, data, acl, ephemeral } => {
                let mode = if *ephemeral { CreateMode::Ephemeral } else { CreateMode::Persistent };
                let (data, acl) = (data.clone(), acl.clone());
                NewZnode { path, data, acl, mode, ttl_ms: 0 }.request()
            }
            Operation::Set { path, data, version } => {
                Request::SetData { path, data: data.clone(), version: *version }
            }
            Operation::Delete { path, version } => Request::Delete { path, version: *version },
        }
    }

    fn path(&self) -> &str {
        match self {
            Operation::Create { path, .. }
            | Operation::Set { path, .. }
            | Operation::Delete { path, .. } => path,
        }
    }

    /// About how many bytes it has in a request, and not less.
    fn length(&self) -> usize {
        /// Headers and lengths.
        const OVERHEAD: usize = 64;
        let (data, acl): (&Option<Bytes>, &[Acl]) = match self {
            Operation::Create { data, acl, .. } => (data, acl),
            Operation::Set { data, .. } => (data, &[]),
            Operation::Delete { .. } => (&None, &[]),
        };
        let acl: usize = acl.iter().map(|acl| 12 + acl.scheme.len() + acl.id.len()).sum();
        OVERHEAD + self.path().len() + data.as_ref().map_or(0, Bytes::len) + acl
    }
}

/// Moves a subtree: `sources` has parents before their children. `replaced` is the stat of an empty
/// directory, or of a file that cannot be replaced by its data alone, at the new path.
pub fn move_subtree(
    sources: &[Source],
    to: &str,
    replaced: Option<&Stat>,
    session: SessionId,
) -> Result<Vec<Operation>, NotOne> {
    let Some(root) = sources.first() else { return Ok(Vec::new()) };
    if sources.len() > ZNODES_MAX {
        return Err(NotOne::TooLarge);
    }
    let mut operations = Vec::with_capacity(2 * sources.len() + 1);
    if let Some(replaced) = replaced {
        operations.push(Operation::Delete { path: to.to_string(), version: replaced.version });
    }
    for source in sources {
        operations.push(Operation::Create {
            path: format!("{to}{}", &source.path[root.path.len()..]),
            data: source.data.clone(),
            acl: source.acl.clone(),
            ephemeral: is_ephemeral(&source.stat, session)?,
        });
    }
    for source in sources.iter().rev() {
        let (path, version) = (source.path.clone(), source.stat.version);
        operations.push(Operation::Delete { path, version });
    }
    fits(operations)
}

/// Replaces a file by another: the target stays the same znode, with its own ACL, and gets the
/// source's data, unless one of them is ephemeral and the other is not.
pub fn replace_file(
    source: &Source,
    to: &str,
    target: &Stat,
    session: SessionId,
) -> Result<Vec<Operation>, NotOne> {
    if source.stat.ephemeral_owner != target.ephemeral_owner {
        return move_subtree(std::slice::from_ref(source), to, Some(target), session);
    }
    is_ephemeral(&source.stat, session)?;
    fits(vec![
        Operation::Set { path: to.to_string(), data: source.data.clone(), version: -1 },
        Operation::Delete { path: source.path.clone(), version: source.stat.version },
    ])
}

/// Exchanges the data of two files.
pub fn exchange_files(one: &Source, other: &Source) -> Result<Vec<Operation>, NotOne> {
    let set = |target: &Source, source: &Source| Operation::Set {
        path: target.path.clone(),
        data: source.data.clone(),
        version: target.stat.version,
    };
    fits(vec![set(one, other), set(other, one)])
}

fn is_ephemeral(stat: &Stat, session: SessionId) -> Result<bool, NotOne> {
    match stat.ephemeral_owner {
        SessionId(0) => Ok(false),
        owner if owner == session => Ok(true),
        _ => Err(NotOne::OthersEphemeral),
    }
}

fn fits(operations: Vec<Operation>) -> Result<Vec<Operation>, NotOne> {
    let length: usize = operations.iter().map(Operation::length).sum();
    if length > LENGTH_MAX { Err(NotOne::TooLarge) } else { Ok(operations) }
}

/// The new stat of every znode that was created or set by this transaction, by path. Apache's
/// servers tell only the path of what a multi has created: then it holds what is sure.
pub fn new_stats(
    operations: &[Operation],
    records: &[Response],
    zxid: Zxid,
) -> HashMap<String, Stat> {
    let pairs = operations.iter().zip(records);
    let stats = pairs.filter_map(|(operation, record)| {
        let stat = match (operation, record) {
            (_, Response::Created { stat, .. } | Response::Stat(stat)) => *stat,
            (Operation::Create { data, .. }, _) => Stat {
                czxid: zxid,
                mzxid: zxid,
                pzxid: zxid,
                data_length: data.as_ref().map_or(0, |data| data.len() as i32),
                ..Stat::default()
            },
            _ => return None,
        };
        Some((operation.path().to_string(), stat))
    });
    stats.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: SessionId = SessionId(7);

    fn source(path: &str, version: i32) -> Source {
        let stat = Stat { version, ..Stat::default() };
        let data = Some(Bytes::from(path.to_string()));
        Source { path: path.into(), data, stat, acl: Acl::open() }
    }

    fn words(operations: &[Operation]) -> Vec<String> {
        let word = |operation: &Operation| match operation {
            Operation::Create { path, ephemeral: true, .. } => format!("create -e {path}"),
            Operation::Create { path, .. } => format!("create {path}"),
            Operation::Set { path, version, .. } => format!("set {path} {version}"),
            Operation::Delete { path, version } => format!("delete {path} {version}"),
        };
        operations.iter().map(word).collect()
    }

    #[test]
    fn a_subtree_is_created_from_the_top_and_deleted_from_the_bottom() {
        let sources = [source("/a", 1), source("/a/b", 2), source("/a/b/c", 3)];
        let operations = move_subtree(&sources, "/x/y", None, OURS).unwrap();
        assert_eq!(
            words(&operations),
            [
                "create /x/y",
                "create /x/y/b",
                "create /x/y/b/c",
                "delete /a/b/c 3",
                "delete /a/b 2",
                "delete /a 1"
            ]
        );
    }

    #[test]
    fn a_replaced_directory_is_deleted_first() {
        let replaced = Stat { version: 9, ..Stat::default() };
        let operations = move_subtree(&[source("/a", 1)], "/b", Some(&replaced), OURS).unwrap();
        assert_eq!(words(&operations), ["delete /b 9", "create /b", "delete /a 1"]);
    }

    #[test]
    fn a_replaced_file_stays_the_same_znode() {
        let operations = replace_file(&source("/a", 1), "/b", &Stat::default(), OURS).unwrap();
        assert_eq!(words(&operations), ["set /b -1", "delete /a 1"]);
    }

    #[test]
    fn own_ephemerals_stay_ephemeral_and_others_are_not_moved() {
        let mut moved = source("/a", 1);
        moved.stat.ephemeral_owner = OURS;
        let operations = move_subtree(std::slice::from_ref(&moved), "/b", None, OURS).unwrap();
        assert_eq!(words(&operations), ["create -e /b", "delete /a 1"]);
        let over = replace_file(&moved, "/b", &Stat::default(), OURS).unwrap();
        assert_eq!(words(&over), ["delete /b 0", "create -e /b", "delete /a 1"]);
        moved.stat.ephemeral_owner = SessionId(8);
        assert_eq!(move_subtree(&[moved], "/b", None, OURS), Err(NotOne::OthersEphemeral));
    }

    #[test]
    fn what_does_not_fit_into_one_multi_is_refused() {
        let mut large = source("/a", 1);
        large.data = Some(Bytes::from(vec![0; LENGTH_MAX]));
        assert_eq!(move_subtree(&[large], "/b", None, OURS), Err(NotOne::TooLarge));
        let many = vec![source("/a", 1); ZNODES_MAX + 1];
        assert_eq!(move_subtree(&many, "/b", None, OURS), Err(NotOne::TooLarge));
    }

    #[test]
    fn new_stats_are_those_of_what_was_created_or_set() {
        let operations = replace_file(&source("/a", 1), "/b", &Stat::default(), OURS).unwrap();
        let stat = Stat { version: 3, ..Stat::default() };
        let stats = new_stats(&operations, &[Response::Stat(stat), Response::Empty], Zxid(5));
        assert_eq!(stats, HashMap::from([("/b".to_string(), stat)]));
        let operations = move_subtree(&[source("/a", 1)], "/b", None, OURS).unwrap();
        let records = [Response::Path("/b".into()), Response::Empty];
        let stats = new_stats(&operations, &records, Zxid(5));
        assert_eq!((stats["/b"].czxid, stats["/b"].version), (Zxid(5), 0));
    }
}
