//! The command line of `znode-mount`, and of the same program called as `mount.znodefs` by
//! mount(8).
//!
//! Arguments in, one [`Invocation`] out. Nothing here looks at the disk or the network; that is the
//! next step's.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use znodefs::client::ConnectString;

use crate::daemon::{self, Readiness, Role};
use crate::mount_process;
use crate::options::{Accounts, Options, SystemAccounts};
use crate::plan::Plan;

/// Where an embedded replica listens when `--listen` is not given.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:2181";

/// One run of the program, fully read but not yet checked against the system.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// How the program was called; the first word of every message.
    pub program: String,
    /// What is mounted.
    pub source: Source,
    /// Where, as it was written.
    pub mountpoint: PathBuf,
    /// Stay in the foreground (`-f`).
    pub foreground: bool,
    /// Check everything, then stop without mounting (`mount.znodefs -f`, as mount(8) means it).
    pub fake: bool,
    /// Say nothing on success; mount(8) is silent.
    pub quiet: bool,
    /// How many times `-v` was given.
    pub verbosity: u8,
    /// The `-o` options.
    pub options: Options,
    /// `--pid-file`: written once the mount works, removed at the end.
    pub pid_file: Option<PathBuf>,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum Source {
    /// Servers that run elsewhere, and the part of their tree that is shown.
    Servers(ConnectString),
    /// A replica inside this process.
    Embedded {
        /// Its data directory, as it was written.
        directory: PathBuf,
        /// Where other clients reach it.
        listen: SocketAddr,
    },
}

/// What the arguments ask for, when it is not a mount.
#[derive(Debug)]
pub enum Refusal {
    /// `--help` or `--version`: text for standard output, status 0.
    Answer(String),
    /// A mistake: text for standard error, status 2.
    Usage(String),
}

const USAGE: &str = "\
znode-mount [OPTIONS] HOST:PORT[,HOST:PORT...][/CHROOT] MOUNTPOINT
       znode-mount [OPTIONS] --embedded DIR [--listen ADDR:PORT] MOUNTPOINT
       mount -t znodefs [-o OPTIONS] HOST:PORT[,HOST:PORT...][/CHROOT] MOUNTPOINT";

const AFTER_HELP: &str = "\
Mount options (-o, separated by commas; - and _ are alike):
  ro, rw                   refuse all changes, or allow them (rw)
  allow_other              let other users in; permission bits decide what they may do
  allow_root               let root in, besides yourself
  uid=USER, gid=GROUP      the owner that files show: a name or a number (yourself)
  umask=MASK               permission bits to take away, in octal, such as 022
  credentials=FILE         digest:user:password lines to authenticate with; mode 600
  timeout=SECS             session timeout: how long ephemerals outlive a lost connection (10)
  connect_timeout=SECS     how long to wait for the first server to answer (10)
  nonempty                 mount over a directory that has entries
  strict_chmod             fail a chmod that cannot be kept, instead of accepting and dropping it
  nocache                  keep nothing that servers have answered: every look asks them
  cache_size=BYTES         how much of files' contents is kept in memory, as in 512K or 1G (64M)
  noexec                   do not run programs from the mount
  fsname=NAME              the source that /proc/mounts shows (the server list)
  subtype=NAME             the type it shows is fuse.NAME (znodefs)
  log=FILE, debug          the same as --log-file and -vv
  default_permissions and auto_unmount are always on; mounts are always nosuid and nodev. What
  mount(8), fstab or systemd add (_netdev, nofail, noauto, user, x-systemd.*, noatime, ...) is
  accepted and changes nothing here.

Examples:
  znode-mount --embedded ~/.local/share/znodefs ~/tree    a tree of your own
  znode-mount zk1:2181,zk2:2181,zk3:2181 /mnt/zk          an ensemble's tree
  znode-mount -o ro zk1:2181/services /mnt/services       one subtree of it, read-only
  zk1:2181,zk2:2181 /mnt/zk znodefs _netdev,allow_other 0 0       a line of /etc/fstab

