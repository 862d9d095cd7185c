//! Counters of what the replica does, for the four-letter words. Relaxed atomics; nothing waits here.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Least, mean and greatest of a latency in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencySummary {
    /// The least.
    pub min_ms: u64,
    /// The mean.
    pub average_ms: f64,
    /// The greatest.
    pub max_ms: u64,
}

/// A running summary of latencies that is changed under somebody else's lock.
#[derive(Clone, Copy, Debug)]
pub struct LatencyMeter {
    count: u64,
    total_ms: u64,
    min_ms: u64,
    max_ms: u64,
}

impl Default for LatencyMeter {
    fn default() -> LatencyMeter {
        LatencyMeter { count: 0, total_ms: 0, min_ms: u64::MAX, max_ms: 0 }
    }
}

impl LatencyMeter {
    /// Takes in `count` requests of one latency.
    pub fn add(&mut self, latency_ms: u64, count: u64) {
        self.count += count;
        self.total_ms += latency_ms * count;
        self.min_ms = self.min_ms.min(latency_ms);
        self.max_ms = self.max_ms.max(latency_ms);
    }

    /// What came of it.
    pub fn summary(&self) -> LatencySummary {
        summary(self.count, self.total_ms, self.min_ms, self.max_ms)
    }
}

fn summary(count: u64, total_ms: u64, min_ms: u64, max_ms: u64) -> LatencySummary {
    if count == 0 {
        return LatencySummary::default();
    }
    LatencySummary { min_ms, average_ms: total_ms as f64 / count as f64, max_ms }
}

/// Counters of the whole replica.
#[derive(Debug)]
pub struct Metrics {
    packets_received: AtomicU64,
    packets_sent: AtomicU64,
    latency_count: AtomicU64,
    latency_total_ms: AtomicU64,
    latency_min_ms: AtomicU64,
    latency_max_ms: AtomicU64,
    outstanding: AtomicI64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            packets_received: AtomicU64::new(0),
            packets_sent: AtomicU64::new(0),
            latency_count: AtomicU64::new(0),
            latency_total_ms: AtomicU64::new(0),
            latency_min_ms: AtomicU64::new(u64::MAX),
            latency_max_ms: AtomicU64::new(0),
            outstanding: AtomicI64::new(0),
        }
    }
}

impl Metrics {
    /// Requests came in.
    pub fn add_received(&self, count: u64) {
        self.packets_received.fetch_add(count, Relaxed);
    }

    /// Replies or notifications went out.
    pub fn add_sent(&self, count: u64) {
        self.packets_sent.fetch_add(count, Relaxed);
    }

    /// Requests were answered after `latency_ms`.
    pub fn add_latency(&self, latency_ms: u64, count: u64) {
        self.latency_count.fetch_add(count, Relaxed);
        if latency_ms > 0 {
            self.latency_total_ms.fetch_add(latency_ms * count, Relaxed);
            self.latency_max_ms.fetch_max(latency_ms, Relaxed);
        }
        // Nearly always already at its minimum: a load is cheaper than a read-modify-write.
        if self.latency_min_ms.load(Relaxed) > latency_ms {
            self.latency_min_ms.fetch_min(latency_ms, Relaxed);
        }
    }

    /// Requests were handed to the core (or, negative, answered by it).
    pub fn add_outstanding(&self, count: i64) {
        self.outstanding.fetch_add(count, Relaxed);
    }

    /// Requests that the core has not answered yet.
    pub fn outstanding(&self) -> u64 {
        self.outstanding.load(Relaxed).max(0) as u64
    }

    /// Requests received.
    pub fn packets_received(&self) -> u64 {
        self.packets_received.load(Relaxed)
    }

    /// Replies and notifications sent.
    pub fn packets_sent(&self) -> u64 {
        self.packets_sent.load(Relaxed)
    }

    /// Latencies since the start or the last reset.
    pub fn latency(&self) -> LatencySummary {
        summary(
            self.latency_count.load(Relaxed),
            self.latency_total_ms.load(Relaxed),
            self.latency_min_ms.load(Relaxed),
            self.latency_max_ms.load(Relaxed),
        )
    }

    /// Forgets everything but what is outstanding (`srst`).
    pub fn reset(&self) {
        let counters = [
            &self.packets_received,
            &self.packets_sent,
            &self.latency_count,
            &self.latency_total_ms,
            &self.latency_max_ms,
        ];
        counters.into_iter().for_each(|counter| counter.store(0, Relaxed));
        self.latency_min_ms.store(u64::MAX, Relaxed);
    }
}
