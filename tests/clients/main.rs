//! Clients that nobody here wrote: PyPI's kazoo and Debian's zkCli.sh create, read, watch and
//! delete. The same is asked of Debian's ZooKeeper, which shows that the tests ask for what a
//! ZooKeeper does.

mod kazoo;
mod long_lived;
mod mounted;
mod zk_cli;
