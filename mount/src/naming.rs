//! Names: what a znode is called in the mount, and what a name asks for. The mapping between znode
//! names and file names is one to one both ways. No I/O; the suffixes of creation are taken apart
//! in [`crate::suffix`].
//!
//! A name is *reserved* when the text behind its last `@` has a meaning here: `dir`, a list of
//! creation suffixes, and (where nothing stands before the `@`) `data`, and `status` at the root.
//! A reserved name with a single `@` there is one of ours; every further `@` in that place belongs
//! to a znode's own name, which is why a znode with a reserved name is shown with one `@` more.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use znodefs::path::is_forbidden;

use crate::suffix::{self, Suffix, SuffixError};

/// Longest name in bytes that is shown or accepted (`NAME_MAX`).
pub const NAME_LENGTH_MAX: usize = 255;

/// The data of a directory.
pub const DATA: &str = "@data";

/// The directory of status files at the mount's root.
pub const STATUS: &str = "@status";

/// What a file name inside a directory stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileName {
    /// The znode of this name.
    Znode(String),
    /// The znode of this name, seen as a directory (`NAME@dir`).
    AsDirectory(String),
    /// The directory's own data (`@data`).
    Data,
    /// The status directory (`@status` at the root).
    Status,
    /// A request to create a znode of this name in a special way; no such file ever exists.
    Creation(String, Suffix),
}

/// Why a file name stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Over [`NAME_LENGTH_MAX`].
    #[error("the name is longer than {NAME_LENGTH_MAX} bytes")]
    TooLong,
    /// Not UTF-8, or with characters that a znode's name cannot hold.
    #[error("a znode cannot have this name")]
    Invalid,
    /// A suffix that makes no sense, such as `@ttl=x` or `@eph,eph`.
    #[error("{0}")]
    Suffix(SuffixError),
}

/// What the text behind a name's last run of `@` means, if it means anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserved {
    Directory,
    Data,
    Status,
    Creation,
}

/// A name cut at its last run of `@`: what stands before, the length of the run, what stands behind.
struct Cut<'a> {
    before: &'a str,
    run: usize,
    behind: &'a str,
    reserved: Reserved,
}

fn cut(name: &str, at_root: bool) -> Option<Cut<'_>> {
    let last = name.rfind('@')?;
    let behind = &name[last + 1..];
    let before = name[..last].trim_end_matches('@');
    let run = last + 1 - before.len();
    let reserved = match behind {
        "dir" => Reserved::Directory,
        "data" if before.is_empty() => Reserved::Data,
        "status" if before.is_empty() && at_root => Reserved::Status,
        behind if suffix::is_suffix(behind) => Reserved::Creation,
        _ => return None,
    };
    Some(Cut { before, run, behind, reserved })
}

/// The file name that shows a znode in its parent's directory; `None` when the name is too long to
/// be shown. `at_root` says whether the parent is the mount's root.
pub fn file_name(znode_name: &str, at_root: bool) -> Option<String> {
    let name = match cut(znode_name, at_root) {
        None => znode_name.to_string(),
        Some(Cut { before, run, behind, .. }) => {
            format!("{before}{}{behind}", "@".repeat(run + 1))
        }
    };
    (name.len() <= NAME_LENGTH_MAX).then_some(name)
}

/// What a file name stands for in a directory; `at_root` says whether that is the mount's root.
pub fn parse(file_name: &OsStr, at_root: bool) -> Result<FileName, NameError> {
    if file_name.len() > NAME_LENGTH_MAX {
        return Err(NameError::TooLong);
    }
    let name = std::str::from_utf8(file_name.as_bytes()).map_err(|_| NameError::Invalid)?;
    let Some(Cut { before, run, behind, reserved }) = cut(name, at_root) else {
        return Ok(FileName::Znode(valid_znode_name(name.to_string())?));
    };
    if run > 1 {
        let znode_name = format!("{before}{}{behind}", "@".repeat(run - 1));
        return Ok(FileName::Znode(valid_znode_name(znode_name)?));
    }
    match reserved {
        Reserved::Data => Ok(FileName::Data),
        Reserved::Status => Ok(FileName::Status),
        Reserved::Directory => Ok(FileName::AsDirectory(plain_znode_name(before, at_root)?)),
        Reserved::Creation => {
            let suffix = Suffix::parse(behind).map_err(NameError::Suffix)?;
            // A sequential znode may consist of its counter alone.
            let znode_name = if before.is_empty() && suffix.sequential {
                String::new()
            } else {
                plain_znode_name(before, at_root)?
            };
            Ok(FileName::Creation(znode_name, suffix))
        }
    }
}

/// The znode that a name without a meaning of its own stands for.
fn plain_znode_name(name: &str, at_root: bool) -> Result<String, NameError> {
    match parse(OsStr::new(name), at_root)? {
        FileName::Znode(name) => Ok(name),
        _ => Err(NameError::Suffix(SuffixError::Nested)),
    }
}

