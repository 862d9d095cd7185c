//! Cleaning up behind a test that was killed: a mount, the background process that serves it and
//! what runs in it would outlive it. A shell of its own session waits for the end of the test and then removes
//! both. It knows the mountpoint from its environment, so that it never finds itself.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Standard input ends when the test does.
const SCRIPT: &str = r#"
read -r _
for process in /proc/[0-9]*; do
    if { tr '\0' '\n' < "$process/cmdline"; readlink "$process/cwd"; } |
        grep --quiet --fixed-strings -- "$REAPER_MOUNTPOINT"
    then kill -9 "${process#/proc/}"
    fi
done
umount --lazy "$REAPER_MOUNTPOINT" || fusermount3 -u -z "$REAPER_MOUNTPOINT"
"#;

/// The same for network namespaces; what runs in them goes with the test's threads.
const NETWORK_SCRIPT: &str = r#"
read -r _
for namespace in /run/netns/"$REAPER_PREFIX"-*; do ip netns del "${namespace##*/}"; done
"#;

/// Removes one mount, or the namespaces of one network, once the test process is gone.
#[derive(Debug)]
pub struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Starts watching over what is, or will be, mounted at `mountpoint`.
    pub fn of(mountpoint: &Path) -> Reaper {
        let mut command = Command::new("sh");
        command.arg("-c").arg(SCRIPT).env("REAPER_MOUNTPOINT", mountpoint);
        Reaper::start(&mut command)
    }

    /// Starts watching over the network namespaces whose names begin with `prefix`.
    pub fn of_network(prefix: &str) -> Reaper {
        let mut command = Command::new("sh");
        command.arg("-c").arg(NETWORK_SCRIPT).env("REAPER_PREFIX", prefix);
        Reaper::start(&mut command)
    }

    fn start(command: &mut Command) -> Reaper {
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Reaper { shell: command.spawn().expect("a shell") }
    }

    /// Does its work now: for what an orderly end could not remove.
    pub fn reap(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
