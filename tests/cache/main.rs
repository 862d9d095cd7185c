//! What the kernel and the mount keep of what servers have answered: it is used, it is never older
//! than what a reader has seen before, and it is not used while there is no connection.

mod coherence;
mod older;
mod outage;
mod unchanged;

use std::path::Path;
use std::time::Duration;

use znodefs_tests::deadline::pause;
use znodefs_tests::{Mount, wait_for};

/// How long something may take until a test gives it up.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A number of `@status/stats`.
#[track_caller]
pub fn statistic(mount: &Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(mount.join("@status/stats")).expect("the statistics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

/// How many requests a mount has sent to its server, once it sends none of its own accord.
#[track_caller]
pub fn sent_when_quiet(mount: &Mount) -> u64 {
    let sent = wait_for(LIMIT, || {
        let before = statistic(mount, "requests_sent");
        pause(Duration::from_millis(200));
        (statistic(mount, "requests_sent") == before).then_some(before)
    });
    sent.expect("the mount stops sending requests")
}
