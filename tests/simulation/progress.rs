//! How far a run of many seeds has come, for the person who waits: a bar on a terminal, a line a minute
//! in a log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a log is told.
const TOLD_INTERVAL: Duration = Duration::from_secs(60);

/// The progress of so many seeds, on standard error.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    tell_at: Mutex<Instant>,
}

#[allow(clippy::disallowed_methods, reason = "the time of the person who waits")]
impl Progress {
    /// None is done.
    pub fn new(seeds: u64) -> Progress {
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(seeds), target);
        let template = "[{bar:30}] {pos}/{len} seeds {elapsed}, {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let started = Instant::now();
        Progress { bar, started, tell_at: Mutex::new(started + TOLD_INTERVAL) }
    }

    /// One more is done; so many have failed until now.
    pub fn step(&self, failed: u64) {
        self.bar.inc(1);
        if failed > 0 {
            self.bar.set_message(format!("{failed} failed"));
        }
        let (Ok(mut tell_at), true) = (self.tell_at.lock(), self.bar.is_hidden()) else { return };
        let now = Instant::now();
        if now < *tell_at {
            return;
        }
        *tell_at = now + TOLD_INTERVAL;
        let (done, seeds) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let seconds = self.started.elapsed().as_secs_f64();
        let minutes_left = seconds * seeds.saturating_sub(done) as f64 / done as f64 / 60.0;
        eprintln!("{done} of {seeds} seeds, {failed} failed, {minutes_left:.0} min left");
    }

    /// Says something on standard output, above the bar.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// How many seeds are done and how long that took, in seconds; the bar goes.
    pub fn finish(self) -> (u64, f64) {
        let seeds = self.bar.position();
        self.bar.finish_and_clear();
        (seeds, self.started.elapsed().as_secs_f64())
    }
}
