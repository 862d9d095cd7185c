//! `znode create`: makes a znode.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use znodefs::client::{Client, Error, SessionState};
use znodefs::{Acl, CreateMode, ErrorCode, path};

use super::arguments::{AclList, data_of, parse_acl, parse_duration};
use super::failure::Failure;
use super::output::shell_word;

/// Create a znode and print its path
///
/// Without DATA the znode has no data at all (null), as mkdir makes it, and a mount shows it as a
/// directory; with DATA, be it '', a mount shows it as a file.
///
/// An ephemeral znode lives as long as the session that made it, so with -e the command stays until
/// it gets a signal (INT, TERM or HUP), and its end deletes the znode: start it with &.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode create /app                          without data: a directory in a mount
  znode create -p /app/db/url 'db:5432'      with data, and with missing parents
  znode create /app/flag ''                  with empty data
  tar c conf | znode create /app/conf -      data from standard input
  znode create -s /app/job- 'work'           a counter appended: prints /app/job-0000000003
  znode create -t 1h /app/hint 'x'           goes when untouched for an hour
  znode create --acl world:anyone:r,auth::cdrwa --auth digest:me:pw /app/mine

  znode create -e /app/alive \"$HOSTNAME\" &   there until the next line
  kill $!")]
pub struct Create {
    /// The znode; with -s it may end with /
    path: String,
    /// The data; - stands for standard input, '' for empty data
    #[arg(allow_hyphen_values = true)]
    data: Option<OsString>,
    /// Take the data from a file
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// Ephemeral: it goes when this command ends
    #[arg(short, long)]
    ephemeral: bool,
    /// Sequential: append the parent's 10-digit counter
    #[arg(short, long)]
    sequential: bool,
    /// Container: the service deletes it some time after its last child has gone
    #[arg(short, long, conflicts_with_all = ["ephemeral", "sequential", "ttl"])]
    container: bool,
    /// The service deletes it once it is childless and was not set for this long
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    #[arg(conflicts_with = "ephemeral")]
    ttl: Option<Duration>,
    /// Who may do what, instead of everybody everything
    #[arg(long, value_name = "SCHEME:ID:PERMISSIONS,…", value_parser = parse_acl)]
    acl: Option<AclList>,
    /// Create missing parents too, without data and open to everybody
    #[arg(short, long)]
    parents: bool,
}

impl Create {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result<(), Failure> {
        self.check_path()?;
        let data = data_of(self.data.as_ref(), self.file.as_ref())?;
        // Caught before there is anything that a signal would leave behind.
        let signals = if self.ephemeral { Some(EndSignals::catch()?) } else { None };
        let mut result = self.create(client, data.clone()).await;
        if self.parents && matches!(&result, Err(error) if error.code() == Some(ErrorCode::NoNode))
        {
            self.create_parents(client).await?;
            result = self.create(client, data).await;
        }
        let created = result
            .map_err(|error| Failure::operation(&self.path, error, |code| self.hint(code)))?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{created}")?;
        out.flush()?;
        drop(out);
        match signals {
            Some(signals) => signals.wait(client, &created).await,
            None => Ok(()),
        }
    }

    fn check_path(&self) -> Result<(), Failure> {
        let checked = match self.path.strip_suffix('/') {
            Some(parent) if self.sequential => parent,
            _ => &self.path,
        };
        if checked.is_empty() && self.sequential && self.path == "/" {
            return Ok(());
        }
        path::validate(checked).map_err(|error| Failure::usage(error.to_string()))
    }

    async fn create(&self, client: &Client, data: Option<Bytes>) -> Result<String, Error> {
        let acl = self.acl.as_ref().map_or_else(Acl::open, |acl| acl.0.clone());
        let created = match self.ttl {
            Some(ttl) => client.create_ttl(&self.path, data, acl, self.mode(), ttl).await,
            None => client.create(&self.path, data, acl, self.mode()).await,
        };
        created.map(|(path, _)| path)
    }

    fn mode(&self) -> CreateMode {
        match (self.ephemeral, self.sequential, self.ttl.is_some()) {
            (false, false, true) => CreateMode::PersistentWithTtl,
            (false, true, true) => CreateMode::PersistentSequentialWithTtl,
            (true, false, _) => CreateMode::Ephemeral,
            (true, true, _) => CreateMode::EphemeralSequential,
            (false, true, false) => CreateMode::PersistentSequential,
            (false, false, false) if self.container => CreateMode::Container,
            (false, false, false) => CreateMode::Persistent,
        }
    }

    /// Creates every ancestor that is missing; all requests are on their way at once.
    async fn create_parents(&self, client: &Client) -> Result<(), Failure> {
        let mut ancestors = Vec::new();
        let mut ancestor = path::parent(&self.path);
        while let Some(path) = ancestor.filter(|path| *path != "/") {
            ancestors.push(path);
            ancestor = path::parent(path);
        }
        let creations: Vec<_> = ancestors
            .iter()
            .rev()
            .map(|path| (path, client.create(path, None, Acl::open(), CreateMode::Persistent)))
            .collect();
        for (path, creation) in creations {
            match creation.await {
                Ok(_) => {}
                Err(error) if error.code() == Some(ErrorCode::NodeExists) => {}
                Err(error) => return Err(Failure::operation(path, error, |code| self.hint(code))),
            }
        }
        Ok(())
    }

    fn hint(&self, code: ErrorCode) -> Option<String> {
        let parent = path::parent(&self.path).unwrap_or("/");
        match code {
            ErrorCode::NoNode => Some(format!("its parent {parent} is missing: -p creates it too")),
            ErrorCode::NodeExists => {
                Some(format!("change it with 'znode set {}'", shell_word(&self.path)))
            }
            ErrorCode::NoChildrenForEphemerals => Some(format!("{parent} is ephemeral")),
            ErrorCode::Unimplemented if self.ttl.is_some() => {
                Some("the servers must allow it: extendedTypesEnabled=true".into())
            }
            _ => None,
        }
    }
}

/// The signals that end a command which holds an ephemeral znode.
struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl EndSignals {
    /// Catches them from now on.
    fn catch() -> Result<EndSignals, Failure> {
        let catch = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))
        };
        Ok(EndSignals {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for one; fails if the session, and with it the znode, ends before.
    async fn wait(mut self, client: &Client, path: &str) -> Result<(), Failure> {
        let mut states = client.state_changes();
        let ended = |state: &SessionState| {
            use SessionState::*;
            matches!(state, Expired | AuthFailed | Closed)
        };
        tokio::select! {
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
            _ = self.hang_up.recv() => Ok(()),
            _ = states.wait_for(ended) => {
                Err(Failure::failed(format!("{path}: the session expired, and the znode is gone")))
            }
        }
    }
}
