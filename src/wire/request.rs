//! Requests: header and record of every operation. No I/O.

use bytes::{BufMut, Bytes, BytesMut};

use super::jute::{Decoder, Encode, WireError, put_boolean, put_buffer, put_ustring, put_ustrings};
use super::op_code::{CreateMode, OpCode};
use crate::acl::{Acl, put_acl_list};
use crate::zxid::Zxid;

/// What stands before every request but the first of a connection (`RequestHeader`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number for the request; the reply carries it.
    pub xid: i32,
    /// The opcode as it came; it may be one that [`OpCode`] does not know.
    pub op_code: i32,
}

impl RequestHeader {
    /// Reads the record.
    pub fn decode(decoder: &mut Decoder<'_>) -> Result<RequestHeader, WireError> {
        Ok(RequestHeader { xid: decoder.read_int()?, op_code: decoder.read_int()? })
    }
}

impl Encode for RequestHeader {
    fn encode(&self, out: &mut BytesMut) {
        out.put_i32(self.xid);
        out.put_i32(self.op_code);
    }
}

/// The watches a client sets again after a reconnection (`SetWatches`, `SetWatches2`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSets<'a> {
    /// The newest zxid the client has seen: later changes are reported at once.
    pub relative_zxid: Zxid,
    /// Paths with a data watch.
    pub data: Vec<&'a str>,
    /// Paths with an exists watch.
    pub exists: Vec<&'a str>,
    /// Paths with a child watch.
    pub children: Vec<&'a str>,
    /// Paths with a persistent watch (`SetWatches2` only).
    pub persistent: Vec<&'a str>,
    /// Paths with a persistent recursive watch (`SetWatches2` only).
    pub persistent_recursive: Vec<&'a str>,
}