fn valid_znode_name(name: String) -> Result<String, NameError> {
    let valid = !matches!(name.as_str(), "" | "." | "..") && !name.chars().any(is_forbidden);
    if valid { Ok(name) } else { Err(NameError::Invalid) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(name: &str) -> Result<FileName, NameError> {
        parse(OsStr::new(name), false)
    }

    fn znode(name: &str) -> Result<FileName, NameError> {
        Ok(FileName::Znode(name.to_string()))
    }

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        for name in ["a", "user@example.com", "a@", "@", "@@", "a@b@c", "x@direct", "@dat", "ü"] {
            assert_eq!(file_name(name, false).as_deref(), Some(name));
            assert_eq!(parsed(name), znode(name), "{name}");
        }
    }

    #[test]
    fn reserved_names_are_shown_with_one_more_at_sign() {
        for (name, shown) in [
            ("a@eph", "a@@eph"),
            ("a@@eph", "a@@@eph"),
            ("a@ttl=x", "a@@ttl=x"),
            ("a@eph,eph", "a@@eph,eph"),
            ("@data", "@@data"),
            ("@@data", "@@@data"),
            ("a@dir", "a@@dir"),
            ("@dir", "@@dir"),
            ("@seq", "@@seq"),
            ("a@eph@dir", "a@eph@@dir"),
        ] {
            assert_eq!(file_name(name, false).as_deref(), Some(shown));
            assert_eq!(parsed(shown), znode(name), "{shown}");
        }
    }

    #[test]
    fn status_is_reserved_at_the_root_only() {
        assert_eq!(file_name("@status", true).as_deref(), Some("@@status"));
        assert_eq!(file_name("@status", false).as_deref(), Some("@status"));
        assert_eq!(parse(OsStr::new("@status"), true), Ok(FileName::Status));
        assert_eq!(parsed("@status"), znode("@status"));
    }

    #[test]
    fn names_of_ours_are_recognised() {
        assert_eq!(parsed("@data"), Ok(FileName::Data));
        assert_eq!(parsed("a@dir"), Ok(FileName::AsDirectory("a".into())));
        assert_eq!(parsed("a@@eph@dir"), Ok(FileName::AsDirectory("a@eph".into())));
        assert_eq!(parsed("@data@dir"), Err(NameError::Suffix(SuffixError::Nested)));
        assert_eq!(parsed("a@eph@dir"), Err(NameError::Suffix(SuffixError::Nested)));
        assert_eq!(parsed("@dir"), Err(NameError::Invalid));
        assert_eq!(parsed("@eph"), Err(NameError::Invalid));
        let Ok(FileName::Creation(name, suffix)) = parsed("n-@seq,eph") else { panic!() };
        assert_eq!(name, "n-");
        assert!(suffix.sequential && suffix.ephemeral);
        let Ok(FileName::Creation(name, _)) = parsed("@seq") else { panic!() };
        assert_eq!(name, "");
    }

    #[test]
    fn suffix_nonsense_is_refused() {
        for name in ["a@ttl=x", "a@eph,eph", "a@pid=0", "a@ttl", "a@eph=1", "a@container,seq"] {
            assert!(matches!(parsed(name), Err(NameError::Suffix(_))), "{name}");
        }
    }

    #[test]
    fn what_no_znode_can_be_called_is_refused() {
        assert_eq!(parsed("a\u{1}"), Err(NameError::Invalid));
        assert_eq!(parsed("\u{1f600}"), Err(NameError::Invalid));
        assert_eq!(parse(OsStr::from_bytes(b"\xff"), false), Err(NameError::Invalid));
        assert_eq!(parsed(&"x".repeat(256)), Err(NameError::TooLong));
        assert_eq!(file_name(&"x".repeat(255), false).map(|name| name.len()), Some(255));
        assert_eq!(file_name(&"x".repeat(256), false), None);
        // One byte too long once it is escaped.
        assert_eq!(file_name(&format!("{}@eph", "x".repeat(251)), false), None);
    }

    /// Names made of the pieces that matter, beside arbitrary ones.
    fn names() -> impl Strategy<Value = String> {
        let pieces = proptest::sample::select(vec![
            "@",
            "@",
            "eph",
            "seq",
            "fd",
            "pid=7",
            "ttl=30s",
            "container",
            "dir",
            "data",
            "status",
            ",",
            "a",
            "=",
            "x",
        ]);
        prop_oneof![
            3 => proptest::collection::vec(pieces, 1..8).prop_map(|pieces| pieces.concat()),
            1 => "[^/\0]{1,12}",
        ]
    }

    fn is_znode_name(name: &str) -> bool {
        valid_znode_name(name.to_string()).is_ok()
    }

    proptest! {
        #[test]
        fn every_znode_name_comes_back_from_its_file_name(name in names(), at_root: bool) {
            prop_assume!(is_znode_name(&name));
            let shown = file_name(&name, at_root).unwrap();
            prop_assert_eq!(parse(OsStr::new(&shown), at_root), Ok(FileName::Znode(name)));
        }

        #[test]
        fn every_file_name_of_a_znode_comes_back_from_the_znode(name in names(), at_root: bool) {
            if let Ok(FileName::Znode(znode_name)) = parse(OsStr::new(&name), at_root) {
                prop_assert_eq!(file_name(&znode_name, at_root), Some(name));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, at_root: bool) {
            let _ = parse(OsStr::from_bytes(&bytes), at_root);
        }
    }
}