To unmount:
  fusermount3 -u MOUNTPOINT       as the user that mounted
  umount MOUNTPOINT               as root
  kill PID, or Ctrl-C with -f     SIGTERM and SIGINT unmount, then end the session
  Should znode-mount itself be killed, a guard process unmounts for it.

Exit status: 0 done, 1 the mount failed (the message says why), 2 wrong usage.";

/// Shows a ZooKeeper tree as files and directories
///
/// Works with znoded and with Apache ZooKeeper servers; --embedded needs no server at all. Returns
/// once the mount works and stays in the background, unless -f is given.
#[derive(Debug, Parser)]
#[command(name = "znode-mount", version, override_usage = USAGE, after_help = AFTER_HELP)]
struct MountArguments {
    /// SOURCE and MOUNTPOINT; with --embedded only MOUNTPOINT
    #[arg(value_name = "SOURCE MOUNTPOINT", required = true, num_args = 1..=2)]
    operands: Vec<OsString>,

    /// Stay in the foreground; log to standard error
    #[arg(short, long, help_heading = "How to run")]
    foreground: bool,

    /// Mount options, listed below; may be given several times
    #[arg(short, long = "options", value_name = "OPTS", help_heading = "How to run")]
    options: Vec<String>,

    /// Write the process id here while mounted
    #[arg(long, value_name = "FILE", help_heading = "How to run")]
    pid_file: Option<PathBuf>,

    /// Run a replica inside this process, with its data in DIR (created if missing)
    #[arg(long, value_name = "DIR", help_heading = "Without a server")]
    embedded: Option<PathBuf>,

    /// Where the embedded replica listens for other clients; port 0 takes a free one [default:
    /// 127.0.0.1:2181]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        requires = "embedded",
        help_heading = "Without a server"
    )]
    listen: Option<String>,

    /// Log more: -v connections, -vv every decision (RUST_LOG has the last word)
    #[arg(short, long, action = ArgAction::Count, help_heading = "Messages")]
    verbose: u8,

    /// Append log lines to FILE (in the foreground standard error, in the background syslog)
    #[arg(long, value_name = "FILE", help_heading = "Messages")]
    log_file: Option<PathBuf>,
}

/// The helper that mount(8) calls for the type znodefs
#[derive(Debug, Parser)]
#[command(
    name = "mount.znodefs",
    version,
    override_usage = "mount.znodefs SOURCE MOUNTPOINT [-sfnv] [-t TYPE] [-o OPTIONS]",
    after_help = "Called by mount -t znodefs and for znodefs lines of /etc/fstab; znode-mount --help explains more."
)]
struct HelperArguments {
    /// The servers, HOST:PORT separated by commas, and /CHROOT for a subtree
    source: OsString,
    /// An empty directory
    mountpoint: OsString,
    /// Tolerate unknown mount options
    #[arg(short)]
    sloppy: bool,
    /// Check everything, but do not mount
    #[arg(short)]
    fake: bool,
    /// Accepted; there is no mtab to leave alone
    #[arg(short)]
    no_mtab: bool,
    /// Say what was done
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,
    /// Mount options
    #[arg(short, value_name = "OPTIONS")]
    options: Vec<String>,
    /// Accepted; the type is known
    #[arg(short = 't', value_name = "TYPE")]
    _file_system_type: Option<String>,
}

/// The whole run of the program; gives its exit status.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let invocation = match parse(arguments, &SystemAccounts) {
        Ok(invocation) => invocation,
        Err(Refusal::Answer(text)) => {
            // Whoever closes the pipe early has read enough.
            let _ = io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Usage(text)) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let program = invocation.program.clone();
    let (foreground, fake) = (invocation.foreground, invocation.fake);
    let failed = |reason: String| Readiness::foreground(&program).failed(&reason);
    let plan = match Plan::new(invocation) {
        Ok(_) if fake => return ExitCode::SUCCESS,
        Ok(plan) => plan,
        Err(error) => return failed(error.to_string()),
    };
    if foreground {
        return mount_process::run(&plan, Readiness::foreground(&program));
    }
    match daemon::into_background(&program) {
        Ok(Role::Parent(status)) => status,
        Ok(Role::Child(readiness)) => mount_process::run(&plan, readiness),
        Err(error) => failed(format!("cannot go into the background: {error}")),
    }
}

