//! A tree of files as a value, to compare what went in with what is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files below `root` with their contents; symbolic links are followed.
pub fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let entries = std::fs::read_dir(&directory);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            let kind = std::fs::metadata(&path);
            match kind.unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
                kind if kind.is_dir() => pending.push(path),
                _ => {
                    let name = path.strip_prefix(root).expect("below the root").to_path_buf();
                    let bytes = std::fs::read(&path);
                    let bytes = bytes.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    found.insert(name, bytes);
                }
            }
        }
    }
    found
}
