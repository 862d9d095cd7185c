//! `znode get`: a znode's data.

use std::io::Write;

use znodefs::ErrorCode;
use znodefs::client::Client;

use super::arguments::parse_path;
use super::failure::Failure;
use super::output::{format_stat, shell_word};

/// Print a znode's data, byte for byte
///
/// Nothing is added, not even a line end. Null data (no data at all, as `znode create PATH` and
/// `mkdir` in a mount make it) prints nothing, and so does empty data; `znode stat` tells them apart.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode get /app/config > config.toml
  znode get --sync /app/leader      what every write before this command has left
  znode get --stat /app/config      its stat as well, on standard error")]
pub struct Get {
    /// The znode
    #[arg(value_parser = parse_path)]
    path: String,
    /// Print the stat to standard error as well
    #[arg(long)]
    stat: bool,
    /// Let the server catch up first, so that every earlier write is seen
    #[arg(long)]
    sync: bool,
}

impl Get {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        if self.sync {
            drop(client.sync(&self.path));
        }
        let (data, stat) = client.get_data(&self.path, false).await.map_err(|error| {
            Failure::operation(&self.path, error, |code| no_node_hint(&self.path, code))
        })?;
        let mut out = std::io::stdout().lock();
        out.write_all(data.as_deref().unwrap_or_default())?;
        out.flush()?;
        if self.stat {
            eprint!("{}", format_stat(&stat));
        }
        Ok(())
    }
}

/// What to do about a znode that is not there.
pub fn no_node_hint(path: &str, code: ErrorCode) -> Option<String> {
    (code == ErrorCode::NoNode)
        .then(|| format!("create it with 'znode create {}'", shell_word(path)))
}
