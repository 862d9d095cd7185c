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
use crate::zab::{ConnectionId, Ensemble, Packet};

/// Bytes of the tree copied under one hold of its lock.
const BLOCK_LENGTH: usize = 64 << 10;

/// A snapshot of the tree on its way to a learner: the blocks, then the packet that names it.
pub struct SnapshotTransfer {
    service: Arc<Service>,
    connection: ConnectionId,
    cursor: SnapshotCursor,
    configuration: Ensemble,
    /// Which tree it is of.
    replacements: u64,
    block_length: usize,
    bytes: usize,
    next: Piece,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Begin,
    Block,
    Name,
    End,
}

/// What comes next of a snapshot on its way.
pub enum NextPiece {
    /// A message to be sent.
    Message(Vec<u8>),
    /// Nothing: it is complete.
    Complete,
    /// It cannot be completed: the connection must be closed.
    Failed,
}

impl SnapshotTransfer {
    pub(super) fn new(
        service: Arc<Service>,
        connection: ConnectionId,
        cursor: SnapshotCursor,
        configuration: Ensemble,
    ) -> SnapshotTransfer {
        let replacements = service.database.replacements.load(Ordering::Acquire);
        SnapshotTransfer {
            service,
            connection,
            cursor,
            configuration,
            replacements,
            block_length: BLOCK_LENGTH,
            bytes: 0,
            next: Piece::Begin,
        }
    }

    /// Where it goes.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Sends about so many bytes in a message.
    pub fn with_block_length(mut self, block_length: usize) -> SnapshotTransfer {
        self.block_length = block_length;
        self
    }

    /// What is to be sent next, now that everything before is sent.
    pub fn next_piece(&mut self) -> NextPiece {
        if matches!(self.next, Piece::Block | Piece::Name) && self.bytes > 0 {
            let progress = MemberEvent::SnapshotProgress(self.connection);
            self.service.mailbox.push(Event::Member(progress));
        }
        let zxid = self.cursor.zxid();
        let encoded = match self.next {
            Piece::Begin => {
                self.next = Piece::Block;
                message::encode(&Message::SnapshotBegin { zxid })
            }
            Piece::Block => {
                let Some(block) = self.block() else { return NextPiece::Failed };
                message::encode(&Message::SnapshotBlock(block.into()))
            }
            Piece::Name => {
                self.next = Piece::End;
                let configuration = std::mem::take(&mut self.configuration);
                message::encode(&Message::Packet(&Packet::Snap { zxid, configuration }))
            }
            Piece::End => return NextPiece::Complete,
        };
        match encoded {
            Ok(payload) => NextPiece::Message(payload),
            Err(error) => {
                warn!("part of a snapshot cannot be encoded: {error}");
                NextPiece::Failed
            }
        }
    }

    fn block(&mut self) -> Option<Vec<u8>> {
        let mut block = Vec::with_capacity(self.block_length + (8 << 10));
        let database = &self.service.database;
        let tree = database.tree.read();
        // Another tree has other znodes under the same numbers.
        if database.replacements.load(Ordering::Acquire) != self.replacements {
            return None;
        }
        if !tree.snapshot_block(&mut self.cursor, self.block_length, &mut block) {
            self.next = Piece::Name;
        }
        self.bytes += block.len();
        Some(block)
    }

    /// Sends all of it.
    pub(super) async fn send(mut self, stream: FrameStream) {
        loop {
            match self.next_piece() {
                NextPiece::Message(payload) if stream.send(&payload).await => {}
                NextPiece::Complete => break,
                NextPiece::Message(_) | NextPiece::Failed => {
                    return stream.abort("its snapshot could not be completed");
                }
            }
        }
        let (zxid, bytes) = (self.cursor.zxid(), self.bytes);
        info!("snapshot of {zxid}, {bytes} bytes, sent to a learner");
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

impl TransferError {
    /// Whether there was no room to write it.
    pub fn is_full(&self) -> bool {
        matches!(self, TransferError::File(SnapshotError::Disk(error)) if error.is_full_before_change())
    }
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
