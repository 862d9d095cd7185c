//! The lines `server.N=…` of a configuration, as far as a client has to understand them. No I/O.

use znodefs::client::format_address;

/// N of a line `server.N=…`.
pub fn server_number(line: &str) -> Option<u8> {
    let number = line.trim().strip_prefix("server.")?.split_once('=')?.0;
    number.trim().parse().ok().filter(|number| *number != 0)
}

/// Whether the line's member has no vote.
pub fn is_observer(line: &str) -> bool {
    line.split(';').next().is_some_and(|replica| replica.trim_end().ends_with(":observer"))
}

/// `HOST:PORT` for clients of a line `server.N=host:quorum:election:role;[client host:]port`.
pub fn client_address(line: &str) -> Option<String> {
    let line = line.trim().strip_prefix("server.")?;
    let (replica, client) = line.split_once('=')?.1.split_once(';')?;
    let (client_host, port) = client.rsplit_once(':').unwrap_or(("0.0.0.0", client));
    let port: u16 = port.trim().parse().ok()?;
    let host = match client_host.trim_matches(['[', ']']) {
        // Every address of that machine: the one that the other replicas know.
        "" | "0.0.0.0" | "::" => match replica.trim().strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.0,
            None => replica.trim().split_once(':')?.0,
        },
        host => host,
    };
    Some(format_address(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_address_of_every_form_of_a_server_line_is_found() {
        let address = |line| client_address(line);
        let found = |text: &str| Some(text.to_string());
        assert_eq!(address("server.1=zoo1:2888:3888:participant;2181"), found("zoo1:2181"));
        assert_eq!(address("server.1=zoo1:1:2:observer;0.0.0.0:2182"), found("zoo1:2182"));
        assert_eq!(address("server.1=zoo1:1:2:observer;10.0.0.7:2182"), found("10.0.0.7:2182"));
        assert_eq!(address("server.1=[::1]:1:2:participant;[::1]:5"), found("[::1]:5"));
        assert_eq!(address("server.1=zoo1:2888:3888:participant"), None);
        assert_eq!(address("version=0"), None);
    }

    #[test]
    fn number_and_role_of_a_line_are_found() {
        assert_eq!(server_number("server.12=a:1:2;3"), Some(12));
        assert_eq!(server_number(" server.3 = a:1:2"), Some(3));
        for line in ["version=100000001", "server.0=a:1:2", "server.x=a:1:2", "server.300=a", ""] {
            assert_eq!(server_number(line), None, "{line}");
        }
        assert!(is_observer("server.1=a:1:2:observer;3"));
        assert!(!is_observer("server.1=a:1:2:participant;3") && !is_observer("server.1=a:1:2"));
    }
}
