//! `znode rm`: deletes znodes.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use znodefs::ErrorCode;
use znodefs::client::{Client, Error};

use super::arguments::parse_path_below_root;
use super::failure::Failure;
use super::output::shell_word;
use super::tree_walk::TreeWalk;

/// How many deletions are on their way at most.
const WINDOW: usize = 1000;
/// How often a subtree is gone through again because others created znodes in it meanwhile.
const ROUNDS_MAX: usize = 10;
/// Progress is told after every so many znodes.
const PROGRESS_STEP: usize = 1000;

/// Delete znodes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode rm /app/flag
  znode rm -r /app                 the znode and all below it; not one step, but many
  znode rm -f /app/a /app/b        no matter whether they are there
  znode rm --version 3 /app/job    only if nobody has changed version 3")]
pub struct Rm {
    /// The znodes
    #[arg(value_parser = parse_path_below_root, required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Delete all below them too
    #[arg(short, long)]
    recursive: bool,
    /// Only if the znode's data still has this version
    #[arg(long, value_name = "N", conflicts_with = "recursive")]
    version: Option<i32>,
    /// A znode that is not there is no failure
    #[arg(short, long)]
    force: bool,
}

impl Rm {
    /// Runs the command; one znode's failure does not keep it from the others.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        let mut result = Ok(());
        for path in &self.paths {
            let removed = match self.recursive {
                true => self.remove_tree(client, path).await,
                false => client.delete(path, self.version).await.map_err(|e| (path.clone(), e)),
            };
            match removed {
                Err((_, error)) if self.force && error.code() == Some(ErrorCode::NoNode) => {}
                Err((failed, error)) => {
                    let failure = Failure::operation(&failed, error, |code| hint(&failed, code));
                    if let Err(earlier) = std::mem::replace(&mut result, Err(failure)) {
                        let _ = Failure::report(earlier);
                    }
                }
                Ok(()) => {}
            }
        }
        result
    }

    async fn remove_tree(&self, client: &Client, path: &str) -> Result<(), (String, Error)> {
        for round in 1.. {
            let mut walk = TreeWalk::new(client, path);
            let mut found = Vec::new();
            loop {
                match walk.next().await {
                    Ok(Some((path, _))) => found.push(path),
                    Ok(None) => break,
                    // In a later round it may be gone by others' hands.
                    Err((_, error)) if round > 1 && error.code() == Some(ErrorCode::NoNode) => {
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
            match remove_all(client, &found).await {
                Err((_, error))
                    if round < ROUNDS_MAX && error.code() == Some(ErrorCode::NotEmpty) => {}
                result => return result,
            }
        }
        Ok(())
    }
}

/// Deletes znodes that are listed parents first, with many deletions on their way at once. All are
/// tried; the first failure is returned.
async fn remove_all(client: &Client, found: &[String]) -> Result<(), (String, Error)> {
    let show_progress = found.len() > PROGRESS_STEP && std::io::stderr().is_terminal();
    let mut sent = VecDeque::new();
    let mut unsent = found.iter().rev();
    let mut result = Ok(());
    for removed in 0..found.len() {
        while sent.len() < WINDOW
            && let Some(path) = unsent.next()
        {
            sent.push_back((path, client.delete(path, None)));
        }
        let Some((path, deletion)) = sent.pop_front() else { break };
        match deletion.await {
            Ok(()) => {}
            Err(error) if error.code() == Some(ErrorCode::NoNode) => {}
            Err(error) => {
                if result.is_ok() {
                    result = Err((path.clone(), error));
                }
            }
        }
        if show_progress && (removed + 1).is_multiple_of(PROGRESS_STEP) {
            eprint!("\rznode: {} of {} deleted", removed + 1, found.len());
            let _ = std::io::stderr().flush();
        }
    }
    if show_progress {
        eprintln!("\rznode: {} of {} deleted", found.len(), found.len());
    }
    result
}

fn hint(path: &str, code: ErrorCode) -> Option<String> {
    let path = shell_word(path);
    match code {
        ErrorCode::NoNode => Some("-f takes that for done".into()),
        ErrorCode::NotEmpty => Some(format!("'znode rm -r {path}' deletes them too")),
        ErrorCode::BadVersion => Some(format!("'znode stat {path}' shows the present one")),
        ErrorCode::BadArguments => Some("it belongs to the service itself".into()),
        _ => None,
    }
}
