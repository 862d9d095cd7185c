//! One replica in memory, for the tests of tree and request processor: requests in, replies and
//! events out, with as much or as little between preparing and applying as a test wants. No I/O.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use znodefs::wire::request::CreateRequest;
use znodefs::wire::{
    CreateMode, Decoder, Encode, ErrorCode, EventType, MultiResult, OpCode, Request, Response,
};
use znodefs::{Acl, SessionId, Stat, Zxid};

use crate::request_processor::{
    PendingRequest, RequestProcessor, RequestProcessorOptions, SessionOwner,
};
use crate::tree::{Applied, DataTree, put_reply, read_request};
use crate::txn::{Identity, Txn};

pub(crate) const SESSION: SessionId = SessionId(0x0100_0000_0000_0001);
pub(crate) const OTHER: SessionId = SessionId(0x0100_0000_0000_0002);
pub(crate) const OWNER: SessionOwner = SessionOwner(1);

pub(crate) type Event = (EventType, String);

/// The replica.
pub(crate) struct TestReplica {
    pub tree: DataTree,
    pub processor: RequestProcessor,
    /// Everything prepared so far.
    pub log: Vec<Txn>,
    /// What of it is not applied yet.
    pub pending: VecDeque<Txn>,
    pub events: Vec<Event>,
    pub time_ms: i64,
    pub identities: Vec<Identity>,
}

impl TestReplica {
    /// A fresh replica on which `SESSION` and `OTHER` are open.
    pub fn new() -> TestReplica {
        TestReplica::with_options(RequestProcessorOptions {
            extended_types_enabled: true,
            ..RequestProcessorOptions::default()
        })
    }

    pub fn with_options(options: RequestProcessorOptions) -> TestReplica {
        let mut replica = TestReplica {
            tree: DataTree::new(1),
            processor: RequestProcessor::new(options, 2),
            log: Vec::new(),
            pending: VecDeque::new(),
            events: Vec::new(),
            time_ms: 1_000_000,
            identities: vec![identity("ip", "127.0.0.1")],
        };
        for session_id in [SESSION, OTHER] {
            replica.open_session(session_id);
        }
        replica.apply_all();
        replica
    }

    pub fn open_session(&mut self, session_id: SessionId) {
        let prepared = self.processor.prepare_create_session(session_id, 4000, OWNER, self.time_ms);
        self.queue(prepared.unwrap());
    }

    pub fn close_session(&mut self, session_id: SessionId) {
        let prepared =
            self.processor.prepare_close_session(&self.tree, session_id, 0, self.time_ms);
        self.queue(prepared.unwrap());
    }

    pub fn queue(&mut self, txn: Txn) {
        self.log.push(txn.clone());
        self.pending.push_back(txn);
    }

    /// Prepares a request without applying it.
    pub fn prepare_as(&mut self, session_id: SessionId, request: &Request<'_>) -> Txn {
        let mut body = BytesMut::new();
        request.encode(&mut body);
        self.prepare_raw(session_id, request.op_code(), body.freeze(), OWNER)
    }

    pub fn prepare_raw(
        &mut self,
        session_id: SessionId,
        op_code: OpCode,
        body: Bytes,
        owner: SessionOwner,
    ) -> Txn {
        let request = PendingRequest {
            session_id,
            xid: 1,
            op_code,
            body: &body,
            identities: &self.identities,
            owner,
        };
        let txn = self.processor.prepare(&self.tree, &request, self.time_ms).unwrap();
        self.queue(txn.clone());
        txn
    }

    /// Applies the oldest prepared transaction.
    pub fn apply_next(&mut self) -> Option<(Txn, Applied)> {
        let txn = self.pending.pop_front()?;
        let events = &mut self.events;
        let applied = self.tree.apply(&txn, &mut |event| {
            assert_eq!(event.zxid, txn.zxid);
            events.push((event.event_type, event.path.to_string()));
        });
        self.processor.applied(txn.zxid);
        Some((txn, applied))
    }

