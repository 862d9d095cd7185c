//! The service as its clients rely on it, asked of `znoded` and of Debian's ZooKeeper alike: what
//! both answer is what the protocol means.

mod sessions;
mod watches;
mod znodes;
