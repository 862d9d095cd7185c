//! Watches: kinds, events, states. No I/O.

use bytes::{BufMut, BytesMut};

use super::jute::{Decoder, Encode, WireError, put_ustring};
use crate::zxid::Zxid;

/// What happened to a znode (`Watcher.Event.EventType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// No znode is concerned; the session's state changed.
    None,
    /// The znode was created.
    NodeCreated,
    /// The znode was deleted.
    NodeDeleted,
    /// The znode's data was set.
    NodeDataChanged,
    /// A child was created or deleted.
    NodeChildrenChanged,
    /// A number this version does not know.
    Unknown(i32),
}

impl EventType {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        match self {
            EventType::None => -1,
            EventType::NodeCreated => 1,
            EventType::NodeDeleted => 2,
            EventType::NodeDataChanged => 3,
            EventType::NodeChildrenChanged => 4,
            EventType::Unknown(code) => code,
        }
    }

    /// The type with this number on the wire.
    pub fn from_code(code: i32) -> EventType {
        match code {
            -1 => EventType::None,
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            other => EventType::Unknown(other),
        }
    }
}

/// The session's state inside an event (`Watcher.Event.KeeperState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeeperState(pub i32);

impl KeeperState {
    /// Connected to a replica that takes writes.
    pub const SYNC_CONNECTED: KeeperState = KeeperState(3);
}

/// A watch event: the notification's header zxid and its record (`WatcherEvent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedEvent {
    /// The transaction that caused it; `None` where the server does not say (servers before 3.9,
    /// and events raised while watches are set again).
    pub zxid: Option<Zxid>,
    /// What happened.
    pub event_type: EventType,
    /// The session's state.
    pub state: KeeperState,
    /// The znode, as the server names it (no chroot taken off yet).
    pub path: String,
}

impl WatchedEvent {
    /// Reads the record behind a notification header that carried `header_zxid`.
    pub fn decode(header_zxid: Zxid, decoder: &mut Decoder<'_>) -> Result<WatchedEvent, WireError> {
        Ok(WatchedEvent {
            zxid: (header_zxid.0 > 0).then_some(header_zxid),
            event_type: EventType::from_code(decoder.read_int()?),
            state: KeeperState(decoder.read_int()?),
            path: decoder.read_ustring()?.to_string(),
        })
    }
}

impl Encode for WatchedEvent {
    fn encode(&self, out: &mut BytesMut) {
        put_watcher_event(out, self.event_type, self.state, &self.path);
    }
}

/// Appends a `WatcherEvent` record.
pub fn put_watcher_event(out: &mut BytesMut, event: EventType, state: KeeperState, path: &str) {
    out.put_i32(event.code());
    out.put_i32(state.0);
    put_ustring(out, path);
}

/// The kind of a persistent watch (`AddWatchMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddWatchMode {
    /// Data and children of one znode, until removed.
    Persistent,
    /// Data, creation and deletion of a znode and all its descendants, until removed.
    PersistentRecursive,
}

impl AddWatchMode {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The mode with this number on the wire.
    pub fn from_code(code: i32) -> Option<AddWatchMode> {
        match code {
            0 => Some(AddWatchMode::Persistent),
            1 => Some(AddWatchMode::PersistentRecursive),
            _ => None,
        }
    }
}

/// Which watches to look for or remove (`Watcher.WatcherType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatcherType {
    /// Standard child watches.
    Children,
    /// Standard data and exists watches.
    Data,
    /// Watches of every kind.
    Any,
    /// Persistent watches.
    Persistent,
    /// Persistent recursive watches.
    PersistentRecursive,
}

impl WatcherType {
    /// The number on the wire.
    pub fn code(self) -> i32 {
        self as i32 + 1
    }

    /// The type with this number on the wire.
    pub fn from_code(code: i32) -> Option<WatcherType> {
        use WatcherType::*;
        let types = [Children, Data, Any, Persistent, PersistentRecursive];
        types.get(usize::try_from(code.checked_sub(1)?).ok()?).copied()
    }
}
