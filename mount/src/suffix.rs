//! The suffixes by which a name asks for a special creation: `NAME@eph,seq`. No I/O; escaping and
//! everything else about names lives in [`crate::naming`].

use std::time::Duration;

use znodefs::CreateMode;

/// How a znode is to be created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suffix {
    /// `@eph`: it lives as long as the session.
    pub ephemeral: bool,
    /// `@seq`: a counter is appended to its name.
    pub sequential: bool,
    /// `@fd`: it lives as long as the open file that creates it.
    pub file_descriptor: bool,
    /// `@pid=N`: it lives as long as this process.
    pub process: Option<u32>,
    /// `@ttl=30s`: the service deletes it when it was not set for so long.
    pub time_to_live: Option<Duration>,
    /// `@container`: the service deletes it once its last child is gone.
    pub container: bool,
}

/// Longest time to live that the service stores: 40 bits of milliseconds.
const TIME_TO_LIVE_MS_MAX: u64 = (1 << 40) - 1;

const KEYS: [&str; 6] = ["eph", "seq", "fd", "pid", "ttl", "container"];

/// Whether a text is meant as suffixes: every item between its commas starts with one of our words.
/// What such a text says may still make no sense.
pub fn is_suffix(text: &str) -> bool {
    text.split(',').all(|item| KEYS.contains(&item.split_once('=').map_or(item, |(key, _)| key)))
}

impl Suffix {
    /// Reads the text behind the `@`; `None` when it makes no sense: unknown, doubled or
    /// contradicting items, a time or process that is none.
    pub fn parse(text: &str) -> Option<Suffix> {
        let mut suffix = Suffix::default();
        for item in text.split(',') {
            match item.split_once('=') {
                None => suffix.set_flag(item)?,
                Some(("pid", number)) if suffix.process.is_none() => {
                    suffix.process = Some(parse_process(number)?);
                }
                Some(("ttl", time)) if suffix.time_to_live.is_none() => {
                    suffix.time_to_live = Some(parse_duration(time)?);
                }
                Some(_) => return None,
            }
        }
        suffix.is_consistent().then_some(suffix)
    }

    fn set_flag(&mut self, item: &str) -> Option<()> {
        let flag = match item {
            "eph" => &mut self.ephemeral,
            "seq" => &mut self.sequential,
            "fd" => &mut self.file_descriptor,
            "container" => &mut self.container,
            _ => return None,
        };
        (!std::mem::replace(flag, true)).then_some(())
    }

    /// Whether nothing in it contradicts something else.
    pub fn is_consistent(&self) -> bool {
        let kinds = [self.is_ephemeral(), self.time_to_live.is_some(), self.container];
        let one_kind = kinds.iter().filter(|kind| **kind).count() <= 1;
        // The service has no sequential containers.
        one_kind && !(self.container && self.sequential)
    }

    /// Whether the znode goes with the session at the latest.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral || self.file_descriptor || self.process.is_some()
    }

    /// The service's mode of creation.
    pub fn create_mode(&self) -> CreateMode {
        match (self.is_ephemeral(), self.time_to_live.is_some(), self.sequential) {
            _ if self.container => CreateMode::Container,
            (true, _, false) => CreateMode::Ephemeral,
            (true, _, true) => CreateMode::EphemeralSequential,
            (_, true, false) => CreateMode::PersistentWithTtl,
            (_, true, true) => CreateMode::PersistentSequentialWithTtl,
            (false, false, false) => CreateMode::Persistent,
            (false, false, true) => CreateMode::PersistentSequential,
        }
    }

    /// The time to live in the service's unit; 0 when there is none.
    pub fn time_to_live_ms(&self) -> i64 {
        // `parse` allows no more than 40 bits.
        self.time_to_live.map_or(0, |time| time.as_millis() as i64)
    }
}

fn parse_process(text: &str) -> Option<u32> {
    let number = parse_number(text)?;
    // A pid is a positive i32.
    (1..=i32::MAX as u64).contains(&number).then_some(number as u32)
}

/// A whole number and a unit: `ms`, `s`, `m`, `h`, `d`.
fn parse_duration(text: &str) -> Option<Duration> {
    let unit_start = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_start);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let time_ms = parse_number(number)?.checked_mul(unit_ms)?;
    (1..=TIME_TO_LIVE_MS_MAX).contains(&time_ms).then(|| Duration::from_millis(time_ms))
}

/// Digits only: no sign, no spaces.
fn parse_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_join_with_commas() {
        let suffix = Suffix::parse("seq,fd").unwrap();
        assert_eq!(suffix.create_mode(), CreateMode::EphemeralSequential);
        assert!(suffix.file_descriptor && !suffix.ephemeral);
        let suffix = Suffix::parse("ttl=30s,seq").unwrap();
        assert_eq!(suffix.create_mode(), CreateMode::PersistentSequentialWithTtl);
        assert_eq!(suffix.time_to_live_ms(), 30_000);
        assert_eq!(Suffix::parse("pid=42").unwrap().process, Some(42));
        assert_eq!(Suffix::parse("container").unwrap().create_mode(), CreateMode::Container);
    }

    #[test]
    fn times_have_a_unit_and_a_limit() {
        for (text, time_ms) in [("1ms", 1), ("2s", 2_000), ("3m", 180_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(time_ms)));
        }
        assert_eq!(parse_duration("12725d"), Some(Duration::from_secs(12_725 * 86_400)));
        for text in ["", "30", "s", "0s", "-1s", "+1s", "1.5s", "30 s", "12726d", "99999999999999d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn nonsense_is_none() {
        for text in [
            "",
            "eph,eph",
            "eph,",
            "seq,foo",
            "eph=1",
            "ttl=x",
            "ttl",
            "pid",
            "pid=0",
            "pid=-1",
            "pid=2147483648",
            "pid=1,pid=2",
            "ttl=1s,ttl=1s",
            "eph,ttl=1s",
            "container,seq",
            "container,eph",
            "container,ttl=1s",
            "fd,container",
        ] {
            assert_eq!(Suffix::parse(text), None, "{text}");
        }
    }

    #[test]
    fn texts_of_our_words_are_meant_as_suffixes() {
        for text in ["eph", "ttl=x", "eph,eph", "pid", "fd=3", "seq,ttl="] {
            assert!(is_suffix(text), "{text}");
        }
        for text in ["", "example.com", "eph,foo", "ephemeral", "eph,", "dir"] {
            assert!(!is_suffix(text), "{text}");
        }
    }
}
