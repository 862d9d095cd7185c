//! The queue between callers and the connection's task: requests are encoded by the caller, one
//! behind the other into one buffer, and taken together by the task, so that many requests become
//! one write. No I/O.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::sync::{Notify, oneshot};

use super::entry::{Batch, Entry};
use super::error::Error;
use crate::path::{self, PathError};
use crate::wire::request::{CreateRequest, put_request_below};
use crate::wire::{CreateMode, OpCode, Request, Response, xid};
use crate::zxid::Zxid;

/// A server's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The last transaction the server had applied; for a write, the write itself.
    pub zxid: Zxid,
    /// The record; data shares the memory it was received in.
    pub response: Response,
}

/// Takes the result of one request.
pub(super) type Completion = oneshot::Sender<Result<Reply, Error>>;

/// The result of a submitted request, to come. Dropping it does not take the request back.
#[must_use = "the request is on its way, but whether it succeeds is told only here"]
#[derive(Debug)]
pub struct Pending {
    request_id: u64,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Awaited(oneshot::Receiver<Result<Reply, Error>>),
    Refused(Option<Error>),
}

impl Pending {
    /// The request's number, as the [`Sink`](super::Sink) sees it; it counts up from 1.
    pub fn request_id(&self) -> u64 {
        self.request_id
    }
}

impl Future for Pending {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.outcome {
            // The sender is dropped unused only when the task was torn down with its runtime.
            Outcome::Awaited(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|result| result.unwrap_or_else(|_| Err(Error::Closed))),
            Outcome::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(Error::Closed))),
        }
    }
}

pub(super) struct Outbox {
    chroot: String,
    frame_length_max: usize,
    queue: Mutex<Queue>,
    submitted: Notify,
}

#[derive(Default)]
struct Queue {
    bytes: BytesMut,
    queued: Vec<Queued>,
    last_request_id: u64,
    last_xid: i32,
    /// Why no more requests are taken.
    refusal: Option<Error>,
}

struct Queued {
    request_id: u64,
    xid: i32,
    op_code: OpCode,
    is_absolute: bool,
    /// Where the frame ends in the buffer.
    end: usize,
    completion: Completion,
}

impl Outbox {
    pub fn new(chroot: Option<String>, frame_length_max: usize) -> Outbox {
        Outbox {
            chroot: chroot.unwrap_or_default(),
            frame_length_max,
            queue: Mutex::default(),
            submitted: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes a request into the queue; its paths are below the chroot.
    pub fn submit(&self, request: &Request<'_>) -> Pending {
        self.submit_below(&self.chroot, request)
    }

    /// Encodes a request into the queue; its paths are those of the real root.
    pub fn submit_absolute(&self, request: &Request<'_>) -> Pending {
        self.submit_below("", request)
    }

    fn submit_below(&self, root: &str, request: &Request<'_>) -> Pending {
        let invalid = validate(request).err();
        let mut queue = self.lock();
        queue.last_request_id += 1;
        let request_id = queue.last_request_id;
        let outcome = match invalid.map(Error::from).or_else(|| queue.refusal.clone()) {
            Some(error) => Outcome::Refused(Some(error)),
            None => match queue.push(request, root, root != self.chroot, self.frame_length_max) {
                Err(error) => Outcome::Refused(Some(error)),
                Ok(receiver) => {
                    // Whoever finds the queue empty wakes the task; it takes everything.
                    if queue.queued.len() == 1 {
                        self.submitted.notify_one();
                    }
                    Outcome::Awaited(receiver)
                }
            },
        };
        Pending { request_id, outcome }
    }

    /// Queues the session's end; nothing is taken after it.
    pub fn close(&self) -> Pending {
        let pending = self.submit(&Request::CloseSession);
        self.refuse(Error::Closed);
        pending
    }

    /// Refuses everything from now on, with this error unless one holds already.
    pub fn refuse(&self, error: Error) {
        self.lock().refusal.get_or_insert(error);
    }

    /// Waits until there may be something to take.
    pub async fn submitted(&self) {
        self.submitted.notified().await;
    }

    /// Takes everything queued; `None` when there is nothing.
    pub fn take(&self) -> Option<Batch<Completion>> {
        let (bytes, queued) = {
            let mut queue = self.lock();
            if queue.queued.is_empty() {
                return None;
            }
            (queue.bytes.split().freeze(), std::mem::take(&mut queue.queued))
        };
        let mut start = 0;
        let entries = queued
            .into_iter()
            .map(|queued| {
                let frame = bytes.slice(start..queued.end);
                start = queued.end;
                let Queued { request_id, xid, op_code, is_absolute, completion, .. } = queued;
                Entry { request_id, xid, op_code, is_absolute, frame, resends: 0, completion }
            })
            .collect();
        Some(Batch { bytes, entries })
    }
}

impl Queue {
    fn push(
        &mut self,
        request: &Request<'_>,
        root: &str,
        is_absolute: bool,
        limit: usize,
    ) -> Result<oneshot::Receiver<Result<Reply, Error>>, Error> {
        let op_code = request.op_code();
        let xid = match op_code {
            OpCode::Auth => xid::AUTH,
            _ => self.last_xid.checked_add(1).unwrap_or(1),
        };
        let start = self.bytes.len();
        put_request_below(&mut self.bytes, xid, root, request);
        let length = self.bytes.len() - start - 4;
        if length > limit {
            self.bytes.truncate(start);
            let path = request.path().unwrap_or_default().to_string();
            return Err(Error::RequestTooLarge { operation: op_code, path, length, limit });
        }
        if xid > 0 {
            self.last_xid = xid;
        }
        let (completion, receiver) = oneshot::channel();
        let request_id = self.last_request_id;
        let end = self.bytes.len();
        self.queued.push(Queued { request_id, xid, op_code, is_absolute, end, completion });
        Ok(receiver)
    }
}

/// Checks every path of a request.
fn validate(request: &Request<'_>) -> Result<(), PathError> {
    match request {
        Request::Multi(operations) | Request::MultiRead(operations) => {
            operations.iter().try_for_each(validate)
        }
        Request::Create(create) => validate_created(create),
        other => other.path().map_or(Ok(()), path::validate),
    }
}

/// Checks the path of a creation; a sequential one may be empty behind its last slash.
fn validate_created(create: &CreateRequest<'_>) -> Result<(), PathError> {
    let mode = CreateMode::from_flags(create.flags);
    match create.path.strip_suffix('/') {
        Some("") if mode.is_some_and(CreateMode::is_sequential) => Ok(()),
        Some(parent) if mode.is_some_and(CreateMode::is_sequential) => path::validate(parent),
        _ => path::validate(create.path),
    }
}
