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
use super::output::json_string;
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
  znode -s zk1:2181,zk2:2181,zk3:2181 ensemble status   of these
  znode ensemble status --all >/dev/null || page-me     somebody is missing
  znode ensemble status --json | jq -r .leader          who leads")]
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
The servers are those of --servers and, where one of them answers, all that /zookeeper/config
names. Columns: address; id; role; the last transaction applied; how many transactions behind the
leader; sessions; connections. '-' is what a server does not tell: ids and sessions need the word
mntr in its 4lw.commands.whitelist.

With --json it is one object: leader is an address or null, servers is a list of objects with
address, id, role, zxid, lag, sessions, connections and trouble, which is why a server does not
serve; null is what is not told.

Exit status: 0 when one of them leads or stands alone (with --all: and all of them serve), else 1.")]
pub struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fail when one of the servers does not serve, too
    #[arg(long)]
    all: bool,
}

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
            EnsembleCommand::Status(options) => status(service, &options).await,
        }
    }
}

async fn status(service: &Service<'_>, options: &Status) -> Result<(), Failure> {
    let mut answers: BTreeMap<String, Answers> = BTreeMap::new();
    let named = service.servers.servers.iter().map(|(host, port)| format_address(host, *port));
    ask_all(named.collect(), &mut answers).await;
    if answers.values().any(|one| one.trouble.is_none()) {
        ask_all(members(service).await, &mut answers).await;
    }
    let leader = find_leader(&answers);
    let mut out = std::io::stdout().lock();
    match options.json {
        true => writeln!(out, "{}", json(&answers, leader))?,
        false => write!(out, "{}", table(&answers, leader))?,
    }
    let missing = answers.iter().filter(|(_, one)| one.trouble.is_some());
    let missing: Vec<&str> = missing.map(|(address, _)| address.as_str()).collect();
    match leader {
        None => Err(Failure::failed(
            "no server leads: writes are refused until a majority of the voters is up",
        )),
        Some(_) if options.all && !missing.is_empty() => {
            Err(Failure::failed(format!("not serving: {}", missing.join(", "))))
        }
        Some(_) => Ok(()),
    }
}

/// The address of the one that leads. One that has not noticed yet that it was deposed says so too: the
/// newest epoch counts.
fn find_leader(answers: &BTreeMap<String, Answers>) -> Option<&str> {
    let leads = |one: &Answers| matches!(one.role(), "leader" | "standalone");
    let leaders = answers.iter().filter(|(_, one)| leads(one));
    leaders.max_by_key(|(_, one)| one.zxid()).map(|(address, _)| address.as_str())
}

fn leader_zxid(answers: &BTreeMap<String, Answers>, leader: Option<&str>) -> Option<Zxid> {
    answers.get(leader?)?.zxid()
}

/// For people.
fn table(answers: &BTreeMap<String, Answers>, leader: Option<&str>) -> String {
    let leader_zxid = leader_zxid(answers, leader);
    let mut lines = vec![row(["SERVER", "ID", "ROLE", "ZXID", "LAG", "SESSIONS", "CONNECTIONS"])];
    for (address, one) in answers {
        if let Some(trouble) = &one.trouble {
            let line = row([address, "-", "-", "-", "-", "-", "-"]);
            lines.push(format!("{}  {trouble}", line.trim_end()));
            continue;
        }
        let lag = lag(leader_zxid, one.zxid());
        lines.push(row([
            address.as_str(),
            one.get("zk_server_id"),
            one.role(),
            one.get("Zxid"),
            &lag,
            one.get("zk_global_sessions"),
            one.get("Connections"),
        ]));
    }
    lines.join("\n") + "\n"
}

/// For programs: an object on one line.
fn json(answers: &BTreeMap<String, Answers>, leader: Option<&str>) -> String {
    let leader_zxid = leader_zxid(answers, leader);
    let string = |text: Option<&str>| text.map_or("null".into(), json_string);
    let servers: Vec<String> = answers
        .iter()
        .map(|(address, one)| {
            let known = |key: &str| one.values.get(key).map(String::as_str);
            // What is no number is not told as one.
            let number = |text: Option<&str>| {
                let number = text.and_then(|text| text.parse::<u64>().ok());
                number.map_or("null".into(), |number| number.to_string())
            };
            format!(
                "{{\"address\":{},\"id\":{},\"role\":{},\"zxid\":{},\"lag\":{},\"sessions\":{},\
                 \"connections\":{},\"trouble\":{}}}",
                json_string(address),
                number(known("zk_server_id")),
                string(known("Mode")),
                string(known("Zxid")),
                number(Some(&lag(leader_zxid, one.zxid()))),
                number(known("zk_global_sessions")),
                number(known("Connections")),
                string(one.trouble.as_deref()),
            )
        })
        .collect();
    format!("{{\"leader\":{},\"servers\":[{}]}}", string(leader), servers.join(","))
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

    fn answers(role: &str, zxid: &str) -> Answers {
        let values = [("Mode", role), ("Zxid", zxid), ("zk_server_id", "2")];
        let values = values.map(|(key, value)| (key.to_string(), value.to_string()));
        Answers { values: values.into(), trouble: None }
    }

    #[test]
    fn a_leader_that_was_deposed_without_noticing_does_not_lead() {
        let all = BTreeMap::from([
            ("a:1".to_string(), answers("leader", "0x100000009")),
            ("b:1".to_string(), answers("leader", "0x200000001")),
        ]);
        assert_eq!(find_leader(&all), Some("b:1"));
    }

    #[test]
    fn programs_are_told_everything_in_one_object() {
        let down = Answers { trouble: Some("\"refused\"".into()), ..Answers::default() };
        let all = BTreeMap::from([
            ("a:1".to_string(), answers("leader", "0x100000009")),
            ("b:1".to_string(), down),
        ]);
        assert_eq!(
            json(&all, find_leader(&all)),
            r#"{"leader":"a:1","servers":[{"address":"a:1","id":2,"role":"leader","zxid":"0x100000009","lag":0,"sessions":null,"connections":null,"trouble":null},{"address":"b:1","id":null,"role":null,"zxid":null,"lag":null,"sessions":null,"connections":null,"trouble":"\"refused\""}]}"#
        );
        assert_eq!(json(&BTreeMap::new(), None), r#"{"leader":null,"servers":[]}"#);
    }

    #[test]
    fn lag_counts_transactions_within_an_epoch() {
        let zxid = |epoch, counter| Some(Zxid::new(Epoch(epoch), counter));
        assert_eq!(lag(zxid(2, 9), zxid(2, 7)), "2");
        assert_eq!(lag(zxid(3, 1), zxid(2, 7)), "epoch");
        assert_eq!(lag(None, zxid(2, 7)), "-");
    }
}
