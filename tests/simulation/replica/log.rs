//! What happened in a run with whole replicas, for a person: every step, or of a failure only what has
//! to do with it.

use std::collections::BTreeSet;

use znodefs::Zxid;
use znodefs::wire::WatchedEvent;

use super::ask::{Ask, Asked};
use super::invariants::requests::Answer;
use super::outside::Seen;
use crate::invariants::Violation;
use crate::trace::{Detail, show_zxids};

/// Lines of a failure's report.
const LINES: usize = 60;

/// The lines.
pub struct Log {
    detail: Detail,
    lines: Vec<Line>,
}

struct Line {
    /// Whether it tells of a fault, which may be the reason for anything.
    is_fault: bool,
    text: String,
}

impl Log {
    /// Nothing has happened.
    pub fn new(detail: Detail) -> Log {
        Log { detail, lines: Vec::new() }
    }

    /// Anything else.
    pub fn note(&mut self, now: u64, what: impl FnOnce() -> String) {
        self.add(now, false, what);
    }

    /// Something that goes wrong, or comes right, on purpose.
    pub fn fault(&mut self, now: u64, what: impl FnOnce() -> String) {
        self.add(now, true, what);
    }

    /// What a member does.
    pub fn seen(&mut self, now: u64, node: usize, seen: &Seen) {
        self.add(now, false, || {
            let what = match seen {
                Seen::Appended(entries) => {
                    let zxids: Vec<String> =
                        entries.iter().map(|entry| entry.zxid.to_string()).collect();
                    format!("appends {}", zxids.join(" "))
                }
                Seen::Truncated(zxid) => format!("truncates to {zxid}"),
                Seen::Installed(zxid) => format!("installs a snapshot of {zxid}"),
                Seen::Delivered(entries) => {
                    let zxids: Vec<String> =
                        entries.iter().map(|entry| entry.zxid.to_string()).collect();
                    format!("delivers {}", zxids.join(" "))
                }
                Seen::DeliveredFromLog { after, through } => {
                    format!("delivers its log after {after} through {through}")
                }
                Seen::Promised => "promises an epoch".to_owned(),
                Seen::Acknowledged(zxid) => format!("acknowledges {zxid}"),
                Seen::ChangedOver => "changes over to another ensemble".to_owned(),
                Seen::Leads => "is elected".to_owned(),
                Seen::Serves { leader, epoch } => format!("serves; {leader} leads epoch {epoch}"),
                Seen::ServesNoMore => "serves no more".to_owned(),
                Seen::Halts(reason) => format!("halts: {reason}"),
            };
            format!("node {node} {what}")
        });
    }

    /// A client asks.
    pub fn asked(&mut self, now: u64, client: usize, xid: i32, ask: &Ask) {
        if *ask != Ask::Ping {
            self.add(now, false, || format!("client {client} asks {xid}: {ask:?}"));
        }
    }

    /// A client is answered.
    pub fn answered(
        &mut self,
        now: u64,
        client: usize,
        asked: &Asked,
        zxid: Zxid,
        answer: &Answer,
    ) {
        if asked.ask != Ask::Ping {
            let xid = asked.xid;
            let path = asked.ask.path().unwrap_or_default().to_owned();
            self.add(now, false, || {
                format!("client {client} is answered {xid} {path} at {zxid}: {answer:?}")
            });
        }
    }

    /// A client hears of an event.
    pub fn heard_event(&mut self, now: u64, client: usize, event: &WatchedEvent) {
        self.add(now, false, || {
            let zxid = event.zxid.map_or("again".to_owned(), |zxid| zxid.to_string());
            format!("client {client} hears {:?} of {} ({zxid})", event.event_type, event.path)
        });
    }

    fn add(&mut self, now: u64, is_fault: bool, what: impl FnOnce() -> String) {
        if self.detail == Detail::Nothing {
            return;
        }
        let (seconds, rest) = (now / 1_000_000, now % 1_000_000);
        let mut text = format!("{seconds:3}.{rest:06} {}", readable(&what()));
        if let Some((end, _)) = text.char_indices().nth(260) {
            text.truncate(end);
        }
        match self.detail {
            Detail::All => println!("{text}"),
            _ => self.lines.push(Line { is_fault, text }),
        }
    }

    /// All lines, for comparing runs.
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.text.clone()).collect()
    }

    /// The lines that have to do with a violation: those that name what it names, and the faults
    /// between them.
    pub fn about(&self, violation: &Violation) -> Vec<&str> {
        let words = words_of(&readable(&violation.detail));
        let concerns = |line: &Line| {
            let text = &line.text;
            line.is_fault || words.iter().any(|word| mentions(text, word))
        };
        let lines: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| concerns(line))
            .map(|line| line.text.as_str())
            .collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }
}

/// Whether a text has a word that ends there.
fn mentions(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(start, _)| {
        let next = text[start + word.len()..].chars().next();
        next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != '/')
    })
}

/// What a text is about: nodes, clients, zxids, znodes, sessions.
fn words_of(text: &str) -> BTreeSet<String> {
    let separated = |c: char| c.is_whitespace() || "\"(),;:{}[]".contains(c);
    let words: Vec<&str> = text.split(separated).filter(|word| !word.is_empty()).collect();
    let mut found = BTreeSet::new();
    for (place, word) in words.iter().enumerate() {
        if word.starts_with("0x") || word.starts_with("/r") {
            found.insert((*word).to_owned());
        }
        if matches!(*word, "node" | "client") && words.get(place + 1).is_some() {
            found.insert(format!("{word} {}", words[place + 1]));
        }
    }
    // Where something else is named, all that a node or client does is too much.
    if found.iter().any(|word| word.starts_with("0x") || word.starts_with('/')) {
        found.retain(|word| !word.starts_with("node"));
    }
    found
}

/// `Zxid(4294967297)` as it is shown elsewhere.
fn readable(text: &str) -> String {
    show_zxids(text, |zxid| Zxid(zxid).to_string())
}
