//! Walks a subtree from the top, children in order of their names, with many requests on their way
//! at once.

use std::future::Future;
use std::pin::Pin;

use znodefs::client::{Client, Error};
use znodefs::{ErrorCode, Stat, path};

/// How many requests are on their way at most.
const WINDOW: usize = 500;

type Listing = Pin<Box<dyn Future<Output = Result<(Vec<String>, Stat), Error>> + Send>>;

/// A walk in progress: what is still to be visited, the next one last.
pub struct TreeWalk<'a> {
    client: &'a Client,
    stack: Vec<(String, Option<Listing>)>,
    /// Whether the znode itself was visited.
    started: bool,
}

impl<'a> TreeWalk<'a> {
    /// A walk of `path` and all below it.
    pub fn new(client: &'a Client, path: &str) -> TreeWalk<'a> {
        TreeWalk { client, stack: vec![(path.to_string(), None)], started: false }
    }

    /// The next znode with its stat, parents before children; `None` at the end. Znodes that go
    /// while the walk is under way are left out.
    pub async fn next(&mut self) -> Result<Option<(String, Stat)>, (String, Error)> {
        loop {
            self.send_ahead();
            let Some((path, Some(listing))) = self.stack.pop() else { return Ok(None) };
            match listing.await {
                Ok((mut names, stat)) => {
                    self.started = true;
                    names.sort_unstable_by(|a, b| b.cmp(a));
                    let children = names.iter().map(|name| (path::join(&path, name), None));
                    self.stack.extend(children);
                    return Ok(Some((path, stat)));
                }
                Err(error) if self.started && error.code() == Some(ErrorCode::NoNode) => {}
                Err(error) => return Err((path, error)),
            }
        }
    }

    /// Once the next one is not asked for yet, asks for it and those behind it.
    fn send_ahead(&mut self) {
        if matches!(self.stack.last(), Some((_, None))) {
            for (path, listing) in self.stack.iter_mut().rev().take(WINDOW) {
                if listing.is_none() {
                    *listing = Some(Box::pin(self.client.get_children(path, false)));
                }
            }
        }
    }
}
