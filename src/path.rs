//! Znode paths: what is a valid one, and how to take one apart. No I/O.
//!
//! Paths are plain `&str`, validated where they enter; every function here expects a valid path
//! unless it says otherwise.

/// Why a text is not a znode's path (`PathUtils.validatePath`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid path '{path}': {reason}")]
pub struct PathError {
    /// The text.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Checks a znode's path: absolute, no empty, `.` or `..` component, no trailing slash, no control
/// characters, surrogates, private-use or special characters (by UTF-16 unit, as the service counts,
/// so that characters beyond U+FFFF are refused too).
pub fn validate(path: &str) -> Result<(), PathError> {
    match invalid_reason(path) {
        None => Ok(()),
        Some(reason) => Err(PathError { path: path.to_string(), reason }),
    }
}

fn invalid_reason(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if !path.starts_with('/') {
        return Some("it must start with /");
    }
    if path == "/" {
        return None;
    }
    if path.ends_with('/') {
        return Some("it must not end with /");
    }
    for component in path[1..].split('/') {
        match component {
            "" => return Some("it has an empty component"),
            "." | ".." => return Some("it must not have . or .. as a component"),
            _ => {}
        }
    }
    if path.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) && path.chars().any(is_forbidden) {
        return Some("it has a character that znode names cannot hold");
    }
    None
}

/// Whether a character cannot stand in a znode's name.
pub fn is_forbidden(character: char) -> bool {
    matches!(character as u32,
        0x00..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..=0xffff | 0x1_0000..)
}

/// The parent's path; `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    if path == "/" {
        return None;
    }
    match path.rfind('/')? {
        0 => Some("/"),
        slash => Some(&path[..slash]),
    }
}

/// The last component; empty for the root.
pub fn name(path: &str) -> &str {
    path.rfind('/').map_or(path, |slash| &path[slash + 1..])
}

/// The path of `name` below `parent`.
pub fn join(parent: &str, name: &str) -> String {
    let mut path = String::with_capacity(parent.len() + 1 + name.len());
    if parent != "/" {
        path.push_str(parent);
    }
    path.push('/');
    path.push_str(name);
    path
}

/// Whether `path` is `ancestor` or lies below it.
pub fn is_within(path: &str, ancestor: &str) -> bool {
    if ancestor == "/" {
        return true;
    }
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_paths_are_accepted() {
        for path in ["/", "/a", "/a/b.c", "/..a", "/a/...", "/ü", "/\u{a0}", "/a b"] {
            assert_eq!(validate(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn invalid_paths_are_refused() {
        for path in ["", "a", "/a/", "//", "/a//b", "/.", "/a/..", "/a\0", "/\u{1f}", "/\u{7f}"] {
            assert!(validate(path).is_err(), "{path:?}");
        }
        for path in ["/\u{9f}", "/\u{f000}", "/\u{fff0}", "/\u{1f600}"] {
            assert!(validate(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn paths_come_apart_and_together() {
        assert_eq!(parent("/"), None);
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(name("/a/b"), "b");
        assert_eq!(name("/"), "");
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b"), "/a/b");
        assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && is_within("/a", "/"));
        assert!(!is_within("/ab", "/a"));
    }
}
