//! `znode set`: replaces a znode's data.

use std::ffi::OsString;
use std::path::PathBuf;

use znodefs::client::{Client, Error};
use znodefs::{Acl, CreateMode, ErrorCode};

use super::arguments::{data_of, parse_path};
use super::failure::Failure;
use super::output::shell_word;

/// Replace a znode's data
///
/// Readers see the old value or the new one, never a mixture. Watchers are told even when the bytes
/// are the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode set /app/mode active
  znode set /app/config --file config.toml
  sort names | znode set /app/names -
  znode set --version 3 /app/mode active    only if nobody has changed version 3
  znode set --create /app/mode active       make it if it is not there")]
#[command(group = clap::ArgGroup::new("value").required(true))]
pub struct Set {
    /// The znode
    #[arg(value_parser = parse_path)]
    path: String,
    /// The new data; - stands for standard input, '' for empty data
    #[arg(group = "value", allow_hyphen_values = true)]
    data: Option<OsString>,
    /// Take the new data from a file
    #[arg(long, value_name = "FILE", group = "value")]
    file: Option<PathBuf>,
    /// Leave the znode without data
    #[arg(long, group = "value")]
    null: bool,
    /// Only if the znode's data still has this version
    #[arg(long, value_name = "N", conflicts_with = "create")]
    version: Option<i32>,
    /// Create the znode if it is not there
    #[arg(long)]
    create: bool,
}

impl Set {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        let data = data_of(self.data.as_ref(), self.file.as_ref())?;
        let mut result = client.set_data(&self.path, data.clone(), self.version).await.map(drop);
        // Somebody else may create or delete it between our two attempts.
        while self.create && is(&result, ErrorCode::NoNode) {
            let mode = CreateMode::Persistent;
            result = client.create(&self.path, data.clone(), Acl::open(), mode).await.map(drop);
            if is(&result, ErrorCode::NoNode) {
                break;
            }
            if is(&result, ErrorCode::NodeExists) {
                result = client.set_data(&self.path, data.clone(), None).await.map(drop);
            }
        }
        result.map_err(|error| Failure::operation(&self.path, error, |code| self.hint(code)))
    }

    fn hint(&self, code: ErrorCode) -> Option<String> {
        let path = shell_word(&self.path);
        match code {
            ErrorCode::NoNode if self.create => {
                Some(format!("its parent is missing too: use 'znode create -p {path}'"))
            }
            ErrorCode::NoNode => Some("--create creates it".into()),
            ErrorCode::BadVersion => Some(format!("'znode stat {path}' shows the present one")),
            _ => None,
        }
    }
}

fn is(result: &Result<(), Error>, code: ErrorCode) -> bool {
    matches!(result, Err(error) if error.code() == Some(code))
}