/// A request's record. Paths borrow from the frame; data shares its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are the records' own: path, data, acl, version (-1 is any), watch.
pub enum Request<'a> {
    /// Also `Create2`, `CreateContainer` and `CreateTtl`, told apart by `op_code`.
    Create(CreateRequest<'a>),
    Delete {
        path: &'a str,
        version: i32,
    },
    Exists {
        path: &'a str,
        watch: bool,
    },
    GetData {
        path: &'a str,
        watch: bool,
    },
    SetData {
        path: &'a str,
        data: Option<Bytes>,
        version: i32,
    },
    GetAcl {
        path: &'a str,
    },
    SetAcl {
        path: &'a str,
        acl: Vec<Acl>,
        version: i32,
    },
    GetChildren {
        path: &'a str,
        watch: bool,
    },
    GetChildren2 {
        path: &'a str,
        watch: bool,
    },
    Sync {
        path: &'a str,
    },
    Ping,
    Check {
        path: &'a str,
        version: i32,
    },
    Multi(Vec<MultiOp<'a>>),
    MultiRead(Vec<MultiOp<'a>>),
    Reconfig {
        /// `server.N=…`, separated by commas.
        joining: Option<&'a str>,
        /// Numbers of members, separated by commas.
        leaving: Option<&'a str>,
        /// All members, one `server.N=…` a line or separated by commas; then the other two do not
        /// count.
        new_members: Option<&'a str>,
        /// The version that the configuration must have; -1 is any.
        current_config_id: i64,
    },
    CheckWatches {
        path: &'a str,
        watcher_type: i32,
    },
    RemoveWatches {
        path: &'a str,
        watcher_type: i32,
    },
    AddWatch {
        path: &'a str,
        mode: i32,
    },
    Auth {
        scheme: &'a str,
        credential: Bytes,
    },
    SetWatches(WatchSets<'a>),
    SetWatches2(WatchSets<'a>),
    Sasl {
        token: Bytes,
    },
    GetEphemerals {
        prefix_path: &'a str,
    },
    GetAllChildrenNumber {
        path: &'a str,
    },
    WhoAmI,
    CloseSession,
}

/// The record of all four creating operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest<'a> {
    /// Which of `Create`, `Create2`, `CreateContainer`, `CreateTtl`.
    pub op_code: OpCode,
    /// The path asked for; sequential creation appends to it.
    pub path: &'a str,
    /// The data; `None` is null.
    pub data: Option<Bytes>,
    /// The access control list.
    pub acl: Vec<Acl>,
    /// The mode as it came; [`CreateMode::from_flags`] reads it.
    pub flags: i32,
    /// Time to live in milliseconds; only `CreateTtl` carries it.
    pub ttl_ms: i64,
}

/// One operation inside a multi or multiRead: its type and record.
pub type MultiOp<'a> = Request<'a>;

impl<'a> Request<'a> {
    /// The opcode of this request.
    pub fn op_code(&self) -> OpCode {
        match self {
            Request::Create(create) => create.op_code,
            Request::Delete { .. } => OpCode::Delete,
            Request::Exists { .. } => OpCode::Exists,
            Request::GetData { .. } => OpCode::GetData,
            Request::SetData { .. } => OpCode::SetData,
            Request::GetAcl { .. } => OpCode::GetAcl,
            Request::SetAcl { .. } => OpCode::SetAcl,
            Request::GetChildren { .. } => OpCode::GetChildren,
            Request::GetChildren2 { .. } => OpCode::GetChildren2,
            Request::Sync { .. } => OpCode::Sync,
            Request::Ping => OpCode::Ping,
            Request::Check { .. } => OpCode::Check,
            Request::Multi(_) => OpCode::Multi,
            Request::MultiRead(_) => OpCode::MultiRead,
            Request::Reconfig { .. } => OpCode::Reconfig,
            Request::CheckWatches { .. } => OpCode::CheckWatches,
            Request::RemoveWatches { .. } => OpCode::RemoveWatches,
            Request::AddWatch { .. } => OpCode::AddWatch,
            Request::Auth { .. } => OpCode::Auth,
            Request::SetWatches(_) => OpCode::SetWatches,
            Request::SetWatches2(_) => OpCode::SetWatches2,
            Request::Sasl { .. } => OpCode::Sasl,
            Request::GetEphemerals { .. } => OpCode::GetEphemerals,
            Request::GetAllChildrenNumber { .. } => OpCode::GetAllChildrenNumber,
            Request::WhoAmI => OpCode::WhoAmI,
            Request::CloseSession => OpCode::CloseSession,
        }
    }

    /// The znode it concerns; `None` where there is none, or several (multi).
    pub fn path(&self) -> Option<&'a str> {
        match self {
            Request::Create(create) => Some(create.path),
            Request::Delete { path, .. }
            | Request::Exists { path, .. }
            | Request::GetData { path, .. }
            | Request::SetData { path, .. }
            | Request::GetAcl { path }
            | Request::SetAcl { path, .. }
            | Request::GetChildren { path, .. }
            | Request::GetChildren2 { path, .. }
            | Request::Sync { path }
            | Request::Check { path, .. }
            | Request::CheckWatches { path, .. }
            | Request::RemoveWatches { path, .. }
            | Request::AddWatch { path, .. }
            | Request::GetEphemerals { prefix_path: path }
            | Request::GetAllChildrenNumber { path } => Some(path),
            Request::Ping
            | Request::Multi(_)
            | Request::MultiRead(_)
            | Request::Reconfig { .. }
            | Request::Auth { .. }
            | Request::SetWatches(_)
            | Request::SetWatches2(_)
            | Request::Sasl { .. }
            | Request::WhoAmI
            | Request::CloseSession => None,
        }
    }

    /// Reads the record that belongs to an opcode.
    pub fn decode(op_code: OpCode, decoder: &mut Decoder<'a>) -> Result<Request<'a>, WireError> {
        match op_code {
            OpCode::Multi => return decode_multi(decoder, is_multi_write).map(Request::Multi),
            OpCode::MultiRead => {
                return decode_multi(decoder, is_multi_read).map(Request::MultiRead);
            }
            OpCode::Ping => return Ok(Request::Ping),
            OpCode::WhoAmI => return Ok(Request::WhoAmI),
            OpCode::CloseSession => return Ok(Request::CloseSession),
            OpCode::Auth => {
                let _type = decoder.read_int()?;
                let scheme = decoder.read_ustring()?;
                let credential = decoder.read_buffer()?.unwrap_or_default();
                return Ok(Request::Auth { scheme, credential });
            }
            OpCode::Sasl => {
                let token = decoder.read_buffer()?.unwrap_or_default();
                return Ok(Request::Sasl { token });
            }
            OpCode::SetWatches => {
                return decode_watch_sets(decoder, false).map(Request::SetWatches);
            }
            OpCode::SetWatches2 => {
                return decode_watch_sets(decoder, true).map(Request::SetWatches2);
            }
            OpCode::Reconfig => {
                return Ok(Request::Reconfig {
                    joining: decoder.read_nullable_ustring()?,
                    leaving: decoder.read_nullable_ustring()?,
                    new_members: decoder.read_nullable_ustring()?,
                    current_config_id: decoder.read_long()?,
                });
            }
            _ => {}
        }
        let path = decoder.read_ustring()?;
        Request::decode_behind_path(op_code, path, decoder)
    }

    /// Reads what stands behind the path in the records that start with one.
    fn decode_behind_path(
        op_code: OpCode,
        path: &'a str,
        decoder: &mut Decoder<'a>,
    ) -> Result<Request<'a>, WireError> {
        Ok(match op_code {
            OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                let data = decoder.read_buffer()?;
                let acl = Acl::decode_list(decoder)?;
                let flags = decoder.read_int()?;
                let ttl_ms = if op_code == OpCode::CreateTtl { decoder.read_long()? } else { 0 };
                Request::Create(CreateRequest { op_code, path, data, acl, flags, ttl_ms })
            }
            OpCode::Delete => Request::Delete { path, version: decoder.read_int()? },
            OpCode::Check => Request::Check { path, version: decoder.read_int()? },
            OpCode::SetData => {
                let data = decoder.read_buffer()?;
                Request::SetData { path, data, version: decoder.read_int()? }
            }
            OpCode::SetAcl => {
                let acl = Acl::decode_list(decoder)?;
                Request::SetAcl { path, acl, version: decoder.read_int()? }
            }
            OpCode::Exists => Request::Exists { path, watch: decoder.read_boolean()? },
            OpCode::GetData => Request::GetData { path, watch: decoder.read_boolean()? },
            OpCode::GetChildren => Request::GetChildren { path, watch: decoder.read_boolean()? },
            OpCode::GetChildren2 => Request::GetChildren2 { path, watch: decoder.read_boolean()? },
            OpCode::GetAcl => Request::GetAcl { path },
            OpCode::Sync => Request::Sync { path },
            OpCode::GetEphemerals => Request::GetEphemerals { prefix_path: path },
            OpCode::GetAllChildrenNumber => Request::GetAllChildrenNumber { path },
            OpCode::CheckWatches => {
                Request::CheckWatches { path, watcher_type: decoder.read_int()? }
            }
            OpCode::RemoveWatches => {
                Request::RemoveWatches { path, watcher_type: decoder.read_int()? }
            }
            OpCode::AddWatch => Request::AddWatch { path, mode: decoder.read_int()? },
            other => return Err(WireError::UnknownOpCode(other as i32)),
        })
    }
}

fn is_multi_write(op_code: OpCode) -> bool {
    use OpCode::*;
    matches!(op_code, Create | Create2 | CreateContainer | CreateTtl | Delete | SetData | Check)
}

fn is_multi_read(op_code: OpCode) -> bool {
    matches!(op_code, OpCode::GetData | OpCode::GetChildren)
}

/// What stands before every operation of a multi and behind the last (`MultiHeader`, 9 bytes).
pub(super) fn put_multi_header(out: &mut BytesMut, op_code: i32, done: bool, error: i32) {
    out.put_i32(op_code);
    put_boolean(out, done);
    out.put_i32(error);
}

fn decode_multi<'a>(
    decoder: &mut Decoder<'a>,
    allowed: fn(OpCode) -> bool,
) -> Result<Vec<MultiOp<'a>>, WireError> {
    let mut operations = Vec::new();
    loop {
        let code = decoder.read_int()?;
        let done = decoder.read_boolean()?;
        let _error = decoder.read_int()?;
        if done {
            return Ok(operations);
        }
        let op_code = OpCode::from_code(code).filter(|op_code| allowed(*op_code));
        let op_code = op_code.ok_or(WireError::UnknownOpCode(code))?;
        operations.push(Request::decode(op_code, decoder)?);
    }
}

