//! What `/commands/NAME` tells: the four-letter words' contents as JSON, under the names of
//! ZooKeeper's AdminServer. Only reads state; no sockets.

use serde_json::{Map, Value, json};

use crate::four_letter_word as words;
use crate::service::Service;
use crate::status::ReplicaRole;

/// Each command with its other names.
const COMMANDS: &[(&str, &[&str])] = &[
    ("configuration", &["conf", "config"]),
    ("environment", &["env", "envi"]),
    ("is_read_only", &["isro"]),
    ("leader", &["lead"]),
    ("monitor", &["mntr"]),
    ("ruok", &[]),
    ("server_stats", &["srvr"]),
    ("snapshot", &["snap"]),
    ("voting_view", &[]),
];

/// The names of all commands.
pub(super) fn list() -> Value {
    let all = COMMANDS.iter().map(|(name, others)| json!({ "name": name, "aliases": others }));
    json!({ "commands": all.collect::<Vec<_>>(), "probes": ["/live", "/ready"] })
}

/// What a command tells, or why it does not; `None` where there is no such command.
pub(super) fn answer(name: &str, service: &Service) -> Option<Result<Value, String>> {
    let (command, _) =
        COMMANDS.iter().find(|(command, others)| *command == name || others.contains(&name))?;
    let status = *service.status.lock();
    let needs_service = matches!(*command, "monitor" | "server_stats");
    if needs_service && !status.serves_anybody() {
        return Some(Err(words::NOT_SERVING.trim_end().to_string()));
    }
    let mut told = match *command {
        "configuration" => pairs(&words::configuration(service), '='),
        "environment" => pairs(&words::environment(), '='),
        "is_read_only" => Map::from_iter([("read_only".into(), json!(status.read_only))]),
        "leader" => Map::from_iter([
            ("is_leader".into(), json!(status.role == ReplicaRole::Leader)),
            ("leader_id".into(), json!(status.leader.map(|leader| leader.0))),
        ]),
        "monitor" => pairs(&words::monitor(service), '\t'),
        "server_stats" => pairs(&words::server_state(service, None), ':'),
        "voting_view" => {
            let members = pairs(&words::membership(service), '=');
            Map::from_iter([("current_config".into(), Value::Object(members))])
        }
        _ => Map::new(),
    };
    told.insert("command".into(), json!(command));
    told.insert("error".into(), Value::Null);
    Some(Ok(Value::Object(told)))
}

/// Lines of keys and values as an object; numbers become numbers, and keys look like ZooKeeper's.
fn pairs(text: &str, separator: char) -> Map<String, Value> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(separator)?;
        let value = value.trim();
        let value = match value.parse::<i64>() {
            Ok(number) => json!(number),
            Err(_) => value.parse::<f64>().map_or_else(|_| json!(value), |number| json!(number)),
        };
        Some((snake_case(key.strip_prefix("zk_").unwrap_or(key)), value))
    };
    text.lines().filter_map(pair).collect()
}

/// `clientPort` and `Node count` as `client_port` and `node_count`; dots stay.
fn snake_case(key: &str) -> String {
    let mut out = String::new();
    let mut previous = '_';
    for character in key.trim().chars() {
        match character {
            ' ' => out.push('_'),
            upper if upper.is_ascii_uppercase() => {
                if previous.is_ascii_lowercase() {
                    out.push('_');
                }
                out.push(upper.to_ascii_lowercase());
            }
            other => out.push(other),
        }
        previous = character;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_an_object_with_zookeepers_keys() {
        let told = pairs("zk_znode_count\t7\nzk_avg_latency\t0.5\nzk_server_state\tleader\n", '\t');
        let expected = json!({ "znode_count": 7, "avg_latency": 0.5, "server_state": "leader" });
        assert_eq!(Value::Object(told), expected);
        let told = pairs("clientPort=2181\nserver.1=h:1:2\nmembership: \n", '=');
        assert_eq!(Value::Object(told), json!({ "client_port": 2181, "server.1": "h:1:2" }));
        assert_eq!(snake_case("Node count"), "node_count");
    }
}