    pub fn apply_all(&mut self) -> Option<(Txn, Applied)> {
        let mut last = None;
        while let Some(applied) = self.apply_next() {
            last = Some(applied);
        }
        last
    }

    /// Prepares and applies a request, and reads its reply.
    pub fn write_as(
        &mut self,
        session_id: SessionId,
        request: &Request<'_>,
    ) -> Result<Response, ErrorCode> {
        let zxid = self.prepare_as(session_id, request).zxid;
        let (txn, applied) = self.apply_all().unwrap();
        assert_eq!(txn.zxid, zxid);
        reply(request.op_code(), &txn, &applied)
    }

    pub fn write(&mut self, request: &Request<'_>) -> Result<Response, ErrorCode> {
        self.write_as(SESSION, request)
    }

    pub fn read(&self, request: &Request<'_>) -> Result<Response, ErrorCode> {
        self.read_as(SESSION, &self.identities, request)
    }

    pub fn read_as(
        &self,
        session_id: SessionId,
        identities: &[Identity],
        request: &Request<'_>,
    ) -> Result<Response, ErrorCode> {
        let reader = read_request::Reader { session_id, identities };
        let mut out = BytesMut::new();
        let outcome = read_request::answer(&self.tree, reader, request, &mut out);
        if let Some(error) = outcome.error {
            assert!(out.is_empty());
            return Err(error);
        }
        Ok(decode_reply(request.op_code(), out.freeze()))
    }

    pub fn stat(&self, path: &str) -> Stat {
        self.tree.node(path).unwrap_or_else(|| panic!("{path} is not there")).stat()
    }

    pub fn last_zxid(&self) -> Zxid {
        self.processor.last_zxid()
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Creates a persistent znode that must not fail.
    pub fn make(&mut self, path: &str) {
        self.write(&create(path)).unwrap();
    }
}

pub(crate) fn reply(op_code: OpCode, txn: &Txn, applied: &Applied) -> Result<Response, ErrorCode> {
    let mut out = BytesMut::new();
    put_reply(txn, applied, &mut out)?;
    Ok(decode_reply(op_code, out.freeze()))
}

fn decode_reply(op_code: OpCode, frame: Bytes) -> Response {
    let mut decoder = Decoder::new(&frame);
    let response = Response::decode(op_code, &mut decoder).unwrap();
    assert_eq!(decoder.remaining(), 0);
    response
}

pub(crate) fn identity(scheme: &str, id: &str) -> Identity {
    Identity { scheme: scheme.into(), id: id.into() }
}

pub(crate) fn create(path: &str) -> Request<'_> {
    create_mode(path, CreateMode::Persistent)
}

pub(crate) fn create_mode(path: &str, mode: CreateMode) -> Request<'_> {
    create_with(path, mode, Acl::open())
}

pub(crate) fn create_with(path: &str, mode: CreateMode, acl: Vec<Acl>) -> Request<'_> {
    let ttl_ms = if mode.has_ttl() { 1000 } else { 0 };
    Request::Create(CreateRequest::new(path, Some(Bytes::new()), acl, mode, ttl_ms))
}

pub(crate) fn delete(path: &str) -> Request<'_> {
    Request::Delete { path, version: -1 }
}

pub(crate) fn set_data<'a>(path: &'a str, data: &'static str, version: i32) -> Request<'a> {
    Request::SetData { path, data: Some(Bytes::from_static(data.as_bytes())), version }
}

pub(crate) fn acl(text: &str) -> Vec<Acl> {
    Acl::parse_list(text).unwrap()
}

/// The codes in the reply to a failed multi.
pub(crate) fn multi_codes(response: Response) -> Vec<i32> {
    let Response::Multi(results) = response else { panic!("no reply to a multi: {response:?}") };
    let code = |result| match result {
        MultiResult::Error(code) => code,
        ok => panic!("an operation of a failed multi succeeded: {ok:?}"),
    };
    results.into_iter().map(code).collect()
}
