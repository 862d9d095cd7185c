//! Transactions: what the request processor makes of a request, the log keeps and the tree applies.
//! No I/O.
//!
//! A transaction carries results, never conditions (ATC 2010 paper, section 4.1): absolute versions,
//! the path with its sequential suffix, the time. Applying one twice leaves the same state, which
//! is what makes fuzzy snapshots possible.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use znodefs::{Acl, SessionId, Zxid};

use crate::codec;

/// A transaction as it is logged and applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// Its place in the order.
    pub zxid: Zxid,
    /// The session that asked for it; 0 for the replica itself.
    pub session_id: SessionId,
    /// The client's number for the request.
    pub xid: i32,
    /// Where it came in.
    pub origin: TxnOrigin,
    /// Milliseconds since 1970 by the leader's clock when the transaction was made.
    pub time_ms: i64,
    /// What it does.
    pub body: TxnBody,
}

/// The connection whose client asked for a transaction: that connection's replica answers, whatever
/// session and number another connection has. Neither is known of what the replicas do by
/// themselves, nor counted by a replica alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnOrigin {
    /// The replica; 0 for none.
    pub server: u8,
    /// The connection's number there.
    pub connection: u64,
}

/// The version and the members that an encoded transaction gives the ensemble, when it is one that
/// does. Reads no more of any other than its head.
pub fn reconfiguration(payload: &[u8]) -> Option<(Zxid, String)> {
    /// What stands before the body of a [`Txn`], and which body it is.
    type Head = (Zxid, SessionId, i32, TxnOrigin, i64, u32);
    let (head, _) = codec::decode_front::<Head>(payload).ok()?;
    if head.5 != RECONFIG_VARIANT {
        return None;
    }
    let txn: Txn = codec::decode(payload).ok()?;
    match txn.body {
        TxnBody::Reconfig { members, .. } => Some((txn.zxid, members)),
        _ => None,
    }
}

/// The place of [`TxnBody::Reconfig`] among the bodies.
const RECONFIG_VARIANT: u32 = 6;

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnBody {
    /// A failed request: nothing changes but the zxid. Holds the error's code.
    Error(i32),
    /// A failed multi: one code an operation (0 before the failed one, -2 behind it).
    MultiError(Vec<i32>),
    /// A session begins.
    CreateSession {
        /// The negotiated timeout in milliseconds.
        timeout_ms: i32,
    },
    /// A session ends; its ephemeral znodes, all listed here, go with it.
    CloseSession {
        /// Paths of the session's ephemeral znodes.
        ephemerals: Vec<String>,
    },
    /// One change of the tree.
    Change(Change),
    /// Several changes as one.
    Multi(Vec<Change>),
    /// A new configuration of the ensemble, in the text form of `/zookeeper/config`.
    Reconfig {
        /// Lines `server.N=…`, without the `version=` line.
        members: String,
        /// The znode's data: members and version.
        data: Bytes,
    },
}

/// One change of the tree, with absolute results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A znode appears.
    Create {
        /// Its path, with the sequential suffix.
        path: String,
        /// Its data; `None` is null.
        data: Option<Bytes>,
        /// Its access control list, expanded.
        acl: Arc<[Acl]>,
        /// Who owns it, as `Stat` and ZooKeeper's snapshots encode it: a session, a container
        /// mark, a time to live, or 0.
        ephemeral_owner: i64,
        /// The parent's counter of children ever created, this one included.
        parent_child_counter: i32,
        /// Whether the request was one of the operations that answer with a stat.
        with_stat: bool,
    },
    /// A znode goes.
    Delete {
        /// Its path.
        path: String,
    },
    /// A znode's data is replaced.
    SetData {
        /// Its path.
        path: String,
        /// The new data; `None` is null.
        data: Option<Bytes>,
        /// The version that the znode has afterwards.
        version: i32,
    },
    /// A znode's access control list is replaced.
    SetAcl {
        /// Its path.
        path: String,
        /// The new list, expanded.
        acl: Arc<[Acl]>,
        /// The ACL version that the znode has afterwards.
        aversion: i32,
    },
    /// A version was checked, inside a multi; nothing changes.
    Check,
}

/// An authenticated identity of a connection, as ACL entries name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// `ip`, `digest`, `super`, `x509`, `sasl`.
    pub scheme: String,
    /// Who, in the scheme's own form.
    pub id: String,
}

/// A session as the replicated state holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The session.
    pub session_id: SessionId,
    /// Its timeout in milliseconds.
    pub timeout_ms: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconfiguration_is_told_from_every_other_transaction() {
        let change = Change::Delete { path: "/a".into() };
        let members = String::from("server.1=a:1:2:participant\n");
        let bodies = [
            TxnBody::Error(-101),
            TxnBody::MultiError(vec![0, -2]),
            TxnBody::CreateSession { timeout_ms: 4000 },
            TxnBody::CloseSession { ephemerals: vec!["/e".into()] },
            TxnBody::Change(change.clone()),
            TxnBody::Multi(vec![change]),
            TxnBody::Reconfig { members: members.clone(), data: Bytes::from_static(b"version=9") },
        ];
        let count = bodies.len();
        for (number, body) in bodies.into_iter().enumerate() {
            let (zxid, session_id) = (Zxid(0x3_0000_0007), SessionId(-5));
            let origin = TxnOrigin { server: 2, connection: 70_000 };
            let txn = Txn { zxid, session_id, xid: 300, origin, time_ms: 1_700_000_000_000, body };
            let mut bytes = Vec::new();
            codec::encode_into(&txn, &mut bytes).unwrap();
            let expected = (number + 1 == count).then(|| (zxid, members.clone()));
            assert_eq!(reconfiguration(&bytes), expected, "{:?}", txn.body);
        }
        assert_eq!(reconfiguration(b""), None);
    }
}
