//! `znode reconfig`: changes the members of the ensemble while it works.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use znodefs::client::{Client, Delivery, Error};
use znodefs::{ErrorCode, Zxid};

use super::arguments::parse_patience;
use super::config::{self, CONFIG_PATH};
use super::ensemble::word;
use super::failure::{Failure, say};
use super::server_line::{client_address, is_observer, server_number};
use super::service::{self, Service};

/// How long to pause before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Change the members of the ensemble while it works
///
/// New members have to run already: each is started with a configuration that names the present members
/// and itself, and is brought up to date without a vote. Prints the new configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  znode reconfig --add 'server.4=zk4:2888:3888;2181'            a fourth member
  znode reconfig --add 'server.4=zk4:2888:3888:observer;2181'   one without a vote, or: take 4's vote
  znode reconfig --remove 4,5                                   go without 4 and 5
  znode reconfig --remove 3 --add 'server.6=zk6:2888:3888;2181' one for another, at once
  znode config > members; edit members
  znode reconfig --members members --if-version 100000003       exactly these, if nobody was faster

The replicas need reconfigEnabled=true. /zookeeper/config is closed to writers: present the superuser's
credential (--auth digest:super:PASSWORD, see DigestAuthenticationProvider.superDigest).")]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct Reconfig {
    /// Add a member, or give one another role or other addresses (may be given again)
    #[arg(long, value_name = "SERVER", group = "change", value_parser = parse_server)]
    add: Vec<String>,
    /// Remove these members (may be given again)
    #[arg(long, value_name = "N,…", group = "change", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    remove: Vec<u8>,
    /// Make exactly these the members: a file of lines server.N=…; - stands for standard input
    #[arg(long, value_name = "FILE", group = "change", conflicts_with_all = ["add", "remove"])]
    members: Option<PathBuf>,
    /// Only if the configuration still has this version, as `znode config` shows it
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    if_version: Option<Zxid>,
    /// How long to wait for new members to be up to date; 0 for not at all
    #[arg(short, long, value_name = "DURATION", default_value = "30s", value_parser = parse_patience)]
    wait: Duration,
}

fn parse_server(text: &str) -> Result<String, String> {
    if server_number(text).is_none() {
        return Err("expected server.N=HOST:QUORUM_PORT:ELECTION_PORT[:ROLE];CLIENT_PORT".into());
    }
    if client_address(text).is_none() {
        return Err("it lacks its ;[CLIENT_HOST:]CLIENT_PORT".into());
    }
    Ok(text.trim().to_string())
}

fn parse_version(text: &str) -> Result<Zxid, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    i64::from_str_radix(digits, 16)
        .map(Zxid)
        .map_err(|_| "expected a hexadecimal number such as 100000003".into())
}

/// What the service is asked for.
struct Change {
    joining: Option<String>,
    leaving: Option<String>,
    members: Option<String>,
    from_version: Option<Zxid>,
}

