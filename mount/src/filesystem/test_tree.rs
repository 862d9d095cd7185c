//! A service for tests: the replica's own tree and request processor in this process, without
//! network, disk or clock. A test can let something happen right before a request, or lose the
//! answer to one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use znodefs::client::{Reply, SessionState};
use znodefs::recipe::EventHub;
use znodefs::wire::{Decoder, Encode, Request, Response};
use znodefs::{Acl, CreateMode, OpCode, SessionId, Stat, Zxid};
use znodefs_server::request_processor::{
    PendingRequest, RequestProcessor, RequestProcessorOptions, SessionOwner,
};
use znodefs_server::tree::read_request::{Reader, answer};
use znodefs_server::tree::{DataTree, put_reply};
use znodefs_server::txn::{Identity, Txn};

use crate::service::{NewZnode, PendingReply, Service, ServiceError};

/// The session of the mount under test.
pub const OURS: SessionId = SessionId(0x11);
/// Another client's session.
pub const THEIRS: SessionId = SessionId(0x22);

const OWNER: SessionOwner = SessionOwner(1);

struct State {
    tree: DataTree,
    processor: RequestProcessor,
    time_ms: i64,
    session: SessionId,
    identities: Vec<Identity>,
    /// What happens before the next request of each kind.
    interludes: VecDeque<(OpCode, Interlude)>,
    /// Every request that came, as opcode and path.
    log: Vec<String>,
}

enum Interlude {
    /// Somebody else does this.
    Act(Box<dyn FnOnce(&TestTree) + Send>),
    /// The request is done, but its answer is lost.
    LoseReply,
    /// The request is lost and not done.
    LoseRequest,
}

/// The service; clones share the tree.
#[derive(Clone)]
pub struct TestTree(Arc<Mutex<State>>, EventHub);

impl TestTree {
    /// An empty tree with two sessions.
    pub fn new() -> TestTree {
        let options =
            RequestProcessorOptions { extended_types_enabled: true, ..Default::default() };
        let state = State {
            tree: DataTree::new(1),
            processor: RequestProcessor::new(options, 1),
            time_ms: 1_000_000,
            session: OURS,
            identities: Vec::new(),
            interludes: VecDeque::new(),
            log: Vec::new(),
        };
        let tree = TestTree(Arc::new(Mutex::new(state)), EventHub::new());
        tree.open_session(OURS);
        tree.open_session(THEIRS);
        tree
    }

    /// Opens a session, which the mount uses from now on when `OURS` has expired.
    pub fn open_session(&self, session: SessionId) {
        let mut state = self.0.lock();
        let time_ms = state.time_ms;
        let txn = state.processor.prepare_create_session(session, 10_000, OWNER, time_ms).unwrap();
        state.apply(&txn);
    }

    /// The mount's session expires and is replaced by another.
    pub fn renew_session(&self, session: SessionId) {
        {
            let mut state = self.0.lock();
            let State { tree, processor, time_ms, session: old, .. } = &mut *state;
            let txn = processor.prepare_close_session(tree, *old, 0, *time_ms).unwrap();
            state.apply(&txn);
            state.session = session;
        }
        self.open_session(session);
    }

    /// The mount proves an identity.
    pub fn authenticate(&self, scheme: &str, id: &str) {
        let identity = Identity { scheme: scheme.into(), id: id.into() };
        self.0.lock().identities.push(identity);
    }

    /// Lets this happen right before the mount's next request of this kind.
    pub fn before(&self, op_code: OpCode, act: impl FnOnce(&TestTree) + Send + 'static) {
        self.0.lock().interludes.push_back((op_code, Interlude::Act(Box::new(act))));
    }

    /// Loses the answer to the mount's next request of this kind.
    pub fn lose_reply(&self, op_code: OpCode) {
        self.0.lock().interludes.push_back((op_code, Interlude::LoseReply));
    }

    /// Loses the mount's next request of this kind.
    pub fn lose_request(&self, op_code: OpCode) {
        self.0.lock().interludes.push_back((op_code, Interlude::LoseRequest));
    }

