//! Snapshots between replicas. The leader sends its tree block by block while transactions go on
//! being applied (a fuzzy snapshot): it is named by what it contains for certain, and everything
//! behind that follows as proposals, whose replay is idempotent. The learner writes the blocks to a
//! snapshot file and builds the tree as they arrive.
//!
//! The tree may show transactions that the learner has not logged yet. They are committed, and
//! UPTODATE names no less than the last of them, so nobody is served before they are replayed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::{info, warn};
use znodefs::Zxid;

use super::MemberEvent;
use super::message::{self, Message};
use crate::link::quorum_port::FrameStream;
use crate::persistence::{SnapshotError, SnapshotFiles, SnapshotInfo, SnapshotWriter};
use crate::replica::Event;
use crate::service::Service;
use crate::tree::{DataTree, RestoreError, SnapshotCursor, TreeRestorer};
use crate::zab::{ConnectionId, Packet};

/// Bytes of the tree copied under one hold of its lock.
const BLOCK_LENGTH: usize = 64 << 10;

/// Sends a snapshot of the tree to a learner, then the packet that names it.
pub(super) async fn send(
    service: Arc<Service>,
    stream: FrameStream,
    connection: ConnectionId,
    cursor: SnapshotCursor,
) {
    let zxid = cursor.zxid();
    match send_blocks(&service, &stream, connection, cursor).await {
        Some(bytes) => info!("snapshot of {zxid}, {bytes} bytes, sent to a learner"),
        None => stream.abort("its snapshot could not be completed"),
    }
}

async fn send_blocks(
    service: &Service,
    stream: &FrameStream,
    connection: ConnectionId,
    mut cursor: SnapshotCursor,
) -> Option<usize> {
    let zxid = cursor.zxid();
    let replacements = service.database.replacements.load(Ordering::Acquire);
    if !send_message(stream, &Message::SnapshotBegin { zxid }).await {
        return None;
    }
    let mut bytes = 0;
    loop {
        let mut block = Vec::with_capacity(BLOCK_LENGTH + (8 << 10));
        let more = {
            let tree = service.database.tree.read();
            // Another tree has other znodes under the same numbers.
            if service.database.replacements.load(Ordering::Acquire) != replacements {
                return None;
            }
            tree.snapshot_block(&mut cursor, BLOCK_LENGTH, &mut block)
        };
        bytes += block.len();
        if !send_message(stream, &Message::SnapshotBlock(block.into())).await {
            return None;
        }
        service.mailbox.push(Event::Member(MemberEvent::SnapshotProgress(connection)));
        if !more {
            break;
        }
    }
    send_message(stream, &Message::Packet(&Packet::Snap { zxid })).await.then_some(bytes)
}

async fn send_message(stream: &FrameStream, message: &message::SentMessage<'_>) -> bool {
    match message::encode(message) {
        Ok(payload) => stream.send(&payload).await,
        Err(error) => {
            warn!("part of a snapshot cannot be encoded: {error}");
            false
        }
    }
}

/// Why a snapshot from the leader cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// It cannot be written.
    #[error(transparent)]
    File(#[from] SnapshotError),
    /// It makes no tree.
    #[error(transparent)]
    Tree(#[from] RestoreError),
}

/// A snapshot that is arriving.
pub(super) struct ArrivingSnapshot {
    /// On this connection.
    pub connection: ConnectionId,
    writer: SnapshotWriter,
    restorer: TreeRestorer,
}

/// A snapshot that has arrived as a whole, its file not yet in place.
pub(super) struct ArrivedSnapshot {
    /// On this connection.
    pub connection: ConnectionId,
    writer: SnapshotWriter,
    tree: DataTree,
}

impl ArrivingSnapshot {
    pub fn begin(
        connection: ConnectionId,
        zxid: Zxid,
        snapshots: &SnapshotFiles,
        hash_seed: u64,
    ) -> Result<ArrivingSnapshot, TransferError> {
        info!("a snapshot of {zxid} is coming from the leader");
        let writer = snapshots.create_installed(zxid)?;
        Ok(ArrivingSnapshot { connection, writer, restorer: TreeRestorer::new(hash_seed) })
    }

    pub fn block(&mut self, block: &Bytes) -> Result<(), TransferError> {
        self.restorer.block(block)?;
        Ok(self.writer.write_block(block)?)
    }

    pub fn arrived(self) -> Result<ArrivedSnapshot, TransferError> {
        let ArrivingSnapshot { connection, writer, restorer } = self;
        Ok(ArrivedSnapshot { connection, writer, tree: restorer.finish()? })
    }
}

impl ArrivedSnapshot {
    /// Makes the snapshot durable under its name, which replaces the whole history on disk at once,
    /// and returns the tree.
    pub fn install(self) -> Result<(SnapshotInfo, DataTree), SnapshotError> {
        let zxid = self.writer.zxid();
        // What it may show of later transactions is not ours to vouch for: they are replayed.
        Ok((self.writer.finish(zxid)?, self.tree))
    }
}
