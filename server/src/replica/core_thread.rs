//! The thread that drives a [`Replica`]: takes everything out of the mailbox at once, lets the core
//! work, then carries out what the core wants done.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Effects, Event, LogBatch, Now, Replica};
use crate::service::Service;

/// Where the core's effects on the disk go.
pub trait Backend: Send + 'static {
    /// Logs transactions; a [`Event::TxnsDurable`] follows.
    fn append(&mut self, batch: LogBatch);
    /// Lets the log, which was full, take transactions again.
    fn resume_log(&mut self);
    /// Begins a snapshot; an [`Event::SnapshotDone`] follows.
    fn take_snapshot(&mut self);
    /// Makes an epoch durable before it returns.
    fn begin_epoch(&mut self, epoch: znodefs::Epoch) -> Result<(), String>;
    /// Ends the log in order.
    fn close(&mut self);
}

/// How the core's thread ended: in order, or with what is wrong.
pub type CoreResult = Result<(), String>;

/// Starts the thread; it ends with [`Event::Stop`], or with what makes it impossible to go on.
pub fn spawn(
    service: Arc<Service>,
    replica: Replica,
    backend: impl Backend,
    ended: impl FnOnce(CoreResult) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let mut core = CoreThread { service, replica, backend };
        ended(core.run());
    };
    std::thread::Builder::new().name("znoded-core".into()).spawn(run)
}

struct CoreThread<B> {
    service: Arc<Service>,
    replica: Replica,
    backend: B,
}

impl<B: Backend> CoreThread<B> {
    fn run(&mut self) -> CoreResult {
        let mut events = Vec::new();
        let mut effects = Effects::default();
        loop {
            let wait_ms = self.replica.next_due_ms().saturating_sub(self.now().monotonic_ms);
            self.service.mailbox.take(&mut events, Duration::from_millis(wait_ms));
            let now = self.now();
            let mut stops = false;
            for event in events.drain(..) {
                stops |= matches!(event, Event::Stop);
                self.replica.handle(event, now, &mut effects);
            }
            self.replica.tick(now, &mut effects);
            self.carry_out(&mut effects)?;
            if stops {
                self.backend.close();
                return Ok(());
            }
        }
    }

    fn now(&self) -> Now {
        let clock = &self.service.clock;
        Now { monotonic_ms: clock.monotonic_ms(), wall_ms: clock.wall_ms() }
    }

    fn carry_out(&mut self, effects: &mut Effects) -> CoreResult {
        if let Some(epoch) = effects.new_epoch.take() {
            self.backend.begin_epoch(epoch)?;
        }
        if std::mem::take(&mut effects.resume_log) {
            self.backend.resume_log();
        }
        if !effects.append.ends.is_empty() {
            // The next batch will be about as long: no growing, no copying.
            let next = LogBatch {
                bytes: Vec::with_capacity(effects.append.bytes.len()),
                ends: Vec::with_capacity(effects.append.ends.len()),
            };
            self.backend.append(std::mem::replace(&mut effects.append, next));
        }
        for connection in effects.wake.drain(..) {
            connection.wake();
        }
        if std::mem::take(&mut effects.take_snapshot) {
            self.backend.take_snapshot();
        }
        effects.fatal.take().map_or(Ok(()), Err)
    }
}
