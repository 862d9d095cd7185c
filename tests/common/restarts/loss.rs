//! What clients say when a connection is lost with a request on its way, so that nobody can know whether
//! it was done: no failure, but no result either.

use std::any::Any;
use std::cell::RefCell;

/// How they say it: kazoo and zkCli.sh, `znode`, a mount and who reads its errors.
const WORDS: [&str; 4] =
    ["ConnectionLoss", "so the outcome is unknown", "Connection timed out", "kind: TimedOut"];

thread_local! {
    /// The first of them that the test of this thread has heard.
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What ends a test that cannot go on; not a panic, which would be reported as a failure.
struct Inconclusive(String);

/// Ends the running test without a result.
pub(crate) fn inconclusive(reason: String) -> ! {
    std::panic::resume_unwind(Box::new(Inconclusive(reason)))
}

/// Looks for such words in what a client has said.
pub(crate) fn hear(said: &str) {
    if let Some(word) = WORDS.iter().find(|word| said.contains(**word)) {
        HEARD.with_borrow_mut(|heard| {
            heard.get_or_insert_with(|| format!("a client said '{word}'"));
        });
    }
}

/// Forgets what was heard before.
pub(super) fn forget() {
    HEARD.with_borrow_mut(|heard| *heard = None);
}

/// Why a test that ended with this panic has no result; the panic's message if it has one, and failed.
pub(super) fn judge(panic: &(dyn Any + Send)) -> Result<String, String> {
    if let Some(Inconclusive(reason)) = panic.downcast_ref() {
        return Ok(reason.clone());
    }
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    hear(text);
    HEARD.with_borrow(Clone::clone).ok_or_else(|| text.to_string())
}
