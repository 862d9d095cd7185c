//! Random requests against a model that does everything the plain way: one map from path to znode,
//! copied whole for a multi, with nothing ever pending.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use znodefs::wire::{CreateMode, ErrorCode};
use znodefs::{Acl, Permissions, SessionId, Stat, Zxid, path};

use crate::test_steps::{History, Operation, Step, data, identities, list, steps};
use crate::tree::{DataTree, access};
use crate::txn::{Change, Identity, Txn, TxnBody};

#[derive(Clone, Debug)]
struct ModelNode {
    stat: Stat,
    data: Option<Bytes>,
    acl: Arc<[Acl]>,
    counter: i32,
    /// Containers and znodes with a time to live.
    expires: bool,
}

#[derive(Clone, Debug)]
struct Model {
    nodes: BTreeMap<String, ModelNode>,
    sessions: BTreeMap<SessionId, bool>,
    zxid: Zxid,
    time_ms: i64,
}

type Outcome = Result<Option<String>, ErrorCode>;

impl Model {
    fn of(tree: &DataTree) -> Model {
        let mut nodes = BTreeMap::new();
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            let node = tree.node(path).unwrap();
            let data = node.data().map(Bytes::copy_from_slice);
            let acl = node.acl().clone();
            let (stat, counter) = (node.stat(), node.child_counter());
            nodes.insert(path.to_string(), ModelNode { stat, data, acl, counter, expires: false });
        }
        let sessions = tree.sessions().map(|session| (session.session_id, true)).collect();
        Model { nodes, sessions, zxid: tree.last_applied(), time_ms: 0 }
    }

    fn children(&self, path: &str) -> i32 {
        let is_child = |other: &&String| path::parent(other) == Some(path);
        self.nodes.keys().filter(is_child).count() as i32
    }

    fn shown(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let num_children = self.children(path);
        Stat {
            num_children,
            cversion: 2 * node.counter - num_children,
            data_length: node.data.as_ref().map_or(0, Bytes::len) as i32,
            ..node.stat
        }
    }

    fn run(
        &mut self,
        session_id: SessionId,
        identities: &[Identity],
        operation: &Operation,
    ) -> Outcome {
        if self.sessions.get(&session_id) != Some(&true) {
            return Err(ErrorCode::SessionExpired);
        }
        match *operation {
            Operation::Create { path, mode, data: place, acl } => {
                self.create(session_id, identities, path, mode, data(place), list(acl))
            }
            Operation::Delete { path, version } => self.delete(identities, path, version),
            Operation::SetData { path, data: place, version } => {
                let node = self.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
                access::check(&node.acl, Permissions::WRITE, identities)?;
                expect(node.stat.version, version)?;
                node.stat.version += 1;
                node.stat.mtime = self.time_ms;
                node.stat.mzxid = self.zxid;
                node.data = data(place);
                Ok(None)
            }
            Operation::SetAcl { path, acl, version } => {
                let node = self.nodes.get_mut(path).ok_or(ErrorCode::NoNode)?;
                access::check(&node.acl, Permissions::ADMIN, identities)?;
                expect(node.stat.aversion, version)?;
                node.stat.aversion += 1;
                node.acl = list(acl).into();
                Ok(None)
            }
            Operation::Check { path, version } => {
                let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
                access::check(&node.acl, Permissions::READ, identities)?;
                expect(node.stat.version, version)?;
                Ok(None)
            }
        }
    }

    fn create(
        &mut self,
        session_id: SessionId,
        identities: &[Identity],
        path: &str,
        mode: CreateMode,
        data: Option<Bytes>,
        acl: Vec<Acl>,
    ) -> Outcome {
        // A sequential creation may have nothing behind its last slash.
        let parent_path = path.rsplit_once('/').map(|(parent, _)| parent).unwrap();
        let parent_path = if parent_path.is_empty() { "/" } else { parent_path };
        let parent = self.nodes.get(parent_path).ok_or(ErrorCode::NoNode)?;
        access::check(&parent.acl, Permissions::CREATE, identities)?;
        let path = match mode.is_sequential() {
            true => format!("{path}{:010}", parent.counter),
            false => path.to_string(),
        };
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if parent.stat.ephemeral_owner != SessionId(0) {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let owner = if mode.is_ephemeral() { session_id } else { SessionId(0) };
        let stat = Stat {
            czxid: self.zxid,
            mzxid: self.zxid,
            pzxid: self.zxid,
            ctime: self.time_ms,
            mtime: self.time_ms,
            ephemeral_owner: owner,
            ..Stat::default()
        };
        let expires = mode.has_ttl() || mode == CreateMode::Container;
        let node = ModelNode { stat, data, acl: acl.into(), counter: 0, expires };
        self.nodes.insert(path.clone(), node);
        let parent = self.nodes.get_mut(parent_path).unwrap();
        parent.counter += 1;
        parent.stat.pzxid = self.zxid;
        Ok(Some(path))
    }

    fn delete(&mut self, identities: &[Identity], path: &str, version: i32) -> Outcome {
        let parent_path = path::parent(path).unwrap();
        let parent = self.nodes.get(parent_path).ok_or(ErrorCode::NoNode)?;
        access::check(&parent.acl, Permissions::DELETE, identities)?;
        let node = self.nodes.get(path).ok_or(ErrorCode::NoNode)?;
        expect(node.stat.version, version)?;
        if self.children(path) > 0 {
            return Err(ErrorCode::NotEmpty);
        }
        self.remove(path);
        Ok(None)
    }

    fn remove(&mut self, path: &str) {
        self.nodes.remove(path).unwrap();
        self.nodes.get_mut(path::parent(path).unwrap()).unwrap().stat.pzxid = self.zxid;
    }

    fn multi(&mut self, session_id: SessionId, operations: &[Operation]) -> Result<(), Vec<i32>> {
        let before = self.clone();
        for (place, operation) in operations.iter().enumerate() {
            if let Err(error) = self.run(session_id, &identities(true), operation) {
                *self = before;
                let mut codes = vec![-2; operations.len()];
                codes[..place].fill(0);
                codes[place] = error.code();
                return Err(codes);
            }
        }
        Ok(())
    }

    fn close(&mut self, session_id: SessionId) -> Vec<String> {
        let owned = |(path, node): (&String, &ModelNode)| {
            (node.stat.ephemeral_owner == session_id).then(|| path.clone())
        };
        let paths: Vec<String> = self.nodes.iter().filter_map(owned).collect();
        for path in &paths {
            self.remove(path);
        }
        self.sessions.insert(session_id, false);
        paths
    }

    /// Does what the step did on the replica, and compares what it prepared.
    fn follow(&mut self, step: &Step, session_of: &dyn Fn(usize) -> SessionId, txns: &[Txn]) {
        for txn in txns {
            self.zxid = txn.zxid;
            self.time_ms = txn.time_ms;
            match step {
                Step::Operation { session, as_me, operation } => {
                    let outcome = self.run(session_of(*session), &identities(*as_me), operation);
                    assert_eq!(outcome_of(&txn.body), outcome, "{operation:?}");
                }
                Step::Multi { session, operations } => {
                    let outcome = match &txn.body {
                        TxnBody::MultiError(codes) => Err(codes.clone()),
                        TxnBody::Multi(_) => Ok(()),
                        other => panic!("no multi: {other:?}"),
                    };
                    let expected = self.multi(session_of(*session), operations);
                    assert_eq!(outcome, expected, "{operations:?}");
                }
                Step::Open { session } => {
                    self.sessions.insert(session_of(*session), true);
                }
                Step::Close { session } => {
                    let ephemerals = self.close(session_of(*session));
                    assert_eq!(txn.body, TxnBody::CloseSession { ephemerals });
                }
                Step::Expire { .. } => {
                    let TxnBody::Change(Change::Delete { path }) = &txn.body else {
                        panic!("no deletion: {txn:?}")
                    };
                    assert_eq!(self.children(path), 0);
                    assert!(self.nodes[path].expires);
                    self.remove(path);
                }
                Step::Apply { .. } | Step::Snapshot { .. } => panic!("prepared {txn:?}"),
            }
        }
    }

    fn compare(&self, tree: &DataTree) {
        assert_eq!(tree.node_count(), self.nodes.len() + 1);
        for (path, expected) in &self.nodes {
            let node = tree.node(path).unwrap_or_else(|| panic!("{path} is missing"));
            let mut shown = self.shown(path);
            // Usage is the replica's own; it has its own tests.
            if path.ends_with("zookeeper_stats") {
                shown.data_length = node.stat().data_length;
            } else {
                assert_eq!(node.data(), expected.data.as_deref(), "{path}");
            }
            assert_eq!(node.stat(), shown, "{path}");
            assert_eq!(node.acl(), &expected.acl, "{path}");
        }
        let open: Vec<SessionId> =
            self.sessions.iter().filter(|one| *one.1).map(|one| *one.0).collect();
        let in_tree: Vec<SessionId> = tree.sessions().map(|one| one.session_id).collect();
        assert_eq!(in_tree, open);
        for (&session_id, &open) in &self.sessions {
            let owned = |node: &&ModelNode| node.stat.ephemeral_owner == session_id;
            let expected = self.nodes.values().filter(owned).count();
            assert_eq!(tree.ephemerals(session_id).count(), expected);
            assert!(open || expected == 0);
        }
    }
}

fn expect(current: i32, expected: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == current { Ok(()) } else { Err(ErrorCode::BadVersion) }
}

/// The created path, or the error, of a transaction of one operation.
fn outcome_of(body: &TxnBody) -> Outcome {
    match body {
        TxnBody::Error(code) => Err(ErrorCode::from_code(*code).unwrap()),
        TxnBody::Change(Change::Create { path, .. }) => Ok(Some(path.clone())),
        TxnBody::Change(_) => Ok(None),
        other => panic!("not one operation: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn pipelined_requests_come_out_as_if_each_was_alone(steps in steps(150)) {
        let mut history = History::new();
        let mut model = Model::of(&history.replica.tree);
        for step in &steps {
            let txns = history.step(step);
            let session_of = |place: usize| history.session(place);
            model.follow(step, &session_of, &txns);
        }
        history.replica.apply_all();
        model.compare(&history.replica.tree);
    }
}
