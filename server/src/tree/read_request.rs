//! Answers to reads: from the tree straight into the reply's buffer. No I/O.

use bytes::{BufMut, BytesMut};
use znodefs::acl::put_acl_list;
use znodefs::wire::jute::{put_boolean, put_buffer, put_ustring};
use znodefs::wire::{Encode, OpCode, Request};
use znodefs::{ErrorCode, Permissions, SessionId};

use super::access;
use super::data_tree::{DataTree, NodeRef};
use super::watch_manager::WatchKind;
use crate::txn::Identity;

/// How long the reply to a multiRead may grow, bytes, before operations are refused: one request of a
/// megabyte could ask for the same megabyte ten thousand times.
const MULTI_READ_LENGTH_MAX: usize = 16 << 20;

/// What came of a read. The reply's record was appended exactly when there is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome<'r> {
    /// The error for the reply's header; no record follows it.
    pub error: Option<ErrorCode>,
    /// The watch to register for the connection, also beside an error: `exists` watches what is
    /// not there. It must be registered before anything else is applied to the tree.
    pub watch: Option<(&'r str, WatchKind)>,
}

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The session.
    pub session_id: SessionId,
    /// What its connection has proved, its address included.
    pub identities: &'a [Identity],
}

/// Answers a read: `exists`, `getData`, `getChildren`, `getChildren2`, `getACL`, `getEphemerals`,
/// `getAllChildrenNumber`, `multiRead`, `whoAmI`, and `sync` and `ping`, whose waiting is done
/// before they come here. Every other request is [`ErrorCode::Unimplemented`].
pub fn answer<'r>(
    tree: &DataTree,
    reader: Reader<'_>,
    request: &Request<'r>,
    out: &mut BytesMut,
) -> ReadOutcome<'r> {
    let start = out.len();
    let (result, watch) = match *request {
        Request::Exists { path, watch } => {
            let result = exists(tree, reader, path, out);
            let sets = watch && matches!(result, Ok(()) | Err(ErrorCode::NoNode));
            (result, sets.then_some((path, WatchKind::Data)))
        }
        Request::GetData { path, watch } => {
            let result = get_data(tree, reader, path, out);
            let sets = watch && result.is_ok();
            (result, sets.then_some((path, WatchKind::Data)))
        }
        Request::GetChildren { path, watch } => {
            let result = get_children(tree, reader, path, out).map(|_| ());
            let sets = watch && result.is_ok();
            (result, sets.then_some((path, WatchKind::Children)))
        }
        Request::GetChildren2 { path, watch } => {
            let result = get_children(tree, reader, path, out).map(|node| node.stat().encode(out));
            let sets = watch && result.is_ok();
            (result, sets.then_some((path, WatchKind::Children)))
        }
        ref other => (answer_unwatched(tree, reader, other, out), None),
    };
    if result.is_err() {
        out.truncate(start);
    }
    ReadOutcome { error: result.err(), watch }
}

fn answer_unwatched(
    tree: &DataTree,
    reader: Reader<'_>,
    request: &Request<'_>,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    match request {
        Request::GetAcl { path } => get_acl(tree, reader, path, out),
        Request::GetEphemerals { prefix_path } => {
            get_ephemerals(tree, reader.session_id, prefix_path, out);
            Ok(())
        }
        Request::GetAllChildrenNumber { path } => {
            readable(tree, reader, path)?;
            let number = tree.all_children_number(path).ok_or(ErrorCode::NoNode)?;
            out.put_i32(number as i32);
            Ok(())
        }
        Request::MultiRead(operations) => {
            multi_read(tree, reader, operations, out);
            Ok(())
        }
        Request::WhoAmI => {
            out.put_i32(reader.identities.len() as i32);
            for identity in reader.identities {
                put_ustring(out, &identity.scheme);
                put_ustring(out, access::user_name(identity));
            }
            Ok(())
        }
        Request::Sync { path } => {
            put_ustring(out, path);
            Ok(())
        }
        Request::Ping => Ok(()),
        _ => Err(ErrorCode::Unimplemented),
    }
}

/// The znode, when it is there and the reader may read it, checked in that order.
fn readable<'t>(
    tree: &'t DataTree,
    reader: Reader<'_>,
    path: &str,
) -> Result<NodeRef<'t>, ErrorCode> {
    let node = tree.node(path).ok_or(ErrorCode::NoNode)?;
    access::check(node.acl(), Permissions::READ, reader.identities)?;
    Ok(node)
}

fn exists(
    tree: &DataTree,
    reader: Reader<'_>,
    path: &str,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    if path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    readable(tree, reader, path)?.stat().encode(out);
    Ok(())
}

fn get_data(
    tree: &DataTree,
    reader: Reader<'_>,
    path: &str,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let node = readable(tree, reader, path)?;
    put_buffer(out, node.data());
    node.stat().encode(out);
    Ok(())
}

fn get_children<'t>(
    tree: &'t DataTree,
    reader: Reader<'_>,
    path: &str,
    out: &mut BytesMut,
) -> Result<NodeRef<'t>, ErrorCode> {
    let node = readable(tree, reader, path)?;
    out.put_i32(node.num_children());
    for name in node.children_bytes() {
        put_buffer(out, Some(name));
    }
    Ok(node)
}

fn get_acl(
    tree: &DataTree,
    reader: Reader<'_>,
    path: &str,
    out: &mut BytesMut,
) -> Result<(), ErrorCode> {
    let node = tree.node(path).ok_or(ErrorCode::NoNode)?;
    let wanted = Permissions::READ.union(Permissions::ADMIN);
    access::check(node.acl(), wanted, reader.identities)?;
    if access::is_allowed(node.acl(), Permissions::ADMIN, reader.identities) {
        put_acl_list(out, node.acl());
    } else {
        put_acl_list(out, &access::mask_digests(node.acl()));
    }
    node.stat().encode(out);
    Ok(())
}

fn get_ephemerals(tree: &DataTree, session_id: SessionId, prefix: &str, out: &mut BytesMut) {
    let all = matches!(prefix.trim(), "" | "/");
    let start = out.len();
    out.put_i32(0);
    let mut count = 0_i32;
    for path in tree.ephemerals(session_id) {
        if all || path.starts_with(prefix) {
            put_ustring(out, &path);
            count += 1;
        }
    }
    out[start..start + 4].copy_from_slice(&count.to_be_bytes());
}

fn multi_read(tree: &DataTree, reader: Reader<'_>, operations: &[Request<'_>], out: &mut BytesMut) {
    let put_header = |out: &mut BytesMut, op_code: i32, done: bool, error: i32| {
        out.put_i32(op_code);
        put_boolean(out, done);
        out.put_i32(error);
    };
    let first = out.len();
    for operation in operations {
        let start = out.len();
        put_header(out, operation.op_code() as i32, false, 0);
        let result = match (operation.op_code(), operation) {
            _ if start - first > MULTI_READ_LENGTH_MAX => Err(ErrorCode::ThrottledOp),
            (OpCode::GetData, Request::GetData { path, .. }) => get_data(tree, reader, path, out),
            (OpCode::GetChildren, Request::GetChildren { path, .. }) => {
                get_children(tree, reader, path, out).map(|_| ())
            }
            // Decoding lets only those two through.
            _ => Err(ErrorCode::Unimplemented),
        };
        if let Err(error) = result {
            out.truncate(start);
            put_header(out, -1, false, error.code());
            out.put_i32(error.code());
        }
    }
    put_header(out, -1, true, -1);
}