    /// The requests that came since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().log)
    }

    /// Does a request of the other client.
    fn theirs(&self, request: &Request<'_>) -> Response {
        self.0.lock().serve(THEIRS, &[], request).expect("the other client's request").response
    }

    /// Another client creates a znode.
    pub fn create(&self, path: &str, data: Option<&str>) {
        self.create_with(path, data, CreateMode::Persistent, Acl::open());
    }

    /// Another client creates a znode in this way.
    pub fn create_with(&self, path: &str, data: Option<&str>, mode: CreateMode, acl: Vec<Acl>) {
        let data = data.map(|data| data.to_string().into());
        self.theirs(&NewZnode { path, data, acl, mode, ttl_ms: 0 }.request());
    }

    /// Another client sets data.
    pub fn set(&self, path: &str, data: &str) {
        let data = Some(data.to_string().into());
        self.theirs(&Request::SetData { path, data, version: -1 });
    }

    /// Another client deletes a znode.
    pub fn delete(&self, path: &str) {
        self.theirs(&Request::Delete { path, version: -1 });
    }

    /// A znode's data as text; `None` when it has none.
    pub fn data(&self, path: &str) -> Option<String> {
        let state = self.0.lock();
        let node = state.tree.node(path).unwrap_or_else(|| panic!("no znode {path}"));
        node.data().map(|data| String::from_utf8(data.to_vec()).unwrap())
    }

    /// A znode's stat; `None` when there is no such znode.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        Some(self.0.lock().tree.node(path)?.stat())
    }

    /// A znode's ACL as text.
    pub fn acl(&self, path: &str) -> String {
        Acl::format_list(self.0.lock().tree.node(path).unwrap().acl())
    }
}

impl State {
    fn serve(
        &mut self,
        session_id: SessionId,
        identities: &[Identity],
        request: &Request<'_>,
    ) -> Result<Reply, ServiceError> {
        let op_code = request.op_code();
        let mut body = BytesMut::new();
        request.encode(&mut body);
        let body = body.freeze();
        let mut out = BytesMut::new();
        let error = if is_write(op_code) {
            self.time_ms += 1;
            let pending = PendingRequest {
                session_id,
                xid: 1,
                op_code,
                body: &body,
                identities,
                owner: OWNER,
            };
            let txn = self.processor.prepare(&self.tree, &pending, self.time_ms).unwrap();
            let applied = self.apply(&txn);
            put_reply(&txn, &applied, &mut out).err()
        } else {
            answer(&self.tree, Reader { session_id, identities }, request, &mut out).error
        };
        match error {
            Some(code) => Err(code.into()),
            None => {
                let response = Response::decode(op_code, &mut Decoder::new(&out.freeze())).unwrap();
                Ok(Reply { zxid: self.tree.last_applied(), response })
            }
        }
    }

    fn apply(&mut self, txn: &Txn) -> znodefs_server::tree::Applied {
        let applied = self.tree.apply(txn, &mut |_| {});
        self.processor.applied(txn.zxid);
        applied
    }
}

fn is_write(op_code: OpCode) -> bool {
    use OpCode::*;
    matches!(
        op_code,
        Create | Create2 | CreateContainer | CreateTtl | Delete | SetData | SetAcl | Multi
    )
}

impl Service for TestTree {
    fn submit_absolute(&self, request: &Request<'_>) -> PendingReply {
        self.submit(request)
    }

    fn chroot(&self) -> &str {
        ""
    }

    fn events(&self) -> &EventHub {
        &self.1
    }

    fn submit(&self, request: &Request<'_>) -> PendingReply {
        let op_code = request.op_code();
        let interlude = {
            let mut state = self.0.lock();
            let path = request.path().unwrap_or_default();
            state.log.push(format!("{} {path}", op_code.name()));
            let due = state.interludes.front().is_some_and(|(next, _)| *next == op_code);
            if due { state.interludes.pop_front().map(|(_, interlude)| interlude) } else { None }
        };
        let lost = match interlude {
            Some(Interlude::LoseRequest) => {
                return Box::pin(async { Err(ServiceError::OutcomeUnknown) });
            }
            Some(Interlude::LoseReply) => true,
            Some(Interlude::Act(act)) => {
                act(self);
                false
            }
            None => false,
        };
        let mut state = self.0.lock();
        let (session, identities) = (state.session, state.identities.clone());
        let reply = state.serve(session, &identities, request);
        let reply = if lost { Err(ServiceError::OutcomeUnknown) } else { reply };
        Box::pin(async move { reply })
    }

    fn session_id(&self) -> SessionId {
        self.0.lock().session
    }

    fn state(&self) -> SessionState {
        SessionState::Connected
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn server(&self) -> Option<SocketAddr> {
        None
    }

    fn last_zxid(&self) -> Zxid {
        self.0.lock().tree.last_applied()
    }
}