fn decode_watch_sets<'a>(
    decoder: &mut Decoder<'a>,
    with_persistent: bool,
) -> Result<WatchSets<'a>, WireError> {
    let mut sets = WatchSets {
        relative_zxid: Zxid(decoder.read_long()?),
        data: decoder.read_ustrings()?,
        exists: decoder.read_ustrings()?,
        children: decoder.read_ustrings()?,
        ..WatchSets::default()
    };
    if with_persistent {
        sets.persistent = decoder.read_ustrings()?;
        sets.persistent_recursive = decoder.read_ustrings()?;
    }
    Ok(sets)
}

fn put_watch_sets(out: &mut BytesMut, sets: &WatchSets<'_>, with_persistent: bool) {
    out.put_i64(sets.relative_zxid.0);
    put_ustrings(out, &sets.data);
    put_ustrings(out, &sets.exists);
    put_ustrings(out, &sets.children);
    if with_persistent {
        put_ustrings(out, &sets.persistent);
        put_ustrings(out, &sets.persistent_recursive);
    }
}

/// Appends a path that is relative to the znode `prefix`; an empty prefix stands for the root.
fn put_path_below(out: &mut BytesMut, prefix: &str, path: &str) {
    let is_prefix_itself = path == "/" && !prefix.is_empty();
    put_prefixed(out, prefix, if is_prefix_itself { "" } else { path });
}

