//! Ends a command before the session that protects it can expire: a thread of its own, so that
//! nothing that blocks the rest of the program (a terminal that is stopped, a slow name server) can
//! keep it from that. When the time has come is [`Lease`]'s to say.
//!
//! The clock is CLOCK_BOOTTIME: it goes on while the machine sleeps, as the servers' clocks do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::ClockId;
use tokio::sync::Notify;
use znodefs::recipe::Lease;

use super::process_tree::Command;

/// Time between two attempts to kill what is still there.
const KILL_INTERVAL: Duration = Duration::from_millis(20);

/// The time since the machine was started, its sleep included.
pub fn boot_time() -> Duration {
    // Every Linux since 2.6.39 has this clock.
    ClockId::CLOCK_BOOTTIME.now().map(Duration::from).unwrap_or_default()
}

/// What the guard has done to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Running,
    /// It was sent SIGTERM: the service has been silent for too long.
    AskedToEnd,
    /// It was killed, or is being killed.
    Killed,
}

/// Guards one command.
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    command: Command,
    timer: TimerFd,
    state: Mutex<State>,
    acted: Notify,
}

struct State {
    lease: Lease,
    verdict: Verdict,
    /// The command is gone: there is nothing to guard any more.
    is_over: bool,
}

impl Guard {
    /// Guards a command that runs under this lease.
    pub fn start(command: Command, lease: Lease) -> std::io::Result<Guard> {
        let timer = TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)?;
        let state = Mutex::new(State { lease, verdict: Verdict::Running, is_over: false });
        let shared = Arc::new(Shared { command, timer, state, acted: Notify::new() });
        shared.set_timer(lease.ask_at());
        let of_thread = shared.clone();
        // Signals are the main thread's: one that stops the process must have done so when its
        // sending returns there.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let started = std::thread::Builder::new().name("guard".into()).spawn(move || {
            while of_thread.act() {
                // It cannot fail: the timer is ours and blocking.
                let _ = of_thread.timer.wait();
            }
        });
        let _ = mask.thread_set_mask();
        started?;
        Ok(Guard { shared })
    }

    /// Extends the lease.
    pub fn renew(&self, lease: Lease) {
        let mut state = self.shared.lock();
        let is_sooner = lease.ask_at() < state.lease.ask_at();
        state.lease = lease;
        // Otherwise the thread finds out when it wakes for the old one.
        if is_sooner {
            self.shared.set_timer(lease.ask_at());
        }
    }

    /// The lock is gone for certain: kills the command now.
    pub fn kill(&self) {
        let mut state = self.shared.lock();
        state.verdict = Verdict::Killed;
        self.shared.set_timer(Duration::ZERO);
    }

    /// What was done so far.
    pub fn verdict(&self) -> Verdict {
        self.shared.lock().verdict
    }

    /// Resolves when the guard has done something.
    pub async fn acted(&self) {
        self.shared.acted.notified().await;
    }

    /// Whether a command that was stopped may go on.
    pub fn allows_running(&self) -> bool {
        let state = self.shared.lock();
        state.verdict == Verdict::Running && boot_time() < state.lease.ask_at()
    }

    /// From here on no process is signalled any more, so that their ids can be used again.
    pub fn finish(&self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        self.shared.set_timer(Duration::ZERO);
    }

    /// The lease as it stands.
    pub fn lease(&self) -> Lease {
        self.shared.lock().lease
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called with the state locked, so that no alarm replaces an earlier one by mistake.
    fn set_timer(&self, at: Duration) {
        // Zero would switch the timer off.
        let at = TimeSpec::from(at.max(Duration::from_nanos(1)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        if let Err(error) = self.timer.set(Expiration::OneShot(at), flags) {
            tracing::error!("cannot set the guard's timer: {error}");
        }
    }

    /// Does what is due and sets the next alarm; `false` when there is nothing left to do. The lock is
    /// held meanwhile, so that nothing is signalled once [`Guard`] is dropped.
    fn act(&self) -> bool {
        let mut state = self.lock();
        let (lease, now) = (state.lease, boot_time());
        if matches!(state.verdict, Verdict::Running | Verdict::AskedToEnd) && now >= lease.stop_at()
        {
            state.verdict = Verdict::Killed;
        }
        let again_at = match state.verdict {
            Verdict::Killed => {
                self.command.kill();
                self.acted.notify_one();
                now + KILL_INTERVAL
            }
            Verdict::Running if now >= lease.ask_at() => {
                state.verdict = Verdict::AskedToEnd;
                self.command.signal_group(Signal::SIGTERM);
                // A stopped process can only clean up when it goes on.
                self.command.signal_group(Signal::SIGCONT);
                self.acted.notify_one();
                lease.stop_at()
            }
            Verdict::Running => lease.ask_at(),
            Verdict::AskedToEnd => lease.stop_at(),
        };
        self.set_timer(again_at);
        true
    }
}
