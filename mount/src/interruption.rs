//! Whether a thread that waits in a system call of ours has a signal to attend to. FUSE has a request
//! for that, but the crate `fuser` does not pass it on; what the kernel shows of the thread tells the
//! same.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// How often a waiting thread is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Resolves when a signal waits for this thread, or when there is no such thread any more. Never for
/// thread 0, which is one that has no number here.
pub async fn interrupted(thread: u32) {
    if thread == 0 {
        return std::future::pending().await;
    }
    // Most waits are over before the first look.
    tokio::time::sleep(INTERVAL).await;
    // The file stays that of this very thread, also when its number is used again.
    let Ok(status) = File::open(format!("/proc/{thread}/status")) else { return };
    let mut buffer = [0; 4096];
    let mut was_pending_for_all = false;
    loop {
        let Ok(length) = status.read_at(&mut buffer, 0) else { return };
        let text = String::from_utf8_lossy(&buffer[..length]);
        match Signals::read(&text).map(|signals| signals.pending()) {
            Some(Pending::No) => was_pending_for_all = false,
            // Another thread of the process may be about to take it.
            Some(Pending::ForAll) if !was_pending_for_all => was_pending_for_all = true,
            Some(Pending::ForAll | Pending::ForThread) | None => return,
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The sets of signals of a thread.
#[derive(Debug, Default)]
struct Signals {
    thread_pending: u64,
    process_pending: u64,
    blocked: u64,
    ignored: u64,
    threads: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    No,
    /// For any thread of a process that has several.
    ForAll,
    ForThread,
}

impl Signals {
    /// Reads `/proc/TID/status`; `None` when it is not that.
    fn read(status: &str) -> Option<Signals> {
        let mut signals = Signals::default();
        let mut found = 0;
        for line in status.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let (field, radix) = match name {
                "SigPnd" => (&mut signals.thread_pending, 16),
                "ShdPnd" => (&mut signals.process_pending, 16),
                "SigBlk" => (&mut signals.blocked, 16),
                "SigIgn" => (&mut signals.ignored, 16),
                "Threads" => (&mut signals.threads, 10),
                _ => continue,
            };
            *field = u64::from_str_radix(value.trim(), radix).ok()?;
            found += 1;
        }
        (found == 5).then_some(signals)
    }

    fn pending(&self) -> Pending {
        let wanted = !self.blocked & !self.ignored;
        if self.thread_pending & wanted != 0 {
            Pending::ForThread
        } else if self.process_pending & wanted == 0 {
            Pending::No
        } else if self.threads == 1 {
            Pending::ForThread
        } else {
            Pending::ForAll
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thread: &str, process: &str, blocked: &str, ignored: &str, threads: u32) -> String {
        format!(
            "Name:\tflock\nThreads:\t{threads}\nSigQ:\t0/1\nSigPnd:\t{thread}\nShdPnd:\t{process}\n\
             SigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t0\n"
        )
    }

    fn pending(thread: &str, process: &str, blocked: &str, ignored: &str, threads: u32) -> Pending {
        Signals::read(&status(thread, process, blocked, ignored, threads)).unwrap().pending()
    }

    #[test]
    fn a_signal_counts_that_is_neither_blocked_nor_ignored() {
        assert_eq!(pending("0", "0", "0", "0", 1), Pending::No);
        assert_eq!(pending("0000000000000100", "0", "0", "0", 5), Pending::ForThread);
        assert_eq!(pending("0", "4000", "0", "0", 1), Pending::ForThread);
        assert_eq!(pending("0", "4000", "4000", "0", 1), Pending::No);
        assert_eq!(pending("4000", "0", "0", "4000", 1), Pending::No);
        assert_eq!(pending("0", "4100", "4000", "0", 1), Pending::ForThread);
    }

    #[test]
    fn one_for_a_process_of_several_threads_may_be_taken_by_another() {
        assert_eq!(pending("0", "4000", "0", "0", 2), Pending::ForAll);
    }

    #[test]
    fn the_kernel_shows_what_is_needed() {
        let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(Signals::read(&own).is_some());
        assert!(Signals::read("Name:\tx\n").is_none());
    }

    #[tokio::test]
    async fn a_thread_that_is_gone_waits_no_more() {
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw() as u32);
        interrupted(thread.join().unwrap()).await;
    }
}
