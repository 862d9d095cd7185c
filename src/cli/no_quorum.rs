//! Why no session could be opened, when servers are up and have no quorum: they close connections
//! without a word, so they are asked.

use std::time::Duration;

use znodefs::client::Error;

use super::ensemble;
use super::failure::Failure;

/// What a server without a quorum says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It serves nobody.
    WithoutLeader,
    /// It serves who is content with reads.
    ReadOnly,
}

/// Makes an error of the attempts, each an address with the reason why it failed last.
pub(super) async fn explain(waited: Duration, attempts: Vec<(String, String)>) -> Failure {
    let mut standings = Vec::new();
    for (address, reason) in &attempts {
        // One that does not even accept has nothing to say.
        let is_up = reason.contains("closed the connection") || reason.contains("quorum");
        standings.push(if is_up { ask(address).await } else { None });
    }
    match describe(waited, &attempts, &standings) {
        Some(message) => Failure::failed(message),
        None => Failure::connecting(Error::NoServer { waited, attempts }),
    }
}

async fn ask(address: &str) -> Option<Standing> {
    let answer = ensemble::word(address, "srvr").await.ok()?;
    if answer.contains("not currently serving") {
        Some(Standing::WithoutLeader)
    } else if answer.contains("Mode: read-only") {
        Some(Standing::ReadOnly)
    } else {
        None
    }
}

/// The message; `None` when no server says that it has no quorum.
fn describe(
    waited: Duration,
    attempts: &[(String, String)],
    standings: &[Option<Standing>],
) -> Option<String> {
    if standings.iter().all(Option::is_none) {
        return None;
    }
    let told = attempts.iter().zip(standings).map(|((address, reason), standing)| match standing {
        Some(Standing::WithoutLeader) => format!("{address}: up, without a leader"),
        Some(Standing::ReadOnly) => format!("{address}: up, without a leader, serves only reads"),
        None => format!("{address}: {reason}"),
    });
    let way_out = match standings.contains(&Some(Standing::ReadOnly)) {
        true => "start more of them; --read-only reads what is there",
        false => "start more of them",
    };
    Some(format!(
        "no quorum for {:.1} s, so nothing can be read or written: {} ({way_out})",
        waited.as_secs_f64(),
        told.collect::<Vec<_>>().join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_every_server_and_the_way_out() {
        let attempts = [
            ("a:1".to_string(), "the server closed the connection".to_string()),
            ("b:2".to_string(), "connection refused".to_string()),
        ];
        let waited = Duration::from_secs(3);
        assert_eq!(describe(waited, &attempts, &[None, None]), None);
        let message = describe(waited, &attempts, &[Some(Standing::WithoutLeader), None]);
        assert_eq!(
            message.unwrap(),
            "no quorum for 3.0 s, so nothing can be read or written: a:1: up, without a leader; \
             b:2: connection refused (start more of them)"
        );
        let message = describe(waited, &attempts, &[Some(Standing::ReadOnly), None]).unwrap();
        assert!(message.contains("serves only reads") && message.contains("--read-only"));
    }
}
