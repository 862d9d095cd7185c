//! `znode stat`: what the service says about a znode.

use std::io::Write;

use znodefs::client::Client;

use super::arguments::parse_path;
use super::failure::Failure;
use super::get::no_node_hint;
use super::output::{format_stat, format_stat_json};

/// Print what the service knows of a znode beside its data
///
/// Versions count changes of the data (version), the children (cversion) and the ACL (aversion);
/// zxids name the transactions that made them. `data` says whether there is any: null (none at all,
/// a directory in a mount), empty, or present.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode stat /app
  znode stat --json /app | jq .version")]
pub struct Stat {
    /// The znode
    #[arg(value_parser = parse_path)]
    path: String,
    /// One line of JSON: zxids as hexadecimal strings, times in milliseconds since 1970
    #[arg(long)]
    json: bool,
}

impl Stat {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        // The stat does not tell null from empty data, so a znode without bytes is read as well.
        let stat = client.exists(&self.path, false).await;
        let stat = stat.map_err(|error| Failure::operation(&self.path, error, |_| None))?;
        let Some(mut stat) = stat else {
            let code = znodefs::ErrorCode::NoNode;
            let hint = no_node_hint(&self.path, code).unwrap_or_default();
            return Err(Failure::failed(format!("{}: {code} ({hint})", self.path)));
        };
        let mut kind = Some("present");
        if stat.data_length == 0 {
            kind = None;
            if let Ok((data, newer)) = client.get_data(&self.path, false).await {
                kind = Some(match data {
                    None => "null",
                    Some(data) if data.is_empty() => "empty",
                    Some(_) => "present",
                });
                stat = newer;
            }
        }
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", format_stat_json(&self.path, kind, &stat))?;
        } else {
            writeln!(out, "path = {}", self.path)?;
            if let Some(kind) = kind {
                writeln!(out, "data = {kind}")?;
            }
            write!(out, "{}", format_stat(&stat))?;
        }
        Ok(out.flush()?)
    }
}