/// Reads the whole command line, the program's own name included.
///
/// # Errors
/// [`Refusal::Answer`] for `--help` and `--version`, [`Refusal::Usage`] for a mistake.
pub fn parse(arguments: Vec<OsString>, accounts: &dyn Accounts) -> Result<Invocation, Refusal> {
    let called = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let program = match called.to_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => String::from("znode-mount"),
    };
    if program.starts_with("mount.") {
        parse_helper(program, arguments, accounts)
    } else {
        parse_mount(program, arguments, accounts)
    }
}

fn parse_mount(
    program: String,
    arguments: Vec<OsString>,
    accounts: &dyn Accounts,
) -> Result<Invocation, Refusal> {
    let read: MountArguments = read_arguments(&program, arguments)?;
    let usage = |reason: String| Refusal::Usage(format!("{program}: {reason}"));
    let mut options = Options::default();
    for list in &read.options {
        options.add(list, accounts).map_err(|error| usage(error.to_string()))?;
    }
    if read.log_file.is_some() {
        options.log_file = read.log_file;
    }
    let (source, mountpoint) = match (read.embedded, read.operands.as_slice()) {
        (Some(directory), [mountpoint]) => {
            let listen = listen_address(read.listen.as_deref().unwrap_or(LISTEN_DEFAULT));
            (Source::Embedded { directory, listen: listen.map_err(usage)? }, mountpoint)
        }
        (Some(_), _) => {
            return Err(usage(String::from(
                "--embedded DIR takes only a MOUNTPOINT: there is no other server to name",
            )));
        }
        (None, [source, mountpoint]) => {
            (Source::Servers(servers(source).map_err(usage)?), mountpoint)
        }
        (None, _) => {
            return Err(usage(String::from(
                "two arguments are needed, HOST:PORT and MOUNTPOINT (or --embedded DIR MOUNTPOINT); see --help",
            )));
        }
    };
    let mountpoint = PathBuf::from(mountpoint);
    Ok(Invocation {
        source,
        mountpoint,
        foreground: read.foreground,
        fake: false,
        quiet: false,
        verbosity: read.verbose,
        options,
        pid_file: read.pid_file,
        program,
    })
}

fn parse_helper(
    program: String,
    arguments: Vec<OsString>,
    accounts: &dyn Accounts,
) -> Result<Invocation, Refusal> {
    let read: HelperArguments = read_arguments(&program, arguments)?;
    let usage = |reason: String| Refusal::Usage(format!("{program}: {reason}"));
    let mut options = Options::default();
    for list in &read.options {
        options
            .add_sloppy(list, read.sloppy, accounts)
            .map_err(|error| usage(error.to_string()))?;
    }
    let source = Source::Servers(servers(&read.source).map_err(usage)?);
    Ok(Invocation {
        source,
        mountpoint: PathBuf::from(read.mountpoint),
        foreground: false,
        fake: read.fake,
        quiet: read.verbose == 0,
        verbosity: read.verbose,
        options,
        pid_file: None,
        program,
    })
}

/// Clap's work, with its messages in the house's form: the program's name first.
fn read_arguments<A: CommandFactory + FromArgMatches>(
    program: &str,
    arguments: Vec<OsString>,
) -> Result<A, Refusal> {
    let arguments = arguments.into_iter().skip(1);
    let matches = A::command().no_binary_name(true).try_get_matches_from(arguments);
    matches.and_then(|matches| A::from_arg_matches(&matches)).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refusal::Answer(error.to_string()),
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            Refusal::Usage(format!("{program}: {}", text.trim_end()))
        }
    })
}

