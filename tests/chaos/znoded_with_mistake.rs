//! A replica as `znoded` runs it, for chaos: it makes a deliberate mistake, to show that chaos would find
//! it, or forgets with a `kill -9` what it has not synchronized, as a machine does whose power fails.
//! Nothing of either is in `znoded`.

#![allow(missing_docs, reason = "a program")]

mod forgetful_disk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use znodefs_server::config::ServerConfig;
use znodefs_server::mutation::{self, Mistake};
use znodefs_server::persistence::{Disk, FileDisk};
use znodefs_server::server::{Disks, Server, Surroundings};

use forgetful_disk::ForgetfulDisk;

const USAGE: &str = "\
usage: znoded_with_mistake [--mistake NAME] [--forgets MILLISECONDS] zoo.cfg

  --mistake NAME          `scripts/simulate --mutation list` names them
  --forgets MILLISECONDS  a sync takes so long at most, and what was not synchronized goes with the
                          process
";

struct Arguments {
    mistake: Option<Mistake>,
    forgets: Option<Duration>,
    file: PathBuf,
}

fn arguments() -> Result<Arguments, String> {
    let mut given = std::env::args().skip(1);
    let (mut mistake, mut forgets, mut file) = (None, None, None);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument}: its value is missing"));
        match argument.as_str() {
            "--mistake" => {
                let name = value()?;
                let found = Mistake::all().into_iter().find(|mistake| mistake.name() == name);
                mistake = Some(found.ok_or(format!("--mistake {name}: there is none"))?);
            }
            "--forgets" => {
                let milliseconds = value()?.parse().map_err(|_| "--forgets: not a number")?;
                forgets = Some(Duration::from_millis(milliseconds));
            }
            path => file = Some(PathBuf::from(path)),
        }
    }
    Ok(Arguments { mistake, forgets, file: file.ok_or("a zoo.cfg is missing")? })
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(reason) => {
            eprintln!("znoded_with_mistake: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    if let Some(mistake) = arguments.mistake {
        mutation::choose_for_process(mistake);
        tracing::warn!("this replica makes a mistake on purpose: {}", mistake.name());
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads of the machine");
    match runtime.block_on(serve(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("znoded: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let loaded = ServerConfig::load(&arguments.file).map_err(|error| error.to_string())?;
    let disk = FileDisk::open(&loaded.config.data_dir).map_err(|error| error.to_string())?;
    let data: Arc<dyn Disk> = match arguments.forgets {
        Some(sync_max) => Arc::new(ForgetfulDisk::new(disk, sync_max)),
        None => Arc::new(disk),
    };
    let disks = Disks { log: Arc::clone(&data), data };
    let server = tokio::select! {
        server = Server::start_on(loaded.config, disks, Surroundings::system()) => {
            server.map_err(|error| error.to_string())?
        }
        _ = terminate.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        reason = server.failed() => return Err(reason),
    }
    server.stop().await;
    Ok(())
}
