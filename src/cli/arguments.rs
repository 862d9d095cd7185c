//! Reading of arguments that several commands share. Everything wrong here is wrong usage.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::failure::Failure;

/// A znode's path.
pub fn parse_path(text: &str) -> Result<String, String> {
    match znodefs::path::validate(text) {
        Ok(()) => Ok(text.to_string()),
        Err(error) => Err(error.reason.to_string()),
    }
}

/// A znode's path, but not the root, which nobody can create or remove.
pub fn parse_path_below_root(text: &str) -> Result<String, String> {
    match text {
        "/" => Err("it is the root, which is always there".into()),
        text => parse_path(text),
    }
}

/// `10s`, `500ms`, `2m`, `1h`, `1d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("'{text}' is not a duration such as 10s, 500ms, 2m or 1h");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1.0,
        "" | "s" => 1e3,
        "m" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return Err(error()),
    };
    let number: f64 = digits.parse().map_err(|_| error())?;
    let milliseconds = number * unit_ms;
    // The protocol counts session timeouts in milliseconds of 31 bits, times to live in 40.
    if !(1.0..1e12).contains(&milliseconds) {
        return Err(error());
    }
    Ok(Duration::from_millis(milliseconds as u64))
}

/// How long to wait; 0 stands for not at all.
pub fn parse_patience(text: &str) -> Result<Duration, String> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// A list of `SCHEME:ID:PERMISSIONS`.
pub fn parse_acl(text: &str) -> Result<AclList, String> {
    znodefs::Acl::parse_list(text).map(AclList).map_err(|error| error.to_string())
}

/// An access control list as one argument.
#[derive(Clone, Debug)]
pub struct AclList(pub Vec<znodefs::Acl>);

/// The bytes that an argument stands for: itself, or standard input for `-`.
pub fn data_argument(argument: &OsStr) -> Result<Bytes, Failure> {
    if argument != "-" {
        return Ok(Bytes::copy_from_slice(argument.as_bytes()));
    }
    let mut data = Vec::new();
    std::io::stdin()
        .read_to_end(&mut data)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    Ok(data.into())
}

/// The bytes of a file.
pub fn data_file(file: &PathBuf) -> Result<Bytes, Failure> {
    match std::fs::read(file) {
        Ok(data) => Ok(data.into()),
        Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", file.display()))),
    }
}

/// The data of a command that takes DATA or `--file`; `None` where neither is given.
pub fn data_of(
    argument: Option<&OsString>,
    file: Option<&PathBuf>,
) -> Result<Option<Bytes>, Failure> {
    match (argument, file) {
        (Some(argument), _) => data_argument(argument).map(Some),
        (None, Some(file)) => data_file(file).map(Some),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bare_numbers_are_seconds() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "0", "1y", "1 s", "inf", "nan", "1e300"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
