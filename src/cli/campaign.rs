//! What `znode lock` and `znode elect` share: standing in a queue until it is one's turn, and running a
//! command for as long as it is.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;
use znodefs::client::{Client, Error};
use znodefs::recipe::lock::{self, LockError, LockRequest};
use znodefs::recipe::{EventHub, HeldLock, Lease, LockMode};

use super::child::{Child, CommandLine, Ended};
use super::failure::{Failure, say};
use super::guard::{Guard, Verdict, boot_time};
use super::output::printable;
use super::service::{Service, close, is_outage};
use super::signals::Signals;

/// How much longer than its limit a wait may take when no server answers.
const LATE: Duration = Duration::from_secs(1);
/// Greatest length of the command in a contender's data, in bytes.
const COMMAND_LENGTH_MAX: usize = 200;

/// What is contended for.
pub struct Campaign<'a> {
    pub service: &'a Service<'a>,
    pub path: &'a str,
    pub mode: LockMode,
    pub limit: usize,
    /// Who we are, for people who look.
    pub identifier: String,
    /// How long to wait; zero for not at all, `None` for as long as it takes.
    pub patience: Option<Duration>,
}

/// How a campaign ended.
pub enum Outcome {
    /// It is our turn.
    Won(Box<Holding>),
    /// It is another's, and we wait no longer.
    Busy(String),
    /// We were told to end.
    Signalled(Signal),
}

/// Our turn, as long as the session lives.
pub struct Holding {
    client: Client,
    hub: EventHub,
    path: String,
    held: HeldLock,
    lease: Lease,
}

/// How a command ended that ran while it was our turn.
pub struct Ran {
    pub ended: Ended,
    /// Whether it was ended by us, because it was not our turn any more or could not be for long.
    pub lost: bool,
}

impl Campaign<'_> {
    /// Waits for our turn. With `again`, we have had it before: servers that cannot be reached are
    /// waited for.
    pub async fn run(&self, again: bool, signals: &mut Signals) -> Result<Outcome, Failure> {
        let deadline = self.patience.map(|patience| Instant::now() + patience);
        let mut client = None;
        let outcome = tokio::select! {
            outcome = self.attempt(again, deadline, &mut client) => outcome,
            signal = signals.next_ending() => Ok(Outcome::Signalled(signal)),
            () = sleep_until(deadline.map(|deadline| deadline + LATE)), if deadline.is_some() => {
                let waited = self.patience.unwrap_or_default().as_secs_f64();
                Ok(Outcome::Busy(format!("{}: no server has answered for {waited} s", self.path)))
            }
        };
        let has_won = matches!(outcome, Ok(Outcome::Won(_)));
        if let Some(client) = client.filter(|_| !has_won) {
            close(&client).await;
        }
        outcome
    }

    /// Stands in the queue, again after every lost session. `slot` holds the client meanwhile.
    async fn attempt(
        &self,
        mut again: bool,
        deadline: Option<Instant>,
        slot: &mut Option<Client>,
    ) -> Result<Outcome, Failure> {
        loop {
            let hub = EventHub::new();
            if let Some(old) = slot.take() {
                close(&old).await;
            }
            let client = match again {
                false => self.service.open(hub.clone(), false).await?,
                true => self.service.open_again(hub.clone()).await?,
            };
            again = true;
            *slot = Some(client.clone());
            match self.attempt_once(&client, &hub, deadline).await {
                Ok((held, lease)) => {
                    let path = self.path.to_string();
                    return Ok(Outcome::Won(Box::new(Holding { client, hub, path, held, lease })));
                }
                Err(LockError::Held { holder, .. }) => {
                    let message = format!("{}: held by {}", self.path, printable(&holder));
                    return Ok(Outcome::Busy(message));
                }
                Err(LockError::Client(error)) => {
                    if !is_outage(&error) || self.patience == Some(Duration::ZERO) {
                        return Err(Failure::operation(self.path, error, |_| None));
                    }
                    say(&format!(
                        "{}: lost the place in the queue: {error}; queueing again",
                        self.path
                    ));
                }
                Err(error @ LockError::ContenderDeleted { .. }) => {
                    return Err(Failure::failed(error.to_string()));
                }
            }
        }
    }

    async fn attempt_once(
        &self,
        client: &Client,
        hub: &EventHub,
        deadline: Option<Instant>,
    ) -> Result<(HeldLock, Lease), LockError> {
        let request = LockRequest {
            path: self.path.to_string(),
            mode: self.mode,
            limit: self.limit,
            identifier: self.identifier.clone(),
            unique: unique(),
        };
        let held = lock::acquire(client, hub, &request, sleep_until(deadline)).await?;
        let asked_at = boot_time();
        match lock::confirm(client, held.contender_path()).await? {
            true => Ok((held, Lease::new(asked_at, client.negotiated_timeout()))),
            false => Err(LockError::ContenderDeleted { path: self.path.to_string() }),
        }
    }
}

