//! One number for the whole replicated state, to compare replicas and replays. No I/O.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;

use super::data_tree::DataTree;
use super::node_store::{NodeNumber, ROOT};

/// The same in every process: digests of different replicas are compared.
const DIGEST_SEED: u64 = 0x7a6e_6f64_6566_7321;

impl DataTree {
    /// A number over everything that is replicated: every znode with its path, data, ACL and all
    /// numbers; sessions; the tables of ephemerals, containers and znodes with a time to live; the
    /// counters; the last applied transaction. Walks the whole tree: for tests and invariants.
    pub fn digest(&self) -> u64 {
        let state = FixedState::with_seed(DIGEST_SEED);
        let mut hasher = state.build_hasher();
        self.last_applied.hash(&mut hasher);
        self.sessions.hash(&mut hasher);
        (self.node_count(), self.data_size, self.ephemerals_count).hash(&mut hasher);
        (self.acls.count(), self.containers.len(), self.with_ttl.len()).hash(&mut hasher);

        let mut owned = 0_u64;
        for (session_id, ephemerals) in &self.ephemerals {
            for &number in &ephemerals.numbers {
                owned = owned.wrapping_add(state.hash_one((session_id, self.path_of(number))));
            }
        }
        owned.hash(&mut hasher);

        // Siblings come in no order, so that their numbers are added up.
        let mut nodes = 0_u64;
        let mut waiting = vec![(ROOT, 0_u64)];
        while let Some((number, parent_path)) = waiting.pop() {
            let path = state.hash_one((parent_path, self.store.view(number).name_bytes()));
            nodes = nodes.wrapping_add(self.node_digest(&state, number, path));
            waiting.extend(self.store.children(number).map(|child| (child, path)));
        }
        nodes.hash(&mut hasher);
        hasher.finish()
    }

    fn node_digest(&self, state: &FixedState, number: NodeNumber, path: u64) -> u64 {
        let node = self.store.view(number);
        let mut hasher = state.build_hasher();
        (path, node.czxid, node.mzxid, node.ctime, node.mtime, node.version).hash(&mut hasher);
        (node.pzxid(), node.child_counter(), node.aversion()).hash(&mut hasher);
        (node.num_children(), node.ephemeral_owner()).hash(&mut hasher);
        node.data().hash(&mut hasher);
        self.acls.list(node.acl).hash(&mut hasher);
        hasher.finish()
    }
}
