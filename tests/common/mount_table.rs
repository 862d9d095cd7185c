//! What the kernel says is mounted (`/proc/self/mountinfo`), read without touching any mount: a
//! mount whose server hangs would hang the reader too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of the mount table.
#[derive(Clone, Debug)]
pub struct MountTableEntry {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of this mount: `rw`, `nosuid`, …
    pub options: String,
    /// `fuse`, `fuse.znodefs`, …
    pub file_system_type: String,
    /// The source, as `df` shows it.
    pub source: String,
}

/// The entry of what is mounted exactly at `mountpoint`, the topmost if there are several.
pub fn find(mountpoint: &Path) -> Option<MountTableEntry> {
    entries().into_iter().rfind(|entry| entry.mountpoint == mountpoint)
}

/// Whether anything is mounted at `directory` or below it.
pub fn is_anything_mounted_below(directory: &Path) -> bool {
    entries().iter().any(|entry| entry.mountpoint.starts_with(directory))
}

fn entries() -> Vec<MountTableEntry> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    table.lines().filter_map(parse).collect()
}

/// Reads `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE SUPER_OPTIONS`.
fn parse(line: &str) -> Option<MountTableEntry> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(4);
    let mut file_system = file_system.split(' ');
    Some(MountTableEntry {
        mountpoint: unescape(mount.next()?),
        options: mount.next()?.to_string(),
        file_system_type: file_system.next()?.to_string(),
        source: unescape(file_system.next()?).to_string_lossy().into_owned(),
    })
}

/// Undoes the kernel's `\040` for a space, and the like.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while position < bytes.len() {
        let octal = text.get(position + 1..position + 4).filter(|_| bytes[position] == b'\\');
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                position += 4;
            }
            None => {
                out.push(bytes[position]);
                position += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_an_escaped_space_and_a_tag_is_read() {
        let line =
            r"36 35 98:0 / /mnt/a\040b rw,noatime shared:1 - fuse.znodefs h:2181 rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.mountpoint, Path::new("/mnt/a b"));
        assert_eq!(entry.options, "rw,noatime");
        assert_eq!((&*entry.file_system_type, &*entry.source), ("fuse.znodefs", "h:2181"));
    }
}
