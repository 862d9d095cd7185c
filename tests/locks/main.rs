//! flock and fcntl locks on mounts of one tree exclude each other, whatever happens to their holders.

mod cut;
mod exclusion;
mod herd;
mod kazoo;
mod loss;
mod protected;
mod waiting;
