//! `znode ls`: a znode's children.

use std::collections::VecDeque;
use std::io::{BufWriter, Write};

use znodefs::client::Client;
use znodefs::{ErrorCode, path};

use super::arguments::parse_path;
use super::failure::Failure;
use super::get::no_node_hint;
use super::output::format_columns;
use super::tree_walk::TreeWalk;

/// How many stats are asked for ahead.
const WINDOW: usize = 500;

/// List a znode's children, one name on each line, sorted
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Columns of -l: e for an ephemeral znode, else -; version of the data; length of the data in bytes;
number of children; time of the last change of the data; name.

Examples:
  znode ls /app
  znode ls -l /app
  znode ls -R /app | grep '/config$'")]
pub struct Ls {
    /// The znode
    #[arg(value_parser = parse_path, default_value = "/")]
    path: String,
    /// Show version, length, number of children and time as well
    #[arg(short, long)]
    long: bool,
    /// The znode itself and all below it, as full paths, parents first
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Let the server catch up first, so that every earlier write is seen
    #[arg(long)]
    sync: bool,
}

impl Ls {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        if self.sync {
            drop(client.sync(&self.path));
        }
        let mut out = BufWriter::new(std::io::stdout());
        match (self.recursive, self.long) {
            (true, _) => self.recursively(client, &mut out).await?,
            (false, true) => self.with_stats(client, &mut out).await?,
            (false, false) => {
                for name in self.children(client).await? {
                    writeln!(out, "{name}")?;
                }
            }
        }
        Ok(out.flush()?)
    }

    async fn children(&self, client: &Client) -> Result<Vec<String>, Failure> {
        let children = client.get_children(&self.path, false).await;
        let (mut names, _) = children.map_err(|error| {
            Failure::operation(&self.path, error, |code| no_node_hint(&self.path, code))
        })?;
        names.sort_unstable();
        Ok(names)
    }

    async fn with_stats(&self, client: &Client, out: &mut impl Write) -> Result<(), Failure> {
        let names = self.children(client).await?;
        let mut ahead = VecDeque::new();
        let mut unasked = names.iter();
        for name in &names {
            while ahead.len() < WINDOW
                && let Some(name) = unasked.next()
            {
                ahead.push_back(client.exists(&path::join(&self.path, name), false));
            }
            let Some(stat) = ahead.pop_front() else { break };
            let stat = stat.await.map_err(|error| {
                Failure::operation(&path::join(&self.path, name), error, |_| None)
            })?;
            // A child that is gone meanwhile is not listed.
            if let Some(stat) = stat {
                writeln!(out, "{} {name}", format_columns(&stat))?;
            }
        }
        Ok(())
    }

    async fn recursively(&self, client: &Client, out: &mut impl Write) -> Result<(), Failure> {
        let mut walk = TreeWalk::new(client, &self.path);
        let mut result = Ok(());
        loop {
            match walk.next().await {
                Ok(None) => return result,
                Ok(Some((path, stat))) => {
                    if self.long {
                        write!(out, "{} ", format_columns(&stat))?;
                    }
                    writeln!(out, "{path}")?;
                }
                Err((path, error)) => {
                    let hidden = error.code() == Some(ErrorCode::NoAuth);
                    let failure =
                        Failure::operation(&path, error, |code| no_node_hint(&path, code));
                    if !hidden {
                        return Err(failure);
                    }
                    // What must not be looked into does not keep us from the rest.
                    if let Err(earlier) = std::mem::replace(&mut result, Err(failure)) {
                        let _ = Failure::report(earlier);
                    }
                }
            }
        }
    }
}
