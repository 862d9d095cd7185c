//! `znode ensemble`: who leads, who follows, how far each is. Asked of each server by itself through
//! four-letter words, so that it also works while there is no leader.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use znodefs::client::format_address;
use znodefs::{ErrorCode, Zxid};

use super::config::{CONFIG_PATH, without_chroot};
use super::failure::Failure;
use super::server_line::client_address;
use super::service::{self, Service};

/// How long a server may take to answer a word.
const WORD_LIMIT: Duration = Duration::from_secs(2);

/// The longest answer that is read, bytes.
const ANSWER_LENGTH_MAX: u64 = 1 << 20;

/// Look at the ensemble as a whole
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode ensemble status                                 of the servers in ZNODE_SERVERS
  znode -s zk1:2181,zk2:2181,zk3:2181 ensemble status   of these")]
pub struct Ensemble {
    #[command(subcommand)]
    command: EnsembleCommand,
}

#[derive(Debug, clap::Subcommand)]
enum EnsembleCommand {
    Status(Status),
}

/// Show who leads, who follows, and how far each server is
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The servers are those of --servers and, where one of them answers, all that /zookeeper/config names.
Columns: address; id; role; the last transaction applied; how many transactions behind the leader;
sessions; connections. '-' is what a server does not tell: ids and sessions need the word mntr in its
4lw.commands.whitelist.

Exit status: 0 when one of them leads or stands alone, else 1.")]
pub struct Status {}

/// What one server says of itself.
#[derive(Debug, Default)]
struct Answers {
    /// The values of `srvr` and `mntr`.
    values: HashMap<String, String>,
    /// Why it is not serving.
    trouble: Option<String>,
}

impl Answers {
    fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("-", String::as_str)
    }

    fn role(&self) -> &str {
        self.get("Mode")
    }

    fn zxid(&self) -> Option<Zxid> {
        let digits = self.values.get("Zxid")?.strip_prefix("0x")?;
        i64::from_str_radix(digits, 16).ok().map(Zxid)
    }
}

impl Ensemble {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<(), Failure> {
        match self.command {
            EnsembleCommand::Status(Status {}) => status(service).await,
        }
    }
}

async fn status(service: &Service<'_>) -> Result<(), Failure> {
    let mut answers: BTreeMap<String, Answers> = BTreeMap::new();
    let named = service.servers.servers.iter().map(|(host, port)| format_address(host, *port));
    ask_all(named.collect(), &mut answers).await;
    if answers.values().any(|one| one.trouble.is_none()) {
        ask_all(members(service).await, &mut answers).await;
    }
    let leader = answers.values().find(|one| matches!(one.role(), "leader" | "standalone"));
    let leader_zxid = leader.and_then(Answers::zxid);
    let has_leader = leader.is_some();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", row(["SERVER", "ID", "ROLE", "ZXID", "LAG", "SESSIONS", "CONNECTIONS"]))?;
    for (address, one) in &answers {
        if let Some(trouble) = &one.trouble {
            let line = row([address, "-", "-", "-", "-", "-", "-"]);
            writeln!(out, "{}  {trouble}", line.trim_end())?;
            continue;
        }
        let lag = lag(leader_zxid, one.zxid());
        let columns = [
            address.as_str(),
            one.get("zk_server_id"),
            one.role(),
            one.get("Zxid"),
            &lag,
            one.get("zk_global_sessions"),
            one.get("Connections"),
        ];
        writeln!(out, "{}", row(columns))?;
    }
    if has_leader {
        return Ok(());
    }
    Err(Failure::failed("no server leads: writes are refused until a majority of the voters is up"))
}

fn row(columns: [&str; 7]) -> String {
    let [address, id, role, zxid, lag, sessions, connections] = columns;
    let line = format!(
        "{address:<21} {id:>3}  {role:<10} {zxid:<14} {lag:>6} {sessions:>9} {connections:>12}"
    );
    line.trim_end().to_string()
}

/// How many transactions a server is behind the leader.
fn lag(leader: Option<Zxid>, own: Option<Zxid>) -> String {
    match (leader, own) {
        (Some(leader), Some(own)) if leader.epoch() == own.epoch() => {
            leader.counter().saturating_sub(own.counter()).to_string()
        }
        (Some(leader), Some(own)) if leader.epoch() > own.epoch() => "epoch".into(),
        _ => "-".into(),
    }
}

/// Where the clients of the configured members connect; none where it cannot be read.
async fn members(service: &Service<'_>) -> Vec<String> {
    let servers = without_chroot(service.servers);
    let service = Service { servers: &servers, ..*service };
    let Ok(client) = service.open(|_: znodefs::client::Delivery<'_>| {}, false).await else {
        return Vec::new();
    };
    let config = client.get_data(CONFIG_PATH, false).await;
    service::close(&client).await;
    match config {
        Ok((data, _)) => {
            let text = String::from_utf8_lossy(data.as_deref().unwrap_or_default()).into_owned();
            text.lines().filter_map(client_address).collect()
        }
        Err(error) if error.code() == Some(ErrorCode::NoNode) => Vec::new(),
        Err(error) => {
            super::failure::say(&format!("{CONFIG_PATH}: {error}"));
            Vec::new()
        }
    }
}

async fn ask_all(addresses: Vec<String>, answers: &mut BTreeMap<String, Answers>) {
    let unknown = addresses.into_iter().filter(|address| !answers.contains_key(address));
    let mut asking = tokio::task::JoinSet::new();
    for address in unknown {
        asking.spawn(async move {
            let answer = ask(&address).await;
            (address, answer)
        });
    }
    // A task that panicked has told so.
    while let Some(Ok((address, answer))) = asking.join_next().await {
        answers.insert(address, answer);
    }
}

async fn ask(address: &str) -> Answers {
    let mut answers = Answers::default();
    match word(address, "srvr").await {
        Ok(text) if text.contains("Mode: ") => {
            let values = text.lines().filter_map(|line| line.split_once(": "));
            let owned = values.map(|(key, value)| (key.to_string(), value.to_string()));
            answers.values.extend(owned);
        }
        Ok(text) => answers.trouble = Some(text.trim().to_string()),
        Err(error) => answers.trouble = Some(error.to_string()),
    }
    if answers.trouble.is_none()
        && let Ok(text) = word(address, "mntr").await
    {
        let values = text.lines().filter_map(|line| line.split_once('\t'));
        let owned = values.map(|(key, value)| (key.to_string(), value.to_string()));
        answers.values.extend(owned);
    }
    answers
}

/// The answer to a four-letter word.
pub(super) async fn word(address: &str, word: &str) -> std::io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_LENGTH_MAX).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    match tokio::time::timeout(WORD_LIMIT, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::other("no answer within 2 s")),
    }
}

#[cfg(test)]
mod tests {
    use znodefs::Epoch;

    use super::*;

    #[test]
    fn lag_counts_transactions_within_an_epoch() {
        let zxid = |epoch, counter| Some(Zxid::new(Epoch(epoch), counter));
        assert_eq!(lag(zxid(2, 9), zxid(2, 7)), "2");
        assert_eq!(lag(zxid(3, 1), zxid(2, 7)), "epoch");
        assert_eq!(lag(None, zxid(2, 7)), "-");
    }
}
