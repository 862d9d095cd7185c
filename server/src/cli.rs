//! The command line of `znoded`: reads it, sets up logging, starts a replica, says when it is ready,
//! and stops it on a signal.

mod readiness;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::config::{LoadedConfig, ServerConfig};
use crate::persistence::StorageError;
use crate::server::{Server, StartError};
use crate::tools::{self, Tool};

const EXAMPLES: &str = "\
Examples:
  znoded --standalone /var/lib/znodefs        one replica on 127.0.0.1:2181, no file needed
  znoded --standalone ./data --listen 127.0.0.1:0
                                              the same on a free port, which it prints
  znoded /etc/znodefs/zoo.cfg                 a replica as the file says

A zoo.cfg for one replica needs two lines:
  dataDir=/var/lib/znodefs
  clientPort=2181

Then look at it with `znode ls /`, or mount it:
  znode-mount 127.0.0.1:2181 ./mnt

On a bad day:
  znoded inspect /var/lib/znodefs             what is there, and whether it is whole
  znoded repair /var/lib/znodefs              what could be done about it, and what it costs
  znoded backup /var/lib/znodefs FILE         all of it in one file, while the replica runs

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage or configuration, 3 the data directory
cannot be used, 4 the admin server's port cannot be opened, 10 no snapshot can be read, 14 a port for the other replicas cannot be opened.
Logs go to standard error; RUST_LOG=znodefs_server=debug says more about one part.";

/// A replica of znodefs: a coordination tree that ZooKeeper's clients, znode and znode-mount speak to.
#[derive(Debug, Parser)]
#[command(
    name = "znoded",
    version,
    after_help = EXAMPLES,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Arguments {
    #[command(subcommand)]
    tool: Option<Tool>,

    /// Configuration, with the keys of ZooKeeper's zoo.cfg
    #[arg(value_name = "FILE", required_unless_present = "standalone")]
    file: Option<PathBuf>,

    /// Run one replica with its data in DIR; it is created if it is not there
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    standalone: Option<PathBuf>,

    /// Where clients connect; port 0 takes a free one [default: 127.0.0.1:2181]
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "file")]
    listen: Option<String>,

    /// Let this replica, whose data directory is empty, take part in forming a new ensemble
    #[arg(long, conflicts_with = "standalone")]
    initialize: bool,

    /// Write the address of the client port to PATH once clients are served
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,

    /// Say more; twice for every detail
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// What ends the program, with its exit code.
struct Failure {
    code: u8,
    reason: String,
}

impl Failure {
    fn new(code: u8, reason: impl ToString) -> Failure {
        Failure { code, reason: reason.to_string() }
    }
}

/// Runs `znoded` with the process's own arguments.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.tool {
        Some(tool) => {
            set_up_logging("warn");
            tools::run(tool).map_err(|error| Failure::new(error.code(), error))
        }
        None => {
            set_up_logging(["info", "debug", "trace"][usize::from(arguments.verbose.min(2))]);
            run(&arguments)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.code != 0 {
                eprintln!("znoded: {}", failure.reason);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn set_up_logging(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .with_target(false)
        .init();
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = configuration(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, format!("cannot start: {error}")))?;
    let result = runtime.block_on(serve(arguments, config));
    // A recovery that was interrupted, or a purge, is not waited for.
    runtime.shutdown_background();
    result
}

fn configuration(arguments: &Arguments) -> Result<ServerConfig, Failure> {
    if let Some(directory) = &arguments.standalone {
        let listen = arguments.listen.as_deref().unwrap_or("127.0.0.1:2181");
        let address = listen_address(listen).map_err(|reason| Failure::new(2, reason))?;
        return Ok(ServerConfig::standalone(directory, address));
    }
    // clap lets nobody through without one of the two.
    let file = arguments.file.clone().unwrap_or_default();
    let LoadedConfig { mut config, warnings } =
        ServerConfig::load(&file).map_err(|error| Failure::new(2, error))?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    config.initialize = arguments.initialize;
    Ok(config)
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected HOST:PORT, such as 127.0.0.1:2181";
    let mut addresses =
        text.to_socket_addrs().map_err(|error| format!("--listen {text}: {error}; {expected}"))?;
    addresses.next().ok_or_else(|| format!("--listen {text}: no such host; {expected}"))
}

async fn serve(arguments: &Arguments, config: ServerConfig) -> Result<(), Failure> {
    let stop_signal = |kind| {
        signal(kind).map_err(|error| Failure::new(1, format!("cannot wait for signals: {error}")))
    };
    let mut terminate = stop_signal(SignalKind::terminate())?;
    let mut interrupt = stop_signal(SignalKind::interrupt())?;
    let server = tokio::select! {
        started = Server::start(config) => {
            started.map_err(|error| Failure::new(code(&error), error))?
        }
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    info!("listening on {}", server.address());
    if let Some(path) = &arguments.ready_file {
        readiness::write_ready_file(path, server.address()).map_err(|error| {
            Failure::new(1, format!("{}: ready file cannot be written: {error}", path.display()))
        })?;
    }
    readiness::notify("READY=1");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = server.failed() => return Err(Failure::new(1, reason)),
    }
    info!("stopping");
    readiness::notify("STOPPING=1");
    server.stop().await;
    Ok(())
}

/// ZooKeeper's exit codes where they fit.
fn code(error: &StartError) -> u8 {
    match error {
        StartError::Storage(StorageError::Snapshot(_) | StorageError::SnapshotsMissing { .. }) => {
            10
        }
        StartError::Tls(_) => 2,
        StartError::AdminListen { .. } => 4,
        StartError::QuorumListen { .. } => 14,
        StartError::DataDirectory(_)
        | StartError::Denied(_)
        | StartError::NotAlone { .. }
        | StartError::Storage(_) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_file_or_a_directory_is_needed_and_not_both() {
        let parse = |arguments: &[&str]| {
            Arguments::try_parse_from([&["znoded"], arguments].concat()).map_err(|e| e.kind())
        };
        assert!(parse(&["zoo.cfg"]).is_ok());
        assert!(parse(&["--standalone", "d", "--listen", "127.0.0.1:0"]).is_ok());
        assert!(parse(&["--standalone", "d", "zoo.cfg"]).is_err());
        assert!(parse(&["--listen", "127.0.0.1:0", "zoo.cfg"]).is_err());
        assert!(parse(&["--initialize", "--standalone", "d"]).is_err());
    }

    #[test]
    fn listen_addresses_are_resolved_or_explained() {
        assert_eq!(listen_address("127.0.0.1:0").unwrap(), "127.0.0.1:0".parse().unwrap());
        assert!(listen_address("2181").unwrap_err().contains("expected HOST:PORT"));
    }
}
