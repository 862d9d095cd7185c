//! Real replicas, on loopback or in a network of their own: they form an ensemble, keep what they acknowledged
//! through kills of a minority, refuse when the majority is gone, and bring up to date who comes
//! late or empty.

mod catching_up;
mod come_and_go;
mod failover;
mod forming;
mod full_disk;
mod garbled_peers;
mod kazoo;
mod known_failures;
mod load;
mod lost_write;
mod network_backup;
mod no_quorum;
mod observers;
mod read_only;
mod reconfig;
mod sessions;
mod slow_follower;
mod strangers;
mod tls;
