//! How far long work has come, shown on a terminal and nowhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error while it lives; none where that is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// Work of so many steps, each a file or the like.
    pub fn new(what: &'static str, steps: usize) -> Progress {
        let bar = ProgressBar::with_draw_target(
            Some(steps as u64),
            // Hidden by itself unless standard error is a terminal.
            ProgressDrawTarget::stderr(),
        );
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress(bar)
    }

    /// Work of so many bytes; `None` when nobody knows how many.
    pub fn bytes(what: &'static str, length: Option<u64>) -> Progress {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {elapsed}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress(bar)
    }

    /// So many bytes more are done.
    pub fn advance(&self, length: u64) {
        self.0.inc(length);
    }

    /// One step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
