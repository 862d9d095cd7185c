//! The command line `znode`.
fn main() {}
