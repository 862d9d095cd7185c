//! The text that names the servers and the subtree a client works in. No I/O.

use std::fmt;
use std::str::FromStr;

use super::error::Error;
use crate::path;

/// The port of a server that is named without one.
pub const PORT_DEFAULT: u16 = 2181;

/// The servers of an ensemble, and the znode that is the client's root:
/// `HOST[:PORT],…[/CHROOT]`, where an IPv6 address with a port stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectString {
    /// Host name or address, and port, of every server.
    pub servers: Vec<(String, u16)>,
    /// The znode that the client sees as `/`; `None` for the real root.
    pub chroot: Option<String>,
}

impl FromStr for ConnectString {
    type Err = Error;

    fn from_str(text: &str) -> Result<ConnectString, Error> {
        parse(text).map_err(|reason| Error::InvalidConnectString { text: text.into(), reason })
    }
}

fn parse(text: &str) -> Result<ConnectString, String> {
    let (hosts, chroot) = match text.find('/') {
        Some(slash) => (&text[..slash], &text[slash..]),
        None => (text, "/"),
    };
    path::validate(chroot)
        .map_err(|error| format!("the chroot cannot be a path: {}", error.reason))?;
    let chroot = (chroot != "/").then(|| chroot.to_string());
    let servers =
        hosts.split(',').map(|server| parse_server(server.trim())).collect::<Result<_, _>>()?;
    Ok(ConnectString { servers, chroot })
}

fn parse_server(server: &str) -> Result<(String, u16), String> {
    if server.is_empty() {
        return Err("a server's name is empty".into());
    }
    if let Some(bracketed) = server.strip_prefix('[') {
        let (host, rest) =
            bracketed.split_once(']').ok_or_else(|| format!("'{server}' lacks its ]"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(server, port)?,
            None if rest.is_empty() => PORT_DEFAULT,
            None => return Err(format!("'{server}' goes on after its ] without a :")),
        };
        return named(server, host, port);
    }
    match server.split_once(':') {
        // Several colons without brackets: an IPv6 address without a port.
        Some((_, rest)) if rest.contains(':') => named(server, server, PORT_DEFAULT),
        Some((host, port)) => named(server, host, parse_port(server, port)?),
        None => named(server, server, PORT_DEFAULT),
    }
}

fn named(server: &str, host: &str, port: u16) -> Result<(String, u16), String> {
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(format!("'{server}' has no usable host name"));
    }
    Ok((host.into(), port))
}

fn parse_port(server: &str, port: &str) -> Result<u16, String> {
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("'{server}' has the port '{port}', which is not within 1 to 65535")),
    }
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, port)) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", format_address(host, *port))?;
        }
        f.write_str(self.chroot.as_deref().unwrap_or(""))
    }
}

/// `HOST:PORT`, with brackets where the host is an IPv6 address.
pub fn format_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(list: &[(&str, u16)]) -> Vec<(String, u16)> {
        list.iter().map(|(host, port)| (host.to_string(), *port)).collect()
    }

    #[test]
    fn hosts_ports_and_chroot_are_told_apart() {
        let parsed: ConnectString = "a:1,b,10.0.0.1:2182/app/x".parse().unwrap();
        assert_eq!(parsed.servers, servers(&[("a", 1), ("b", 2181), ("10.0.0.1", 2182)]));
        assert_eq!(parsed.chroot.as_deref(), Some("/app/x"));
        assert_eq!(parsed.to_string(), "a:1,b:2181,10.0.0.1:2182/app/x");
        let parsed: ConnectString = "a:1/".parse().unwrap();
        assert_eq!(parsed.chroot, None);
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets_when_they_have_a_port() {
        let parsed: ConnectString = "[::1]:2182,[fe80::1],::1".parse().unwrap();
        assert_eq!(parsed.servers, servers(&[("::1", 2182), ("fe80::1", 2181), ("::1", 2181)]));
        assert_eq!(parsed.to_string(), "[::1]:2182,[fe80::1]:2181,[::1]:2181");
    }

    #[test]
    fn every_refusal_says_which_part_is_wrong() {
        for (text, part) in [
            ("", "empty"),
            ("a,,b", "empty"),
            ("a:port", "'port'"),
            ("a:0", "'0'"),
            ("a:70000", "'70000'"),
            (":2181", "no usable host"),
            ("a b:1", "no usable host"),
            ("[::1", "lacks its ]"),
            ("[::1]x", "goes on"),
            ("a/b/", "path: it must not end with /"),
            ("a//b", "path: it has an empty component"),
        ] {
            let error = text.parse::<ConnectString>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
