//! How times and stats are written for people and for programs.

use std::fmt::Write;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use znodefs::Stat;

/// A path as it can be pasted into a shell's command line.
pub fn shell_word(path: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "/-_.:,@%+=".contains(letter);
    if path.chars().all(plain) { path.into() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// A time in milliseconds since 1970 as `2026-01-31T12:00:00.000Z`.
pub fn format_time(milliseconds: i64) -> String {
    let (days, of_day) = (milliseconds.div_euclid(86_400_000), milliseconds.rem_euclid(86_400_000));
    let (year, month, day) = civil_date(days);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar: counted from the
/// first of March, leap days come last and months have a regular length.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_TO_1970_FROM_MARCH_OF_0: i64 = 719_468;
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_MARCH_OF_0;
    let (era, of_era) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year_of_era =
        (of_era - of_era / 1460 + of_era / 36_524 - of_era / (DAYS_IN_400_YEARS - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// One line of a long listing, without the name.
pub fn format_columns(stat: &Stat) -> String {
    let kind = if stat.ephemeral_owner.0 != 0 { 'e' } else { '-' };
    let time = format_time(stat.mtime);
    let Stat { version, data_length, num_children, .. } = stat;
    format!("{kind} {version:>6} {data_length:>8} {num_children:>6} {time}")
}

/// A stat as lines `name = value`, with ZooKeeper's names.
pub fn format_stat(stat: &Stat) -> String {
    let mut text = String::new();
    for (name, value) in fields(stat) {
        let value = match name {
            "ctime" | "mtime" => format_time(value),
            "czxid" | "mzxid" | "pzxid" | "ephemeralOwner" => format!("0x{value:x}"),
            _ => value.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

/// A stat as one line of JSON; times are milliseconds since 1970. Zxids and the session are strings
/// in hexadecimal, since many readers of JSON lose the low bits of long integers.
pub fn format_stat_json(path: &str, data: Option<&str>, stat: &Stat) -> String {
    let mut text = format!("{{\"path\":{}", json_string(path));
    if let Some(data) = data {
        let _ = write!(text, ",\"data\":{}", json_string(data));
    }
    for (name, value) in fields(stat) {
        let _ = match name {
            "czxid" | "mzxid" | "pzxid" | "ephemeralOwner" => {
                write!(text, ",\"{name}\":\"0x{value:x}\"")
            }
            _ => write!(text, ",\"{name}\":{value}"),
        };
    }
    text.push('}');
    text
}

fn fields(stat: &Stat) -> [(&'static str, i64); 11] {
    [
        ("czxid", stat.czxid.0),
        ("ctime", stat.ctime),
        ("mzxid", stat.mzxid.0),
        ("mtime", stat.mtime),
        ("pzxid", stat.pzxid.0),
        ("cversion", stat.cversion.into()),
        ("version", stat.version.into()),
        ("aversion", stat.aversion.into()),
        ("ephemeralOwner", stat.ephemeral_owner.0),
        ("dataLength", stat.data_length.into()),
        ("numChildren", stat.num_children.into()),
    ]
}

/// A text that others have written, on one line and without a terminal's control characters.
pub fn printable(text: &str) -> String {
    let replaced = |letter: char| if letter.is_control() { '?' } else { letter };
    text.chars().map(replaced).collect()
}

/// Resolves when standard output is a pipe or socket that nobody reads any more.
pub async fn reader_gone() {
    let (sender, gone) = tokio::sync::oneshot::channel::<()>();
    // A thread, since a descriptor shared with others must not be made non-blocking.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        let mut descriptors = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        // Errors are reported unasked. For a file nothing is: it has no reader to lose.
        while nix::poll::poll(&mut descriptors, PollTimeout::NONE) == Err(Errno::EINTR) {}
        let is_error = PollFlags::POLLERR | PollFlags::POLLHUP;
        if descriptors[0].revents().is_some_and(|events| events.intersects(is_error)) {
            let _ = sender.send(());
        }
    });
    if gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub fn json_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if (control as u32) < 0x20 => {
                let _ = write!(quoted, "\\u{:04x}", control as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_the_gregorian_calendar() {
        for (milliseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_123, "2024-02-29T23:59:59.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format_time(milliseconds), text);
        }
    }

    #[test]
    fn hints_can_be_pasted_into_a_shell() {
        assert_eq!(shell_word("/a-b/c.d"), "/a-b/c.d");
        assert_eq!(shell_word("/it's $x"), r"'/it'\''s $x'");
    }

    #[test]
    fn json_escapes_what_it_must() {
        let json = format_stat_json("/a\"b\\c", Some("null"), &Stat::default());
        assert!(json.starts_with(r#"{"path":"/a\"b\\c","data":"null","czxid":"0x0","ctime":0,"#));
        assert!(json.ends_with(r#""numChildren":0}"#));
    }
}
