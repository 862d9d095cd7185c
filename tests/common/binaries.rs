//! Where the binaries under test are: beside the test executable, put there by
//! `cargo build --workspace --bins` (see `scripts/test`).

use std::path::{Path, PathBuf};

/// The path of one of the project's binaries.
///
/// # Panics
/// If it has not been built.
pub fn binary(name: &str) -> PathBuf {
    let path = build_directory().join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --bins` first, or scripts/test",
        path.display()
    );
    path
}

/// The path of a program that is built only for tests: an example of this package.
///
/// # Panics
/// If it has not been built.
pub fn example(name: &str) -> PathBuf {
    let path = build_directory().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --package znodefs-tests --examples` first, or scripts/test",
        path.display()
    );
    path
}

/// `target/debug`, or wherever this test executable was built.
fn build_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("the path of the running test");
    // The test itself is one level below, in `deps` or `examples`.
    executable.ancestors().nth(2).expect("a build directory").to_path_buf()
}

/// The root of the source tree.
pub fn source_directory() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the tests are a package of a workspace").to_path_buf()
}

/// The Python that has kazoo, installed by `scripts/test`.
///
/// # Panics
/// If it is not there.
pub fn python() -> PathBuf {
    let path = match std::env::var_os("ZNODEFS_TEST_PYTHON") {
        Some(path) => PathBuf::from(path),
        None => source_directory().join("target/python/bin/python3"),
    };
    assert!(path.exists(), "{} is missing: scripts/test installs it", path.display());
    path
}

/// A test program of somebody else's, installed by `scripts/test`.
///
/// # Panics
/// If it is not there.
pub fn tool(name: &str) -> PathBuf {
    let path = source_directory().join("target/tools/bin").join(name);
    assert!(path.exists(), "{} is missing: scripts/test installs it", path.display());
    path
}