impl Holding {
    /// What the command finds in its environment.
    fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("ZNODE_LOCK_PATH", self.path.clone()),
            ("ZNODE_LOCK_CONTENDER", self.held.contender_path().to_string()),
            ("ZNODE_LOCK_ZXID", self.held.fencing_zxid().0.to_string()),
        ]
    }

    /// Runs a command and gives our turn back when it has ended; with `alone`, when its first process
    /// has.
    pub async fn run(
        self,
        service: &Service<'_>,
        words: &[OsString],
        alone: bool,
        signals: &mut Signals,
    ) -> Result<Ran, Failure> {
        let ran = self.run_command(service, words, alone, signals).await;
        close(&self.client).await;
        ran
    }

    async fn run_command(
        &self,
        service: &Service<'_>,
        words: &[OsString],
        alone: bool,
        signals: &mut Signals,
    ) -> Result<Ran, Failure> {
        let mut environment = service.environment();
        environment.extend(self.environment());
        let line = CommandLine { words, environment, death_signal: Signal::SIGKILL };
        let mut child = Child::start(&line)?;
        let guard = Guard::start(child.command().clone(), self.lease)
            .map_err(|error| Failure::failed(format!("cannot guard the command: {error}")))?;
        let guard = Arc::new(guard);
        child.set_guard(guard.clone());
        let (mut lost, mut told) = (false, Verdict::Running);
        let loss = self.keep(&guard);
        tokio::pin!(loss);
        let ended = loop {
            tokio::select! {
                ended = child.wait(signals, alone) => break ended,
                message = &mut loss, if !lost => {
                    guard.kill();
                    lost = true;
                    say(&format!("{}: {message}: the command is killed", self.path));
                }
                () = guard.acted() => self.tell(&guard, &mut told, lost),
            }
        };
        self.tell(&guard, &mut told, lost);
        let ended = ended
            .map_err(|error| Failure::failed(format!("cannot wait for the command: {error}")))?;
        Ok(Ran { ended, lost: lost || told != Verdict::Running })
    }

    /// Renews the lease for as long as the session lives; returns why it does not any more.
    async fn keep(&self, guard: &Guard) -> String {
        let contender = self.held.contender_path();
        let mut states = self.client.state_changes();
        loop {
            let deletion = self.hub.next_event(contender);
            let asked_at = boot_time();
            let timeout = self.client.negotiated_timeout();
            let confirmation = tokio::select! {
                confirmation = lock::confirm(&self.client, contender) => confirmation,
                // Connected again, perhaps: a question asked now is worth more.
                _ = states.changed() => continue,
            };
            match confirmation {
                Ok(true) => guard.renew(Lease::new(asked_at, timeout)),
                Ok(false) => return format!("somebody has deleted {contender}"),
                Err(error @ (Error::SessionExpired | Error::Closed | Error::AuthFailed { .. })) => {
                    return error.to_string();
                }
                Err(error) => tracing::info!("{}: {error}", self.path),
            }
            let pause = Lease::renewal_interval(timeout);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = states.changed() => {}
                _ = deletion => {}
            }
        }
    }

    /// Tells what the guard has done, once for each step.
    fn tell(&self, guard: &Guard, told: &mut Verdict, lost: bool) {
        let verdict = guard.verdict();
        if lost || verdict == *told {
            return;
        }
        *told = verdict;
        let left = guard.lease().stop_at().saturating_sub(boot_time()).as_secs_f64();
        let timeout = self.client.negotiated_timeout().as_secs_f64();
        let silence = format!(
            "{}: the servers are silent, and the session ends when they have not \
             heard us for {timeout} s",
            self.path
        );
        match verdict {
            Verdict::AskedToEnd => say(&format!(
                "{silence}: the command was sent SIGTERM, SIGKILL follows in {left:.1} s"
            )),
            Verdict::Killed => say(&format!("{silence}: the command is killed")),
            Verdict::Running => {}
        }
    }
}

/// Who we are: `HOST:PID:COMMAND`.
pub fn identifier(words: &[OsString]) -> String {
    let host = nix::sys::utsname::uname()
        .map_or_else(|_| "localhost".into(), |name| name.nodename().to_string_lossy().into_owned());
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let mut command = words.join(" ");
    command.truncate(command.floor_char_boundary(COMMAND_LENGTH_MAX));
    format!("{host}:{}:{command}", std::process::id())
}

/// A number that no other contender has.
fn unique() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Keys from the system's randomness; different ones in each state.
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

/// Sleeps until then; for ever where there is no deadline.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
