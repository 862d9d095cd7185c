//! What comes of applying a transaction: events for watches, and what the reply needs. No I/O.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use znodefs::wire::jute::{put_boolean, put_ustring};
use znodefs::wire::{Encode, EventType};
use znodefs::{Acl, ErrorCode, OpCode, Stat, Zxid};

use crate::txn::{Change, Txn, TxnBody};

/// Something that watches may be waiting for, in the order in which ZooKeeper raises it.
#[derive(Clone, Copy, Debug)]
pub struct TreeEvent<'a> {
    /// What happened.
    pub event_type: EventType,
    /// The znode.
    pub path: &'a str,
    /// The znode's list as of the change (its last one, when it was deleted): an event is withheld
    /// from connections that it does not allow to read.
    pub acl: &'a Arc<[Acl]>,
    /// The transaction.
    pub zxid: Zxid,
}

/// What applying a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The request had failed, or its change found no place in this tree (while a log is replayed
    /// over a fuzzy snapshot).
    Error(ErrorCode),
    /// Done; the reply has no record.
    Done,
    /// Done; the stat of the znode right after the operation.
    Stat(Stat),
    /// A multi that was done, by operation.
    Multi(Vec<MultiApplied>),
    /// A multi that had failed; the codes are in the transaction.
    MultiError,
}

/// What one operation of a multi came to: the stat right after it, where it has one.
pub type MultiApplied = Option<Stat>;

/// Appends the record of the reply to a write; nothing when it has none. The error, when there is
/// one, goes into the reply's header and no record follows.
///
/// A failed multi is no error of the header: its record says what failed.
pub fn put_reply(txn: &Txn, applied: &Applied, out: &mut BytesMut) -> Result<(), ErrorCode> {
    match (&txn.body, applied) {
        (_, Applied::Error(error)) => return Err(*error),
        (TxnBody::Change(change), Applied::Stat(stat)) => put_change(change, stat, out),
        (TxnBody::Reconfig { data, .. }, Applied::Stat(stat)) => {
            znodefs::wire::jute::put_buffer(out, Some(data));
            stat.encode(out);
        }
        (TxnBody::Multi(changes), Applied::Multi(stats)) => {
            for (change, stat) in changes.iter().zip(stats) {
                put_multi_header(out, multi_op_code(change) as i32, false, 0);
                if let Some(stat) = stat {
                    put_change(change, stat, out);
                }
            }
            put_multi_header(out, -1, true, -1);
        }
        (TxnBody::MultiError(codes), Applied::MultiError) => {
            for &code in codes {
                put_multi_header(out, -1, false, code);
                out.put_i32(code);
            }
            put_multi_header(out, -1, true, -1);
        }
        _ => {}
    }
    Ok(())
}

fn put_multi_header(out: &mut BytesMut, op_code: i32, done: bool, error: i32) {
    out.put_i32(op_code);
    put_boolean(out, done);
    out.put_i32(error);
}

fn put_change(change: &Change, stat: &Stat, out: &mut BytesMut) {
    match change {
        Change::Create { path, with_stat, .. } => {
            put_ustring(out, path);
            if *with_stat {
                stat.encode(out);
            }
        }
        Change::SetData { .. } | Change::SetAcl { .. } => stat.encode(out),
        Change::Delete { .. } | Change::Check => {}
    }
}

/// The opcode under which a multi's reply shows a change: every creation that answers with a stat
/// is a `create2` there.
fn multi_op_code(change: &Change) -> OpCode {
    match change {
        Change::Create { with_stat: true, .. } => OpCode::Create2,
        Change::Create { .. } => OpCode::Create,
        Change::Delete { .. } => OpCode::Delete,
        Change::SetData { .. } => OpCode::SetData,
        Change::SetAcl { .. } => OpCode::SetAcl,
        Change::Check => OpCode::Check,
    }
}
