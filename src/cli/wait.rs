//! `znode wait`: waits until something is true of a znode.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use znodefs::ErrorCode;
use znodefs::client::{Client, Error, SessionState};
use znodefs::recipe::EventHub;

use super::arguments::{parse_path, parse_patience};
use super::failure::Failure;
use super::service::{Service, close, is_outage};

/// Wait until a znode is there, gone, or has a value
///
/// Returns at once when it is so already. Waits through lost connections and sessions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode wait /app/ready --exists                 a gate that somebody opens
  znode wait -w 30 /app/lock --gone || exit      at most 30 s
  znode wait /app/state --value done
  znode wait /app/workers --children 3           at least three are there
  znode wait /app/workers --childless            all have left

Exit status: 0 when it is so; 1 when it is not after SECS, or the service fails; 2 wrong usage.")]
pub struct Wait {
    #[command(flatten)]
    condition: Condition,
    /// How long to wait at most (a bare number is seconds; 0 only looks)
    #[arg(short, long, value_name = "SECS", value_parser = parse_patience)]
    wait: Option<Duration>,
    /// The znode
    #[arg(value_parser = parse_path)]
    path: String,
}

/// What is waited for.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Condition {
    /// Until it exists
    #[arg(long)]
    exists: bool,
    /// Until it does not exist
    #[arg(long)]
    gone: bool,
    /// Until it exists with this data, byte for byte
    #[arg(long, value_name = "V")]
    value: Option<OsString>,
    /// Until it exists with at least this many children
    #[arg(long, value_name = "N")]
    children: Option<u32>,
    /// Until it has no children, or does not exist
    #[arg(long)]
    childless: bool,
}

impl Wait {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        let hub = EventHub::new();
        let client = service.open(hub.clone(), true).await?;
        let result = match self.wait {
            None => self.until_true(&client, &hub).await,
            Some(Duration::ZERO) => match self.is_true(&client).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failure::failed(self.not_true())),
                Err(error) => Err(Failure::operation(&self.path, error, |_| None)),
            },
            Some(limit) => {
                let waiting = tokio::time::timeout(limit, self.until_true(&client, &hub)).await;
                waiting.unwrap_or_else(|_| {
                    let seconds = limit.as_secs_f64();
                    Err(Failure::failed(format!("{} after {seconds} s", self.not_true())))
                })
            }
        };
        close(&client).await;
        result.map(|()| ExitCode::SUCCESS)
    }

    async fn until_true(&self, client: &Client, hub: &EventHub) -> Result<(), Failure> {
        loop {
            let event = hub.next_event(&self.path);
            match self.is_true(client).await {
                Ok(true) => return Ok(()),
                // An error says that the session ended, and its watch with it.
                Ok(false) => _ = event.await,
                Err(error) if is_outage(&error) => {
                    tracing::info!("{}: {error}", self.path);
                    let mut states = client.state_changes();
                    // The client lives: this cannot fail.
                    let _ = states.wait_for(|state| *state == SessionState::Connected).await;
                }
                Err(error) => return Err(Failure::operation(&self.path, error, |_| None)),
            }
        }
    }

    /// Looks, and sets watches that tell when to look again.
    async fn is_true(&self, client: &Client) -> Result<bool, Error> {
        let condition = &self.condition;
        // The watch stands before data or children are read: a change in between is not missed.
        let stat = client.exists(&self.path, true);
        if let Some(value) = &condition.value {
            let data = client.get_data(&self.path, false);
            let is_there = stat.await?.is_some();
            return Ok(is_there
                && found(data.await)?.is_some_and(|(data, _)| {
                    data.as_deref().unwrap_or_default() == value.as_bytes()
                }));
        }
        if condition.children.is_some() || condition.childless {
            let children = client.get_children(&self.path, true);
            stat.await?;
            let count = found(children.await)?.map(|(children, _)| children.len());
            return Ok(match condition.children {
                Some(wanted) => count.is_some_and(|count| count >= wanted as usize),
                None => count.is_none_or(|count| count == 0),
            });
        }
        Ok(stat.await?.is_some() == condition.exists)
    }

    /// What to say when it is not so.
    fn not_true(&self) -> String {
        let condition = &self.condition;
        let state = match &condition.value {
            Some(_) => "does not have the value".to_string(),
            None if condition.exists => "does not exist".to_string(),
            None if condition.gone => "still exists".to_string(),
            None => match condition.children {
                Some(wanted) => format!("does not have {wanted} children"),
                None => "still has children".to_string(),
            },
        };
        format!("{}: {state}", self.path)
    }
}

/// The result of a read; `None` where there is no such znode.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == Some(ErrorCode::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}
