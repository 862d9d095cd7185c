//! `znode config`: the members of the ensemble, as `/zookeeper/config` names them.

use std::io::Write;

use znodefs::client::{Client, ConnectString, Delivery};

use super::failure::Failure;
use super::server_line::client_address;
use super::service::{self, Service};

/// The znode that names the members.
pub const CONFIG_PATH: &str = "/zookeeper/config";

/// Print the members of the ensemble and the version of this configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode config                        server.N=… for each member, and version=…
  znode config --connect              HOST:PORT,… for clients
  znode config > members              to be edited, and given to `znode reconfig --members members`

A chroot in --servers does not count here. While the configuration is only that of the replicas' files,
the version is 0.")]
pub struct Config {
    /// Print where clients connect, as --servers takes it, instead of the members
    #[arg(short, long)]
    connect: bool,
}

impl Config {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<(), Failure> {
        let servers = without_chroot(service.servers);
        let service = Service { servers: &servers, ..*service };
        let client = service.open(|_: Delivery<'_>| {}, false).await?;
        let config = read(&client).await;
        service::close(&client).await;
        let text = config?;
        let mut out = std::io::stdout().lock();
        if self.connect {
            let addresses: Vec<String> = text.lines().filter_map(client_address).collect();
            if addresses.is_empty() {
                return Err(Failure::failed(format!("{CONFIG_PATH} names no client's port")));
            }
            writeln!(out, "{}", addresses.join(","))?;
        } else if !text.is_empty() {
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// The servers with the real root as root: the configuration is outside of every subtree.
pub fn without_chroot(servers: &ConnectString) -> ConnectString {
    ConnectString { chroot: None, ..servers.clone() }
}

/// The text of the configuration; empty where a replica stands alone.
pub async fn read(client: &Client) -> Result<String, Failure> {
    // Whoever was just asked may lag behind what another replica has said.
    let read = async {
        client.sync(CONFIG_PATH).await?;
        client.get_data(CONFIG_PATH, false).await
    };
    let (data, _) = read.await.map_err(|error| Failure::operation(CONFIG_PATH, error, |_| None))?;
    Ok(String::from_utf8_lossy(data.as_deref().unwrap_or_default()).into_owned())
}
