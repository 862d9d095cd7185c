//! What is wrong with a history, each with the part of the history that shows it. No I/O.

use std::fmt;

use znodefs::Zxid;

use super::{ClientId, History, OperationId, Step};

/// Violations of one check beyond which no more are collected.
const VIOLATIONS_MAX: usize = 20;

/// Lines of the history shown before and after the place in question.
const LINES_AROUND: usize = 9;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub rule: &'static str,
    /// How it was broken.
    pub description: String,
    /// The history around it.
    pub excerpt: String,
}

/// The judgement over a history.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Broken promises, at most some.
    pub violations: Vec<Violation>,
    /// Znodes whose unknown writes had too many possible places to look at all of them.
    pub undecided: Vec<String>,
    /// Requests that were answered.
    pub answered: usize,
    /// Writes without an answer.
    pub unknown: usize,
    /// Of these, the ones that something shown to a client gives away.
    pub recognised: usize,
    /// Watch events.
    pub events: usize,
}

/// What an excerpt is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject<'a> {
    /// A znode, around what happened at a zxid.
    Znode(&'a str, Zxid),
    /// A client, around a place in the notes.
    Client(ClientId, usize),
    /// Two operations, the second of them by all means.
    Operations(Option<OperationId>, OperationId),
}

impl Report {
    pub(super) fn new(history: &History) -> Report {
        let mut report = Report::default();
        for noted in &history.noted {
            match &noted.step {
                Step::Event(_) => report.events += 1,
                Step::Completed(operation) => {
                    report.answered += usize::from(history.outcome(*operation).zxid().is_some());
                }
                _ => {}
            }
        }
        report
    }

    /// Whether so much is wrong that more says nothing new.
    pub(super) fn is_full(&self) -> bool {
        self.violations.len() >= VIOLATIONS_MAX
    }

    pub(super) fn add(
        &mut self,
        history: &History,
        rule: &'static str,
        description: String,
        subject: Subject<'_>,
    ) {
        if !self.is_full() {
            let excerpt = history.excerpt(subject);
            self.violations.push(Violation { rule, description, excerpt });
        }
    }

    /// # Panics
    /// If a promise was broken, or something could not be decided.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty() && self.undecided.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests answered, {} writes of unknown outcome ({} of them seen to have been done), \
             {} watch events",
            self.answered, self.unknown, self.recognised, self.events
        )?;
        for violation in &self.violations {
            let Violation { rule, description, excerpt } = violation;
            write!(f, "\n\n{rule}: {description}\n{excerpt}")?;
        }
        for path in &self.undecided {
            write!(f, "\n\nundecided: {path}: too many writes of unknown outcome")?;
        }
        Ok(())
    }
}

impl History {
    /// The notes around a subject, one line each; the place in question is marked.
    pub(super) fn excerpt(&self, subject: Subject<'_>) -> String {
        let concerns = |place: &usize| self.concerns(*place, subject);
        let places: Vec<usize> = (0..self.noted.len()).filter(concerns).collect();
        let is_before = |place: &usize| self.is_before(*place, subject);
        let middle = places.iter().take_while(|place| is_before(place)).count();
        let start = middle.saturating_sub(LINES_AROUND);
        let end = (middle + LINES_AROUND).min(places.len());
        let line = |(number, place): (usize, &usize)| {
            let mark = if start + number == middle { ">" } else { " " };
            format!("{mark} {}", self.line(*place))
        };
        let lines: Vec<String> = places[start..end].iter().enumerate().map(line).collect();
        lines.join("\n")
    }

    fn concerns(&self, place: usize, subject: Subject<'_>) -> bool {
        let noted = &self.noted[place];
        let about = |operation: &OperationId, path: &str| {
            let operation = &self.operations[operation.0];
            let is_or_holds = |other: &str| {
                other == path || znodefs::path::parent(path).is_some_and(|parent| parent == other)
            };
            operation.call.paths().into_iter().any(is_or_holds)
                || operation.call.writes().iter().any(|write| write.may_concern(path))
        };
        match (subject, &noted.step) {
            // One line an operation: its end, or its beginning where it has none.
            (Subject::Znode(path, _), Step::Completed(operation)) => about(operation, path),
            (Subject::Znode(path, _), Step::Event(event)) => event.path == path,
            (Subject::Znode(..), _) => false,
            (Subject::Client(client, _), _) => noted.client == client,
            (Subject::Operations(first, second), Step::Invoked(one) | Step::Completed(one)) => {
                Some(*one) == first || *one == second
            }
            (Subject::Operations(..), _) => false,
        }
    }

    fn is_before(&self, place: usize, subject: Subject<'_>) -> bool {
        match subject {
            Subject::Znode(_, zxid) => match &self.noted[place].step {
                Step::Completed(operation) => {
                    self.outcome(*operation).zxid().is_none_or(|other| other < zxid)
                }
                Step::Event(event) => event.zxid.is_none_or(|other| other < zxid),
                _ => true,
            },
            Subject::Client(_, middle) => place < middle,
            Subject::Operations(..) => true,
        }
    }

    fn line(&self, place: usize) -> String {
        let noted = &self.noted[place];
        let seconds = noted.at.as_secs_f64();
        let what = match &noted.step {
            Step::Opened(session) => format!("opened session {session}"),
            Step::Invoked(operation) => {
                format!("asks #{}: {}", operation.0, self.operations[operation.0].call)
            }
            Step::Completed(operation) => {
                let number = operation.0;
                let operation = &self.operations[number];
                format!("#{number} {}: {}", operation.call, operation.outcome)
            }
            Step::Event(event) => match event.zxid {
                Some(zxid) => format!("event {:?} {} at {zxid}", event.event_type, event.path),
                None => format!("event {:?} {}", event.event_type, event.path),
            },
            Step::Disconnected => "disconnected".into(),
            Step::Reconnected { watches_kept: true } => "reconnected, watches set again".into(),
            Step::Reconnected { watches_kept: false } => "reconnected without watches".into(),
            Step::Over { certain: true } => "the session must be over".into(),
            Step::Over { certain: false } => "the session has expired".into(),
        };
        format!("{seconds:10.6} client {:3} {what}", noted.client.0)
    }
}