impl Reconfig {
    /// Runs the command.
    pub async fn run(self, service: &Service<'_>) -> Result<(), Failure> {
        let change = self.change()?;
        let servers = config::without_chroot(service.servers);
        let service = Service { servers: &servers, ..*service };
        let client = service.open(|_: Delivery<'_>| {}, false).await?;
        let changed = self.apply(&client, &change).await;
        service::close(&client).await;
        let text = changed?;
        writeln!(std::io::stdout().lock(), "{}", text.trim_end())?;
        Ok(())
    }

    fn change(&self) -> Result<Change, Failure> {
        let joined = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
        let leaving: Vec<String> = self.remove.iter().map(u8::to_string).collect();
        let members = match &self.members {
            None => None,
            Some(file) => Some(read_members(file)?),
        };
        let (joining, leaving) = (joined(&self.add), joined(&leaving));
        Ok(Change { joining, leaving, members, from_version: self.if_version })
    }

    /// Asks until it is done, or until waiting does not help.
    async fn apply(&self, client: &Client, change: &Change) -> Result<String, Failure> {
        let deadline = Instant::now() + self.wait;
        let mut told = String::new();
        // The service asks for a quorum of the new members; whoever else is not up to date yet would
        // count for nothing at first.
        while Instant::now() < deadline {
            let current = config::read(client).await?;
            let known = by_number(current.lines());
            let mut new = members_after(&current, change);
            new.retain(|number, _| !known.contains_key(number));
            let behind = not_serving(&new).await;
            if behind.is_empty() {
                break;
            }
            tell(&mut told, format!("waiting for {} to be synchronised", behind.join(" and ")));
            sleep(RETRY_PAUSE).await;
        }
        loop {
            let asked = client.reconfig(
                change.joining.as_deref(),
                change.leaving.as_deref(),
                change.members.as_deref(),
                change.from_version,
            );
            let error = match asked.await {
                Ok((data, _)) => return Ok(text_of(data)),
                Err(error) => error,
            };
            let reason = match error.code() {
                Some(ErrorCode::NewConfigNoQuorum) => self.explain_no_quorum(client, change).await,
                Some(ErrorCode::ReconfigInProgress) => {
                    "waiting for another reconfiguration to be done".into()
                }
                _ => return self.failed(client, change, error).await,
            };
            if Instant::now() >= deadline {
                return Err(Failure::failed(format!(
                    "{CONFIG_PATH}: nothing was changed: {reason}"
                )));
            }
            tell(&mut told, reason);
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Which of the new voters cannot be seen to be up to date.
    async fn explain_no_quorum(&self, client: &Client, change: &Change) -> String {
        let current = config::read(client).await.unwrap_or_default();
        let mut wanted = members_after(&current, change);
        wanted.retain(|_, line| !is_observer(line));
        let reasons = not_serving(&wanted).await;
        if reasons.is_empty() {
            return "waiting for a quorum of the new members to be synchronised: all of them serve, \
                    but not all follow this ensemble's leader (see their logs)"
                .into();
        }
        format!("waiting for {} to be synchronised", reasons.join(" and "))
    }

    /// What to do about an error that waiting does not mend.
    async fn failed(
        &self,
        client: &Client,
        change: &Change,
        error: Error,
    ) -> Result<String, Failure> {
        if error.code().is_none() && service::is_outage(&error) {
            // The leader may have gone with the change that it was asked for.
            let now = config::read(client).await?;
            if is_done(&now, change) {
                return Ok(now);
            }
            return Err(Failure::failed(format!(
                "{CONFIG_PATH}: {error}; the configuration is the old one: try again"
            )));
        }
        let version = match error.code() {
            Some(ErrorCode::BadVersion) => config::read(client).await.unwrap_or_default(),
            _ => String::new(),
        };
        Err(Failure::operation(CONFIG_PATH, error, |code| hint(code, &version)))
    }
}

/// Says what is waited for, once.
fn tell(told: &mut String, reason: String) {
    if reason != *told {
        say(&reason);
        *told = reason;
    }
}

/// Which of these members do not serve clients, and why, as far as can be seen from here.
async fn not_serving(members: &BTreeMap<u8, String>) -> Vec<String> {
    let mut reasons = Vec::new();
    for (number, line) in members {
        let Some(address) = client_address(line) else {
            reasons.push(format!("server.{number} (its line names no client's port)"));
            continue;
        };
        match word(&address, "srvr").await {
            Ok(answer) if answer.contains("Mode: ") => {}
            Ok(_) => reasons.push(format!("server.{number} ({address} does not serve yet)")),
            Err(error) => reasons.push(format!("server.{number} ({address}: {error})")),
        }
    }
    reasons
}

fn hint(code: ErrorCode, current: &str) -> Option<String> {
    let hint = match code {
        ErrorCode::ReconfigDisabled => {
            "set reconfigEnabled=true in the configuration of every replica, and restart them one at \
             a time"
        }
        ErrorCode::Unimplemented => {
            "this replica stands alone: start it with standaloneEnabled=false and a line server.N=… \
             of its own, and it is an ensemble of one"
        }
        ErrorCode::NoAuth => {
            "present the superuser's credential: --auth digest:super:PASSWORD, where the replicas \
             have DigestAuthenticationProvider.superDigest"
        }
        ErrorCode::BadArguments => {
            "a member is server.N=HOST:QUORUM_PORT:ELECTION_PORT[:participant|observer];CLIENT_PORT, \
             no two have the same number or address, and one participant stays, two with \
             standaloneEnabled=true; the leader's log says what is wrong"
        }
        ErrorCode::BadVersion => {
            let version = current.lines().find_map(|line| line.strip_prefix("version="));
            return Some(format!(
                "the configuration is version {} by now: look at it with `znode config`",
                version.unwrap_or("unknown")
            ));
        }
        _ => return None,
    };
    Some(hint.into())
}

fn text_of(data: Option<Bytes>) -> String {
    String::from_utf8_lossy(data.as_deref().unwrap_or_default()).into_owned()
}

fn read_members(file: &std::path::Path) -> Result<String, Failure> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text
        .map_err(|error| Failure::failed(format!("{} cannot be read: {error}", file.display())))?;
    if !text.lines().any(|line| server_number(line).is_some()) {
        let reason = format!("{} has no line server.N=…", file.display());
        return Err(Failure::usage(reason));
    }
    Ok(text)
}

/// The members by number, each with its line.
fn by_number<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<u8, String> {
    lines.filter_map(|line| Some((server_number(line)?, line.trim().to_string()))).collect()
}

/// The members that a change leads to.
fn members_after(current: &str, change: &Change) -> BTreeMap<u8, String> {
    if let Some(members) = &change.members {
        return by_number(members.split(['\n', ',']));
    }
    let mut members = by_number(current.lines());
    for number in change.leaving.iter().flat_map(|list| list.split(',')) {
        members.retain(|member, _| number.parse() != Ok(*member));
    }
    members.extend(by_number(change.joining.iter().flat_map(|list| list.split(','))));
    members
}

/// Whether a configuration is what a change leads to, as far as numbers and roles go.
fn is_done(current: &str, change: &Change) -> bool {
    let shape = |members: BTreeMap<u8, String>| -> Vec<(u8, bool)> {
        members.into_iter().map(|(number, line)| (number, is_observer(&line))).collect()
    };
    shape(by_number(current.lines())) == shape(members_after(current, change))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURRENT: &str = "server.1=a:1:2:participant;3\nserver.2=b:1:2:participant;3\nversion=9";

    fn change(joining: Option<&str>, leaving: Option<&str>, members: Option<&str>) -> Change {
        let owned = |text: Option<&str>| text.map(str::to_string);
        let (joining, leaving, members) = (owned(joining), owned(leaving), owned(members));
        Change { joining, leaving, members, from_version: None }
    }

    #[test]
    fn what_a_change_leads_to_is_known_before_it_is_made() {
        let numbers =
            |change: &Change| members_after(CURRENT, change).into_keys().collect::<Vec<_>>();
        assert_eq!(numbers(&change(Some("server.3=c:1:2;3"), Some("1"), None)), [2, 3]);
        assert_eq!(numbers(&change(None, Some("2,7"), None)), [1]);
        let all = "server.4=d:1:2;3\n# none\nserver.5=e:1:2;3";
        assert_eq!(numbers(&change(None, None, Some(all))), [4, 5]);
        assert!(!is_done(CURRENT, &change(None, Some("2"), None)));
        assert!(is_done(CURRENT, &change(None, Some("7"), None)));
        assert!(!is_done(CURRENT, &change(Some("server.2=b:1:2:observer;3"), None, None)));
    }

    #[test]
    fn wrong_members_and_versions_are_refused_before_anybody_is_asked() {
        assert!(parse_server("server.4=a:1:2;3").is_ok());
        for (text, named) in [("4=a:1:2;3", "server.N="), ("server.4=a:1:2", "CLIENT_PORT")] {
            assert!(parse_server(text).unwrap_err().contains(named), "{text}");
        }
        assert_eq!(parse_version("0x100000003"), Ok(Zxid(0x1_0000_0003)));
        assert!(parse_version("latest").is_err());
    }
}
