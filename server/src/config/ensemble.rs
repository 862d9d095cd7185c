//! The members of an ensemble as zoo.cfg names them: `server.N=host:quorum:election[:role];client`.
//! Text to values and back; no I/O, no name resolution.

use std::fmt;

use znodefs::Zxid;

/// The number of a replica, from its `myid` file: 1 to 254 where times to live are used, else to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u8);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// Votes.
    Participant,
    /// Follows without voting.
    Observer,
}

/// A host with a port; the host is a name, an IPv4 address, or an IPv6 address without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// One `server.N` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// N.
    pub server_id: ServerId,
    /// Addresses between replicas; more than one when the member has several networks. Each is the
    /// host, the quorum port and the election port.
    pub addresses: Vec<(String, u16, u16)>,
    /// Whether it votes.
    pub role: MemberRole,
    /// Where its clients connect, when the line says so.
    pub client_address: Option<HostPort>,
}

const EXPECTED: &str =
    "expected HOST:QUORUM_PORT:ELECTION_PORT[:participant|observer][;[CLIENT_HOST:]CLIENT_PORT]";

impl Member {
    /// Reads the value of a `server.N` line. An error says what is expected.
    pub fn parse(server_id: ServerId, value: &str) -> Result<Member, String> {
        let (replica_part, client_part) = match value.split_once(';') {
            Some((replica, client)) => (replica, Some(client.trim())),
            None => (value, None),
        };
        let mut role = MemberRole::Participant;
        let mut addresses = Vec::new();
        for address in replica_part.split('|') {
            let (host, rest) = split_host(address.trim()).ok_or(EXPECTED)?;
            let parts: Vec<&str> = rest.split(':').collect();
            let (quorum, election) = match parts[..] {
                [quorum, election] => (quorum, election),
                [quorum, election, role_text] => {
                    role = parse_role(role_text)?;
                    (quorum, election)
                }
                _ => return Err(EXPECTED.into()),
            };
            addresses.push((host.to_string(), parse_port(quorum)?, parse_port(election)?));
        }
        let client_address = client_part.map(parse_client_address).transpose()?;
        Ok(Member { server_id, addresses, role, client_address })
    }
}

impl fmt::Display for Member {
    /// The line without `server.N=`, as `/zookeeper/config` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, quorum, election)) in self.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { "|" };
            write!(f, "{separator}{}:{quorum}:{election}", bracketed(host))?;
        }
        f.write_str(match self.role {
            MemberRole::Participant => ":participant",
            MemberRole::Observer => ":observer",
        })?;
        match &self.client_address {
            None => Ok(()),
            Some(client) => write!(f, ";{}:{}", bracketed(&client.host), client.port),
        }
    }
}

/// One line of a configuration: `server.N=…`.
pub fn parse_line(line: &str) -> Result<Member, String> {
    let of_member = |reason: String| format!("'{}': {reason}", line.trim());
    let (name, value) = line
        .split_once('=')
        .ok_or_else(|| of_member(format!("expected server.N=…, where … is: {EXPECTED}")))?;
    let number = name.trim().strip_prefix("server.").unwrap_or_default().trim();
    let server_id = match number.parse::<u8>() {
        Ok(number) if number != 0 => ServerId(number),
        _ => return Err(of_member("expected server.N=… with N from 1 to 255".into())),
    };
    Member::parse(server_id, value).map_err(of_member)
}

/// A whole configuration: a line a member, or members separated by commas. A `version=` line and
/// comments are passed over.
pub fn parse_members(text: &str) -> Result<Vec<Member>, String> {
    let lines = text.split(['\n', ',']).map(str::trim);
    let is_member =
        |line: &&str| !line.is_empty() && !line.starts_with(['#', '!']) && !is_version(line);
    lines.filter(is_member).map(parse_line).collect()
}

fn is_version(line: &str) -> bool {
    line.strip_prefix("version").is_some_and(|rest| rest.trim_start().starts_with('='))
}

/// The version that the text of a configuration names, a zxid; `None` where it names none.
pub fn parse_version(text: &str) -> Option<Zxid> {
    let line = text.lines().map(str::trim).find(|line| is_version(line))?;
    let (_, digits) = line.split_once('=')?;
    i64::from_str_radix(digits.trim(), 16).ok().map(Zxid)
}

/// The text of a configuration, without its version.
pub fn member_lines(members: &[Member]) -> String {
    use fmt::Write;
    let mut lines = String::new();
    for member in members {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "server.{}={member}", member.server_id);
    }
    lines
}

/// What two of the members cannot both have: a number, or an address.
pub fn conflict(members: &[Member]) -> Option<String> {
    for (index, one) in members.iter().enumerate() {
        let ports = one.ports();
        let twice = ports.iter().enumerate().find(|(at, port)| ports[..*at].contains(port));
        if let Some((_, (host, port))) = twice {
            let id = one.server_id;
            return Some(format!("server.{id} has {}:{port} twice", bracketed(host)));
        }
        for other in &members[..index] {
            if one.server_id == other.server_id {
                return Some(format!("server.{} is there twice", one.server_id));
            }
            let shared = ports.iter().find(|port| other.ports().contains(port));
            if let Some((host, port)) = shared {
                let address = format!("{}:{port}", bracketed(host));
                let (one, other) = (one.server_id, other.server_id);
                return Some(format!("server.{one} and server.{other} both have {address}"));
            }
        }
    }
    None
}

