//! What happened, for a person: the last lines before a violation, or all of them.

use std::collections::VecDeque;
use std::fmt::Write;

use znodefs_server::zab::{Effect, Event, Packet};

/// Lines kept for the report of a failure.
const LINES: usize = 80;

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing: the usual run.
    Nothing,
    /// The end.
    Last,
    /// Everything, printed as it happens.
    All,
}

/// The lines.
pub struct Trace {
    detail: Detail,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    pub fn new(detail: Detail) -> Trace {
        Trace { detail, lines: VecDeque::new() }
    }

    /// The lines kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Something that the simulator did to a node.
    pub fn note(&mut self, now: u64, node: usize, what: &str) {
        if self.detail != Detail::Nothing {
            self.add(now, node, "!", what.to_owned());
        }
    }

    /// An event, before a node takes it in.
    pub fn event(&mut self, now: u64, node: usize, event: &Event) {
        let dull = matches!(
            event,
            Event::Tick | Event::Packet { packet: Packet::Ping { .. }, .. } | Event::Propose(_)
        );
        if self.detail != Detail::Nothing && !dull {
            self.add(now, node, "<", shorten(format!("{event:?}")));
        }
    }

    /// An effect, before it is executed.
    pub fn effect(&mut self, now: u64, node: usize, effect: &Effect) {
        let dull = matches!(effect, Effect::Send { packet: Packet::Ping { .. }, .. });
        if self.detail != Detail::Nothing && !dull {
            self.add(now, node, ">", shorten(format!("{effect:?}")));
        }
    }

    fn add(&mut self, now: u64, node: usize, direction: &str, what: String) {
        let mut line = String::new();
        let (seconds, rest) = (now / 1_000_000, now % 1_000_000);
        let _ = write!(line, "{seconds:3}.{rest:06} node {node} {direction} {what}");
        if self.detail == Detail::All {
            println!("{line}");
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

fn shorten(text: String) -> String {
    let text = show_zxids(&text, |zxid| format!("{}.{}", zxid >> 32, zxid as u32));
    match text.char_indices().nth(240) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// `Zxid(4294967297)` becomes `1.1`, or whatever else shows it.
pub fn show_zxids(text: &str, show: impl Fn(i64) -> String) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("Zxid(") {
        let number = &rest[start + 5..];
        let Some(end) = number.find(')') else { break };
        shown.push_str(&rest[..start]);
        match number[..end].parse() {
            Ok(zxid) => shown.push_str(&show(zxid)),
            Err(_) => shown.push_str(&number[..end]),
        }
        rest = &number[end + 1..];
    }
    shown.push_str(rest);
    shown
}