fn servers(source: &OsStr) -> Result<ConnectString, String> {
    let text = source.to_str().ok_or_else(|| format!("server list {source:?} is not UTF-8"))?;
    text.parse::<ConnectString>().map_err(|error| {
        if text.starts_with(['/', '.']) {
            format!("{text:?} is no HOST:PORT list: the servers come first, then the mountpoint")
        } else {
            error.to_string()
        }
    })
}

/// A name other than localhost would have to be looked up, and may stand for several addresses.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        format!("--listen {text:?} is not an ADDR:PORT such as {LISTEN_DEFAULT} or [::1]:2181")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Access;

    fn run(line: &str) -> Result<Invocation, Refusal> {
        parse(line.split_whitespace().map(OsString::from).collect(), &SystemAccounts)
    }

    fn usage(line: &str) -> String {
        match run(line) {
            Err(Refusal::Usage(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        MountArguments::command().debug_assert();
        HelperArguments::command().debug_assert();
    }

    #[test]
    fn a_source_and_a_mountpoint_are_a_mount() {
        let invocation =
            run("/usr/bin/znode-mount -f -o ro,allow_other -o uid=7 a:1,b:2/app /mnt").unwrap();
        assert_eq!(invocation.program, "znode-mount");
        assert!(invocation.foreground && invocation.options.read_only && !invocation.quiet);
        assert_eq!(invocation.options.access, Access::Everyone);
        assert_eq!(invocation.options.uid, Some(7));
        assert_eq!(invocation.mountpoint, Path::new("/mnt"));
        match invocation.source {
            Source::Servers(servers) => assert_eq!(servers.to_string(), "a:1,b:2/app"),
            Source::Embedded { .. } => panic!("no --embedded was given"),
        }
    }

    #[test]
    fn embedded_needs_no_server() {
        let invocation = run("znode-mount --embedded data /mnt").unwrap();
        match invocation.source {
            Source::Embedded { directory, listen } => {
                assert_eq!(directory, Path::new("data"));
                assert_eq!(listen.to_string(), LISTEN_DEFAULT);
            }
            Source::Servers(_) => panic!("--embedded was given"),
        }
    }

    #[test]
    fn mount_calls_its_helper_with_options_last() {
        let invocation =
            run("/sbin/mount.znodefs a:1 /mnt -sn -t znodefs -o rw,bogus,_netdev").unwrap();
        assert_eq!(invocation.program, "mount.znodefs");
        assert!(invocation.quiet && !invocation.fake && !invocation.foreground);
        assert!(run("mount.znodefs a:1 /mnt -fv").unwrap().fake);
        assert!(usage("mount.znodefs a:1 /mnt -o bogus").contains("unknown mount option"));
    }

    #[test]
    fn mistakes_name_the_program_and_the_way_out() {
        for (line, part) in [
            ("znode-mount", "znode-mount: "),
            ("znode-mount a:1", "two arguments are needed"),
            ("znode-mount --embedded d a:1 /mnt", "takes only a MOUNTPOINT"),
            ("znode-mount --embedded d --listen 2181 /mnt", "127.0.0.1:2181"),
            ("znode-mount --listen 127.0.0.1:1 a:1 /mnt", "--embedded"),
            ("znode-mount /mnt a:1", "the servers come first"),
            ("znode-mount a:b /mnt", "'b'"),
            ("znode-mount -o alow_other a:1 /mnt", "did you mean allow_other?"),
            ("znode-mount --bogus a:1 /mnt", "--bogus"),
        ] {
            let text = usage(line);
            assert!(text.starts_with("znode-mount: ") && text.contains(part), "{line}: {text}");
        }
    }

    #[test]
    fn help_teaches_and_version_answers() {
        for line in ["znode-mount --help", "znode-mount -h", "znode-mount --version"] {
            assert!(matches!(run(line), Err(Refusal::Answer(_))), "{line}");
        }
        let Err(Refusal::Answer(help)) = run("znode-mount --help") else { panic!("no help") };
        for part in ["fusermount3 -u", "--embedded", "/etc/fstab", "Exit status", "allow_other"] {
            assert!(help.contains(part), "{part}");
        }
    }
}
