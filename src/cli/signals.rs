//! The signals of a command that stays: which ones it catches, and how it dies or stops of one as if
//! it had not caught it. What they are passed on to does not live here.

use std::future::poll_fn;
use std::process::ExitCode;
use std::task::Poll;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, raise, sigaction};
use nix::unistd::getpgrp;
use tokio::signal::unix::{self, SignalKind};

use super::failure::Failure;

/// Caught to be passed on to a command.
const CAUGHT: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// The signals caught from now on.
pub struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Catches what is passed on, and the ends of children. What was ignored when we were started
    /// (by nohup, or a shell's `&`) stays ignored, here and in commands started by us.
    pub fn catch() -> Result<Signals, Failure> {
        let caught = CAUGHT.into_iter().filter(|signal| !is_ignored(*signal));
        let mut streams = Vec::new();
        for signal in caught.chain([Signal::SIGCHLD]) {
            let stream = unix::signal(SignalKind::from_raw(signal as i32))
                .map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))?;
            streams.push((signal, stream));
        }
        Ok(Signals { streams })
    }

    /// The next signal; those of one kind that follow each other closely may be one.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next signal that ends a command which has nobody to pass it on to.
    pub async fn next_ending(&mut self) -> Signal {
        loop {
            match self.next().await {
                signal if ends(signal) => return signal,
                Signal::SIGTSTP => stop(Signal::SIGTSTP),
                _ => {}
            }
        }
    }
}

/// Whether a signal ends who has no other use for it.
pub fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT)
}

/// Whether a signal was ignored already when this process was started.
fn is_ignored(signal: Signal) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action, sigaction only fills in the old one.
    unsafe {
        libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Does something while a signal has another disposition than ours.
fn with_disposition(signal: Signal, handler: SigHandler, work: impl FnOnce()) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours; the handler put back is the one found.
    let Ok(caught) = (unsafe { sigaction(signal, &action) }) else { return };
    work();
    // SAFETY: as above.
    let _ = unsafe { sigaction(signal, &caught) };
}

/// Stops as if the terminal had sent this signal to our whole process group and we had not caught
/// it. Returns when continued; at once where nobody could continue us (an orphaned process group).
pub fn stop(signal: Signal) {
    with_disposition(signal, SigHandler::SigIgn, || {
        let _ = killpg(getpgrp(), signal);
    });
    with_disposition(signal, SigHandler::SigDfl, || {
        let _ = raise(signal);
    });
}

/// Passes a signal that the terminal sent to a command on to those who would have got it as well:
/// the other processes of our group.
pub fn tell_own_group(signal: Signal) {
    with_disposition(signal, SigHandler::SigIgn, || {
        let _ = killpg(getpgrp(), signal);
    });
}

/// Dies of a signal, so that whoever waits for this process sees that it did.
pub fn die_of(signal: Signal) -> ExitCode {
    with_disposition(signal, SigHandler::SigDfl, || {
        let _ = raise(signal);
    });
    // Not reached, unless the signal is blocked.
    ExitCode::from(128 + signal as u8)
}
