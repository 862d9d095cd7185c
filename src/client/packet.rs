//! What the session core does with each packet of an attached connection: replies go to the request
//! whose turn it is, events and answers out of turn to where they belong. No I/O.

use bytes::{Bytes, BytesMut};

use super::delivery::{Delivery, SessionState};
use super::entry::{Entry, below_chroot, service_error};
use super::error::Error;
use super::outbox::Reply;
use super::session::{Outlet, Session, take_header};
use super::watch::Kind;
use crate::wire::{
    Decoder, ErrorCode, MultiResult, OpCode, ReplyHeader, Request, Response, WatchedEvent,
    WatcherType, xid,
};

/// Length of a reply's header in bytes.
const HEADER_LENGTH: usize = 16;

impl<T> Session<T> {
    /// Starts to throw away a reply longer than the client takes, and fails its request. Whether
    /// there was one.
    pub(super) fn skip_oversized(
        &mut self,
        input: &mut BytesMut,
        outlet: &mut impl Outlet<T>,
    ) -> Result<bool, String> {
        let Some(prefix) = input.first_chunk::<4>() else { return Ok(false) };
        let announced = i32::from_be_bytes(*prefix);
        let limit = self.config.reply_length_max;
        let Ok(length) = usize::try_from(announced) else {
            return Err(format!("a frame of {announced} bytes was announced"));
        };
        if length <= limit || input.len() < 4 + HEADER_LENGTH {
            return Ok(false);
        }
        let header = Bytes::copy_from_slice(&input[4..4 + HEADER_LENGTH]);
        let (header, _) = take_header(&header)?;
        let entry = self.in_flight.pop_front_if(|entry| entry.xid == header.xid);
        let Some(entry) = entry else {
            return Err(format!("a frame of {length} bytes that answers no request"));
        };
        self.skipping = 4 + length;
        let operation = entry.op_code;
        let path = entry.path(&self.config.chroot);
        let error = Error::ReplyTooLarge { operation, path, length, limit };
        outlet.complete(entry.completion, Err(error));
        Ok(true)
    }

    /// Takes one whole packet.
    pub(super) fn take_packet(
        &mut self,
        frame: &Bytes,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        let (header, mut decoder) = take_header(frame)?;
        match header.xid {
            xid::NOTIFICATION => self.take_event(header, &mut decoder, outlet),
            xid::PING => Ok(()),
            xid::AUTH => self.take_auth_reply(header, outlet),
            xid::SET_WATCHES => match ErrorCode::from_code(header.error) {
                None => Ok(()),
                Some(code) => Err(format!("the watches could not be set again: {code}")),
            },
            _ => self.take_reply(header, &mut decoder, outlet),
        }
    }

    fn take_event(
        &mut self,
        header: ReplyHeader,
        decoder: &mut Decoder<'_>,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        let mut event = WatchedEvent::decode(header.zxid, decoder)
            .map_err(|error| format!("an event is unreadable: {error}"))?;
        self.was_told(header.zxid);
        self.watches.fired(&event);
        let is_inside = below_chroot(&event.path, &self.config.chroot).is_some();
        take_chroot_off(&mut event.path, &self.config.chroot);
        outlet.deliver(match is_inside {
            true => Delivery::Event(&event),
            false => Delivery::OutsideEvent(&event),
        });
        Ok(())
    }

    fn take_auth_reply(
        &mut self,
        header: ReplyHeader,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        let Some(answered) = self.auth_in_flight.pop_front() else {
            return Err("an answer to a credential came that was not presented".into());
        };
        let credential = answered.as_ref().and_then(credential_of);
        let refused = ErrorCode::from_code(header.error);
        if let Some(entry) = answered {
            let result = match refused {
                None => Ok(&Response::Empty),
                Some(code) => Err(code),
            };
            let (request_id, op_code, zxid) = (entry.request_id, entry.op_code, header.zxid);
            outlet.deliver(Delivery::Reply { request_id, op_code, zxid, result });
            let result = match refused {
                None => Ok(Reply { zxid: header.zxid, response: Response::Empty }),
                Some(_) => Err(refusal(credential.as_ref())),
            };
            outlet.complete(entry.completion, result);
        }
        if refused.is_some() {
            // Those presented anew are answered in their order, before any other.
            let unanswered = self.auth_in_flight.iter().filter(|other| other.is_none()).count();
            let index = self.auth.len().checked_sub(unanswered + 1);
            let presented = index.and_then(|index| self.auth.get(index));
            let error = refusal(credential.as_ref().or(presented));
            self.end(error, SessionState::AuthFailed, outlet);
            return Err("a credential was refused".into());
        }
        self.auth.extend(credential);
        Ok(())
    }

