//! `znode register`: an ephemeral znode that is there while a command runs.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::time::Instant;
use znodefs::client::{Client, Error, SessionState};
use znodefs::recipe::EventHub;
use znodefs::recipe::lock::create_parents;
use znodefs::{Acl, CreateMode, ErrorCode, SessionId, path};

use super::arguments::{AclList, data_argument, parse_acl, parse_path_below_root, parse_patience};
use super::child::{Child, CommandLine};
use super::failure::{Failure, say};
use super::service::{Service, close, is_outage};
use super::signals::{self, Signals};

/// Keep an ephemeral znode while a command runs
///
/// Creates PATH (and missing parents), runs the command, and deletes PATH when the command ends. Signals,
/// terminal and exit status are treated as by `znode lock`, but a lost connection does not end the command:
/// when the session is lost, PATH is created again in the next one, and standard error says so.
///
/// If PATH is there and another session's, as after a restart that came before the old session has
/// expired, the command is started when it has gone (-w says how long to wait). If somebody deletes PATH
/// by hand while the command runs, it stays deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode register /services/web/$HOSTNAME --data \"$ADDRESS:8080\" nginx -g 'daemon off;'
  znode register --sequential /workers/worker- worker     a counter appended: /workers/worker-0000000007
  znode watch --recursive --initial /services/web         who is there, then who comes and goes

Environment of the command: ZNODE_REGISTERED_PATH (with --sequential, the name at the start);
ZNODE_SERVERS.

Exit status: the command's; 128 + N if signal N ended it; 69 if it cannot be started; 1 if PATH is
taken or the service fails; 2 wrong usage.")]
pub struct Register {
    /// The data; - stands for standard input
    #[arg(short, long, value_name = "D", allow_hyphen_values = true)]
    data: Option<OsString>,
    /// Append the parent's 10-digit counter to PATH
    #[arg(short, long)]
    sequential: bool,
    /// How long to wait for another session's PATH to go (a bare number is seconds) [default: three
    /// session timeouts]
    #[arg(short, long, value_name = "SECS", value_parser = parse_patience)]
    wait: Option<Duration>,
    /// Who may do what, instead of everybody everything
    #[arg(long, value_name = "SCHEME:ID:PERMISSIONS,…", value_parser = parse_acl)]
    acl: Option<AclList>,
    /// The znode
    #[arg(value_parser = parse_path_below_root)]
    path: String,
    /// The command and its arguments; no shell reads them
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// The znode as it was created.
struct Registration {
    path: String,
    session_id: SessionId,
}

impl Register {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        let mut signals = Signals::catch()?;
        let data = self.data.as_deref().map(data_argument).transpose()?;
        let hub = EventHub::new();
        let client = tokio::select! {
            client = service.open(hub.clone(), true) => client?,
            signal = signals.next_ending() => return Ok(signals::die_of(signal)),
        };
        let patience = self.wait.unwrap_or_else(|| 3 * client.negotiated_timeout());
        let deadline = Instant::now() + patience;
        let registration = tokio::select! {
            registration = self.register(&client, &hub, &data, Some(deadline)) => registration,
            signal = signals.next_ending() => {
                close(&client).await;
                return Ok(signals::die_of(signal));
            }
        };
        let result = match registration {
            Ok(registration) => {
                self.run_command(service, &client, &hub, &data, registration, &mut signals).await
            }
            Err(failure) => Err(failure),
        };
        close(&client).await;
        result
    }

    async fn run_command(
        &self,
        service: &Service<'_>,
        client: &Client,
        hub: &EventHub,
        data: &Option<Bytes>,
        registration: Registration,
        signals: &mut Signals,
    ) -> Result<ExitCode, Failure> {
        let mut environment = service.environment();
        environment.push(("ZNODE_REGISTERED_PATH", registration.path.clone()));
        let line = CommandLine { words: &self.command, environment, death_signal: Signal::SIGTERM };
        let mut child = Child::start(&line)?;
        let kept = self.keep(client, hub, data, registration);
        tokio::pin!(kept);
        let mut gave_up = false;
        loop {
            tokio::select! {
                ended = child.wait(signals, false) => {
                    let ended = ended.map_err(|error| {
                        Failure::failed(format!("cannot wait for the command: {error}"))
                    })?;
                    return Ok(ended.report());
                }
                failure = &mut kept, if !gave_up => {
                    gave_up = true;
                    say(&format!("{}: not registered any more, and the command goes on: {failure}",
                        self.path));
                }
            }
        }
    }

