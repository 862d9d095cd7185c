//! `znode-mount`: mounts a ZooKeeper tree. Also called as `mount.znodefs` by mount(8), and, by
//! itself, as the guard and as the replay helper of a mount. What a mounted tree does lives in the library.

mod cli;
mod daemon;
mod embedded;
mod guard;
mod kernel_mount;
mod logging;
mod mount_process;
mod mountpoint;
mod options;
mod plan;
mod session;
mod stop_signals;

use std::process::ExitCode;

use znodefs_mount::replay;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if guard::is_guard(&arguments) {
        return guard::run(&arguments);
    }
    if replay::is_helper(&arguments) {
        return replay::run(&arguments);
    }
    cli::run(arguments)
}
