//! Containers and znodes with a time to live that have done their service (`ContainerManager`). No
//! I/O; the runtime decides when to look.

use super::{EpochUsedUp, RequestProcessor};
use crate::tree::{DataTree, NodeRef, OwnerKind};
use crate::txn::{Change, Txn, TxnBody, TxnOrigin};
use znodefs::SessionId;

/// Whether a childless znode of this kind is due at `time_ms`.
fn is_due(
    kind: OwnerKind,
    child_counter: i32,
    mtime: i64,
    time_ms: i64,
    never_used_ms_max: i64,
) -> bool {
    let idle_ms = time_ms.saturating_sub(mtime);
    match kind {
        OwnerKind::Container => {
            child_counter > 0 || (never_used_ms_max > 0 && idle_ms > never_used_ms_max)
        }
        OwnerKind::Ttl { ttl_ms } => idle_ms > ttl_ms,
        OwnerKind::Persistent | OwnerKind::Ephemeral(_) => false,
    }
}

impl RequestProcessor {
    /// The paths of childless containers that had children, or none for longer than
    /// `never_used_ms_max` (0 is for ever), and of childless znodes past their time to live. Each is
    /// to be given to [`RequestProcessor::prepare_delete_container`].
    pub fn expired_nodes(
        &self,
        tree: &DataTree,
        time_ms: i64,
        never_used_ms_max: i64,
    ) -> Vec<String> {
        let due = |node: &NodeRef<'_>| {
            let mtime = node.stat().mtime;
            let counter = node.child_counter();
            node.num_children() == 0
                && is_due(node.kind(), counter, mtime, time_ms, never_used_ms_max)
        };
        tree.expirable_nodes().filter(due).map(NodeRef::path).collect()
    }

    /// The transaction that deletes a container or a znode with a time to live, if it is still due
    /// with everything that is prepared; `None`, and no zxid used, when it is not.
    pub fn prepare_delete_container(
        &mut self,
        tree: &DataTree,
        path: &str,
        time_ms: i64,
        never_used_ms_max: i64,
    ) -> Result<Option<Txn>, EpochUsedUp> {
        let due = self.outstanding.node(tree, path).is_some_and(|state| {
            let counter = state.child_counter;
            state.num_children == 0
                && is_due(state.kind, counter, state.mtime, time_ms, never_used_ms_max)
        });
        if !due {
            return Ok(None);
        }
        let zxid = self.next_zxid()?;
        self.will_delete(tree, zxid, path);
        let body = TxnBody::Change(Change::Delete { path: path.to_string() });
        let (session_id, origin) = (SessionId(0), TxnOrigin::default());
        Ok(Some(Txn { zxid, session_id, xid: 0, origin, time_ms, body }))
    }
}