    /// Creates the znode. While it is another session's, waits for that until the deadline.
    async fn register(
        &self,
        client: &Client,
        hub: &EventHub,
        data: &Option<Bytes>,
        deadline: Option<Instant>,
    ) -> Result<Registration, Failure> {
        let mut told = false;
        loop {
            let gone = hub.next_event(&self.path);
            let error = match self.create(client, data).await {
                Ok(registration) => return Ok(registration),
                Err(error) => error,
            };
            if deadline.is_none() && is_outage(&error) {
                let mut states = client.state_changes();
                let _ = states.wait_for(|state| *state == SessionState::Connected).await;
                continue;
            }
            if error.code() != Some(ErrorCode::NodeExists) {
                return Err(Failure::operation(&self.path, error, |_| None));
            }
            let stat = match client.exists(&self.path, true).await {
                Ok(Some(stat)) => stat,
                Ok(None) => continue,
                Err(error) if deadline.is_none() && is_outage(&error) => continue,
                Err(error) => return Err(Failure::operation(&self.path, error, |_| None)),
            };
            if stat.ephemeral_owner.0 == 0 {
                return Err(Failure::failed(format!(
                    "{}: it is there already and not ephemeral (delete it with 'znode rm', or choose \
                     another name)",
                    self.path
                )));
            }
            let owner = stat.ephemeral_owner;
            if owner == client.session_id() && !self.sequential {
                return Ok(Registration { path: self.path.clone(), session_id: owner });
            }
            if !std::mem::replace(&mut told, true) {
                say(&format!("{}: session {owner} has it; waiting until it goes", self.path));
            }
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = gone => {}
                () = sleep => {
                    return Err(Failure::failed(format!("{}: session {owner} still has it", self.path)));
                }
            }
        }
    }

    /// Creates the znode and its parents, once, whatever is lost on the way.
    async fn create(&self, client: &Client, data: &Option<Bytes>) -> Result<Registration, Error> {
        let mode = match self.sequential {
            true => CreateMode::EphemeralSequential,
            false => CreateMode::Ephemeral,
        };
        let acl = self.acl.as_ref().map_or_else(Acl::open, |acl| acl.0.clone());
        let mut is_uncertain = false;
        loop {
            // An earlier attempt may have done it, without our having heard of it.
            if is_uncertain {
                let own = client.ephemerals(&self.path).await?;
                let is_it = |path: &&String| match self.sequential {
                    true => path::parent(path) == path::parent(&self.path),
                    false => **path == self.path,
                };
                if let Some(path) = own.iter().find(is_it).cloned() {
                    return Ok(Registration { path, session_id: client.session_id() });
                }
            }
            match client.create(&self.path, data.clone(), acl.clone(), mode).await {
                Ok((path, stat)) => {
                    return Ok(Registration { path, session_id: stat.ephemeral_owner });
                }
                Err(error) if error.is_outcome_unknown() => is_uncertain = true,
                Err(error) if error.code() == Some(ErrorCode::NoNode) => {
                    create_parents(client, path::parent(&self.path).unwrap_or("/")).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the znode there; returns why that is not possible any more.
    async fn keep(
        &self,
        client: &Client,
        hub: &EventHub,
        data: &Option<Bytes>,
        mut registration: Registration,
    ) -> String {
        let mut states = client.state_changes();
        loop {
            let event = hub.next_event(&registration.path);
            let is_there = client.exists(&registration.path, true).await;
            let session_id = client.session_id();
            let is_attached = *states.borrow_and_update() == SessionState::Connected;
            match is_there {
                // Not in the session that created it: it is gone, or going.
                _ if is_attached && session_id != registration.session_id => {
                    match self.register(client, hub, data, None).await {
                        Ok(renewed) => {
                            say(&format!("{}: registered again in a new session", renewed.path));
                            registration = renewed;
                        }
                        Err(failure) => return failure.message().to_string(),
                    }
                    continue;
                }
                Ok(None) if is_attached => return "somebody has deleted it".into(),
                Err(Error::AuthFailed { .. } | Error::Closed) => {
                    return "the session is closed".into();
                }
                _ => {}
            }
            tokio::select! {
                _ = event => {}
                _ = states.changed() => {}
            }
        }
    }
}
