//! One agreed link: frames out of a bounded queue into the socket, frames from the socket into the
//! sink. What does not live here: making the link.

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::frame::{self, HEADER_LENGTH, Header};
use super::handshake::PeerId;
use super::{LinkEvent, LinkSink};

/// Size of the reading buffer in bytes.
const READ_BUFFER_LENGTH: usize = 64 << 10;

/// Frames that wait for the socket.
pub(super) struct SendQueue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    closed: Option<String>,
}

impl SendQueue {
    pub(super) fn new() -> SendQueue {
        SendQueue { waiting: Mutex::default(), wake: Notify::new() }
    }

    /// Queues a frame; with more than `limit` bytes waiting the link is given up.
    pub(super) fn push(&self, payload: &[u8], limit: usize) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed.is_some() {
            return false;
        }
        // A single frame may exceed the limit (a snapshot's block); a backlog may not.
        if !waiting.bytes.is_empty() && waiting.bytes.len() + payload.len() > limit {
            let behind = waiting.bytes.len();
            drop(waiting);
            self.close(&format!("the peer is too slow: {behind} bytes are waiting for it"));
            return false;
        }
        let was_empty = waiting.bytes.is_empty();
        frame::put_frame(&mut waiting.bytes, payload);
        drop(waiting);
        if was_empty {
            self.wake.notify_one();
        }
        true
    }

    /// Ends the link; what waits is dropped.
    pub(super) fn close(&self, reason: &str) {
        let mut waiting = self.waiting.lock();
        waiting.closed.get_or_insert_with(|| reason.to_string());
        waiting.bytes = Vec::new();
        drop(waiting);
        self.wake.notify_one();
    }

    /// Everything that waits, all at once; the error is why the link was closed.
    async fn take(&self, spare: &mut Vec<u8>) -> Result<(), String> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if let Some(reason) = &waiting.closed {
                    return Err(reason.clone());
                }
                if !waiting.bytes.is_empty() {
                    std::mem::swap(&mut waiting.bytes, spare);
                    return Ok(());
                }
            }
            self.wake.notified().await;
        }
    }
}

/// Runs the link until it breaks; returns why.
pub(super) async fn run(
    peer: PeerId,
    stream: TcpStream,
    queue: &SendQueue,
    frame_length_max: usize,
    sink: &LinkSink,
) -> String {
    let (reader, writer) = stream.into_split();
    sink(LinkEvent::Connected { peer });
    tokio::select! {
        reason = write_frames(writer, queue) => reason,
        reason = read_frames(peer, reader, frame_length_max, sink) => {
            queue.close(&reason);
            reason
        }
    }
}

async fn write_frames(mut writer: OwnedWriteHalf, queue: &SendQueue) -> String {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if let Err(reason) = queue.take(&mut bytes).await {
            return reason;
        }
        let written = tokio::select! {
            written = writer.write_all(&bytes) => written,
            reason = queue.closed() => return reason,
        };
        if let Err(error) = written {
            let reason = format!("writing failed: {error}");
            queue.close(&reason);
            return reason;
        }
    }
}

impl SendQueue {
    /// Resolves when the link is closed, even while a write to a stuck peer is under way
    /// (ZOOKEEPER-2201).
    async fn closed(&self) -> String {
        loop {
            if let Some(reason) = &self.waiting.lock().closed {
                return reason.clone();
            }
            self.wake.notified().await;
        }
    }
}

async fn read_frames(
    peer: PeerId,
    reader: OwnedReadHalf,
    frame_length_max: usize,
    sink: &LinkSink,
) -> String {
    let mut reader = BufReader::with_capacity(READ_BUFFER_LENGTH, reader);
    loop {
        match read_frame(&mut reader, frame_length_max).await {
            Ok(payload) => sink(LinkEvent::Message { peer, payload }),
            Err(reason) => return reason,
        }
    }
}

async fn read_frame(
    reader: &mut BufReader<OwnedReadHalf>,
    frame_length_max: usize,
) -> Result<Vec<u8>, String> {
    let broken = |error: std::io::Error| format!("reading failed: {error}");
    let mut header = [0; HEADER_LENGTH];
    reader.read_exact(&mut header).await.map_err(broken)?;
    let header = Header::decode(&header, frame_length_max).map_err(|error| error.to_string())?;
    let mut payload = vec![0; header.length];
    reader.read_exact(&mut payload).await.map_err(broken)?;
    header.check(&payload).map_err(|error| error.to_string())?;
    Ok(payload)
}
