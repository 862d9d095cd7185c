//! flock and fcntl locks on mounts of one tree exclude each other, whatever happens to their holders.

mod exclusion;
mod kazoo;
mod loss;
mod waiting;
