//! `znode acl`: who may do what with a znode.

use std::io::Write;

use znodefs::ErrorCode;
use znodefs::client::Client;

use super::arguments::{AclList, parse_acl, parse_path};
use super::failure::Failure;
use super::get::no_node_hint;
use super::output::shell_word;

/// Print or replace a znode's access control list
#[derive(Debug, clap::Args)]
#[command(after_help = "\
An entry is SCHEME:ID:PERMISSIONS; permissions are c (create children), d (delete children), r (read
data and children), w (set data), a (set this list). Nothing is inherited from the parent.

Examples:
  znode acl get /app
  znode acl set /app world:anyone:r
  znode --auth digest:me:secret acl set /app world:anyone:r,auth::cdrwa")]
pub struct Acl {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the list, one entry on each line
    #[command(after_help = "Example:\n  znode acl get /app")]
    Get {
        /// The znode
        #[arg(value_parser = parse_path)]
        path: String,
    },
    /// Replace the list
    #[command(after_help = "Example:\n  znode acl set /app world:anyone:r")]
    Set {
        /// The znode
        #[arg(value_parser = parse_path)]
        path: String,
        /// The new list
        #[arg(value_name = "SCHEME:ID:PERMISSIONS,…", value_parser = parse_acl)]
        acl: AclList,
        /// Only if the list still has this version (aversion)
        #[arg(long, value_name = "N")]
        version: Option<i32>,
    },
}

impl Acl {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        match self.action {
            Action::Get { path } => {
                let (acl, _) = client.get_acl(&path).await.map_err(|error| {
                    Failure::operation(&path, error, |code| no_node_hint(&path, code))
                })?;
                let mut out = std::io::stdout().lock();
                for entry in acl {
                    writeln!(out, "{entry}")?;
                }
                Ok(out.flush()?)
            }
            Action::Set { path, acl, version } => {
                let result = client.set_acl(&path, acl.0, version).await;
                result.map(drop).map_err(|error| {
                    Failure::operation(&path, error, |code| match code {
                        ErrorCode::BadVersion => Some(format!(
                            "'znode stat {}' shows the present aversion",
                            shell_word(&path)
                        )),
                        code => no_node_hint(&path, code),
                    })
                })
            }
        }
    }
}
