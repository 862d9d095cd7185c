//! The process that serves a mount, from its first connection to its end: replica, session, guard,
//! mount; then it waits, and takes everything down in the opposite order.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use znodefs::Credential;
use znodefs::client::{Client, ConnectString};
use znodefs_mount::events::EventStream;
use znodefs_mount::mounted::CACHED_BYTES_MAX_DEFAULT;
use znodefs_mount::replay::ReplayHelper;
use znodefs_mount::service::Service;
use znodefs_mount::{MountOptions, Served, Watching};

use crate::cli::Source;
use crate::daemon::Readiness;
use crate::embedded::EmbeddedReplica;
use crate::guard::Guard;
use crate::kernel_mount::{self, MountError, MountIdentity, UnmountError};
use crate::options::Access;
use crate::plan::Plan;
use crate::stop_signals::StopSignals;
use crate::{logging, session};

/// How often, and how far apart, a busy mount is tried before it is detached lazily.
const UNMOUNT_TRIES: u32 = 20;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(100);
/// How long the users of a detached mount have until the process ends all the same.
const DETACHED_LIMIT: Duration = Duration::from_secs(1);
/// How long each step of an orderly end may take: somebody waits for the process.
const STOP_STEP_LIMIT: Duration = Duration::from_secs(5);

/// Mounts, serves and unmounts as `plan` says; gives the status to end with. Nothing in this
/// process may have started a thread before.
pub fn run(plan: &Plan, readiness: Readiness) -> ExitCode {
    let invocation = &plan.invocation;
    let verbosity = invocation.verbosity + if invocation.options.debug { 2 } else { 0 };
    if let Err(error) = logging::start(&plan.log, verbosity) {
        return readiness.failed(&format!("cannot open the log: {error}"));
    }
    let mut guard = match Guard::start(&invocation.mountpoint, &plan.log) {
        Ok(guard) => guard,
        Err(error) => return readiness.failed(&error.to_string()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return readiness.failed(&format!("cannot start threads: {error}")),
    };
    let status = runtime.block_on(mount_and_serve(plan, &mut guard, readiness));
    guard.disarm();
    // A task that still waits for a server would otherwise keep the process.
    runtime.shutdown_background();
    status
}

async fn mount_and_serve(plan: &Plan, guard: &mut Guard, readiness: Readiness) -> ExitCode {
    let started = async {
        let mut signals = StopSignals::new(plan.invocation.foreground)?;
        let running = tokio::select! {
            running = RunningMount::start(plan, guard) => running?,
            name = signals.next() => anyhow::bail!("stopped by {name} before it was mounted"),
        };
        anyhow::Ok((running, signals))
    };
    let (running, mut signals) = match started.await {
        Ok(started) => started,
        Err(error) => return readiness.failed(&in_one_line(&error)),
    };
    if let Some(path) = &plan.invocation.pid_file
        && let Err(error) = fs::write(path, format!("{}\n", std::process::id()))
    {
        running.stop(&mut signals).await;
        return readiness.failed(&format!("cannot write pid file {}: {error}", path.display()));
    }
    let text = if plan.invocation.quiet { String::new() } else { running.announcement() };
    let status = if let Err(error) = readiness.ready(&text) {
        tracing::error!("nobody waits for this mount any more ({error}); unmounting");
        running.stop(&mut signals).await;
        ExitCode::from(1)
    } else {
        // In the foreground the announcement says it.
        if !plan.invocation.foreground {
            tracing::info!("mounted {} on {}", running.source, running.mountpoint().display());
        }
        notify_service_manager(&[
            sd_notify::NotifyState::Ready,
            sd_notify::NotifyState::MainPid(std::process::id()),
        ]);
        running.serve_until_the_end(guard, &mut signals).await
    };
    if let Some(path) = &plan.invocation.pid_file {
        // Somebody may have cleaned up before us.
        let _ = fs::remove_file(path);
    }
    status
}

/// An error and its causes, leaving out those that the text before has named already.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.replace('\n', "; ")
}

/// Does nothing where no systemd listens.
fn notify_service_manager(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot reach the service manager: {error}");
    }
}

/// Everything that a mount consists of while it works.
struct RunningMount<'a> {
    plan: &'a Plan,
    /// What /proc/mounts shows, and messages name.
    source: String,
    client: Client,
    replica: Option<EmbeddedReplica>,
    kernel: KernelSide,
}

/// How a mount left the sight of other processes.
enum Unmounted {
    /// Nobody used it any more.
    Orderly,
    /// It was detached, now or earlier, with files open in it.
    InUse,
}

/// The part that the kernel knows.
struct KernelSide {
    identity: MountIdentity,
    served: Served,
}

