//! One agreed link: frames out of a bounded queue into the socket, frames from the socket to whoever
//! takes them. What does not live here: making the link.

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;

use super::endpoint::PeerStream;
use super::frame::{self, HEADER_LENGTH, Header};
/// Size of the reading buffer in bytes.
const READ_BUFFER_LENGTH: usize = 64 << 10;

/// Frames that wait for the socket.
pub(super) struct SendQueue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// Wakes a stream that waits for room.
    room: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Frames behind a stream that is under way; `None` when there is none.
    held: Option<Vec<u8>>,
    /// No more frames are taken; the link ends once what waits was written.
    finishing: bool,
    closed: Option<String>,
}

impl SendQueue {
    pub(super) fn new() -> SendQueue {
        SendQueue { waiting: Mutex::default(), wake: Notify::new(), room: Notify::new() }
    }

    /// Queues a frame; with more than `limit` bytes waiting the link is given up.
    pub(super) fn push(&self, payload: &[u8], limit: usize) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed.is_some() || waiting.finishing {
            return false;
        }
        let was_empty = waiting.bytes.is_empty();
        let queue = match &mut waiting.held {
            Some(held) => held,
            None => &mut waiting.bytes,
        };
        // A single frame may exceed the limit; a backlog may not.
        if !queue.is_empty() && queue.len() + payload.len() > limit {
            let behind = queue.len();
            drop(waiting);
            self.close(&format!("the peer is too slow: {behind} bytes are waiting for it"));
            return false;
        }
        frame::put_frame(queue, payload);
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
        waiting.held = None;
        drop(waiting);
        self.wake.notify_one();
        self.room.notify_one();
    }

    /// Ends the link once everything that waits was written.
    pub(super) fn finish(&self) {
        self.waiting.lock().finishing = true;
        self.wake.notify_one();
    }

    /// From now on frames wait behind a stream that [`stream`](SendQueue::stream) writes, until
    /// [`end_stream`](SendQueue::end_stream).
    pub(super) fn begin_stream(&self) {
        self.waiting.lock().held.get_or_insert_with(Vec::new);
    }

    /// Queues a frame of the stream once no more than `limit` bytes wait; false when the link is
    /// closed.
    pub(super) async fn stream(&self, payload: &[u8], limit: usize) -> bool {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.closed.is_some() {
                    return false;
                }
                if waiting.bytes.is_empty() || waiting.bytes.len() + payload.len() <= limit {
                    frame::put_frame(&mut waiting.bytes, payload);
                    break;
                }
            }
            self.room.notified().await;
        }
        self.wake.notify_one();
        true
    }

    /// Resolves once no more than `limit` bytes wait, or the link is closed.
    pub(super) async fn has_room(&self, limit: usize) {
        loop {
            {
                let waiting = self.waiting.lock();
                let held = waiting.held.as_ref().map_or(0, Vec::len);
                if waiting.closed.is_some() || waiting.bytes.len() + held <= limit {
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// Lets the frames that waited behind the stream go.
    pub(super) fn end_stream(&self) {
        let mut waiting = self.waiting.lock();
        if let Some(mut held) = waiting.held.take() {
            waiting.bytes.append(&mut held);
        }
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
                    self.room.notify_one();
                    return Ok(());
                }
                if waiting.finishing {
                    return Err("this replica ended the link".to_string());
                }
            }
            self.wake.notified().await;
        }
    }
}

/// Runs the link until it breaks; returns why. Each frame's payload goes to `take`.
pub(super) async fn run(
    stream: PeerStream,
    queue: &SendQueue,
    frame_length_max: usize,
    take: impl Fn(Vec<u8>),
) -> String {
    match stream {
        PeerStream::Plain(stream) => {
            let (reader, writer) = stream.into_split();
            run_halves(reader, writer, queue, frame_length_max, take).await
        }
        PeerStream::Tls(stream) => {
            let (reader, writer) = tokio::io::split(stream);
            run_halves(reader, writer, queue, frame_length_max, take).await
        }
    }
}

async fn run_halves(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    queue: &SendQueue,
    frame_length_max: usize,
    take: impl Fn(Vec<u8>),
) -> String {
    let reason = tokio::select! {
        reason = write_frames(writer, queue) => reason,
        reason = read_frames(reader, frame_length_max, take) => reason,
    };
    queue.close(&reason);
    reason
}

async fn write_frames(mut writer: impl AsyncWrite + Unpin, queue: &SendQueue) -> String {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if let Err(reason) = queue.take(&mut bytes).await {
            return reason;
        }
        let write = async {
            writer.write_all(&bytes).await?;
            // TLS gathers.
            writer.flush().await
        };
        let written = tokio::select! {
            written = write => written,
            reason = queue.closed() => return reason,
        };
        if let Err(error) = written {
            return format!("writing failed: {error}");
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
    reader: impl AsyncRead + Unpin,
    frame_length_max: usize,
    take: impl Fn(Vec<u8>),
) -> String {
    let mut reader = BufReader::with_capacity(READ_BUFFER_LENGTH, reader);
    loop {
        match read_frame(&mut reader, frame_length_max).await {
            Ok(payload) => take(payload),
            Err(reason) => return reason,
        }
    }
}

async fn read_frame(
    reader: &mut (impl AsyncRead + Unpin),
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
