//! The one order of writes and the order of each session: zxids against time. No I/O.

use std::collections::HashMap;

use znodefs::Zxid;

use super::report::Subject;
use super::{Call, History, Operation, OperationId, Outcome, Report, Step};

/// What is known of a client while the notes are read.
#[derive(Clone, Debug, Default)]
struct Progress {
    last_zxid: Zxid,
    last_answered: Option<OperationId>,
    last_write: Option<(OperationId, Zxid)>,
    is_over: bool,
}

pub(super) fn check(history: &History, report: &mut Report) {
    let mut clients = vec![Progress::default(); history.sessions.len()];
    let mut written: HashMap<Zxid, OperationId> = HashMap::new();
    for (place, noted) in history.noted.iter().enumerate() {
        let progress = &mut clients[noted.client.0];
        match &noted.step {
            Step::Over { .. } => progress.is_over = true,
            Step::Completed(id) => {
                let operation = &history.operations[id.0];
                let Some(zxid) = operation.outcome.zxid() else { continue };
                let subject = Subject::Client(noted.client, place);
                check_session(history, report, progress, (*id, zxid), subject);
                if !matches!(operation.outcome, Outcome::Done { .. }) {
                    continue;
                }
                check_time(history, report, *id, operation, zxid);
                if !operation.call.is_write() {
                    continue;
                }
                if let Some(other) = written.insert(zxid, *id) {
                    let both = format!("#{} and #{} were both made by {zxid}", other.0, id.0);
                    let subject = Subject::Operations(Some(other), *id);
                    report.add(history, "one zxid, one write", both, subject);
                }
                progress.is_over |= operation.call == Call::Close;
            }
            _ => {}
        }
    }
}

/// A session's replies come in the order of its requests, and its zxids never go back.
fn check_session(
    history: &History,
    report: &mut Report,
    progress: &mut Progress,
    (id, zxid): (OperationId, Zxid),
    subject: Subject<'_>,
) {
    if zxid < progress.last_zxid {
        let back = format!("#{} shows {zxid} after {}", id.0, progress.last_zxid);
        report.add(history, "a session's zxids never go back", back, subject);
    }
    if progress.last_answered.is_some_and(|last| last > id) {
        let last = progress.last_answered.map_or(0, |last| last.0);
        let late = format!("#{} is answered after #{last}", id.0);
        report.add(history, "replies come in the order of requests", late, subject);
    }
    if progress.is_over {
        let late = format!("#{} is answered after the end of its session", id.0);
        report.add(history, "nothing follows a session's end", late, subject);
    }
    progress.last_zxid = progress.last_zxid.max(zxid);
    progress.last_answered = progress.last_answered.max(Some(id));
    let operation = &history.operations[id.0];
    if operation.call.is_write() && matches!(operation.outcome, Outcome::Done { .. }) {
        if let Some((last, at)) = progress.last_write
            && (last < id) != (at < zxid)
        {
            let turned =
                format!("#{} took effect at {at}, #{} of the same session at {zxid}", last.0, id.0);
            report.add(history, "a session's writes take effect in their order", turned, subject);
        }
        progress.last_write = Some((id, zxid));
    }
}

/// A write comes after everything that anybody had seen when it was asked for; a sync catches up with
/// it.
fn check_time(
    history: &History,
    report: &mut Report,
    id: OperationId,
    operation: &Operation,
    zxid: Zxid,
) {
    let is_write = operation.call.is_write();
    let is_late = if is_write { zxid <= operation.frontier } else { zxid < operation.frontier };
    if !is_late || !(is_write || operation.call == Call::Sync) {
        return;
    }
    let rule = match is_write {
        true => "writes are linearizable",
        false => "a read behind a sync is linearizable",
    };
    let description = format!(
        "#{} is at {zxid}, but {} had been told to a client before it was asked for",
        id.0, operation.frontier
    );
    report.add(history, rule, description, Subject::Operations(operation.frontier_at, id));
}
