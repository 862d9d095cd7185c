//! Other people's test programs for file systems, on real mounts: pjdfstest, fsx and stress-ng, which
//! `scripts/test` installs. `scripts/conformance` runs their long form.

mod fsx;
mod pjdfstest;
mod stress_ng;

use std::time::Duration;

/// How often each program goes through its work: once in the everyday run, `ZNODEFS_CONFORMANCE_ROUNDS`
/// times in the long form.
fn rounds() -> u64 {
    let given = std::env::var("ZNODEFS_CONFORMANCE_ROUNDS").ok();
    given.map_or(1, |text| text.parse().expect("ZNODEFS_CONFORMANCE_ROUNDS is a number"))
}

/// How long one program may take for one round.
const LIMIT: Duration = Duration::from_secs(240);
