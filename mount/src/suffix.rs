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

/// Why a suffix makes no sense. The text itself is in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuffixError {
    /// `@foo`.
    #[error(
        "a word of its suffix is unknown: there are eph, seq, fd, pid=N, ttl=TIME and container"
    )]
    Unknown,
    /// `@eph,eph`.
    #[error("a word of its suffix stands there twice")]
    Twice,
    /// `@eph=1`.
    #[error("a word of its suffix takes no value: only pid=N and ttl=TIME have one")]
    Value,
    /// `@ttl`, `@ttl=x`.
    #[error(
        "its time to live is none: write a number with ms, s, m, h or d, at most 12725d, as in @ttl=30s"
    )]
    TimeToLive,
    /// `@pid`, `@pid=0`.
    #[error("its process is none: write the number of a process, as in @pid=$$")]
    Process,
    /// `@eph,ttl=30s`.
    #[error(
        "its suffix contradicts itself: a znode is either ephemeral (eph, fd, pid) or has a ttl or is a \
         container, and a container has no seq"
    )]
    Contradiction,
    /// `@eph@seq`.
    #[error("a suffix stands before its suffix: join the words with commas, as in @seq,eph")]
    Nested,
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
    /// Reads the text behind the `@`.
    ///
    /// # Errors
    /// Unknown, doubled or contradicting items, a time or process that is none.
    pub fn parse(text: &str) -> Result<Suffix, SuffixError> {
        let mut suffix = Suffix::default();
        for item in text.split(',') {
            match item.split_once('=').map_or((item, None), |(key, value)| (key, Some(value))) {
                ("pid", value) => {
                    let number = value.and_then(parse_process).ok_or(SuffixError::Process)?;
                    set_once(&mut suffix.process, number)?;
                }
                ("ttl", value) => {
                    let time = value.and_then(parse_duration).ok_or(SuffixError::TimeToLive)?;
                    set_once(&mut suffix.time_to_live, time)?;
                }
                (key, value) => {
                    let flag = suffix.flag(key).ok_or(SuffixError::Unknown)?;
                    if value.is_some() {
                        return Err(SuffixError::Value);
                    }
                    if std::mem::replace(flag, true) {
                        return Err(SuffixError::Twice);
                    }
                }
            }
        }
        if suffix.is_consistent() { Ok(suffix) } else { Err(SuffixError::Contradiction) }
    }

    fn flag(&mut self, key: &str) -> Option<&mut bool> {
        match key {
            "eph" => Some(&mut self.ephemeral),
            "seq" => Some(&mut self.sequential),
            "fd" => Some(&mut self.file_descriptor),
            "container" => Some(&mut self.container),
            _ => None,
        }
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

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), SuffixError> {
    if place.replace(value).is_some() { Err(SuffixError::Twice) } else { Ok(()) }
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
    fn nonsense_is_refused_with_the_reason() {
        use SuffixError::*;
        for (text, reason) in [
            ("", Unknown),
            ("eph,eph", Twice),
            ("eph,", Unknown),
            ("seq,foo", Unknown),
            ("eph=1", Value),
            ("ttl=x", TimeToLive),
            ("ttl", TimeToLive),
            ("pid", Process),
            ("pid=0", Process),
            ("pid=-1", Process),
            ("pid=2147483648", Process),
            ("pid=1,pid=2", Twice),
            ("ttl=1s,ttl=1s", Twice),
            ("eph,ttl=1s", Contradiction),
            ("container,seq", Contradiction),
            ("container,eph", Contradiction),
            ("container,ttl=1s", Contradiction),
            ("fd,container", Contradiction),
        ] {
            assert_eq!(Suffix::parse(text), Err(reason), "{text}");
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