impl<'a> RunningMount<'a> {
    async fn start(plan: &'a Plan, guard: &mut Guard) -> Result<RunningMount<'a>> {
        let (servers, replica) = match &plan.invocation.source {
            Source::Servers(servers) => (servers.clone(), None),
            Source::Embedded { directory, listen } => {
                let replica = EmbeddedReplica::start(directory, *listen).await?;
                (servers_of(&replica), Some(replica))
            }
        };
        match RunningMount::start_client(plan, guard, &servers).await {
            Ok((client, kernel)) => {
                let source = servers.to_string();
                Ok(RunningMount { plan, source, client, replica, kernel })
            }
            Err(error) => {
                if let Some(replica) = replica {
                    within_limit("stopping the replica", replica.stop()).await;
                }
                Err(error)
            }
        }
    }

    async fn start_client(
        plan: &Plan,
        guard: &mut Guard,
        servers: &ConnectString,
    ) -> Result<(Client, KernelSide)> {
        let events = Arc::new(EventStream::default());
        let service = Arc::new(session::open(servers, plan, events.clone()).await?);
        let client = service.client().clone();
        let events = session::watch_everything(&client).await.then_some(events);
        match KernelSide::mount(plan, guard, (service, events), &servers.to_string()) {
            Ok(kernel) => Ok((client, kernel)),
            Err(error) => {
                within_limit("closing the session", client.close()).await;
                Err(error)
            }
        }
    }

    fn mountpoint(&self) -> &Path {
        &self.plan.invocation.mountpoint
    }

    /// What the starter reads on standard output.
    fn announcement(&self) -> String {
        let mountpoint = self.mountpoint().display();
        let mut text = format!("mounted {} on {mountpoint}\n", self.source);
        if let Some(replica) = &self.replica {
            let address = replica.address();
            let command =
                if nix::unistd::geteuid().is_root() { "umount" } else { "fusermount3 -u" };
            text.push_str(&format!(
                "the replica inside listens on {address}; try: znode -s {address} ls /\n\
                 to unmount and stop it: {command} {mountpoint}\n"
            ));
        }
        text
    }

    async fn serve_until_the_end(self, guard: &mut Guard, signals: &mut StopSignals) -> ExitCode {
        tokio::select! {
            never = self.keep_guarded(guard) => match never {},
            () = self.kernel.served.finished() => {
                let left = MountIdentity::at(self.mountpoint()).ok();
                if left == Some(self.kernel.identity) {
                    tracing::error!("the kernel ended the connection while mounted; unmounting");
                    self.stop(signals).await;
                    return ExitCode::from(1);
                }
                tracing::info!("{} was unmounted; ending", self.mountpoint().display());
            }
            reason = self.replica_failed() => {
                tracing::error!("the replica inside cannot go on: {reason}; unmounting");
                self.stop(signals).await;
                return ExitCode::from(1);
            }
            name = signals.next() => tracing::info!("{name}: unmounting and ending"),
        }
        self.stop(signals).await;
        ExitCode::SUCCESS
    }

    /// Waits for ever when there is no replica inside.
    async fn replica_failed(&self) -> String {
        match &self.replica {
            Some(replica) => replica.failed().await,
            None => std::future::pending().await,
        }
    }

    /// Starts a new guard whenever the one there is was killed.
    async fn keep_guarded(&self, guard: &mut Guard) -> Infallible {
        let Ok(mut child_ended) = signal(SignalKind::child()) else {
            return std::future::pending().await;
        };
        while child_ended.recv().await.is_some() {
            if !guard.has_ended() {
                continue;
            }
            let started = Guard::start(self.mountpoint(), &self.plan.log).and_then(|mut new| {
                new.armed(self.kernel.identity)?;
                Ok(new)
            });
            match started {
                Ok(new) => {
                    *guard = new;
                    tracing::warn!("the guard process was killed; started another");
                }
                Err(error) => {
                    tracing::error!("without a guard, a crash leaves a dead mount: {error}");
                    break;
                }
            }
        }
        std::future::pending().await
    }

    /// Unmounts, closes the session and stops the replica, in this order; each step in bounded
    /// time.
    async fn stop(self, signals: &mut StopSignals) {
        notify_service_manager(&[sd_notify::NotifyState::Stopping]);
        self.kernel.served.stop_replay().await;
        if !self.kernel.served.is_finished() || self.is_mounted() {
            let limit = match self.unmount(signals).await {
                // What the last closes left is still being committed, as long as it may take.
                Unmounted::Orderly => self.client.negotiated_timeout() + STOP_STEP_LIMIT,
                Unmounted::InUse => DETACHED_LIMIT,
            };
            tokio::select! {
                () = self.kernel.served.finished() => {}
                () = tokio::time::sleep(limit) => {
                    tracing::warn!("the mount is still in use; whoever uses it gets ENOTCONN");
                }
                name = signals.next() => tracing::warn!("{name} again: ending at once"),
            }
        }
        within_limit("closing the session", self.client.close()).await;
        if let Some(replica) = self.replica {
            within_limit("stopping the replica", replica.stop()).await;
        }
    }

    fn is_mounted(&self) -> bool {
        MountIdentity::at(self.mountpoint()).is_ok_and(|found| found == self.kernel.identity)
    }

    /// Tries for a while, then detaches; a second signal ends the patience.
    async fn unmount(&self, signals: &mut StopSignals) -> Unmounted {
        for _ in 0..UNMOUNT_TRIES {
            match self.unmount_once(false).await {
                Ok(()) => return Unmounted::Orderly,
                Err(UnmountError::NotMounted) => return Unmounted::InUse,
                Err(UnmountError::Busy) => {}
                Err(UnmountError::Other(reason)) => {
                    tracing::warn!("cannot unmount {}: {reason}", self.mountpoint().display());
                    break;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(UNMOUNT_PAUSE) => {}
                _ = signals.next() => break,
            }
        }
        match self.unmount_once(true).await {
            Ok(()) => {
                let place = self.mountpoint().display();
                tracing::warn!("{place} is busy: detached it, open files are lost to their users");
            }
            Err(UnmountError::NotMounted) => {}
            Err(error) => {
                tracing::error!("cannot unmount {}: {error}", self.mountpoint().display());
            }
        }
        Unmounted::InUse
    }

    async fn unmount_once(&self, lazily: bool) -> Result<(), UnmountError> {
        let mountpoint = self.mountpoint().to_owned();
        let identity = self.kernel.identity;
        // The kernel may ask this process something before it lets go.
        let unmounting = move || kernel_mount::unmount(&mountpoint, identity, lazily);
        match tokio::task::spawn_blocking(unmounting).await {
            Ok(result) => result,
            Err(error) => Err(UnmountError::Other(error.to_string())),
        }
    }
}

impl KernelSide {
    /// Mounts and serves; on return any process can use the mount.
    fn mount(
        plan: &Plan,
        guard: &mut Guard,
        (service, events): (Arc<dyn Service>, Option<Arc<EventStream>>),
        servers: &str,
    ) -> Result<KernelSide> {
        let request = plan.mount_request(servers);
        let watching = match events {
            Some(events) => {
                let helper = ReplayHelper::start(&request.mountpoint)
                    .context("cannot start the replay helper process")?;
                Some(Watching { events, helper })
            }
            None => None,
        };
        guard.mounting()?;
        let device = kernel_mount::mount(&request)?;
        let mountpoint = request.mountpoint;
        let identity = MountIdentity::at(&mountpoint)
            .map_err(|error| MountError::Vanished { mountpoint: mountpoint.clone(), error })?;
        let serving = || -> Result<Served> {
            guard.armed(identity)?;
            if let Some(watching) = &watching {
                watching.helper.arm(identity.device);
            }
            let runtime = tokio::runtime::Handle::current();
            let options = mount_options(plan, servers);
            let served = znodefs_mount::serve(service, options, device, runtime, watching)
                .context("the kernel's FUSE does not shake hands")?;
            guard.look(plan.invocation.options.connect_timeout)?;
            Ok(served)
        };
        match serving() {
            Ok(served) => Ok(KernelSide { identity, served }),
            Err(error) => {
                // The error is told already, and the guard is the second line.
                let _ = kernel_mount::unmount(&mountpoint, identity, true);
                Err(error)
            }
        }
    }
}

fn mount_options(plan: &Plan, servers: &str) -> MountOptions {
    let options = &plan.invocation.options;
    MountOptions {
        uid: options.uid,
        gid: options.gid,
        umask: options.umask.and_then(|umask| u16::try_from(umask).ok()),
        read_only: options.read_only,
        strict_chmod: options.strict_chmod,
        allow_other: options.access == Access::Everyone,
        allow_root: options.access == Access::OwnerAndRoot,
        identities: plan.credentials.iter().map(Credential::identity).collect(),
        cache: !options.no_cache,
        cached_bytes_max: options.cache_size.unwrap_or(CACHED_BYTES_MAX_DEFAULT),
        ..MountOptions::new(servers)
    }
}

/// An address to connect to: a replica that listens on every address is reached on loopback.
fn servers_of(replica: &EmbeddedReplica) -> ConnectString {
    let mut address = replica.address();
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    ConnectString { servers: vec![(address.ip().to_string(), address.port())], chroot: None }
}

async fn within_limit<T>(what: &str, step: impl Future<Output = T>) {
    if tokio::time::timeout(STOP_STEP_LIMIT, step).await.is_err() {
        tracing::warn!("{what} took longer than {STOP_STEP_LIMIT:?}; going on without");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_once() {
        let cause = anyhow::anyhow!("permission denied");
        let error = cause.context("cannot open f: permission denied").context("cannot start");
        assert_eq!(in_one_line(&error), "cannot start: cannot open f: permission denied");
    }
}
