//! The signals by which a mount is told to end.

use std::io;

use nix::sys::signal::{SigHandler, Signal};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// The signals that end a mount.
pub struct StopSignals {
    terminate: SignalStream,
    interrupt: SignalStream,
    /// Only in the foreground: the terminal went away. In the background there is none.
    hangup: Option<SignalStream>,
}

impl StopSignals {
    /// Takes them over from now on; without `foreground`, SIGHUP is ignored.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn new(foreground: bool) -> io::Result<StopSignals> {
        let hangup = if foreground && !is_ignored(Signal::SIGHUP) {
            Some(signal(SignalKind::hangup())?)
        } else {
            // SAFETY: ignoring a signal installs no handler.
            unsafe { nix::sys::signal::signal(Signal::SIGHUP, SigHandler::SigIgn)? };
            None
        };
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    /// Waits for the next one and gives its name.
    pub async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether whoever started us wants a signal ignored, as nohup(1) does.
fn is_ignored(signal: Signal) -> bool {
    // SAFETY: zero is a valid sigaction; the call only reads the present disposition into it.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal as libc::c_int, std::ptr::null(), &raw mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    }
}