    fn take_reply(
        &mut self,
        header: ReplyHeader,
        decoder: &mut Decoder<'_>,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        let entry = match self.in_flight.front() {
            Some(entry) if entry.xid == header.xid => self.in_flight.pop_front(),
            Some(entry) => {
                let (came, due) = (header.xid, entry.xid);
                return Err(format!("a reply to request {came} came where {due}'s was due"));
            }
            None => None,
        };
        let Some(entry) = entry else {
            return Err(format!("a reply to request {} came, which was not sent", header.xid));
        };
        self.saw(header.zxid);
        let result = match ErrorCode::from_code(header.error) {
            Some(code) => Err(code),
            None => match Response::decode(entry.op_code, decoder) {
                Ok(response) => Ok(self.without_chroot(&entry, response)),
                Err(reason) => return self.take_unreadable(entry, &reason.to_string(), outlet),
            },
        };
        self.keep_watches(&entry, &result);
        let (request_id, op_code, zxid) = (entry.request_id, entry.op_code, header.zxid);
        let delivered = result.as_ref().map_err(|code| *code);
        outlet.deliver(Delivery::Reply { request_id, op_code, zxid, result: delivered });
        let result = match result {
            Ok(response) => Ok(Reply { zxid, response }),
            Err(code) => Err(service_error(code, &entry, &self.config.chroot)),
        };
        outlet.complete(entry.completion, result);
        if op_code == OpCode::CloseSession {
            self.end(Error::Closed, SessionState::Closed, outlet);
        }
        Ok(())
    }

    fn take_unreadable(
        &mut self,
        entry: Entry<T>,
        reason: &str,
        outlet: &mut impl Outlet<T>,
    ) -> Result<(), String> {
        let operation = entry.op_code;
        let path = entry.path(&self.config.chroot);
        let error = Error::UnexpectedReply { operation, path, reason: reason.to_string() };
        outlet.complete(entry.completion, Err(error));
        Err(format!("a reply to {} is unreadable: {reason}", operation.name()))
    }

    /// Paths in a record, as the client sees them.
    fn without_chroot(&self, entry: &Entry<T>, mut response: Response) -> Response {
        let chroot = self.config.chroot.as_str();
        if chroot.is_empty() || entry.is_absolute {
            return response;
        }
        match &mut response {
            Response::Path(path) | Response::Created { path, .. } => take_chroot_off(path, chroot),
            Response::Names(paths) if entry.op_code == OpCode::GetEphemerals => {
                // The service compares plain prefixes: /app finds /apple too.
                paths.retain(|path| below_chroot(path, chroot).is_some());
                paths.iter_mut().for_each(|path| take_chroot_off(path, chroot));
            }
            Response::Multi(results) => {
                for result in results {
                    if let MultiResult::Ok(
                        _,
                        Response::Path(path) | Response::Created { path, .. },
                    ) = result
                    {
                        take_chroot_off(path, chroot);
                    }
                }
            }
            _ => {}
        }
        response
    }

    /// Remembers or forgets the watches that a reply says are set or removed.
    fn keep_watches(&mut self, entry: &Entry<T>, result: &Result<Response, ErrorCode>) {
        let kind = match (entry.op_code, result) {
            (OpCode::GetData | OpCode::Exists, Ok(_)) => Kind::Data,
            (OpCode::Exists, Err(ErrorCode::NoNode)) => Kind::Exists,
            (OpCode::GetChildren | OpCode::GetChildren2, Ok(_)) => Kind::Children,
            (OpCode::AddWatch, Ok(_)) => match entry.last_int() {
                0 => Kind::Persistent,
                _ => Kind::PersistentRecursive,
            },
            (OpCode::RemoveWatches, Ok(_)) => return self.forget_watches(entry),
            _ => return,
        };
        // The watch flag of a read is its record's last byte.
        if entry.op_code == OpCode::AddWatch || entry.frame.last() == Some(&1) {
            entry.with_server_path(|path| self.watches.insert(kind, path));
        }
    }

    /// Forgets the watches that a `removeWatches` names.
    pub(super) fn forget_watches(&mut self, entry: &Entry<T>) {
        if let Some(watcher_type) = WatcherType::from_code(entry.last_int()) {
            entry.with_server_path(|path| self.watches.remove(path, watcher_type));
        }
    }
}

impl<T> Entry<T> {
    /// The record's last field where that is an int.
    fn last_int(&self) -> i32 {
        self.frame.last_chunk::<4>().map_or(0, |bytes| i32::from_be_bytes(*bytes))
    }
}

/// The scheme and credential that an auth request presented.
fn credential_of<T>(entry: &Entry<T>) -> Option<(String, Bytes)> {
    let record = entry.frame.slice(12..);
    match Request::decode(OpCode::Auth, &mut Decoder::new(&record)) {
        Ok(Request::Auth { scheme, credential }) => Some((scheme.to_string(), credential)),
        _ => None,
    }
}

fn refusal(credential: Option<&(String, Bytes)>) -> Error {
    Error::AuthFailed { scheme: credential.map(|(scheme, _)| scheme.clone()).unwrap_or_default() }
}

fn take_chroot_off(path: &mut String, chroot: &str) {
    if chroot.is_empty() || below_chroot(path, chroot).is_none() {
        return;
    }
    path.drain(..chroot.len());
    if path.is_empty() {
        path.push('/');
    }
}
