//! `znode elect`: runs a command while leading, or tells who leads.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use znodefs::client::{Client, Error};
use znodefs::recipe::contender;
use znodefs::recipe::lock::identifier as identifier_of;
use znodefs::recipe::{EventHub, LockMode};
use znodefs::{ErrorCode, path};

use super::arguments::parse_path_below_root;
use super::campaign::{Campaign, Outcome, identifier};
use super::failure::{Failure, say};
use super::output::printable;
use super::service::{Service, close, is_outage};
use super::signals::{self, Signals};

/// Run a command while leading, or tell who leads
///
/// Everybody who wants to lead runs this with the same PATH; the first in the queue leads, and the next
/// one follows when its command has ended. Command, signals and lost connections are treated as by
/// `znode lock`, with one difference: who loses the lead because the session was lost stands again, and
/// runs the command again when it is its turn. A command that ends by itself gives the lead up for good.
///
/// kazoo's Election on the same PATH takes part in the same election.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode elect /services/scheduler scheduler --config /etc/scheduler
  znode elect --name \"$HOSTNAME\" /services/scheduler scheduler
  znode elect --observe /services/scheduler     who leads, now and after each change
  znode elect --observe --once /services/scheduler
  znode elect --observe /services/scheduler | while read -r leader; do echo \"now: $leader\"; done

Observers print one line each time: the leader's name, or an empty line while nobody leads. With --once
they print the name and end, with exit status 1 if nobody leads.

Environment of the command, as with znode lock: ZNODE_LOCK_PATH, ZNODE_LOCK_CONTENDER, ZNODE_LOCK_ZXID
(decimal; grows from leader to leader, for fencing), ZNODE_SERVERS.

Exit status: the command's; 128 + N if signal N ended it; 69 if it cannot be started; 1 if the
service fails; 2 wrong usage.")]
pub struct Elect {
    /// Print the leader's name now and after each change instead of standing for election
    #[arg(long, conflicts_with_all = ["command", "name"])]
    observe: bool,
    /// With --observe: print who leads now, and end
    #[arg(long, requires = "observe", conflicts_with_all = ["command", "name"])]
    once: bool,
    /// The name that observers see [default: HOST:PID:CMD]
    #[arg(long)]
    name: Option<String>,
    /// The election's znode
    #[arg(value_parser = parse_path_below_root)]
    path: String,
    /// The command and its arguments; no shell reads them
    #[arg(required_unless_present = "observe", trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Elect {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        if self.observe {
            return self.observe(service).await;
        }
        let mut signals = Signals::catch()?;
        let campaign = Campaign {
            service,
            path: &self.path,
            mode: LockMode::Exclusive,
            limit: 1,
            identifier: self.name.clone().unwrap_or_else(|| identifier(&self.command)),
            patience: None,
        };
        let mut again = false;
        loop {
            let holding = match campaign.run(again, &mut signals).await? {
                Outcome::Won(holding) => holding,
                Outcome::Busy(message) => return Err(Failure::failed(message)),
                Outcome::Signalled(signal) => return Ok(signals::die_of(signal)),
            };
            let ran = holding.run(service, &self.command, false, &mut signals).await?;
            if !ran.lost {
                return Ok(ran.ended.report());
            }
            again = true;
            say(&format!("{}: standing for election again", self.path));
        }
    }

    async fn observe(&self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        let hub = EventHub::new();
        let client = service.open(hub.clone(), true).await?;
        if self.once {
            let leader = self.leader(&client).await;
            close(&client).await;
            return match leader.map_err(|error| Failure::operation(&self.path, error, |_| None))? {
                Some(leader) => {
                    writeln!(std::io::stdout(), "{}", printable(&leader))?;
                    Ok(ExitCode::SUCCESS)
                }
                None => Err(Failure::failed(format!("{}: nobody leads", self.path))),
            };
        }
        let mut told: Option<String> = None;
        let observing = async {
            loop {
                match self.observe_once(&client, &hub, &mut told).await {
                    Err(Observed::Failed(error)) if is_outage(&error) => {
                        tracing::info!("{}: {error}", self.path);
                    }
                    Err(Observed::Failed(error)) => {
                        return Failure::operation(&self.path, error, |_| None);
                    }
                    Err(Observed::Output(failure)) => return failure,
                    Ok(()) => {}
                }
            }
        };
        let failure = tokio::select! {
            failure = observing => failure,
            () = super::output::reader_gone() => Failure::OutputClosed,
        };
        close(&client).await;
        Err(failure)
    }

    /// Who leads now, as the servers that lead have it; `None` where nobody does.
    async fn leader(&self, client: &Client) -> Result<Option<String>, Error> {
        client.sync(&self.path).await?;
        loop {
            let children = match client.get_children(&self.path, false).await {
                Ok((children, _)) => children,
                Err(error) if error.code() == Some(ErrorCode::NoNode) => return Ok(None),
                Err(error) => return Err(error),
            };
            let queue = contender::queue(children.iter().map(String::as_str));
            let Some(leader) = queue.first() else { return Ok(None) };
            // Gone since: the next one leads.
            if client.exists(&path::join(&self.path, leader.name), false).await?.is_some() {
                return Ok(Some(identifier_of(client, &self.path, leader).await));
            }
        }
    }

    /// Prints the leader if it is another than the one `told`, and waits until it may have changed.
    async fn observe_once(
        &self,
        client: &Client,
        hub: &EventHub,
        told: &mut Option<String>,
    ) -> Result<(), Observed> {
        let queue_changed = hub.next_event(&self.path);
        let (children, is_there) = match client.get_children(&self.path, false).await {
            Ok((children, _)) => (children, true),
            Err(error) if error.code() == Some(ErrorCode::NoNode) => (Vec::new(), false),
            Err(error) => return Err(error.into()),
        };
        let queue = contender::queue(children.iter().map(String::as_str));
        let Some(leader) = queue.first() else {
            self.tell(String::new(), told)?;
            // Nobody leads: whoever comes first does.
            let unchanged = match is_there {
                true => match client.get_children(&self.path, true).await {
                    Ok((now, _)) => contender::queue(now.iter().map(String::as_str)).is_empty(),
                    Err(error) if error.code() == Some(ErrorCode::NoNode) => false,
                    Err(error) => return Err(error.into()),
                },
                false => client.exists(&self.path, true).await?.is_none(),
            };
            if unchanged {
                let _ = queue_changed.await;
            }
            return Ok(());
        };
        // Only the leader's own znode is watched: who joins the queue wakes nobody.
        let leader_path = path::join(&self.path, leader.name);
        let leader_changed = hub.next_event(&leader_path);
        if client.exists(&leader_path, true).await?.is_some() {
            self.tell(identifier_of(client, &self.path, leader).await, told)?;
            let _ = leader_changed.await;
        }
        Ok(())
    }

    fn tell(&self, leader: String, told: &mut Option<String>) -> Result<(), Observed> {
        if told.as_ref() == Some(&leader) {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", printable(&leader))?;
        out.flush()?;
        *told = Some(leader);
        Ok(())
    }
}

/// Why an observation ended.
enum Observed {
    Failed(Error),
    Output(Failure),
}

impl From<Error> for Observed {
    fn from(error: Error) -> Observed {
        Observed::Failed(error)
    }
}

impl From<std::io::Error> for Observed {
    fn from(error: std::io::Error) -> Observed {
        Observed::Output(error.into())
    }
}
