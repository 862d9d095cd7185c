//! Changes made elsewhere arrive as inotify events: seen with inotifywait(1) on one mount while
//! another mount, `znode` or the client library changes the tree.

mod bursts;
mod changes;
mod failures;
mod fixture;
mod own_changes;
mod programs;
mod reconnection;
