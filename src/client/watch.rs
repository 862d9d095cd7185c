//! The watches a session holds, so that they can be set again on the next connection. Paths are the
//! server's, chroot included. No I/O; who is told of an event is not decided here.

use std::collections::HashSet;

use bytes::BytesMut;

use crate::wire::request::put_request;
use crate::wire::{EventType, Request, WatchSets, WatchedEvent, WatcherType, xid};
use crate::zxid::Zxid;

/// Watches are set again in requests below this length in bytes, since the servers' limit holds for
/// them too.
const SET_WATCHES_LENGTH_MAX: usize = 128 * 1024;

/// The kinds of watches, as `SetWatches2` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By getData, or exists of a znode that is there.
    Data,
    /// By exists of a znode that is not there.
    Exists,
    /// By getChildren.
    Children,
    Persistent,
    PersistentRecursive,
}

const KINDS: [Kind; 5] =
    [Kind::Data, Kind::Exists, Kind::Children, Kind::Persistent, Kind::PersistentRecursive];

/// Every watch that the service holds for this session, or would if there were a connection.
#[derive(Debug, Default)]
pub(super) struct WatchRegistry {
    paths: [HashSet<Box<str>>; 5],
}

impl WatchRegistry {
    fn of(&mut self, kind: Kind) -> &mut HashSet<Box<str>> {
        &mut self.paths[kind as usize]
    }

    /// Remembers a watch that the service has set.
    pub fn insert(&mut self, kind: Kind, path: &str) {
        let paths = self.of(kind);
        if !paths.contains(path) {
            paths.insert(path.into());
        }
    }

    /// Forgets the one-shot watches that an event has used up.
    pub fn fired(&mut self, event: &WatchedEvent) {
        let used_up: &[Kind] = match event.event_type {
            EventType::NodeCreated | EventType::NodeDataChanged => &[Kind::Data, Kind::Exists],
            EventType::NodeDeleted => &[Kind::Data, Kind::Exists, Kind::Children],
            EventType::NodeChildrenChanged => &[Kind::Children],
            EventType::None | EventType::Unknown(_) => &[],
        };
        for &kind in used_up {
            self.of(kind).remove(event.path.as_str());
        }
    }

    /// Forgets the watches that `removeWatches` removed.
    pub fn remove(&mut self, path: &str, watcher_type: WatcherType) {
        let removed: &[Kind] = match watcher_type {
            WatcherType::Children => &[Kind::Children],
            WatcherType::Data => &[Kind::Data, Kind::Exists],
            WatcherType::Any => &KINDS,
            WatcherType::Persistent => &[Kind::Persistent],
            WatcherType::PersistentRecursive => &[Kind::PersistentRecursive],
        };
        for &kind in removed {
            self.of(kind).remove(path);
        }
    }

    /// Forgets every watch that fires once; they go with their session.
    pub fn forget_one_shot(&mut self) {
        for kind in [Kind::Data, Kind::Exists, Kind::Children] {
            self.of(kind).clear();
        }
    }

    /// Appends the requests that set every watch again, reporting what changed since
    /// `relative_zxid`. Servers that know no persistent watches see no request of theirs.
    pub fn put_set_watches(&self, out: &mut BytesMut, relative_zxid: Zxid) {
        let fresh = || WatchSets { relative_zxid, ..WatchSets::default() };
        let (mut sets, mut length) = (fresh(), 0);
        for kind in KINDS {
            for path in &self.paths[kind as usize] {
                if length > 0 && length + 4 + path.len() > SET_WATCHES_LENGTH_MAX - 64 {
                    put_sets(out, std::mem::replace(&mut sets, fresh()));
                    length = 0;
                }
                length += 4 + path.len();
                match kind {
                    Kind::Data => sets.data.push(path),
                    Kind::Exists => sets.exists.push(path),
                    Kind::Children => sets.children.push(path),
                    Kind::Persistent => sets.persistent.push(path),
                    Kind::PersistentRecursive => sets.persistent_recursive.push(path),
                }
            }
        }
        if length > 0 {
            put_sets(out, sets);
        }
    }
}

