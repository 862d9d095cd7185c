//! `znode lock`: runs a command while a lock is held.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use znodefs::recipe::LockMode;

use super::arguments::{parse_path_below_root, parse_patience};
use super::campaign::{Campaign, Outcome, identifier};
use super::failure::{Failure, say};
use super::service::Service;
use super::signals::{self, Signals};

/// Run a command while holding a lock
///
/// As flock(1) does it, but for all machines: PATH is a znode (created if need be), whoever waits stands
/// in a queue of ephemeral znodes below it, and each waits only for the one before. kazoo's Lock,
/// ReadLock and WriteLock on the same PATH stand in the same queue (its Lock does not know of -s).
///
/// The command runs in a process group of its own. INT, TERM, HUP, QUIT, USR1, USR2, WINCH and TSTP are
/// passed on to it, and it has the terminal if there is one. The lock is held until everything that the
/// command has started has ended, daemons included (-o: until the command itself has).
///
/// When the servers fall silent, nothing happens for a while: an outage of half the session timeout
/// (--timeout) does no harm. When two thirds of it have passed since the last answered message was sent,
/// the command gets SIGTERM, and a sixth later all its processes get SIGKILL: it is gone before the
/// session can expire and somebody else gets the lock. When the lock is lost for certain (the session
/// was ended, somebody deleted our znode), SIGKILL comes at once. Neither can be done while this
/// machine or `znode` itself stands still: against a holder that wakes up late, let the resource compare
/// ZNODE_LOCK_ZXID, which grows from holder to holder, and refuse a smaller one than it has seen.
#[derive(Debug, clap::Args)]
#[command(override_usage = "znode lock [OPTIONS] <PATH> <CMD>...")]
#[command(after_help = "\
Examples:
  znode lock /locks/nightly backup.sh         one at a time, on however many machines
  znode lock -n /locks/nightly backup.sh      not at all if another does it already: exit code 1
  znode lock -w 30 -E 75 /locks/db migrate    give up after 30 s with exit code 75
  znode lock -s /locks/db report              together with other -s, but not with migrate
  znode lock --limit 3 /locks/gpu train       at most three at a time
  znode lock /locks/config vi config.toml     interactive commands have the terminal
  znode lock /locks/a sh -c 'x && y'          no shell reads CMD unless CMD is one
  znode lock --on-lost page-me --lost-exit-code 79 /locks/a job
  znode ls /locks/db                          who holds it and who waits (their data says who)

Environment of the command:
  ZNODE_LOCK_PATH        PATH
  ZNODE_LOCK_CONTENDER   our znode below it; the lock is ours while it exists
  ZNODE_LOCK_ZXID        decimal number that grows from holder to holder, for fencing
  ZNODE_SERVERS          the servers in use

Exit status: the command's; 128 + N if signal N ended it; 69 if it cannot be started; 1 (or CODE of
-E) if the lock is held by another and -n or -w forbid to wait longer; CODE of --lost-exit-code if the
lock was lost while the command ran, else the status of the command, which was ended then; 1 if the
service fails; 2 wrong usage. flock's --timeout is --wait here.")]
pub struct Lock {
    /// Share the lock with other -s
    #[arg(short, long)]
    shared: bool,
    /// Hold the lock alone (the default)
    #[arg(short = 'x', short_alias = 'e', long, conflicts_with = "shared")]
    exclusive: bool,
    /// Fail at once if the lock is held
    #[arg(short, long, visible_alias = "nb", conflicts_with = "wait")]
    nonblock: bool,
    /// Fail if the lock is not acquired within this time (a bare number is seconds)
    #[arg(short, long, value_name = "SECS", value_parser = parse_patience)]
    wait: Option<Duration>,
    /// Exit code when -n or -w forbid to wait any longer
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    conflict_exit_code: u8,
    /// Let this many hold the lock at once (all contenders should say the same)
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "shared")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Give the lock back when the command itself has ended, whatever it leaves running
    #[arg(short = 'o', long)]
    close: bool,
    /// Exit code when the lock was lost while the command ran [default: the command's status]
    #[arg(long, value_name = "CODE")]
    lost_exit_code: Option<u8>,
    /// A program to run, without arguments, when the lock was lost and the command has been ended
    #[arg(long, value_name = "PROGRAM")]
    on_lost: Option<OsString>,
    /// As flock has it: understood only to say what to do instead
    #[arg(short = 'c', value_name = "COMMAND", hide = true)]
    shell_command: Option<OsString>,
    /// The lock's znode
    #[arg(value_parser = parse_path_below_root)]
    path: String,
    /// The command and its arguments; no shell reads them
    #[arg(required_unless_present = "shell_command", trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Lock {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<ExitCode, Failure> {
        if self.shell_command.is_some() {
            return Err(Failure::usage(
                "-c: no shell reads the command; if one is to: znode lock PATH sh -c '…'",
            ));
        }
        let mut signals = Signals::catch()?;
        let campaign = Campaign {
            service,
            path: &self.path,
            mode: if self.shared { LockMode::Shared } else { LockMode::Exclusive },
            limit: self.limit as usize,
            identifier: identifier(&self.command),
            patience: if self.nonblock { Some(Duration::ZERO) } else { self.wait },
        };
        let holding = match campaign.run(false, &mut signals).await? {
            Outcome::Won(holding) => holding,
            Outcome::Busy(message) => {
                say(&message);
                return Ok(ExitCode::from(self.conflict_exit_code));
            }
            Outcome::Signalled(signal) => return Ok(signals::die_of(signal)),
        };
        let ran = holding.run(service, &self.command, self.close, &mut signals).await?;
        if ran.lost {
            self.tell_of_loss(service);
        }
        match self.lost_exit_code {
            Some(code) if ran.lost => Ok(ExitCode::from(code)),
            _ => Ok(ran.ended.report()),
        }
    }

    /// Runs the program of `--on-lost`; what comes of it changes nothing.
    fn tell_of_loss(&self, service: &Service<'_>) {
        let Some(program) = &self.on_lost else { return };
        let mut command = std::process::Command::new(program);
        command.envs(service.environment()).env("ZNODE_LOCK_PATH", &self.path);
        let name = program.to_string_lossy();
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => say(&format!("{}: {name} ended with {status}", self.path)),
            Err(error) => say(&format!("{}: cannot start {name}: {error}", self.path)),
        }
    }
}
