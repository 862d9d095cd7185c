//! A request between its submission and its answer. No I/O.

use bytes::Bytes;

use super::error::Error;
use crate::wire::{Decoder, ErrorCode, OpCode, Request};

/// A request as the session core holds it until it is answered.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub request_id: u64,
    pub xid: i32,
    pub op_code: OpCode,
    /// Whether the caller's paths are those of the real root although the client has a chroot.
    pub is_absolute: bool,
    /// The whole encoded frame; it shares the batch's memory.
    pub frame: Bytes,
    /// How many connections it was lost with.
    pub resends: u8,
    /// Whom to tell.
    pub completion: T,
}

/// Requests taken from the queue together: their frames one behind the other, and their entries.
pub(super) struct Batch<T> {
    pub bytes: Bytes,
    pub entries: Vec<Entry<T>>,
}

impl<T> Entry<T> {
    /// Whether doing it twice is the same as doing it once, in any session.
    pub(super) fn is_repeatable(&self) -> bool {
        use OpCode::*;
        matches!(
            self.op_code,
            Exists
                | GetData
                | GetAcl
                | GetChildren
                | GetChildren2
                | Sync
                | MultiRead
                | GetEphemerals
                | GetAllChildrenNumber
                | WhoAmI
                | CheckWatches
        )
    }

    /// The znode as the server names it; empty where there is none.
    pub(super) fn with_server_path<R>(&self, use_path: impl FnOnce(&str) -> R) -> R {
        // Behind the frame's length and the request's header.
        let record = self.frame.slice(12..);
        let request = Request::decode(self.op_code, &mut Decoder::new(&record));
        use_path(request.ok().and_then(|request| request.path()).unwrap_or_default())
    }

    /// The znode as the caller named it.
    pub(super) fn path(&self, chroot: &str) -> String {
        let chroot = if self.is_absolute { "" } else { chroot };
        self.with_server_path(|path| below_chroot(path, chroot).unwrap_or(path).to_string())
    }
}

/// A server's path as the client sees it; `None` if it is outside the chroot.
pub(super) fn below_chroot<'a>(path: &'a str, chroot: &str) -> Option<&'a str> {
    match path.strip_prefix(chroot)? {
        "" => Some("/"),
        rest if rest.starts_with('/') || chroot.is_empty() => Some(rest),
        _ => None,
    }
}

/// What a service's error becomes for the caller.
pub(super) fn service_error<T>(code: ErrorCode, entry: &Entry<T>, chroot: &str) -> Error {
    match code {
        ErrorCode::SessionExpired => Error::SessionExpired,
        code => Error::Service { code, operation: entry.op_code, path: entry.path(chroot) },
    }
}