fn put_sets(out: &mut BytesMut, sets: WatchSets<'_>) {
    let with_persistent = !sets.persistent.is_empty() || !sets.persistent_recursive.is_empty();
    let request =
        if with_persistent { Request::SetWatches2(sets) } else { Request::SetWatches(sets) };
    put_request(out, xid::SET_WATCHES, &request);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Decoder, KeeperState, OpCode, RequestHeader, take_frame};

    fn event(event_type: EventType, path: &str) -> WatchedEvent {
        let state = KeeperState::SYNC_CONNECTED;
        WatchedEvent { zxid: None, event_type, state, path: path.into() }
    }

    /// Every request that would be sent, as opcode and (kind, path) pairs.
    fn sent(registry: &WatchRegistry) -> Vec<(OpCode, Vec<(Kind, String)>)> {
        let mut out = BytesMut::new();
        registry.put_set_watches(&mut out, Zxid(7));
        let mut requests = Vec::new();
        while let Some(frame) = take_frame(&mut out, SET_WATCHES_LENGTH_MAX).unwrap() {
            let mut decoder = Decoder::new(&frame);
            let header = RequestHeader::decode(&mut decoder).unwrap();
            let op_code = OpCode::from_code(header.op_code).unwrap();
            let request = Request::decode(op_code, &mut decoder).unwrap();
            let (Request::SetWatches(sets) | Request::SetWatches2(sets)) = request else {
                panic!("{request:?}")
            };
            assert_eq!((header.xid, sets.relative_zxid), (-8, Zxid(7)));
            let lists =
                [sets.data, sets.exists, sets.children, sets.persistent, sets.persistent_recursive];
            let mut paths = Vec::new();
            for (kind, list) in KINDS.into_iter().zip(lists) {
                paths.extend(list.iter().map(|path| (kind, path.to_string())));
            }
            requests.push((op_code, paths));
        }
        requests
    }

    #[test]
    fn an_event_uses_up_the_watches_it_belongs_to_and_no_others() {
        let mut registry = WatchRegistry::default();
        let all = |registry: &mut WatchRegistry| {
            for kind in KINDS {
                registry.insert(kind, "/a");
            }
        };
        all(&mut registry);
        registry.fired(&event(EventType::NodeChildrenChanged, "/a"));
        let left = [Kind::Data, Kind::Exists, Kind::Persistent, Kind::PersistentRecursive];
        let expected = |kinds: &[Kind]| kinds.iter().map(|kind| (*kind, "/a".into())).collect();
        assert_eq!(sent(&registry), vec![(OpCode::SetWatches2, expected(&left))]);
        registry.fired(&event(EventType::NodeDataChanged, "/b"));
        assert_eq!(sent(&registry), vec![(OpCode::SetWatches2, expected(&left))]);
        all(&mut registry);
        registry.fired(&event(EventType::NodeDeleted, "/a"));
        let left = [Kind::Persistent, Kind::PersistentRecursive];
        assert_eq!(sent(&registry), vec![(OpCode::SetWatches2, expected(&left))]);
    }

    #[test]
    fn only_persistent_watches_need_the_newer_request() {
        let mut registry = WatchRegistry::default();
        assert_eq!(sent(&registry), vec![]);
        registry.insert(Kind::Data, "/a");
        registry.insert(Kind::Data, "/a");
        assert_eq!(sent(&registry), vec![(OpCode::SetWatches, vec![(Kind::Data, "/a".into())])]);
        registry.remove("/a", WatcherType::Children);
        assert_eq!(sent(&registry).len(), 1);
        registry.remove("/a", WatcherType::Any);
        assert_eq!(sent(&registry), vec![]);
    }

    #[test]
    fn many_watches_are_set_in_requests_below_the_limit_and_none_is_lost() {
        let mut registry = WatchRegistry::default();
        for number in 0..10_000 {
            registry.insert(KINDS[number % 5], &format!("/a/long/path/to/the/znode-{number:010}"));
        }
        registry.insert(Kind::Data, &format!("/{}", "x".repeat(100_000)));
        // `sent` takes no frame above the limit.
        let requests = sent(&registry);
        assert!(requests.len() > 3);
        assert_eq!(requests.iter().map(|(_, paths)| paths.len()).sum::<usize>(), 10_001);
    }
}