fn put_prefixed(out: &mut BytesMut, prefix: &str, path: &str) {
    out.reserve(4 + prefix.len() + path.len());
    out.put_i32((prefix.len() + path.len()) as i32);
    out.put_slice(prefix.as_bytes());
    out.put_slice(path.as_bytes());
}

impl CreateRequest<'_> {
    fn encode_below(&self, prefix: &str, out: &mut BytesMut) {
        // A sequential creation at "/" is one of a nameless child, not of the root.
        match CreateMode::from_flags(self.flags).is_some_and(CreateMode::is_sequential) {
            true => put_prefixed(out, prefix, self.path),
            false => put_path_below(out, prefix, self.path),
        }
        put_buffer(out, self.data.as_deref());
        put_acl_list(out, &self.acl);
        out.put_i32(self.flags);
        if self.op_code == OpCode::CreateTtl {
            out.put_i64(self.ttl_ms);
        }
    }
}

impl Encode for Request<'_> {
    fn encode(&self, out: &mut BytesMut) {
        self.encode_below("", out);
    }
}

impl Request<'_> {
    /// Appends the encoded record with every path moved below the znode `prefix` (a client's
    /// chroot); an empty prefix leaves them as they are. Watch sets name their paths in full.
    pub fn encode_below(&self, prefix: &str, out: &mut BytesMut) {
        match self {
            Request::Create(create) => create.encode_below(prefix, out),
            Request::Delete { path, version } | Request::Check { path, version } => {
                put_path_below(out, prefix, path);
                out.put_i32(*version);
            }
            Request::Exists { path, watch }
            | Request::GetData { path, watch }
            | Request::GetChildren { path, watch }
            | Request::GetChildren2 { path, watch } => {
                put_path_below(out, prefix, path);
                put_boolean(out, *watch);
            }
            Request::SetData { path, data, version } => {
                put_path_below(out, prefix, path);
                put_buffer(out, data.as_deref());
                out.put_i32(*version);
            }
            Request::SetAcl { path, acl, version } => {
                put_path_below(out, prefix, path);
                put_acl_list(out, acl);
                out.put_i32(*version);
            }
            Request::GetAcl { path }
            | Request::Sync { path }
            | Request::GetEphemerals { prefix_path: path }
            | Request::GetAllChildrenNumber { path } => put_path_below(out, prefix, path),
            Request::Multi(operations) | Request::MultiRead(operations) => {
                for operation in operations {
                    put_multi_header(out, operation.op_code() as i32, false, -1);
                    operation.encode_below(prefix, out);
                }
                put_multi_header(out, -1, true, -1);
            }
            Request::Reconfig { joining, leaving, new_members, current_config_id } => {
                for text in [joining, leaving, new_members] {
                    put_buffer(out, text.map(str::as_bytes));
                }
                out.put_i64(*current_config_id);
            }
            Request::CheckWatches { path, watcher_type: number }
            | Request::RemoveWatches { path, watcher_type: number }
            | Request::AddWatch { path, mode: number } => {
                put_path_below(out, prefix, path);
                out.put_i32(*number);
            }
            Request::Auth { scheme, credential } => {
                out.put_i32(0);
                put_ustring(out, scheme);
                put_buffer(out, Some(credential));
            }
            Request::SetWatches(sets) => put_watch_sets(out, sets, false),
            Request::SetWatches2(sets) => put_watch_sets(out, sets, true),
            Request::Sasl { token } => put_buffer(out, Some(token)),
            Request::Ping | Request::WhoAmI | Request::CloseSession => {}
        }
    }
}

/// Appends one whole request frame.
pub fn put_request(out: &mut BytesMut, xid: i32, request: &Request<'_>) {
    put_request_below(out, xid, "", request);
}

/// Appends one whole request frame with every path moved below the znode `prefix`, as
/// [`Request::encode_below`] does.
pub fn put_request_below(out: &mut BytesMut, xid: i32, prefix: &str, request: &Request<'_>) {
    super::put_frame(out, |out| {
        RequestHeader { xid, op_code: request.op_code() as i32 }.encode(out);
        request.encode_below(prefix, out);
    });
}

impl<'a> CreateRequest<'a> {
    /// The request with the opcode that a mode asks for: `CreateTtl` and `CreateContainer` for
    /// those, `Create2` (which answers with the stat) for every other.
    pub fn new(
        path: &'a str,
        data: Option<Bytes>,
        acl: Vec<Acl>,
        mode: CreateMode,
        ttl_ms: i64,
    ) -> Self {
        let op_code = match mode {
            CreateMode::Container => OpCode::CreateContainer,
            mode if mode.has_ttl() => OpCode::CreateTtl,
            _ => OpCode::Create2,
        };
        CreateRequest { op_code, path, data, acl, flags: mode.flags(), ttl_ms }
    }
}
