//! Which server is tried next, and when: a shuffled list gone through in turn, and a growing pause
//! with jitter before every further round. No I/O; chance comes from a seed.

use std::time::Duration;

/// Pause before the second round of failures; it doubles with every further one.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The greatest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct HostList {
    servers: Vec<(String, u16)>,
    next: usize,
    /// Failures since a connection last proved good.
    failures: usize,
    random: Random,
}

impl HostList {
    pub fn new(mut servers: Vec<(String, u16)>, seed: u64) -> HostList {
        let mut random = Random(seed);
        random.shuffle(&mut servers);
        HostList { servers, next: 0, failures: 0, random }
    }

    /// The server to try, and how long to wait before: a first round goes through the whole list
    /// without waiting. `None` when the list is empty.
    pub fn next(&mut self) -> Option<(String, u16, Duration)> {
        let (host, port) = self.servers.get(self.next)?.clone();
        self.next = (self.next + 1) % self.servers.len();
        let round = self.failures / self.servers.len();
        let starts_round = self.failures.is_multiple_of(self.servers.len());
        let pause = if round > 0 && starts_round { self.pause(round) } else { Duration::ZERO };
        Some((host, port, pause))
    }

    /// Half to all of the round's pause.
    fn pause(&mut self, round: usize) -> Duration {
        let doublings = u32::try_from(round - 1).unwrap_or(u32::MAX).min(16);
        let pause = PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX);
        let half_micros = pause.as_micros() as u64 / 2;
        Duration::from_micros(half_micros + self.random.below(half_micros + 1))
    }

    /// All of them, in the order in which they are tried.
    pub fn servers(&self) -> &[(String, u16)] {
        &self.servers
    }

    /// The server at this place of the list is tried next, at once.
    pub fn prefer(&mut self, place: usize) {
        self.next = place % self.servers.len().max(1);
        self.failures = 0;
    }

    /// The last server did not take us, or not for long.
    pub fn failed(&mut self) {
        self.failures += 1;
    }

    /// The last server took us.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Orders the addresses of one host.
    pub fn shuffle<T>(&mut self, addresses: &mut [T]) {
        self.random.shuffle(addresses);
    }
}

/// SplitMix64: enough for shuffling and jitter.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str], seed: u64) -> HostList {
        HostList::new(names.iter().map(|name| (name.to_string(), 1)).collect(), seed)
    }

    #[test]
    fn every_server_is_tried_once_before_any_pause_and_pauses_grow_to_a_limit() {
        let mut hosts = list(&["a", "b", "c"], 1);
        let mut first_round = Vec::new();
        for _ in 0..3 {
            let (host, _, pause) = hosts.next().unwrap();
            assert_eq!(pause, Duration::ZERO);
            first_round.push(host);
            hosts.failed();
        }
        first_round.sort();
        assert_eq!(first_round, ["a", "b", "c"]);
        let mut pauses = Vec::new();
        for _ in 0..60 {
            pauses.push(hosts.next().unwrap().2);
            hosts.failed();
        }
        assert!(pauses[0] >= PAUSE_FIRST / 2 && pauses[0] <= PAUSE_FIRST);
        assert_eq!(pauses[1], Duration::ZERO);
        assert!(pauses[57] >= PAUSE_MAX / 2 && pauses[57] <= PAUSE_MAX);
        hosts.succeeded();
        assert_eq!(hosts.next().unwrap().2, Duration::ZERO);
    }

    #[test]
    fn the_order_comes_from_the_seed() {
        let order = |seed| {
            let mut hosts = list(&["a", "b", "c", "d", "e"], seed);
            (0..5).map(|_| hosts.next().unwrap().0).collect::<String>()
        };
        assert_eq!(order(3), order(3));
        assert!((0..20).any(|seed| order(seed) != order(3)));
        assert!(list(&[], 0).next().is_none());
    }
}
