//! What a run says while it goes on: one line that changes on a terminal, a line each round elsewhere,
//! nothing in tests.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use znodefs_tests::deadline::Deadline;

use crate::run::Summary;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Silent,
    Lines,
    Terminal,
}

/// Where a run says how far it is.
pub struct Progress {
    kind: Kind,
    end: Deadline,
}

impl Progress {
    /// On standard error, for a run of so long; nothing without a time.
    pub fn new(time: Option<Duration>) -> Progress {
        let kind = match time {
            None => Kind::Silent,
            Some(_) if stderr().is_terminal() => Kind::Terminal,
            Some(_) => Kind::Lines,
        };
        Progress { kind, end: Deadline::after(time.unwrap_or_default()) }
    }

    fn line(&self, text: &str) {
        if self.kind == Kind::Terminal {
            eprint!("\r\x1b[K{text}");
            // It is only seen by who looks.
            let _ = stderr().flush();
        }
    }

    /// How far it is.
    pub fn show(&mut self, summary: &Summary, requests: usize) {
        let left = self.end.remaining().as_secs();
        let requests = summary.requests + requests;
        let round = summary.rounds + 1;
        self.line(&format!("round {round}: {requests} requests, {left} s left"));
    }

    /// What it is doing instead.
    pub fn say(&mut self, what: &str) {
        self.line(what);
    }

    /// A round is over, and nothing was wrong.
    pub fn round(&mut self, summary: &Summary) {
        self.end();
        if self.kind != Kind::Silent {
            let faults: u64 = summary.faults.values().sum();
            let left = self.end.remaining().as_secs();
            let Summary { rounds, requests, .. } = summary;
            eprintln!(
                "round {rounds} is clean: {requests} requests, {faults} faults, {left} s left"
            );
        }
    }

    /// Leaves the line that changes.
    pub fn end(&mut self) {
        self.line("");
    }
}
