//! The commands of `znode`, one file each, and what they share: global options, the connection, how
//! a failure is told. Data alone goes to standard output; everything else to standard error.

mod acl;
mod arguments;
mod campaign;
mod child;
mod config;
mod create;
mod elect;
mod ensemble;
mod failure;
mod follow;
mod get;
mod guard;
mod lock;
mod ls;
mod no_quorum;
mod output;
mod process_tree;
mod reconfig;
mod register;
mod rm;
mod server_line;
mod service;
mod set;
mod signals;
mod stat;
mod terminal;
mod tree_walk;
mod wait;
mod watch;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use znodefs::Credential;
use znodefs::client::{ClientOptions, ConnectString, Delivery};

use arguments::parse_duration;
use failure::Failure;
use service::Service;

/// Look at and change the znodes of a ZooKeeper ensemble.
#[derive(Debug, Parser)]
#[command(name = "znode", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// Short for --servers, before the command only
    // Behind `create`, -s means sequential, as zkCli's users know it.
    #[arg(short = 's', value_name = "SERVERS", help_heading = "Connection")]
    short_servers: Option<ConnectString>,
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  znode create -p /app/db/url 'postgres://db.example'   make a znode, and its parents
  znode get /app/db/url                                 its data, byte for byte
  znode set /app/db/url - < url.txt                     replace the data by a file's
  znode ls -l /app                                      children, with version, size, time
  znode rm -r /app                                      a znode and all below it
  znode -s zk1:2181,zk2:2181/app get /db/url            other servers, and a subtree as root

Exit status: 0 done; 1 failed, and the message says which znode and why; 2 wrong usage.";

/// Options that stand before or behind any command.
#[derive(Debug, clap::Args)]
struct Global {
    /// The servers, and the znode to take as root
    #[arg(long, global = true, value_name = "HOST[:PORT],…[/CHROOT]")]
    #[arg(env = "ZNODE_SERVERS", default_value = "127.0.0.1:2181", help_heading = "Connection")]
    servers: ConnectString,
    /// Session timeout: how long an operation outlives the loss of every server
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = parse_duration, help_heading = "Connection")]
    timeout: Duration,
    /// How long to look for a server that answers
    #[arg(long, global = true, value_name = "DURATION", default_value = "3s")]
    #[arg(value_parser = parse_duration, help_heading = "Connection")]
    connect_timeout: Duration,
    /// Be content with a server that has no quorum, and so serves only reads
    #[arg(long, global = true, help_heading = "Connection")]
    read_only: bool,
    /// A credential to present, such as digest:user:password (may be given again; other users of
    /// this machine can see it: --credentials keeps it secret)
    #[arg(long, global = true, value_name = "SCHEME:CREDENTIAL")]
    #[arg(help_heading = "Connection")]
    auth: Vec<Credential>,
    /// A file with one SCHEME:CREDENTIAL on each line; # starts a comment
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    credentials: Option<std::path::PathBuf>,
    /// Say more on standard error (-vv: still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Once(Once),
    #[command(flatten)]
    Stay(Stay),
    Ensemble(ensemble::Ensemble),
    Config(config::Config),
    Reconfig(reconfig::Reconfig),
}

/// Commands that do one thing and end.
#[derive(Debug, Subcommand)]
enum Once {
    Get(get::Get),
    Set(set::Set),
    Ls(ls::Ls),
    Create(create::Create),
    Rm(rm::Rm),
    Stat(stat::Stat),
    Acl(acl::Acl),
}

/// Commands that wait, watch or run others, and outlive a lost connection.
#[derive(Debug, Subcommand)]
enum Stay {
    Lock(lock::Lock),
    Elect(elect::Elect),
    Watch(watch::Watch),
    Wait(wait::Wait),
    Register(register::Register),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.global.verbose);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let servers = cli.short_servers.as_ref().unwrap_or(&cli.global.servers);
    let service = Service { global: &cli.global, servers };
    match cli.command {
        Command::Once(command) => run_once(command, &service).await,
        Command::Ensemble(ensemble) => ensemble.run(&service).await.map(|()| ExitCode::SUCCESS),
        Command::Config(config) => config.run(&service).await.map(|()| ExitCode::SUCCESS),
        Command::Reconfig(reconfig) => reconfig.run(&service).await.map(|()| ExitCode::SUCCESS),
        Command::Stay(Stay::Lock(lock)) => lock.run(&service).await,
        Command::Stay(Stay::Elect(elect)) => elect.run(&service).await,
        Command::Stay(Stay::Watch(watch)) => watch.run(&service).await,
        Command::Stay(Stay::Wait(wait)) => wait.run(&service).await,
        Command::Stay(Stay::Register(register)) => register.run(&service).await,
    }
}

async fn run_once(command: Once, service: &Service<'_>) -> Result<ExitCode, Failure> {
    let client = service.open(|_: Delivery<'_>| {}, false).await?;
    let result = match command {
        Once::Get(get) => get.run(&client).await,
        Once::Set(set) => set.run(&client).await,
        Once::Ls(ls) => ls.run(&client).await,
        Once::Create(create) => create.run(&client).await,
        Once::Rm(rm) => rm.run(&client).await,
        Once::Stat(stat) => stat.run(&client).await,
        Once::Acl(acl) => acl.run(&client).await,
    };
    service::close(&client).await;
    result.map(|()| ExitCode::SUCCESS)
}

impl Global {
    /// What the client is told.
    fn options(&self) -> Result<ClientOptions, Failure> {
        let mut credentials = self.auth.clone();
        if let Some(file) = &self.credentials {
            let read = Credential::read_file(file);
            credentials.extend(read.map_err(|error| Failure::usage(error.to_string()))?);
        }
        Ok(ClientOptions {
            session_timeout: self.timeout,
            connect_timeout: Some(self.connect_timeout),
            auth: credentials.iter().map(Credential::to_auth).collect(),
            read_only: self.read_only,
            ..ClientOptions::default()
        })
    }
}

/// Log lines go to standard error; RUST_LOG chooses them, else -v does.
fn start_logging(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2_and_names_the_offending_value() {
        for (arguments, named) in [
            (vec!["znode", "get", "app"], "must start with /"),
            (vec!["znode", "get", "/app/"], "must not end with /"),
            (vec!["znode", "-s", "a:b", "get", "/"], "port 'b'"),
            (vec!["znode", "--auth", "digest", "get", "/"], "SCHEME:CREDENTIAL"),
            (vec!["znode", "--timeout", "soon", "get", "/"], "soon"),
            (vec!["znode", "set", "/a"], "DATA"),
            (vec!["znode", "set", "/a", "x", "--file", "y"], "--file"),
            (vec!["znode", "rm", "/"], "root"),
            (vec!["znode", "create", "/a", "--acl", "world:anyone"], "PERMISSIONS"),
            (vec!["znode", "create", "-e", "-c", "/a"], "--container"),
            (vec!["znode", "reconfig"], "--add"),
            (vec!["znode", "reconfig", "--add", "4=a:1:2;3"], "server.N="),
            (vec!["znode", "reconfig", "--remove", "0"], "0"),
            (vec!["znode", "reconfig", "--remove", "1", "--members", "f"], "--members"),
            (vec!["znode", "frobnicate"], "frobnicate"),
        ] {
            let error = Cli::try_parse_from(&arguments).expect_err(&format!("{arguments:?}"));
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
            assert!(error.to_string().contains(named), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn every_command_has_help_with_examples() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_help().to_string();
            assert!(help.contains("znode "), "{help}");
        }
    }
}
