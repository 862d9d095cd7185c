//! The values of files that were read lately, kept right by events: whoever is told of a change
//! removes the value before anybody can be given it. Bounded in bytes; those read longest ago go
//! first. No I/O, and time is passed in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use znodefs::Stat;

/// What a value costs beside its bytes.
const OVERHEAD: usize = 256;

/// How long a value is trusted without having been asked for: servers tell nothing of a znode any
/// more once its ACL denies the mount to read it, and nothing of that change either.
const AGE_MAX: Duration = Duration::from_secs(60);

/// A value as a server gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedValue {
    /// The data; `None` is null.
    pub data: Option<Bytes>,
    /// The znode's stat.
    pub stat: Stat,
}

struct Kept {
    value: CachedValue,
    since: Instant,
}

/// The values.
pub struct ValueCache {
    values: LruCache<Arc<str>, Kept>,
    /// Bytes in use and allowed.
    size: usize,
    size_max: usize,
}

fn cost(path: &str, value: &CachedValue) -> usize {
    OVERHEAD + path.len() + value.data.as_ref().map_or(0, Bytes::len)
}

impl ValueCache {
    /// An empty cache of at most this many bytes; 0 keeps nothing.
    pub fn new(size_max: usize) -> ValueCache {
        ValueCache { values: LruCache::unbounded(), size: 0, size_max }
    }

    /// Keeps the value of a znode.
    pub fn insert(&mut self, path: Arc<str>, value: CachedValue, now: Instant) {
        let cost = cost(&path, &value);
        self.remove(&path);
        if cost > self.size_max {
            return;
        }
        self.values.put(path, Kept { value, since: now });
        self.size += cost;
        while self.size > self.size_max {
            let Some((path, kept)) = self.values.pop_lru() else { return };
            self.size -= self::cost(&path, &kept.value);
        }
    }

    /// The value of a znode, if it is known.
    pub fn get(&mut self, path: &str, now: Instant) -> Option<CachedValue> {
        let kept = self.values.get(path)?;
        if now.duration_since(kept.since) > AGE_MAX {
            self.remove(path);
            return None;
        }
        Some(kept.value.clone())
    }

    /// A znode's value is not known any more.
    pub fn remove(&mut self, path: &str) {
        if let Some(kept) = self.values.pop(path) {
            self.size -= cost(path, &kept.value);
        }
    }

    /// No value is known any more.
    pub fn clear(&mut self) {
        self.values.clear();
        self.size = 0;
    }

    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(length: usize) -> CachedValue {
        CachedValue { data: Some(vec![7; length].into()), stat: Stat::default() }
    }

    #[allow(clippy::disallowed_methods, reason = "any point in time does for a test")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn values_are_kept_until_something_is_told_of_them() {
        let mut cache = ValueCache::new(10_000);
        cache.insert("/a".into(), value(10), now());
        assert_eq!(cache.get("/a", now()), Some(value(10)));
        cache.insert("/a".into(), value(20), now());
        assert_eq!(cache.size(), OVERHEAD + 2 + 20);
        cache.remove("/a");
        assert_eq!((cache.get("/a", now()), cache.size()), (None, 0));
        cache.insert("/a".into(), value(10), now());
        cache.clear();
        assert_eq!((cache.get("/a", now()), cache.size()), (None, 0));
    }

    #[test]
    fn memory_is_bounded_and_what_was_read_lately_stays() {
        let mut cache = ValueCache::new(3 * (OVERHEAD + 2 + 100));
        for path in ["/a", "/b", "/c"] {
            cache.insert(path.into(), value(100), now());
        }
        cache.get("/a", now());
        cache.insert("/d".into(), value(100), now());
        let kept = ["/a", "/b", "/c", "/d"].map(|path| cache.get(path, now()).is_some());
        assert_eq!(kept, [true, false, true, true]);
        cache.insert("/large".into(), value(10_000), now());
        assert!(cache.get("/large", now()).is_none() && cache.get("/d", now()).is_some());
        let mut nothing = ValueCache::new(0);
        nothing.insert("/a".into(), value(0), now());
        assert_eq!(nothing.size(), 0);
    }

    #[test]
    fn an_old_value_is_asked_for_again() {
        let mut cache = ValueCache::new(10_000);
        let since = now();
        cache.insert("/a".into(), value(10), since);
        assert!(cache.get("/a", since + AGE_MAX).is_some());
        assert!(cache.get("/a", since + AGE_MAX + Duration::from_millis(1)).is_none());
    }
}