impl Member {
    /// Every host with a port that it listens on.
    fn ports(&self) -> Vec<(&str, u16)> {
        let replicas = self.addresses.iter().flat_map(|(host, quorum, election)| {
            [(host.as_str(), *quorum), (host.as_str(), *election)]
        });
        let client = self.client_address.iter().filter(|client| {
            // Every member may listen on all of its own addresses.
            !matches!(client.host.as_str(), "0.0.0.0" | "::")
        });
        replicas.chain(client.map(|client| (client.host.as_str(), client.port))).collect()
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_string() }
}

/// Splits `host:rest` or `[v6]:rest`.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once("]:")?,
        None => text.split_once(':')?,
    };
    (!host.is_empty()).then_some((host, rest))
}

fn parse_role(text: &str) -> Result<MemberRole, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "participant" => Ok(MemberRole::Participant),
        "observer" => Ok(MemberRole::Observer),
        other => Err(format!("'{other}' is no role: expected participant or observer")),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let text = text.trim();
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("'{text}' is no port: expected a number from 1 to 65535; {EXPECTED}")),
    }
}

fn parse_client_address(text: &str) -> Result<HostPort, String> {
    match split_host(text) {
        Some((host, port)) => Ok(HostPort { host: host.into(), port: parse_port(port)? }),
        None => Ok(HostPort { host: "0.0.0.0".into(), port: parse_port(text)? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(value: &str) -> Member {
        Member::parse(ServerId(1), value).unwrap()
    }

    #[test]
    fn every_form_of_a_member_is_read_and_written_back() {
        let plain = member("zoo1:2888:3888");
        assert_eq!(plain.addresses, [("zoo1".to_string(), 2888, 3888)]);
        assert_eq!((plain.role, plain.client_address.clone()), (MemberRole::Participant, None));
        assert_eq!(plain.to_string(), "zoo1:2888:3888:participant");

        let full = member("[::1]:2888:3888:observer;[fe80::1]:2181");
        assert_eq!(full.addresses[0].0, "::1");
        assert_eq!(full.role, MemberRole::Observer);
        assert_eq!(full.client_address.as_ref().unwrap().host, "fe80::1");
        assert_eq!(full.to_string(), "[::1]:2888:3888:observer;[fe80::1]:2181");

        let port_only = member("h:1:2;2181");
        assert_eq!(port_only.client_address.unwrap().host, "0.0.0.0");
        assert_eq!(member("a:1:2|b:3:4;5").addresses.len(), 2);
    }

    #[test]
    fn a_configuration_is_read_from_lines_or_commas_and_written_back() {
        let lines = "server.1=a:1:2:participant;a:3\nserver.2=b:1:2:observer;0.0.0.0:3\n";
        let members = parse_members(lines).unwrap();
        assert_eq!(member_lines(&members), lines);
        let text = format!("# old\n{lines}version=100000003\n");
        assert_eq!(parse_members(&text).unwrap(), members);
        assert_eq!(parse_version(&text), Some(Zxid(0x1_0000_0003)));
        assert_eq!(parse_version(lines), None);
        assert_eq!(parse_members("server.1=a:1:2;3,server.2=b:1:2").unwrap().len(), 2);
        for wrong in ["server.0=a:1:2", "server=a:1:2", "4=a:1:2", "server.4", "server.4=a"] {
            let message = parse_members(wrong).unwrap_err();
            assert!(message.contains(wrong) && message.contains("expected"), "{message}");
        }
    }

    #[test]
    fn members_that_share_a_number_or_an_address_are_told() {
        let told = |text: &str| conflict(&parse_members(text).unwrap());
        assert_eq!(told("server.1=a:1:2;3,server.2=a:4:5;6,server.3=b:1:2;3"), None);
        assert_eq!(told("server.1=a:1:2;3,server.2=b:1:2;3"), None, "any address, two machines");
        let twice = told("server.1=a:1:2,server.1=b:1:2").unwrap();
        assert_eq!(twice, "server.1 is there twice");
        let shared = told("server.1=a:1:2,server.2=a:3:1").unwrap();
        assert_eq!(shared, "server.2 and server.1 both have a:1");
        let client = told("server.1=a:1:2;a:3,server.2=a:4:3").unwrap();
        assert_eq!(client, "server.2 and server.1 both have a:3");
        assert_eq!(told("server.1=a:1:1").unwrap(), "server.1 has a:1 twice");
    }

    #[test]
    fn malformed_members_say_what_is_expected() {
        for value in ["", "h", "h:1", "h:1:2:3:4", ":1:2", "h:0:2", "h:1:x", "h:1:2;x", "h:1:2;"] {
            let message = Member::parse(ServerId(1), value).unwrap_err();
            assert!(message.contains("expected"), "{value}: {message}");
        }
        let message = Member::parse(ServerId(1), "h:1:2:king").unwrap_err();
        assert!(message.contains("participant or observer"), "{message}");
    }
}
