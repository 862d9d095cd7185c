//! Reads history from the log for learners that lag further than the memory reaches, beside the
//! core's thread, and only as fast as the learner takes it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;
use znodefs::Zxid;

use super::MemberEvent;
use crate::link::quorum_port::QuorumPort;
use crate::persistence::{LogError, LogReader};
use crate::replica::Event;
use crate::service::Service;
use crate::zab::{ConnectionId, Entry, LogRead, ReadId};

/// Bytes of transactions in one answer.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Bytes that may still wait for the learner when the next part is read.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogRequest {
    /// The number of the answer.
    pub read: ReadId,
    /// The learner it is for.
    pub connection: ConnectionId,
    /// What the learner has.
    pub from: Zxid,
    /// The last transaction wanted.
    pub through: Zxid,
}

/// Part of the log to be read for a learner; the answer comes as an event.
pub struct LogReading {
    pub(super) service: Arc<Service>,
    pub(super) reader: LogReader,
    pub(super) request: LogRequest,
}

impl LogReading {
    /// Reads as soon as the learner has taken what was sent before.
    pub(super) async fn read_when_there_is_room(self, port: Arc<QuorumPort>) {
        port.has_room(self.request.connection.0, WAITING_BYTES_MAX).await;
        let (service, request) = (Arc::clone(&self.service), self.request);
        // Whoever waits for the answer must hear of a panic as well.
        if tokio::task::spawn_blocking(move || self.read()).await.is_err() {
            answer(&service, request, LogRead::Unavailable);
        }
    }

    /// Reads now.
    pub fn read(self) {
        let found = read(&self.reader, self.request.from, self.request.through);
        answer(&self.service, self.request, found);
    }
}

fn answer(service: &Service, request: LogRequest, found: LogRead) {
    service.mailbox.push(Event::Member(MemberEvent::LogRead(request.read, found)));
}

fn read(reader: &LogReader, from: Zxid, through: Zxid) -> LogRead {
    match entries(reader, from, through) {
        Ok((after, entries)) => LogRead::Entries { after, entries },
        Err(LogError::NotReachingBack { .. }) => LogRead::Unavailable,
        Err(error) => {
            warn!("the log cannot be read for a learner, which gets a snapshot: {error}");
            LogRead::Unavailable
        }
    }
}

fn entries(reader: &LogReader, from: Zxid, through: Zxid) -> Result<(Zxid, Vec<Entry>), LogError> {
    let after = reader.floor(from)?;
    let mut cursor = reader.read_after(after)?;
    let (mut entries, mut length) = (Vec::new(), 0);
    while length < ANSWER_BYTES_MAX {
        let Some((zxid, payload)) = cursor.next_record()? else { break };
        if zxid > through {
            break;
        }
        length += payload.len();
        entries.push(Entry { zxid, payload: Bytes::copy_from_slice(payload) });
    }
    Ok((after, entries))
}
